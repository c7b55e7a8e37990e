package apps

import (
	"strconv"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/podspec"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// DaemonSet keeps a pod running on every node.
func daemonSet(rules podspec.Rules) *kind.Definition {
	spec, status := appsv1.DaemonSetSpec{}.SwaggerDoc(), appsv1.DaemonSetStatus{}.SwaggerDoc()
	pods := podspec.Template[*appsv1.DaemonSet](func(d *appsv1.DaemonSet) *corev1.PodTemplateSpec { return &d.Spec.Template })
	number := func(name, description string, of func(s *appsv1.DaemonSetStatus) int32) kind.Column {
		return kind.Column{Name: name, Type: "integer", Description: description, Of: kind.Cell(func(d *appsv1.DaemonSet) any { return int64(of(&d.Status)) })}
	}
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "DaemonSet", Plural: "daemonsets", ShortNames: []string{"ds"}, Categories: []string{"all"},
		Scope: kind.Namespaced, Verbs: kind.Standard,
		New:     kind.Of[appsv1.DaemonSet](),
		Default: kind.Default(defaultDaemonSet),
		PrepareCreate: kind.Prepare(func(d *appsv1.DaemonSet) {
			d.Status = appsv1.DaemonSetStatus{}
			pods.New(d, rules)
			setTemplateGeneration(d, max(templateGeneration(d), 1))
		}),
		PrepareUpdate: kind.PrepareUpdate(prepareDaemonSetUpdate(pods, rules)),
		Generation:    kind.Changed(func(d, old *appsv1.DaemonSet) bool { return !object.Equal(&d.Spec, &old.Spec) }),
		Validate:      kind.Validate(func(d *appsv1.DaemonSet) field.ErrorList { return validateDaemonSet(d, nil, rules) }),
		ValidateUpdate: kind.ValidateUpdate(func(d, old *appsv1.DaemonSet) field.ErrorList {
			errs := check.Immutable(d.Spec.Selector, old.Spec.Selector, field.NewPath("spec", "selector"))
			return append(errs, validateDaemonSet(d, old, rules)...)
		}),
		Warnings: pods.Warnings(template),
		Columns: append(kind.Columns{
			number("Desired", status["desiredNumberScheduled"], func(s *appsv1.DaemonSetStatus) int32 { return s.DesiredNumberScheduled }),
			number("Current", status["currentNumberScheduled"], func(s *appsv1.DaemonSetStatus) int32 { return s.CurrentNumberScheduled }),
			number("Ready", status["numberReady"], func(s *appsv1.DaemonSetStatus) int32 { return s.NumberReady }),
			number("Up-to-date", status["updatedNumberScheduled"], func(s *appsv1.DaemonSetStatus) int32 { return s.UpdatedNumberScheduled }),
			number("Available", status["numberAvailable"], func(s *appsv1.DaemonSetStatus) int32 { return s.NumberAvailable }),
			{Name: "Node Selector", Description: corev1.PodSpec{}.SwaggerDoc()["nodeSelector"], Of: kind.Cell(func(d *appsv1.DaemonSet) any {
				return show.Labels(d.Spec.Template.Spec.NodeSelector)
			})},
			kind.Age,
		}, append(pods.Columns(),
			kind.Column{Name: "Selector", Wide: true, Description: spec["selector"], Of: kind.Cell(func(d *appsv1.DaemonSet) any {
				return metav1.FormatLabelSelector(d.Spec.Selector)
			})})...),
		ColumnFields: []string{
			"spec.selector", "spec.template.spec.nodeSelector", "spec.template.spec.containers.name", "spec.template.spec.containers.image",
			"status.desiredNumberScheduled", "status.currentNumberScheduled", "status.numberReady", "status.updatedNumberScheduled",
			"status.numberAvailable",
		},
		Subresources: map[string]*kind.Subresource{
			"status": kind.Status(func(d, old *appsv1.DaemonSet) { d.Spec = old.Spec }, validateDaemonSetStatus),
		},
	}
}

func defaultDaemonSet(d *appsv1.DaemonSet) {
	podspec.DefaultTemplate(&d.Spec.Template)
	u := &d.Spec.UpdateStrategy
	if u.Type == "" {
		u.Type = appsv1.RollingUpdateDaemonSetStrategyType
	}
	if u.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		if u.RollingUpdate == nil {
			u.RollingUpdate = &appsv1.RollingUpdateDaemonSet{}
		}
		if u.RollingUpdate.MaxUnavailable == nil {
			u.RollingUpdate.MaxUnavailable = ptr.To(intstr.FromInt32(1))
		}
		if u.RollingUpdate.MaxSurge == nil {
			u.RollingUpdate.MaxSurge = ptr.To(intstr.FromInt32(0))
		}
	}
	if d.Spec.RevisionHistoryLimit == nil {
		d.Spec.RevisionHistoryLimit = ptr.To[int32](defaultRevisionHistory)
	}
	if _, given := d.Annotations[appsv1.DeprecatedTemplateGeneration]; !given {
		setTemplateGeneration(d, 0)
	}
}

