package api

import (
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage/watchcache"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// maxTried bounds the objects of a kind that a test tries until one of them shows what it looks for.
const maxTried = 20 * rounds

// TestColumnFields: a row that is made from the fields that the columns are said to look at is that of the whole object, stored with its
// defaults or without, and each of these fields is needed for some row.
func TestColumnFields(t *testing.T) {
	objects := archives(t)
	for _, d := range kind.NewCatalog(Groups(testOptions())...).All() {
		hub := d.Hub()
		if !hub.Persistent() {
			continue
		}
		t.Run(d.Resource().String(), func(t *testing.T) {
			if hub.ColumnFields == nil && len(hub.Columns) > 0 {
				t.Fatal("whole objects are decoded for its rows")
			}
			unneeded := slices.Clone(hub.ColumnFields)
			check := func(obj object.Object) {
				_, v := write(t, hub, obj)
				checkRow(t, d, v)
				if d == hub {
					unneeded = slices.DeleteFunc(unneeded, func(field string) bool { return rowNeeds(t, d, v, field) })
				}
			}
			for _, a := range objects {
				if a.kind != hub.GroupVersionKind() {
					continue
				}
				obj := hub.New()
				if err := yaml.Unmarshal(a.text, obj); err != nil {
					t.Fatal(err)
				}
				check(obj)
			}
			random := filler(int64(len(d.Plural)))
			for n := 0; n < rounds || len(unneeded) > 0 && d == hub && n < maxTried; n++ {
				obj := hub.New()
				random.Fill(obj)
				if n%2 == 0 {
					obj.SetDeletionTimestamp(&metav1.Time{Time: time.Unix(1e9, 0)})
				}
				if n%3 == 0 && hub.Default != nil {
					hub.Default(obj)
				}
				if check(obj); t.Failed() {
					return
				}
			}
			if d == hub && len(unneeded) > 0 {
				t.Errorf("no row of %d needs the fields %q", maxTried, unneeded)
			}
		})
	}
}

// checkRow compares the row of a stored object with that of the decoded one.
func checkRow(t *testing.T, d *kind.Definition, v *watchcache.Version) {
	t.Helper()
	whole, err := codec.DecodeVersion(d.Hub(), v)
	if err != nil {
		t.Fatal(err)
	}
	want, got := row(t, codec.Item{Definition: d, Object: whole}), row(t, codec.Item{Definition: d, Version: v})
	if got != want {
		t.Error(cmp.Diff(want, got))
	}
}

// rowNeeds reports whether a row would be another one if its columns did not see a field.
func rowNeeds(t *testing.T, d *kind.Definition, v *watchcache.Version, field string) bool {
	t.Helper()
	less := *d
	less.ColumnFields = slices.DeleteFunc(slices.Clone(d.ColumnFields), func(f string) bool { return f == field })
	return row(t, codec.Item{Definition: &less, Version: v}) != row(t, codec.Item{Definition: d, Version: v})
}

func row(t *testing.T, i codec.Item) string {
	t.Helper()
	if i.Version != nil {
		i.Version.Derived.Store(nil) // what was made of it before
	}
	e := codec.Encoder{
		Definition: i.Definition, Format: codec.Format{View: codec.AsTable, ViewVersion: "v1", IncludeObject: "None"},
		Now: func() time.Time { return time.Unix(1e9, 0) },
	}
	text, err := e.Object(i)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// BenchmarkRows writes tables of objects as clusters have them, made from the fields that their columns look at and from whole objects.
func BenchmarkRows(b *testing.B) {
	const n = 100
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{
		Name: "web", Image: "registry.example/web:1.2.3",
		Env:          []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "2"}, {Name: "C", Value: "3"}},
		VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}},
	}}}}
	node := &corev1.Node{Status: corev1.NodeStatus{
		Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.1"}},
		Conditions: []corev1.NodeCondition{{Type: "MemoryPressure", Status: "False"}, {Type: corev1.NodeReady, Status: "True", Reason: "KubeletReady"}},
	}}
	for i := range 50 { // as many as a node agent tells
		name := fmt.Sprint("registry.example/team/image-", i)
		node.Status.Images = append(node.Status.Images, corev1.ContainerImage{Names: []string{name + ":1.2.3", name + "@sha256:" + strings.Repeat("0", 64)}, SizeBytes: 1 << 20})
	}
	large := strings.Repeat("x", 10<<10)
	all := []object.Object{
		&corev1.Service{Spec: corev1.ServiceSpec{
			ClusterIPs: []string{"10.96.0.10"}, Selector: map[string]string{"app": "web"},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80}, {Name: "https", Port: 443}},
		}},
		node,
		&batchv1.Job{Spec: batchv1.JobSpec{Template: template}, Status: batchv1.JobStatus{Succeeded: 1, Conditions: []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: "True"}}}},
		&corev1.ConfigMap{Data: map[string]string{"a": large, "b": large}},
		&corev1.Secret{Data: map[string][]byte{"a": []byte(large), "b": []byte(large)}},
	}
	catalog := kind.NewCatalog(Groups(testOptions())...)
	for _, obj := range all {
		d := catalog.All()[slices.IndexFunc(catalog.All(), func(d *kind.Definition) bool { return d.GoType() == reflect.TypeOf(obj).Elem() })]
		obj.SetName("web")
		obj.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: "kubectl", Operation: metav1.ManagedFieldsOperationApply, FieldsV1: &metav1.FieldsV1{Raw: []byte(`{"f:spec":{"f:a":{},"f:b":{}}}`)}}})
		if d.Default != nil {
			d.Default(obj)
		}
		undeclared := *d
		undeclared.ColumnFields = nil
		for _, from := range []struct {
			name string
			d    *kind.Definition
		}{{"fields", d}, {"whole", &undeclared}} {
			items := make([]codec.Item, n)
			for i := range items {
				_, v := write(b, d, obj)
				v.Defaulted.Store(true)
				items[i] = codec.Item{Definition: from.d, Version: v}
			}
			b.Run(d.Kind+"/"+from.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					for i := range items {
						items[i].Version.Derived.Store(nil)
					}
					e := codec.Encoder{Definition: from.d, Format: codec.Format{View: codec.AsTable, ViewVersion: "v1", IncludeObject: "None"}}
					if err := e.WriteList(io.Discard, items, metav1.ListMeta{}); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/row")
			})
		}
	}
}
