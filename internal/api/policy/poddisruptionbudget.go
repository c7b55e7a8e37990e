// Package policy holds the kinds of the group policy: PodDisruptionBudget. (Eviction is a subresource of pods.)
package policy

import (
	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Definitions lists the kinds of the group.
func Definitions() []*kind.Definition {
	return []*kind.Definition{podDisruptionBudget()}
}

// PodDisruptionBudget says how many of a set of pods may be missing when they are evicted.
func podDisruptionBudget() *kind.Definition {
	return &kind.Definition{
		Group: policyv1.GroupName, Version: "v1", Kind: "PodDisruptionBudget", Plural: "poddisruptionbudgets", ShortNames: []string{"pdb"},
		Scope: kind.Namespaced, Verbs: kind.Standard, MustMatch: true,
		New:            kind.Of[policyv1.PodDisruptionBudget](),
		PrepareCreate:  kind.Prepare(func(b *policyv1.PodDisruptionBudget) { b.Status = policyv1.PodDisruptionBudgetStatus{} }),
		PrepareUpdate:  kind.PrepareUpdate(func(b, old *policyv1.PodDisruptionBudget) { b.Status = old.Status }),
		Generation:     kind.Changed(func(b, old *policyv1.PodDisruptionBudget) bool { return !object.Equal(&b.Spec, &old.Spec) }),
		Validate:       kind.Validate(func(b *policyv1.PodDisruptionBudget) field.ErrorList { return validate(b, nil) }),
		ValidateUpdate: kind.ValidateUpdate(validate),
		Columns: kind.Columns{
			{Name: "Min Available", Description: "The minimum number of pods that must be available.", Of: kind.Cell(func(b *policyv1.PodDisruptionBudget) any {
				return bound(b.Spec.MinAvailable)
			})},
			{Name: "Max Unavailable", Description: "The maximum number of pods that may be unavailable.", Of: kind.Cell(func(b *policyv1.PodDisruptionBudget) any {
				return bound(b.Spec.MaxUnavailable)
			})},
			{Name: "Allowed Disruptions", Type: "integer", Description: "Calculated number of pods that may be disrupted at this time.", Of: kind.Cell(func(b *policyv1.PodDisruptionBudget) any {
				return int64(b.Status.DisruptionsAllowed)
			})},
			kind.Age,
		},
		ColumnFields: []string{"spec.minAvailable", "spec.maxUnavailable", "status.disruptionsAllowed"},
		Subresources: map[string]*kind.Subresource{
			"status": kind.Status(func(b, old *policyv1.PodDisruptionBudget) { b.Spec = old.Spec }, validateStatus),
		},
	}
}

func bound(v *intstr.IntOrString) string {
	if v == nil {
		return "N/A"
	}
	return v.String()
}

// validate checks a budget; old is the one that it replaces, if any.
func validate(b, old *policyv1.PodDisruptionBudget) field.ErrorList {
	s, spec := &b.Spec, field.NewPath("spec")
	var errs field.ErrorList
	if s.MinAvailable != nil && s.MaxUnavailable != nil {
		errs = append(errs, field.Invalid(spec, check.GoNames(*s), "minAvailable and maxUnavailable cannot be both set"))
	}
	errs = append(errs, check.Share(s.MinAvailable, spec.Child("minAvailable"))...)
	errs = append(errs, check.ShareAtMostAll(s.MinAvailable, spec.Child("minAvailable"))...)
	errs = append(errs, check.Share(s.MaxUnavailable, spec.Child("maxUnavailable"))...)
	errs = append(errs, check.ShareAtMostAll(s.MaxUnavailable, spec.Child("maxUnavailable"))...)
	var before *metav1.LabelSelector
	if old != nil {
		before = old.Spec.Selector
	}
	errs = append(errs, check.Selector(s.Selector, before, spec.Child("selector"))...)
	if s.UnhealthyPodEvictionPolicy != nil {
		errs = append(errs, check.OneOf(*s.UnhealthyPodEvictionPolicy, spec.Child("unhealthyPodEvictionPolicy"), policyv1.AlwaysAllow, policyv1.IfHealthyBudget)...)
	}
	return errs
}

func validateStatus(b, _ *policyv1.PodDisruptionBudget) field.ErrorList {
	s, status := &b.Status, field.NewPath("status")
	errs := metavalidation.ValidateConditions(s.Conditions, status.Child("conditions"))
	errs = append(errs, check.NonNegative(s.DisruptionsAllowed, status.Child("disruptionsAllowed"))...)
	errs = append(errs, check.NonNegative(s.CurrentHealthy, status.Child("currentHealthy"))...)
	errs = append(errs, check.NonNegative(s.DesiredHealthy, status.Child("desiredHealthy"))...)
	return append(errs, check.NonNegative(s.ExpectedPods, status.Child("expectedPods"))...)
}
