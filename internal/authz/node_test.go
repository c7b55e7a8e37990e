package authz

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/user"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/utils/ptr"
)

// pod makes a pod on a node that refers to objects: "secret:a", "configmap:b", "claim:c", "sa:d", "resourceclaim:e".
func pod(namespace, name, node string, refs ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	p.Spec.NodeName = node
	for _, ref := range refs {
		kind, name, _ := strings.Cut(ref, ":")
		volume := func(source corev1.VolumeSource) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: source})
		}
		switch kind {
		case "secret":
			volume(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: name}})
		case "pull":
			p.Spec.ImagePullSecrets = append(p.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
		case "env":
			p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Env: []corev1.EnvVar{{ValueFrom: &corev1.EnvVarSource{
				SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}}}})
		case "configmap":
			volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{
				ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}}}})
		case "claim":
			volume(corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}})
		case "ephemeral":
			volume(corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}})
		case "sa":
			p.Spec.ServiceAccountName = name
		case "resourceclaim":
			p.Status.ResourceClaimStatuses = append(p.Status.ResourceClaimStatuses, corev1.PodResourceClaimStatus{ResourceClaimName: ptr.To(name)})
		}
	}
	return p
}

func nodeUser(name string) *user.Info {
	return &user.Info{Name: "system:node:" + name, Groups: []string{"system:nodes", "system:authenticated"}}
}

