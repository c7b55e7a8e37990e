package patch

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/timonel/timonel/internal/object"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// fails checks an error's code and message; code 0 means none, 500 a plain error.
func fails(t *testing.T, err error, code int32, message string) {
	t.Helper()
	var status *apierrors.StatusError
	switch {
	case code == 0:
		if err != nil {
			t.Errorf("unexpected error: %v", err)
		}
	case err == nil:
		t.Errorf("no error; want %d %s", code, message)
	case code == 500 && errors.As(err, &status), code != 500 && !errors.As(err, &status):
		t.Errorf("%T %v; want code %d", err, err, code)
	case code != 500 && status.ErrStatus.Code != code, err.Error() != message:
		t.Errorf("error %q %+v; want %d %q", err, status, code, message)
	}
}

func TestJSON(t *testing.T) {
	const doc = `{"data":{"a":"9","b":"2"},"list":[1,2]}`
	const generic = "the server rejected our request due to an error in our request"
	for _, c := range []struct {
		name, patch, want string
		code              int32
		message           string
		strict            string
	}{
		{name: "replace", patch: `[{"op":"replace","path":"/data/a","value":"x"}]`, want: `{"data":{"a":"x","b":"2"},"list":[1,2]}`},
		{name: "remove", patch: `[{"op":"remove","path":"/data/b"}]`, want: `{"data":{"a":"9"},"list":[1,2]}`},
		{name: "remove absent", patch: `[{"op":"remove","path":"/data/zz"}]`, code: 422, message: generic},
		{name: "test", patch: `[{"op":"test","path":"/data/a","value":"8"}]`, code: 422, message: generic},
		{name: "escaped", patch: `[{"op":"add","path":"/data/c~1d","value":"x"}]`, want: `{"data":{"a":"9","b":"2","c/d":"x"},"list":[1,2]}`},
		{name: "copy and move", patch: `[{"op":"copy","from":"/data/a","path":"/data/e"},{"op":"move","from":"/data/a","path":"/data/f"}]`, want: `{"data":{"b":"2","e":"9","f":"9"},"list":[1,2]}`},
		{name: "unknown op", patch: `[{"op":"frob","path":"/data/a"}]`, code: 422, message: generic},
		{name: "object", patch: `{"op":"add"}`, code: 400, message: "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"},
		{name: "number in list", patch: `[1]`, code: 400, message: "error decoding patch: json: cannot unmarshal number into Go value of type handlers.jsonPatchOp"},
		{name: "op is a number", patch: `[{"op":1}]`, code: 400, message: "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string"},
		{name: "not JSON", patch: `[{`, code: 400, message: "invalid JSON patch"},
		{name: "absent parent", patch: `[{"op":"add","path":"/binaryData/x","value":"YQ=="}]`, code: 422, message: generic},
		{name: "empty", patch: `[]`, want: doc},
		{name: "whole", patch: `[{"op":"replace","path":"","value":{}}]`, want: `{}`},
		{name: "end of list", patch: `[{"op":"add","path":"/list/-","value":3}]`, want: `{"data":{"a":"9","b":"2"},"list":[1,2,3]}`},
		{name: "unknown field", patch: `[{"op":"add","path":"/data/c","value":"x","foo":1}]`, want: `{"data":{"a":"9","b":"2","c":"x"},"list":[1,2]}`, strict: `[json patch unknown field "[0].foo"]`},
		{name: "repeated field", patch: `[{"op":"add","op":"add","path":"/data/c","value":"x"}]`, want: `{"data":{"a":"9","b":"2","c":"x"},"list":[1,2]}`, strict: `[json patch duplicate field "[0].op"]`},
		{name: "too many", patch: "[" + strings.Repeat(`{"op":"test","path":"/list","value":[1,2]},`, OperationLimit) + `{"op":"remove","path":"/list"}]`, code: 413,
			message: "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"},
		{name: "grows too much", patch: `[{"op":"add","path":"/x","value":"` + strings.Repeat("x", 1<<20) + `"}` + strings.Repeat(`,{"op":"copy","from":"/x","path":"/list/-"}`, 4) + `]`, code: 422, message: generic},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := JSON([]byte(doc), []byte(c.patch))
			fails(t, err, c.code, c.message)
			if c.code == 0 && !sameJSON(t, got, c.want) {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if p, err := ParseJSON([]byte(c.patch)); err == nil && fmt.Sprint(p.Strict) != "["+strings.Trim(c.strict, "[]")+"]" && fmt.Sprint(p.Strict) != c.strict {
				t.Errorf("strict %v, want %s", p.Strict, c.strict)
			}
		})
	}
}

