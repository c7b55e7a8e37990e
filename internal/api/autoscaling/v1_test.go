package autoscaling

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/autoscaling/v1"
	v2 "k8s.io/api/autoscaling/v2"
	"sigs.k8s.io/yaml"
)

func read[T any](t *testing.T, text string) *T {
	t.Helper()
	obj := new(T)
	if err := yaml.UnmarshalStrict([]byte(text), obj); err != nil {
		t.Fatal(err)
	}
	return obj
}

const rich = `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: h, annotations: {mine: "yes"}}
spec:
  minReplicas: 1
  maxReplicas: 5
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: d}
  metrics:
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}}
  - {type: Resource, resource: {name: memory, target: {type: AverageValue, averageValue: 1Gi}}}
  - {type: Pods, pods: {metric: {name: m, selector: {matchLabels: {a: b}}}, target: {type: AverageValue, averageValue: "10"}}}
  - {type: Object, object: {metric: {name: o}, describedObject: {apiVersion: v1, kind: Service, name: s}, target: {type: Value, value: "1"}}}
  - {type: External, external: {metric: {name: e}, target: {type: AverageValue, averageValue: 2k}}}
  - {type: ContainerResource, containerResource: {name: cpu, container: c, target: {type: Utilization, averageUtilization: 5}}}
  behavior:
    scaleUp: {stabilizationWindowSeconds: 0, selectPolicy: Max, policies: [{type: Pods, value: 4, periodSeconds: 15}]}
    scaleDown: {selectPolicy: Min, policies: [{type: Percent, value: 100, periodSeconds: 15}]}
status:
  desiredReplicas: 3
  currentReplicas: 2
  currentMetrics: [{type: Resource, resource: {name: cpu, current: {averageUtilization: 30, averageValue: 1m}}}]
  conditions: [{type: ScalingActive, status: "True", reason: R, message: m, lastTransitionTime: "2026-01-01T00:00:00Z"}]
`

func TestNothingIsLostInVersion1(t *testing.T) {
	hub := read[v2.HorizontalPodAutoscaler](t, rich)
	old, err := fromHub(hub)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"mine":                   "yes",
		behaviorAnnotation:       `{"ScaleUp":{"StabilizationWindowSeconds":0,"SelectPolicy":"Max","Policies":[{"Type":"Pods","Value":4,"PeriodSeconds":15}],"Tolerance":null},"ScaleDown":{"StabilizationWindowSeconds":null,"SelectPolicy":"Min","Policies":[{"Type":"Percent","Value":100,"PeriodSeconds":15}],"Tolerance":null}}`,
		conditionsAnnotation:     `[{"type":"ScalingActive","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z","reason":"R","message":"m"}]`,
		currentMetricsAnnotation: `[{"type":"Resource","resource":{"name":"cpu","currentAverageUtilization":30,"currentAverageValue":"1m"}}]`,
		metricsAnnotation: `[{"type":"Resource","resource":{"name":"memory","targetAverageValue":"1Gi"}},` +
			`{"type":"Pods","pods":{"metricName":"m","targetAverageValue":"10","selector":{"matchLabels":{"a":"b"}}}},` +
			`{"type":"Object","object":{"target":{"kind":"Service","name":"s","apiVersion":"v1"},"metricName":"o","targetValue":"1"}},` +
			`{"type":"External","external":{"metricName":"e","targetAverageValue":"2k"}},` +
			`{"type":"ContainerResource","containerResource":{"name":"cpu","targetAverageUtilization":5,"container":"c"}}]`,
	}
	if diff := cmp.Diff(want, old.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	if p, q := old.Spec.TargetCPUUtilizationPercentage, old.Status.CurrentCPUUtilizationPercentage; p == nil || *p != 60 || q == nil || *q != 30 {
		t.Errorf("CPU is %v of %v, want 30 of 60", q, p)
	}
	back, err := toHub(old)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(hub, back); diff != "" {
		t.Errorf("there and back (-was +is):\n%s", diff)
	}
	if hub.Annotations[metricsAnnotation] != "" {
		t.Error("conversion wrote to the object that it was given")
	}
}

func TestVersion1Alone(t *testing.T) {
	hub, err := toHub(read[v1.HorizontalPodAutoscaler](t, `
metadata: {name: h, annotations: {autoscaling.alpha.kubernetes.io/metrics: "[", autoscaling.alpha.kubernetes.io/behavior: "{}"}}
spec: {maxReplicas: 3, targetCPUUtilizationPercentage: 70}
status: {currentCPUUtilizationPercentage: 7}`))
	if err != nil {
		t.Fatal(err)
	}
	if len(hub.Spec.Metrics) != 1 || *hub.Spec.Metrics[0].Resource.Target.AverageUtilization != 70 {
		t.Errorf("metrics are %+v, want the use of CPU alone", hub.Spec.Metrics)
	}
	if len(hub.Status.CurrentMetrics) != 1 || hub.Spec.Behavior == nil || len(hub.Annotations) != 0 {
		t.Errorf("got %+v", hub)
	}
}
