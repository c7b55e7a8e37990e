package batch

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// validateJobStatusUpdate checks a status against the Job and against the status before. Since other controllers than the
// cluster's own may write it (KEP-4368), it must tell a story that makes sense: a Job ends once, what was counted stays counted.
func validateJobStatusUpdate(j, old *batchv1.Job) field.ErrorList {
	s, path := &j.Status, field.NewPath("status")
	errs := check.NonNegative(s.Active, path.Child("active"))
	errs = append(errs, check.NonNegative(s.Succeeded, path.Child("succeeded"))...)
	errs = append(errs, check.NonNegative(s.Failed, path.Child("failed"))...)
	errs = append(errs, check.NonNegativePtr(s.Ready, path.Child("ready"))...)
	errs = append(errs, check.NonNegativePtr(s.Terminating, path.Child("terminating"))...)
	errs = append(errs, checkUncounted(s.UncountedTerminatedPods, path.Child("uncountedTerminatedPods"))...)
	errs = append(errs, checkJobEnd(s, path)...)
	errs = append(errs, checkIndexSets(j, path)...)
	errs = append(errs, checkJobTimes(j, old, path)...)
	return append(errs, checkJobProgress(j, old, path)...)
}

func checkUncounted(u *batchv1.UncountedTerminatedPods, path *field.Path) field.ErrorList {
	if u == nil {
		return nil
	}
	var errs field.ErrorList
	seen := map[types.UID]bool{}
	once := func(uids []types.UID, path *field.Path) {
		for i, uid := range uids {
			switch {
			case uid == "":
				errs = append(errs, field.Invalid(path.Index(i), uid, "must not be empty"))
			case seen[uid]:
				errs = append(errs, field.Duplicate(path.Index(i), uid))
			}
			seen[uid] = true
		}
	}
	once(u.Succeeded, path.Child("succeeded"))
	once(u.Failed, path.Child("failed"))
	return errs
}

