package scheduler

import (
	"maps"
	"math"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
)

// podTopologySpread spreads pods over the values of node labels ("Pod Topology
// Spread Constraints" in the Kubernetes docs): a DoNotSchedule constraint
// filters, a ScheduleAnyway constraint scores. A pod without constraints that
// belongs to a controller is spread, softly, over hosts and zones.
//
// Parity: kube-scheduler finds what to spread by default from the selectors of
// Services and controllers; here the pods of the same controller count, which
// needs no further watches.
type podTopologySpread struct{}

func (podTopologySpread) Name() string  { return "PodTopologySpread" }
func (podTopologySpread) Weight() int64 { return 2 }

const (
	reasonSpread        = "node(s) didn't match pod topology spread constraints"
	reasonSpreadNoLabel = reasonSpread + " (missing required label)"
)

// A spread is a constraint, compiled for one pod.
type spread struct {
	key           string
	maxSkew       int64
	minDomains    int64
	counts        func(*PodInfo) bool // whether it is one of the pods to spread
	self          int64               // 1 if the pod itself is
	eligible      nodeMatcher         // nodes that count, by the pod's affinity; nil: all
	ignoreTainted bool                // nodes the pod does not tolerate do not count
}

func spreadsOf(pod *PodInfo, action v1.UnsatisfiableConstraintAction) []spread {
	var out []spread
	for i := range pod.Spec.TopologySpreadConstraints {
		c := &pod.Spec.TopologySpreadConstraints[i]
		if c.WhenUnsatisfiable != action {
			continue
		}
		selector := spreadSelector(pod.Pod, c)
		s := spread{
			key: c.TopologyKey, maxSkew: int64(c.MaxSkew), minDomains: 1,
			counts: func(p *PodInfo) bool {
				return p.Namespace == pod.Namespace && selector.Matches(labels.Set(p.Labels))
			},
		}
		if c.MinDomains != nil {
			s.minDomains = int64(*c.MinDomains)
		}
		if s.counts(pod) {
			s.self = 1
		}
		if c.NodeAffinityPolicy == nil || *c.NodeAffinityPolicy == v1.NodeInclusionPolicyHonor {
			s.eligible = requiredNodes(pod.Pod)
		}
		s.ignoreTainted = c.NodeTaintsPolicy != nil && *c.NodeTaintsPolicy == v1.NodeInclusionPolicyHonor
		out = append(out, s)
	}
	return out
}

// spreadSelector is the constraint's selector with matchLabelKeys (KEP-3243)
// applied, which the API server may or may not have merged in already.
func spreadSelector(pod *v1.Pod, c *v1.TopologySpreadConstraint) labels.Selector {
	selector := selectorOf(c.LabelSelector)
	for _, key := range c.MatchLabelKeys {
		if value, ok := pod.Labels[key]; ok {
			if r, err := labels.NewRequirement(key, selection.In, []string{value}); err == nil {
				selector = selector.Add(*r)
			}
		}
	}
	return selector
}

// defaultSpreads are the soft constraints of pods that have none of their own.
func defaultSpreads(pod *PodInfo) []spread {
	owner := metav1.GetControllerOfNoCopy(pod.Pod)
	if len(pod.Spec.TopologySpreadConstraints) > 0 || owner == nil {
		return nil
	}
	sibling := func(p *PodInfo) bool {
		if p.Namespace != pod.Namespace {
			return false
		}
		o := metav1.GetControllerOfNoCopy(p.Pod)
		return o != nil && o.UID == owner.UID
	}
	eligible := requiredNodes(pod.Pod)
	return []spread{
		{key: v1.LabelHostname, maxSkew: 3, counts: sibling, self: 1, eligible: eligible},
		{key: v1.LabelTopologyZone, maxSkew: 5, counts: sibling, self: 1, eligible: eligible},
	}
}

// countsOn reports whether node's pods count for the constraint.
func (s *spread) countsOn(pod *PodInfo, node *NodeInfo) bool {
	return (s.eligible == nil || s.eligible(node.Node)) &&
		(!s.ignoreTainted || untolerated(node.Node, pod.Spec.Tolerations) == nil)
}

// on is the number of pods on node that count. Pods that are going do not.
func (s *spread) on(node *NodeInfo) int64 {
	var n int64
	for _, p := range node.Pods {
		if p.DeletionTimestamp == nil && s.counts(p) {
			n++
		}
	}
	return n
}

