package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// verdict is why a job ends: SuccessCriteriaMet or FailureTarget. When no pod runs any more it becomes Complete or Failed.
type verdict struct {
	kind            batchv1.JobConditionType
	reason, message string
}

func (r *jobRun) condition(t batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range r.job.Status.Conditions {
		if c := &r.job.Status.Conditions[i]; c.Type == t {
			return c
		}
	}
	return nil
}

func (r *jobRun) setCondition(t batchv1.JobConditionType, status corev1.ConditionStatus, reason, message string) (changed bool) {
	now := metav1.Time{Time: r.now}
	c := r.condition(t)
	if c == nil {
		if status == corev1.ConditionFalse {
			return false
		}
		r.job.Status.Conditions = append(slices.Clone(r.job.Status.Conditions), batchv1.JobCondition{Type: t, Status: status, Reason: reason, Message: message, LastProbeTime: now, LastTransitionTime: now})
		return true
	}
	if c.Status == status && c.Reason == reason {
		return false
	}
	*c = batchv1.JobCondition{Type: t, Status: status, Reason: reason, Message: message, LastProbeTime: now, LastTransitionTime: now}
	return true
}

// ruling is the verdict on the job, if there is one.
func (r *jobRun) ruling() *verdict {
	for _, t := range []batchv1.JobConditionType{batchv1.JobFailureTarget, batchv1.JobSuccessCriteriaMet} {
		if c := r.condition(t); c != nil && c.Status == corev1.ConditionTrue {
			return &verdict{t, c.Reason, c.Message}
		}
	}
	for _, pod := range r.pods {
		if !r.lost(pod) {
			continue
		}
		if action, message := r.policy(pod); action == batchv1.PodFailurePolicyActionFailJob {
			return &verdict{batchv1.JobFailureTarget, batchv1.JobReasonPodFailurePolicy, message}
		}
	}
	if v := r.successRule(); v != nil {
		return v
	}
	if limit := r.job.Spec.BackoffLimit; limit != nil && r.failures() > *limit {
		return &verdict{batchv1.JobFailureTarget, batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit"}
	}
	if v := r.failedIndexRule(); v != nil {
		return v
	}
	good := r.successes()
	switch want := r.job.Spec.Completions; {
	case want == nil && good > 0 && len(r.active) == 0, want != nil && good >= *want && !suspended(r.job):
		return &verdict{batchv1.JobSuccessCriteriaMet, batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods"}
	}
	return nil
}

// foretell writes a verdict into the conditions as soon as it is there.
func (r *jobRun) foretell() {
	if v := r.ruling(); v != nil && r.condition(v.kind) == nil {
		r.setCondition(v.kind, corev1.ConditionTrue, v.reason, v.message)
	}
}

// end stops what runs, and closes the job when nothing does and all is counted.
func (r *jobRun) end(ctx context.Context, v *verdict) error {
	r.setCondition(v.kind, corev1.ConditionTrue, v.reason, v.message)
	if len(r.active) > 0 {
		doomed := r.active
		if _, err := slowStart(len(doomed), func(i int) error { return r.deletePod(ctx, r.job, r.key, doomed[i], r.x) }); err != nil {
			return err
		}
		r.active = nil
		return nil // their end comes as an event
	}
	if slices.ContainsFunc(r.pods, func(pod *corev1.Pod) bool { return !finished(pod) }) {
		return nil
	}
	if u := r.job.Status.UncountedTerminatedPods; u != nil && len(u.Failed)+len(u.Succeeded) > 0 {
		return nil
	}
	r.job.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	if v.kind == batchv1.JobFailureTarget {
		r.setCondition(batchv1.JobFailed, corev1.ConditionTrue, v.reason, v.message)
		return nil
	}
	r.setCondition(batchv1.JobComplete, corev1.ConditionTrue, v.reason, v.message)
	r.job.Status.CompletionTime = &metav1.Time{Time: r.now}
	return nil
}

func (r *jobRun) suspend(ctx context.Context) error {
	doomed := r.active
	_, err := slowStart(len(doomed), func(i int) error { return r.deletePod(ctx, r.job, r.key, doomed[i], r.x) })
	if err != nil {
		return err
	}
	r.active = nil
	if r.setCondition(batchv1.JobSuspended, corev1.ConditionTrue, "JobSuspended", "Job suspended") {
		r.job.Status.StartTime = nil
		r.events.normal(r.job, "Suspended", "Job suspended")
	}
	return nil
}

func (r *jobRun) resume() {
	if r.setCondition(batchv1.JobSuspended, corev1.ConditionFalse, "JobResumed", "Job resumed") {
		r.job.Status.StartTime = &metav1.Time{Time: r.now}
		r.events.normal(r.job, "Resumed", "Job resumed")
	}
}

// policy is what the job's pod failure policy says of a pod that failed; "" if nothing.
func (r *jobRun) policy(pod *corev1.Pod) (action batchv1.PodFailurePolicyAction, message string) {
	if r.job.Spec.PodFailurePolicy == nil || pod.Status.Phase != corev1.PodFailed {
		return "", ""
	}
	for i, rule := range r.job.Spec.PodFailurePolicy.Rules {
		if rule.OnExitCodes != nil {
			if c := exitMatches(rule.OnExitCodes, pod); c != nil {
				return rule.Action, fmt.Sprintf("Container %s for pod %s/%s failed with exit code %d matching %s rule at index %d", c.Name, pod.Namespace, pod.Name, c.State.Terminated.ExitCode, rule.Action, i)
			}
			continue
		}
		for _, want := range rule.OnPodConditions {
			if slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == want.Type && c.Status == want.Status }) {
				return rule.Action, fmt.Sprintf("Pod %s/%s has condition %s matching %s rule at index %d", pod.Namespace, pod.Name, want.Type, rule.Action, i)
			}
		}
	}
	return "", ""
}

