package scheduler

import (
	v1 "k8s.io/api/core/v1"
)

// nodeResourcesFit keeps pods off nodes without room for what they request,
// and prefers nodes with most room left (LeastAllocated).
type nodeResourcesFit struct{}

func (nodeResourcesFit) Name() string  { return "NodeResourcesFit" }
func (nodeResourcesFit) Weight() int64 { return 1 }

func (nodeResourcesFit) Filter(pod *PodInfo, _ *Cluster) (NodeFilter, *Status) {
	scalars := pod.Requests.scalarNames()
	return func(node *NodeInfo) *Status { return fits(pod.Requests, scalars, node) }, nil
}

// fits reports every resource that node is short of. Resources that are not
// requested do not count, even when overcommitted.
func fits(req Resources, scalars []v1.ResourceName, node *NodeInfo) *Status {
	var reasons []string
	final := false
	if int64(len(node.Pods))+1 > node.MaxPods {
		reasons = append(reasons, "Too many pods")
		final = node.MaxPods < 1
	}
	need := func(name v1.ResourceName, want, have, used int64) {
		if want > 0 && want > have-used {
			reasons = append(reasons, "Insufficient "+string(name))
			final = final || want > have
		}
	}
	need(v1.ResourceCPU, req.MilliCPU, node.Allocatable.MilliCPU, node.Requested.MilliCPU)
	need(v1.ResourceMemory, req.Memory, node.Allocatable.Memory, node.Requested.Memory)
	need(v1.ResourceEphemeralStorage, req.Ephemeral, node.Allocatable.Ephemeral, node.Requested.Ephemeral)
	for _, name := range scalars {
		need(name, req.Scalar[name], node.Allocatable.Scalar[name], node.Requested.Scalar[name])
	}
	if len(reasons) == 0 {
		return nil
	}
	return &Status{Reasons: reasons, Final: final}
}

// Score is the mean of the free shares of CPU and memory once the pod is there.
func (nodeResourcesFit) Score(pod *PodInfo, _ *Cluster, feasible []*NodeInfo) []int64 {
	scores := make([]int64, len(feasible))
	for i, node := range feasible {
		var sum, n int64
		free := func(have, used int64) {
			if have <= 0 {
				return
			}
			n++
			if used <= have {
				sum += (have - used) * maxScore / have
			}
		}
		free(node.Allocatable.MilliCPU, node.Scoring.MilliCPU+pod.Scoring.MilliCPU)
		free(node.Allocatable.Memory, node.Scoring.Memory+pod.Scoring.Memory)
		if n > 0 {
			scores[i] = sum / n
		}
	}
	return scores
}

func (nodeResourcesFit) Wakes(pod *PodInfo, e Event) bool {
	switch e.Kind {
	case PodRemoved:
		return true // frees at least a pod's place
	case PodUpdated:
		was, now := podRequests(e.OldPod, false), podRequests(e.Pod, false)
		return !was.minus(now).isZero()
	case PendingPodUpdated:
		was, now := podRequests(e.OldPod, false), podRequests(e.Pod, false)
		return !was.minus(now).isZero()
	}
	// A node counts if the pod would fit were it empty, and it did not or it grew.
	empty := func(n *v1.Node) bool {
		return fits(pod.Requests, pod.Requests.scalarNames(), (&NodeInfo{}).withNode(n)) == nil
	}
	switch e.Kind {
	case NodeAdded:
		return empty(e.Node)
	case NodeUpdated:
		return empty(e.Node) && (!empty(e.OldNode) || allocatableGrew(e.OldNode, e.Node))
	}
	return false
}

func allocatableGrew(old, now *v1.Node) bool {
	for name, q := range now.Status.Allocatable {
		if was := old.Status.Allocatable[name]; q.Cmp(was) > 0 {
			return true
		}
	}
	return false
}
