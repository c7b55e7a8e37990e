package lifecycle

import (
	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	lifecyclev1alpha1 "k8s.io/api/lifecycle/v1alpha1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// EvictionRequest says that somebody wants a pod to be evicted, or no longer.
func evictionRequest() *kind.Definition {
	doc := lifecyclev1alpha1.EvictionRequestSpec{}.SwaggerDoc()
	return &kind.Definition{
		Group: group, Version: "v1alpha1", Kind: "EvictionRequest", Plural: "evictionrequests", Gate: gate,
		Scope: kind.Namespaced, Verbs: kind.Standard, MustMatch: true,
		New:           kind.Of[lifecyclev1alpha1.EvictionRequest](),
		PrepareCreate: kind.Prepare(func(r *lifecyclev1alpha1.EvictionRequest) { r.Status = lifecyclev1alpha1.EvictionRequestStatus{} }),
		PrepareUpdate: kind.PrepareUpdate(func(r, old *lifecyclev1alpha1.EvictionRequest) { r.Status = old.Status }),
		Generation:    kind.Changed(func(r, old *lifecyclev1alpha1.EvictionRequest) bool { return !check.Equal(r.Spec, old.Spec) }),
		Validate:      kind.Validate(validateRequest),
		ValidateUpdate: kind.ValidateUpdate(func(r, old *lifecyclev1alpha1.EvictionRequest) field.ErrorList {
			spec := field.NewPath("spec")
			return check.Join(
				validateRequest(r),
				check.Unchanged(r.Spec.Target, old.Spec.Target, spec.Child("target")),
				check.Unchanged(r.Spec.Requester, old.Spec.Requester, spec.Child("requester")),
			)
		}),
		Columns: kind.Columns{
			{Name: "Target", Description: doc["target"], Of: kind.Cell(func(r *lifecyclev1alpha1.EvictionRequest) any {
				if r.Spec.Target.Pod == nil {
					return show.None
				}
				return r.Spec.Target.Pod.Name
			})},
			{Name: "Target Type", Description: doc["target"], Of: kind.Cell(func(r *lifecyclev1alpha1.EvictionRequest) any { return targetType(r.Spec.Target.Pod != nil) })},
			{Name: "Status", Description: lifecyclev1alpha1.EvictionRequestStatus{}.SwaggerDoc()["conditions"], Of: kind.Cell(func(r *lifecyclev1alpha1.EvictionRequest) any {
				return state(r.Status.Conditions)
			})},
			{Name: "Requester", Description: doc["requester"], Of: kind.Cell(func(r *lifecyclev1alpha1.EvictionRequest) any { return r.Spec.Requester })},
			{Name: "Intent", Description: doc["intent"], Of: kind.Cell(func(r *lifecyclev1alpha1.EvictionRequest) any { return string(r.Spec.Intent) })},
			kind.Age,
		},
		ColumnFields: []string{"spec.target.pod.name", "spec.requester", "spec.intent", "status.conditions.type", "status.conditions.status"},
		Subresources: map[string]*kind.Subresource{
			"status": kind.StatusOnly(func(r, old *lifecyclev1alpha1.EvictionRequest) { r.Spec = old.Spec }, func(r, old *lifecyclev1alpha1.EvictionRequest) field.ErrorList {
				status := field.NewPath("status")
				return append(checkConditions(r.Status.Conditions, status.Child("conditions")),
					checkObserved(r.Status.ObservedGeneration, old.Status.ObservedGeneration, status.Child("observedGeneration"))...)
			}),
		},
	}
}

func targetType(pod bool) string {
	if pod {
		return "Pod"
	}
	return show.None
}

func validateRequest(r *lifecyclev1alpha1.EvictionRequest) field.ErrorList {
	s, spec := &r.Spec, field.NewPath("spec")
	var pod lifecyclev1alpha1.EvictionRequestPodReference
	if s.Target.Pod != nil {
		pod = *s.Target.Pod
	}
	return check.Join(
		checkTarget(s.Target.Pod != nil, pod.Name, pod.UID, spec.Child("target")),
		checkParticipant(s.Requester, spec.Child("requester")),
		checkReserved(s.Requester, spec.Child("requester")),
		check.RequiredOneOf(s.Intent, spec.Child("intent"), lifecyclev1alpha1.EvictionRequestIntentEviction, lifecyclev1alpha1.EvictionRequestIntentWithdrawn),
	)
}
