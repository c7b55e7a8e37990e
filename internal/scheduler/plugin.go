package scheduler

import (
	"context"

	"k8s.io/client-go/kubernetes"
)

// A Plugin is one rule of scheduling. It implements Filterer, Scorer or
// Reserver, or several of them. Plugins keep no state of their own about pods
// and nodes; one goroutine calls Filter, Score and Reserve.
type Plugin interface {
	// Name is the plugin's name in kube-scheduler, where it has one.
	Name() string
	// Wakes reports whether e may let pod, which this plugin rejected, pass.
	// A doubt counts as yes: a pod wrongly left waits for minutes.
	Wakes(pod *PodInfo, e Event) bool
}

// A Filterer decides where a pod can go.
type Filterer interface {
	Plugin
	// Filter reads pod and cluster once and returns the question to ask of
	// each node. A nil NodeFilter has nothing to say on this pod; a Status
	// rejects the pod on every node.
	Filter(pod *PodInfo, cluster *Cluster) (NodeFilter, *Status)
}

// A NodeFilter says nil if the pod can go on node, or why not.
type NodeFilter func(node *NodeInfo) *Status

// A Scorer decides where a pod goes best.
type Scorer interface {
	Plugin
	// Score gives each feasible node, in order, 0 (worst) to maxScore; nil if
	// it has no preference.
	Score(pod *PodInfo, cluster *Cluster, feasible []*NodeInfo) []int64
	// Weight multiplies the scores.
	Weight() int64
}

// A Reserver has something to do on the way from choice to binding.
type Reserver interface {
	Plugin
	// Reserve takes what pod needs on node. Bind, unless nil, is called later
	// from another goroutine and makes it real before the pod is bound; Undo,
	// unless nil, is called if the pod is not bound after all.
	Reserve(pod *PodInfo, node *NodeInfo) (Reservation, *Status)
}

// A Reservation is what a Reserver took; see there.
type Reservation struct {
	Bind func(context.Context) error
	Undo func()
}

const maxScore = 100

// A Status says why a pod cannot go on a node (or on any).
type Status struct {
	// Reasons are for people, in kube-scheduler's words where it has them.
	Reasons []string
	// Final: removing pods from the node would not help.
	Final bool
	// Err is set when the plugin could not tell; the pod is retried.
	Err error
}

// rejected: other pods on the node are in the way.
func rejected(reasons ...string) *Status { return &Status{Reasons: reasons} }

// rejectedFinally: the node itself is wrong for the pod.
func rejectedFinally(reasons ...string) *Status { return &Status{Reasons: reasons, Final: true} }

// failed: the plugin could not tell.
func failed(err error) *Status { return &Status{Err: err} }

// defaultPlugins lists the rules. Filters run in this order and the first that
// rejects a node speaks for it.
func defaultPlugins(client kubernetes.Interface, l listers) []Plugin {
	return []Plugin{
		unsupported{},
		nodeAffinityByName{},
		nodeUnschedulable{},
		nodeName{},
		taintToleration{},
		nodeAffinity{},
		nodePorts{},
		nodeResourcesFit{},
		volumeRestrictions{l.volumes},
		nodeVolumeLimits{l.volumes},
		newVolumeBinding(client, l.volumes),
		volumeZone{l.volumes},
		podTopologySpread{},
		interPodAffinity{namespaceLabels: l.namespaceLabels},
		nodeResourcesBalanced{},
		imageLocality{},
	}
}

// normalize scales scores to 0..maxScore by the highest of them, turned around
// if reverse: what had most then has least.
func normalize(scores []int64, reverse bool) []int64 {
	var top int64
	for _, s := range scores {
		top = max(top, s)
	}
	for i, s := range scores {
		if top > 0 {
			s = s * maxScore / top
		}
		if reverse {
			s = maxScore - s
		}
		scores[i] = s
	}
	return scores
}
