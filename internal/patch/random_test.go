package patch

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/object"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/kube-openapi/pkg/validation/spec"
	smd "sigs.k8s.io/structured-merge-diff/v6/schema"
)

// mutator changes objects at random, with few values so that they meet again.
type mutator struct{ *rand.Rand }

func (m mutator) chance(percent int) bool { return m.IntN(100) < percent }

func (m mutator) word() string {
	words := []string{"a", "b", "c", "example.com/x", "10.0.0.1", "TCP", "UDP", "x y", "z<1", "q\"r", "ü"}
	if m.chance(95) {
		return words[m.IntN(7)]
	}
	return words[m.IntN(len(words))]
}

// value changes v or something below it. depth bounds what is made new.
func (m mutator) value(v reflect.Value, depth int) {
	if !v.CanSet() {
		return
	}
	switch v.Type() {
	case reflect.TypeFor[metav1.Time]():
		v.Set(reflect.ValueOf(metav1.Time{Time: time.Unix(int64(m.IntN(3))*1000, 0).UTC()}))
		if m.chance(30) {
			v.SetZero()
		}
		return
	case reflect.TypeFor[metav1.MicroTime]():
		v.Set(reflect.ValueOf(metav1.MicroTime{Time: time.UnixMicro(int64(m.IntN(3)) * 1001).UTC()}))
		return
	case reflect.TypeFor[resource.Quantity]():
		v.Set(reflect.ValueOf(resource.MustParse([]string{"1", "1000m", "2Gi", "3"}[m.IntN(4)])))
		return
	case reflect.TypeFor[intstr.IntOrString]():
		v.Set(reflect.ValueOf([]intstr.IntOrString{intstr.FromInt32(80), intstr.FromString("a"), intstr.FromString("80"), {}}[m.IntN(4)]))
		return
	case reflect.TypeFor[runtime.RawExtension]():
		v.Set(reflect.ValueOf(runtime.RawExtension{Raw: []byte([]string{`{"a":1}`, `{"a":{"b":[1,2]}}`, `{}`}[m.IntN(3)])}))
		return
	case reflect.TypeFor[metav1.ObjectMeta]():
		meta := v.Addr().Interface().(*metav1.ObjectMeta)
		switch m.IntN(5) {
		case 0:
			m.value(reflect.ValueOf(&meta.Labels).Elem(), depth)
		case 1:
			m.value(reflect.ValueOf(&meta.Annotations).Elem(), depth)
		case 2:
			m.value(reflect.ValueOf(&meta.Finalizers).Elem(), depth)
		case 3:
			m.value(reflect.ValueOf(&meta.OwnerReferences).Elem(), depth)
		case 4:
			meta.Generation = int64(m.IntN(3))
		}
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(m.word())
		if m.chance(10) {
			v.SetString("")
		}
	case reflect.Bool:
		v.SetBool(m.chance(50))
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt([]int64{0, 1, 80, 443, 8080}[m.IntN(5)])
	case reflect.Float64:
		v.SetFloat(float64(m.IntN(3)) / 2)
	case reflect.Pointer:
		if v.IsNil() || m.chance(10) {
			if depth <= 0 {
				return
			}
			v.Set(reflect.New(v.Type().Elem()))
			if m.chance(80) {
				m.value(v.Elem(), depth-1)
			}
			if e := v.Elem(); e.IsZero() && (e.Type() == reflect.TypeFor[metav1.Time]() || e.Type() == reflect.TypeFor[metav1.MicroTime]() || e.Type() == reflect.TypeFor[runtime.RawExtension]()) {
				v.SetZero() // such a pointer does not survive being stored
			}
			return
		}
		if m.chance(15) {
			v.SetZero()
			return
		}
		if t := v.Type().Elem(); t == reflect.TypeFor[metav1.Time]() || t == reflect.TypeFor[metav1.MicroTime]() {
			return
		}
		m.value(v.Elem(), depth)
	case reflect.Struct:
		for range 1 + m.IntN(2) {
			if n := v.NumField(); n > 0 {
				m.value(v.Field(m.IntN(n)), depth)
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte(m.word()))
			return
		}
		switch n := v.Len(); {
		case m.chance(5):
			v.SetZero()
		case m.chance(3):
			v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		case n > 0 && m.chance(20): // remove
			i := m.IntN(n)
			v.Set(reflect.AppendSlice(v.Slice3(0, i, i), v.Slice(i+1, n)))
		case n > 1 && m.chance(15): // reorder
			i, j := m.IntN(n), m.IntN(n)
			x := reflect.New(v.Type().Elem()).Elem()
			x.Set(v.Index(i))
			v.Index(i).Set(v.Index(j))
			v.Index(j).Set(x)
		case n == 0 && depth > 0 || m.chance(40) && n < 6 && depth > 0: // add
			item := reflect.New(v.Type().Elem()).Elem()
			m.item(item, n, depth-1)
			v.Set(reflect.Append(v.Slice3(0, n, n), item))
		case n > 0:
			m.value(v.Index(m.IntN(n)), depth)
		}
	case reflect.Map:
		if v.IsNil() {
			if depth <= 0 {
				return
			}
			v.Set(reflect.MakeMap(v.Type()))
		}
		key := reflect.ValueOf(m.word()).Convert(v.Type().Key())
		if m.chance(30) {
			v.SetMapIndex(key, reflect.Value{})
			if v.Len() == 0 && m.chance(70) {
				v.SetZero()
			}
			return
		}
		item := reflect.New(v.Type().Elem()).Elem()
		m.value(item, depth-1)
		v.SetMapIndex(key, item)
	}
}

