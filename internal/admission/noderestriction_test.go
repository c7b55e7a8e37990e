package admission

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/timonel/timonel/internal/authz"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/user"
	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// nodeCluster is what NodeRestriction reads.
type nodeCluster map[string]object.Object

func (c nodeCluster) Get(_ context.Context, r schema.GroupResource, namespace, name string) (object.Object, error) {
	if o := c[r.Resource+"/"+object.Key(namespace, name)]; o != nil {
		return o, nil
	}
	return nil, apierrors.NewNotFound(r, name)
}

func (c nodeCluster) List(context.Context, schema.GroupResource, string) ([]object.Object, error) {
	return nil, nil
}

// audienceRight lets nodes ask for tokens of one more audience.
type audienceRight string

func (a audienceRight) Authorize(_ context.Context, q *authz.Attributes) (authz.Decision, string, error) {
	if q.Verb == requestAudience && q.Resource == string(a) && q.Namespace == "ns" && q.Name == "sa" {
		return authz.Allow, "", nil
	}
	return authz.NoOpinion, "", nil
}

func nodeDefinition(group, plural, kindName string) *kind.Definition {
	d := &kind.Definition{Group: group, Version: "v1", Kind: kindName, Plural: plural}
	d.Complete()
	return d
}

func mirrorPod(change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", Annotations: map[string]string{corev1.MirrorPodAnnotationKey: "x"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "me", UID: "me-uid", Controller: ptr.To(true)}}},
		Spec: corev1.PodSpec{NodeName: "me"}}
	for _, c := range change {
		c(p)
	}
	return p
}

func podOn(node string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "p-uid"}, Spec: corev1.PodSpec{NodeName: node, ServiceAccountName: "sa"}}
	for _, c := range change {
		c(p)
	}
	return p
}

func nodeNamed(name string, change ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "me-uid"}}
	for _, c := range change {
		c(n)
	}
	return n
}

func tokenFor(pod string, uid types.UID, audiences ...string) *authenticationv1.TokenRequest {
	r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences}}
	if pod != "" {
		r.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod, UID: uid}
	}
	return r
}

func signing(t *testing.T, signer, cn string) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return &certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{SignerName: signer,
		Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})}}
}

