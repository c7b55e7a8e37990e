package scheduler

// nodePorts keeps two pods from taking the same host port of a node.
type nodePorts struct{}

func (nodePorts) Name() string { return "NodePorts" }

func (nodePorts) Filter(pod *PodInfo, _ *Cluster) (NodeFilter, *Status) {
	if len(pod.Ports) == 0 {
		return nil, nil
	}
	return func(node *NodeInfo) *Status {
		for _, other := range node.Pods {
			if portsConflict(pod.Ports, other.Ports) {
				return rejected("node(s) didn't have free ports for the requested pod ports")
			}
		}
		return nil
	}, nil
}

func portsConflict(a, b []hostPort) bool {
	for _, p := range a {
		for _, q := range b {
			if p.conflicts(q) {
				return true
			}
		}
	}
	return false
}

func (nodePorts) Wakes(pod *PodInfo, e Event) bool {
	switch e.Kind {
	case NodeAdded:
		return true
	case PodRemoved:
		return portsConflict(pod.Ports, hostPorts(e.OldPod))
	}
	return false
}