// item fills a new list item so that it differs from the others, as a rule.
func (m mutator) item(v reflect.Value, n, depth int) {
	if v.Kind() == reflect.String {
		v.SetString(fmt.Sprintf("%s%d", m.word(), n))
		if m.chance(10) {
			v.SetString(m.word())
		}
		return
	}
	if v.Kind() != reflect.Struct {
		m.value(v, depth)
		return
	}
	for _, key := range []string{"Name", "Type", "UID", "MountPath", "DevicePath", "IP", "TopologyKey", "Key", "PodIndex"} {
		if f := v.FieldByName(key); f.IsValid() && f.Kind() == reflect.String && m.chance(97) {
			f.SetString(fmt.Sprintf("%s%d", strings.ToLower(key), m.IntN(8)))
		}
	}
	for _, key := range []string{"ContainerPort", "Port"} {
		if f := v.FieldByName(key); f.IsValid() && f.CanInt() {
			f.SetInt([]int64{80, 443, 8080, 9}[m.IntN(4)])
		}
	}
	m.value(v, depth)
}

// tree changes a tree at random.
func (m mutator) tree(v any, depth int) any {
	switch v := v.(type) {
	case map[string]any:
		keys := []string{"a", "b", "name", "spec", "items", "set", "config", "type"}
		if len(v) > 0 && m.chance(60) {
			keys = sortedKeys(v, nil)
		}
		key := keys[m.IntN(len(keys))]
		if _, ok := v[key]; ok && m.chance(20) {
			delete(v, key)
		} else {
			v[key] = m.tree(v[key], depth-1)
		}
		return v
	case []any:
		switch {
		case len(v) > 0 && m.chance(25):
			return v[:len(v)-1]
		case m.chance(40):
			return append(v, m.fresh(depth))
		case len(v) > 0:
			i := m.IntN(len(v))
			v[i] = m.tree(v[i], depth-1)
		}
		return v
	}
	return m.fresh(depth)
}