// checkJobEnd checks the conditions that say how a Job ends, and that nothing runs afterwards.
func checkJobEnd(s *batchv1.JobStatus, path *field.Path) field.ErrorList {
	complete, failed := hasCondition(s, batchv1.JobComplete), hasCondition(s, batchv1.JobFailed)
	conditions := path.Child("conditions")
	var errs field.ErrorList
	say := func(at *field.Path, value any, wrong bool, text string) {
		if wrong {
			errs = append(errs, field.Invalid(at, value, text))
		}
	}
	none := field.OmitValueType{}
	failing, succeeding := hasCondition(s, batchv1.JobFailureTarget), hasCondition(s, batchv1.JobSuccessCriteriaMet)
	say(conditions, none, complete && failed, "cannot set Complete=True and Failed=True conditions")
	say(conditions, none, complete && failing, "cannot set Complete=True and FailureTarget=True conditions")
	say(conditions, none, succeeding && failed, "cannot set Failed=True and SuccessCriteriaMet=True conditions")
	say(conditions, none, succeeding && failing, "cannot set SuccessCriteriaMet=True and FailureTarget=True conditions")
	say(conditions, none, complete && !succeeding, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition")
	say(conditions, none, failed && !failing, "cannot set Failed=True condition without the FailureTarget=true condition")
	if !complete && !failed {
		return errs
	}
	say(path.Child("active"), s.Active, s.Active > 0, "active>0 is invalid for finished job")
	say(path.Child("ready"), s.Ready, ptr.Deref(s.Ready, 0) > 0, "ready>0 is invalid for finished job")
	say(path.Child("terminating"), s.Terminating, ptr.Deref(s.Terminating, 0) > 0, "terminating>0 is invalid for finished job")
	if u := s.UncountedTerminatedPods; u != nil {
		say(path.Child("uncountedTerminatedPods"), none, len(u.Failed)+len(u.Succeeded) > 0, "uncountedTerminatedPods needs to be empty for finished job")
	}
	return errs
}

// checkIndexSets checks the texts that say which indexes are done.
func checkIndexSets(j *batchv1.Job, path *field.Path) field.ErrorList {
	s := &j.Status
	completed, failed := path.Child("completedIndexes"), path.Child("failedIndexes")
	completions := ptr.Deref(j.Spec.Completions, 0)
	if ptr.Deref(j.Spec.CompletionMode, "") != batchv1.IndexedCompletion {
		var errs field.ErrorList
		if s.CompletedIndexes != "" {
			errs = append(errs, field.Invalid(completed, s.CompletedIndexes, "cannot set non-empty completedIndexes when non-indexed completion mode"))
		}
		if ptr.Deref(s.FailedIndexes, "") != "" {
			errs = append(errs, field.Invalid(failed, *s.FailedIndexes, "cannot set non-empty failedIndexes when non-indexed completion mode"))
		}
		return errs
	}
	var errs field.ErrorList
	done, err := parseIndexes(s.CompletedIndexes, completions)
	if err != nil {
		errs = append(errs, field.Invalid(completed, s.CompletedIndexes, err.Error()))
	}
	if text := s.FailedIndexes; text != nil {
		if j.Spec.BackoffLimitPerIndex == nil {
			errs = append(errs, field.Invalid(failed, *text, "failedIndexes must not be set without backoffLimitPerIndex"))
		}
		lost, err := parseIndexes(*text, completions)
		switch {
		case err != nil:
			errs = append(errs, field.Invalid(failed, *text, err.Error()))
		case overlap(done, lost):
			errs = append(errs, field.Invalid(failed, *text, "failedIndexes and completedIndexes overlap"))
		}
	}
	return errs
}

func checkJobTimes(j, old *batchv1.Job, path *field.Path) field.ErrorList {
	s, was := &j.Status, &old.Status
	start, end := path.Child("startTime"), path.Child("completionTime")
	var errs field.ErrorList
	complete := hasCondition(s, batchv1.JobComplete)
	if complete || hasCondition(s, batchv1.JobFailed) {
		if s.StartTime == nil {
			errs = append(errs, field.Required(start, "startTime is required for finished job"))
		}
	}
	switch {
	case complete && s.CompletionTime == nil:
		errs = append(errs, field.Required(end, "completionTime is required for Complete jobs"))
	case !complete && s.CompletionTime != nil && was.CompletionTime == nil:
		errs = append(errs, field.Invalid(end, s.CompletionTime, "cannot set completionTime when there is no Complete=True condition"))
	case was.CompletionTime != nil && !equality.Semantic.DeepEqual(s.CompletionTime, was.CompletionTime):
		errs = append(errs, field.Invalid(end, s.CompletionTime, "completionTime cannot be mutated"))
	}
	if s.StartTime != nil && s.CompletionTime != nil && s.CompletionTime.Before(s.StartTime) {
		errs = append(errs, field.Invalid(end, s.CompletionTime, "completionTime cannot be set before startTime"))
	}
	if was.StartTime != nil && !ptr.Deref(j.Spec.Suspend, false) && !hasCondition(was, batchv1.JobSuspended) {
		switch {
		case s.StartTime == nil:
			errs = append(errs, field.Required(start, "startTime cannot be removed for unsuspended job"))
		case !s.StartTime.Equal(was.StartTime):
			errs = append(errs, field.Invalid(start, s.StartTime, "startTime cannot be modified for unsuspended job"))
		}
	}
	return errs
}

// checkJobProgress wants that ends are final and counts never go down, but for those of an Indexed Job that was made smaller.
func checkJobProgress(j, old *batchv1.Job, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, t := range []batchv1.JobConditionType{batchv1.JobFailed, batchv1.JobComplete, batchv1.JobFailureTarget, batchv1.JobSuccessCriteriaMet} {
		if hasCondition(&old.Status, t) && !hasCondition(&j.Status, t) {
			errs = append(errs, field.Invalid(path.Child("conditions"), field.OmitValueType{}, fmt.Sprintf("cannot disable the terminal %s=True condition", t)))
		}
	}
	if j.Status.Failed < old.Status.Failed {
		errs = append(errs, field.Invalid(path.Child("failed"), j.Status.Failed, "cannot decrease the failed counter"))
	}
	indexed := ptr.Deref(j.Spec.CompletionMode, "") == batchv1.IndexedCompletion
	if j.Status.Succeeded < old.Status.Succeeded && !indexed {
		errs = append(errs, field.Invalid(path.Child("succeeded"), j.Status.Succeeded, "cannot decrease the succeeded counter"))
	}
	return errs
}

// interval is a run of indexes, both ends included.
type interval struct{ first, last int32 }

// parseIndexes reads a set of indexes below completions: "1,3-5,7".
func parseIndexes(text string, completions int32) ([]interval, error) {
	if text == "" {
		return nil, nil
	}
	var set []interval
	for part := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(part, "-")
		first, err := parseIndex(low, completions)
		if err != nil {
			return nil, err
		}
		last := first
		if isRange {
			if last, err = parseIndex(high, completions); err != nil {
				return nil, err
			}
			if last <= first {
				return nil, fmt.Errorf("non-increasing order, previous: %d, current: %d", first, last)
			}
		}
		if len(set) > 0 && first <= set[len(set)-1].last {
			return nil, fmt.Errorf("non-increasing order, previous: %d, current: %d", set[len(set)-1].last, first)
		}
		set = append(set, interval{first, last})
	}
	return set, nil
}

func parseIndex(text string, completions int32) (int32, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("cannot convert string to integer for index: %q", text)
	}
	if n >= int64(completions) {
		return 0, fmt.Errorf("too large index: %q", text)
	}
	return int32(n), nil
}

// countIndexes is the size of a set of indexes.
func countIndexes(text string, completions int32) (int32, error) {
	set, err := parseIndexes(text, completions)
	var n int32
	for _, i := range set {
		n += i.last - i.first + 1
	}
	return n, err
}

// overlap reports whether two ordered sets share an index.
func overlap(a, b []interval) bool {
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0].last < b[0].first:
			a = a[1:]
		case b[0].last < a[0].first:
			b = b[1:]
		default:
			return true
		}
	}
	return false
}