func TestNodeDecisions(t *testing.T) {
	n := NewNode()
	mirror := pod("ns", "mirror", "one", "secret:by-mirror")
	mirror.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	n.Reset([]object.Object{
		pod("ns", "p", "one", "secret:s", "pull:pull", "env:env", "configmap:c", "claim:pvc", "ephemeral:scratch", "sa:robot", "resourceclaim:rc"),
		pod("ns", "q", "two", "secret:other"),
		pod("ns", "waiting", "", "secret:later"),
		mirror,
		&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{
			ClaimRef: &corev1.ObjectReference{Namespace: "ns", Name: "pvc"},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				NodePublishSecretRef: &corev1.SecretReference{Namespace: "storage", Name: "disk"}}}}},
		&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "unused"}, Spec: corev1.PersistentVolumeSpec{ClaimRef: &corev1.ObjectReference{Namespace: "ns", Name: "x"}}},
		&storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: "va"}, Spec: storagev1.VolumeAttachmentSpec{NodeName: "one"}},
		&resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "slice"}, Spec: resourcev1.ResourceSliceSpec{NodeName: ptr.To("one")}},
		&certificatesv1.PodCertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pcr"}, Spec: certificatesv1.PodCertificateRequestSpec{NodeName: "one"}},
	})
	const none = "node: no relationship found between node '%' and this object"
	for _, c := range []struct{ node, request, want string }{
		{"one", "get /secrets=s@ns", "allow"},
		{"one", "watch /secrets=s@ns", "allow"},
		{"one", "list /secrets=pull@ns", "allow"},
		{"one", "get /secrets=env@ns", "allow"},
		{"one", "get /secrets=disk@storage", "allow"},
		{"two", "get /secrets=disk@storage", none},
		{"two", "get /secrets=s@ns", none},
		{"one", "get /secrets=s@other", none},
		{"one", "get /secrets=later@ns", none},
		{"one", "get /secrets=by-mirror@ns", none},
		{"one", "list /secrets@ns", "node: No Object name found"},
		{"one", "update /secrets=s@ns", onlyRead},
		{"one", "get /configmaps=c@ns", "allow"},
		{"two", "get /configmaps=c@ns", none},
		{"one", "get /persistentvolumeclaims=pvc@ns", "allow"},
		{"one", "get /persistentvolumeclaims=p-scratch@ns", "allow"},
		{"one", "patch /persistentvolumeclaims/status=pvc@ns", "allow"},
		{"one", "update /persistentvolumeclaims=pvc@ns", onlyGet},
		{"one", "get /persistentvolumes=pv", "allow"},
		{"two", "get /persistentvolumes=pv", none},
		{"one", "get /persistentvolumes=unused", none},
		{"one", "get storage.k8s.io/volumeattachments=va", "allow"},
		{"two", "get storage.k8s.io/volumeattachments=va", none},
		{"one", "create /serviceaccounts/token=robot@ns", "allow"},
		{"one", "get /serviceaccounts=robot@ns", "allow"},
		{"two", "create /serviceaccounts/token=robot@ns", none},
		{"one", "update /serviceaccounts/token=robot@ns", onlyTokens},
		{"one", "get resource.k8s.io/resourceclaims=rc@ns", "allow"},
		{"two", "get resource.k8s.io/resourceclaims=rc@ns", none},
		{"one", "get resource.k8s.io/resourceslices=slice", "allow"},
		{"two", "delete resource.k8s.io/resourceslices=slice", none},
		{"two", "create resource.k8s.io/resourceslices", "allow"},
		{"one", "list resource.k8s.io/resourceslices", onlyOwnSlice},
		{"one", "list resource.k8s.io/resourceslices?spec.nodeName=one", "allow"},
		{"one", "list resource.k8s.io/resourceslices?spec.nodeName=two", onlyOwnSlice},
		{"one", "get certificates.k8s.io/podcertificaterequests=pcr@ns", "allow"},
		{"two", "get certificates.k8s.io/podcertificaterequests=pcr@ns", none},
		{"one", "get /nodes=one", "allow"},
		{"one", "get /nodes=two", "node: node 'one' cannot read 'two', only its own Node object"},
		{"one", "watch /nodes?metadata.name=one", "allow"},
		{"one", "list /nodes", "node: node 'one' cannot read '', only its own Node object"},
		{"one", "patch /nodes/status=one", "allow"},
		{"one", "delete /nodes=one", ""},
		{"one", "get /pods=p@ns", "allow"},
		{"two", "get /pods=p@ns", none},
		{"one", "list /pods?spec.nodeName=one", "allow"},
		{"one", "list /pods?spec.nodeName=two", "node: can only list/watch pods with spec.nodeName field selector"},
		{"one", "create /pods@ns", "allow"},
		{"one", "create /pods/eviction=p@ns", "allow"},
		{"one", "get /services=x@ns", "allow"},
		{"one", "get apps/deployments=x@ns", ""},
		{"one", "update coordination.k8s.io/leases=one@kube-node-lease", "allow"},
		{"one", "create coordination.k8s.io/leases@kube-node-lease", "allow"},
		{"one", "update coordination.k8s.io/leases=two@kube-node-lease", "node: can only access node lease with the same name as the requesting node"},
		{"one", "update coordination.k8s.io/leases=one@ns", `node: can only access leases in the "kube-node-lease" system namespace`},
		{"one", "update storage.k8s.io/csinodes=one", "allow"},
		{"one", "update storage.k8s.io/csinodes=two", "node: can only access CSINode with the same name as the requesting node"},
		{"one", "get //healthz", ""},
	} {
		t.Run(c.node+" "+c.request, func(t *testing.T) {
			text, selector, _ := strings.Cut(c.request, "?")
			a := request(nodeUser(c.node), text)
			if selector != "" {
				parsed, err := fields.ParseSelector(selector)
				if err != nil {
					t.Fatal(err)
				}
				a.Fields = parsed.Requirements()
			}
			decision, reason, _ := n.Authorize(t.Context(), a)
			got := reason
			if decision == Allow {
				got = "allow" + reason
			}
			if want := strings.ReplaceAll(c.want, "%", c.node); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	t.Run("others have no opinion here", func(t *testing.T) {
		u := &user.Info{Name: "system:node:one"}
		if d, reason, _ := n.Authorize(t.Context(), request(u, "get /secrets=s@ns")); d != NoOpinion || reason != "" {
			t.Errorf("%v %q", d, reason)
		}
	})
}

func (g *graph) size() int {
	return len(g.mu.pods) + len(g.mu.referents) + len(g.mu.volumes) + len(g.mu.secrets) + len(g.mu.attachments) + len(g.mu.slices) + len(g.mu.requests)
}

// TestGraphForgets puts random pods and volumes in and out; what remains must equal a graph made of what is there.
func TestGraphForgets(t *testing.T) {
	p := policies{rand.New(rand.NewPCG(3, 4))}
	g := newGraph()
	there := map[string]object.Object{}
	make := func() object.Object {
		if p.IntN(4) == 0 {
			return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: p.one("v", "w")}, Spec: corev1.PersistentVolumeSpec{
				ClaimRef: &corev1.ObjectReference{Namespace: "n", Name: p.one("x", "y")},
				PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
					NodeStageSecretRef: &corev1.SecretReference{Namespace: "n", Name: p.one("s", "u")}}}}}
		}
		return pod(p.one("n", "m"), p.one("a", "b", "c"), p.one("one", "two", ""), p.some("secret:s", "secret:u", "configmap:c", "claim:x", "claim:y", "resourceclaim:r")...)
	}
	for range 2000 {
		o := make()
		key := object.Key(o.GetNamespace(), o.GetName())
		if p.IntN(3) == 0 {
			delete(there, key)
			g.Remove(o)
		} else {
			if old, ok := there[key].(*corev1.Pod); ok { // references of a pod never change while it lives
				g.Remove(old)
			}
			there[key] = o
			g.Upsert(o)
		}
		fresh := newGraph()
		for _, o := range there {
			fresh.Upsert(o)
		}
		if g.size() != fresh.size() {
			t.Fatalf("%d things, want %d", g.size(), fresh.size())
		}
		for _, node := range []string{"one", "two"} {
			for _, v := range []vertex{{secretKind, "n", "s"}, {secretKind, "m", "u"}, {claimKind, "n", "x"}} {
				if g.refers(node, v) != fresh.refers(node, v) {
					t.Fatalf("%s %v: %v", node, v, g.refers(node, v))
				}
			}
		}
	}
	for key, o := range there {
		g.Remove(o)
		delete(there, key)
	}
	if g.size() != 0 {
		t.Errorf("%d things left", g.size())
	}
}

func TestEphemeralContainersAndClaimsAreNoticed(t *testing.T) {
	g := newGraph()
	p := pod("n", "p", "one")
	g.Upsert(p)
	p = p.DeepCopy()
	p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
		EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "debug"}}}}}}}
	p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{ResourceClaimName: ptr.To("claim")}}
	g.Upsert(p)
	if !g.refers("one", vertex{secretKind, "n", "debug"}) || !g.refers("one", vertex{resourceClaimKind, "n", "claim"}) {
		t.Error("a pod's new references were not seen")
	}
}

func TestReferencesAreListedOnce(t *testing.T) {
	refs := references(pod("n", "p", "one", "secret:a", "pull:a", "env:a", "sa:a"))
	if want := []vertex{{accountKind, "n", "a"}, {secretKind, "n", "a"}}; !slices.Equal(refs, want) {
		t.Errorf("%v", refs)
	}
}