// typed changes a tree at random so that it fits its type, as a rule.
func (m mutator) typed(t *typ, v any, depth int) any {
	if t == nil || m.chance(2) {
		return m.tree(v, depth)
	}
	switch {
	case t.fields != nil && t.scalar == "":
		tree, _ := v.(map[string]any)
		if tree == nil {
			tree = map[string]any{}
		}
		key := m.word()
		if n := len(t.fields.fields); n > 0 {
			key = t.fields.fields[m.IntN(n)].name
		}
		if _, ok := tree[key]; ok && m.chance(20) {
			delete(tree, key)
		} else if at := t.fields.typeOf(key); at != nil && depth > 0 {
			tree[key] = m.typed(at, tree[key], depth-1)
		}
		return tree
	case t.list != nil && t.scalar == "":
		list, _ := v.([]any)
		n := len(list)
		switch {
		case n > 0 && m.chance(20):
			i := m.IntN(n)
			return append(list[:i:i], list[i+1:]...)
		case n > 1 && m.chance(20):
			i, j := m.IntN(n), m.IntN(n)
			list[i], list[j] = list[j], list[i]
			return list
		case n > 0 && m.chance(50):
			i := m.IntN(n)
			list[i] = m.typed(t.list.elem, list[i], depth-1)
			return list
		}
		var item any
		if len(t.list.keys) > 0 {
			fields := map[string]any{}
			for _, k := range t.list.keys {
				if m.chance(80) {
					fields[k] = fmt.Sprintf("%s%d", m.word(), m.IntN(9))
				}
			}
			item = fields
		} else if t.list.elem.scalar == smd.String {
			item = fmt.Sprintf("%s%d", m.word(), m.IntN(9))
		}
		return append(list, m.typed(t.list.elem, item, depth-1))
	case t.scalar == smd.String:
		if s, ok := v.(string); ok && m.chance(50) {
			return s
		}
		return m.word()
	case t.scalar == smd.Numeric:
		if m.chance(20) {
			return float64(m.IntN(4)) / 2
		}
		return int64(m.IntN(4))
	case t.scalar == smd.Boolean:
		return m.chance(50)
	}
	return m.tree(v, depth)
}

func (m mutator) fresh(depth int) any {
	switch n := m.IntN(9); {
	case n == 0 && depth > 0:
		return map[string]any{"name": m.word(), "type": m.word()}
	case n == 1 && depth > 0:
		return []any{m.word()}
	case n == 2:
		return int64(m.IntN(4))
	case n == 3:
		return float64(m.IntN(4)) / 2
	case n == 4:
		return m.chance(50)
	case n == 5 && m.chance(30):
		return nil
	case n == 6 && depth > 0:
		return map[string]any{}
	}
	return m.word()
}

// subject is a kind that random histories are made of.
type subject struct {
	name    string
	options OwnershipOptions
	start   func() object.Object
	// other gives the options of the same door of the kind's other version. nil: there is one version.
	other func(OwnershipOptions) OwnershipOptions
}

