package autoscaling

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	v2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

const (
	defaultUtilization   = 80 // percent of the requested CPU
	defaultPolicySeconds = 15
	defaultPolicyPods    = 4
	defaultPolicyPercent = 100
)

// HorizontalPodAutoscaler keeps the number of replicas of something in proportion to metrics.
func horizontalPodAutoscaler() *kind.Definition {
	spec, status := v2.HorizontalPodAutoscalerSpec{}.SwaggerDoc(), v2.HorizontalPodAutoscalerStatus{}.SwaggerDoc()
	return &kind.Definition{
		Group: group, Version: "v2", Kind: "HorizontalPodAutoscaler", Plural: "horizontalpodautoscalers", ShortNames: []string{"hpa"}, Categories: []string{"all"},
		Scope: kind.Namespaced, Verbs: kind.Standard,
		Stored:        kind.Stored{TellsEmpty: true},
		New:           kind.Of[v2.HorizontalPodAutoscaler](),
		Default:       kind.Default(defaultAutoscaler),
		PrepareCreate: kind.Prepare(func(h *v2.HorizontalPodAutoscaler) { h.Status = v2.HorizontalPodAutoscalerStatus{} }),
		PrepareUpdate: kind.PrepareUpdate(func(h, old *v2.HorizontalPodAutoscaler) { h.Status = old.Status }),
		Generation:    kind.Changed(func(h, old *v2.HorizontalPodAutoscaler) bool { return !object.Equal(&h.Spec, &old.Spec) }),
		Validate: kind.Validate(func(h *v2.HorizontalPodAutoscaler) field.ErrorList {
			return validateAutoscaler(h, nil)
		}),
		ValidateUpdate: kind.ValidateUpdate(validateAutoscaler),
		Columns: kind.Columns{
			{Name: "Reference", Description: spec["scaleTargetRef"], Of: kind.Cell(func(h *v2.HorizontalPodAutoscaler) any {
				return h.Spec.ScaleTargetRef.Kind + "/" + h.Spec.ScaleTargetRef.Name
			})},
			{Name: "Targets", Description: spec["metrics"], Of: kind.Cell(func(h *v2.HorizontalPodAutoscaler) any { return targets(h) })},
			{Name: "MinPods", Description: spec["minReplicas"], Of: kind.Cell(func(h *v2.HorizontalPodAutoscaler) any {
				if h.Spec.MinReplicas == nil {
					return show.Unset
				}
				return strconv.Itoa(int(*h.Spec.MinReplicas))
			})},
			{Name: "MaxPods", Description: spec["maxReplicas"], Of: kind.Cell(func(h *v2.HorizontalPodAutoscaler) any { return int64(h.Spec.MaxReplicas) })},
			{Name: "Replicas", Description: status["currentReplicas"], Of: kind.Cell(func(h *v2.HorizontalPodAutoscaler) any { return int64(h.Status.CurrentReplicas) })},
			kind.Age,
		},
		ColumnFields: []string{
			"spec.scaleTargetRef.kind", "spec.scaleTargetRef.name", "spec.minReplicas", "spec.maxReplicas", "spec.metrics",
			"status.currentReplicas", "status.currentMetrics",
		},
		Subresources: map[string]*kind.Subresource{
			"status": kind.Status(func(h, old *v2.HorizontalPodAutoscaler) { h.Spec = old.Spec }, validateAutoscalerStatus),
		},
	}
}

func defaultAutoscaler(h *v2.HorizontalPodAutoscaler) {
	s := &h.Spec
	if s.MinReplicas == nil {
		s.MinReplicas = ptr.To[int32](1)
	}
	if len(s.Metrics) == 0 {
		s.Metrics = []v2.MetricSpec{cpuUtilization(defaultUtilization)}
	}
	if s.Behavior == nil {
		return
	}
	up, down := &s.Behavior.ScaleUp, &s.Behavior.ScaleDown
	defaultRules(up,
		v2.HPAScalingPolicy{Type: v2.PodsScalingPolicy, Value: defaultPolicyPods, PeriodSeconds: defaultPolicySeconds},
		v2.HPAScalingPolicy{Type: v2.PercentScalingPolicy, Value: defaultPolicyPercent, PeriodSeconds: defaultPolicySeconds})
	if (*up).StabilizationWindowSeconds == nil {
		(*up).StabilizationWindowSeconds = ptr.To[int32](0)
	}
	defaultRules(down, v2.HPAScalingPolicy{Type: v2.PercentScalingPolicy, Value: defaultPolicyPercent, PeriodSeconds: defaultPolicySeconds})
}