func exitMatches(on *batchv1.PodFailurePolicyOnExitCodesRequirement, pod *corev1.Pod) *corev1.ContainerStatus {
	all := append(slices.Clone(pod.Status.ContainerStatuses), pod.Status.InitContainerStatuses...)
	for i := range all {
		c := &all[i]
		if on.ContainerName != nil && *on.ContainerName != c.Name || c.State.Terminated == nil || c.State.Terminated.ExitCode == 0 {
			continue
		}
		if in := slices.Contains(on.Values, c.State.Terminated.ExitCode); in == (on.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn) {
			return c
		}
	}
	return nil
}

// successRule is the verdict of the job's success policy.
func (r *jobRun) successRule() *verdict {
	if r.job.Spec.SuccessPolicy == nil || !indexed(r.job) {
		return nil
	}
	done := parseIndexes(r.job.Status.CompletedIndexes)
	for i, rule := range r.job.Spec.SuccessPolicy.Rules {
		among, n := done, 0
		if rule.SucceededIndexes != nil {
			among = parseIndexes(*rule.SucceededIndexes)
		}
		for index := range among {
			if done[index] {
				n++
			}
		}
		want := len(among)
		if rule.SucceededCount != nil {
			want = int(*rule.SucceededCount)
		} else if rule.SucceededIndexes == nil {
			continue
		}
		if n >= want {
			return &verdict{batchv1.JobSuccessCriteriaMet, batchv1.JobReasonSuccessPolicy, fmt.Sprintf("Matched rules at index %d", i)}
		}
	}
	return nil
}

// countFailedIndexes fills in status.failedIndexes of a job with a limit for each index.
func (r *jobRun) countFailedIndexes(done map[int]bool) {
	if r.job.Spec.BackoffLimitPerIndex == nil {
		return
	}
	failed := parseIndexes(deref(r.job.Status.FailedIndexes))
	for _, pod := range r.pods {
		i, ok := indexOf(pod)
		if !ok || !r.lost(pod) || done[i] {
			continue
		}
		action, _ := r.policy(pod)
		if action == batchv1.PodFailurePolicyActionFailIndex || action != batchv1.PodFailurePolicyActionIgnore && indexFailures(pod)+1 > int(*r.job.Spec.BackoffLimitPerIndex) {
			failed[i] = true
		}
	}
	text := formatIndexes(failed)
	r.job.Status.FailedIndexes = &text
}

// indexFailures is how often the index of a pod had failed before it.
func indexFailures(pod *corev1.Pod) int {
	n, err := strconv.Atoi(pod.Annotations[batchv1.JobIndexFailureCountAnnotation])
	if err != nil {
		return 0
	}
	return n
}

func (r *jobRun) failedIndexRule() *verdict {
	if r.job.Spec.BackoffLimitPerIndex == nil || !indexed(r.job) {
		return nil
	}
	failed := len(parseIndexes(deref(r.job.Status.FailedIndexes)))
	if most := r.job.Spec.MaxFailedIndexes; most != nil && failed > int(*most) {
		return &verdict{batchv1.JobFailureTarget, batchv1.JobReasonMaxFailedIndexesExceeded, "Job has exceeded the specified maximal number of failed indexes"}
	}
	if failed > 0 && failed+int(r.job.Status.Succeeded) >= int(completions(r.job)) {
		return &verdict{batchv1.JobFailureTarget, batchv1.JobReasonFailedIndexes, "Job has failed indexes"}
	}
	return nil
}

// parseIndexes reads a set of indexes, written like 1,3-5,7.
func parseIndexes(text string) map[int]bool {
	set := map[int]bool{}
	for part := range strings.SplitSeq(text, ",") {
		from, to, isRange := strings.Cut(part, "-")
		a, err := strconv.Atoi(from)
		if err != nil {
			continue
		}
		b := a
		if isRange {
			if b, err = strconv.Atoi(to); err != nil {
				continue
			}
		}
		for i := a; i <= b; i++ {
			set[i] = true
		}
	}
	return set
}

// formatIndexes is the inverse of parseIndexes.
func formatIndexes(set map[int]bool) string {
	sorted := slices.Sorted(maps.Keys(set))
	var parts []string
	for i := 0; i < len(sorted); {
		j := i
		for j+1 < len(sorted) && sorted[j+1] == sorted[j]+1 {
			j++
		}
		switch {
		case j == i:
			parts = append(parts, strconv.Itoa(sorted[i]))
		case j == i+1:
			parts = append(parts, strconv.Itoa(sorted[i]), strconv.Itoa(sorted[j]))
		default:
			parts = append(parts, strconv.Itoa(sorted[i])+"-"+strconv.Itoa(sorted[j]))
		}
		i = j + 1
	}
	return strings.Join(parts, ",")
}
