package apps

import (
	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/podspec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// ReplicaSet keeps a number of equal pods running.
func replicaSet(rules podspec.Rules) *kind.Definition {
	spec, status := appsv1.ReplicaSetSpec{}.SwaggerDoc(), appsv1.ReplicaSetStatus{}.SwaggerDoc()
	pods := podspec.Template[*appsv1.ReplicaSet](func(r *appsv1.ReplicaSet) *corev1.PodTemplateSpec { return &r.Spec.Template })
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "ReplicaSet", Plural: "replicasets", ShortNames: []string{"rs"}, Categories: []string{"all"},
		Scope: kind.Namespaced, Verbs: kind.Standard,
		New: kind.Of[appsv1.ReplicaSet](),
		Default: kind.Default(func(r *appsv1.ReplicaSet) {
			if r.Spec.Replicas == nil {
				r.Spec.Replicas = ptr.To[int32](1)
			}
			podspec.DefaultTemplate(&r.Spec.Template)
		}),
		PrepareCreate: kind.Prepare(func(r *appsv1.ReplicaSet) {
			r.Status = appsv1.ReplicaSetStatus{}
			pods.New(r, rules)
		}),
		PrepareUpdate: kind.PrepareUpdate(func(r, old *appsv1.ReplicaSet) {
			r.Status = old.Status
			pods.Update(r, old, rules)
		}),
		Generation:     kind.Changed(func(r, old *appsv1.ReplicaSet) bool { return !object.Equal(&r.Spec, &old.Spec) }),
		Validate:       kind.Validate(func(r *appsv1.ReplicaSet) field.ErrorList { return validateReplicaSet(r, nil, rules) }),
		ValidateUpdate: kind.ValidateUpdate(func(r, old *appsv1.ReplicaSet) field.ErrorList { return validateReplicaSet(r, old, rules) }),
		Warnings:       pods.NamedWarnings(template),
		Columns: append(kind.Columns{
			{Name: "Desired", Type: "integer", Description: spec["replicas"], Of: kind.Cell(func(r *appsv1.ReplicaSet) any { return int64(ptr.Deref(r.Spec.Replicas, 0)) })},
			{Name: "Current", Type: "integer", Description: status["replicas"], Of: kind.Cell(func(r *appsv1.ReplicaSet) any { return int64(r.Status.Replicas) })},
			{Name: "Ready", Type: "integer", Description: status["readyReplicas"], Of: kind.Cell(func(r *appsv1.ReplicaSet) any { return int64(r.Status.ReadyReplicas) })},
			kind.Age,
		}, append(pods.Columns(),
			kind.Column{Name: "Selector", Wide: true, Description: spec["selector"], Of: kind.Cell(func(r *appsv1.ReplicaSet) any {
				return metav1.FormatLabelSelector(r.Spec.Selector)
			})})...),
		ColumnFields: []string{
			"spec.replicas", "spec.selector", "spec.template.spec.containers.name", "spec.template.spec.containers.image",
			"status.replicas", "status.readyReplicas",
		},
		Subresources: map[string]*kind.Subresource{
			"status": kind.Status(func(r, old *appsv1.ReplicaSet) { r.Spec = old.Spec }, validateReplicaSetStatus),
			"scale": scale(
				func(r *appsv1.ReplicaSet) (int32, int32, *metav1.LabelSelector) {
					return ptr.Deref(r.Spec.Replicas, 0), r.Status.Replicas, r.Spec.Selector
				},
				func(r *appsv1.ReplicaSet, n *int32) { r.Spec.Replicas = n },
			),
		},
	}
}

// validateReplicaSet checks a new ReplicaSet, or one that replaces old.
func validateReplicaSet(r, old *appsv1.ReplicaSet, rules podspec.Rules) field.ErrorList {
	var was appsv1.ReplicaSetSpec
	var before *corev1.PodTemplateSpec
	if old != nil {
		was, before = old.Spec, &old.Spec.Template
	}
	spec := field.NewPath("spec")
	errs := check.NonNegativePtr(r.Spec.Replicas, spec.Child("replicas"))
	errs = append(errs, check.NonNegative(r.Spec.MinReadySeconds, spec.Child("minReadySeconds"))...)
	errs = append(errs, checkSelector(r.Spec.Selector, was.Selector, "deployment", spec.Child("selector"))...)
	selector, wrong := selectorOf(r.Spec.Selector, spec.Child("selector"))
	if errs = append(errs, wrong...); wrong == nil {
		errs = append(errs, podspec.ValidateLongRunning(&r.Spec.Template, before, selector, "ReplicaSet", rules, template)...)
	}
	if old != nil {
		errs = append(errs, check.Immutable(r.Spec.Selector, was.Selector, spec.Child("selector"))...)
	}
	return errs
}

func validateReplicaSetStatus(r, _ *appsv1.ReplicaSet) field.ErrorList {
	s := r.Status
	replicas := count{"replicas", int64(s.Replicas)}
	labeled, ready, available := count{"fullyLabeledReplicas", int64(s.FullyLabeledReplicas)}, count{"readyReplicas", int64(s.ReadyReplicas)}, count{"availableReplicas", int64(s.AvailableReplicas)}
	errs := checkCounts(replicas, labeled, ready, available, count{"observedGeneration", s.ObservedGeneration})
	errs = append(errs, check.NonNegativePtr(s.TerminatingReplicas, field.NewPath("status", "terminatingReplicas"))...)
	errs = append(errs, atMost(s.Replicas, "status.replicas", labeled, ready, available)...)
	return append(errs, atMost(s.ReadyReplicas, "readyReplicas", available)...)
}