// The template's own generation lives in an annotation, where extensions/v1beta1 had a field.
// Only the server counts it.

func templateGeneration(d *appsv1.DaemonSet) int64 {
	n, err := strconv.ParseInt(d.Annotations[appsv1.DeprecatedTemplateGeneration], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func setTemplateGeneration(d *appsv1.DaemonSet, n int64) {
	metav1.SetMetaDataAnnotation(&d.ObjectMeta, appsv1.DeprecatedTemplateGeneration, strconv.FormatInt(n, 10))
}

func prepareDaemonSetUpdate(pods podspec.Template[*appsv1.DaemonSet], rules podspec.Rules) func(d, old *appsv1.DaemonSet) {
	return func(d, old *appsv1.DaemonSet) {
		d.Status = old.Status
		pods.Update(d, old, rules)
		generation := templateGeneration(old)
		if !equality.Semantic.DeepEqual(d.Spec.Template, old.Spec.Template) {
			generation++
		}
		setTemplateGeneration(d, generation)
	}
}

// validateDaemonSet checks a new DaemonSet, or one that replaces old, besides that the selector stays.
func validateDaemonSet(d, old *appsv1.DaemonSet, rules podspec.Rules) field.ErrorList {
	spec := field.NewPath("spec")
	var was appsv1.DaemonSetSpec
	var before *corev1.PodTemplateSpec
	if old != nil {
		was, before = old.Spec, &old.Spec.Template
	}
	var errs field.ErrorList
	selector, _ := selectorOf(d.Spec.Selector, spec.Child("selector")) // what is wrong with it is said by check.Selector
	if s := d.Spec.Selector; s != nil {
		errs = append(errs, check.Selector(s, was.Selector, spec.Child("selector"))...)
		if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
			errs = append(errs, field.Invalid(spec.Child("selector"), s, "empty selector is invalid for daemonset"))
		}
	}
	errs = append(errs, podspec.ValidateLongRunning(&d.Spec.Template, before, selector, "DaemonSet", rules, template)...)
	errs = append(errs, check.NonNegative(d.Spec.MinReadySeconds, spec.Child("minReadySeconds"))...)
	errs = append(errs, checkDaemonStrategy(&d.Spec.UpdateStrategy, spec.Child("updateStrategy"))...)
	return append(errs, check.NonNegativePtr(d.Spec.RevisionHistoryLimit, spec.Child("revisionHistoryLimit"))...)
}

func checkDaemonStrategy(u *appsv1.DaemonSetUpdateStrategy, path *field.Path) field.ErrorList {
	rolling := path.Child("rollingUpdate")
	switch u.Type {
	case appsv1.OnDeleteDaemonSetStrategyType:
		return nil
	case appsv1.RollingUpdateDaemonSetStrategyType:
		if u.RollingUpdate == nil {
			return field.ErrorList{field.Required(rolling, "")}
		}
	default:
		return field.ErrorList{field.NotSupported(path, check.GoNames(*u), []appsv1.DaemonSetUpdateStrategyType{appsv1.RollingUpdateDaemonSetStrategyType, appsv1.OnDeleteDaemonSetStrategyType})}
	}
	r := u.RollingUpdate
	unavailable, surge := rolling.Child("maxUnavailable"), rolling.Child("maxSurge")
	errs := check.Share(r.MaxUnavailable, unavailable)
	errs = append(errs, check.Share(r.MaxSurge, surge)...)
	errs = append(errs, check.ShareAtMostAll(r.MaxUnavailable, unavailable)...)
	errs = append(errs, check.ShareAtMostAll(r.MaxSurge, surge)...)
	switch {
	case !check.ZeroShare(r.MaxUnavailable) && !check.ZeroShare(r.MaxSurge):
		errs = append(errs, field.Invalid(surge, r.MaxSurge, "may not be set when maxUnavailable is non-zero"))
	case check.ZeroShare(r.MaxUnavailable) && check.ZeroShare(r.MaxSurge):
		errs = append(errs, field.Required(unavailable, "cannot be 0 when maxSurge is 0"))
	}
	return errs
}

func validateDaemonSetStatus(d, old *appsv1.DaemonSet) field.ErrorList {
	s := d.Status
	errs := checkCounts(
		count{"currentNumberScheduled", int64(s.CurrentNumberScheduled)}, count{"numberMisscheduled", int64(s.NumberMisscheduled)},
		count{"desiredNumberScheduled", int64(s.DesiredNumberScheduled)}, count{"numberReady", int64(s.NumberReady)},
		count{"observedGeneration", s.ObservedGeneration}, count{"updatedNumberScheduled", int64(s.UpdatedNumberScheduled)},
		count{"numberAvailable", int64(s.NumberAvailable)}, count{"numberUnavailable", int64(s.NumberUnavailable)},
	)
	return append(errs, checkCollisions(s.CollisionCount, old.Status.CollisionCount)...)
}