func hasKeys(node *v1.Node, spreads []spread) bool {
	for i := range spreads {
		if _, ok := node.Labels[spreads[i].key]; !ok {
			return false
		}
	}
	return true
}

func (podTopologySpread) Filter(pod *PodInfo, cluster *Cluster) (NodeFilter, *Status) {
	spreads := spreadsOf(pod, v1.DoNotSchedule)
	if len(spreads) == 0 {
		return nil, nil
	}
	// domains[i] has the count of each value of the key of spreads[i].
	domains := make([]map[string]int64, len(spreads))
	for i := range spreads {
		domains[i] = map[string]int64{}
	}
	for _, node := range cluster.Nodes {
		if !hasKeys(node.Node, spreads) {
			continue
		}
		for i := range spreads {
			if spreads[i].countsOn(pod, node) {
				domains[i][node.Labels[spreads[i].key]] += spreads[i].on(node)
			}
		}
	}
	least := make([]int64, len(spreads))
	for i := range spreads {
		if int64(len(domains[i])) >= spreads[i].minDomains && len(domains[i]) > 0 {
			least[i] = slices.Min(slices.Collect(maps.Values(domains[i])))
		}
	}
	return func(node *NodeInfo) *Status {
		for i := range spreads {
			value, ok := node.Labels[spreads[i].key]
			if !ok {
				return rejectedFinally(reasonSpreadNoLabel)
			}
			if domains[i][value]+spreads[i].self-least[i] > spreads[i].maxSkew {
				return rejected(reasonSpread)
			}
		}
		return nil
	}, nil
}

// Score prefers nodes in domains with fewer of the pods to spread; a
// constraint weighs more the more domains it has.
func (podTopologySpread) Score(pod *PodInfo, cluster *Cluster, feasible []*NodeInfo) []int64 {
	spreads := spreadsOf(pod, v1.ScheduleAnyway)
	needKeys := true
	if len(spreads) == 0 {
		spreads = defaultSpreads(pod)
		needKeys = false // a cluster without zones still spreads over hosts
	}
	if len(spreads) == 0 {
		return nil
	}
	usable := func(n *NodeInfo) bool { return !needKeys || hasKeys(n.Node, spreads) }

	raw := make([]float64, len(feasible))
	for i := range spreads {
		s := &spreads[i]
		domains := map[string]int64{}
		for _, node := range feasible {
			if value, ok := node.Labels[s.key]; ok && usable(node) {
				domains[value] = 0
			}
		}
		for _, node := range cluster.Nodes {
			value := node.Labels[s.key]
			if _, ok := domains[value]; ok && usable(node) && s.countsOn(pod, node) {
				domains[value] += s.on(node)
			}
		}
		weight := math.Log(float64(len(domains) + 2))
		for j, node := range feasible {
			if value, ok := node.Labels[s.key]; ok {
				raw[j] += float64(domains[value])*weight + float64(s.maxSkew-1)
			}
		}
	}

	least, most := math.Inf(1), math.Inf(-1)
	for j, node := range feasible {
		if usable(node) {
			least, most = min(least, math.Round(raw[j])), max(most, math.Round(raw[j]))
		}
	}
	scores := make([]int64, len(feasible))
	for j, node := range feasible {
		switch {
		case !usable(node):
		case most == 0:
			scores[j] = maxScore
		default:
			scores[j] = int64(maxScore * (most + least - math.Round(raw[j])) / most)
		}
	}
	return scores
}

func (podTopologySpread) Wakes(pod *PodInfo, e Event) bool {
	spreads := spreadsOf(pod, v1.DoNotSchedule)
	counts := func(p *v1.Pod) bool {
		if p == nil {
			return false
		}
		info := &PodInfo{Pod: p}
		return slices.ContainsFunc(spreads, func(s spread) bool { return s.counts(info) })
	}
	switch e.Kind {
	case PendingPodUpdated:
		return true
	case PodAssigned, PodUpdated, PodRemoved:
		return counts(e.OldPod) || counts(e.Pod)
	case NodeAdded:
		return hasKeys(e.Node, spreads)
	case NodeDeleted:
		return hasKeys(e.OldNode, spreads)
	case NodeUpdated:
		return !maps.Equal(e.OldNode.Labels, e.Node.Labels) || !equality.Semantic.DeepEqual(e.OldNode.Spec.Taints, e.Node.Spec.Taints)
	}
	return false
}
