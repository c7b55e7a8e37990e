package admission

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/authz"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/user"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// NodeRestriction keeps a kubelet to its own Node, the pods that run there, and what they need (docs: "Admission
// Control", NodeRestriction). It adds to the Node authorizer what only the object tells. reader is asked
// for pods, nodes, volumes and CSI drivers; authorizer whether a node may ask for tokens of a further audience.
func NodeRestriction(reader kind.Reader, authorizer authz.Authorizer) Plugin {
	p := &nodeRestriction{reader: reader, authorizer: authorizer}
	return Plugin{Name: "NodeRestriction", Check: p.check}
}

type nodeRestriction struct {
	reader     kind.Reader
	authorizer authz.Authorizer
}

func (p *nodeRestriction) check(ctx context.Context, r *Request) error {
	if r.User == nil || !r.User.InGroup(user.NodesGroup) {
		return nil
	}
	switch (schema.GroupResource{Group: r.Definition.Group, Resource: r.Definition.Plural}) {
	case schema.GroupResource{Resource: "nodes"}, schema.GroupResource{Resource: "pods"},
		schema.GroupResource{Resource: "persistentvolumeclaims"}, schema.GroupResource{Resource: "serviceaccounts"},
		schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}, schema.GroupResource{Group: "storage.k8s.io", Resource: "csinodes"},
		schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceslices"},
		schema.GroupResource{Group: "certificates.k8s.io", Resource: "certificatesigningrequests"},
		schema.GroupResource{Group: "certificates.k8s.io", Resource: "podcertificaterequests"}:
	default:
		return nil
	}
	node, ok := r.User.Node()
	if !ok {
		return r.Forbidden("could not determine node from user %q", r.User.Name)
	}
	switch r.Definition.Plural {
	case "nodes":
		return p.node(r, node)
	case "pods":
		return p.pods(ctx, r, node)
	case "persistentvolumeclaims":
		return p.claim(r, node)
	case "serviceaccounts":
		if r.Subresource == "token" && r.Operation == Create {
			return p.token(ctx, r, node)
		}
	case "leases":
		if r.Namespace != corev1.NamespaceNodeLease {
			return r.Forbidden("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
		}
		if nameOf(r) != node {
			return r.Forbidden("can only access node lease with the same name as the requesting node")
		}
	case "csinodes":
		if nameOf(r) != node {
			return r.Forbidden("can only access CSINode with the same name as the requesting node")
		}
	case "resourceslices":
		return p.slice(r, node)
	case "certificatesigningrequests":
		return p.signingRequest(r)
	case "podcertificaterequests":
		return p.podCertificate(ctx, r, node)
	}
	return nil
}

// nameOf is the name of the object that a request is about, also of one to be created.
func nameOf(r *Request) string {
	if r.Operation == Create && r.Object != nil {
		return r.Object.GetName()
	}
	return r.Name
}

func (p *nodeRestriction) node(r *Request, node string) error {
	if r.Subresource != "" && r.Subresource != "status" {
		return nil
	}
	if name := nameOf(r); name != node {
		return r.Forbidden("node %q is not allowed to modify node %q", node, name)
	}
	obj, _ := r.Object.(*corev1.Node)
	if obj == nil {
		return nil
	}
	old, _ := r.Old.(*corev1.Node)
	if old == nil {
		old = &corev1.Node{}
	} else {
		if !equality.Semantic.DeepEqual(obj.Spec.Taints, old.Spec.Taints) {
			return r.Forbidden("node %q is not allowed to modify taints", node)
		}
		if !equality.Semantic.DeepEqual(obj.OwnerReferences, old.OwnerReferences) {
			return r.Forbidden("node %q is not allowed to modify ownerReferences", node)
		}
	}
	if r.Operation == Create && len(obj.OwnerReferences) > 0 {
		return r.Forbidden("node %q is not allowed to set ownerReferences", node)
	}
	if changed := reservedLabels(obj.Labels, old.Labels); len(changed) > 0 {
		return r.Forbidden("is not allowed to modify labels: %s", strings.Join(changed, ", "))
	}
	return nil
}

// kubeletLabels are the labels in reserved domains that a kubelet may set on its Node, beside all whose domain
// is or ends in kubelet.kubernetes.io or node.kubernetes.io.
var kubeletLabels = []string{
	corev1.LabelHostname, corev1.LabelArchStable, corev1.LabelOSStable, corev1.LabelTopologyZone, corev1.LabelTopologyRegion,
	corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion, corev1.LabelInstanceType, corev1.LabelInstanceTypeStable,
	"beta.kubernetes.io/arch", "beta.kubernetes.io/os",
}

// reservedLabels lists the labels that were added, changed or removed and that a kubelet must leave alone.
func reservedLabels(labels, old map[string]string) []string {
	keys := map[string]bool{}
	for key, value := range labels {
		if before, had := old[key]; !had || before != value {
			keys[key] = true
		}
	}
	for key := range old {
		if _, has := labels[key]; !has {
			keys[key] = true
		}
	}
	var reserved []string
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		domain, _, ok := strings.Cut(key, "/")
		if !ok || !within(domain, "kubernetes.io") && !within(domain, "k8s.io") {
			continue
		}
		if within(domain, "kubelet.kubernetes.io") || within(domain, "node.kubernetes.io") || slices.Contains(kubeletLabels, key) {
			continue
		}
		reserved = append(reserved, key)
	}
	return reserved
}

