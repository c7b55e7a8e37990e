package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	batchlisters "k8s.io/client-go/listers/batch/v1"
)

// crons makes jobs at the times of a schedule (docs: "CronJob").
type crons struct {
	*part
	crons batchlisters.CronJobLister
	jobs  batchlisters.JobLister
}

var cronJobKind = batchv1.SchemeGroupVersion.WithKind("CronJob")

const (
	scheduledAt = "batch.kubernetes.io/cronjob-scheduled-timestamp"
	// maxMissed is how many missed times are looked through before one gives up and tells of it.
	maxMissed = 100
)

func (c *Controllers) addCronJobs() {
	all, jobs := c.informers.Batch().V1().CronJobs(), c.informers.Batch().V1().Jobs()
	p := c.add("cronjob", "cronjob-controller")
	p.tells("cronjob-controller")
	r := &crons{part: p, crons: all.Lister(), jobs: jobs.Lister()}
	follow(p, all.Informer(), func(cj *batchv1.CronJob) { p.queue.Add(keyOf(cj)) })
	follow(p, jobs.Informer(), func(job *batchv1.Job) {
		if ref := metav1.GetControllerOfNoCopy(job); ref != nil && ref.Kind == cronJobKind.Kind && sameGroup(ref, cronJobKind) {
			p.queue.Add(job.Namespace + "/" + ref.Name)
		}
	})
	p.work(2, r.sync)
}

func (c *crons) sync(ctx context.Context, key string) error {
	namespace, name := splitKey(key)
	shared, err := c.crons.CronJobs(namespace).Get(name)
	if err != nil || shared.DeletionTimestamp != nil {
		return nil //nolint:nilerr // gone or going
	}
	cj := shared.DeepCopy()
	all, err := c.jobs.Jobs(namespace).List(labels.Everything())
	if err != nil {
		return err
	}
	mine := slices.DeleteFunc(slices.Clone(all), func(job *batchv1.Job) bool { return !metav1.IsControlledBy(job, cj) })
	unseen, err := c.unseen(ctx, cj, mine)
	if err != nil {
		return err
	}
	mine = append(mine, unseen...)
	slices.SortFunc(mine, func(a, b *batchv1.Job) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	failed := c.tidy(ctx, cj, mine)
	c.note(cj, mine)
	failed = errors.Join(failed, c.start(ctx, cj, mine))
	if equality.Semantic.DeepEqual(cj.Status, shared.Status) {
		return failed
	}
	_, err = c.client.BatchV1().CronJobs(namespace).UpdateStatus(ctx, cj, metav1.UpdateOptions{})
	return errors.Join(failed, gone(err))
}

// unseen are the jobs that are said to be active and that the informer has not told of: it may be behind, so the server decides.
func (c *crons) unseen(ctx context.Context, cj *batchv1.CronJob, mine []*batchv1.Job) ([]*batchv1.Job, error) {
	var all []*batchv1.Job
	for _, ref := range cj.Status.Active {
		if slices.ContainsFunc(mine, func(job *batchv1.Job) bool { return job.UID == ref.UID }) {
			continue
		}
		job, err := c.client.BatchV1().Jobs(cj.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err), err == nil && job.UID != ref.UID:
			c.events.warn(cj, "MissingJob", "Active job went missing: %v", ref.Name)
		case err != nil:
			return nil, fmt.Errorf("look up job %s of CronJob %s: %w", ref.Name, keyOf(cj), err)
		default:
			all = append(all, job)
		}
	}
	return all, nil
}

// note brings status.active up to what runs.
func (c *crons) note(cj *batchv1.CronJob, mine []*batchv1.Job) {
	running := []corev1.ObjectReference{}
	for _, job := range mine {
		was := slices.ContainsFunc(cj.Status.Active, func(r corev1.ObjectReference) bool { return r.UID == job.UID })
		end := jobEnd(job)
		if end == nil {
			running = append(running, jobRef(job))
			continue
		}
		if was {
			c.events.normal(cj, "SawCompletedJob", "Saw completed job: %s, condition: %v", job.Name, end.Type)
		}
		if t := job.Status.CompletionTime; end.Type == batchv1.JobComplete && t != nil && (cj.Status.LastSuccessfulTime == nil || t.After(cj.Status.LastSuccessfulTime.Time)) {
			cj.Status.LastSuccessfulTime = t
		}
	}
	if len(running) == 0 {
		running = nil
	}
	cj.Status.Active = running
}

func jobRef(job *batchv1.Job) corev1.ObjectReference {
	return corev1.ObjectReference{
		APIVersion: batchv1.SchemeGroupVersion.String(), Kind: "Job", Namespace: job.Namespace, Name: job.Name, UID: job.UID, ResourceVersion: job.ResourceVersion,
	}
}

// tidy deletes the oldest of too many jobs that ended.
func (c *crons) tidy(ctx context.Context, cj *batchv1.CronJob, mine []*batchv1.Job) error {
	var failed []error
	for end, limit := range map[batchv1.JobConditionType]*int32{batchv1.JobComplete: cj.Spec.SuccessfulJobsHistoryLimit, batchv1.JobFailed: cj.Spec.FailedJobsHistoryLimit} {
		if limit == nil {
			continue
		}
		var ended []*batchv1.Job
		for _, job := range mine {
			if e := jobEnd(job); e != nil && e.Type == end && job.DeletionTimestamp == nil {
				ended = append(ended, job)
			}
		}
		for _, job := range ended[:max(0, len(ended)-int(*limit))] {
			if err := c.remove(ctx, cj, job); err != nil {
				failed = append(failed, err)
			}
		}
	}
	return errors.Join(failed...)
}

