package core

import (
	"context"
	"testing"

	"github.com/timonel/timonel/internal/api/apitest"
	"github.com/timonel/timonel/internal/kind"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

func runningPod() *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "d", UID: "u", ResourceVersion: "7"}}
	p.Spec.NodeName, p.Status.Phase = "n", corev1.PodRunning
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	return p
}

func TestDryEviction(t *testing.T) {
	s := apitest.Shelf{}
	s.Put(podResource, runningPod())
	call := kind.JobCall{Objects: s, Namespace: "d", Name: "p", Body: &policyv1.Eviction{}, DryRun: true}
	if _, err := evictPod(t.Context(), call); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), podResource, "d", "p"); err != nil {
		t.Errorf("the pod is gone: %v", err)
	}
}

// lastPod keeps what a pod was when it was deleted.
type lastPod struct {
	apitest.Shelf
	pod *corev1.Pod
}

func (l *lastPod) Delete(ctx context.Context, r schema.GroupResource, namespace, name string, options metav1.DeleteOptions) error {
	if obj, err := l.Get(ctx, r, namespace, name); err == nil {
		l.pod = obj.(*corev1.Pod)
	}
	return l.Shelf.Delete(ctx, r, namespace, name, options)
}

// A pod that is evicted says so, in one condition, also when it was to be disrupted for another reason before.
func TestEvictionTells(t *testing.T) {
	for name, before := range map[string][]corev1.PodCondition{
		"new": nil, "again": {{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "Other"}},
	} {
		s := &lastPod{Shelf: apitest.Shelf{}}
		p := runningPod()
		p.Status.Conditions = append(p.Status.Conditions, before...)
		s.Put(podResource, p)
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
	s := &lastPod{Shelf: apitest.Shelf{}}
	s.Put(podResource, runningPod())
	other := types.UID("another")
	_, _ = evictPod(context.Background(), kind.JobCall{Objects: s, Namespace: "d", Name: "p",
		Body: &policyv1.Eviction{DeleteOptions: &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &other}}}})
	if len(s.pod.Status.Conditions) != 1 {
		t.Errorf("a pod that is not meant is marked: %+v", s.pod.Status.Conditions)
	}
}
