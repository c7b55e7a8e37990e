package scheduler

import "math"

// nodeResourcesBalanced prefers nodes that the pod leaves with CPU and memory
// used to a like degree, so that neither is stranded.
type nodeResourcesBalanced struct{}

func (nodeResourcesBalanced) Name() string               { return "NodeResourcesBalancedAllocation" }
func (nodeResourcesBalanced) Weight() int64              { return 1 }
func (nodeResourcesBalanced) Wakes(*PodInfo, Event) bool { return false }

func (nodeResourcesBalanced) Score(pod *PodInfo, _ *Cluster, feasible []*NodeInfo) []int64 {
	if pod.Requests.MilliCPU == 0 && pod.Requests.Memory == 0 {
		return nil
	}
	scores := make([]int64, len(feasible))
	for i, node := range feasible {
		cpu, okCPU := share(node.Requested.MilliCPU+pod.Requests.MilliCPU, node.Allocatable.MilliCPU)
		mem, okMem := share(node.Requested.Memory+pod.Requests.Memory, node.Allocatable.Memory)
		deviation := 0.0 // of two values, from their mean
		if okCPU && okMem {
			deviation = math.Abs(cpu-mem) / 2
		}
		scores[i] = int64((1 - deviation) * maxScore)
	}
	return scores
}

func share(used, have int64) (float64, bool) {
	if have <= 0 {
		return 0, false
	}
	return min(float64(used)/float64(have), 1), true
}
