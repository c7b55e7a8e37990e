package autoscaling

import (
	"encoding/json"
	"fmt"
	"maps"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	v1 "k8s.io/api/autoscaling/v1"
	v2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// Version 1 knows one metric, the use of CPU. Whatever else an autoscaler has rides in these annotations, as JSON.
const (
	metricsAnnotation        = "autoscaling.alpha.kubernetes.io/metrics"
	currentMetricsAnnotation = "autoscaling.alpha.kubernetes.io/current-metrics"
	conditionsAnnotation     = "autoscaling.alpha.kubernetes.io/conditions"
	behaviorAnnotation       = "autoscaling.alpha.kubernetes.io/behavior"
)

// horizontalPodAutoscalerV1 is the older version, which `kubectl autoscale` of old and many manifests use.
func horizontalPodAutoscalerV1(hub *kind.Definition) *kind.Definition {
	return &kind.Definition{
		Group: group, Version: "v1", Kind: hub.Kind, Plural: hub.Plural, ShortNames: hub.ShortNames, Categories: hub.Categories,
		Scope: kind.Namespaced, Verbs: kind.Standard,
		Stored: kind.Stored{Version: "v2"},
		New:    kind.Of[v1.HorizontalPodAutoscaler](),
		Default: kind.Default(func(h *v1.HorizontalPodAutoscaler) {
			if h.Spec.MinReplicas == nil {
				h.Spec.MinReplicas = ptr.To[int32](1)
			}
		}),
		Convert: &kind.Conversion{
			Hub:     hub,
			ToHub:   func(o object.Object) (object.Object, error) { return toHub(o) },
			FromHub: func(o object.Object) (object.Object, error) { return fromHub(o) },
		},
		Generation:    hub.Generation,
		Fields:        hub.Fields,
		FieldsUnknown: hub.FieldsUnknown,
		Columns:       hub.Columns,
		Subresources:  hub.Subresources,
	}
}

// toHub takes the annotations apart. One that cannot be read is dropped, like the metrics that it stood for.
func toHub(o object.Object) (*v2.HorizontalPodAutoscaler, error) {
	h, ok := o.(*v1.HorizontalPodAutoscaler)
	if !ok {
		return nil, fmt.Errorf("convert %T to an autoscaling/v2 HorizontalPodAutoscaler: not an autoscaling/v1 one", o)
	}
	out := &v2.HorizontalPodAutoscaler{
		ObjectMeta: h.ObjectMeta,
		Spec: v2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: v2.CrossVersionObjectReference(h.Spec.ScaleTargetRef),
			MinReplicas:    h.Spec.MinReplicas, MaxReplicas: h.Spec.MaxReplicas,
		},
		Status: v2.HorizontalPodAutoscalerStatus{
			ObservedGeneration: h.Status.ObservedGeneration, LastScaleTime: h.Status.LastScaleTime,
			CurrentReplicas: h.Status.CurrentReplicas, DesiredReplicas: h.Status.DesiredReplicas,
		},
	}
	out.SetGroupVersionKind(v2.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler"))
	if p := h.Spec.TargetCPUUtilizationPercentage; p != nil {
		out.Spec.Metrics = append(out.Spec.Metrics, cpuUtilization(*p))
	}
	if p := h.Status.CurrentCPUUtilizationPercentage; p != nil {
		out.Status.CurrentMetrics = []v2.MetricStatus{{Type: v2.ResourceMetricSourceType, Resource: &v2.ResourceMetricStatus{
			Name: corev1.ResourceCPU, Current: v2.MetricValueStatus{AverageUtilization: p},
		}}}
	}
	out.Annotations = maps.Clone(h.Annotations)
	var metrics []v1.MetricSpec
	if take(out, metricsAnnotation, &metrics) {
		for i := range metrics {
			out.Spec.Metrics = append(out.Spec.Metrics, specToV2(&metrics[i]))
		}
	}
	var current []v1.MetricStatus
	if take(out, currentMetricsAnnotation, &current) {
		out.Status.CurrentMetrics = nil // which has the use of CPU too
		for i := range current {
			out.Status.CurrentMetrics = append(out.Status.CurrentMetrics, statusToV2(&current[i]))
		}
	}
	var conditions []v1.HorizontalPodAutoscalerCondition
	if take(out, conditionsAnnotation, &conditions) {
		for _, c := range conditions {
			out.Status.Conditions = append(out.Status.Conditions, v2.HorizontalPodAutoscalerCondition{
				Type: v2.HorizontalPodAutoscalerConditionType(c.Type), Status: c.Status, LastTransitionTime: c.LastTransitionTime,
				Reason: c.Reason, Message: c.Message, ObservedGeneration: c.ObservedGeneration,
			})
		}
	}
	var behavior v2.HorizontalPodAutoscalerBehavior
	if take(out, behaviorAnnotation, &behavior) {
		out.Spec.Behavior = &behavior
	}
	return out, nil
}

// take removes an annotation and reports whether it could be read.
func take(o object.Object, annotation string, into any) bool {
	annotations := o.GetAnnotations()
	text, ok := annotations[annotation]
	if !ok {
		return false
	}
	delete(annotations, annotation)
	return json.Unmarshal([]byte(text), into) == nil
}

func fromHub(o object.Object) (*v1.HorizontalPodAutoscaler, error) {
	h, ok := o.(*v2.HorizontalPodAutoscaler)
	if !ok {
		return nil, fmt.Errorf("convert %T to an autoscaling/v1 HorizontalPodAutoscaler: not an autoscaling/v2 one", o)
	}
	out := &v1.HorizontalPodAutoscaler{
		ObjectMeta: h.ObjectMeta,
		Spec: v1.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: v1.CrossVersionObjectReference(h.Spec.ScaleTargetRef),
			MinReplicas:    h.Spec.MinReplicas, MaxReplicas: h.Spec.MaxReplicas,
		},
		Status: v1.HorizontalPodAutoscalerStatus{
			ObservedGeneration: h.Status.ObservedGeneration, LastScaleTime: h.Status.LastScaleTime,
			CurrentReplicas: h.Status.CurrentReplicas, DesiredReplicas: h.Status.DesiredReplicas,
		},
	}
	out.SetGroupVersionKind(v1.SchemeGroupVersion.WithKind("HorizontalPodAutoscaler"))
	out.Annotations = maps.Clone(h.Annotations)
	for _, a := range []string{metricsAnnotation, currentMetricsAnnotation, conditionsAnnotation, behaviorAnnotation} {
		delete(out.Annotations, a) // not the client's to set through v2
	}
	var others []v1.MetricSpec
	for i := range h.Spec.Metrics {
		m := &h.Spec.Metrics[i]
		if out.Spec.TargetCPUUtilizationPercentage == nil && m.Type == v2.ResourceMetricSourceType && m.Resource != nil &&
			m.Resource.Name == corev1.ResourceCPU && m.Resource.Target.AverageUtilization != nil {
			out.Spec.TargetCPUUtilizationPercentage = m.Resource.Target.AverageUtilization
			continue
		}
		others = append(others, specToV1(m))
	}
	var current []v1.MetricStatus
	for i := range h.Status.CurrentMetrics {
		m := &h.Status.CurrentMetrics[i]
		if m.Type == v2.ResourceMetricSourceType && m.Resource != nil && m.Resource.Name == corev1.ResourceCPU && m.Resource.Current.AverageUtilization != nil {
			out.Status.CurrentCPUUtilizationPercentage = m.Resource.Current.AverageUtilization
		}
		current = append(current, statusToV1(m))
	}
	var conditions []v1.HorizontalPodAutoscalerCondition
	for _, c := range h.Status.Conditions {
		conditions = append(conditions, v1.HorizontalPodAutoscalerCondition{
			Type: v1.HorizontalPodAutoscalerConditionType(c.Type), Status: c.Status, LastTransitionTime: c.LastTransitionTime,
			Reason: c.Reason, Message: c.Message, ObservedGeneration: c.ObservedGeneration,
		})
	}
	for _, part := range []struct {
		annotation string
		present    bool
		value      any
	}{
		{metricsAnnotation, len(others) > 0, others},
		{currentMetricsAnnotation, len(current) > 0, current},
		{conditionsAnnotation, len(conditions) > 0, conditions},
		{behaviorAnnotation, h.Spec.Behavior != nil, check.GoNames(h.Spec.Behavior)},
	} {
		if !part.present {
			continue
		}
		text, err := json.Marshal(part.value)
		if err != nil {
			return nil, fmt.Errorf("write annotation %s: %w", part.annotation, err)
		}
		if out.Annotations == nil {
			out.Annotations = map[string]string{}
		}
		out.Annotations[part.annotation] = string(text)
	}
	return out, nil
}
