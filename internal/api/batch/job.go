package batch

import (
	"context"
	"fmt"
	"maps"
	"math"
	"time"

	"github.com/timonel/timonel/internal/api/podspec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

const defaultBackoffLimit = 6

// Labels of a Job's pods from before labels had a domain.
const (
	legacyJobNameLabel       = "job-name"
	legacyControllerUIDLabel = "controller-uid"
)

// Job runs pods until enough of them have succeeded.
func job(rules podspec.Rules) *kind.Definition {
	spec, status := batchv1.JobSpec{}.SwaggerDoc(), batchv1.JobStatus{}.SwaggerDoc()
	pods := podspec.Template[*batchv1.Job](func(j *batchv1.Job) *corev1.PodTemplateSpec { return &j.Spec.Template })
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "Job", Plural: "jobs", Categories: []string{"all"},
		Scope: kind.Namespaced, Verbs: kind.Standard,
		New:     kind.Of[batchv1.Job](),
		Default: kind.Default(defaultJob),
		Stored:  kind.Stored{Undefaulted: true}, // its labels follow from those of its pods, which are generated later
		PrepareCreate: kind.Prepare(func(j *batchv1.Job) {
			generateSelector(j)
			j.Status = batchv1.JobStatus{}
			pods.New(j, rules)
			j.Spec.Scheduling = nil // feature WorkloadWithJob (alpha)
		}),
		PrepareUpdate: kind.PrepareUpdate(func(j, old *batchv1.Job) {
			j.Status = old.Status
			pods.Update(j, old, rules)
			if old.Spec.Scheduling == nil {
				j.Spec.Scheduling = nil
			}
		}),
		Generation:      kind.Changed(func(j, old *batchv1.Job) bool { return !object.Equal(&j.Spec, &old.Spec) }),
		Validate:        kind.Validate(func(j *batchv1.Job) field.ErrorList { return validateNewJob(j, rules) }),
		ValidateUpdate:  kind.ValidateUpdate(func(j, old *batchv1.Job) field.ErrorList { return validateJobUpdate(j, old, rules) }),
		Warnings:        warnJob,
		OrphanByDefault: true,
		Fields:          []kind.Field{{Label: "status.successful", Path: "status.succeeded"}},
		FieldsUnknown:   func(label string) string { return fmt.Sprintf("field label %q not supported for Job", label) },
		Columns: append(kind.Columns{
			{Name: "Status", Description: "Status of the job.", Of: kind.Cell(func(j *batchv1.Job) any { return jobStatus(j) })},
			{Name: "Completions", Description: status["succeeded"], Of: kind.Cell(func(j *batchv1.Job) any { return jobCompletions(j) })},
			{Name: "Duration", Description: "Time required to complete the job.", Of: kind.Cell(jobDuration)},
			kind.Age,
		}, append(pods.Columns(),
			kind.Column{Name: "Selector", Wide: true, Description: spec["selector"], Of: kind.Cell(func(j *batchv1.Job) any {
				return metav1.FormatLabelSelector(j.Spec.Selector)
			})})...),
		ColumnFields: []string{
			"metadata.deletionTimestamp",
			"spec.completions", "spec.parallelism", "spec.selector", "spec.template.spec.containers.name", "spec.template.spec.containers.image",
			"status.succeeded", "status.startTime", "status.completionTime", "status.conditions.type", "status.conditions.status",
		},
		Subresources: map[string]*kind.Subresource{
			"status": kind.Status(func(j, old *batchv1.Job) { j.Spec = old.Spec }, validateJobStatusUpdate),
		},
	}
}

func warnJob(_ context.Context, obj, old object.Object) []string {
	j := obj.(*batchv1.Job)
	switch {
	case old == nil:
		return append(podspec.WarnName(j.Name), warnJobSpec(&j.Spec, field.NewPath("spec"))...)
	case podspec.Unchanged(j, old):
		return nil
	}
	return warnJobSpec(&j.Spec, field.NewPath("spec"))
}

// warnJobSpec tells of more indexes than a status has room for, besides what the pod template does.
func warnJobSpec(s *batchv1.JobSpec, path *field.Path) []string {
	var warnings []string
	if ptr.Deref(s.CompletionMode, "") == batchv1.IndexedCompletion && ptr.Deref(s.Completions, 0) > manyCompletions && ptr.Deref(s.Parallelism, 0) > maxWithMany {
		warnings = append(warnings, fmt.Sprintf("%s: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, "+
			"Kubernetes might not be able to track completedIndexes when a big number of indexes fail", path))
	}
	return append(warnings, podspec.WarnTemplate(&s.Template, path.Child("template"))...)
}

