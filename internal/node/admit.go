package node

import (
	"fmt"
	"slices"
	"strconv"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
)

// admit decides whether this node takes a pod bound to it: nil if so. The
// scheduler decided before; this catches what it could not know, and pods that
// were bound by hand.
func (a *Agent) admit(pod *v1.Pod, seen *snapshot) *rejection {
	a.health.mu.Lock()
	node := a.health.mu.node
	a.health.mu.Unlock()

	a.mu.Lock()
	defer a.mu.Unlock()
	// What runs here already was admitted by an earlier agent.
	if len(seen.containers) == 0 {
		var others []*v1.Pod
		for uid, other := range a.mu.admitted {
			if uid != pod.UID {
				others = append(others, other)
			}
		}
		if r := refusal(pod, others, a.machine.allocatable, a.health.labelsOf(node), a.health.supplementalGroups()); r != nil {
			return r
		}
	}
	a.mu.admitted[pod.UID] = pod
	return nil
}

// release gives back what an ended pod took of the node.
func (a *Agent) release(uid types.UID) {
	a.mu.Lock()
	delete(a.mu.admitted, uid)
	a.mu.Unlock()
}

// labelsOf is the node's labels as the API has them, or as registered.
func (h *health) labelsOf(node *v1.Node) map[string]string {
	if node != nil {
		return node.Labels
	}
	return h.labels()
}

// refusal says why a pod does not fit beside others, if it does not.
func refusal(pod *v1.Pod, others []*v1.Pod, allocatable v1.ResourceList, nodeLabels map[string]string, supplementalGroups bool) *rejection {
	if pod.Spec.OS != nil && pod.Spec.OS.Name != "" && pod.Spec.OS.Name != v1.Linux {
		return &rejection{"PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"}
	}
	if name, why := forbiddenSysctl(pod); name != "" {
		return &rejection{"SysctlForbidden", fmt.Sprintf("forbidden sysctl: %q %s", name, why)}
	}
	if policy := podSecurity(pod).SupplementalGroupsPolicy; policy != nil && *policy == v1.SupplementalGroupsPolicyStrict && !supplementalGroups {
		return &rejection{"SupplementalGroupsPolicyNotSupported", fmt.Sprintf("SupplementalGroupsPolicy=%s is not supported in this node", *policy)}
	}
	if !matchesNode(pod, nodeLabels) {
		return &rejection{"NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"}
	}
	if conflictingPorts(pod, others) {
		return &rejection{"NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"}
	}

	used := v1.ResourceList{}
	for _, other := range others {
		addResources(used, podRequests(other))
	}
	used[v1.ResourcePods] = *resource.NewQuantity(int64(len(others)), resource.DecimalSI)
	want := podRequests(pod)
	want[v1.ResourcePods] = *resource.NewQuantity(1, resource.DecimalSI)
	for _, name := range []v1.ResourceName{v1.ResourcePods, v1.ResourceCPU, v1.ResourceMemory, v1.ResourceEphemeralStorage} {
		requested, have, capacity := want[name], used[name], allocatable[name]
		if requested.IsZero() {
			continue
		}
		total := have.DeepCopy()
		total.Add(requested)
		if total.Cmp(capacity) > 0 {
			value := func(q resource.Quantity) int64 {
				if name == v1.ResourceCPU {
					return q.MilliValue()
				}
				return q.Value()
			}
			return &rejection{"OutOf" + string(name), fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d",
				name, value(requested), value(have), value(capacity))}
		}
	}
	return nil
}

func conflictingPorts(pod *v1.Pod, others []*v1.Pod) bool {
	wanted := hostPorts(pod)
	if len(wanted) == 0 {
		return false
	}
	for _, other := range others {
		for _, have := range hostPorts(other) {
			for _, want := range wanted {
				sameIP := have.HostIP == want.HostIP || anyAddress(have.HostIP) || anyAddress(want.HostIP)
				if have.HostPort == want.HostPort && have.Protocol == want.Protocol && sameIP {
					return true
				}
			}
		}
	}
	return false
}

func anyAddress(ip string) bool { return ip == "" || ip == "0.0.0.0" || ip == "::" }

func hostPorts(pod *v1.Pod) []v1.ContainerPort {
	var ports []v1.ContainerPort
	for _, c := range append(sidecarsOf(pod), containersOf(pod)...) {
		for _, port := range c.Ports {
			if port.HostPort > 0 {
				if port.Protocol == "" {
					port.Protocol = v1.ProtocolTCP
				}
				ports = append(ports, port)
			}
		}
	}
	return ports
}

// matchesNode checks nodeSelector and required node affinity.
func matchesNode(pod *v1.Pod, nodeLabels map[string]string) bool {
	if !labels.SelectorFromSet(pod.Spec.NodeSelector).Matches(labels.Set(nodeLabels)) {
		return false
	}
	if pod.Spec.Affinity == nil || pod.Spec.Affinity.NodeAffinity == nil || pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return true
	}
	return slices.ContainsFunc(pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms, func(term v1.NodeSelectorTerm) bool {
		if len(term.MatchExpressions) == 0 && len(term.MatchFields) == 0 {
			return false
		}
		fieldSet := map[string]string{"metadata.name": pod.Spec.NodeName}
		return matchesAll(term.MatchExpressions, nodeLabels) && matchesAll(term.MatchFields, fieldSet)
	})
}

func matchesAll(requirements []v1.NodeSelectorRequirement, set map[string]string) bool {
	operators := map[v1.NodeSelectorOperator]selection.Operator{
		v1.NodeSelectorOpIn: selection.In, v1.NodeSelectorOpNotIn: selection.NotIn,
		v1.NodeSelectorOpExists: selection.Exists, v1.NodeSelectorOpDoesNotExist: selection.DoesNotExist,
	}
	for _, r := range requirements {
		value, has := set[r.Key]
		switch r.Operator {
		case v1.NodeSelectorOpGt, v1.NodeSelectorOpLt:
			have, err1 := strconv.ParseInt(value, 10, 64)
			if len(r.Values) != 1 || !has || err1 != nil {
				return false
			}
			limit, err := strconv.ParseInt(r.Values[0], 10, 64)
			if err != nil || r.Operator == v1.NodeSelectorOpGt && have <= limit || r.Operator == v1.NodeSelectorOpLt && have >= limit {
				return false
			}
		default:
			requirement, err := labels.NewRequirement(r.Key, operators[r.Operator], r.Values)
			if err != nil || !requirement.Matches(labels.Set(set)) {
				return false
			}
		}
	}
	return true
}
