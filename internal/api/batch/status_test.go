package batch

import (
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

var begin = metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))

func after(d time.Duration) *metav1.Time { return ptr.To(metav1.NewTime(begin.Add(d))) }

func conditions(types ...batchv1.JobConditionType) []batchv1.JobCondition {
	var list []batchv1.JobCondition
	for _, t := range types {
		list = append(list, batchv1.JobCondition{Type: t, Status: corev1.ConditionTrue})
	}
	return list
}

func TestJobStatus(t *testing.T) {
	plain := batchv1.JobSpec{Completions: ptr.To[int32](4), CompletionMode: ptr.To(batchv1.NonIndexedCompletion)}
	indexed := batchv1.JobSpec{Completions: ptr.To[int32](4), CompletionMode: ptr.To(batchv1.IndexedCompletion), BackoffLimitPerIndex: ptr.To[int32](1)}
	done := batchv1.JobStatus{StartTime: after(0), CompletionTime: after(time.Minute), Succeeded: 4, Conditions: conditions(batchv1.JobSuccessCriteriaMet, batchv1.JobComplete)}
	check := func(name string, spec batchv1.JobSpec, now, was batchv1.JobStatus, want ...string) {
		t.Helper()
		errs := validateJobStatusUpdate(&batchv1.Job{Spec: spec, Status: now}, &batchv1.Job{Spec: spec, Status: was})
		var got []string
		for _, e := range errs {
			got = append(got, e.Field+": "+e.Detail)
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s:\nwant %q\ngot  %q", name, want, got)
		}
	}
	check("runs", plain, batchv1.JobStatus{StartTime: after(0), Active: 2, Ready: ptr.To[int32](1)}, batchv1.JobStatus{})
	check("completes", plain, done, batchv1.JobStatus{StartTime: after(0), Succeeded: 3, Conditions: conditions(batchv1.JobSuccessCriteriaMet)})
	check("stays complete", plain, done, done)
	check("starts again", plain, batchv1.JobStatus{StartTime: after(0), Succeeded: 4}, done,
		"status.completionTime: completionTime cannot be mutated",
		"status.conditions: cannot disable the terminal Complete=True condition",
		"status.conditions: cannot disable the terminal SuccessCriteriaMet=True condition")
	check("both ends", plain, batchv1.JobStatus{StartTime: after(0), CompletionTime: after(-time.Second), Active: 1, Conditions: conditions(batchv1.JobComplete, batchv1.JobFailed)}, batchv1.JobStatus{},
		"status.conditions: cannot set Complete=True and Failed=True conditions",
		"status.conditions: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
		"status.conditions: cannot set Failed=True condition without the FailureTarget=true condition",
		"status.active: active>0 is invalid for finished job",
		"status.completionTime: completionTime cannot be set before startTime")
	check("no times", plain, batchv1.JobStatus{Conditions: conditions(batchv1.JobSuccessCriteriaMet, batchv1.JobComplete)}, batchv1.JobStatus{},
		"status.startTime: startTime is required for finished job", "status.completionTime: completionTime is required for Complete jobs")
	check("counts down", plain, batchv1.JobStatus{Failed: 1, Succeeded: 1}, batchv1.JobStatus{Failed: 2, Succeeded: 2},
		"status.failed: cannot decrease the failed counter", "status.succeeded: cannot decrease the succeeded counter")
	check("start moves", plain, batchv1.JobStatus{StartTime: after(time.Second)}, batchv1.JobStatus{StartTime: after(0)},
		"status.startTime: startTime cannot be modified for unsuspended job")
	check("indexes of a plain job", plain, batchv1.JobStatus{CompletedIndexes: "1", FailedIndexes: ptr.To("2")}, batchv1.JobStatus{},
		"status.completedIndexes: cannot set non-empty completedIndexes when non-indexed completion mode",
		"status.failedIndexes: cannot set non-empty failedIndexes when non-indexed completion mode")
	check("indexes", indexed, batchv1.JobStatus{CompletedIndexes: "0-1", FailedIndexes: ptr.To("3")}, batchv1.JobStatus{})
	check("indexes twice", indexed, batchv1.JobStatus{CompletedIndexes: "0-2", FailedIndexes: ptr.To("1,3")}, batchv1.JobStatus{},
		"status.failedIndexes: failedIndexes and completedIndexes overlap")
	check("index beyond", indexed, batchv1.JobStatus{CompletedIndexes: "4"}, batchv1.JobStatus{}, `status.completedIndexes: too large index: "4"`)
}

func TestJobCells(t *testing.T) {
	check := func(want string, j batchv1.Job) {
		t.Helper()
		if got := jobStatus(&j); got != want {
			t.Errorf("status is %s, want %s", got, want)
		}
	}
	check("Running", batchv1.Job{})
	check("Suspended", batchv1.Job{Status: batchv1.JobStatus{Conditions: conditions(batchv1.JobSuspended)}})
	check("Terminating", batchv1.Job{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: after(0)}, Status: batchv1.JobStatus{Conditions: conditions(batchv1.JobSuspended)}})
	check("Complete", batchv1.Job{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: after(0)}, Status: batchv1.JobStatus{Conditions: conditions(batchv1.JobComplete)}})
	check("FailureTarget", batchv1.Job{Status: batchv1.JobStatus{Conditions: conditions(batchv1.JobFailureTarget)}})
	j := &batchv1.Job{Status: batchv1.JobStatus{StartTime: after(0), CompletionTime: after(90 * time.Second)}}
	if got := jobDuration(j); got != "90s" {
		t.Errorf("duration is %v, want 90s", got)
	}
}

// FuzzIndexes: what parses is ordered, within bounds and as large as it is counted.
func FuzzIndexes(f *testing.F) {
	for _, seed := range []string{"", "1", "0-2,4", "4-2", "1,,2", "-", "0-", "99999999999"} {
		f.Add(seed, int32(8))
	}
	f.Fuzz(func(t *testing.T, text string, completions int32) {
		set, err := parseIndexes(text, completions)
		if err != nil {
			return
		}
		next, n := int32(0), int32(0)
		for _, i := range set {
			if i.first < next || i.last < i.first || i.last >= completions {
				t.Fatalf("%q of %d gives %v", text, completions, set)
			}
			next = i.last + 1
			n += i.last - i.first + 1
		}
		if counted, _ := countIndexes(text, completions); counted != n {
			t.Fatalf("%q has %d indexes, counted %d", text, n, counted)
		}
	})
}