func subjects(t testing.TB) []subject {
	crd, err := FromOpenAPI(widgetSchema(t), false)
	if err != nil {
		t.Fatal(err)
	}
	tree := func(kind string, s *Schema) subject {
		gvk := schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: kind}
		made := func() object.Object {
			u := &unstructured.Unstructured{Object: map[string]any{}}
			u.SetGroupVersionKind(gvk)
			return u
		}
		return subject{name: kind, options: OwnershipOptions{Kind: gvk, New: made, Schema: func(v string) (*Schema, bool) { return s, v == "example.com/v1" }}, start: func() object.Object {
			u := made().(*unstructured.Unstructured)
			u.SetName("x")
			u.Object["spec"] = map[string]any{"items": []any{map[string]any{"name": "a", "value": "1"}}, "set": []any{"a"}}
			return u
		}}
	}
	versions := tree("Versions", crd)
	second, err := FromOpenAPI(secondSchema(t), false)
	if err != nil {
		t.Fatal(err)
	}
	versions.options.Schema = func(v string) (*Schema, bool) {
		if v == "example.com/v2" {
			return second, true
		}
		return crd, v == "example.com/v1"
	}
	versions.options.Convert = func(obj object.Object, apiVersion string) (object.Object, error) {
		if _, known := versions.options.Schema(apiVersion); !known {
			return nil, ErrNoVersion
		}
		u := object.Copy(obj).(*unstructured.Unstructured)
		u.SetAPIVersion(apiVersion)
		return u, nil
	}
	versions.other = func(o OwnershipOptions) OwnershipOptions {
		o.Kind.Version = "v2"
		o.New = func() object.Object {
			u := &unstructured.Unstructured{Object: map[string]any{}}
			u.SetGroupVersionKind(o.Kind)
			return u
		}
		return o
	}
	return []subject{
		versions,
		builtin(func() *corev1.Pod { return examplePod() }),
		builtin(func() *appsv1.Deployment {
			pod := examplePod()
			return &appsv1.Deployment{
				ObjectMeta: metav1.ObjectMeta{Name: "x", Labels: map[string]string{"a": "b"}},
				Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}},
					Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}}, Spec: pod.Spec}},
			}
		}),
		builtin(func() *corev1.ConfigMap {
			return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Data: map[string]string{"a": "1", "b": "2"}}
		}),
		builtin(func() *corev1.Service {
			return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: corev1.ServiceSpec{
				Ports: []corev1.ServicePort{{Name: "h", Port: 80, TargetPort: intstr.FromInt32(80)}, {Name: "u", Port: 80, Protocol: "UDP"}}, Selector: map[string]string{"a": "b"}}}
		}),
		builtin(func() *corev1.Node { return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "x"}} }),
		builtin(func() *corev1.Event { return &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "x"}} }),
		builtin(func() *corev1.PersistentVolume {
			return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "x"}}
		}),
		builtin(func() *appsv1.StatefulSet { return &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "x"}} }),
		builtin(func() *appsv1.ControllerRevision {
			return &appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Name: "x"}}
		}),
		builtin(func() *networkingv1.Ingress { return &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Name: "x"}} }),
		builtin(func() *resourcev1.ResourceClaim {
			return &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: "x"}}
		}),
		named[batchv1.Job](),
		named[batchv1.CronJob](),
		autoscaler(),
		named[corev1.ServiceAccount](),
		named[admissionregistrationv1.ValidatingWebhookConfiguration](),
		named[discoveryv1.EndpointSlice](),
		named[networkingv1.NetworkPolicy](),
		named[resourcev1.DeviceClass](),
		named[coordinationv1.Lease](),
		named[rbacv1.ClusterRole](),
		named[policyv1.PodDisruptionBudget](),
		tree("Widget", crd),
		tree("Free", Schemaless()),
	}
}

func builtin[T any, P interface {
	*T
	object.Object
}](start func() P) subject {
	var zero T
	t := reflect.TypeOf(zero)
	path := strings.Split(t.PkgPath(), "/")
	group, version := path[len(path)-2], path[len(path)-1]
	switch group {
	case "core":
		group = ""
	case "networking", "resource", "discovery", "admissionregistration", "coordination", "rbac":
		group += ".k8s.io"
	}
	return subject{name: t.Name(), options: OwnershipOptions{
		Kind: schema.GroupVersionKind{Group: group, Version: version, Kind: t.Name()},
		New:  func() object.Object { return P(new(T)) },
	}, start: func() object.Object { return start() }}
}

// named starts a history with an object that has a name and nothing else.
func named[T any, P interface {
	*T
	object.Object
}]() subject {
	return builtin(func() P {
		obj := P(new(T))
		obj.SetName("x")
		return obj
	})
}

// autoscaler is a built-in kind of two versions, whose fields differ: one metric of the newer one is a field of the older
// one, and what the older one has no field for is an annotation of it.
func autoscaler() subject {
	s := named[autoscalingv2.HorizontalPodAutoscaler]()
	s.name = "HorizontalPodAutoscaler v1 and v2"
	hub, old := autoscalingv2.SchemeGroupVersion.String(), autoscalingv1.SchemeGroupVersion.String()
	s.options.Hub = hub
	s.options.Convert = func(obj object.Object, apiVersion string) (object.Object, error) {
		switch v := obj.(type) {
		case *autoscalingv2.HorizontalPodAutoscaler:
			if apiVersion == old {
				return olderAutoscaler(v), nil
			}
		case *autoscalingv1.HorizontalPodAutoscaler:
			if apiVersion == hub {
				return newerAutoscaler(v), nil
			}
		}
		return nil, ErrNoVersion
	}
	s.other = func(o OwnershipOptions) OwnershipOptions {
		o.Kind.Version = "v1"
		o.New = func() object.Object { return &autoscalingv1.HorizontalPodAutoscaler{} }
		return o
	}
	return s
}

