package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// fitsNowhere tries preemption for p, says why it does not fit, and parks it.
func (s *Scheduler) fitsNowhere(ctx context.Context, p *queuedPod, cluster *Cluster, why *misfit) {
	nomination, after := s.preempt(ctx, p.trying, cluster, why)
	msg := why.message(after)
	pod, waits := s.queue.park(p, why.rejects)
	if !waits {
		return
	}
	s.log.Debug("fits nowhere", "pod", pod.String(), "why", msg)
	s.report(ctx, pod.Pod, v1.PodReasonUnschedulable, msg, nomination)
}

// attemptFailed puts p into back-off after an error and says which.
func (s *Scheduler) attemptFailed(ctx context.Context, p *queuedPod, err error) {
	if ctx.Err() != nil {
		return // the scheduler is ending: no failure of the pod's
	}
	if podIsGone(err) && s.podMissing(ctx, p.trying.Pod) {
		s.queue.finish(p)
		return
	}
	pod, waits := s.queue.retry(p)
	if !waits {
		return
	}
	s.log.Warn("scheduling failed", "pod", pod.String(), "err", err)
	s.report(ctx, pod.Pod, v1.PodReasonSchedulerError, err.Error(), nil)
}

// podMissing asks the API server whether pod is gone; a NotFound may have been
// about something else, such as a claim of it.
func (s *Scheduler) podMissing(ctx context.Context, pod *v1.Pod) bool {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	now, err := s.client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
	return apierrors.IsNotFound(err) || err == nil && now.UID != pod.UID
}

// report tells the pod's owner in an Event and in the PodScheduled condition.
// A nomination other than nil also sets status.nominatedNodeName.
func (s *Scheduler) report(ctx context.Context, pod *v1.Pod, reason, msg string, nomination *string) {
	s.events.failed(pod, msg)
	patch := statusPatch(pod, v1.PodCondition{
		Type:               v1.PodScheduled,
		Status:             v1.ConditionFalse,
		Reason:             reason,
		Message:            msg,
		ObservedGeneration: pod.Generation,
	}, nomination)
	if patch == nil {
		return
	}
	if err := s.patchStatus(ctx, pod, patch); err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) {
		s.log.Warn("patching pod status", "pod", pod.Namespace+"/"+pod.Name, "err", err)
	}
}

func (s *Scheduler) patchStatus(ctx context.Context, pod *v1.Pod, patch []byte) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err := s.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("patching status of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// statusPatch is the strategic merge patch of pod's status that sets one
// condition and, if nomination is not nil, status.nominatedNodeName; nil if
// nothing would change. The time of transition moves only with the status. The
// UID in it makes the patch fail on another pod of the same name.
func statusPatch(pod *v1.Pod, want v1.PodCondition, nomination *string) []byte {
	changed := true
	want.LastTransitionTime = metav1.NewTime(time.Now())
	for _, have := range pod.Status.Conditions {
		if have.Type != want.Type {
			continue
		}
		if have.Status == want.Status {
			want.LastTransitionTime = have.LastTransitionTime
		}
		changed = have.Status != want.Status || have.Reason != want.Reason || have.Message != want.Message ||
			have.ObservedGeneration != want.ObservedGeneration
	}
	status := map[string]any{}
	if changed {
		status["conditions"] = []v1.PodCondition{want}
	}
	if nomination != nil && *nomination != pod.Status.NominatedNodeName {
		status["nominatedNodeName"] = *nomination
	}
	if len(status) == 0 {
		return nil
	}
	return marshalPatch(pod, status)
}

// nominationPatch sets status.nominatedNodeName alone.
func nominationPatch(pod *v1.Pod, node string) []byte {
	return marshalPatch(pod, map[string]any{"nominatedNodeName": node})
}

func marshalPatch(pod *v1.Pod, status map[string]any) []byte {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": status})
	if err != nil {
		panic(err) // plain values always marshal
	}
	return patch
}
