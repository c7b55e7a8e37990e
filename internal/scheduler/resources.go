package scheduler

import (
	"maps"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Resources is an amount of everything a node can run out of.
type Resources struct {
	MilliCPU  int64 // thousandths of a core
	Memory    int64 // bytes
	Ephemeral int64 // bytes of local ephemeral storage
	// Scalar holds the countable rest: extended resources, hugepages (bytes)
	// and attachable volumes. Shared between copies: add and sub make their own.
	Scalar map[v1.ResourceName]int64
}

// What a container that requests no CPU or memory counts for when nodes are
// scored, so that pods without requests spread as well.
const (
	scoringMilliCPU = 100
	scoringMemory   = 200 << 20
)

func resourcesOf(list v1.ResourceList) Resources {
	var r Resources
	for name, q := range list {
		switch name {
		case v1.ResourceCPU:
			r.MilliCPU = q.MilliValue()
		case v1.ResourceMemory:
			r.Memory = q.Value()
		case v1.ResourceEphemeralStorage:
			r.Ephemeral = q.Value()
		default:
			if isScalar(name) {
				if r.Scalar == nil {
					r.Scalar = map[v1.ResourceName]int64{}
				}
				r.Scalar[name] = q.Value()
			}
		}
	}
	return r
}

// isScalar reports whether nodes count name as a scalar: extended resources
// (domain-qualified outside kubernetes.io), hugepages and attachable volumes.
func isScalar(name v1.ResourceName) bool {
	s := string(name)
	switch {
	case strings.HasPrefix(s, v1.ResourceHugePagesPrefix), strings.HasPrefix(s, v1.ResourceAttachableVolumesPrefix):
		return true
	case strings.HasPrefix(s, v1.DefaultResourceRequestsPrefix):
		return false
	}
	return strings.Contains(s, "/")
}

func (r Resources) plus(o Resources) Resources {
	r.MilliCPU += o.MilliCPU
	r.Memory += o.Memory
	r.Ephemeral += o.Ephemeral
	if len(o.Scalar) > 0 {
		sum := maps.Clone(r.Scalar)
		if sum == nil {
			sum = make(map[v1.ResourceName]int64, len(o.Scalar))
		}
		for name, n := range o.Scalar {
			sum[name] += n
		}
		r.Scalar = sum
	}
	return r
}

func (r Resources) minus(o Resources) Resources {
	neg := Resources{MilliCPU: -o.MilliCPU, Memory: -o.Memory, Ephemeral: -o.Ephemeral}
	if len(o.Scalar) > 0 {
		neg.Scalar = make(map[v1.ResourceName]int64, len(o.Scalar))
		for name, n := range o.Scalar {
			neg.Scalar[name] = -n
		}
	}
	return r.plus(neg)
}

func (r Resources) isZero() bool {
	if r.MilliCPU != 0 || r.Memory != 0 || r.Ephemeral != 0 {
		return false
	}
	for _, n := range r.Scalar {
		if n != 0 {
			return false
		}
	}
	return true
}

// scalarNames lists the scalar resources in a stable order.
func (r Resources) scalarNames() []v1.ResourceName {
	return slices.Sorted(maps.Keys(r.Scalar))
}

// podRequests is what pod occupies on its node (KEP-753, KEP-2837, KEP-1287):
// the larger of its running containers (ordinary ones and sidecars) and of its
// worst moment of initialisation, or what the pod as a whole requests, plus its
// overhead. forScoring gives containers without a CPU or memory request the
// scoring default.
func podRequests(pod *v1.Pod, forScoring bool) Resources {
	running := v1.ResourceList{}  // ordinary containers
	sidecars := v1.ResourceList{} // restartable init containers seen so far
	peak := v1.ResourceList{}     // worst moment while initialising

	actual := containerAmounts(pod)
	infeasible := resizeInfeasible(pod)
	amount := func(c *v1.Container) v1.ResourceList {
		req := c.Resources.Requests
		if now, ok := actual[c.Name]; ok {
			if infeasible {
				req = now // the node refused the new request
			} else {
				req = larger(req, now)
			}
		}
		if forScoring {
			req = withScoringDefaults(req, pod.Spec.Resources)
		}
		return req
	}

	for i := range pod.Spec.Containers {
		addList(running, amount(&pod.Spec.Containers[i]))
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		now := maps.Clone(sidecars)
		addList(now, amount(c))
		if isSidecar(c) {
			sidecars = now
		}
		peak = larger(peak, now)
	}
	addList(running, sidecars)
	total := larger(running, peak)

	if pod.Spec.Resources != nil {
		req := pod.Spec.Resources.Requests
		now := pod.Status.AllocatedResources
		if pod.Status.Resources != nil {
			now = larger(now, pod.Status.Resources.Requests)
		}
		for name, q := range req {
			if have, ok := now[name]; ok && (infeasible || have.Cmp(q) > 0) {
				q = have // as with a container's
			}
			if podLevelResource(name) {
				total[name] = q
			}
		}
	}
	addList(total, pod.Spec.Overhead)
	return resourcesOf(total)
}

// podLevelResource lists what pod.spec.resources may set (KEP-2837).
func podLevelResource(name v1.ResourceName) bool {
	return name == v1.ResourceCPU || name == v1.ResourceMemory || strings.HasPrefix(string(name), v1.ResourceHugePagesPrefix)
}

func isSidecar(c *v1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways
}

// containerAmounts is what the node says its containers have now: the larger
// of allocated and actual, by container name (KEP-1287). While a resize is
// under way both this and the request are held.
func containerAmounts(pod *v1.Pod) map[string]v1.ResourceList {
	var out map[string]v1.ResourceList
	for _, statuses := range [][]v1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range statuses {
			cs := &statuses[i]
			now := cs.AllocatedResources
			if cs.Resources != nil {
				now = larger(now, cs.Resources.Requests)
			}
			if len(now) > 0 {
				if out == nil {
					out = map[string]v1.ResourceList{}
				}
				out[cs.Name] = now
			}
		}
	}
	return out
}

func resizeInfeasible(pod *v1.Pod) bool {
	for i := range pod.Status.Conditions {
		c := &pod.Status.Conditions[i]
		if c.Type == v1.PodResizePending {
			return c.Status == v1.ConditionTrue && c.Reason == v1.PodReasonInfeasible
		}
	}
	return false
}

func withScoringDefaults(req v1.ResourceList, podLevel *v1.ResourceRequirements) v1.ResourceList {
	set := func(name v1.ResourceName, q *resource.Quantity) {
		if _, ok := req[name]; ok {
			return
		}
		if podLevel != nil {
			if _, ok := podLevel.Requests[name]; ok {
				return
			}
		}
		req = maps.Clone(req)
		if req == nil {
			req = v1.ResourceList{}
		}
		req[name] = *q
	}
	set(v1.ResourceCPU, resource.NewMilliQuantity(scoringMilliCPU, resource.DecimalSI))
	set(v1.ResourceMemory, resource.NewQuantity(scoringMemory, resource.BinarySI))
	return req
}

func addList(into, list v1.ResourceList) {
	for name, q := range list {
		sum := into[name].DeepCopy()
		sum.Add(q)
		into[name] = sum
	}
}

// larger is the greater amount of each resource, in a new list.
func larger(a, b v1.ResourceList) v1.ResourceList {
	out := maps.Clone(a)
	if out == nil {
		out = v1.ResourceList{}
	}
	for name, q := range b {
		if have, ok := out[name]; !ok || q.Cmp(have) > 0 {
			out[name] = q
		}
	}
	return out
}
