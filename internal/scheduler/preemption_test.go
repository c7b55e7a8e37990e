package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
)

// ranked is a running pod on a node of 4 CPUs, of a priority, started some
// hours ago.
func ranked(t testing.TB, name, node, cpu string, priority int32, hours int) *v1.Pod {
	pod := on(node, requests(t, name, cpu, "1Mi"))
	pod.Labels = map[string]string{"name": name}
	pod.Spec.Priority = &priority
	start := metav1.NewTime(time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC).Add(-time.Duration(hours) * time.Hour))
	pod.Status.StartTime = &start
	return pod
}

// budget protects the pods whose label name is one of these.
func budget(t testing.TB, allowed int, names string) *policyv1.PodDisruptionBudget {
	b := parse[policyv1.PodDisruptionBudget](t, fmt.Sprintf("spec: {selector: {matchExpressions: [{key: name, operator: In, values: [%s]}]}}\nstatus: {disruptionsAllowed: %d}", names, allowed))
	b.Namespace, b.Name = "ns", "b-"+strings.ReplaceAll(strings.ReplaceAll(names, ", ", "-"), " ", "")
	return b
}

// TestPreemptionChoice checks which node, and whom on it, preemption chooses
// for a pod of priority 100.
func TestPreemptionChoice(t *testing.T) {
	for _, c := range []struct {
		name    string
		cpu     string // what the pod wants of 4
		pods    []*v1.Pod
		budgets []runtime.Object
		want    string // node: victims in order
	}{
		{"only as many as needed", "2", []*v1.Pod{ranked(t, "x", "a", "2", 1, 1), ranked(t, "y", "a", "2", 2, 1)}, nil, "a: x"},
		{"the younger of equals", "2", []*v1.Pod{ranked(t, "old", "a", "2", 1, 9), ranked(t, "young", "a", "2", 1, 1)}, nil, "a: young"},
		{"not of the same priority", "2", []*v1.Pod{ranked(t, "x", "a", "4", 100, 1), ranked(t, "y", "b", "4", 100, 1)}, nil, ": 2 No preemption victims found for incoming pod"},
		{"no use", "3", []*v1.Pod{ranked(t, "x", "a", "2", 100, 1), ranked(t, "y", "a", "2", 1, 1), ranked(t, "z", "b", "4", 100, 1)}, nil,
			": 1 Insufficient cpu, 1 No preemption victims found for incoming pod"},
		{"the node whose first victim matters less", "4", []*v1.Pod{ranked(t, "x", "a", "4", 5, 1), ranked(t, "y", "b", "2", 4, 1), ranked(t, "z", "b", "2", 4, 1)}, nil, "b: y z"},
		{"the lower sum", "4", []*v1.Pod{ranked(t, "x", "a", "2", 5, 1), ranked(t, "x2", "a", "2", 4, 1), ranked(t, "y", "b", "2", 5, 1), ranked(t, "z", "b", "2", 3, 1)}, nil, "b: y z"},
		{"fewer victims", "4", []*v1.Pod{ranked(t, "x", "a", "2", 5, 1), ranked(t, "x2", "a", "2", -5, 1), ranked(t, "y", "b", "4", 5, 1)}, nil, "b: y"},
		{"the later start", "4", []*v1.Pod{ranked(t, "x", "a", "4", 5, 9), ranked(t, "y", "b", "4", 5, 2)}, nil, "b: y"},
		{"budgets first", "4", []*v1.Pod{ranked(t, "x", "a", "4", 1, 1), ranked(t, "y", "b", "4", 9, 1)}, []runtime.Object{budget(t, 0, "x")}, "b: y"},
		{"a budget that allows it", "4", []*v1.Pod{ranked(t, "x", "a", "4", 1, 1), ranked(t, "y", "b", "4", 9, 1)}, []runtime.Object{budget(t, 1, "x")}, "a: x"},
		{"a budget decides whom to spare", "2", []*v1.Pod{ranked(t, "x", "a", "2", 1, 1), ranked(t, "y", "a", "2", 2, 1)}, []runtime.Object{budget(t, 0, "x")}, "a: y"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := New(fake.NewClientset(c.budgets...), Config{})
			nodes := []*v1.Node{newNode(t, "a", "")}
			if slices.ContainsFunc(c.pods, func(p *v1.Pod) bool { return p.Spec.NodeName == "b" }) {
				nodes = append(nodes, newNode(t, "b", ""))
			}
			cluster := newCluster(nodes, c.pods...)
			wanted := ranked(t, "p", "", c.cpu, 100, 0)
			pod := newPodInfo(wanted)
			_, why, err := s.decide(pod, cluster)
			if err != nil || why == nil {
				t.Fatalf("it fits: %v, %v", why, err)
			}
			found, statuses, err := s.candidates(t.Context(), pod, cluster, why)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.TrimSuffix(histogram(statuses), ".")
			if len(found) > 0 {
				best := slices.MinFunc(found, leastHarm)
				got = best.node + ":"
				for _, v := range best.victims {
					got += " " + v.Name
				}
			}
			if got != c.want {
				t.Errorf("chose %q, want %q", got, c.want)
			}
		})
	}
}

// TestNominationKeepsRoom: nobody of lower priority gets the room.
func TestNominationKeepsRoom(t *testing.T) {
	s := New(fake.NewClientset(), Config{})
	cluster := newCluster([]*v1.Node{newNode(t, "a", "")})
	s.nominated.nominate(newPodInfo(ranked(t, "waiting", "", "3", 10, 0)), "a")
	for _, c := range []struct {
		pod  *v1.Pod
		fits bool
	}{
		{ranked(t, "low", "", "2", 9, 0), false},
		{ranked(t, "equal", "", "2", 10, 0), false},
		{ranked(t, "high", "", "2", 11, 0), true},
		{ranked(t, "small", "", "1", 9, 0), true},
		{ranked(t, "waiting", "", "3", 10, 0), true}, // itself
	} {
		node, why, err := s.decide(newPodInfo(c.pod), cluster)
		if err != nil || (node != nil) != c.fits {
			t.Errorf("%s: %v %v %v", c.pod.Name, node != nil, why, err)
		}
	}
	if low := s.nominated.lower("a", 11); len(low) != 1 {
		t.Errorf("%d nominations below 11", len(low))
	}
	s.nominated.remove("uid-waiting")
	if len(s.nominated.byPod)+len(s.nominated.byNode) != 0 {
		t.Error("something left behind")
	}
}
