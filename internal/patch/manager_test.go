package patch

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/object"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestManager(t *testing.T) {
	for _, c := range []struct{ given, agent, want string }{
		{"me", "kubectl/v1.37", "me"},
		{"", "kubectl/v1.37 (linux)", "kubectl"},
		{"", "My Tool", "My Tool"},
		{"", "a\nb\tc/1", "abc"},
		{"", "", ""},
		{"", "/x", ""},
		{"", strings.Repeat("x", 200) + "/1", strings.Repeat("x", 128)},
		{"", strings.Repeat("x", 127) + "é", strings.Repeat("x", 127)},
	} {
		if got := Manager(c.given, c.agent); got != c.want {
			t.Errorf("Manager(%q, %q) = %q, want %q", c.given, c.agent, got, c.want)
		}
	}
}

func configMaps() *Ownership { return NewOwnership(subjectNamed("ConfigMap").options) }

func configMap(data ...string) *corev1.ConfigMap {
	c := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x", UID: "u"}, Data: map[string]string{}}
	for i := 0; i < len(data); i += 2 {
		c.Data[data[i]] = data[i+1]
	}
	return c
}

// owners prints managedFields, one entry after the other.
func owners(obj object.Object) string {
	var all []string
	for _, e := range obj.GetManagedFields() {
		at := "-"
		if e.Time != nil {
			at = fmt.Sprint(e.Time.Unix())
		}
		all = append(all, fmt.Sprintf("%s %s %s %s", e.Manager, e.Operation, at, e.FieldsV1.GetRawString()))
	}
	return strings.Join(all, "; ")
}

func TestUpdateTracking(t *testing.T) {
	o := configMaps()
	created := configMap("a", "b", "c", "d")
	created.UID = ""
	o.Update(nil, created, "one", time.Unix(1, 5))
	created.UID = "u"
	check := func(name string, got object.Object, want string) {
		t.Helper()
		if owners(got) != want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, owners(got), want)
		}
	}
	check("create", created, `one Update 1 {"f:data":{".":{},"f:a":{},"f:c":{}}}`)
	put := configMap("a", "z")
	o.Update(created, put, "two", time.Unix(2, 0))
	check("another's update", put, `one Update 1 {"f:data":{}}; two Update 2 {"f:data":{"f:a":{}}}`)
	again := configMap("a", "z")
	o.Update(put, again, "three", time.Unix(3, 0))
	check("nothing changes", again, owners(put))
	forgotten := configMap("a", "y")
	forgotten.ManagedFields = []metav1.ManagedFieldsEntry{{}}
	o.Update(put, forgotten, "two", time.Unix(3, 0))
	check("reset", forgotten, "")
	later := configMap("a", "x")
	o.Update(forgotten, later, "two", time.Unix(4, 0))
	check("not tracked before an apply", later, "")

	applied := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "x"}, "data": map[string]any{"q": "r"}}}
	merged, err := o.Apply(later, applied, "four", false, time.Unix(5, 0))
	if err != nil {
		t.Fatal(err)
	}
	check("tracked again", merged, `four Apply 5 {"f:data":{"f:q":{}}}; before-first-apply Update 5 {"f:data":{".":{},"f:a":{}}}`)
	same, err := o.Apply(merged, applied, "four", false, time.Unix(9, 0))
	if err != nil || same != merged {
		t.Errorf("applied again: %v, another object %v", err, same != merged)
	}
	applied.Object["data"] = map[string]any{"q": "r", "a": "mine"}
	_, err = o.Apply(merged, applied, "five", false, time.Unix(9, 0))
	fails(t, err, 409, `Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .data.a`)
}

func TestOldestUpdatesAreMerged(t *testing.T) {
	o := configMaps()
	live := configMap("a", "b")
	live.UID = ""
	o.Update(nil, live, "creator", now)
	live.UID = "u"
	for i := range 14 {
		next := object.Copy(live)
		next.Data[fmt.Sprint("k", i)] = "v"
		o.Update(live, next, fmt.Sprint("m", i), now.Add(time.Duration(i)*time.Second))
		live = next
	}
	if n := len(live.ManagedFields); n != updateManagers {
		t.Errorf("%d entries: %s", n, owners(live))
	}
	if got := live.ManagedFields[0].Manager; got != "ancient-changes" {
		t.Errorf("the first is %s: %s", got, owners(live))
	}
}

func TestScale(t *testing.T) {
	paths := ScalePaths{"apps/v1": {"spec", "replicas"}}
	parent := []metav1.ManagedFieldsEntry{{Manager: "m", Operation: "Apply", APIVersion: "apps/v1", FieldsType: "FieldsV1",
		FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:paused":{},"f:replicas":{}}}`)}}
	entries, err := paths.ToScale(parent, "apps/v1")
	if err != nil {
		t.Fatal(err)
	}
	live := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Name: "x", UID: "u", ManagedFields: entries}, Spec: autoscalingv1.ScaleSpec{Replicas: 1}}
	if got := owners(live); got != `m Apply - {"f:spec":{"f:replicas":{}}}` {
		t.Errorf("owners of the scale: %s", got)
	}
	scaled := live.DeepCopy()
	scaled.Spec.Replicas = 5
	NewOwnership(OwnershipOptions{
		Kind: schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}, Subresource: "scale",
		New: func() object.Object { return &autoscalingv1.Scale{} },
	}).Update(live, scaled, "hpa", time.Unix(7, 0))
	after, err := paths.FromScale(parent, scaled.ManagedFields, "apps/v1")
	if err != nil {
		t.Fatal(err)
	}
	deployment := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{ManagedFields: after}}
	if got := owners(deployment); got != `m Apply - {"f:spec":{"f:paused":{}}}; hpa Update - {"f:spec":{"f:replicas":{}}}` {
		t.Errorf("owners of the object: %s", got)
	}
}

