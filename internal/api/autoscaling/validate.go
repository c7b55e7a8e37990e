package autoscaling

import (
	"github.com/timonel/timonel/internal/api/check"
	v2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Bounds on behaviour.
const (
	maxWindowSeconds = 3600
	maxPeriodSeconds = 1800
)

// validateAutoscaler checks an autoscaler; old is the one that it replaces, if any.
func validateAutoscaler(h, old *v2.HorizontalPodAutoscaler) field.ErrorList {
	s, spec := &h.Spec, field.NewPath("spec")
	var was *v2.CrossVersionObjectReference
	if old != nil {
		was = &old.Spec.ScaleTargetRef
	}
	var errs field.ErrorList
	if s.MinReplicas != nil && s.MaxReplicas < *s.MinReplicas {
		errs = append(errs, field.Invalid(spec.Child("maxReplicas"), s.MaxReplicas, "must be greater than or equal to `minReplicas`"))
	}
	errs = append(errs, checkReference(&s.ScaleTargetRef, was, spec.Child("scaleTargetRef"))...)
	errs = append(errs, checkMetrics(s, spec.Child("metrics"))...)
	if s.Behavior != nil {
		behavior := spec.Child("behavior")
		errs = append(errs, checkRules(s.Behavior.ScaleUp, behavior.Child("scaleUp"))...)
		errs = append(errs, checkRules(s.Behavior.ScaleDown, behavior.Child("scaleDown"))...)
	}
	if s.MinReplicas != nil {
		errs = append(errs, check.NonNegative(*s.MinReplicas, spec.Child("minReplicas"))...)
	}
	switch {
	case s.MaxReplicas == 0:
		errs = append(errs, field.Required(spec.Child("maxReplicas"), ""))
	case s.MaxReplicas < 1:
		errs = append(errs, field.Invalid(spec.Child("maxReplicas"), s.MaxReplicas, "must be greater than or equal to 1"))
	}
	return errs
}

// checkReference wants the name and the API group of what is scaled. One that was there before is not asked for its group.
func checkReference(r, was *v2.CrossVersionObjectReference, at *field.Path) field.ErrorList {
	errs := check.RequiredForm(r.Kind, at.Child("kind"), path.IsValidPathSegmentName)
	errs = append(errs, check.RequiredForm(r.Name, at.Child("name"), path.IsValidPathSegmentName)...)
	if was != nil && *was == *r {
		return errs
	}
	version := at.Child("apiVersion")
	gv, err := schema.ParseGroupVersion(r.APIVersion)
	switch {
	case err != nil:
		errs = append(errs, field.Invalid(version, r.APIVersion, err.Error()))
	case gv.Empty():
		errs = append(errs, field.Invalid(version, r.APIVersion, "apiVersion must specify API group"))
	}
	return errs
}

func checkMetrics(s *v2.HorizontalPodAutoscalerSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	beyond := false // a metric that exists without pods
	for i := range s.Metrics {
		errs = append(errs, checkMetric(&s.Metrics[i], at.Index(i))...)
		t := s.Metrics[i].Type
		beyond = beyond || t == v2.ObjectMetricSourceType || t == v2.ExternalMetricSourceType
	}
	if s.MinReplicas != nil && *s.MinReplicas == 0 && !beyond {
		errs = append(errs, field.Forbidden(at, "must specify at least one Object or External metric to support scaling to zero replicas"))
	}
	return errs
}

// checkMetric checks the source of the metric's type. Parity: the first source that is there is checked, whatever its type, and any is
// too many only beside another.
func checkMetric(m *v2.MetricSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if m.Type == "" {
		errs = append(errs, field.Required(at.Child("type"), "must specify a metric source type"))
	}
	errs = append(errs, check.OneOf(m.Type, at.Child("type"),
		v2.ContainerResourceMetricSourceType, v2.ExternalMetricSourceType, v2.ObjectMetricSourceType, v2.PodsMetricSourceType, v2.ResourceMetricSourceType)...)
	sources := []struct {
		t     v2.MetricSourceType
		name  string
		set   bool
		check func(at *field.Path) field.ErrorList
	}{
		{v2.ObjectMetricSourceType, "object", m.Object != nil, func(at *field.Path) field.ErrorList { return checkObject(m.Object, at) }},
		{v2.ExternalMetricSourceType, "external", m.External != nil, func(at *field.Path) field.ErrorList { return checkExternal(m.External, at) }},
		{v2.PodsMetricSourceType, "pods", m.Pods != nil, func(at *field.Path) field.ErrorList { return checkPods(m.Pods, at) }},
		{v2.ResourceMetricSourceType, "resource", m.Resource != nil, func(at *field.Path) field.ErrorList {
			return checkResource(string(m.Resource.Name), nil, &m.Resource.Target, at)
		}},
		{v2.ContainerResourceMetricSourceType, "containerResource", m.ContainerResource != nil, func(at *field.Path) field.ErrorList {
			return checkResource(string(m.ContainerResource.Name), &m.ContainerResource.Container, &m.ContainerResource.Target, at)
		}},
	}
	var missing, surplus field.ErrorList
	found := 0
	for _, s := range sources {
		if s.set {
			if found++; found == 1 {
				errs = append(errs, s.check(at.Child(s.name))...)
			}
		}
		switch {
		case s.t == m.Type && !s.set:
			missing = append(missing, field.Required(at.Child(s.name), "must populate information for the given metric source"))
		case s.t != m.Type && s.set:
			surplus = append(surplus, field.Forbidden(at.Child(s.name), "must populate the given metric source only"))
		}
	}
	if errs = append(errs, missing...); found > 1 {
		errs = append(errs, surplus...)
	}
	return errs
}

func checkObject(o *v2.ObjectMetricSource, at *field.Path) field.ErrorList {
	described := at.Child("describedObject")
	errs := check.RequiredForm(o.DescribedObject.Kind, described.Child("kind"), path.IsValidPathSegmentName)
	errs = append(errs, check.RequiredForm(o.DescribedObject.Name, described.Child("name"), path.IsValidPathSegmentName)...)
	if _, err := schema.ParseGroupVersion(o.DescribedObject.APIVersion); err != nil {
		errs = append(errs, field.Invalid(described.Child("apiVersion"), o.DescribedObject.APIVersion, err.Error()))
	}
	errs = append(errs, checkIdentifier(&o.Metric, at.Child("metric"))...)
	errs = append(errs, checkTarget(&o.Target, at.Child("target"))...)
	if o.Target.Value == nil && o.Target.AverageValue == nil {
		errs = append(errs, field.Required(at.Child("target").Child("averageValue"), "must set either a target value or averageValue"))
	}
	return errs
}

func checkExternal(e *v2.ExternalMetricSource, at *field.Path) field.ErrorList {
	errs := checkIdentifier(&e.Metric, at.Child("metric"))
	t := at.Child("target")
	errs = append(errs, checkTarget(&e.Target, t)...)
	switch {
	case e.Target.Value == nil && e.Target.AverageValue == nil:
		errs = append(errs, field.Required(t.Child("averageValue"), "must set either a target value for metric or a per-pod target"))
	case e.Target.Value != nil && e.Target.AverageValue != nil:
		errs = append(errs, field.Forbidden(t.Child("value"), "may not set both a target value for metric and a per-pod target"))
	}
	return errs
}

func checkPods(p *v2.PodsMetricSource, at *field.Path) field.ErrorList {
	errs := checkIdentifier(&p.Metric, at.Child("metric"))
	t := at.Child("target")
	errs = append(errs, checkTarget(&p.Target, t)...)
	if p.Target.AverageValue == nil || p.Target.AverageValue.Sign() != 1 {
		errs = append(errs, field.Required(t.Child("averageValue"), "must specify a positive target averageValue"))
	}
	return errs
}

// checkResource checks a target for the use of a resource, by whole pods or, with container, by one of their containers.
func checkResource(name string, container *string, t *v2.MetricTarget, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if name == "" {
		errs = append(errs, field.Required(at.Child("name"), "must specify a resource name"))
	}
	if container != nil && *container == "" {
		errs = append(errs, field.Required(at.Child("container"), "must specify a container name"))
	}
	target := at.Child("target")
	errs = append(errs, checkTarget(t, target)...)
	switch {
	case t.AverageUtilization == nil && t.AverageValue == nil:
		errs = append(errs, field.Required(target.Child("averageUtilization"), "must set either a target raw value or a target utilization"))
	case t.AverageUtilization != nil && t.AverageValue != nil:
		errs = append(errs, field.Forbidden(target.Child("averageValue"), "may not set both a target raw value and a target utilization"))
	}
	return errs
}

func checkIdentifier(m *v2.MetricIdentifier, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if m.Name == "" {
		errs = append(errs, field.Required(at.Child("name"), "must specify a metric name"))
	}
	errs = append(errs, check.Form(m.Name, at.Child("name"), path.IsValidPathSegmentName)...)
	if m.Selector != nil {
		errs = append(errs, check.Selector(m.Selector, nil, at.Child("selector"))...)
	}
	return errs
}

func checkTarget(t *v2.MetricTarget, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if t.Type == "" {
		errs = append(errs, field.Required(at.Child("type"), "must specify a metric target type"))
	}
	if t.Type != v2.UtilizationMetricType && t.Type != v2.ValueMetricType && t.Type != v2.AverageValueMetricType {
		errs = append(errs, field.Invalid(at.Child("type"), t.Type, "must be either Utilization, Value, or AverageValue"))
	}
	positive := func(q *resource.Quantity, name string) {
		if q != nil && q.Sign() != 1 {
			errs = append(errs, field.Invalid(at.Child(name), q.String(), "must be positive"))
		}
	}
	positive(t.Value, "value")
	positive(t.AverageValue, "averageValue")
	return append(errs, check.PositivePtr(t.AverageUtilization, at.Child("averageUtilization"))...)
}

func checkRules(r *v2.HPAScalingRules, at *field.Path) field.ErrorList {
	if r == nil {
		return nil
	}
	var errs field.ErrorList
	if n := r.StabilizationWindowSeconds; n != nil {
		window := at.Child("stabilizationWindowSeconds")
		switch {
		case *n < 0:
			errs = append(errs, field.Invalid(window, *n, "must be greater than or equal to zero"))
		case *n > maxWindowSeconds:
			errs = append(errs, field.Invalid(window, *n, "must be less than or equal to 3600"))
		}
	}
	if r.SelectPolicy != nil {
		errs = append(errs, check.OneOf(*r.SelectPolicy, at.Child("selectPolicy"), v2.DisabledPolicySelect, v2.MaxChangePolicySelect, v2.MinChangePolicySelect)...)
	}
	policies := at.Child("policies")
	if len(r.Policies) == 0 {
		errs = append(errs, field.Required(policies, "must specify at least one Policy"))
	}
	for i := range r.Policies {
		errs = append(errs, checkPolicy(&r.Policies[i], policies.Index(i))...)
	}
	if r.Tolerance != nil {
		errs = append(errs, check.NonNegativeQuantity(*r.Tolerance, at.Child("tolerance"))...)
	}
	return errs
}

func checkPolicy(p *v2.HPAScalingPolicy, at *field.Path) field.ErrorList {
	errs := check.OneOf(p.Type, at.Child("type"), v2.PercentScalingPolicy, v2.PodsScalingPolicy)
	if p.Value <= 0 {
		errs = append(errs, field.Invalid(at.Child("value"), p.Value, "must be greater than zero"))
	}
	period := at.Child("periodSeconds")
	switch {
	case p.PeriodSeconds <= 0:
		errs = append(errs, field.Invalid(period, p.PeriodSeconds, "must be greater than zero"))
	case p.PeriodSeconds > maxPeriodSeconds:
		errs = append(errs, field.Invalid(period, p.PeriodSeconds, "must be less than or equal to 1800"))
	}
	return errs
}

func validateAutoscalerStatus(h, _ *v2.HorizontalPodAutoscaler) field.ErrorList {
	status := field.NewPath("status")
	errs := check.NonNegative(h.Status.CurrentReplicas, status.Child("currentReplicas"))
	return append(errs, check.NonNegative(h.Status.DesiredReplicas, status.Child("desiredReplicas"))...)
}
