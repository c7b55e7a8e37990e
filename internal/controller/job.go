package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	batchlisters "k8s.io/client-go/listers/batch/v1"
)

// jobber runs pods until enough of them have succeeded (docs: "Jobs").
//
// Every pod has a finalizer until it is counted, so that none is missed. It is counted in three steps, each of which can be repeated: its uid goes into
// status.uncountedTerminatedPods; the finalizer is taken off; the uid goes out of the list and into the
// number, or for an indexed job its index into the set of indexes.
//
// Not here: managedBy of others is respected, their jobs are left alone.
type jobber struct {
	*part
	jobs batchlisters.JobLister
	x    *expectations
}

var jobKind = batchv1.SchemeGroupVersion.WithKind("Job")

const (
	// jobBackoff is how long after a failure a job makes the next pod; it doubles up to jobBackoffMost.
	jobBackoff     = 10 * time.Second
	jobBackoffMost = 10 * time.Minute
	// maxUncounted bounds what is counted in one go.
	maxUncounted = 500
)

func (c *Controllers) addJobs() {
	jobs := c.informers.Batch().V1().Jobs()
	p := c.add("job", "job-controller")
	p.tells("job-controller")
	j := &jobber{part: p, jobs: jobs.Lister(), x: c.newExpectations()}
	follow(p, jobs.Informer(), func(job *batchv1.Job) { p.queue.Add(keyOf(job)) })
	p.followPods(func(namespace string, ref *metav1.OwnerReference) string {
		if ref.Kind != jobKind.Kind || !sameGroup(ref, jobKind) {
			return ""
		}
		return namespace + "/" + ref.Name // also of one that is gone: its pods' finalizers are ours
	}, func(pod *corev1.Pod) (keys []string) {
		all, _ := j.jobs.Jobs(pod.Namespace).List(labels.Everything()) // a lister of an informer does not fail
		for _, job := range all {
			if selects(job.Spec.Selector, pod.Labels) {
				keys = append(keys, keyOf(job))
			}
		}
		if tracked(pod) {
			keys = append(keys, orphanPod+keyOf(pod))
		}
		return keys
	})
	p.work(5, j.sync)
}

// orphanPod marks keys of pods that have the finalizer and no job.
const orphanPod = "pod:"

func tracked(pod *corev1.Pod) bool {
	return slices.Contains(pod.Finalizers, batchv1.JobTrackingFinalizer)
}

// jobRun is one look at one job.
type jobRun struct {
	*jobber
	job    *batchv1.Job // our copy; its status is what will be written
	key    string
	owner  *owner
	pods   []*corev1.Pod
	active []*corev1.Pod
	now    time.Time
}

func indexed(job *batchv1.Job) bool {
	return job.Spec.CompletionMode != nil && *job.Spec.CompletionMode == batchv1.IndexedCompletion
}

func (j *jobber) sync(ctx context.Context, key string) error {
	if len(key) > len(orphanPod) && key[:len(orphanPod)] == orphanPod {
		namespace, name := splitKey(key[len(orphanPod):])
		if pod := j.pods.get(namespace, name); pod != nil && metav1.GetControllerOfNoCopy(pod) == nil {
			return j.untrack(ctx, pod)
		}
		return nil
	}
	namespace, name := splitKey(key)
	shared, err := j.jobs.Jobs(namespace).Get(name)
	if err != nil {
		j.x.forget(key)
		return j.untrackOrphans(ctx, namespace, name, "")
	}
	if m := shared.Spec.ManagedBy; m != nil && *m != batchv1.JobControllerName {
		return nil
	}
	selector, err := metav1.LabelSelectorAsSelector(shared.Spec.Selector)
	if err != nil || selector.Empty() {
		return nil //nolint:nilerr // the server makes one
	}
	if err := j.untrackOrphans(ctx, namespace, name, shared.UID); err != nil {
		return err
	}
	met := j.x.met(key)
	r := &jobRun{jobber: j, job: shared.DeepCopy(), key: key, now: time.Now()}
	r.owner = &owner{meta: shared, kind: jobKind, selector: selector, finalizer: batchv1.JobTrackingFinalizer, live: func(ctx context.Context) (metav1.Object, error) {
		return j.client.BatchV1().Jobs(namespace).Get(ctx, name, metav1.GetOptions{})
	}}
	if r.pods, err = j.claimPods(ctx, r.owner); err != nil {
		return fmt.Errorf("claim pods of Job %s: %w", key, err)
	}
	if jobEnd(shared) != nil {
		return r.release(ctx, r.pods)
	}
	r.active = slices.DeleteFunc(slices.Clone(r.pods), func(pod *corev1.Pod) bool { return !active(pod) })
	return r.step(ctx, met)
}

