package apps

import (
	"fmt"
	"maps"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/podspec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

const (
	defaultProgressSeconds = 600
	defaultRollingPercent  = "25%"
)

// Deployment rolls out changes of a pod template through ReplicaSets.
func deployment(rules podspec.Rules) *kind.Definition {
	spec, status := appsv1.DeploymentSpec{}.SwaggerDoc(), appsv1.DeploymentStatus{}.SwaggerDoc()
	pods := podspec.Template[*appsv1.Deployment](func(d *appsv1.Deployment) *corev1.PodTemplateSpec { return &d.Spec.Template })
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "Deployment", Plural: "deployments", ShortNames: []string{"deploy"}, Categories: []string{"all"},
		Scope: kind.Namespaced, Verbs: kind.Standard,
		New:     kind.Of[appsv1.Deployment](),
		Default: kind.Default(defaultDeployment),
		PrepareCreate: kind.Prepare(func(d *appsv1.Deployment) {
			d.Status = appsv1.DeploymentStatus{}
			pods.New(d, rules)
		}),
		PrepareUpdate: kind.PrepareUpdate(func(d, old *appsv1.Deployment) {
			d.Status = old.Status
			pods.Update(d, old, rules)
		}),
		// Annotations are copied to ReplicaSets, so they are part of what is wanted.
		Generation: kind.Changed(func(d, old *appsv1.Deployment) bool {
			return !object.Equal(&d.Spec, &old.Spec) || !maps.Equal(d.Annotations, old.Annotations)
		}),
		Validate:       kind.Validate(func(d *appsv1.Deployment) field.ErrorList { return validateDeployment(d, nil, rules) }),
		ValidateUpdate: kind.ValidateUpdate(func(d, old *appsv1.Deployment) field.ErrorList { return validateDeployment(d, old, rules) }),
		Warnings:       pods.NamedWarnings(template),
		Columns: append(kind.Columns{
			{Name: "Ready", Description: "Number of the pod with ready state", Of: kind.Cell(func(d *appsv1.Deployment) any {
				return fmt.Sprintf("%d/%d", d.Status.ReadyReplicas, ptr.Deref(d.Spec.Replicas, 0))
			})},
			{Name: "Up-to-date", Description: status["updatedReplicas"], Of: kind.Cell(func(d *appsv1.Deployment) any { return int64(d.Status.UpdatedReplicas) })},
			{Name: "Available", Description: status["availableReplicas"], Of: kind.Cell(func(d *appsv1.Deployment) any { return int64(d.Status.AvailableReplicas) })},
			kind.Age,
		}, append(pods.Columns(),
			kind.Column{Name: "Selector", Wide: true, Description: spec["selector"], Of: kind.Cell(func(d *appsv1.Deployment) any {
				selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
				if err != nil {
					return "<invalid>"
				}
				return selector.String()
			})})...),
		ColumnFields: []string{
			"spec.replicas", "spec.selector", "spec.template.spec.containers.name", "spec.template.spec.containers.image",
			"status.readyReplicas", "status.updatedReplicas", "status.availableReplicas",
		},
		Subresources: map[string]*kind.Subresource{
			"status": kind.Status(func(d, old *appsv1.Deployment) { d.Spec, d.Labels = old.Spec, old.Labels }, validateDeploymentStatus).Resetting("metadata.labels"),
			"scale": scale(
				func(d *appsv1.Deployment) (int32, int32, *metav1.LabelSelector) {
					return ptr.Deref(d.Spec.Replicas, 0), d.Status.Replicas, d.Spec.Selector
				},
				func(d *appsv1.Deployment, n *int32) { d.Spec.Replicas = n },
			),
		},
	}
}

func defaultDeployment(d *appsv1.Deployment) {
	s := &d.Spec
	if s.Replicas == nil {
		s.Replicas = ptr.To[int32](1)
	}
	if s.Strategy.Type == "" {
		s.Strategy.Type = appsv1.RollingUpdateDeploymentStrategyType
	}
	if s.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		if s.Strategy.RollingUpdate == nil {
			s.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{}
		}
		r := s.Strategy.RollingUpdate
		if r.MaxUnavailable == nil {
			r.MaxUnavailable = ptr.To(intstr.FromString(defaultRollingPercent))
		}
		if r.MaxSurge == nil {
			r.MaxSurge = ptr.To(intstr.FromString(defaultRollingPercent))
		}
	}
	if s.RevisionHistoryLimit == nil {
		s.RevisionHistoryLimit = ptr.To[int32](defaultRevisionHistory)
	}
	if s.ProgressDeadlineSeconds == nil {
		s.ProgressDeadlineSeconds = ptr.To[int32](defaultProgressSeconds)
	}
	podspec.DefaultTemplate(&s.Template)
}

