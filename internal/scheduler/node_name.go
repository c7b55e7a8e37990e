package scheduler

import v1 "k8s.io/api/core/v1"

// nodeName honours spec.nodeName. The queue holds no pod that has one; the
// rule speaks when pods that do are tried against nodes.
type nodeName struct{}

func (nodeName) Name() string { return "NodeName" }

func (nodeName) Filter(pod *PodInfo, _ *Cluster) (NodeFilter, *Status) {
	want := pod.Spec.NodeName
	if want == "" {
		return nil, nil
	}
	return func(node *NodeInfo) *Status {
		if node.Name != want {
			return rejectedFinally("node(s) didn't match the requested node name")
		}
		return nil
	}, nil
}

func (nodeName) Wakes(pod *PodInfo, e Event) bool {
	return e.nodeNowPasses(func(n *v1.Node) bool { return n.Name == pod.Spec.NodeName })
}