// newerFields is the annotation for what the older version has no field for.
const newerFields = "example.com/newer"

type newerParts struct {
	Metrics        []autoscalingv2.MetricSpec                       `json:"metrics,omitempty"`
	Behavior       *autoscalingv2.HorizontalPodAutoscalerBehavior   `json:"behavior,omitempty"`
	CurrentMetrics []autoscalingv2.MetricStatus                     `json:"currentMetrics,omitempty"`
	Conditions     []autoscalingv2.HorizontalPodAutoscalerCondition `json:"conditions,omitempty"`
}

func olderAutoscaler(in *autoscalingv2.HorizontalPodAutoscaler) *autoscalingv1.HorizontalPodAutoscaler {
	in = in.DeepCopy()
	out := &autoscalingv1.HorizontalPodAutoscaler{ObjectMeta: in.ObjectMeta, Spec: autoscalingv1.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv1.CrossVersionObjectReference(in.Spec.ScaleTargetRef), MinReplicas: in.Spec.MinReplicas, MaxReplicas: in.Spec.MaxReplicas,
	}, Status: autoscalingv1.HorizontalPodAutoscalerStatus{
		ObservedGeneration: in.Status.ObservedGeneration, LastScaleTime: in.Status.LastScaleTime, CurrentReplicas: in.Status.CurrentReplicas, DesiredReplicas: in.Status.DesiredReplicas,
	}}
	parts := newerParts{in.Spec.Metrics, in.Spec.Behavior, in.Status.CurrentMetrics, in.Status.Conditions}
	if n := len(parts.Metrics); n > 0 && reflect.DeepEqual(parts.Metrics[n-1], cpuMetric(parts.Metrics[n-1])) {
		out.Spec.TargetCPUUtilizationPercentage = parts.Metrics[n-1].Resource.Target.AverageUtilization
		parts.Metrics = parts.Metrics[:n-1]
	}
	if text := dump(parts); text != "{}" {
		if out.Annotations == nil {
			out.Annotations = map[string]string{}
		}
		out.Annotations[newerFields] = text
	}
	return out
}

// cpuMetric is the metric that the older version has a field for, with the target of m.
func cpuMetric(m autoscalingv2.MetricSpec) autoscalingv2.MetricSpec {
	made := autoscalingv2.MetricSpec{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
		Name: "cpu", Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: new(int32)},
	}}
	if m.Resource != nil && m.Resource.Target.AverageUtilization != nil {
		*made.Resource.Target.AverageUtilization = *m.Resource.Target.AverageUtilization
	}
	return made
}

func newerAutoscaler(in *autoscalingv1.HorizontalPodAutoscaler) *autoscalingv2.HorizontalPodAutoscaler {
	in = in.DeepCopy()
	var parts newerParts
	if text, has := in.Annotations[newerFields]; has {
		_ = json.Unmarshal([]byte(text), &parts) // what cannot be read is lost
		if delete(in.Annotations, newerFields); len(in.Annotations) == 0 {
			in.Annotations = nil
		}
	}
	if percent := in.Spec.TargetCPUUtilizationPercentage; percent != nil {
		cpu := cpuMetric(autoscalingv2.MetricSpec{})
		*cpu.Resource.Target.AverageUtilization = *percent
		parts.Metrics = append(parts.Metrics, cpu)
	}
	return &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: in.ObjectMeta, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv2.CrossVersionObjectReference(in.Spec.ScaleTargetRef), MinReplicas: in.Spec.MinReplicas, MaxReplicas: in.Spec.MaxReplicas,
		Metrics: parts.Metrics, Behavior: parts.Behavior,
	}, Status: autoscalingv2.HorizontalPodAutoscalerStatus{
		ObservedGeneration: in.Status.ObservedGeneration, LastScaleTime: in.Status.LastScaleTime, CurrentReplicas: in.Status.CurrentReplicas, DesiredReplicas: in.Status.DesiredReplicas,
		CurrentMetrics: parts.CurrentMetrics, Conditions: parts.Conditions,
	}}
}

