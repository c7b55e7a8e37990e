package node

import (
	"fmt"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// list reads "cpu=1 memory=2Gi".
func list(s string) v1.ResourceList {
	out := v1.ResourceList{}
	for _, part := range strings.Fields(s) {
		name, quantity, _ := strings.Cut(part, "=")
		out[v1.ResourceName(name)] = resource.MustParse(quantity)
	}
	return out
}

func wants(name, requests, limits string) v1.Container {
	return v1.Container{Name: name, Resources: v1.ResourceRequirements{Requests: list(requests), Limits: list(limits)}}
}

func TestLinuxResources(t *testing.T) {
	for _, x := range []struct {
		requests, limits string
		want             string // shares quota memory oom
	}{
		{"", "", "2 0 0 1000"},
		{"cpu=100m", "", "102 0 0 999"},
		{"cpu=2 memory=4Gi", "", "2048 0 0 500"},
		{"", "cpu=500m", "512 50000 0 999"},
		{"cpu=1m", "cpu=1m memory=1Mi", "2 1000 1048576 -997"},
		{"cpu=1 memory=1Gi", "cpu=1 memory=1Gi", "1024 100000 1073741824 -997"},
		{"memory=8Gi", "memory=9Gi", "2 0 9663676416 3"},
	} {
		c := wants("c", x.requests, x.limits)
		pod := &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{c}}}
		r := linuxResources(pod, &c, 8<<30, false)
		got := fmt.Sprint(r.CpuShares, " ", r.CpuQuota, " ", r.MemoryLimitInBytes, " ", r.OomScoreAdj)
		if got != x.want {
			t.Errorf("%s / %s: %s, want %s", x.requests, x.limits, got, x.want)
		}
	}
}

func TestQOS(t *testing.T) {
	for _, x := range []struct {
		want       v1.PodQOSClass
		containers []v1.Container
	}{
		{v1.PodQOSBestEffort, []v1.Container{wants("a", "", "")}},
		{v1.PodQOSBurstable, []v1.Container{wants("a", "cpu=1", "")}},
		{v1.PodQOSBurstable, []v1.Container{wants("a", "", "cpu=1")}},
		{v1.PodQOSGuaranteed, []v1.Container{wants("a", "", "cpu=1 memory=1Gi")}},
		{v1.PodQOSGuaranteed, []v1.Container{wants("a", "cpu=1 memory=1Gi", "cpu=1 memory=1Gi"), wants("b", "cpu=1 memory=1Gi", "cpu=1 memory=1Gi")}},
		{v1.PodQOSBurstable, []v1.Container{wants("a", "", "cpu=1 memory=1Gi"), wants("b", "", "")}},
	} {
		if got := qosOf(&v1.Pod{Spec: v1.PodSpec{Containers: x.containers}}); got != x.want {
			t.Errorf("%v: %s, want %s", x.containers, got, x.want)
		}
	}
}

func TestPodRequests(t *testing.T) {
	always := v1.ContainerRestartPolicyAlways
	side := wants("side", "cpu=1 memory=1Gi", "")
	side.RestartPolicy = &always
	pod := &v1.Pod{Spec: v1.PodSpec{
		InitContainers: []v1.Container{wants("i", "cpu=2", ""), side, wants("j", "cpu=4 memory=100Mi", "")},
		Containers:     []v1.Container{wants("a", "cpu=1 memory=1Gi", ""), wants("b", "cpu=1", "")},
		Overhead:       list("cpu=250m"),
	}}
	got := podRequests(pod)
	// The peak is j beside the sidecar: 5 CPUs. Memory peaks with the apps: 2Gi.
	if cpu, memory := got[v1.ResourceCPU], got[v1.ResourceMemory]; cpu.String() != "5250m" || memory.String() != "2Gi" {
		t.Errorf("requests %v %v", cpu.String(), memory.String())
	}
	pod.Spec.Resources = &v1.ResourceRequirements{Requests: list("cpu=3")}
	if cpu := podRequests(pod)[v1.ResourceCPU]; cpu.String() != "3250m" {
		t.Errorf("pod-level requests: %s", cpu.String())
	}
}

