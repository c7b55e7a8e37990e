package resource

import (
	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	resourcev1 "k8s.io/api/resource/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ResourceClaimTemplate is what the ResourceClaims of single pods are made from.
func resourceClaimTemplate(c checker) *kind.Definition {
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "ResourceClaimTemplate", Plural: "resourceclaimtemplates",
		Scope: kind.Namespaced, Verbs: kind.Standard,
		New:           kind.Of[resourcev1.ResourceClaimTemplate](),
		Default:       kind.Default(func(t *resourcev1.ResourceClaimTemplate) { defaultClaim(&t.Spec.Spec) }),
		PrepareCreate: kind.Prepare(func(t *resourcev1.ResourceClaimTemplate) { dropDerived(&t.Spec.Spec, nil) }),
		PrepareUpdate: kind.PrepareUpdate(func(t, old *resourcev1.ResourceClaimTemplate) { dropDerived(&t.Spec.Spec, &old.Spec.Spec) }),
		Validate: kind.Validate(func(t *resourcev1.ResourceClaimTemplate) field.ErrorList {
			spec := field.NewPath("spec")
			errs := check.Labels(t.Spec.Labels, spec.Child("metadata", "labels"))
			errs = append(errs, apivalidation.ValidateAnnotations(t.Spec.Annotations, spec.Child("metadata", "annotations"))...)
			return append(errs, c.claim(&t.Spec.Spec.Devices, spec.Child("spec", "devices"))...)
		}),
		ValidateUpdate: kind.ValidateUpdate(func(t, old *resourcev1.ResourceClaimTemplate) field.ErrorList {
			if object.Equal(&t.Spec, &old.Spec) {
				return nil
			}
			return field.ErrorList{field.Invalid(field.NewPath("spec"), check.GoNames(t.Spec), check.TextImmutable)}
		}),
		ReturnsDeleted: true,
		Columns:        kind.Columns{kind.Age},
		ColumnFields:   []string{},
	}
}
