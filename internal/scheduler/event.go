package scheduler

import (
	"maps"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// An Event is a change in the cluster that may let a parked pod fit. The cache
// reflects it before the queue hears of it.
type Event struct {
	Kind EventKind
	// Node events: Node is nil when it went, OldNode when it came.
	OldNode, Node *v1.Node
	// Pod events, the same way. Only the queue's own pod is meant by
	// PendingPodUpdated.
	OldPod, Pod *v1.Pod
}

// EventKind says what an Event is about.
type EventKind int

const (
	NodeAdded EventKind = iota + 1
	// NodeUpdated: allocatable, labels, taints, spec.unschedulable or declared
	// features changed; a heartbeat is no Event.
	NodeUpdated
	NodeDeleted
	// PodAssigned: a pod is on a node that was not before.
	PodAssigned
	// PodUpdated: labels or requests of a pod on a node changed.
	PodUpdated
	// PodRemoved: a pod left its node: deleted, finished, or its binding failed.
	PodRemoved
	// PendingPodUpdated: the parked pod itself was edited.
	PendingPodUpdated
	// NamespaceChanged: a namespace came, or its labels changed.
	NamespaceChanged
	// VolumesChanged: a claim, volume, storage class or a node's volume drivers
	// changed.
	VolumesChanged
)

// nodeChanged reports whether a scheduler has reason to look at node again.
func nodeChanged(old, now *v1.Node) bool {
	return old.Spec.Unschedulable != now.Spec.Unschedulable ||
		!maps.Equal(old.Labels, now.Labels) ||
		!equality.Semantic.DeepEqual(old.Spec.Taints, now.Spec.Taints) ||
		!equality.Semantic.DeepEqual(old.Status.Allocatable, now.Status.Allocatable) ||
		!equality.Semantic.DeepEqual(old.Status.DeclaredFeatures, now.Status.DeclaredFeatures)
}

// imagesChanged reports whether scoring sees another node, though filters do not.
func imagesChanged(old, now *v1.Node) bool {
	return !equality.Semantic.DeepEqual(old.Status.Images, now.Status.Images)
}

// pendingPodChanged reports whether a pod without a node was edited in a way
// that plugins see; its own condition changing is none of these.
func pendingPodChanged(old, now *v1.Pod) bool {
	return !maps.Equal(old.Labels, now.Labels) || !equality.Semantic.DeepEqual(old.Spec, now.Spec)
}

// The hints that several plugins share.

// nodeEvent reports whether e brought a node or changed one such that fits,
// false of the node before, is true of it now.
func (e Event) nodeNowPasses(fits func(*v1.Node) bool) bool {
	switch e.Kind {
	case NodeAdded:
		return fits(e.Node)
	case NodeUpdated:
		return fits(e.Node) && !fits(e.OldNode)
	}
	return false
}