// untrackOrphans takes the finalizer off pods of a job of that name that is gone; uid is that of the one that is there.
func (j *jobber) untrackOrphans(ctx context.Context, namespace, name string, uid types.UID) error {
	var failed []error
	all, _ := j.pods.lister.Pods(namespace).List(labels.Everything()) // as above
	for _, pod := range all {
		if ref := metav1.GetControllerOfNoCopy(pod); tracked(pod) && ref != nil && ref.Kind == jobKind.Kind && ref.Name == name && ref.UID != uid {
			failed = append(failed, j.untrack(ctx, pod))
		}
	}
	return errors.Join(failed...)
}

// untrack takes the finalizer off a pod.
func (j *jobber) untrack(ctx context.Context, pod *corev1.Pod) error {
	if !tracked(pod) {
		return nil
	}
	body := metadataPatch(map[string]any{"uid": pod.UID, "$deleteFromPrimitiveList/finalizers": []string{batchv1.JobTrackingFinalizer}})
	_, err := j.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{})
	return gone(err)
}

// tracked reports whether a pod is yet to be counted. One that was released is not: the informer of the Job, which is another,
// may show it counted before that of pods shows it without its finalizer.
func (r *jobRun) tracked(pod *corev1.Pod) bool { return tracked(pod) && !r.x.letGo(r.key, pod) }

func (r *jobRun) release(ctx context.Context, pods []*corev1.Pod) error {
	_, err := slowStart(len(pods), func(i int) error {
		if !r.tracked(pods[i]) {
			return nil
		}
		err := r.untrack(ctx, pods[i])
		if err == nil {
			r.x.released(r.key, pods[i])
		}
		return err
	})
	return err
}