func sameJSON(t *testing.T, got []byte, want string) bool {
	t.Helper()
	var g, w any
	if err := json.Unmarshal(got, &g); err != nil {
		t.Fatalf("%s: %v", got, err)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(g, w)
}

func TestMerge(t *testing.T) {
	const doc = `{"data":{"a":"9","b":"2"},"n":1}`
	for _, c := range []struct {
		name, patch, want string
		code              int32
		message, strict   string
	}{
		{name: "set", patch: `{"data":{"a":"x"}}`, want: `{"data":{"a":"x","b":"2"},"n":1}`},
		{name: "null removes", patch: `{"data":{"b":null},"zz":null}`, want: `{"data":{"a":"9"},"n":1}`},
		{name: "null", patch: `null`, code: 400, message: "Invalid JSON Patch"},
		{name: "nulls below what is new", patch: `{"new":{"x":null,"y":{"z":null}},"list":[{"a":null}]}`, want: `{"data":{"a":"9","b":"2"},"n":1,"new":{"y":{}},"list":[{}]}`},
		{name: "empty", patch: `{}`, want: doc},
		{name: "not JSON", patch: `{`, code: 400, message: "invalid JSON patch"},
		{name: "YAML", patch: `data: {a: b}`, code: 400, message: "invalid JSON patch"},
		{name: "list", patch: `[]`, code: 400, message: "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"},
		{name: "repeated", patch: `{"data":{"a":"1","a":"2"}}`, want: `{"data":{"a":"2","b":"2"},"n":1}`, strict: `duplicate field "data.a"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Merge([]byte(doc), []byte(c.patch))
			fails(t, err, c.code, c.message)
			if c.code == 0 && !sameJSON(t, got, c.want) {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if p, err := ParseMerge([]byte(c.patch)); err == nil && fmt.Sprint(p.Strict) != "["+c.strict+"]" {
				t.Errorf("strict %v, want %s", p.Strict, c.strict)
			}
		})
	}
}

func TestUndecodable(t *testing.T) {
	err := Undecodable([]byte(`{"a":1}`), runtime.NewStrictDecodingError([]error{errors.New(`unknown field "a"`)}))
	fails(t, err, 422, ` "" is invalid: patch: Invalid value: "{\"a\":1}": strict decoding error: unknown field "a"`)
}

func TestStrategic(t *testing.T) {
	deployment := func() *appsv1.Deployment {
		replicas := int32(1)
		return &appsv1.Deployment{
			TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
			ObjectMeta: metav1.ObjectMeta{Name: "x", Finalizers: []string{"example.com/a"}},
			Spec: appsv1.DeploymentSpec{Replicas: &replicas, Strategy: appsv1.DeploymentStrategy{Type: "RollingUpdate", RollingUpdate: &appsv1.RollingUpdateDeployment{}},
				Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b", "c": "d"}}, Spec: corev1.PodSpec{
					Containers:  []corev1.Container{{Name: "c", Image: "i", Env: []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "2"}}}, {Name: "d", Image: "j"}},
					Tolerations: []corev1.Toleration{{Key: "old"}},
				}}},
		}
	}
	for _, c := range []struct {
		name, patch string
		change      func(d *appsv1.Deployment)
		code        int32
		message     string
		strict      string
	}{
		{name: "by name", patch: `{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"n"}]}}}}`,
			change: func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "n" }},
		{name: "delete item", patch: `{"spec":{"template":{"spec":{"containers":[{"name":"d","$patch":"delete"}]}}}}`,
			change: func(d *appsv1.Deployment) {
				d.Spec.Template.Spec.Containers = d.Spec.Template.Spec.Containers[:1]
			}},
		{name: "order", patch: `{"spec":{"template":{"spec":{"$setElementOrder/containers":[{"name":"d"},{"name":"c"}],"containers":[{"name":"d","image":"z"}]}}}}`,
			change: func(d *appsv1.Deployment) {
				c := d.Spec.Template.Spec.Containers
				c[1].Image = "z"
				c[0], c[1] = c[1], c[0]
			}},
		{name: "retainKeys", patch: `{"spec":{"strategy":{"$retainKeys":["type"],"type":"Recreate"}}}`,
			change: func(d *appsv1.Deployment) { d.Spec.Strategy = appsv1.DeploymentStrategy{Type: "Recreate"} }},
		{name: "no merge key", patch: `{"spec":{"template":{"spec":{"containers":[{"image":"y"}]}}}}`, code: 500,
			message: "map: map[image:y] does not contain declared merge key: name"},
		{name: "null", patch: `{"spec":{"strategy":null}}`, change: func(d *appsv1.Deployment) { d.Spec.Strategy = appsv1.DeploymentStrategy{} }},
		{name: "bad directive", patch: `{"spec":{"template":{"$patch":"frob"}}}`, code: 500, message: "unknown patch type: frob in map: map[$patch:frob]"},
		{name: "replace map", patch: `{"spec":{"template":{"metadata":{"labels":{"$patch":"replace","n":"w"}}}}}`,
			change: func(d *appsv1.Deployment) { d.Spec.Template.Labels = map[string]string{"n": "w"} }},
		{name: "replace struct", patch: `{"spec":{"$patch":"replace","paused":true}}`, change: func(d *appsv1.Deployment) { d.Spec = appsv1.DeploymentSpec{Paused: true} }},
		{name: "list without strategy", patch: `{"spec":{"template":{"spec":{"tolerations":[{"key":"k"}]}}}}`,
			change: func(d *appsv1.Deployment) { d.Spec.Template.Spec.Tolerations = []corev1.Toleration{{Key: "k"}} }},
		{name: "set", patch: `{"metadata":{"finalizers":["example.com/b"]}}`,
			change: func(d *appsv1.Deployment) { d.Finalizers = []string{"example.com/b", "example.com/a"} }},
		{name: "delete from set", patch: `{"metadata":{"$deleteFromPrimitiveList/finalizers":["example.com/a"]}}`,
			change: func(d *appsv1.Deployment) { d.Finalizers = []string{} }},
		{name: "unknown field", patch: `{"spec":{"nope":1}}`, strict: `unknown field "spec.nope"`},
		{name: "unknown field of item", patch: `{"spec":{"template":{"spec":{"containers":[{"name":"c","zip":1}]}}}}`, strict: `unknown field "spec.template.spec.containers[0].zip"`},
		{name: "wrong type", patch: `{"spec":{"replicas":"many"}}`, code: 422,
			message: ` "" is invalid: patch: Invalid value: "map[spec:map[replicas:many]]": unrecognized type: int32`},
		{name: "merge key that is a map", patch: `{"spec":{"template":{"spec":{"containers":[{"name":{}},{"name":{}}],"$setElementOrder/containers":[{"name":{}},{"name":"c"}]}}}}`, code: 422,
			message: ` "" is invalid: patch: Invalid value: "map[spec:map[template:map[spec:map[$setElementOrder/containers:[map[name:map[]] map[name:c]] containers:[map[name:map[]] map[name:map[]]]]]]]": merge keys cannot be compared: runtime error: comparing uncomparable type map[string]interface {}`},
		{name: "bad order", patch: `{"spec":{"template":{"spec":{"$setElementOrder/containers":1}}}}`, code: 500, message: "expected a []interface {}, but received a int64"},
		{name: "bad order list", patch: `{"spec":{"$setElementOrder":[]}}`, code: 400, message: "invalid patch format of setElementOrder list"},
	} {
		t.Run(c.name, func(t *testing.T) {
			live := deployment()
			p, err := ParseStrategic([]byte(c.patch))
			if err != nil {
				t.Fatal(err)
			}
			got, strict, err := p.ApplyTo(live)
			fails(t, err, c.code, c.message)
			if !reflect.DeepEqual(live, deployment()) {
				t.Error("live changed")
			}
			if err != nil {
				return
			}
			want := deployment()
			if c.change != nil {
				c.change(want)
			}
			if !reflect.DeepEqual(got, object.Object(want)) {
				t.Errorf("got %s\nwant %s", dump(got), dump(want))
			}
			if fmt.Sprint(strict) != "["+c.strict+"]" {
				t.Errorf("strict %v, want %s", strict, c.strict)
			}
			again, _, _ := p.ApplyTo(live)
			if !reflect.DeepEqual(again, got) {
				t.Errorf("applied again: %s", dump(again))
			}
		})
	}
}

func TestParseApply(t *testing.T) {
	for _, c := range []struct {
		name, body, want string
		code             int32
		message, strict  string
	}{
		{name: "JSON", body: ` {"apiVersion":"v1","count":5}`, want: `{"apiVersion":"v1","count":5}`},
		{name: "YAML", body: "apiVersion: v1\ncount: 5\n", want: `{"apiVersion":"v1","count":5}`},
		{name: "bad", body: "a: [", code: 400, message: "error encoding patch: yaml: line 1: did not find expected node content"},
		{name: "list", body: "[]", code: 400, message: "error decoding patch: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array into Go value of type map[string]interface {}"},
		{name: "repeated", body: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: b, a: c}\n", want: `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":"c"}}`,
			strict: `line 4: key "a" already set in map`},
		{name: "repeated in JSON", body: `{"a":1,"a":2}`, want: `{"a":2}`, strict: `line 1: key "a" already set in map`},
		{name: "empty", body: "", want: `{}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, strict, err := ParseApply([]byte(c.body))
			fails(t, err, c.code, c.message)
			if err != nil {
				return
			}
			if !sameJSON(t, []byte(dump(got.Object)), c.want) {
				t.Errorf("got %s, want %s", dump(got), c.want)
			}
			if n, ok := got.Object["count"]; ok && n != int64(5) {
				t.Errorf("numbers are read as %T", n)
			}
			if fmt.Sprint(strict) != "["+c.strict+"]" {
				t.Errorf("strict %v, want %s", strict, c.strict)
			}
		})
	}
}

// Patching the part of an object that a patch names gives the same as patching
// the whole of it.
func TestPartEqualsWhole(t *testing.T) {
	for _, s := range subjects(t) {
		if s.options.Schema != nil {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			parts, all := 0, 0
			for seed := range uint64(*seeds) {
				h := newHistory(t, s, seed)
				live := s.start()
				h.mutate(live)
				for range 4 {
					next := object.Copy(live)
					h.mutate(next)
					all++
					if h.strategicPart(live, next) {
						parts++
					}
					h.mergePart(live, next)
					live = next
				}
			}
			if parts*3 < all*2 {
				t.Errorf("only %d of %d patches were applied to parts", parts, all)
			}
		})
	}
}

func FuzzPartEqualsWhole(f *testing.F) {
	all := subjects(f)[:11]
	f.Add(uint8(0), uint64(1))
	f.Fuzz(func(t *testing.T, which uint8, seed uint64) {
		h := newHistory(t, all[int(which)%len(all)], seed)
		live := h.subject.start()
		h.mutate(live)
		next := object.Copy(live)
		h.mutate(next)
		h.strategicPart(live, next)
		h.mergePart(live, next)
	})
}

func (h *history) strategicPart(live, next object.Object) bool {
	body, err := strategicpatch.CreateTwoWayMergePatch([]byte(dump(live)), []byte(dump(next)), live)
	if err != nil {
		return true // repeated merge keys
	}
	p, err := ParseStrategic(body)
	if err != nil {
		h.t.Fatal(err)
	}
	before := dump(live)
	got, ok := p.applyToPart(live)
	if dump(live) != before {
		h.t.Fatalf("%s: the patch changed live: %s", h.subject.name, body)
	}
	if !ok {
		return false
	}
	tree, err := runtime.DefaultUnstructuredConverter.ToUnstructured(live)
	if err != nil {
		h.t.Fatal(err)
	}
	result, err := p.patch(tree, strategicpatch.PatchMetaFromStruct{T: reflect.TypeOf(live).Elem()})
	want := h.subject.options.New()
	if err == nil {
		err = runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(result, want, true)
	}
	if err != nil {
		h.t.Fatalf("%s: the part can be patched, the whole not: %v", h.subject.name, err)
	}
	if d := firstDifference("", asTree(got), asTree(want)); d != "" {
		h.t.Fatalf("%s: patch %s: %s\nlive %s", h.subject.name, body, d, dump(live))
	}
	return true
}

func (h *history) mergePart(live, next object.Object) {
	patch := mergeDiff(asTree(live).(map[string]any), asTree(next).(map[string]any))
	if h.mutator.chance(20) {
		patch = mutator{rand.New(rand.NewPCG(h.mutator.Uint64(), 1))}.typed(h.schema("").root, patch, 4).(map[string]any)
	}
	body := []byte(dump(patch))
	p, err := ParseMerge(body)
	if err != nil {
		h.t.Fatal(err)
	}
	got, ok := p.ApplyTo(live)
	if !ok {
		return
	}
	doc, err := p.Apply([]byte(dump(live)))
	if err != nil {
		h.t.Fatal(err)
	}
	want := h.subject.options.New()
	if err := json.Unmarshal(doc, want); err != nil {
		h.t.Fatalf("%s: patch %s: the part can be patched, the whole not: %v", h.subject.name, body, err)
	}
	if d := firstDifference("", asTree(got), asTree(want)); d != "" {
		h.t.Fatalf("%s: merge patch %s: %s\nlive %s", h.subject.name, body, d, dump(live))
	}
}

// mergeDiff is the merge patch from a to b.
func mergeDiff(a, b map[string]any) map[string]any {
	patch := map[string]any{}
	for _, key := range sortedKeys(a, b) {
		x, y := a[key], b[key]
		if _, ok := b[key]; !ok {
			patch[key] = nil
			continue
		}
		if m, ok := x.(map[string]any); ok {
			if n, ok := y.(map[string]any); ok {
				if d := mergeDiff(m, n); len(d) > 0 {
					patch[key] = d
				}
				continue
			}
		}
		if !equalTrees(x, y) {
			patch[key] = y
		}
	}
	return patch
}

func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"a":[1,{"b":"c"}]}`), []byte(`[{"op":"add","path":"/a/-","value":{"x":null}},{"op":"move","from":"/a/1/b","path":"/q"}]`))
	f.Add([]byte(`{}`), []byte(`[{"op":"test","path":"","value":{}}]`))
	f.Fuzz(func(t *testing.T, doc, patch []byte) {
		if !json.Valid(doc) || len(doc) == 0 || doc[0] != '{' {
			return
		}
		if got, err := JSON(doc, patch); err == nil && !json.Valid(got) {
			t.Fatalf("not JSON: %s", got)
		}
	})
}