// secondSchema is widgetSchema as another version of the kind has it: what is a set, granular or known there
// is an atomic list, atomic or unknown here, and the other way round.
func secondSchema(t testing.TB) *spec.Schema {
	root := &spec.Schema{}
	if err := json.Unmarshal([]byte(`{"type":"object","properties":{
		"spec":{"type":"object","properties":{
			"items":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["name","type"],"items":{"type":"object","properties":{
				"name":{"type":"string"},"type":{"type":"string","default":"T"},"value":{"type":"string"},"b":{"type":"integer"}}}},
			"set":{"type":"array","items":{"type":"string"}},
			"config":{"type":"object","additionalProperties":{"type":"string"}},
			"b":{"type":"object","x-kubernetes-preserve-unknown-fields":true},
			"type":{"type":"array","x-kubernetes-list-type":"set","items":{"type":"string"}},
			"name":{"type":"number"}}},
		"status":{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"object","additionalProperties":{"type":"string"}}}}}}`), root); err != nil {
		t.Fatal(err)
	}
	return root
}

func widgetSchema(t testing.TB) *spec.Schema {
	root := &spec.Schema{}
	if err := json.Unmarshal([]byte(`{"type":"object","properties":{
		"spec":{"type":"object","properties":{
			"items":{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["name","type"],"items":{"type":"object","properties":{
				"name":{"type":"string"},"type":{"type":"string","default":"T"},"value":{"type":"string"},"a":{"type":"integer"}}}},
			"set":{"type":"array","x-kubernetes-list-type":"set","items":{"type":"string"}},
			"config":{"type":"object","x-kubernetes-map-type":"atomic","additionalProperties":{"type":"string"}},
			"a":{"x-kubernetes-int-or-string":true},
			"b":{"type":"object","x-kubernetes-preserve-unknown-fields":true},
			"type":{"type":"array","items":{"type":"string"}},
			"name":{"type":"number"}}},
		"status":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}`), root); err != nil {
		t.Fatal(err)
	}
	return root
}

// examplePod is a pod as a cluster has it, about 6 KB of JSON with its managedFields.
func examplePod() *corev1.Pod {
	pod := &corev1.Pod{}
	if err := json.Unmarshal([]byte(examplePodJSON), pod); err != nil {
		panic(err)
	}
	return pod
}

