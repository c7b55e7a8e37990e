package autoscaling

import (
	v1 "k8s.io/api/autoscaling/v1"
	v2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Metrics of version 1, as they are written to annotations, and of version 2 say the same with other fields.

func specToV1(m *v2.MetricSpec) v1.MetricSpec {
	out := v1.MetricSpec{Type: v1.MetricSourceType(m.Type)}
	if s := m.Object; s != nil {
		out.Object = &v1.ObjectMetricSource{
			Target: v1.CrossVersionObjectReference(s.DescribedObject), MetricName: s.Metric.Name, Selector: s.Metric.Selector,
			TargetValue: deref(s.Target.Value), AverageValue: s.Target.AverageValue,
		}
	}
	if s := m.Pods; s != nil {
		out.Pods = &v1.PodsMetricSource{MetricName: s.Metric.Name, Selector: s.Metric.Selector, TargetAverageValue: deref(s.Target.AverageValue)}
	}
	if s := m.Resource; s != nil {
		out.Resource = &v1.ResourceMetricSource{Name: s.Name, TargetAverageUtilization: s.Target.AverageUtilization, TargetAverageValue: s.Target.AverageValue}
	}
	if s := m.ContainerResource; s != nil {
		out.ContainerResource = &v1.ContainerResourceMetricSource{
			Name: s.Name, Container: s.Container, TargetAverageUtilization: s.Target.AverageUtilization, TargetAverageValue: s.Target.AverageValue,
		}
	}
	if s := m.External; s != nil {
		out.External = &v1.ExternalMetricSource{
			MetricName: s.Metric.Name, MetricSelector: s.Metric.Selector, TargetValue: s.Target.Value, TargetAverageValue: s.Target.AverageValue,
		}
	}
	return out
}

func specToV2(m *v1.MetricSpec) v2.MetricSpec {
	out := v2.MetricSpec{Type: v2.MetricSourceType(m.Type)}
	if s := m.Object; s != nil {
		target := v2.MetricTarget{Type: v2.ValueMetricType, Value: &s.TargetValue}
		if s.AverageValue != nil {
			target = v2.MetricTarget{Type: v2.AverageValueMetricType, AverageValue: s.AverageValue}
			if !s.TargetValue.IsZero() {
				target.Value = &s.TargetValue
			}
		}
		out.Object = &v2.ObjectMetricSource{
			DescribedObject: v2.CrossVersionObjectReference(s.Target), Metric: v2.MetricIdentifier{Name: s.MetricName, Selector: s.Selector}, Target: target,
		}
	}
	if s := m.Pods; s != nil {
		out.Pods = &v2.PodsMetricSource{
			Metric: v2.MetricIdentifier{Name: s.MetricName, Selector: s.Selector},
			Target: v2.MetricTarget{Type: v2.AverageValueMetricType, AverageValue: &s.TargetAverageValue},
		}
	}
	if s := m.Resource; s != nil {
		out.Resource = &v2.ResourceMetricSource{Name: s.Name, Target: resourceTargetOf(s.TargetAverageUtilization, s.TargetAverageValue)}
	}
	if s := m.ContainerResource; s != nil {
		out.ContainerResource = &v2.ContainerResourceMetricSource{
			Name: s.Name, Container: s.Container, Target: resourceTargetOf(s.TargetAverageUtilization, s.TargetAverageValue),
		}
	}
	if s := m.External; s != nil {
		target := v2.MetricTarget{Type: v2.AverageValueMetricType, Value: s.TargetValue, AverageValue: s.TargetAverageValue}
		if s.TargetValue != nil {
			target.Type = v2.ValueMetricType
		}
		out.External = &v2.ExternalMetricSource{Metric: v2.MetricIdentifier{Name: s.MetricName, Selector: s.MetricSelector}, Target: target}
	}
	return out
}

func resourceTargetOf(utilization *int32, average *resource.Quantity) v2.MetricTarget {
	t := v2.MetricTarget{Type: v2.AverageValueMetricType, AverageUtilization: utilization, AverageValue: average}
	if utilization != nil {
		t.Type = v2.UtilizationMetricType
	}
	return t
}

func statusToV1(m *v2.MetricStatus) v1.MetricStatus {
	out := v1.MetricStatus{Type: v1.MetricSourceType(m.Type)}
	if s := m.Object; s != nil {
		out.Object = &v1.ObjectMetricStatus{
			Target: v1.CrossVersionObjectReference(s.DescribedObject), MetricName: s.Metric.Name, Selector: s.Metric.Selector,
			CurrentValue: deref(s.Current.Value), AverageValue: s.Current.AverageValue,
		}
	}
	if s := m.Pods; s != nil {
		out.Pods = &v1.PodsMetricStatus{MetricName: s.Metric.Name, Selector: s.Metric.Selector, CurrentAverageValue: deref(s.Current.AverageValue)}
	}
	if s := m.Resource; s != nil {
		out.Resource = &v1.ResourceMetricStatus{Name: s.Name, CurrentAverageUtilization: s.Current.AverageUtilization, CurrentAverageValue: deref(s.Current.AverageValue)}
	}
	if s := m.ContainerResource; s != nil {
		out.ContainerResource = &v1.ContainerResourceMetricStatus{
			Name: s.Name, Container: s.Container, CurrentAverageUtilization: s.Current.AverageUtilization, CurrentAverageValue: deref(s.Current.AverageValue),
		}
	}
	if s := m.External; s != nil {
		out.External = &v1.ExternalMetricStatus{
			MetricName: s.Metric.Name, MetricSelector: s.Metric.Selector, CurrentValue: deref(s.Current.Value), CurrentAverageValue: s.Current.AverageValue,
		}
	}
	return out
}

func statusToV2(m *v1.MetricStatus) v2.MetricStatus {
	out := v2.MetricStatus{Type: v2.MetricSourceType(m.Type)}
	if s := m.Object; s != nil {
		out.Object = &v2.ObjectMetricStatus{
			DescribedObject: v2.CrossVersionObjectReference(s.Target), Metric: v2.MetricIdentifier{Name: s.MetricName, Selector: s.Selector},
			Current: v2.MetricValueStatus{Value: optional(&s.CurrentValue, s.AverageValue), AverageValue: s.AverageValue},
		}
	}
	if s := m.Pods; s != nil {
		out.Pods = &v2.PodsMetricStatus{
			Metric: v2.MetricIdentifier{Name: s.MetricName, Selector: s.Selector}, Current: v2.MetricValueStatus{AverageValue: &s.CurrentAverageValue},
		}
	}
	if s := m.Resource; s != nil {
		out.Resource = &v2.ResourceMetricStatus{Name: s.Name, Current: v2.MetricValueStatus{AverageUtilization: s.CurrentAverageUtilization, AverageValue: &s.CurrentAverageValue}}
	}
	if s := m.ContainerResource; s != nil {
		out.ContainerResource = &v2.ContainerResourceMetricStatus{
			Name: s.Name, Container: s.Container, Current: v2.MetricValueStatus{AverageUtilization: s.CurrentAverageUtilization, AverageValue: &s.CurrentAverageValue},
		}
	}
	if s := m.External; s != nil {
		out.External = &v2.ExternalMetricStatus{
			Metric: v2.MetricIdentifier{Name: s.MetricName, Selector: s.MetricSelector}, Current: v2.MetricValueStatus{Value: optional(&s.CurrentValue, s.CurrentAverageValue), AverageValue: s.CurrentAverageValue},
		}
	}
	return out
}

// optional is a current value that v1 always has; beside an average, zero stands for none.
func optional(q *resource.Quantity, average *resource.Quantity) *resource.Quantity {
	if q.IsZero() && average != nil {
		return nil
	}
	return q
}

func deref(q *resource.Quantity) resource.Quantity {
	if q == nil {
		return resource.Quantity{}
	}
	return *q
}