func defaultRules(rules **v2.HPAScalingRules, policies ...v2.HPAScalingPolicy) {
	if *rules == nil {
		*rules = &v2.HPAScalingRules{}
	}
	r := *rules
	if r.SelectPolicy == nil {
		r.SelectPolicy = ptr.To(v2.MaxChangePolicySelect)
	}
	if r.Policies == nil {
		r.Policies = policies
	}
}

// cpuUtilization is the metric that v1 has a field for.
func cpuUtilization(percent int32) v2.MetricSpec {
	return v2.MetricSpec{Type: v2.ResourceMetricSourceType, Resource: &v2.ResourceMetricSource{
		Name: corev1.ResourceCPU, Target: v2.MetricTarget{Type: v2.UtilizationMetricType, AverageUtilization: &percent},
	}}
}

// maxShownTargets is how many metrics a table cell has room for.
const maxShownTargets = 2

// targets shows the metrics as "current/target".
func targets(h *v2.HorizontalPodAutoscaler) string {
	if len(h.Spec.Metrics) == 0 {
		return show.None
	}
	var shown []string
	for i := range h.Spec.Metrics {
		if i == maxShownTargets {
			break
		}
		var current v2.MetricStatus
		if i < len(h.Status.CurrentMetrics) {
			current = h.Status.CurrentMetrics[i]
		}
		shown = append(shown, target(&h.Spec.Metrics[i], &current))
	}
	text := strings.Join(shown, ", ")
	if more := len(h.Spec.Metrics) - maxShownTargets; more > 0 {
		text += fmt.Sprintf(" + %d more...", more)
	}
	return text
}

func target(m *v2.MetricSpec, now *v2.MetricStatus) string {
	switch {
	case m.Type == v2.ExternalMetricSourceType && m.External != nil:
		var current *v2.MetricValueStatus
		if now.External != nil {
			current = &now.External.Current
		}
		return valueOrAverage(&m.External.Target, current)
	case m.Type == v2.ObjectMetricSourceType && m.Object != nil:
		var current *v2.MetricValueStatus
		if now.Object != nil {
			current = &now.Object.Current
		}
		return valueOrAverage(&m.Object.Target, current)
	case m.Type == v2.PodsMetricSourceType && m.Pods != nil:
		var current *v2.MetricValueStatus
		if now.Pods != nil {
			current = &now.Pods.Current
		}
		return averageValue(current) + "/" + quantity(m.Pods.Target.AverageValue)
	case m.Type == v2.ResourceMetricSourceType && m.Resource != nil:
		var current *v2.MetricValueStatus
		if now.Resource != nil {
			current = &now.Resource.Current
		}
		return resourceTarget(string(m.Resource.Name), &m.Resource.Target, current)
	case m.Type == v2.ContainerResourceMetricSourceType && m.ContainerResource != nil:
		var current *v2.MetricValueStatus
		if now.ContainerResource != nil {
			current = &now.ContainerResource.Current
		}
		return resourceTarget(string(m.ContainerResource.Name), &m.ContainerResource.Target, current)
	}
	return "<unknown type>"
}

// valueOrAverage shows a metric of something outside the pods.
func valueOrAverage(t *v2.MetricTarget, now *v2.MetricValueStatus) string {
	if t.AverageValue != nil {
		return averageValue(now) + "/" + quantity(t.AverageValue) + " (avg)"
	}
	current := show.Unknown
	if now != nil && now.Value != nil {
		current = now.Value.String()
	}
	return current + "/" + quantity(t.Value)
}

// resourceTarget shows the use of a resource by the pods.
func resourceTarget(name string, t *v2.MetricTarget, now *v2.MetricValueStatus) string {
	if t.AverageValue != nil {
		return name + ": " + averageValue(now) + "/" + t.AverageValue.String()
	}
	current, wanted := show.Unknown, "<auto>"
	if now != nil && now.AverageUtilization != nil {
		current = strconv.Itoa(int(*now.AverageUtilization)) + "%"
	}
	if t.AverageUtilization != nil {
		wanted = strconv.Itoa(int(*t.AverageUtilization)) + "%"
	}
	return name + ": " + current + "/" + wanted
}

func averageValue(now *v2.MetricValueStatus) string {
	if now == nil || now.AverageValue == nil {
		return show.Unknown
	}
	return now.AverageValue.String()
}

func quantity(q *resource.Quantity) string {
	if q == nil {
		return show.Unknown
	}
	return q.String()
}
