package controller

import (
	"context"
	"slices"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// manage makes the pods that should run and deletes those that are too many.
func (r *jobRun) manage(ctx context.Context) error {
	job := r.job
	want := int(replicasOf(job.Spec.Parallelism))
	running := len(r.active)
	if job.Spec.Completions == nil {
		if r.successes() > 0 { // the first success is the sign that the rest only has to end
			want = min(want, running)
		}
	} else {
		left := int(completions(job) - r.successes())
		if job.Spec.BackoffLimitPerIndex != nil {
			left -= len(parseIndexes(deref(job.Status.FailedIndexes)))
		}
		want = min(want, max(0, left))
	}
	if running > want {
		doomed := (&replicator{}).victims(nil, r.active)[:min(running-want, burst)]
		_, err := slowStart(len(doomed), func(i int) error { return r.deletePod(ctx, job, r.key, doomed[i], r.x) })
		r.active = slices.DeleteFunc(slices.Clone(r.active), func(pod *corev1.Pod) bool { return slices.Contains(doomed, pod) })
		return err
	}
	missing := min(want-running, burst)
	if job.Spec.PodReplacementPolicy != nil && *job.Spec.PodReplacementPolicy == batchv1.Failed || job.Spec.PodFailurePolicy != nil {
		for _, pod := range r.pods { // one that still ends keeps its place
			if pod.DeletionTimestamp != nil && !finished(pod) {
				missing--
			}
		}
	}
	if missing <= 0 {
		return nil
	}
	if wait := r.backoff(); wait > 0 {
		r.queue.AddAfter(r.key, wait)
		return nil
	}
	var indexes []int
	if indexed(job) {
		indexes = r.freeIndexes(missing)
		missing = len(indexes)
	}
	made, err := slowStart(missing, func(i int) error {
		pod := podFrom(&job.Spec.Template, r.owner)
		if indexed(job) {
			r.number(pod, indexes[i])
		}
		return r.createPod(ctx, job, r.key, pod, r.x)
	})
	for range made { // they run as far as the numbers are concerned
		r.active = append(r.active, &corev1.Pod{})
	}
	return ignore(err, namespaceIsGoing)
}

// number makes a pod the one of an index.
func (r *jobRun) number(pod *corev1.Pod, index int) {
	text := strconv.Itoa(index)
	pod.Annotations = with(pod.Annotations, batchv1.JobCompletionIndexAnnotation, text)
	pod.Labels = with(pod.Labels, batchv1.JobCompletionIndexAnnotation, text)
	pod.GenerateName = generateName(r.job.Name + "-" + text)
	if pod.Spec.Hostname == "" {
		pod.Spec.Hostname = r.job.Name + "-" + text
	}
	variable := corev1.EnvVar{Name: "JOB_COMPLETION_INDEX", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{
		FieldPath: "metadata.labels['" + batchv1.JobCompletionIndexAnnotation + "']",
	}}}
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			if !slices.ContainsFunc(containers[i].Env, func(e corev1.EnvVar) bool { return e.Name == variable.Name }) {
				containers[i].Env = append(containers[i].Env, variable)
			}
		}
	}
	if r.job.Spec.BackoffLimitPerIndex != nil {
		failures := 0
		for _, old := range r.pods {
			if i, ok := indexOf(old); ok && i == index && r.lost(old) {
				failures = max(failures, indexFailures(old)+1)
			}
		}
		pod.Annotations = with(pod.Annotations, batchv1.JobIndexFailureCountAnnotation, strconv.Itoa(failures))
	}
}

// freeIndexes are the first indexes that have neither ended nor a pod that runs.
func (r *jobRun) freeIndexes(n int) (free []int) {
	taken := parseIndexes(r.job.Status.CompletedIndexes)
	for i := range parseIndexes(deref(r.job.Status.FailedIndexes)) {
		taken[i] = true
	}
	for _, pod := range r.active {
		if i, ok := indexOf(pod); ok {
			taken[i] = true
		}
	}
	for i := 0; i < int(completions(r.job)) && len(free) < n; i++ {
		if !taken[i] {
			free = append(free, i)
		}
	}
	return free
}

// backoff is how long to wait with the next pod after the latest failures in a row.
func (r *jobRun) backoff() time.Duration {
	var lastGood, lastBad time.Time
	for _, pod := range r.pods {
		if at := endOf(pod); pod.Status.Phase == corev1.PodSucceeded && at.After(lastGood) {
			lastGood = at
		}
	}
	failures := 0
	for _, pod := range r.pods {
		if pod.Status.Phase != corev1.PodFailed {
			continue
		}
		at := endOf(pod)
		if at.After(lastGood) {
			failures++
		}
		if at.After(lastBad) {
			lastBad = at
		}
	}
	if failures == 0 {
		return 0
	}
	return lastBad.Add(min(jobBackoff<<min(failures-1, 20), jobBackoffMost)).Sub(r.now)
}

// endOf is when the last container of a pod ended; when the pod was changed last as far as that is not known.
func endOf(pod *corev1.Pod) (at time.Time) {
	for i := range pod.Status.ContainerStatuses {
		if t := pod.Status.ContainerStatuses[i].State.Terminated; t != nil && t.FinishedAt.After(at) {
			at = t.FinishedAt.Time
		}
	}
	if !at.IsZero() {
		return at
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.LastTransitionTime.Time
		}
	}
	return pod.CreationTimestamp.Time
}