func (r *jobRun) step(ctx context.Context, met bool) error {
	job, s := r.job, &r.job.Status
	before := s.DeepCopy()
	if s.StartTime == nil && !suspended(job) {
		s.StartTime = &metav1.Time{Time: r.now}
	}
	if err := r.count(ctx, before); err != nil {
		return err
	}
	ruling := r.ruling()
	if ruling == nil && r.pastDeadline() {
		ruling = &verdict{batchv1.JobFailureTarget, batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline"}
	}
	var failed error
	switch {
	case ruling != nil:
		failed = r.end(ctx, ruling)
	case suspended(job):
		failed = r.suspend(ctx)
	default:
		r.resume()
		if met && job.DeletionTimestamp == nil {
			failed = r.manage(ctx)
		} else if !met {
			r.queue.AddAfter(r.key, expectAgain)
		}
	}
	r.tally()
	if equality.Semantic.DeepEqual(before, s) {
		return failed
	}
	return errors.Join(failed, r.write(ctx))
}

func (r *jobRun) write(ctx context.Context) error {
	updated, err := r.client.BatchV1().Jobs(r.job.Namespace).UpdateStatus(ctx, r.job, metav1.UpdateOptions{})
	if err != nil {
		return gone(err)
	}
	r.job = updated
	if c := jobEnd(updated); c != nil {
		if c.Type == batchv1.JobComplete {
			r.events.normal(updated, "Completed", "Job completed")
		} else {
			r.events.warn(updated, c.Reason, "%s", c.Message)
		}
	}
	return nil
}

func suspended(job *batchv1.Job) bool { return job.Spec.Suspend != nil && *job.Spec.Suspend }

func (r *jobRun) pastDeadline() bool {
	s := r.job.Spec.ActiveDeadlineSeconds
	if s == nil || r.job.Status.StartTime == nil || suspended(r.job) {
		return false
	}
	at := r.job.Status.StartTime.Add(time.Duration(*s) * time.Second)
	if r.now.Before(at) {
		r.queue.AddAfter(r.key, until(r.now, at))
		return false
	}
	return true
}

// tally fills in the numbers that are of the moment.
func (r *jobRun) tally() {
	s := &r.job.Status
	readyPods, terminating := int32(0), int32(0)
	for _, pod := range r.active {
		if ready(pod) {
			readyPods++
		}
	}
	for _, pod := range r.pods {
		if pod.DeletionTimestamp != nil && !finished(pod) {
			terminating++
		}
	}
	s.Active, s.Ready, s.Terminating = int32(len(r.active)), &readyPods, &terminating
	if jobEnd(r.job) != nil {
		zero := int32(0)
		s.Active, s.Ready = 0, &zero
	}
}

// count takes finished pods into the status, in the three steps above.
func (r *jobRun) count(ctx context.Context, before *batchv1.JobStatus) error {
	s := &r.job.Status
	u := s.UncountedTerminatedPods
	if u == nil {
		u = &batchv1.UncountedTerminatedPods{}
		s.UncountedTerminatedPods = u
	}
	byUID := map[types.UID]*corev1.Pod{}
	for _, pod := range r.pods {
		byUID[pod.UID] = pod
	}
	settle := func(uids []types.UID, n *int32) (left []types.UID) {
		for _, uid := range uids {
			if pod := byUID[uid]; pod != nil && r.tracked(pod) {
				left = append(left, uid)
				continue
			}
			*n++
		}
		return left
	}
	u.Failed = settle(u.Failed, &s.Failed)
	if !indexed(r.job) {
		u.Succeeded = settle(u.Succeeded, &s.Succeeded)
	}
	var off []*corev1.Pod
	added := 0
	for _, pod := range r.pods {
		if !r.tracked(pod) || added >= maxUncounted {
			continue
		}
		good, bad := pod.Status.Phase == corev1.PodSucceeded, r.lost(pod)
		switch {
		case good && indexed(r.job):
			off = append(off, pod) // its index is taken into the set below
		case good && !slices.Contains(u.Succeeded, pod.UID):
			u.Succeeded = append(u.Succeeded, pod.UID)
			off, added = append(off, pod), added+1
		case bad && !slices.Contains(u.Failed, pod.UID):
			if action, _ := r.policy(pod); action != batchv1.PodFailurePolicyActionIgnore {
				u.Failed = append(u.Failed, pod.UID)
				added++
			}
			off = append(off, pod)
		case good || bad:
			off = append(off, pod)
		}
	}
	if indexed(r.job) {
		done := parseIndexes(s.CompletedIndexes)
		for _, pod := range r.pods {
			if i, ok := indexOf(pod); ok && pod.Status.Phase == corev1.PodSucceeded && i < int(completions(r.job)) {
				done[i] = true
			}
		}
		s.CompletedIndexes, s.Succeeded = formatIndexes(done), int32(len(done))
		r.countFailedIndexes(done)
	}
	r.foretell() // a verdict is written before the pods that justify it may go
	if !equality.Semantic.DeepEqual(before, s) && len(off) > 0 {
		r.tally()
		if err := r.write(ctx); err != nil {
			return err
		}
		*before = *r.job.Status.DeepCopy()
		s, u = &r.job.Status, r.job.Status.UncountedTerminatedPods
	}
	if err := r.release(ctx, off); err != nil {
		return fmt.Errorf("release counted pods: %w", err)
	}
	if u == nil {
		return nil
	}
	// What was released is counted at once; should this be lost, the next look counts it.
	let := map[types.UID]bool{}
	for _, pod := range off {
		let[pod.UID] = true
	}
	keep := func(uids []types.UID, n *int32) []types.UID {
		return slices.DeleteFunc(slices.Clone(uids), func(uid types.UID) bool {
			if let[uid] {
				*n++
			}
			return let[uid]
		})
	}
	next := u.DeepCopy()
	next.Failed, next.Succeeded = keep(u.Failed, &s.Failed), keep(u.Succeeded, &s.Succeeded)
	s.UncountedTerminatedPods = next
	return nil
}

// lost reports whether a pod counts as failed: it failed, or it is being deleted and the job does not wait for its end.
func (r *jobRun) lost(pod *corev1.Pod) bool {
	if pod.Status.Phase == corev1.PodFailed {
		return true
	}
	return pod.DeletionTimestamp != nil && pod.Status.Phase != corev1.PodSucceeded && r.job.Spec.PodFailurePolicy == nil &&
		(r.job.Spec.PodReplacementPolicy == nil || *r.job.Spec.PodReplacementPolicy == batchv1.TerminatingOrFailed)
}

// failures is how many pods failed, counted or not yet.
func (r *jobRun) failures() int32 {
	n := r.job.Status.Failed
	if u := r.job.Status.UncountedTerminatedPods; u != nil {
		n += int32(len(u.Failed))
	}
	// A pod that is kept and restarted in place fails by its restarts.
	if r.job.Spec.Template.Spec.RestartPolicy == corev1.RestartPolicyOnFailure {
		for _, pod := range r.active {
			for _, c := range append(slices.Clone(pod.Status.InitContainerStatuses), pod.Status.ContainerStatuses...) {
				n += c.RestartCount
			}
		}
	}
	return n
}

func (r *jobRun) successes() int32 {
	n := r.job.Status.Succeeded
	if u := r.job.Status.UncountedTerminatedPods; u != nil && !indexed(r.job) {
		n += int32(len(u.Succeeded))
	}
	return n
}

func completions(job *batchv1.Job) int32 {
	if job.Spec.Completions == nil {
		return 0
	}
	return *job.Spec.Completions
}

func indexOf(pod *corev1.Pod) (int, bool) {
	i, err := strconv.Atoi(pod.Annotations[batchv1.JobCompletionIndexAnnotation])
	return i, err == nil && i >= 0
}
