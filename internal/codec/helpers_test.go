package codec

import (
	"math/rand"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/watchcache"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	"k8s.io/apimachinery/pkg/api/resource"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/randfill"
)

// The kinds of the tests: one without fields, one with fields of every sort, one that is a tree.
var (
	configMaps = completed(&kind.Definition{Version: "v1", Kind: "ConfigMap", Plural: "configmaps", Scope: kind.Namespaced, New: kind.Of[corev1.ConfigMap]()})
	pods       = completed(&kind.Definition{Version: "v1", Kind: "Pod", Plural: "pods", Scope: kind.Namespaced, New: kind.Of[corev1.Pod](),
		Fields: []kind.Field{
			{Label: "spec.nodeName", Indexed: true}, {Label: "status.phase"}, {Label: "spec.hostNetwork"},
			{Label: "spec.terminationGracePeriodSeconds"}, {Label: "either", Path: "status.podIP", Else: "status.hostIP"},
		},
		Columns: kind.Columns{
			{Name: "Phase", Of: kind.Cell(func(p *corev1.Pod) any { return string(p.Status.Phase) })},
			{Name: "Containers", Type: "integer", Of: kind.Cell(func(p *corev1.Pod) any { return int64(len(p.Spec.Containers)) })},
			kind.Age,
		},
	})
	jobs    = completed(&kind.Definition{Group: "batch", Version: "v1", Kind: "Job", Plural: "jobs", Scope: kind.Namespaced, New: kind.Of[batchv1.Job](), Fields: []kind.Field{{Label: "status.succeeded"}}})
	widgets = completed(&kind.Definition{Group: "example.com", Version: "v1", Kind: "Widget", Plural: "widgets", Scope: kind.Namespaced,
		Stored: kind.Stored{Encoding: kind.JSON}, New: func() object.Object { return &unstructured.Unstructured{} },
		Prune:  func(object.Object, bool) ([]string, error) { return nil, nil },
		Fields: []kind.Field{{Label: "spec.color"}, {Label: "spec.size"}, {Label: "spec.on"}},
	})
)

func completed(d *kind.Definition) *kind.Definition {
	d.Complete()
	return d
}

func tree(name string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "example.com/v1", "kind": "Widget",
		"metadata": map[string]any{"name": name, "namespace": "a", "uid": "u-" + name, "labels": map[string]any{"app": "x", "tier": name}},
		"spec":     map[string]any{"color": "red <&> \"green\"", "size": int64(3), "on": true, "list": []any{"}", "{\"", nil, 1.5}},
	}}
}

// versionOf is an object as it is stored and cached.
func versionOf(t testing.TB, d *kind.Definition, obj object.Object, revision storage.Revision) *watchcache.Version {
	t.Helper()
	value, err := EncodeStored(d, obj)
	if err != nil {
		t.Fatal(err)
	}
	v, err := stamp(d, value, revision)
	if err != nil {
		t.Fatal(err)
	}
	v.Name, v.Namespace = obj.GetName(), obj.GetNamespace()
	return v
}

// filler fills objects with random values that could have been decoded.
func filler(seed int64) *randfill.Filler {
	own := func(serializer.CodecFactory) []any {
		return []any{
			func(q *resource.Quantity, c randfill.Continue) {
				*q = *resource.NewQuantity(c.Int63n(1<<40), resource.DecimalSI)
			},
			func(i *intstr.IntOrString, c randfill.Continue) { *i = intstr.FromInt32(c.Int31()) },
			func(b *[]byte, c randfill.Continue) { *b = []byte(c.String(9)) }, // decoding never leaves nil in a map
			func(r *runtime.RawExtension, _ randfill.Continue) { r.Raw, r.Object = []byte(`{"a":1}`), nil },
		}
	}
	return fuzzer.FuzzerFor(fuzzer.MergeFuzzerFuncs(metafuzzer.Funcs, own), rand.NewSource(seed), serializer.NewCodecFactory(runtime.NewScheme())).NilChance(0.4).NumElements(0, 2)
}

// builtIn is a definition for every stored kind that client-go knows: all of k8s.io/api.
func builtIn() []*kind.Definition {
	var all []*kind.Definition
	for gvk, typ := range scheme.Scheme.AllKnownTypes() {
		v := reflect.New(typ).Interface()
		_, isObject := v.(object.Object)
		_, isMessage := v.(message)
		if !isObject || !isMessage || gvk.Version == runtime.APIVersionInternal || strings.HasPrefix(typ.PkgPath(), "k8s.io/apimachinery") {
			continue
		}
		all = append(all, completed(&kind.Definition{
			Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind, Plural: strings.ToLower(gvk.Kind), Scope: kind.Namespaced,
			New: func() object.Object { return reflect.New(typ).Interface().(object.Object) },
		}))
	}
	slices.SortFunc(all, func(a, b *kind.Definition) int {
		return strings.Compare(a.GroupVersionKind().String(), b.GroupVersionKind().String())
	})
	return all
}

// each calls f with random objects of every kind. A failure names the seed that replays it.
func each(t *testing.T, definitions []*kind.Definition, rounds int64, f func(t *testing.T, d *kind.Definition, obj object.Object)) {
	for _, d := range definitions {
		t.Run(d.GroupVersionKind().String(), func(t *testing.T) {
			for seed := range rounds {
				obj := d.New()
				filler(seed).Fill(obj)
				SetKind(obj, d.GroupVersionKind())
				if f(t, d, obj); t.Failed() {
					t.Fatalf("with seed %d", seed)
				}
			}
		})
	}
}