// autoscalers is a kind with two versions, of which v2 is stored.
func autoscalers(version string, reference bool) *Ownership {
	return NewOwnership(OwnershipOptions{
		Kind: schema.GroupVersionKind{Group: "autoscaling", Version: version, Kind: "HorizontalPodAutoscaler"},
		New: func() object.Object {
			if version == "v1" {
				return &autoscalingv1.HorizontalPodAutoscaler{}
			}
			return &autoscalingv2.HorizontalPodAutoscaler{}
		},
		Hub: "autoscaling/v2", Reset: []string{"status"}, Reference: reference,
		Convert: func(obj object.Object, to string) (object.Object, error) {
			switch from := obj.(type) {
			case *autoscalingv1.HorizontalPodAutoscaler:
				switch to {
				case "autoscaling/v1":
					return from, nil
				case "autoscaling/v2":
					made := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: from.ObjectMeta}
					made.Spec.MinReplicas, made.Spec.MaxReplicas = from.Spec.MinReplicas, from.Spec.MaxReplicas
					if p := from.Spec.TargetCPUUtilizationPercentage; p != nil {
						made.Spec.Metrics = []autoscalingv2.MetricSpec{{Type: "Resource", Resource: &autoscalingv2.ResourceMetricSource{Name: "cpu", Target: autoscalingv2.MetricTarget{Type: "Utilization", AverageUtilization: p}}}}
					}
					return made, nil
				}
			case *autoscalingv2.HorizontalPodAutoscaler:
				switch to {
				case "autoscaling/v2":
					return from, nil
				case "autoscaling/v1":
					made := &autoscalingv1.HorizontalPodAutoscaler{ObjectMeta: from.ObjectMeta}
					made.Spec.MinReplicas, made.Spec.MaxReplicas = from.Spec.MinReplicas, from.Spec.MaxReplicas
					for _, m := range from.Spec.Metrics {
						if m.Resource != nil {
							made.Spec.TargetCPUUtilizationPercentage = m.Resource.Target.AverageUtilization
						}
					}
					return made, nil
				}
			}
			return nil, fmt.Errorf("%T to %s: %w", obj, to, ErrNoVersion)
		},
	})
}

// Managers of different versions see the object through conversions.
func TestVersions(t *testing.T) {
	doors := map[string][2]*Ownership{}
	for _, v := range []string{"v1", "v2"} {
		doors[v] = [2]*Ownership{autoscalers(v, false), autoscalers(v, true)}
	}
	for seed := range uint64(100) {
		m := mutator{rand.New(rand.NewPCG(seed, 2))}
		number := func() *int32 {
			n := int32(m.IntN(3))
			return &n
		}
		live := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: "x"}}
		doors["v2"][0].Update(nil, live, "creator", now)
		live.UID = "u"
		for step := range 8 {
			version := []string{"v1", "v2"}[m.IntN(2)]
			manager := []string{"a", "b"}[m.IntN(2)]
			at := now.Add(time.Duration(step) * time.Second)
			if m.chance(40) {
				spec := map[string]any{"maxReplicas": int64(m.IntN(3))}
				if version == "v1" && m.chance(50) {
					spec["targetCPUUtilizationPercentage"] = int64(m.IntN(3))
				} else if m.chance(50) {
					spec["minReplicas"] = int64(m.IntN(3))
				}
				applied := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "autoscaling/" + version, "kind": "HorizontalPodAutoscaler", "metadata": map[string]any{"name": "x"}, "spec": spec}}
				force := m.chance(70)
				got, err := doors[version][0].Apply(live, applied, manager, force, at)
				want, wantErr := doors[version][1].Apply(live, applied, manager, force, at)
				if errorLines(err) != errorLines(wantErr) {
					t.Fatalf("seed %d: %v, want %v", seed, err, wantErr)
				}
				if err == nil {
					if d := firstDifference("", asTree(got), asTree(want)); d != "" {
						t.Fatalf("seed %d: %s", seed, d)
					}
					live = got.(*autoscalingv2.HorizontalPodAutoscaler)
				}
				continue
			}
			next := object.Copy(live)
			switch m.IntN(3) {
			case 0:
				next.Spec.MinReplicas = number()
			case 1:
				next.Spec.MaxReplicas = *number()
			case 2:
				next.Spec.Metrics = []autoscalingv2.MetricSpec{{Type: "Resource", Resource: &autoscalingv2.ResourceMetricSource{Name: "cpu", Target: autoscalingv2.MetricTarget{Type: "Utilization", AverageUtilization: number()}}}}
			}
			want := object.Copy(next)
			doors[version][0].Update(live, next, manager, at)
			doors[version][1].Update(live, want, manager, at)
			if owners(next) != owners(want) {
				t.Fatalf("seed %d: update in %s by %s:\ngot  %s\nwant %s", seed, version, manager, owners(next), owners(want))
			}
			live = next
		}
	}
}

