package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reasons of the condition Progressing.
const (
	rolloutProgresses = "ReplicaSetUpdated"
	rolloutDone       = "NewReplicaSetAvailable"
	rolloutLate       = "ProgressDeadlineExceeded"
	rolloutPaused     = "DeploymentPaused"
	rolloutResumed    = "DeploymentResumed"
)

func (r *rollout) condition(t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	return conditionOf(&r.d.Status, t)
}

func conditionOf(status *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	if i := slices.IndexFunc(status.Conditions, func(c appsv1.DeploymentCondition) bool { return c.Type == t }); i >= 0 {
		return &status.Conditions[i]
	}
	return nil
}

func (r *rollout) setCondition(t appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, message string) {
	setCondition(&r.d.Status, appsv1.DeploymentCondition{Type: t, Status: status, Reason: reason, Message: message}, r.now, false)
}

// setCondition sets a condition unless it is there with the same status and reason. renew also takes a new message and time then.
func setCondition(status *appsv1.DeploymentStatus, c appsv1.DeploymentCondition, now time.Time, renew bool) {
	c.LastUpdateTime, c.LastTransitionTime = metav1.NewTime(now), metav1.NewTime(now)
	if old := conditionOf(status, c.Type); old != nil {
		if old.Status == c.Status && old.Reason == c.Reason && !renew {
			return
		}
		if old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
	}
	dropCondition(status, c.Type)
	status.Conditions = append(status.Conditions, c)
}

func dropCondition(status *appsv1.DeploymentStatus, t appsv1.DeploymentConditionType) {
	status.Conditions = slices.DeleteFunc(slices.Clone(status.Conditions), func(c appsv1.DeploymentCondition) bool { return c.Type == t })
}

// notePause tells in the conditions that the deployment is paused or goes on, so that the pause does not count
// against its deadline.
func (r *rollout) notePause() {
	if r.d.Spec.ProgressDeadlineSeconds == nil {
		return
	}
	c := r.condition(appsv1.DeploymentProgressing)
	if c != nil && c.Reason == rolloutLate {
		return
	}
	paused := c != nil && c.Reason == rolloutPaused
	switch {
	case r.d.Spec.Paused && !paused:
		r.setCondition(appsv1.DeploymentProgressing, corev1.ConditionUnknown, rolloutPaused, "Deployment is paused")
	case !r.d.Spec.Paused && paused:
		r.setCondition(appsv1.DeploymentProgressing, corev1.ConditionUnknown, rolloutResumed, "Deployment is resumed")
	}
}

// status counts the pods of the ReplicaSets.
func (r *rollout) status() *appsv1.DeploymentStatus {
	s := &appsv1.DeploymentStatus{
		ObservedGeneration: r.d.Generation, CollisionCount: r.d.Status.CollisionCount, Conditions: slices.Clone(r.d.Status.Conditions),
	}
	terminating := int32(0)
	for _, set := range r.sets {
		s.Replicas += set.Status.Replicas
		s.ReadyReplicas += set.Status.ReadyReplicas
		s.AvailableReplicas += set.Status.AvailableReplicas
		if set.Status.TerminatingReplicas != nil {
			terminating += *set.Status.TerminatingReplicas
		}
	}
	s.TerminatingReplicas = &terminating
	if r.fresh != nil {
		s.UpdatedReplicas = r.fresh.Status.Replicas
	}
	s.UnavailableReplicas = max(0, total(r.sets)-s.AvailableReplicas)
	_, unavailable := r.limits()
	if s.AvailableReplicas >= replicasOf(r.d.Spec.Replicas)-unavailable {
		setCondition(s, appsv1.DeploymentCondition{Type: appsv1.DeploymentAvailable, Status: corev1.ConditionTrue, Reason: "MinimumReplicasAvailable", Message: "Deployment has minimum availability."}, r.now, false)
	} else {
		setCondition(s, appsv1.DeploymentCondition{Type: appsv1.DeploymentAvailable, Status: corev1.ConditionFalse, Reason: "MinimumReplicasUnavailable", Message: "Deployment does not have minimum availability."}, r.now, false)
	}
	return s
}

