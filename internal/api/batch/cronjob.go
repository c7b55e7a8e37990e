package batch

import (
	"context"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // time zones of CronJobs, on machines without a database of their own

	"github.com/robfig/cron/v3"
	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/podspec"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

const (
	defaultKeepSuccessful = 3
	defaultKeepFailed     = 1
	// maxCronJobName leaves room for the eleven characters that the controller appends to make a Job's name.
	maxCronJobName = 52
)

// CronJob makes Jobs on a schedule.
func cronJob(rules podspec.Rules) *kind.Definition {
	spec, status := batchv1.CronJobSpec{}.SwaggerDoc(), batchv1.CronJobStatus{}.SwaggerDoc()
	pods := podspec.Template[*batchv1.CronJob](func(c *batchv1.CronJob) *corev1.PodTemplateSpec { return &c.Spec.JobTemplate.Spec.Template })
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "CronJob", Plural: "cronjobs", ShortNames: []string{"cj"}, Categories: []string{"all"},
		Scope: kind.Namespaced, Verbs: kind.Standard,
		New:     kind.Of[batchv1.CronJob](),
		Default: kind.Default(defaultCronJob),
		PrepareCreate: kind.Prepare(func(c *batchv1.CronJob) {
			c.Status = batchv1.CronJobStatus{}
			pods.New(c, rules)
			c.Spec.JobTemplate.Spec.Scheduling = nil // feature WorkloadWithJob (alpha)
		}),
		PrepareUpdate: kind.PrepareUpdate(func(c, old *batchv1.CronJob) {
			c.Status = old.Status
			pods.Update(c, old, rules)
			if old.Spec.JobTemplate.Spec.Scheduling == nil {
				c.Spec.JobTemplate.Spec.Scheduling = nil
			}
		}),
		Generation: kind.Changed(func(c, old *batchv1.CronJob) bool { return !object.Equal(&c.Spec, &old.Spec) }),
		Validate: kind.Validate(func(c *batchv1.CronJob) field.ErrorList {
			var errs field.ErrorList
			if len(c.Name) > maxCronJobName {
				errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), c.Name, fmt.Sprintf("must be no more than %d characters", maxCronJobName)))
			}
			return append(errs, validateCronJob(&c.Spec, nil, rules)...)
		}),
		ValidateUpdate: kind.ValidateUpdate(func(c, old *batchv1.CronJob) field.ErrorList { return validateCronJob(&c.Spec, &old.Spec, rules) }),
		Warnings:       warnCronJob,
		Columns: append(kind.Columns{
			{Name: "Schedule", Description: spec["schedule"], Of: kind.Cell(func(c *batchv1.CronJob) any { return c.Spec.Schedule })},
			{Name: "Timezone", Description: spec["timeZone"], Of: kind.Cell(func(c *batchv1.CronJob) any { return ptr.Deref(c.Spec.TimeZone, show.None) })},
			{Name: "Suspend", Type: "boolean", Description: spec["suspend"], Of: kind.Cell(suspended)},
			{Name: "Active", Type: "integer", Description: status["active"], Of: kind.Cell(func(c *batchv1.CronJob) any { return int64(len(c.Status.Active)) })},
			{Name: "Last Schedule", Description: status["lastScheduleTime"], Of: kind.Cell(func(c *batchv1.CronJob) any {
				if c.Status.LastScheduleTime == nil {
					return show.None
				}
				return kind.SinceOf(c.Status.LastScheduleTime)
			})},
			kind.Age,
		}, append(pods.Columns(),
			kind.Column{Name: "Selector", Wide: true, Description: batchv1.JobSpec{}.SwaggerDoc()["selector"], Of: kind.Cell(func(c *batchv1.CronJob) any {
				return metav1.FormatLabelSelector(c.Spec.JobTemplate.Spec.Selector)
			})})...),
		ColumnFields: []string{
			"spec.schedule", "spec.timeZone", "spec.suspend", "spec.jobTemplate.spec.selector",
			"spec.jobTemplate.spec.template.spec.containers.name", "spec.jobTemplate.spec.template.spec.containers.image",
			"status.active.name", "status.lastScheduleTime",
		},
		Subresources: map[string]*kind.Subresource{
			"status": kind.Status(func(c, old *batchv1.CronJob) { c.Spec = old.Spec }, nil),
		},
	}
}