func defaultJob(j *batchv1.Job) {
	s := &j.Spec
	if s.Parallelism == nil {
		s.Parallelism = ptr.To[int32](1)
		if s.Completions == nil {
			s.Completions = ptr.To[int32](1)
		}
	}
	if s.BackoffLimit == nil {
		s.BackoffLimit = ptr.To[int32](defaultBackoffLimit)
		if s.BackoffLimitPerIndex != nil {
			s.BackoffLimit = ptr.To[int32](math.MaxInt32)
		}
	}
	if s.CompletionMode == nil {
		s.CompletionMode = ptr.To(batchv1.NonIndexedCompletion)
	}
	if s.Suspend == nil {
		s.Suspend = ptr.To(false)
	}
	if s.ManualSelector == nil {
		s.ManualSelector = ptr.To(false)
	}
	if s.PodReplacementPolicy == nil {
		s.PodReplacementPolicy = ptr.To(batchv1.TerminatingOrFailed)
		if s.PodFailurePolicy != nil {
			s.PodReplacementPolicy = ptr.To(batchv1.Failed)
		}
	}
	defaultFailurePolicy(s.PodFailurePolicy)
	podspec.DefaultTemplate(&s.Template)
	labelLikeTemplate(j)
}

func defaultFailurePolicy(p *batchv1.PodFailurePolicy) {
	if p == nil {
		return
	}
	for i := range p.Rules {
		for k := range p.Rules[i].OnPodConditions {
			if c := &p.Rules[i].OnPodConditions[k]; c.Status == "" {
				c.Status = corev1.ConditionTrue
			}
		}
	}
}

// labelLikeTemplate gives a Job without labels those of its pods.
func labelLikeTemplate(j *batchv1.Job) {
	if len(j.Labels) == 0 && len(j.Spec.Template.Labels) > 0 {
		j.Labels = maps.Clone(j.Spec.Template.Labels)
	}
}

// generateSelector makes labels for the Job's pods that no other pod has, and selects by them, unless the client
// says that it chose labels of its own.
func generateSelector(j *batchv1.Job) {
	if ptr.Deref(j.Spec.ManualSelector, false) {
		return
	}
	labels := &j.Spec.Template.Labels
	if *labels == nil {
		*labels = map[string]string{}
	}
	for key, value := range generatedLabels(j) {
		if _, given := (*labels)[key]; !given {
			(*labels)[key] = value
		}
	}
	if j.Spec.Selector == nil {
		j.Spec.Selector = &metav1.LabelSelector{}
	}
	if j.Spec.Selector.MatchLabels == nil {
		j.Spec.Selector.MatchLabels = map[string]string{}
	}
	if _, given := j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel]; !given {
		j.Spec.Selector.MatchLabels[batchv1.ControllerUidLabel] = string(j.UID)
	}
	labelLikeTemplate(j)
}

// generatedLabels are those of the pods of a Job whose selector was generated.
func generatedLabels(j *batchv1.Job) map[string]string {
	return map[string]string{
		batchv1.ControllerUidLabel: string(j.UID), legacyControllerUIDLabel: string(j.UID),
		batchv1.JobNameLabel: j.Name, legacyJobNameLabel: j.Name,
	}
}

// hasCondition reports whether a condition of a Job is true.
func hasCondition(s *batchv1.JobStatus, t batchv1.JobConditionType) bool {
	for _, c := range s.Conditions {
		if c.Type == t {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func jobStatus(j *batchv1.Job) string {
	switch {
	case hasCondition(&j.Status, batchv1.JobComplete):
		return "Complete"
	case hasCondition(&j.Status, batchv1.JobFailed):
		return "Failed"
	case j.DeletionTimestamp != nil:
		return "Terminating"
	case hasCondition(&j.Status, batchv1.JobSuspended):
		return "Suspended"
	case hasCondition(&j.Status, batchv1.JobFailureTarget):
		return "FailureTarget"
	case hasCondition(&j.Status, batchv1.JobSuccessCriteriaMet):
		return "SuccessCriteriaMet"
	}
	return "Running"
}

func jobCompletions(j *batchv1.Job) string {
	switch parallelism := ptr.Deref(j.Spec.Parallelism, 0); {
	case j.Spec.Completions != nil:
		return fmt.Sprintf("%d/%d", j.Status.Succeeded, *j.Spec.Completions)
	case parallelism > 1:
		return fmt.Sprintf("%d/1 of %d", j.Status.Succeeded, parallelism)
	}
	return fmt.Sprintf("%d/1", j.Status.Succeeded)
}

func jobDuration(j *batchv1.Job) any {
	start, end := j.Status.StartTime, j.Status.CompletionTime
	switch {
	case start == nil:
		return ""
	case end == nil:
		return kind.DatedFunc(func(now time.Time) any { return duration.HumanDuration(now.Sub(start.Time)) })
	}
	return duration.HumanDuration(end.Sub(start.Time))
}
