package scheduler

import (
	"maps"
	"math"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// interPodAffinity honours required affinity and anti-affinity between pods,
// both the pod's own and, for anti-affinity, that of the pods already there;
// preferred terms of either side score.
type interPodAffinity struct {
	namespaceLabels func(string) labels.Set
}

func (interPodAffinity) Name() string  { return "InterPodAffinity" }
func (interPodAffinity) Weight() int64 { return 2 }

const (
	reasonAffinity         = "node(s) didn't match pod affinity rules"
	reasonAntiAffinity     = "node(s) didn't match pod anti-affinity rules"
	reasonExistingAntiAffi = "node(s) didn't satisfy existing pods anti-affinity rules"
)

// hardAffinityWeight is what a required affinity of a pod on a node counts in
// the score of a pod it selects.
const hardAffinityWeight = 1

// A domain is a topology: a node label and its value.
type domain struct{ key, value string }

// tally counts by domain.
type tally map[domain]int64

// add counts n in the domain of node by key, if node has that label.
func (t tally) add(node *v1.Node, key string, n int64) {
	if value, ok := node.Labels[key]; ok {
		t[domain{key, value}] += n
	}
}

func (t tally) at(node *v1.Node, key string) int64 {
	value, ok := node.Labels[key]
	if !ok {
		return 0
	}
	return t[domain{key, value}]
}

func (p interPodAffinity) Filter(pod *PodInfo, cluster *Cluster) (NodeFilter, *Status) {
	var (
		near     = tally{} // pods that all affinity terms select
		avoid    = tally{} // pods that an anti-affinity term selects
		avoided  = tally{} // pods whose anti-affinity selects this one
		ownSpace = p.namespaceLabels(pod.Namespace)
	)
	for _, node := range cluster.Nodes {
		for _, other := range node.withAntiAffinity {
			for i := range other.AntiAffinity {
				if t := &other.AntiAffinity[i]; t.matches(pod.Pod, ownSpace) {
					avoided.add(node.Node, t.topologyKey, 1)
				}
			}
		}
		if len(pod.Affinity)+len(pod.AntiAffinity) == 0 {
			continue
		}
		for _, other := range node.Pods {
			if p.selectedByAll(pod.Affinity, other) {
				for i := range pod.Affinity {
					near.add(node.Node, pod.Affinity[i].topologyKey, 1)
				}
			}
			for i := range pod.AntiAffinity {
				if t := &pod.AntiAffinity[i]; t.matches(other.Pod, p.namespaceLabels(other.Namespace)) {
					avoid.add(node.Node, t.topologyKey, 1)
				}
			}
		}
	}
	if len(pod.Affinity)+len(pod.AntiAffinity)+len(avoided) == 0 {
		return nil, nil
	}
	// The first of a group that wants to be near itself may go anywhere.
	first := len(near) == 0 && p.selectedByAll(pod.Affinity, pod)
	return func(node *NodeInfo) *Status {
		for i := range pod.Affinity {
			key := pod.Affinity[i].topologyKey
			if _, ok := node.Labels[key]; !ok || !first && near.at(node.Node, key) == 0 {
				return rejectedFinally(reasonAffinity)
			}
		}
		for i := range pod.AntiAffinity {
			if avoid.at(node.Node, pod.AntiAffinity[i].topologyKey) > 0 {
				return rejected(reasonAntiAffinity)
			}
		}
		for d := range avoided {
			if value, ok := node.Labels[d.key]; ok && value == d.value {
				return rejected(reasonExistingAntiAffi)
			}
		}
		return nil
	}, nil
}

// selectedByAll reports whether there are terms and each selects other.
func (p interPodAffinity) selectedByAll(terms []affinityTerm, other *PodInfo) bool {
	for i := range terms {
		if !terms[i].matches(other.Pod, p.namespaceLabels(other.Namespace)) {
			return false
		}
	}
	return len(terms) > 0
}

func (p interPodAffinity) Score(pod *PodInfo, cluster *Cluster, feasible []*NodeInfo) []int64 {
	pull := tally{} // toward each domain; negative pushes away
	ownSpace := p.namespaceLabels(pod.Namespace)
	prefers := len(pod.PreferredAffinity)+len(pod.PreferredAntiAffinity) > 0
	for _, node := range cluster.Nodes {
		// What pods there want of this one.
		for _, other := range node.withAffinity {
			existing := func(terms []affinityTerm, sign, fixed int64) {
				for i := range terms {
					if t := &terms[i]; t.matches(pod.Pod, ownSpace) {
						pull.add(node.Node, t.topologyKey, sign*max(t.weight, fixed))
					}
				}
			}
			existing(other.Affinity, 1, hardAffinityWeight)
			existing(other.PreferredAffinity, 1, 0)
			existing(other.PreferredAntiAffinity, -1, 0)
		}
		if !prefers {
			continue
		}
		// What this one wants of pods there.
		for _, other := range node.Pods {
			space := p.namespaceLabels(other.Namespace)
			for i := range pod.PreferredAffinity {
				if t := &pod.PreferredAffinity[i]; t.matches(other.Pod, space) {
					pull.add(node.Node, t.topologyKey, t.weight)
				}
			}
			for i := range pod.PreferredAntiAffinity {
				if t := &pod.PreferredAntiAffinity[i]; t.matches(other.Pod, space) {
					pull.add(node.Node, t.topologyKey, -t.weight)
				}
			}
		}
	}
	if len(pull) == 0 {
		return nil
	}
	scores := make([]int64, len(feasible))
	least, most := int64(math.MaxInt64), int64(math.MinInt64)
	for i, node := range feasible {
		for d, n := range pull {
			if value, ok := node.Labels[d.key]; ok && value == d.value {
				scores[i] += n
			}
		}
		least, most = min(least, scores[i]), max(most, scores[i])
	}
	for i, s := range scores {
		if scores[i] = 0; most > least {
			scores[i] = maxScore * (s - least) / (most - least)
		}
	}
	return scores
}

func (p interPodAffinity) Wakes(pod *PodInfo, e Event) bool {
	switch e.Kind {
	case PendingPodUpdated:
		return true
	case NamespaceChanged:
		return true // a namespace selector, ours or another pod's, may select anew
	case PodAssigned:
		return p.selectedByAny(pod.Affinity, e.Pod)
	case PodUpdated:
		// With other labels it may come to be near, or no longer to avoid.
		return p.selectedByAny(pod.Affinity, e.Pod) ||
			!maps.Equal(e.OldPod.Labels, e.Pod.Labels) && p.selectedByAny(pod.AntiAffinity, e.OldPod)
	case PodRemoved:
		if p.selectedByAny(pod.AntiAffinity, e.OldPod) || p.selectedByAny(pod.Affinity, e.OldPod) {
			return true
		}
		space := p.namespaceLabels(pod.Namespace)
		return slices.ContainsFunc(newPodInfo(e.OldPod).AntiAffinity, func(t affinityTerm) bool { return t.matches(pod.Pod, space) })
	case NodeAdded:
		return true
	case NodeUpdated:
		return !maps.Equal(e.OldNode.Labels, e.Node.Labels)
	}
	return false
}

func (p interPodAffinity) selectedByAny(terms []affinityTerm, other *v1.Pod) bool {
	return slices.ContainsFunc(terms, func(t affinityTerm) bool { return t.matches(other, p.namespaceLabels(other.Namespace)) })
}
