package controller

import (
	"context"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// addJobExpiry deletes jobs some time after they ended (docs: "Automatic Cleanup for Finished Jobs").
func (c *Controllers) addJobExpiry() {
	jobs := c.informers.Batch().V1().Jobs()
	p := c.add("ttl after finished", "ttl-after-finished-controller")
	followChanges(p, jobs.Informer(), func(_, job *batchv1.Job) {
		if _, expires := expiry(job); expires {
			p.queue.Add(keyOf(job))
		}
	}, func(*batchv1.Job) {})
	p.work(2, func(ctx context.Context, key string) error {
		namespace, name := splitKey(key)
		job, err := jobs.Lister().Jobs(namespace).Get(name)
		if err != nil {
			return nil //nolint:nilerr // gone
		}
		now := time.Now()
		if at, expires := expiry(job); !expires {
			return nil
		} else if now.Before(at) {
			p.queue.AddAfter(key, until(now, at))
			return nil
		}
		// It may have been given more time; the server knows.
		fresh, err := p.client.BatchV1().Jobs(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return gone(err)
		}
		if at, expires := expiry(fresh); !expires || now.Before(at) {
			return nil // its change is on its way to us
		}
		foreground := metav1.DeletePropagationForeground
		err = p.client.BatchV1().Jobs(namespace).Delete(ctx, name, metav1.DeleteOptions{
			PropagationPolicy: &foreground, Preconditions: &metav1.Preconditions{UID: &fresh.UID, ResourceVersion: &fresh.ResourceVersion},
		})
		return ignore(err, apierrors.IsNotFound)
	})
}

// expiry is when a job is to be deleted; expires is false if it has not ended or is to stay.
func expiry(job *batchv1.Job) (at time.Time, expires bool) {
	if job.DeletionTimestamp != nil || job.Spec.TTLSecondsAfterFinished == nil {
		return time.Time{}, false
	}
	c := jobEnd(job)
	if c == nil {
		return time.Time{}, false
	}
	return c.LastTransitionTime.Add(time.Duration(*job.Spec.TTLSecondsAfterFinished) * time.Second), true
}

// jobEnd is the condition that says that a job ended; nil if it did not.
func jobEnd(job *batchv1.Job) *batchv1.JobCondition {
	for i := range job.Status.Conditions {
		if c := &job.Status.Conditions[i]; (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return c
		}
	}
	return nil
}