// One Ownership and one live object serve many requests at once (run with -race).
func TestConcurrentUse(t *testing.T) {
	main, status := podDoors(false)
	live := storedPod(main, status)
	before := dump(live)
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			next := object.Copy(live)
			next.Status.Reason = fmt.Sprint(i)
			status.Update(live, next, "kubelet", now)
			if _, err := main.Apply(live, appliedPod(), "me", true, now); err != nil {
				t.Error(err)
			}
			p, err := ParseStrategic([]byte(statusPatch))
			if err != nil {
				t.Error(err)
				return
			}
			if _, _, err := p.ApplyTo(live); err != nil {
				t.Error(err)
			}
			m, err := ParseMerge([]byte(`{"spec":{"containers":null},"status":{"reason":"r"}}`))
			if err != nil {
				t.Error(err)
				return
			}
			if _, ok := m.ApplyTo(live); !ok {
				t.Error("not applied")
			}
		})
	}
	group.Wait()
	if dump(live) != before {
		t.Error("live changed")
	}
}

// FieldsV1 texts that nobody would write do not confuse the editor.
func FuzzEditor(f *testing.F) {
	f.Add([]byte(`{"f:data":{".":{},"f:a":{}},"f:metadata":{"f:labels":{"f:l":{}}}}`), "a", true)
	f.Add([]byte(`{"f:metadata":{"f:ownerReferences":{"k:{\"uid\":\"x\"}":{}},"f:finalizers":{"v:\"a\"":{}}}}`), "b", false)
	f.Add([]byte("{\"f:\x1c\":{}}"), "0", true) // not JSON, which protobuf can carry
	f.Add([]byte(`{"f:0":{".":{},}}`), "0", false)
	o := configMaps()
	reference := NewOwnership(OwnershipOptions{Kind: o.Kind, New: o.New, Reference: true})
	f.Fuzz(func(t *testing.T, fields []byte, key string, remove bool) {
		live := configMap("a", "1", "b", "2")
		live.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "m", Operation: "Update", APIVersion: "v1", FieldsType: "FieldsV1", FieldsV1: &metav1.FieldsV1{}}}
		live.ManagedFields[0].FieldsV1.SetRawBytes(fields)
		next := object.Copy(live)
		next.Data[key] = "new"
		if remove {
			delete(next.Data, "b")
		}
		want := object.Copy(next)
		o.Update(live, next, "m", now)
		reference.Update(live, want, "m", now)
		if !reflect.DeepEqual(next.ManagedFields, want.ManagedFields) {
			t.Fatalf("got  %s\nwant %s", owners(next), owners(want))
		}
	})
}

// TestOwnsOnly: through a door that changes one thing, nothing else is owned, whatever was applied.
func TestOwnsOnly(t *testing.T) {
	resize := NewOwnership(OwnershipOptions{
		Kind: corev1.SchemeGroupVersion.WithKind("Pod"), Subresource: "resize", New: func() object.Object { return &corev1.Pod{} },
		Filter: Only([]string{"spec.containers.*.resources", "spec.resources"}),
	})
	live := examplePod()
	live.UID = "u"
	live.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "creator", Operation: "Update", APIVersion: "v1", FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:nodeName":{}}}`)}}
	applied := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": live.Name, "labels": map[string]any{"a": "b"}},
		"spec": map[string]any{"containers": []any{map[string]any{"name": "web", "image": live.Spec.Containers[0].Image, "resources": map[string]any{"limits": map[string]any{"cpu": "2"}}}}},
	}}
	made, err := resize.Apply(live, applied, "autoscaler", true, now)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"f:spec":{"f:containers":{"k:{\"name\":\"web\"}":{".":{},"f:resources":{"f:limits":{"f:cpu":{}}}}}}}`
	for _, e := range made.GetManagedFields() {
		if got := e.FieldsV1.GetRawString(); e.Manager == "autoscaler" && (got != want || e.Subresource != "resize") {
			t.Errorf("owns %s", got)
		}
	}
	if len(made.GetManagedFields()) != 2 {
		t.Errorf("got %s", dump(made.GetManagedFields()))
	}
	next := object.Copy(live)
	next.Spec.Containers[0].Resources.Limits["cpu"] = apiresource.MustParse("3")
	next.Labels["x"] = "y"
	want = strings.Replace(want, `".":{},`, "", 1)
	resize.Update(live, next, "autoscaler", now)
	for _, e := range next.GetManagedFields() {
		if got := e.FieldsV1.GetRawString(); e.Manager == "autoscaler" && got != want {
			t.Errorf("after an update owns %s", got)
		}
	}
}
