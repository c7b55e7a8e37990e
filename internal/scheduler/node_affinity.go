package scheduler

import (
	"slices"

	v1 "k8s.io/api/core/v1"
)

// nodeAffinity honours nodeSelector and required node affinity, and scores by
// preferred node affinity.
type nodeAffinity struct{}

func (nodeAffinity) Name() string  { return "NodeAffinity" }
func (nodeAffinity) Weight() int64 { return 2 }

func (nodeAffinity) Filter(pod *PodInfo, _ *Cluster) (NodeFilter, *Status) {
	m := requiredNodes(pod.Pod)
	if m == nil {
		return nil, nil
	}
	return func(node *NodeInfo) *Status {
		if !m(node.Node) {
			return rejectedFinally("node(s) didn't match Pod's node affinity/selector")
		}
		return nil
	}, nil
}

// nodeAffinityByName is the part of nodeAffinity that comes before all other
// filters: a pod that asks for nodes by name, as every pod of a DaemonSet does,
// concerns no other node, whatever else is wrong there.
type nodeAffinityByName struct{}

func (nodeAffinityByName) Name() string { return "NodeAffinity" }

func (nodeAffinityByName) Wakes(pod *PodInfo, e Event) bool { return nodeAffinity{}.Wakes(pod, e) }

func (nodeAffinityByName) Filter(pod *PodInfo, _ *Cluster) (NodeFilter, *Status) {
	names := requiredNames(pod.Pod)
	if names == nil {
		return nil, nil
	}
	return func(node *NodeInfo) *Status {
		if !slices.Contains(names, node.Name) {
			return rejectedFinally("node(s) didn't satisfy plugin(s) [NodeAffinity]")
		}
		return nil
	}, nil
}

// requiredNames lists the only nodes that pod's required affinity can mean;
// nil if one of its terms does not name any.
func requiredNames(pod *v1.Pod) []string {
	a := pod.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil
	}
	var names []string
	for _, term := range a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		i := slices.IndexFunc(term.MatchFields, func(r v1.NodeSelectorRequirement) bool {
			return r.Key == nodeNameField && r.Operator == v1.NodeSelectorOpIn
		})
		if i < 0 {
			return nil
		}
		names = append(names, term.MatchFields[i].Values...)
	}
	return names
}

// requiredNodes is the test a node must pass to be one that pod asks for by
// nodeSelector and required node affinity; nil if pod asks for none.
func requiredNodes(pod *v1.Pod) nodeMatcher {
	var required *v1.NodeSelector
	if a := pod.Spec.Affinity; a != nil && a.NodeAffinity != nil {
		required = a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	}
	if len(pod.Spec.NodeSelector) == 0 && required == nil {
		return nil
	}
	var affinity nodeMatcher
	if required != nil {
		affinity = matchNodeSelector(required)
	}
	return func(n *v1.Node) bool {
		for k, want := range pod.Spec.NodeSelector {
			if got, ok := n.Labels[k]; !ok || got != want {
				return false
			}
		}
		return affinity == nil || affinity(n)
	}
}

func (nodeAffinity) Score(pod *PodInfo, _ *Cluster, feasible []*NodeInfo) []int64 {
	a := pod.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || len(a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution) == 0 {
		return nil
	}
	scores := make([]int64, len(feasible))
	for i := range a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
		t := &a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution[i]
		if t.Weight == 0 {
			continue
		}
		// Parity: an empty preferred term prefers every node, where an empty
		// required one selects none (API docs of PreferredSchedulingTerm).
		m := matchNodeTerm(&t.Preference)
		empty := len(t.Preference.MatchExpressions)+len(t.Preference.MatchFields) == 0
		for j, node := range feasible {
			if empty || m(node.Node) {
				scores[j] += int64(t.Weight)
			}
		}
	}
	return normalize(scores, false)
}

func (nodeAffinity) Wakes(pod *PodInfo, e Event) bool {
	if e.Kind == PendingPodUpdated {
		return true
	}
	m := requiredNodes(pod.Pod)
	return e.nodeNowPasses(func(n *v1.Node) bool { return m == nil || m(n) })
}
