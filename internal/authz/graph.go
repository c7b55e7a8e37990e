package authz

import (
	"sync"

	"github.com/timonel/timonel/internal/object"
	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// graph knows which objects have to do with which node.
//
// Pods are the edges: a pod that runs on a node ties the node to all that it refers to. For each
// object there is a count of the node's pods that refer to it, so that adding and removing a pod costs what the pod
// refers to, and a question is one look-up. A persistent volume is tied to the nodes of its claim.
type graph struct {
	mu struct {
		sync.RWMutex
		pods        map[types.NamespacedName]podEdges
		referents   map[vertex]*referent
		volumes     map[string]volume
		secrets     map[vertex]map[string]bool // secret → volumes that need it
		attachments map[string]string          // VolumeAttachment → node
		slices      map[string]string          // ResourceSlice → node
		requests    map[types.NamespacedName]string
	}
}

// podEdges is what a pod put into the graph.
type podEdges struct {
	uid    types.UID
	node   string
	claims int // how many resource claims its status named
	later  int // how many ephemeral containers it had
	refs   []*referent
}

// referent is an object that pods refer to.
type referent struct {
	vertex vertex
	pods   map[string]int // node → pods there that refer to it
}

type volume struct {
	claim   vertex
	secrets []vertex
}

func newGraph() *graph {
	g := &graph{}
	g.clear()
	return g
}

// clear empties the graph; g.mu is held or g is not shared yet.
func (g *graph) clear() {
	g.mu.pods = map[types.NamespacedName]podEdges{}
	g.mu.referents = map[vertex]*referent{}
	g.mu.volumes = map[string]volume{}
	g.mu.secrets = map[vertex]map[string]bool{}
	g.mu.attachments = map[string]string{}
	g.mu.slices = map[string]string{}
	g.mu.requests = map[types.NamespacedName]string{}
}

// Reset implements Feed.
func (g *graph) Reset(objects []object.Object) {
	next := newGraph()
	for _, obj := range objects {
		next.upsert(obj)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.pods, g.mu.referents, g.mu.volumes, g.mu.secrets = next.mu.pods, next.mu.referents, next.mu.volumes, next.mu.secrets
	g.mu.attachments, g.mu.slices, g.mu.requests = next.mu.attachments, next.mu.slices, next.mu.requests
}

// Upsert implements Feed.
func (g *graph) Upsert(obj object.Object) {
	if pod, ok := obj.(*corev1.Pod); ok && g.unchanged(pod) {
		return // most pod updates are of the status
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.upsert(obj)
}

func keyOf(o metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: o.GetNamespace(), Name: o.GetName()}
}

// unchanged reports whether a pod's edges are as they are in the graph. A pod's references can only
// change by an ephemeral container or a resource claim made for it.
func (g *graph) unchanged(pod *corev1.Pod) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	have, ok := g.mu.pods[keyOf(pod)]
	return ok && have.uid == pod.UID && have.node == pod.Spec.NodeName && have.claims == claimCount(pod) && have.later == len(pod.Spec.EphemeralContainers)
}

func claimCount(pod *corev1.Pod) int {
	n := 0
	for _, s := range pod.Status.ResourceClaimStatuses {
		if s.ResourceClaimName != nil {
			n++
		}
	}
	if pod.Status.ExtendedResourceClaimStatus != nil {
		n++
	}
	return n
}

// upsert puts an object into the graph; g.mu is held or g is not shared yet.
func (g *graph) upsert(obj object.Object) {
	switch o := obj.(type) {
	case *corev1.Pod:
		g.removePod(keyOf(o))
		if o.Spec.NodeName == "" {
			return
		}
		edges := podEdges{uid: o.UID, node: o.Spec.NodeName, claims: claimCount(o), later: len(o.Spec.EphemeralContainers)}
		for _, v := range references(o) {
			t := g.mu.referents[v]
			if t == nil {
				t = &referent{vertex: v, pods: map[string]int{}}
				g.mu.referents[v] = t
			}
			t.pods[edges.node]++
			edges.refs = append(edges.refs, t)
		}
		g.mu.pods[keyOf(o)] = edges
	case *corev1.PersistentVolume:
		g.removeVolume(o.Name)
		if o.Spec.ClaimRef == nil {
			return
		}
		v := volume{claim: vertex{claimKind, o.Spec.ClaimRef.Namespace, o.Spec.ClaimRef.Name}, secrets: volumeSecrets(o)}
		g.mu.volumes[o.Name] = v
		for _, secret := range v.secrets {
			if g.mu.secrets[secret] == nil {
				g.mu.secrets[secret] = map[string]bool{}
			}
			g.mu.secrets[secret][o.Name] = true
		}
	case *storagev1.VolumeAttachment:
		g.mu.attachments[o.Name] = o.Spec.NodeName
	case *resourcev1.ResourceSlice:
		delete(g.mu.slices, o.Name)
		if o.Spec.NodeName != nil && *o.Spec.NodeName != "" {
			g.mu.slices[o.Name] = *o.Spec.NodeName
		}
	case *certificatesv1.PodCertificateRequest:
		g.mu.requests[keyOf(o)] = string(o.Spec.NodeName)
	case *certificatesv1beta1.PodCertificateRequest:
		g.mu.requests[keyOf(o)] = string(o.Spec.NodeName)
	}
}

// Remove implements Feed.
func (g *graph) Remove(obj object.Object) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch o := obj.(type) {
	case *corev1.Pod:
		g.removePod(keyOf(o))
	case *corev1.PersistentVolume:
		g.removeVolume(o.Name)
	case *storagev1.VolumeAttachment:
		delete(g.mu.attachments, o.Name)
	case *resourcev1.ResourceSlice:
		delete(g.mu.slices, o.Name)
	case *certificatesv1.PodCertificateRequest, *certificatesv1beta1.PodCertificateRequest:
		delete(g.mu.requests, keyOf(o))
	}
}

