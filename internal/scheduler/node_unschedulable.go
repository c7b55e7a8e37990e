package scheduler

import (
	v1 "k8s.io/api/core/v1"
)

// nodeUnschedulable keeps pods off cordoned nodes (spec.unschedulable), unless
// they tolerate the taint that stands for it.
type nodeUnschedulable struct{}

func (nodeUnschedulable) Name() string { return "NodeUnschedulable" }

var unschedulableTaint = v1.Taint{Key: v1.TaintNodeUnschedulable, Effect: v1.TaintEffectNoSchedule}

func (nodeUnschedulable) Filter(pod *PodInfo, _ *Cluster) (NodeFilter, *Status) {
	if tolerates(pod.Spec.Tolerations, &unschedulableTaint) {
		return nil, nil
	}
	return func(node *NodeInfo) *Status {
		if node.Spec.Unschedulable {
			return rejectedFinally("node(s) were unschedulable")
		}
		return nil
	}, nil
}

func (nodeUnschedulable) Wakes(pod *PodInfo, e Event) bool {
	if e.Kind == PendingPodUpdated {
		return tolerates(e.Pod.Spec.Tolerations, &unschedulableTaint)
	}
	return e.nodeNowPasses(func(n *v1.Node) bool { return !n.Spec.Unschedulable })
}