const examplePodJSON = `{"metadata":{"name":"web-7d4b9c6f5-x2x4k","generateName":"web-7d4b9c6f5-","namespace":"shop","labels":{"app":"web","pod-template-hash":"7d4b9c6f5","tier":"front","version":"v1"},
"annotations":{"prometheus.io/scrape":"true","prometheus.io/port":"9090","checksum/config":"0123456789abcdef0123456789abcdef0123456789abcdef"},
"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-7d4b9c6f5","uid":"6d0ed2a4-4d29-4c5b-9d3c-0f8f3e2b7a11","controller":true,"blockOwnerDeletion":true}]},
"spec":{"volumes":[{"name":"config","configMap":{"name":"web-config","defaultMode":420}},{"name":"cache","emptyDir":{"sizeLimit":"1Gi"}},
{"name":"kube-api-access-8xk2p","projected":{"sources":[{"serviceAccountToken":{"expirationSeconds":3607,"path":"token"}},{"configMap":{"name":"kube-root-ca.crt","items":[{"key":"ca.crt","path":"ca.crt"}]}},{"downwardAPI":{"items":[{"path":"namespace","fieldRef":{"apiVersion":"v1","fieldPath":"metadata.namespace"}}]}}],"defaultMode":420}}],
"containers":[{"name":"web","image":"registry.example.com/shop/web:1.24.3","ports":[{"name":"http","containerPort":8080,"protocol":"TCP"},{"name":"metrics","containerPort":9090,"protocol":"TCP"}],
"env":[{"name":"A","value":"1"},{"name":"DB_HOST","value":"db.shop.svc"},{"name":"DB_PASSWORD","valueFrom":{"secretKeyRef":{"name":"db","key":"password"}}},{"name":"POD_IP","valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"status.podIP"}}}],
"resources":{"limits":{"cpu":"500m","memory":"512Mi"},"requests":{"cpu":"100m","memory":"128Mi"}},
"volumeMounts":[{"name":"config","mountPath":"/etc/web","readOnly":true},{"name":"cache","mountPath":"/var/cache"},{"name":"kube-api-access-8xk2p","readOnly":true,"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}],
"livenessProbe":{"httpGet":{"path":"/healthz","port":8080,"scheme":"HTTP"},"initialDelaySeconds":5,"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3},
"readinessProbe":{"httpGet":{"path":"/ready","port":"http","scheme":"HTTP"},"timeoutSeconds":1,"periodSeconds":5,"successThreshold":1,"failureThreshold":3},
"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent","securityContext":{"runAsNonRoot":true,"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]}}},
{"name":"sidecar","image":"registry.example.com/mesh/proxy:2.1","args":["--mode","sidecar"],"resources":{"requests":{"cpu":"10m","memory":"32Mi"}},"volumeMounts":[{"name":"kube-api-access-8xk2p","readOnly":true,"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}],"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent"}],
"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","serviceAccountName":"web","serviceAccount":"web","nodeName":"node-17","securityContext":{"runAsUser":1000,"fsGroup":2000},
"affinity":{"podAntiAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":100,"podAffinityTerm":{"labelSelector":{"matchLabels":{"app":"web"}},"topologyKey":"kubernetes.io/hostname"}}]}},
"schedulerName":"default-scheduler","tolerations":[{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300},{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}],
"priority":0,"enableServiceLinks":true,"preemptionPolicy":"PreemptLowerPriority","topologySpreadConstraints":[{"maxSkew":1,"topologyKey":"topology.kubernetes.io/zone","whenUnsatisfiable":"ScheduleAnyway","labelSelector":{"matchLabels":{"app":"web"}}}]},
"status":{"phase":"Running","conditions":[{"type":"Initialized","status":"True","lastProbeTime":null,"lastTransitionTime":"2026-01-02T03:04:05Z"},{"type":"Ready","status":"True","lastProbeTime":null,"lastTransitionTime":"2026-01-02T03:04:15Z"},{"type":"ContainersReady","status":"True","lastProbeTime":null,"lastTransitionTime":"2026-01-02T03:04:15Z"},{"type":"PodScheduled","status":"True","lastProbeTime":null,"lastTransitionTime":"2026-01-02T03:04:05Z"}],
"hostIP":"192.168.1.17","hostIPs":[{"ip":"192.168.1.17"}],"podIP":"10.244.3.27","podIPs":[{"ip":"10.244.3.27"}],"startTime":"2026-01-02T03:04:05Z",
"containerStatuses":[{"name":"sidecar","state":{"running":{"startedAt":"2026-01-02T03:04:10Z"}},"lastState":{},"ready":true,"restartCount":0,"image":"registry.example.com/mesh/proxy:2.1","imageID":"registry.example.com/mesh/proxy@sha256:aa11","containerID":"containerd://0123","started":true},
{"name":"web","state":{"running":{"startedAt":"2026-01-02T03:04:09Z"}},"lastState":{},"ready":true,"restartCount":0,"image":"registry.example.com/shop/web:1.24.3","imageID":"registry.example.com/shop/web@sha256:bb22","containerID":"containerd://4567","started":true}],"qosClass":"Burstable"}}`
