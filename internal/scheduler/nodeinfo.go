package scheduler

import (
	"slices"

	v1 "k8s.io/api/core/v1"
)

// NodeInfo is a node with the pods on it, those only assumed there included.
// Immutable: a change makes a new one, so a cycle reads its snapshot without a
// lock and preemption can try out nodes with fewer pods.
type NodeInfo struct {
	*v1.Node    // nil for a node that pods name but nobody has seen
	Pods        []*PodInfo
	Allocatable Resources
	MaxPods     int64
	Requested   Resources // sum over Pods
	Scoring     Resources // sum over Pods, with defaults for what is not requested
	// images maps each name of an image on the node to its size in bytes.
	images map[string]int64
	// withAffinity and withAntiAffinity are the pods that have any pod
	// affinity, and those with a required anti-affinity.
	withAffinity, withAntiAffinity []*PodInfo
}

// withNode is n, its node replaced.
func (n *NodeInfo) withNode(node *v1.Node) *NodeInfo {
	c := *n
	c.Node = node
	c.Allocatable, c.MaxPods, c.images = Resources{}, 0, nil
	if node != nil {
		c.Allocatable = resourcesOf(node.Status.Allocatable)
		if q, ok := node.Status.Allocatable[v1.ResourcePods]; ok {
			c.MaxPods = q.Value()
		}
		c.images = make(map[string]int64, len(node.Status.Images))
		for _, image := range node.Status.Images {
			for _, name := range image.Names {
				c.images[name] = image.SizeBytes
			}
		}
	}
	return &c
}

// withPod is n with p added.
func (n *NodeInfo) withPod(p *PodInfo) *NodeInfo {
	c := *n
	c.Pods = append(slices.Clip(n.Pods), p)
	c.Requested = n.Requested.plus(p.Requests)
	c.Scoring = n.Scoring.plus(p.Scoring)
	if hasPodAffinity(p) {
		c.withAffinity = append(slices.Clip(n.withAffinity), p)
	}
	if len(p.AntiAffinity) > 0 {
		c.withAntiAffinity = append(slices.Clip(n.withAntiAffinity), p)
	}
	return &c
}

// withoutPod is n with the pod id removed, if it was there.
func (n *NodeInfo) withoutPod(id podID) *NodeInfo {
	i := slices.IndexFunc(n.Pods, func(p *PodInfo) bool { return idOf(p.Pod) == id })
	if i < 0 {
		return n
	}
	p := n.Pods[i]
	c := *n
	c.Pods = without(n.Pods, p)
	c.Requested = n.Requested.minus(p.Requests)
	c.Scoring = n.Scoring.minus(p.Scoring)
	if hasPodAffinity(p) {
		c.withAffinity = without(n.withAffinity, p)
	}
	if len(p.AntiAffinity) > 0 {
		c.withAntiAffinity = without(n.withAntiAffinity, p)
	}
	return &c
}

func hasPodAffinity(p *PodInfo) bool {
	return len(p.Affinity)+len(p.AntiAffinity)+len(p.PreferredAffinity)+len(p.PreferredAntiAffinity) > 0
}

func without(pods []*PodInfo, p *PodInfo) []*PodInfo {
	out := make([]*PodInfo, 0, len(pods))
	for _, q := range pods {
		if q != p {
			out = append(out, q)
		}
	}
	return out
}
