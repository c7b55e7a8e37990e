package scheduler

import (
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
)

// Cluster is the state of the cluster at one moment, for one cycle. Immutable.
type Cluster struct {
	// Nodes that exist, oldest acquaintance first.
	Nodes []*NodeInfo
}

// node finds a node by name, nil if there is none.
func (c *Cluster) node(name string) *NodeInfo {
	for _, n := range c.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// with is c, its node of the same name replaced by n.
func (c *Cluster) with(n *NodeInfo) *Cluster {
	nodes := slices.Clone(c.Nodes)
	for i := range nodes {
		if nodes[i].Name == n.Name {
			nodes[i] = n
		}
	}
	return &Cluster{Nodes: nodes}
}

// cache knows every node and which pods are on it. A pod is on a node from the
// moment the scheduler chose it (assumed) until the informer says it is gone,
// or its binding failed; what the informer says of a pod overrules what was
// assumed.
type cache struct {
	mu    sync.Mutex
	nodes map[string]*NodeInfo // also nodes only known from pods
	order []string             // nodes that exist
	pods  map[podID]cachedPod
}

type cachedPod struct {
	info    *PodInfo
	node    string
	assumed bool
}

func newCache() *cache {
	return &cache{nodes: map[string]*NodeInfo{}, pods: map[podID]cachedPod{}}
}

// snapshot is the cluster now.
func (c *cache) snapshot() *Cluster {
	c.mu.Lock()
	defer c.mu.Unlock()
	nodes := make([]*NodeInfo, len(c.order))
	for i, name := range c.order {
		nodes[i] = c.nodes[name]
	}
	return &Cluster{Nodes: nodes}
}

// setNode adds or replaces a node.
func (c *cache) setNode(node *v1.Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.nodes[node.Name]
	if n == nil {
		n = &NodeInfo{}
	}
	if n.Node == nil {
		c.order = append(c.order, node.Name)
	}
	c.nodes[node.Name] = n.withNode(node)
}

// removeNode forgets a node; its pods stay counted until they go themselves,
// should the node come back.
func (c *cache) removeNode(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.nodes[name]
	if n == nil || n.Node == nil {
		return
	}
	c.order = slices.DeleteFunc(c.order, func(s string) bool { return s == name })
	c.put(name, n.withNode(nil))
}

// assume puts pod on node before the API server has heard of it.
func (c *cache) assume(pod *PodInfo, node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.place(pod, node, true)
}

// setPod records what the informer says: pod is on pod.Spec.NodeName.
func (c *cache) setPod(pod *PodInfo) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.place(pod, pod.Spec.NodeName, false)
}

// forget takes back an assumption that came to nothing, and reports whether it
// still stood: the informer may have overruled it meanwhile.
func (c *cache) forget(id podID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.pods[id]; !ok || !p.assumed {
		return false
	}
	c.displace(id)
	return true
}

// removePod takes a pod off its node, and reports whether it was on one.
func (c *cache) removePod(id podID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.displace(id)
}

// has reports whether pod is on a node, be it assumed.
func (c *cache) has(id podID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.pods[id]
	return ok
}

func (c *cache) place(pod *PodInfo, node string, assumed bool) {
	id := idOf(pod.Pod)
	c.displace(id)
	n := c.nodes[node]
	if n == nil {
		n = &NodeInfo{}
	}
	c.nodes[node] = n.withPod(pod)
	c.pods[id] = cachedPod{info: pod, node: node, assumed: assumed}
}

func (c *cache) displace(id podID) bool {
	p, ok := c.pods[id]
	if !ok {
		return false
	}
	delete(c.pods, id)
	c.put(p.node, c.nodes[p.node].withoutPod(id))
	return true
}

// put stores n, or drops it once neither node nor pods are left.
func (c *cache) put(name string, n *NodeInfo) {
	if n.Node == nil && len(n.Pods) == 0 {
		delete(c.nodes, name)
		return
	}
	c.nodes[name] = n
}