// complete reports whether all pods are of the present template and available.
func (r *rollout) complete(s *appsv1.DeploymentStatus) bool {
	want := replicasOf(r.d.Spec.Replicas)
	return s.UpdatedReplicas == want && s.Replicas == want && s.AvailableReplicas == want && s.ObservedGeneration >= r.d.Generation
}

// progress is status with the condition Progressing, which tells whether the rollout is done, gets on, or is late.
func (r *rollout) progress() *appsv1.DeploymentStatus {
	s, was := r.status(), &r.before
	c := conditionOf(s, appsv1.DeploymentProgressing)
	if r.d.Spec.ProgressDeadlineSeconds == nil {
		dropCondition(s, appsv1.DeploymentProgressing)
	} else if done := s.Replicas == s.UpdatedReplicas && c != nil && c.Reason == rolloutDone; !done {
		name := "ReplicaSet " + fmt.Sprintf("%q", r.freshName())
		if r.fresh == nil {
			name = "Deployment " + fmt.Sprintf("%q", r.d.Name)
		}
		switch {
		case r.complete(s):
			setCondition(s, appsv1.DeploymentCondition{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue, Reason: rolloutDone, Message: name + " has successfully progressed."}, r.now, false)
		case s.UpdatedReplicas > was.UpdatedReplicas || s.Replicas-s.UpdatedReplicas < was.Replicas-was.UpdatedReplicas ||
			s.ReadyReplicas > was.ReadyReplicas || s.AvailableReplicas > was.AvailableReplicas:
			setCondition(s, appsv1.DeploymentCondition{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue, Reason: rolloutProgresses, Message: name + " is progressing."}, r.now, true)
		case r.late(s, c):
			setCondition(s, appsv1.DeploymentCondition{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionFalse, Reason: rolloutLate, Message: name + " has timed out progressing."}, r.now, false)
		}
	}
	// What keeps a ReplicaSet from making pods is told here too.
	dropCondition(s, appsv1.DeploymentReplicaFailure)
	for _, set := range append(slices.Clone(r.olds), r.fresh) {
		if set == nil {
			continue
		}
		for _, f := range set.Status.Conditions {
			if f.Type == appsv1.ReplicaSetReplicaFailure && conditionOf(s, appsv1.DeploymentReplicaFailure) == nil {
				s.Conditions = append(s.Conditions, appsv1.DeploymentCondition{
					Type: appsv1.DeploymentReplicaFailure, Status: f.Status, Reason: f.Reason, Message: f.Message,
					LastTransitionTime: f.LastTransitionTime, LastUpdateTime: f.LastTransitionTime,
				})
			}
		}
	}
	return s
}

func (r *rollout) freshName() string {
	if r.fresh == nil {
		return ""
	}
	return r.fresh.Name
}

// late reports whether the deadline is over, and else has the deployment looked at again when it is.
func (r *rollout) late(s *appsv1.DeploymentStatus, c *appsv1.DeploymentCondition) bool {
	if c == nil || c.Reason == rolloutDone {
		return false
	}
	if c.Reason == rolloutLate {
		return true
	}
	return !r.now.Before(c.LastUpdateTime.Add(r.deadline()))
}

func (r *rollout) deadline() time.Duration {
	return time.Duration(*r.d.Spec.ProgressDeadlineSeconds) * time.Second
}

// writeStatus writes the status if it changed, and has the deployment looked at again when its deadline is over.
func (r *rollout) writeStatus(ctx context.Context, s *appsv1.DeploymentStatus) error {
	if c := conditionOf(s, appsv1.DeploymentProgressing); c != nil && r.d.Spec.ProgressDeadlineSeconds != nil && !r.d.Spec.Paused &&
		c.Reason != rolloutDone && c.Reason != rolloutLate && !r.complete(s) {
		r.queue.AddAfter(keyOf(r.d), until(r.now, c.LastUpdateTime.Add(r.deadline())))
	}
	if equality.Semantic.DeepEqual(s, &r.before) {
		return nil
	}
	d := r.d.DeepCopy()
	d.Status = *s
	_, err := r.client.AppsV1().Deployments(d.Namespace).UpdateStatus(ctx, d, metav1.UpdateOptions{})
	return gone(err)
}
