package node

import (
	"math"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Numbers of the Linux scheduler and OOM killer, as Kubernetes uses them.
const (
	minShares     = 2
	maxShares     = 262144
	sharesPerCPU  = 1024
	quotaPeriod   = 100000 // µs
	minQuota      = 1000   // µs
	oomGuaranteed = -997
	oomBestEffort = 1000

	systemCriticalPriority = 2 * 1000000000
)

func sharesOf(milliCPU int64) int64 {
	return min(max(milliCPU*sharesPerCPU/1000, minShares), maxShares)
}

func quotaOf(milliCPU int64) int64 {
	if milliCPU <= 0 {
		return 0
	}
	return max(milliCPU*quotaPeriod/1000, minQuota)
}

// linuxResources are a container's cgroup values. cgroup2 adds what exists
// only there; memoryCapacity is the node's, in bytes.
func linuxResources(pod *v1.Pod, c *v1.Container, memoryCapacity int64, cgroup2 bool) *runtimeapi.LinuxContainerResources {
	requests, limits := c.Resources.Requests, c.Resources.Limits
	cpu, requested := requests[v1.ResourceCPU]
	if limit, limited := limits[v1.ResourceCPU]; !requested && limited {
		cpu = limit
	}
	r := &runtimeapi.LinuxContainerResources{
		CpuShares:          sharesOf(cpu.MilliValue()),
		CpuPeriod:          quotaPeriod,
		CpuQuota:           quotaOf(limits.Cpu().MilliValue()),
		MemoryLimitInBytes: limits.Memory().Value(),
		OomScoreAdj:        oomScoreAdjust(pod, c, memoryCapacity),
	}
	if cgroup2 {
		// Kubernetes' default is that pods do not swap.
		r.MemorySwapLimitInBytes = r.MemoryLimitInBytes
		// One process of a container killed for memory takes the others along.
		r.Unified = map[string]string{"memory.oom.group": "1"}
	}
	return r
}

// oomScoreAdjust ranks a container for the OOM killer: best effort first, then
// burstable by how much of the node's memory it asked for, guaranteed last.
func oomScoreAdjust(pod *v1.Pod, c *v1.Container, memoryCapacity int64) int64 {
	if pod.Spec.Priority != nil && *pod.Spec.Priority >= systemCriticalPriority {
		return oomGuaranteed
	}
	switch qosOf(pod) {
	case v1.PodQOSGuaranteed:
		return oomGuaranteed
	case v1.PodQOSBestEffort:
		return oomBestEffort
	}
	if memoryCapacity <= 0 {
		return oomBestEffort - 1
	}
	score := int64(1000 - math.Floor(1000*float64(c.Resources.Requests.Memory().Value())/float64(memoryCapacity)))
	return min(max(score, 1000+oomGuaranteed), oomBestEffort-1)
}

// qosOf is the pod's quality of service class: what the API server recorded,
// else computed from its CPU and memory.
func qosOf(pod *v1.Pod) v1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	guaranteed, any := true, false
	check := func(r v1.ResourceRequirements) {
		for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
			request, limit := r.Requests[name], r.Limits[name]
			if !request.IsZero() || !limit.IsZero() {
				any = true
			}
			if _, requested := r.Requests[name]; !requested {
				request = limit
			}
			if limit.IsZero() || request.Cmp(limit) != 0 {
				guaranteed = false
			}
		}
	}
	if pod.Spec.Resources != nil && (len(pod.Spec.Resources.Requests) > 0 || len(pod.Spec.Resources.Limits) > 0) {
		check(*pod.Spec.Resources)
	} else {
		for i := range pod.Spec.InitContainers {
			check(pod.Spec.InitContainers[i].Resources)
		}
		for i := range pod.Spec.Containers {
			check(pod.Spec.Containers[i].Resources)
		}
	}
	switch {
	case !any:
		return v1.PodQOSBestEffort
	case guaranteed:
		return v1.PodQOSGuaranteed
	}
	return v1.PodQOSBurstable
}