// TestNodeRestriction is corpus admission/node-restriction, and what documentation says besides.
func TestNodeRestriction(t *testing.T) {
	nodes, podsOf, accounts := nodeDefinition("", "nodes", "Node"), nodeDefinition("", "pods", "Pod"), nodeDefinition("", "serviceaccounts", "ServiceAccount")
	claims, leases := nodeDefinition("", "persistentvolumeclaims", "PersistentVolumeClaim"), nodeDefinition("coordination.k8s.io", "leases", "Lease")
	csiNodes, slices := nodeDefinition("storage.k8s.io", "csinodes", "CSINode"), nodeDefinition("resource.k8s.io", "resourceslices", "ResourceSlice")
	requests := nodeDefinition("certificates.k8s.io", "certificatesigningrequests", "CertificateSigningRequest")
	pcrs := nodeDefinition("certificates.k8s.io", "podcertificaterequests", "PodCertificateRequest")
	withToken := podOn("me", func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{
			{Name: "t", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}}, {ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "vault"}}}}}},
			{Name: "c", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "pvc"}}},
		}
	})
	cluster := nodeCluster{
		"nodes/me": nodeNamed("me"), "pods/ns/p": withToken,
		"pods/ns/q":                     podOn("other", func(p *corev1.Pod) { p.Name, p.UID = "q", "p-uid" }),
		"serviceaccounts/ns/sa":         &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{UID: "sa-uid"}},
		"persistentvolumeclaims/ns/pvc": &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "pv"}},
		"persistentvolumes/pv": &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{
			CSI: &corev1.CSIPersistentVolumeSource{Driver: "csi"}}}},
		"csidrivers/csi": &storagev1.CSIDriver{Spec: storagev1.CSIDriverSpec{TokenRequests: []storagev1.TokenRequest{{Audience: "disk"}}}},
	}
	label := func(key string) func(*corev1.Node) {
		return func(n *corev1.Node) { n.Labels = map[string]string{key: "x"} }
	}
	lease := func(name string) *coordinationv1.Lease {
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}
	}
	sliceOf := func(node string) *resourcev1.ResourceSlice {
		return &resourcev1.ResourceSlice{Spec: resourcev1.ResourceSliceSpec{NodeName: &node}}
	}
	capacity := &corev1.PersistentVolumeClaim{Status: corev1.PersistentVolumeClaimStatus{Capacity: corev1.ResourceList{"storage": resource.MustParse("1Gi")}}}
	certificate := func(pod string) *certificatesv1.PodCertificateRequest {
		return &certificatesv1.PodCertificateRequest{Spec: certificatesv1.PodCertificateRequestSpec{NodeName: "me", PodName: pod, PodUID: "p-uid", ServiceAccountName: "sa", ServiceAccountUID: "sa-uid"}}
	}
	const ok = ""
	for _, c := range []struct {
		name string
		r    *Request
		want string
	}{
		{"another node", &Request{Operation: Create, Definition: nodes, Object: nodeNamed("you")}, `nodes "you" is forbidden: node "me" is not allowed to modify node "you"`},
		{"own node", &Request{Operation: Create, Definition: nodes, Object: nodeNamed("me", label("kubernetes.io/hostname"))}, ok},
		{"own node with a reserved label", &Request{Operation: Create, Definition: nodes, Object: nodeNamed("me", label("node-role.kubernetes.io/x"))}, "is not allowed to modify labels: node-role.kubernetes.io/x"},
		{"own label", &Request{Operation: Update, Definition: nodes, Name: "me", Object: nodeNamed("me", label("example.com/a")), Old: nodeNamed("me")}, ok},
		{"kubelet's label", &Request{Operation: Update, Definition: nodes, Name: "me", Object: nodeNamed("me", label("x.node.kubernetes.io/a")), Old: nodeNamed("me")}, ok},
		{"restricted label", &Request{Operation: Update, Definition: nodes, Name: "me", Object: nodeNamed("me", label("node-restriction.kubernetes.io/a")), Old: nodeNamed("me")},
			`nodes "me" is forbidden: is not allowed to modify labels: node-restriction.kubernetes.io/a`},
		{"restricted label removed", &Request{Operation: Update, Definition: nodes, Name: "me", Object: nodeNamed("me"), Old: nodeNamed("me", label("a.k8s.io/a"))}, "a.k8s.io/a"},
		{"own taints", &Request{Operation: Update, Definition: nodes, Name: "me", Object: nodeNamed("me"), Old: nodeNamed("me", func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "a"}} })},
			`nodes "me" is forbidden: node "me" is not allowed to modify taints`},
		{"own status", &Request{Operation: Update, Subresource: "status", Definition: nodes, Name: "me", Object: nodeNamed("me"), Old: nodeNamed("me")}, ok},
		{"another's status", &Request{Operation: Update, Subresource: "status", Definition: nodes, Name: "you", Object: nodeNamed("you"), Old: nodeNamed("you")}, "not allowed to modify node"},
		{"owners of itself", &Request{Operation: Update, Definition: nodes, Name: "me", Object: nodeNamed("me", func(n *corev1.Node) { n.OwnerReferences = []metav1.OwnerReference{{}} }), Old: nodeNamed("me")}, "ownerReferences"},

		{"a pod", &Request{Operation: Create, Definition: podsOf, Namespace: "ns", Object: podOn("me")},
			`pods "p" is forbidden: pod does not have "kubernetes.io/config.mirror" annotation, node "me" can only create mirror pods`},
		{"mirror pod", &Request{Operation: Create, Definition: podsOf, Namespace: "ns", Object: mirrorPod()}, ok},
		{"mirror pod without owner", &Request{Operation: Create, Definition: podsOf, Object: mirrorPod(func(p *corev1.Pod) { p.OwnerReferences = nil })},
			`pods "p" is forbidden: node "me" can only create pods with an owner reference set to itself`},
		{"mirror pod of another", &Request{Operation: Create, Definition: podsOf, Object: mirrorPod(func(p *corev1.Pod) { p.Spec.NodeName = "you" })}, "spec.nodeName set to itself"},
		{"mirror pod with a secret", &Request{Operation: Create, Definition: podsOf, Object: mirrorPod(func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{}}}}
		})}, "can not create pods that reference secrets"},
		{"mirror pod with an account", &Request{Operation: Create, Definition: podsOf, Object: mirrorPod(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "sa" })}, "a service account"},
		{"mirror pod with a claim", &Request{Operation: Create, Definition: podsOf, Object: mirrorPod(func(p *corev1.Pod) { p.Spec.ResourceClaims = []corev1.PodResourceClaim{{}} })}, "resourceclaims"},
		{"mirror pod of an older self", &Request{Operation: Create, Definition: podsOf, Object: mirrorPod(func(p *corev1.Pod) { p.OwnerReferences[0].UID = "old" })}, "UID mismatch"},
		{"delete own pod", &Request{Operation: Delete, Definition: podsOf, Namespace: "ns", Name: "p", Old: podOn("me")}, ok},
		{"delete another's pod", &Request{Operation: Delete, Definition: podsOf, Namespace: "ns", Name: "q"}, "can only delete pods"},
		{"own pod's status", &Request{Operation: Update, Subresource: "status", Definition: podsOf, Object: podOn("me"), Old: podOn("me")}, ok},
		{"another pod's status", &Request{Operation: Update, Subresource: "status", Definition: podsOf, Object: podOn("you"), Old: podOn("you")}, "can only update pod status"},
		{"labels by status", &Request{Operation: Update, Subresource: "status", Definition: podsOf, Object: podOn("me", func(p *corev1.Pod) { p.Labels = map[string]string{"a": ""} }), Old: podOn("me")}, "cannot update labels"},
		{"claims by status", &Request{Operation: Update, Subresource: "status", Definition: podsOf, Object: podOn("me", func(p *corev1.Pod) { p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "x"}} }), Old: podOn("me")}, "resource claim statuses"},
		{"evict own pod", &Request{Operation: Create, Subresource: "eviction", Definition: podsOf, Namespace: "ns", Name: "p"}, ok},
		{"evict another's pod", &Request{Operation: Create, Subresource: "eviction", Definition: podsOf, Namespace: "ns", Name: "q"}, "can only evict"},
		{"bind a pod", &Request{Operation: Create, Subresource: "binding", Definition: podsOf, Namespace: "ns", Name: "p"}, `unexpected pod subresource "binding"`},

		{"size of a claim", &Request{Operation: Update, Subresource: "status", Definition: claims, Object: capacity, Old: &corev1.PersistentVolumeClaim{}}, ok},
		{"phase of a claim", &Request{Operation: Update, Subresource: "status", Definition: claims, Object: &corev1.PersistentVolumeClaim{Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimLost}}, Old: &corev1.PersistentVolumeClaim{}}, "not allowed to update fields other than"},

		{"token", &Request{Operation: Create, Subresource: "token", Definition: accounts, Namespace: "ns", Name: "sa", Object: tokenFor("p", "p-uid")}, ok},
		{"token for an audience", &Request{Operation: Create, Subresource: "token", Definition: accounts, Namespace: "ns", Name: "sa", Object: tokenFor("p", "p-uid", "vault")}, ok},
		{"token for a driver", &Request{Operation: Create, Subresource: "token", Definition: accounts, Namespace: "ns", Name: "sa", Object: tokenFor("p", "p-uid", "disk")}, ok},
		{"token for an audience allowed by rights", &Request{Operation: Create, Subresource: "token", Definition: accounts, Namespace: "ns", Name: "sa", Object: tokenFor("p", "p-uid", "registry")}, ok},
		{"token for another audience", &Request{Operation: Create, Subresource: "token", Definition: accounts, Namespace: "ns", Name: "sa", Object: tokenFor("p", "p-uid", "bank")}, `audience "bank" not found in pod spec volume`},
		{"token for two audiences", &Request{Operation: Create, Subresource: "token", Definition: accounts, Namespace: "ns", Name: "sa", Object: tokenFor("p", "p-uid", "vault", "disk")}, "0 or 1 audiences"},
		{"token of no pod", &Request{Operation: Create, Subresource: "token", Definition: accounts, Namespace: "ns", Name: "sa", Object: tokenFor("", "")}, "not bound to a pod"},
		{"token without uid", &Request{Operation: Create, Subresource: "token", Definition: accounts, Namespace: "ns", Name: "sa", Object: tokenFor("p", "")}, "without a uid"},
		{"token of another's pod", &Request{Operation: Create, Subresource: "token", Definition: accounts, Namespace: "ns", Name: "sa", Object: tokenFor("q", "p-uid")}, "scheduled on a different node"},

		{"own lease", &Request{Operation: Create, Definition: leases, Namespace: "kube-node-lease", Object: lease("me")}, ok},
		{"another's lease", &Request{Operation: Create, Definition: leases, Namespace: "kube-node-lease", Object: lease("you")}, "same name as the requesting node"},
		{"lease elsewhere", &Request{Operation: Update, Definition: leases, Namespace: "ns", Name: "me", Object: lease("me")}, `"kube-node-lease" system namespace`},
		{"another's CSINode", &Request{Operation: Delete, Definition: csiNodes, Name: "you"}, "can only access CSINode"},
		{"own slice", &Request{Operation: Create, Definition: slices, Object: sliceOf("me")}, ok},
		{"another's slice", &Request{Operation: Update, Definition: slices, Object: sliceOf("me"), Old: sliceOf("you")}, "same NodeName"},
		{"own certificate", &Request{Operation: Create, Definition: requests, Object: signing(t, certificatesv1.KubeletServingSignerName, "system:node:me")}, ok},
		{"another's certificate", &Request{Operation: Create, Definition: requests, Object: signing(t, certificatesv1.KubeletServingSignerName, "system:node:you")}, "can only create a node CSR with CN=system:node:me"},
		{"certificate of another sort", &Request{Operation: Create, Definition: requests, Object: signing(t, "example.com/x", "y")}, ok},
		{"pod certificate", &Request{Operation: Create, Definition: pcrs, Namespace: "ns", Object: certificate("p")}, ok},
		{"pod certificate of another's pod", &Request{Operation: Create, Definition: pcrs, Namespace: "ns", Object: certificate("q")}, "is not running on node"},
		{"what does not concern nodes", &Request{Operation: Create, Definition: nodeDefinition("", "events", "Event"), Object: &corev1.Event{}}, ok},
	} {
		t.Run(c.name, func(t *testing.T) {
			plugin := NodeRestriction(cluster, audienceRight("registry"))
			c.r.User = &user.Info{Name: "jane"}
			if err := plugin.Check(t.Context(), c.r); err != nil {
				t.Errorf("jane, who is no node: %v", err)
			}
			c.r.User = &user.Info{Name: "system:node:me", Groups: []string{"system:nodes"}}
			err := plugin.Check(t.Context(), c.r)
			if c.want == ok && err != nil || c.want != ok && (err == nil || !strings.Contains(err.Error(), c.want) || !apierrors.IsForbidden(err)) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
	t.Run("a node without a name", func(t *testing.T) {
		r := &Request{Operation: Create, Definition: nodes, Object: nodeNamed("me"), User: &user.Info{Name: "x", Groups: []string{"system:nodes"}}}
		if err := NodeRestriction(cluster, audienceRight("")).Check(t.Context(), r); !apierrors.IsForbidden(err) {
			t.Errorf("%v", err)
		}
	})
}

func TestGrants(t *testing.T) {
	rbac := authz.NewRBAC()
	plugin := Grants(rbac, rbac)
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "r"}, Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}}}
	r := &Request{Operation: Create, Definition: nodeDefinition(rbacv1.GroupName, "roles", "Role"), Namespace: "ns", Object: role, User: &user.Info{Name: "jane"}}
	if err := plugin.Check(t.Context(), r); !apierrors.IsForbidden(err) {
		t.Errorf("%v", err)
	}
	r.Operation, r.Object, r.Old = Delete, nil, role
	if err := plugin.Check(t.Context(), r); err != nil {
		t.Errorf("%v", err)
	}
}
