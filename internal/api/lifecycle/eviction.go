package lifecycle

import (
	"slices"
	"time"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	lifecyclev1alpha1 "k8s.io/api/lifecycle/v1alpha1"
	"k8s.io/apimachinery/pkg/api/validate"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// Bounds of an eviction's status (tags of the Go types).
const (
	maxResponders = 11
	maxPriority   = 100000
	maxMessage    = 4000 // characters
)

// Eviction is how far the eviction of a pod is, and whose turn it is to bring it about. It is no relation of policy/v1 Eviction, which
// is posted to a pod.
func eviction() *kind.Definition {
	doc := lifecyclev1alpha1.EvictionStatus{}.SwaggerDoc()
	responder := lifecyclev1alpha1.ResponderStatus{}.SwaggerDoc()
	return &kind.Definition{
		Group: group, Version: "v1alpha1", Kind: "Eviction", Plural: "evictions", Gate: gate,
		Scope: kind.Namespaced, Verbs: kind.Standard, MustMatch: true,
		New:           kind.Of[lifecyclev1alpha1.Eviction](),
		PrepareCreate: kind.Prepare(func(e *lifecyclev1alpha1.Eviction) { e.Status = lifecyclev1alpha1.EvictionStatus{} }),
		PrepareUpdate: kind.PrepareUpdate(func(e, old *lifecyclev1alpha1.Eviction) { e.Status = old.Status }),
		Generation:    kind.Changed(func(e, old *lifecyclev1alpha1.Eviction) bool { return !check.Equal(e.Spec, old.Spec) }),
		Validate:      kind.Validate(validateEviction),
		ValidateUpdate: kind.ValidateUpdate(func(e, old *lifecyclev1alpha1.Eviction) field.ErrorList {
			return append(validateEviction(e), check.Unchanged(e.Spec.Target, old.Spec.Target, field.NewPath("spec", "target"))...)
		}),
		Columns: kind.Columns{
			{Name: "Target", Description: lifecyclev1alpha1.EvictionSpec{}.SwaggerDoc()["target"], Of: kind.Cell(func(e *lifecyclev1alpha1.Eviction) any {
				if e.Spec.Target.Pod == nil {
					return show.None
				}
				return e.Spec.Target.Pod.Name
			})},
			{Name: "Target Type", Description: lifecyclev1alpha1.EvictionSpec{}.SwaggerDoc()["target"], Of: kind.Cell(func(e *lifecyclev1alpha1.Eviction) any { return targetType(e.Spec.Target.Pod != nil) })},
			{Name: "Status", Description: doc["conditions"], Of: kind.Cell(func(e *lifecyclev1alpha1.Eviction) any { return state(e.Status.Conditions) })},
			{Name: "Active Responder", Description: doc["targetResponders"], Of: kind.Cell(func(e *lifecyclev1alpha1.Eviction) any { return show.Or(active(e), show.None) })},
			{Name: "Responder Status", Description: doc["responders"], Of: kind.Cell(func(e *lifecyclev1alpha1.Eviction) any { return progress(activeStatus(e)) })},
			{Name: "Responder Expected Finish", Description: responder["expectedCompletionTime"], Of: kind.Cell(func(e *lifecyclev1alpha1.Eviction) any {
				return until(activeStatus(e).ExpectedCompletionTime)
			})},
			{Name: "Requesters", Description: doc["requesters"], Of: kind.Cell(func(e *lifecyclev1alpha1.Eviction) any { return requesters(e) })},
			kind.Age,
			{Name: "Responder Heartbeat", Description: responder["heartbeatTime"], Wide: true, Of: kind.Cell(func(e *lifecyclev1alpha1.Eviction) any {
				return since(activeStatus(e).HeartbeatTime)
			})},
			{Name: "Responder Status Message", Description: responder["message"], Wide: true, Of: kind.Cell(func(e *lifecyclev1alpha1.Eviction) any {
				return ptr.Deref(activeStatus(e).Message, show.None)
			})},
		},
		ColumnFields: []string{
			"spec.target.pod.name",
			"status.conditions.type", "status.conditions.status", "status.requesters", "status.responders", "status.targetResponders.name",
			"status.targetResponders.state",
		},
		Subresources: map[string]*kind.Subresource{
			"status": kind.StatusOnly(func(e, old *lifecyclev1alpha1.Eviction) { e.Spec = old.Spec }, validateEvictionStatus),
		},
	}
}

// active is the responder whose turn it is, or "".
func active(e *lifecyclev1alpha1.Eviction) string {
	for _, r := range e.Status.TargetResponders {
		if r.State == lifecyclev1alpha1.ResponderStateActive {
			return r.Name
		}
	}
	return ""
}

// activeStatus is what the active responder says of itself; nothing if there is none.
func activeStatus(e *lifecyclev1alpha1.Eviction) lifecyclev1alpha1.ResponderStatus {
	name := active(e)
	for _, r := range e.Status.Responders {
		if name != "" && r.Name == name {
			return r
		}
	}
	return lifecyclev1alpha1.ResponderStatus{}
}

func progress(r lifecyclev1alpha1.ResponderStatus) string {
	switch {
	case r.Name == "":
		return show.None
	case r.CompletionTime != nil:
		return "Completed"
	case r.HeartbeatTime != nil:
		return "InProgress"
	}
	return "Pending"
}

// since is the cell of a moment in the past, until that of one to come.
func since(t *metav1.Time) any {
	if t == nil {
		return show.None
	}
	return kind.Since(t.Time)
}

func until(t *metav1.Time) any {
	if t == nil {
		return show.None
	}
	return kind.DatedFunc(func(now time.Time) any { return duration.HumanDuration(max(0, t.Sub(now))) })
}

// requesters shows those who still want the eviction.
func requesters(e *lifecyclev1alpha1.Eviction) string {
	const shown = 3
	var names []string
	for _, r := range e.Status.Requesters {
		if r.Intent == lifecyclev1alpha1.RequesterIntentEviction {
			names = append(names, r.Name)
		}
	}
	return show.Some(names, shown, show.None)
}

func validateEviction(e *lifecyclev1alpha1.Eviction) field.ErrorList {
	var pod lifecyclev1alpha1.EvictionPodReference
	if e.Spec.Target.Pod != nil {
		pod = *e.Spec.Target.Pod
	}
	return checkTarget(e.Spec.Target.Pod != nil, pod.Name, pod.UID, field.NewPath("spec", "target"))
}

func validateEvictionStatus(e, old *lifecyclev1alpha1.Eviction) field.ErrorList {
	s, was, status := &e.Status, &old.Status, field.NewPath("status")
	return check.Join(
		checkConditions(s.Conditions, status.Child("conditions")),
		checkObserved(s.ObservedGeneration, was.ObservedGeneration, status.Child("observedGeneration")),
		checkRequesters(s.Requesters, status.Child("requesters")),
		checkTargetResponders(s.TargetResponders, was.TargetResponders, status.Child("targetResponders")),
		checkResponders(s, was, status.Child("responders")),
	)
}

func checkRequesters(all []lifecyclev1alpha1.Requester, path *field.Path) field.ErrorList {
	errs := check.Keyed(all, maxRequesters, func(r *lifecyclev1alpha1.Requester) string { return r.Name }, path)
	for i, r := range all {
		at := path.Index(i)
		errs = append(errs, checkParticipant(r.Name, at.Child("name"))...)
		errs = append(errs, check.RequiredOneOf(r.Intent, at.Child("intent"), lifecyclev1alpha1.RequesterIntentEviction, lifecyclev1alpha1.RequesterIntentWithdrawn)...)
	}
	return errs
}

// responderStates are those of a responder, in the order in which answers list them.
var responderStates = []lifecyclev1alpha1.ResponderStateType{
	lifecyclev1alpha1.ResponderStateActive, lifecyclev1alpha1.ResponderStateCanceled, lifecyclev1alpha1.ResponderStateCompleted,
	lifecyclev1alpha1.ResponderStateInactive, lifecyclev1alpha1.ResponderStateInterrupted,
}

func checkTargetResponders(all, old []lifecyclev1alpha1.TargetResponder, path *field.Path) field.ErrorList {
	key := func(r *lifecyclev1alpha1.TargetResponder) string { return r.Name }
	errs := check.Keyed(all, maxResponders, key, path)
	if len(old) > 0 {
		errs = append(errs, check.FixedKeys(all, old, key, path)...)
	}
	turns := 0
	for i, r := range all {
		at := path.Index(i)
		errs = append(errs, checkParticipant(r.Name, at.Child("name"))...)
		errs = append(errs, check.RequiredPtr(r.Priority, at.Child("priority"))...)
		errs = append(errs, check.AtLeast(r.Priority, 0, at.Child("priority"))...)
		errs = append(errs, check.AtMost(r.Priority, maxPriority, at.Child("priority"))...)
		errs = append(errs, check.RequiredOneOf(r.State, at.Child("state"), responderStates...)...)
		if r.State == lifecyclev1alpha1.ResponderStateActive {
			if turns++; turns > 1 {
				errs = append(errs, field.Invalid(at.Child("state"), r.State, "only one responder may be active"))
			}
		}
		if k := slices.IndexFunc(old, func(o lifecyclev1alpha1.TargetResponder) bool { return o.Name == r.Name }); k >= 0 {
			errs = append(errs, checkOnce(r.Priority, old[k].Priority, at.Child("priority"))...)
		}
	}
	return errs
}

// checkResponders wants one entry for each target responder, and changes only to that of the active one.
func checkResponders(s, was *lifecyclev1alpha1.EvictionStatus, path *field.Path) field.ErrorList {
	key := func(r *lifecyclev1alpha1.ResponderStatus) string { return r.Name }
	errs := check.Keyed(s.Responders, maxResponders, key, path)
	if len(was.Responders) > 0 {
		errs = append(errs, check.FixedKeys(s.Responders, was.Responders, key, path)...)
	} else if len(s.Responders) > 0 && len(s.Responders) != len(s.TargetResponders) {
		errs = append(errs, field.Invalid(path, len(s.Responders), "must have the same length as status.targetResponders"))
	}
	for i := range s.Responders {
		r, at := &s.Responders[i], path.Index(i)
		errs = append(errs, checkParticipant(r.Name, at.Child("name"))...)
		if r.Message != nil {
			errs = append(errs, check.Spelled(*r.Message, at.Child("message"), maxLength(maxMessage))...)
		}
		t := slices.IndexFunc(s.TargetResponders, func(t lifecyclev1alpha1.TargetResponder) bool { return t.Name == r.Name })
		if t < 0 {
			errs = append(errs, field.Invalid(at.Child("name"), r.Name, "must be the name of one of status.targetResponders"))
			continue
		}
		k := slices.IndexFunc(was.Responders, func(o lifecyclev1alpha1.ResponderStatus) bool { return o.Name == r.Name })
		if k < 0 || check.Equal(r, &was.Responders[k]) {
			continue
		}
		if s.TargetResponders[t].State != lifecyclev1alpha1.ResponderStateActive && !wasActive(was, r.Name) {
			errs = append(errs, field.Forbidden(at, "only the active responder may be changed"))
		}
		errs = append(errs, checkOnce(r.StartTime, was.Responders[k].StartTime, at.Child("startTime"))...)
		errs = append(errs, checkOnce(r.CompletionTime, was.Responders[k].CompletionTime, at.Child("completionTime"))...)
	}
	return errs
}

func wasActive(was *lifecyclev1alpha1.EvictionStatus, name string) bool {
	return slices.ContainsFunc(was.TargetResponders, func(t lifecyclev1alpha1.TargetResponder) bool {
		return t.Name == name && t.State == lifecyclev1alpha1.ResponderStateActive
	})
}

// maxLength is the form of texts of at most so many characters.
func maxLength(most int) check.Spelling[string] {
	return check.Bounded[string](validate.MaxLength, most)
}