// podRequests is what the pod takes of the node: the sum of its containers
// and sidecars, or the largest moment of initialization, plus overhead.
func podRequests(pod *v1.Pod) v1.ResourceList {
	return podSum(pod, func(c *v1.Container) v1.ResourceList { return c.Resources.Requests }, func(r *v1.ResourceRequirements) v1.ResourceList { return r.Requests })
}

// podLimits is the like sum of limits; a resource that some container leaves
// unlimited is missing in it.
func podLimits(pod *v1.Pod) v1.ResourceList {
	limits := podSum(pod, func(c *v1.Container) v1.ResourceList { return c.Resources.Limits }, func(r *v1.ResourceRequirements) v1.ResourceList { return r.Limits })
	podLevel := v1.ResourceList{}
	if pod.Spec.Resources != nil {
		podLevel = pod.Spec.Resources.Limits
	}
	for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
		if _, ok := podLevel[name]; ok {
			continue
		}
		for _, c := range append(sidecarsOf(pod), containersOf(pod)...) {
			if _, ok := c.Resources.Limits[name]; !ok {
				delete(limits, name)
			}
		}
	}
	return limits
}

func podSum(pod *v1.Pod, of func(*v1.Container) v1.ResourceList, ofPod func(*v1.ResourceRequirements) v1.ResourceList) v1.ResourceList {
	total, sidecars, peak := v1.ResourceList{}, v1.ResourceList{}, v1.ResourceList{}
	for i := range pod.Spec.Containers {
		addResources(total, of(&pod.Spec.Containers[i]))
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		moment := sidecars.DeepCopy()
		if moment == nil {
			moment = v1.ResourceList{}
		}
		addResources(moment, of(c))
		if isSidecar(c) {
			addResources(sidecars, of(c))
		}
		maxResources(peak, moment)
	}
	addResources(total, sidecars)
	maxResources(total, peak)
	if pod.Spec.Resources != nil {
		for name, quantity := range ofPod(pod.Spec.Resources) {
			total[name] = quantity
		}
	}
	addResources(total, pod.Spec.Overhead)
	return total
}

func addResources(sum, more v1.ResourceList) {
	for name, quantity := range more {
		have := sum[name]
		have.Add(quantity)
		sum[name] = have
	}
}

func maxResources(into, other v1.ResourceList) {
	for name, quantity := range other {
		if have, ok := into[name]; !ok || have.Cmp(quantity) < 0 {
			into[name] = quantity.DeepCopy()
		}
	}
}

// resourceField is the value of a resourceFieldRef for one container, in units
// of the divisor, rounded up. A limit that is not set is what the node could
// give.
func resourceField(c *v1.Container, selector *v1.ResourceFieldSelector, allocatable v1.ResourceList) (string, bool) {
	divisor := selector.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	kind, name, ok := strings.Cut(selector.Resource, ".")
	if !ok {
		return "", false
	}
	quantity, found := c.Resources.Requests[v1.ResourceName(name)]
	if kind == "limits" {
		quantity, found = c.Resources.Limits[v1.ResourceName(name)]
		if !found || quantity.IsZero() {
			quantity, found = allocatable[v1.ResourceName(name)]
		}
	} else if kind != "requests" {
		return "", false
	} else if !found {
		// The API server defaults requests from limits; a bare request is 0.
		quantity, found = c.Resources.Limits[v1.ResourceName(name)]
	}
	if !found {
		quantity = resource.Quantity{}
	}
	switch {
	case name == string(v1.ResourceCPU):
		return formatInt(ceilDivide(quantity.MilliValue(), divisor.MilliValue())), true
	case name == string(v1.ResourceMemory), name == string(v1.ResourceEphemeralStorage), strings.HasPrefix(name, v1.ResourceHugePagesPrefix):
		return formatInt(ceilDivide(quantity.Value(), divisor.Value())), true
	}
	return "", false
}

func ceilDivide(a, b int64) int64 {
	if b <= 0 {
		return 0
	}
	return (a + b - 1) / b
}