// warnCronJob warns of a schedule that names a time zone itself, besides what the Job does.
func warnCronJob(_ context.Context, obj, old object.Object) []string {
	c := obj.(*batchv1.CronJob)
	var warnings []string
	if old == nil {
		warnings = podspec.WarnName(c.Name)
	}
	if !podspec.Unchanged(c, old) {
		warnings = append(warnings, warnJobSpec(&c.Spec.JobTemplate.Spec, field.NewPath("spec", "jobTemplate", "spec"))...)
	}
	if strings.Contains(c.Spec.Schedule, "TZ") {
		warnings = append(warnings, "CRON_TZ or TZ used in spec.schedule is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details")
	}
	return warnings
}

// suspended is a text in a column of booleans.
func suspended(c *batchv1.CronJob) any {
	switch {
	case c.Spec.Suspend == nil:
		return show.Unset
	case *c.Spec.Suspend:
		return "True"
	}
	return "False"
}

// defaultCronJob fills in the pod's defaults, but not those of the Job, which are filled in when it is made.
func defaultCronJob(c *batchv1.CronJob) {
	s := &c.Spec
	if s.ConcurrencyPolicy == "" {
		s.ConcurrencyPolicy = batchv1.AllowConcurrent
	}
	if s.Suspend == nil {
		s.Suspend = ptr.To(false)
	}
	if s.SuccessfulJobsHistoryLimit == nil {
		s.SuccessfulJobsHistoryLimit = ptr.To[int32](defaultKeepSuccessful)
	}
	if s.FailedJobsHistoryLimit == nil {
		s.FailedJobsHistoryLimit = ptr.To[int32](defaultKeepFailed)
	}
	defaultFailurePolicy(s.JobTemplate.Spec.PodFailurePolicy)
	podspec.DefaultTemplate(&s.JobTemplate.Spec.Template)
}

// validateCronJob checks what a CronJob does; what old has already passes where the rules became stricter.
func validateCronJob(s, old *batchv1.CronJobSpec, rules podspec.Rules) field.ErrorList {
	spec := field.NewPath("spec")
	var before *corev1.PodTemplateSpec
	if old != nil {
		before = &old.JobTemplate.Spec.Template
	}
	errs := checkSchedule(s, old, spec)
	if s.StartingDeadlineSeconds != nil {
		errs = append(errs, check.NonNegative(*s.StartingDeadlineSeconds, spec.Child("startingDeadlineSeconds"))...)
	}
	errs = append(errs, check.RequiredOneOf(s.ConcurrencyPolicy, spec.Child("concurrencyPolicy"), batchv1.AllowConcurrent, batchv1.ForbidConcurrent, batchv1.ReplaceConcurrent)...)
	errs = append(errs, validateJobTemplate(&s.JobTemplate, before, rules, spec.Child("jobTemplate"))...)
	errs = append(errs, check.NonNegativePtr(s.SuccessfulJobsHistoryLimit, spec.Child("successfulJobsHistoryLimit"))...)
	errs = append(errs, check.NonNegativePtr(s.FailedJobsHistoryLimit, spec.Child("failedJobsHistoryLimit"))...)
	return append(errs, check.Required(s.Schedule, spec.Child("schedule"))...) // what the type itself declares comes last
}

func checkSchedule(s, old *batchv1.CronJobSpec, spec *field.Path) field.ErrorList {
	var errs field.ErrorList
	at := spec.Child("schedule")
	zoneOnly := strings.Contains(s.Schedule, "TZ=") && !strings.Contains(s.Schedule, " ") // the parser cannot bear it
	if s.Schedule != "" && !zoneOnly {
		if _, err := cron.ParseStandard(s.Schedule); err != nil {
			errs = append(errs, field.Invalid(at, s.Schedule, err.Error()))
		}
	}
	kept := old != nil && strings.Contains(old.Schedule, "TZ")
	switch zoned := strings.Contains(s.Schedule, "TZ"); {
	case zoned && !kept:
		errs = append(errs, field.Invalid(at, s.Schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"))
	case zoned && s.TimeZone != nil:
		errs = append(errs, field.Invalid(at, s.Schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule"))
	}
	if s.TimeZone != nil && (old == nil || !equality.Semantic.DeepEqual(s.TimeZone, old.TimeZone)) {
		errs = append(errs, checkTimeZone(*s.TimeZone, spec.Child("timeZone"))...)
	}
	return errs
}

func checkTimeZone(zone string, path *field.Path) field.ErrorList {
	if zone == "" {
		return field.ErrorList{field.Invalid(path, zone, "timeZone must be nil or non-empty string")}
	}
	var errs field.ErrorList
	if strings.EqualFold(zone, "local") {
		errs = append(errs, field.Invalid(path, zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"))
	}
	if _, err := time.LoadLocation(zone); err != nil {
		errs = append(errs, field.Invalid(path, zone, err.Error()))
	}
	return errs
}