// within reports whether a domain is the other or a subdomain of it.
func within(domain, of string) bool { return domain == of || strings.HasSuffix(domain, "."+of) }

// claim lets a kubelet write what it knows about a volume's size.
func (p *nodeRestriction) claim(r *Request, node string) error {
	if r.Subresource != "status" || r.Operation != Update {
		return r.Forbidden("may only update PVC status")
	}
	obj, ok := r.Object.(*corev1.PersistentVolumeClaim)
	old, had := r.Old.(*corev1.PersistentVolumeClaim)
	if !ok || !had {
		return r.Forbidden("unexpected type %T", r.Object)
	}
	obj, old = object.Copy(obj), object.Copy(old)
	for _, c := range []*corev1.PersistentVolumeClaim{obj, old} {
		c.ResourceVersion, c.ManagedFields = "", nil
		c.Status.Capacity, c.Status.Conditions = nil, nil
		c.Status.AllocatedResources, c.Status.AllocatedResourceStatuses = nil, nil
		c.Status.ModifyVolumeStatus, c.Status.CurrentVolumeAttributesClassName = nil, nil
	}
	if !equality.Semantic.DeepEqual(obj, old) {
		return r.Forbidden("node %q is not allowed to update fields other than status.capacity and status.conditions", node)
	}
	return nil
}

func (p *nodeRestriction) slice(r *Request, node string) error {
	for _, obj := range []object.Object{r.Object, r.Old} {
		slice, ok := obj.(*resourcev1.ResourceSlice)
		if ok && (slice.Spec.NodeName == nil || *slice.Spec.NodeName != node) {
			return r.Forbidden("can only create, update or delete ResourceSlices with the same NodeName as the requesting node")
		}
	}
	return nil
}

// signingRequest lets a kubelet ask for node certificates with its own name only.
func (p *nodeRestriction) signingRequest(r *Request) error {
	request, ok := r.Object.(*certificatesv1.CertificateSigningRequest)
	if !ok || r.Subresource != "" || r.Operation != Create {
		return nil
	}
	if request.Spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName && request.Spec.SignerName != certificatesv1.KubeletServingSignerName {
		return nil
	}
	block, _ := pem.Decode(request.Spec.Request)
	if block == nil {
		return r.Forbidden("unable to parse csr: PEM block type must be CERTIFICATE REQUEST")
	}
	parsed, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return r.Forbidden("unable to parse csr: %v", err)
	}
	if parsed.Subject.CommonName != r.User.Name {
		return r.Forbidden("can only create a node CSR with CN=%s", r.User.Name)
	}
	return nil
}

func (p *nodeRestriction) podCertificate(ctx context.Context, r *Request, node string) error {
	request, ok := r.Object.(*certificatesv1.PodCertificateRequest)
	if !ok || r.Subresource != "" || r.Operation != Create {
		return nil
	}
	if string(request.Spec.NodeName) != node {
		return r.Forbidden("PodCertificateRequest.Spec.NodeName=%q, which is not the requesting node %q", request.Spec.NodeName, node)
	}
	pod, err := p.pod(ctx, r.Namespace, request.Spec.PodName)
	switch {
	case err != nil:
		return r.Forbidden("while retrieving pod %q: %v", request.Spec.PodName, err)
	case pod.UID != request.Spec.PodUID:
		return r.Forbidden("PodCertificateRequest for pod %q contains pod UID (%q) which differs from running pod %q", request.Spec.PodName, request.Spec.PodUID, pod.UID)
	case pod.Spec.NodeName != node:
		return r.Forbidden("pod %q is not running on node %q", pod.Name, node)
	case pod.Spec.ServiceAccountName != request.Spec.ServiceAccountName:
		return r.Forbidden("PodCertificateRequest for pod %q contains service account name (%q) that differs from running pod (%q)", pod.Name, request.Spec.ServiceAccountName, pod.Spec.ServiceAccountName)
	case isMirror(pod):
		return r.Forbidden("pod %q is a mirror pod", pod.Name)
	}
	account, err := p.reader.Get(ctx, schema.GroupResource{Resource: "serviceaccounts"}, r.Namespace, pod.Spec.ServiceAccountName)
	if err != nil {
		return r.Forbidden("while retrieving service account %q: %v", pod.Spec.ServiceAccountName, err)
	}
	if account.GetUID() != request.Spec.ServiceAccountUID {
		return r.Forbidden("PodCertificateRequest for pod %q names service account UID %q, which differs from %q", pod.Name, request.Spec.ServiceAccountUID, account.GetUID())
	}
	return nil
}

func isMirror(pod *corev1.Pod) bool {
	_, ok := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}

// pod reads a pod.
func (p *nodeRestriction) pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	obj, err := p.reader.Get(ctx, schema.GroupResource{Resource: "pods"}, namespace, name)
	if err != nil {
		return nil, err
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("pod %s/%s is stored as %s", namespace, name, reflect.TypeOf(obj)))
	}
	return pod, nil
}