func (g *graph) removePod(key types.NamespacedName) {
	edges, ok := g.mu.pods[key]
	if !ok {
		return
	}
	delete(g.mu.pods, key)
	for _, t := range edges.refs {
		if t.pods[edges.node]--; t.pods[edges.node] == 0 {
			delete(t.pods, edges.node)
		}
		if len(t.pods) == 0 {
			delete(g.mu.referents, t.vertex)
		}
	}
}

func (g *graph) removeVolume(name string) {
	for _, secret := range g.mu.volumes[name].secrets {
		delete(g.mu.secrets[secret], name)
		if len(g.mu.secrets[secret]) == 0 {
			delete(g.mu.secrets, secret)
		}
	}
	delete(g.mu.volumes, name)
}

// refers reports whether the object is a pod on the node, or such a pod refers to it, itself or through a volume.
func (g *graph) refers(node string, v vertex) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if v.kind == podKind {
		edges, ok := g.mu.pods[types.NamespacedName{Namespace: v.namespace, Name: v.name}]
		return ok && edges.node == node
	}
	if g.referred(node, v) {
		return true
	}
	if v.kind != secretKind {
		return false
	}
	for name := range g.mu.secrets[v] {
		if g.referred(node, g.mu.volumes[name].claim) {
			return true
		}
	}
	return false
}

// referred reports whether a pod on the node refers to the object itself; g.mu is held.
func (g *graph) referred(node string, v vertex) bool {
	t := g.mu.referents[v]
	return t != nil && t.pods[node] > 0
}

// uses reports whether a pod on the node uses a persistent volume.
func (g *graph) uses(node, name string) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	v, ok := g.mu.volumes[name]
	return ok && g.referred(node, v.claim)
}

func (g *graph) attached(node, attachment string) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.mu.attachments[attachment] == node
}

func (g *graph) ownsSlice(node, slice string) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.mu.slices[slice] == node
}

func (g *graph) requested(node, namespace, name string) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.mu.requests[types.NamespacedName{Namespace: namespace, Name: name}] == node
}
