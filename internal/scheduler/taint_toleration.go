package scheduler

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
)

// taintToleration keeps pods off nodes with taints they do not tolerate, and
// prefers nodes with fewer such PreferNoSchedule taints.
type taintToleration struct{}

func (taintToleration) Name() string  { return "TaintToleration" }
func (taintToleration) Weight() int64 { return 3 }

func (taintToleration) Filter(pod *PodInfo, _ *Cluster) (NodeFilter, *Status) {
	return func(node *NodeInfo) *Status {
		if untolerated(node.Node, pod.Spec.Tolerations) != nil {
			// Parity: the taint is not named, its key or value may be no
			// business of the pod's owner (kube-scheduler since 1.34.2).
			return rejectedFinally("node(s) had untolerated taint(s)")
		}
		return nil
	}, nil
}

// untolerated is the first taint of node that keeps pods with these
// tolerations off, or nil.
func untolerated(node *v1.Node, tolerations []v1.Toleration) *v1.Taint {
	for i := range node.Spec.Taints {
		t := &node.Spec.Taints[i]
		if t.Effect != v1.TaintEffectNoSchedule && t.Effect != v1.TaintEffectNoExecute {
			continue
		}
		if !tolerates(tolerations, t) {
			return t
		}
	}
	return nil
}

// tolerates: the comparison operators Lt and Gt (KEP-5471) are an alpha
// feature of the API that validation refuses unless it is switched on; where
// one got through, it means what it says.
func tolerates(tolerations []v1.Toleration, taint *v1.Taint) bool {
	for i := range tolerations {
		if tolerations[i].ToleratesTaint(klog.Logger{}, taint, true) {
			return true
		}
	}
	return false
}

func (taintToleration) Score(pod *PodInfo, _ *Cluster, feasible []*NodeInfo) []int64 {
	scores := make([]int64, len(feasible))
	any := false
	for i, node := range feasible {
		for j := range node.Spec.Taints {
			t := &node.Spec.Taints[j]
			if t.Effect == v1.TaintEffectPreferNoSchedule && !tolerates(pod.Spec.Tolerations, t) {
				scores[i]++
				any = true
			}
		}
	}
	if !any {
		return nil
	}
	return normalize(scores, true)
}

func (taintToleration) Wakes(pod *PodInfo, e Event) bool {
	if e.Kind == PendingPodUpdated {
		return len(e.Pod.Spec.Tolerations) != len(e.OldPod.Spec.Tolerations)
	}
	return e.nodeNowPasses(func(n *v1.Node) bool { return untolerated(n, pod.Spec.Tolerations) == nil })
}
