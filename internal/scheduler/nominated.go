package scheduler

import (
	"slices"
	"sync"
)

// nominations knows the pods that wait for the room made for them on a node
// (status.nominatedNodeName).
type nominations struct {
	mu     sync.Mutex
	byPod  map[podID]nomination
	byNode map[string]int // how many, so that most nodes cost one look
}

type nomination struct {
	pod  *PodInfo
	node string
}

func newNominations() *nominations {
	return &nominations{byPod: map[podID]nomination{}, byNode: map[string]int{}}
}

// set records what the waiting pod's status says.
func (n *nominations) set(pod *PodInfo) {
	if pod.Status.NominatedNodeName == "" {
		n.remove(idOf(pod.Pod))
		return
	}
	n.nominate(pod, pod.Status.NominatedNodeName)
}

func (n *nominations) nominate(pod *PodInfo, node string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.removeLocked(idOf(pod.Pod))
	n.byPod[idOf(pod.Pod)] = nomination{pod, node}
	n.byNode[node]++
}

func (n *nominations) remove(id podID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.removeLocked(id)
}

func (n *nominations) removeLocked(id podID) {
	was, ok := n.byPod[id]
	if !ok {
		return
	}
	delete(n.byPod, id)
	if n.byNode[was.node]--; n.byNode[was.node] == 0 {
		delete(n.byNode, was.node)
	}
}

// on is node with the pods nominated to it that pod may not crowd out: those
// of its priority or more. It is node itself if there are none.
func (n *nominations) on(node *NodeInfo, pod *PodInfo) *NodeInfo {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.byNode[node.Name] == 0 {
		return node
	}
	for id, nom := range n.byPod {
		if nom.node == node.Name && id != idOf(pod.Pod) && nom.pod.priority() >= pod.priority() {
			node = node.withPod(nom.pod)
		}
	}
	return node
}

// lower lists the pods nominated to node with less than priority.
func (n *nominations) lower(node string, priority int32) []*PodInfo {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []*PodInfo
	for _, nom := range n.byPod {
		if nom.node == node && nom.pod.priority() < priority {
			out = append(out, nom.pod)
		}
	}
	slices.SortFunc(out, moreImportant)
	return out
}