func TestRefusal(t *testing.T) {
	pod := func(change func(*v1.PodSpec)) *v1.Pod {
		p := &v1.Pod{Spec: v1.PodSpec{NodeName: "n", Containers: []v1.Container{wants("a", "cpu=1 memory=1Gi", "")}}}
		if change != nil {
			change(&p.Spec)
		}
		return p
	}
	port := func(ip string) func(*v1.PodSpec) {
		return func(s *v1.PodSpec) {
			s.Containers[0].Ports = []v1.ContainerPort{{ContainerPort: 80, HostPort: 8080, HostIP: ip}}
		}
	}
	affinity := func(operator v1.NodeSelectorOperator, values ...string) func(*v1.PodSpec) {
		return func(s *v1.PodSpec) {
			s.Affinity = &v1.Affinity{NodeAffinity: &v1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{
				{MatchExpressions: []v1.NodeSelectorRequirement{{Key: "size", Operator: operator, Values: values}}},
			}}}}
		}
	}
	strict := v1.SupplementalGroupsPolicyStrict
	for _, x := range []struct {
		name   string
		pod    *v1.Pod
		others []*v1.Pod
		want   string // reason: message
	}{
		{"fits", pod(nil), []*v1.Pod{pod(nil)}, ""},
		{"cpu", pod(nil), []*v1.Pod{pod(nil), pod(nil)}, "OutOfcpu: Node didn't have enough resource: cpu, requested: 1000, used: 2000, capacity: 2000"},
		{"memory", pod(func(s *v1.PodSpec) { s.Containers[0] = wants("a", "memory=9Gi", "") }), nil, "OutOfmemory: Node didn't have enough resource: memory, requested: 9663676416, used: 0, capacity: 8589934592"},
		{"pods", pod(func(s *v1.PodSpec) { s.Containers[0] = wants("a", "", "") }), []*v1.Pod{{}, {}, {}}, "OutOfpods: Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3"},
		{"selector", pod(func(s *v1.PodSpec) { s.NodeSelector = map[string]string{"size": "9"} }), nil, "NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"},
		{"selector fits", pod(func(s *v1.PodSpec) { s.NodeSelector = map[string]string{"size": "5"} }), nil, ""},
		{"in", pod(affinity(v1.NodeSelectorOpIn, "4", "5")), nil, ""},
		{"not in", pod(affinity(v1.NodeSelectorOpNotIn, "5")), nil, "NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"},
		{"gt", pod(affinity(v1.NodeSelectorOpGt, "4")), nil, ""},
		{"lt", pod(affinity(v1.NodeSelectorOpLt, "5")), nil, "NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"},
		{"port", pod(port("")), []*v1.Pod{pod(port("127.0.0.1"))}, "NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"},
		{"port of another address", pod(port("127.0.0.2")), []*v1.Pod{pod(port("127.0.0.1"))}, ""},
		{"sysctl", pod(func(s *v1.PodSpec) {
			s.SecurityContext = &v1.PodSecurityContext{Sysctls: []v1.Sysctl{{Name: "kernel.msgmax", Value: "1"}}}
		}), nil, `SysctlForbidden: forbidden sysctl: "kernel.msgmax" not allowlisted`},
		{"safe sysctl", pod(func(s *v1.PodSpec) {
			s.SecurityContext = &v1.PodSecurityContext{Sysctls: []v1.Sysctl{{Name: "net.ipv4.tcp_syncookies", Value: "1"}}}
		}), nil, ""},
		{"windows", pod(func(s *v1.PodSpec) { s.OS = &v1.PodOS{Name: v1.Windows} }), nil, "PodOSNotSupported: Failed to admit pod as the OS field doesn't match node OS"},
		{"strict groups", pod(func(s *v1.PodSpec) {
			s.SecurityContext = &v1.PodSecurityContext{SupplementalGroupsPolicy: &strict}
		}), nil, "SupplementalGroupsPolicyNotSupported: SupplementalGroupsPolicy=Strict is not supported in this node"},
	} {
		got := ""
		if r := refusal(x.pod, x.others, list("cpu=2 memory=8Gi pods=3"), map[string]string{"size": "5"}, false); r != nil {
			got = r.reason + ": " + r.message
		}
		if got != x.want {
			t.Errorf("%s: %q, want %q", x.name, got, x.want)
		}
	}
}
