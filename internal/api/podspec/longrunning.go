package podspec

import (
	"github.com/timonel/timonel/internal/api/check"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidateLongRunning checks the template of a kind that keeps its pods running (owner, e.g. "ReplicaSet"): its labels match
// the selector, its pods always restart. old is the template that it replaces, if any.
func ValidateLongRunning(t, old *corev1.PodTemplateSpec, selector labels.Selector, owner string, rules Rules, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if selector != nil && !selector.Empty() && !selector.Matches(labels.Set(t.Labels)) {
		errs = append(errs, field.Invalid(path.Child("metadata", "labels"), t.Labels, "`selector` does not match template `labels`"))
	}
	errs = append(errs, ValidateTemplateUpdate(t, old, rules, path)...)
	errs = append(errs, check.OneOf(t.Spec.RestartPolicy, path.Child("spec", "restartPolicy"), corev1.RestartPolicyAlways)...)
	if t.Spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(path.Child("spec", "activeDeadlineSeconds"), "activeDeadlineSeconds in "+owner+" is not Supported"))
	}
	return errs
}