func (c *crons) remove(ctx context.Context, cj *batchv1.CronJob, job *batchv1.Job) error {
	background := metav1.DeletePropagationBackground
	err := c.client.BatchV1().Jobs(job.Namespace).Delete(ctx, job.Name, metav1.DeleteOptions{PropagationPolicy: &background})
	if err == nil {
		c.events.normal(cj, "SuccessfulDelete", "Deleted job %s", job.Name)
	}
	return gone(err)
}

// schedule reads the times of a CronJob in its zone.
func schedule(cj *batchv1.CronJob) (cron.Schedule, error) {
	text := cj.Spec.Schedule
	if cj.Spec.TimeZone != nil {
		if _, err := time.LoadLocation(*cj.Spec.TimeZone); err != nil {
			return nil, fmt.Errorf("unknown time zone %q: %w", *cj.Spec.TimeZone, err)
		}
		if !strings.Contains(text, "TZ=") {
			text = "TZ=" + *cj.Spec.TimeZone + " " + text
		}
	}
	return cron.ParseStandard(text)
}

// due is the latest time that has passed and has no job yet, and when the next is. missed is how many were
// passed over before it.
func due(cj *batchv1.CronJob, times cron.Schedule, now time.Time) (at, next time.Time, missed int) {
	from := cj.CreationTimestamp.Time
	if t := cj.Status.LastScheduleTime; t != nil {
		from = t.Time
	}
	if d := cj.Spec.StartingDeadlineSeconds; d != nil {
		if earliest := now.Add(-time.Duration(*d) * time.Second); earliest.After(from) {
			from = earliest
		}
	}
	for t := times.Next(from); !t.IsZero() && !t.After(now); t = times.Next(t) {
		if !at.IsZero() {
			missed++
		}
		at = t
		if missed > maxMissed { // jump near to now
			gap := times.Next(t).Sub(t)
			if skip := t.Add(now.Sub(t) / gap * gap).Add(-2 * gap); skip.After(t) {
				t = skip
			}
		}
	}
	return at, times.Next(now), missed
}

// start makes the job that is due, and has the CronJob looked at again at its next time.
func (c *crons) start(ctx context.Context, cj *batchv1.CronJob, mine []*batchv1.Job) error {
	if cj.Spec.Suspend != nil && *cj.Spec.Suspend {
		return nil
	}
	times, err := schedule(cj)
	if err != nil {
		c.events.warn(cj, "UnparseableSchedule", "unparseable schedule %q : %s", cj.Spec.Schedule, err)
		return nil // it cannot get better before it is changed
	}
	now := time.Now()
	at, next, missed := due(cj, times, now)
	if !next.IsZero() {
		c.queue.AddAfter(keyOf(cj), until(now, next))
	}
	if at.IsZero() {
		return nil
	}
	if missed > maxMissed {
		c.events.warn(cj, "TooManyMissedTimes", "too many missed start times: %d. Set or decrease .spec.startingDeadlineSeconds or check clock skew", missed)
	}
	if d := cj.Spec.StartingDeadlineSeconds; d != nil && at.Add(time.Duration(*d)*time.Second).Before(now) {
		c.events.warn(cj, "MissSchedule", "Missed scheduled time to start a job: %s", at.UTC().Format(time.RFC1123Z))
		return nil
	}
	name := cj.Name + "-" + strconv.FormatInt(at.Unix()/60, 10)
	if slices.ContainsFunc(mine, func(job *batchv1.Job) bool { return job.Name == name }) {
		cj.Status.LastScheduleTime = &metav1.Time{Time: at}
		return nil
	}
	if len(cj.Status.Active) > 0 {
		switch cj.Spec.ConcurrencyPolicy {
		case batchv1.ForbidConcurrent:
			c.events.normal(cj, "JobAlreadyActive", "Not starting job because prior execution is running and concurrency policy is Forbid")
			return nil // it starts when the running one ends, if the deadline allows
		case batchv1.ReplaceConcurrent:
			for _, job := range mine {
				if jobEnd(job) == nil {
					if err := c.remove(ctx, cj, job); err != nil {
						return err
					}
				}
			}
			cj.Status.Active = nil
		}
	}
	template := cj.Spec.JobTemplate.DeepCopy()
	stamp := at
	if cj.Spec.TimeZone != nil {
		if zone, err := time.LoadLocation(*cj.Spec.TimeZone); err == nil {
			stamp = at.In(zone)
		}
	}
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: cj.Namespace, Labels: template.Labels, CreationTimestamp: metav1.Time{},
			Annotations: with(template.Annotations, scheduledAt, stamp.Format(time.RFC3339)), OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(cj, cronJobKind)},
		},
		Spec: template.Spec,
	}
	made, err := c.client.BatchV1().Jobs(cj.Namespace).Create(ctx, job, metav1.CreateOptions{})
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil
	case apierrors.IsAlreadyExists(err):
		have, getErr := c.client.BatchV1().Jobs(cj.Namespace).Get(ctx, name, metav1.GetOptions{})
		if getErr != nil || !metav1.IsControlledBy(have, cj) {
			return errors.Join(err, getErr)
		}
		made = have
	case err != nil:
		c.events.warn(cj, "FailedCreate", "Error creating job: %v", err)
		return err
	default:
		c.events.normal(cj, "SuccessfulCreate", "Created job %s", made.Name)
	}
	if !slices.ContainsFunc(cj.Status.Active, func(r corev1.ObjectReference) bool { return r.UID == made.UID }) {
		cj.Status.Active = append(cj.Status.Active, jobRef(made))
	}
	cj.Status.LastScheduleTime = &metav1.Time{Time: at}
	return nil
}
