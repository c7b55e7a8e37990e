package core

import (
	"context"
	"strings"
	"testing"

	"github.com/timonel/timonel/internal/kind"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

func podOn(node string, phase corev1.PodPhase, ready bool) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "d", UID: "u", ResourceVersion: "7", Labels: map[string]string{"a": "b"}}}
	p.Spec.NodeName, p.Status.Phase = node, phase
	if ready {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	return p
}

func budget(name string, change func(b *policyv1.PodDisruptionBudget)) *policyv1.PodDisruptionBudget {
	b := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "d", Generation: 1}}
	b.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}
	b.Status = policyv1.PodDisruptionBudgetStatus{ObservedGeneration: 1, DisruptionsAllowed: 1, DesiredHealthy: 1, CurrentHealthy: 2}
	if change != nil {
		change(b)
	}
	return b
}

func TestEviction(t *testing.T) {
	for _, x := range []struct {
		name    string
		pod     *corev1.Pod
		budgets []*policyv1.PodDisruptionBudget
		dryRun  bool
		want    string // part of the error; "" if evicted
	}{
		{name: "no budget", pod: podOn("n", corev1.PodRunning, true)},
		{name: "allowed", pod: podOn("n", corev1.PodRunning, true), budgets: []*policyv1.PodDisruptionBudget{budget("b", nil)}},
		{name: "dry run", pod: podOn("n", corev1.PodRunning, true), budgets: []*policyv1.PodDisruptionBudget{budget("b", nil)}, dryRun: true},
		{name: "spent", pod: podOn("n", corev1.PodRunning, true), want: evictionRefused,
			budgets: []*policyv1.PodDisruptionBudget{budget("b", func(b *policyv1.PodDisruptionBudget) { b.Status.DisruptionsAllowed = 0 })}},
		{name: "not seen by its controller", pod: podOn("n", corev1.PodRunning, true), want: evictionRefused,
			budgets: []*policyv1.PodDisruptionBudget{budget("b", func(b *policyv1.PodDisruptionBudget) { b.Generation = 2 })}},
		{name: "pending", pod: podOn("n", corev1.PodPending, false),
			budgets: []*policyv1.PodDisruptionBudget{budget("b", func(b *policyv1.PodDisruptionBudget) { b.Status.DisruptionsAllowed = 0 })}},
		{name: "not ready anyway", pod: podOn("n", corev1.PodRunning, false),
			budgets: []*policyv1.PodDisruptionBudget{budget("b", func(b *policyv1.PodDisruptionBudget) { b.Status.DisruptionsAllowed = 0 })}},
		{name: "two budgets", pod: podOn("n", corev1.PodRunning, true), want: "more than one PodDisruptionBudget",
			budgets: []*policyv1.PodDisruptionBudget{budget("b", nil), budget("c", nil)}},
		{name: "budget of others", pod: podOn("n", corev1.PodRunning, true),
			budgets: []*policyv1.PodDisruptionBudget{budget("b", func(b *policyv1.PodDisruptionBudget) { b.Spec.Selector = nil })}},
	} {
		t.Run(x.name, func(t *testing.T) {
			s := shelf{}
			s.put(podResource, x.pod)
			for _, b := range x.budgets {
				s.put(budgetResource, b)
			}
			_, err := evictPod(context.Background(), kind.JobCall{Objects: s, Namespace: "d", Name: "p", Body: &policyv1.Eviction{}, DryRun: x.dryRun})
			if x.want != "" {
				if err == nil || !strings.Contains(err.Error(), x.want) {
					t.Errorf("got %v, want %q", err, x.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, gone := s.Get(context.Background(), podResource, "d", "p"); (gone == nil) != x.dryRun {
				t.Errorf("pod still there: %v, dry run: %v", gone == nil, x.dryRun)
			}
		})
	}
}

// lastPod keeps what a pod was when it was deleted.
type lastPod struct {
	shelf
	pod *corev1.Pod
}

func (l *lastPod) Delete(ctx context.Context, r schema.GroupResource, namespace, name string, options metav1.DeleteOptions) error {
	if obj, err := l.Get(ctx, r, namespace, name); err == nil {
		l.pod = obj.(*corev1.Pod)
	}
	return l.shelf.Delete(ctx, r, namespace, name, options)
}

// A pod that is evicted says so, in one condition, also when it was to be disrupted for another reason before.
func TestEvictionTells(t *testing.T) {
	for name, before := range map[string][]corev1.PodCondition{
		"new": nil, "again": {{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "Other"}},
	} {
		s := &lastPod{shelf: shelf{}}
		p := podOn("n", corev1.PodRunning, true)
		p.Status.Conditions = append(p.Status.Conditions, before...)
		s.put(podResource, p)
		uid := types.UID("u")
		body := &policyv1.Eviction{DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}}
		if _, err := evictPod(context.Background(), kind.JobCall{Objects: s, Namespace: "d", Name: "p", Body: body}); err != nil {
			t.Fatal(err)
		}
		got := s.pod.Status.Conditions
		if len(got) != 2 || got[1].Reason != "EvictionByEvictionAPI" || got[1].Status != corev1.ConditionTrue || got[1].Message != "Eviction API: evicting" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	s := &lastPod{shelf: shelf{}}
	s.put(podResource, podOn("n", corev1.PodRunning, true))
	other := types.UID("another")
	_, _ = evictPod(context.Background(), kind.JobCall{Objects: s, Namespace: "d", Name: "p",
		Body: &policyv1.Eviction{DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &other}}}})
	if len(s.pod.Status.Conditions) != 1 {
		t.Errorf("a pod that is not meant is marked: %+v", s.pod.Status.Conditions)
	}
}

func TestBinding(t *testing.T) {
	for _, x := range []struct {
		name string
		pod  *corev1.Pod
		body corev1.Binding
		want string
	}{
		{name: "bound", pod: podOn("", corev1.PodPending, false), body: corev1.Binding{Target: corev1.ObjectReference{Name: "n"}}},
		{name: "bound twice", pod: podOn("m", corev1.PodPending, false), body: corev1.Binding{Target: corev1.ObjectReference{Name: "n"}}, want: `already assigned to node "m"`},
		{name: "no node", pod: podOn("", corev1.PodPending, false), want: "target.name: Required"},
		{name: "another pod of that name", pod: podOn("", corev1.PodPending, false), want: "UID in precondition",
			body: corev1.Binding{ObjectMeta: metav1.ObjectMeta{UID: "other"}, Target: corev1.ObjectReference{Name: "n"}}},
	} {
		t.Run(x.name, func(t *testing.T) {
			s := shelf{}
			s.put(podResource, x.pod)
			_, err := bindPod(context.Background(), kind.JobCall{Objects: s, Namespace: "d", Name: "p", Body: &x.body})
			switch {
			case x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)):
				t.Errorf("got %v, want %q", err, x.want)
			case x.want == "" && err != nil:
				t.Error(err)
			case x.want == "":
				obj, _ := s.Get(context.Background(), podResource, "d", "p")
				if p := obj.(*corev1.Pod); p.Spec.NodeName != "n" || !conditionTrue(p, corev1.PodScheduled) {
					t.Errorf("bound pod: node %q, conditions %v", p.Spec.NodeName, p.Status.Conditions)
				}
			}
		})
	}
}