// validateDeployment checks a new Deployment, or one that replaces old.
func validateDeployment(d, old *appsv1.Deployment, rules podspec.Rules) field.ErrorList {
	var was appsv1.DeploymentSpec
	var before *corev1.PodTemplateSpec
	if old != nil {
		was, before = old.Spec, &old.Spec.Template
	}
	spec := field.NewPath("spec")
	errs := check.NonNegativePtr(d.Spec.Replicas, spec.Child("replicas"))
	errs = append(errs, checkSelector(d.Spec.Selector, was.Selector, "deployment", spec.Child("selector"))...)
	selector, wrong := selectorOf(d.Spec.Selector, spec.Child("selector"))
	if errs = append(errs, wrong...); wrong == nil {
		errs = append(errs, podspec.ValidateLongRunning(&d.Spec.Template, before, selector, "ReplicaSet", rules, template)...)
	}
	errs = append(errs, checkDeploymentStrategy(&d.Spec.Strategy, spec.Child("strategy"))...)
	errs = append(errs, check.NonNegative(d.Spec.MinReadySeconds, spec.Child("minReadySeconds"))...)
	errs = append(errs, check.NonNegativePtr(d.Spec.RevisionHistoryLimit, spec.Child("revisionHistoryLimit"))...)
	if p := d.Spec.ProgressDeadlineSeconds; p != nil {
		errs = append(errs, check.NonNegative(*p, spec.Child("progressDeadlineSeconds"))...)
		if *p <= d.Spec.MinReadySeconds {
			errs = append(errs, field.Invalid(spec.Child("progressDeadlineSeconds"), *p, "must be greater than minReadySeconds"))
		}
	}
	if old != nil {
		errs = append(errs, check.Immutable(d.Spec.Selector, was.Selector, spec.Child("selector"))...)
	}
	return errs
}

func checkDeploymentStrategy(s *appsv1.DeploymentStrategy, path *field.Path) field.ErrorList {
	rolling := path.Child("rollingUpdate")
	switch s.Type {
	case appsv1.RecreateDeploymentStrategyType:
		if s.RollingUpdate != nil {
			return field.ErrorList{field.Forbidden(rolling, "may not be specified when strategy `type` is 'Recreate'")}
		}
	case appsv1.RollingUpdateDeploymentStrategyType:
		if s.RollingUpdate == nil {
			return field.ErrorList{field.Required(rolling, "this should be defaulted and never be nil")}
		}
		r := s.RollingUpdate
		unavailable, surge := rolling.Child("maxUnavailable"), rolling.Child("maxSurge")
		errs := check.Share(r.MaxUnavailable, unavailable)
		errs = append(errs, check.Share(r.MaxSurge, surge)...)
		if check.ZeroShare(r.MaxUnavailable) && check.ZeroShare(r.MaxSurge) {
			errs = append(errs, field.Invalid(unavailable, r.MaxUnavailable, "may not be 0 when `maxSurge` is 0"))
		}
		return append(errs, check.ShareAtMostAll(r.MaxUnavailable, unavailable)...)
	default:
		return field.ErrorList{field.NotSupported(path, check.GoNames(*s), []appsv1.DeploymentStrategyType{appsv1.RecreateDeploymentStrategyType, appsv1.RollingUpdateDeploymentStrategyType})}
	}
	return nil
}

func validateDeploymentStatus(d, old *appsv1.Deployment) field.ErrorList {
	s := d.Status
	updated, ready, available := count{"updatedReplicas", int64(s.UpdatedReplicas)}, count{"readyReplicas", int64(s.ReadyReplicas)}, count{"availableReplicas", int64(s.AvailableReplicas)}
	errs := checkCounts(count{"observedGeneration", s.ObservedGeneration}, count{"replicas", int64(s.Replicas)}, updated, ready, available, count{"unavailableReplicas", int64(s.UnavailableReplicas)})
	errs = append(errs, check.NonNegativePtr(s.TerminatingReplicas, field.NewPath("status", "terminatingReplicas"))...)
	errs = append(errs, checkCollisions(s.CollisionCount, old.Status.CollisionCount)...)
	errs = append(errs, atMost(s.Replicas, "status.replicas", updated, ready, available)...)
	return append(errs, atMost(s.ReadyReplicas, "readyReplicas", available)...)
}
