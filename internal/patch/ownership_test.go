package patch

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/object"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// history plays random writes of many managers on an object through the short
// cuts and through the reference implementation, which must record the same.
type history struct {
	t       testing.TB
	subject subject
	mutator mutator
	doors   map[string]*Ownership // by subresource
	oracles map[string]*Ownership
	now     time.Time

	updates, quick        int
	applies, quickApplies int
	configs               map[string]*unstructured.Unstructured // last applied, by manager
}

func newHistory(t testing.TB, s subject, seed uint64) *history {
	h := &history{t: t, subject: s, mutator: mutator{rand.New(rand.NewPCG(seed, 1))}, now: time.Unix(1_700_000_000, 0).UTC(),
		doors: map[string]*Ownership{}, oracles: map[string]*Ownership{}, configs: map[string]*unstructured.Unstructured{}}
	for subresource, reset := range map[string][]string{"": {"status"}, "status": {"spec", "metadata.ownerReferences"}} {
		options := s.options
		options.Subresource, options.Reset = subresource, reset
		h.open(subresource, options)
		if s.other != nil {
			h.open(otherVersion+subresource, s.other(options))
		}
	}
	return h
}

// open makes a door and its oracle.
func (h *history) open(door string, options OwnershipOptions) {
	h.doors[door] = NewOwnership(options)
	options.Reference = true
	h.oracles[door] = NewOwnership(options)
}

// otherVersion before the name of a door makes it that of the kind's other version.
const otherVersion = "@"

func (h *history) door() string {
	door := ""
	if h.subject.other != nil && h.mutator.chance(40) {
		door = otherVersion
	}
	if h.mutator.chance(30) {
		door += "status"
	}
	return door
}

// at returns an object as a door gets it: a Go object in the hub's version, a tree in the door's version, pruned to its schema and
// without what does not fit it.
func (h *history) at(door string, obj object.Object) object.Object {
	if obj == nil || h.subject.other == nil {
		return obj
	}
	if _, isTree := obj.(*unstructured.Unstructured); !isTree {
		return obj
	}
	o := h.doors[door]
	made, err := o.toVersion(obj, o.apiVersion)
	if err != nil {
		h.t.Fatal(err)
	}
	tree, root := made.(*unstructured.Unstructured), h.schema(door).root
	for _, key := range []string{"spec", "status"} {
		t := root.fields.typeOf(key)
		if v, ok := tree.Object[key]; ok && !valid(t, prune(t, v)) {
			delete(tree.Object, key)
		}
	}
	return made
}

// prune drops the fields that a schema does not know.
func prune(t *typ, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key := range v {
			at := (*typ)(nil)
			if t != nil && t.fields != nil {
				at = t.fields.typeOf(key)
			}
			if at == nil {
				delete(v, key)
				continue
			}
			prune(at, v[key])
		}
	case []any:
		for _, item := range v {
			if t != nil && t.list != nil {
				prune(t.list.elem, item)
			}
		}
	}
	return v
}

func (h *history) manager() string {
	return []string{"kubectl", "kubelet", "controller", "Mixed <x>", ""}[h.mutator.IntN(5)]
}

func (h *history) mutate(obj object.Object) {
	for range 1 + h.mutator.IntN(3) {
		if u, ok := obj.(*unstructured.Unstructured); ok {
			field := []string{"spec", "spec", "status"}[h.mutator.IntN(3)]
			if h.mutator.chance(20) {
				u.SetLabels(map[string]string{h.mutator.word(): h.mutator.word()})
				continue
			}
			tree, _ := u.Object[field].(map[string]any)
			if tree == nil {
				tree = map[string]any{}
			}
			schema, _ := h.subject.options.Schema(u.GetAPIVersion())
			u.Object[field] = h.mutator.typed(schema.root.fields.typeOf(field), tree, 4)
			continue
		}
		v := reflect.ValueOf(obj).Elem()
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; name != "TypeMeta" && h.mutator.chance(60) {
				h.mutator.value(v.Field(i), 4)
			}
		}
	}
}

func (h *history) update(live, obj object.Object, door, manager string) object.Object {
	h.updates++
	live, obj = h.at(door, live), h.at(door, obj)
	if entries, ok := h.doors[door].quickUpdate(live, obj, manager, h.now); ok {
		h.quick++
		_ = entries
	}
	want := object.Copy(obj)
	liveBefore := object.Copy(live)
	h.doors[door].Update(live, obj, manager, h.now)
	h.oracles[door].Update(live, want, manager, h.now)
	if !reflect.DeepEqual(live, liveBefore) {
		h.t.Fatalf("%s: update changed live", h.subject.name)
	}
	if got, want := dump(obj.GetManagedFields()), dump(want.GetManagedFields()); got != want {
		h.t.Fatalf("%s: door %q manager %q:\nlive %s\nnew  %s\ngot  %s\nwant %s", h.subject.name, door, manager, dump(live), dump(obj), got, want)
	}
	return obj
}

// apply applies through both and compares results, errors included.
func (h *history) apply(live object.Object, config *unstructured.Unstructured, door, manager string, force bool) object.Object {
	h.applies++
	live = h.at(door, live)
	from := live
	if from == nil {
		from = h.doors[door].New()
	}
	if _, ok := h.doors[door].quickApply(from, config, manager, force, h.now); ok {
		h.quickApplies++
	}
	before, configBefore := dump(live), dump(config)
	got, err := h.doors[door].Apply(live, config, manager, force, h.now)
	if dump(live) != before || dump(config) != configBefore {
		h.t.Fatalf("%s: apply changed its arguments", h.subject.name)
	}
	want, wantErr := h.oracles[door].Apply(live, config, manager, force, h.now)
	if errorLines(err) != errorLines(wantErr) {
		h.t.Fatalf("%s: apply error\ngot  %v\nwant %v", h.subject.name, err, wantErr)
	}
	if err != nil {
		return nil
	}
	if diff := firstDifference("", asTree(got), asTree(want)); diff != "" {
		h.t.Fatalf("%s: door %q manager %q force %v: %s\nlive    %s\napplied %s", h.subject.name, door, manager, force, diff, dump(live), dump(config))
	}
	return got
}

// asTree is the JSON form of an object without what says its type.
func asTree(obj object.Object) any {
	var tree map[string]any
	if err := json.Unmarshal([]byte(dump(obj)), &tree); err != nil {
		panic(err)
	}
	delete(tree, "apiVersion")
	delete(tree, "kind")
	return tree
}

// errorLines are the lines of an error in alphabetical order: the reference
// implementation walks maps.
func errorLines(err error) string {
	lines := strings.Split(fmt.Sprint(err), "\n")
	for _, fault := range []string{"failed to create typed patch object", "field not declared in schema", ": expected "} {
		if strings.Contains(lines[0], fault) || len(lines) > 1 && strings.Contains(lines[1], fault) {
			return "invalid" // and of several faults any may be told
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func firstDifference(path string, got, want any) string {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			break
		}
		for _, key := range sortedKeys(g, w) {
			x, inGot := g[key]
			y, inWant := w[key]
			if inGot != inWant {
				return fmt.Sprintf("%s.%s: got %s, want %s", path, key, dump(x), dump(y))
			}
			if d := firstDifference(path+"."+key, x, y); d != "" {
				return d
			}
		}
		return ""
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			break
		}
		for i := range w {
			if d := firstDifference(fmt.Sprintf("%s[%d]", path, i), g[i], w[i]); d != "" {
				return d
			}
		}
		return ""
	}
	if equalTrees(got, want) {
		return ""
	}
	return fmt.Sprintf("%s: got %s, want %s", path, dump(got), dump(want))
}

// config makes a configuration: a part of the live object, changed here and there.
func (h *history) config(live object.Object, manager, door string) *unstructured.Unstructured {
	if last := h.configs[door+manager]; last != nil && h.mutator.chance(40) {
		return h.vary(last.DeepCopy(), door)
	}
	seen, err := h.doors[door].toVersion(live, h.doors[door].apiVersion)
	if err != nil {
		h.t.Fatal(err)
	}
	tree, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object.Copy(seen))
	if err != nil {
		h.t.Fatal(err)
	}
	tree = h.part(h.schema(door).root, tree).(map[string]any)
	metadata, _ := tree["metadata"].(map[string]any)
	for key := range metadata {
		if key != "labels" && key != "annotations" && key != "finalizers" && key != "ownerReferences" {
			delete(metadata, key)
		}
	}
	if metadata == nil {
		metadata = map[string]any{}
		tree["metadata"] = metadata
	}
	metadata["name"] = "x"
	u := &unstructured.Unstructured{Object: tree}
	u.SetGroupVersionKind(h.doors[door].Kind)
	h.configs[door+manager] = u
	return h.vary(u, door)
}

func (h *history) schema(door string) *Schema {
	if o := h.doors[door]; o.Schema != nil {
		s, _ := o.Schema(o.apiVersion)
		return s
	}
	s, _ := SchemaOf(h.doors[door].New())
	return s
}

func (h *history) vary(u *unstructured.Unstructured, door string) *unstructured.Unstructured {
	for range h.mutator.IntN(3) {
		key := []string{"spec", "spec", "status", "data"}[h.mutator.IntN(4)]
		if t := h.schema(door).root.fields.typeOf(key); t != nil {
			u.Object[key] = h.mutator.typed(t, u.Object[key], 6)
		}
	}
	if h.mutator.chance(10) {
		u.SetLabels(map[string]string{h.mutator.word(): h.mutator.word()})
	}
	if h.mutator.chance(1) {
		u.SetAPIVersion("v7")
	}
	return u
}

// part keeps a random part of a tree; list items keep their keys.
func (h *history) part(t *typ, v any) any {
	switch v := v.(type) {
	case map[string]any:
		made := map[string]any{}
		for _, key := range sortedKeys(v, nil) {
			if h.mutator.chance(65) && t != nil && t.fields != nil {
				made[key] = h.part(t.fields.typeOf(key), v[key])
			}
		}
		return made
	case []any:
		made := []any{}
		for _, item := range v {
			if !h.mutator.chance(75) {
				continue
			}
			kept := item
			if t != nil && t.list != nil {
				kept = h.part(t.list.elem, item)
				if m, ok := kept.(map[string]any); ok {
					for _, k := range t.list.keys {
						if value, has := item.(map[string]any)[k]; has {
							m[k] = value
						}
					}
				}
			}
			made = append(made, kept)
		}
		return made
	}
	return v
}

// playApplies mixes applies with updates.
func (h *history) playApplies(steps int) {
	live := h.subject.start()
	if h.mutator.chance(40) {
		door := ""
		if h.subject.other != nil && h.mutator.chance(40) {
			door = otherVersion
		}
		made := h.apply(nil, h.config(live, "m1", door), door, "m1", false)
		if made == nil {
			return
		}
		live = made
	} else {
		live = h.update(h.subject.options.New(), live, "", h.manager())
	}
	live = object.Copy(live)
	live.SetUID("u")
	for range steps {
		h.now = h.now.Add(time.Duration(h.mutator.IntN(3)) * time.Second)
		if h.mutator.chance(20) {
			obj := object.Copy(live)
			if h.mutator.chance(10) {
				obj.SetManagedFields([]metav1.ManagedFieldsEntry{{}})
			}
			h.mutate(obj)
			live = object.Copy(h.update(live, obj, h.door(), h.manager()))
			continue
		}
		manager, door := []string{"m1", "m2", "kubectl"}[h.mutator.IntN(3)], h.door()
		if made := h.apply(live, h.config(live, manager, door), door, manager, h.mutator.chance(70)); made != nil {
			live = object.Copy(made)
		}
	}
}

func (h *history) play(steps int) {
	live := h.subject.start()
	live = h.update(h.subject.options.New(), live, "", h.manager())
	live.SetUID("u")
	for range steps {
		h.now = h.now.Add(time.Duration(h.mutator.IntN(3)) * time.Second)
		obj := object.Copy(live)
		switch {
		case h.mutator.chance(5):
			obj.SetManagedFields(nil)
		case h.mutator.chance(2):
			obj.SetManagedFields([]metav1.ManagedFieldsEntry{{}})
		case h.mutator.chance(2):
			obj.SetUID("")
			live = object.Copy(live)
			live.SetUID("")
		}
		if h.mutator.chance(85) {
			h.mutate(obj)
		}
		live = h.update(live, obj, h.door(), h.manager())
		live.SetUID("u")
		if len(live.GetManagedFields()) == 0 && h.mutator.chance(50) {
			live = h.update(h.subject.options.New(), object.Copy(live), "", h.manager())
		}
	}
}

var seeds = flag.Int("seeds", 15, "random histories per kind")

func dump(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("%v: %+v", err, v)
	}
	return string(b)
}

func TestUpdateEqualsReference(t *testing.T) {
	for _, s := range subjects(t) {
		t.Run(s.name, func(t *testing.T) {
			updates, quick := 0, 0
			for seed := range uint64(*seeds) {
				h := newHistory(t, s, seed)
				h.play(12)
				updates, quick = updates+h.updates, quick+h.quick
			}
			t.Logf("%d of %d updates by the short cut", quick, updates)
			if quick*2 < updates && s.other == nil {
				t.Errorf("only %d of %d updates took the short cut", quick, updates)
			}
		})
	}
}

func FuzzUpdateEqualsReference(f *testing.F) {
	all := subjects(f)
	for i := range all {
		f.Add(uint8(i), uint64(i)+1000)
	}
	f.Fuzz(func(t *testing.T, which uint8, seed uint64) {
		newHistory(t, all[int(which)%len(all)], seed).play(6)
	})
}

func TestApplyEqualsReference(t *testing.T) {
	for _, s := range subjects(t) {
		t.Run(s.name, func(t *testing.T) {
			applies, quick := 0, 0
			for seed := range uint64(*seeds) {
				h := newHistory(t, s, seed)
				h.playApplies(8)
				applies, quick = applies+h.applies, quick+h.quickApplies
			}
			t.Logf("%d of %d applies by the short cut", quick, applies)
			if quick*3 < applies && s.other == nil {
				t.Errorf("only %d of %d applies took the short cut", quick, applies)
			}
		})
	}
}

func FuzzApplyEqualsReference(f *testing.F) {
	all := subjects(f)
	for i := range all {
		f.Add(uint8(i), uint64(i)+1000)
	}
	f.Fuzz(func(t *testing.T, which uint8, seed uint64) {
		newHistory(t, all[int(which)%len(all)], seed).playApplies(5)
	})
}

// An item without its key cannot be told from others: while there is one, no update changes who owns what.
func TestItemWithoutKey(t *testing.T) {
	h := newHistory(t, subjectNamed("ServiceAccount"), 1)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "x", Labels: map[string]string{"a": "1"}}}
	live := h.update(h.subject.options.New(), account, "", "first").(*corev1.ServiceAccount)
	for _, secrets := range [][]corev1.ObjectReference{{{}}, {{}}, {{Name: "s"}, {Kind: "Secret"}}, {{Name: "s"}}, nil} {
		next := live.DeepCopy()
		next.Secrets, next.Labels["a"] = secrets, next.Labels["a"]+"1"
		live = h.update(live, next, "", fmt.Sprint("with ", len(secrets), len(next.Labels["a"]))).(*corev1.ServiceAccount)
	}
}

// What the version of an endpoint does not show was not changed by who writes there, also for owners who use another version.
func TestUnseenByTheVersion(t *testing.T) {
	s := autoscaler()
	convert := s.options.Convert
	s.options.Convert = func(obj object.Object, apiVersion string) (object.Object, error) {
		made, err := convert(obj, apiVersion)
		if old, ok := made.(*autoscalingv1.HorizontalPodAutoscaler); ok {
			old.Annotations = nil
		}
		return made, err
	}
	h := newHistory(t, s, 1)
	scaler := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
		Behavior: &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleUp: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: new(int32(3))}},
	}}
	live := h.update(h.subject.options.New(), scaler, "", "newer").(*autoscalingv2.HorizontalPodAutoscaler)
	next := live.DeepCopy()
	next.Spec.Behavior, next.Spec.MaxReplicas = nil, 7
	live = h.update(live, next, otherVersion, "older").(*autoscalingv2.HorizontalPodAutoscaler)
	if got := dump(live.ManagedFields); !strings.Contains(got, "f:stabilizationWindowSeconds") {
		t.Errorf("the owner of the behavior lost it: %s", got)
	}
}

// Long lists take other ways than short ones.
func TestLongLists(t *testing.T) {
	s := subjectNamed("Pod")
	for seed := range uint64(20) {
		h := newHistory(t, s, seed)
		pod := examplePod()
		for i := range 40 {
			pod.Spec.Containers[0].Env = append(pod.Spec.Containers[0].Env, corev1.EnvVar{Name: fmt.Sprint("E", i), Value: "x"})
			pod.Finalizers = append(pod.Finalizers, fmt.Sprint("example.com/", i))
		}
		live := h.update(s.options.New(), pod, "", "creator").(*corev1.Pod)
		live.UID = "u"
		next := live.DeepCopy()
		for range 6 {
			env := next.Spec.Containers[0].Env
			i, j := h.mutator.IntN(len(env)), h.mutator.IntN(len(env))
			env[i], env[j] = env[j], env[i]
			env[i].Value = h.mutator.word()
			next.Spec.Containers[0].Env = env[:len(env)-1]
			next.Finalizers = append(next.Finalizers[2:], fmt.Sprint("example.com/new", i, j))
		}
		live = h.update(live, next, "", "two").(*corev1.Pod)
		tree, err := runtime.DefaultUnstructuredConverter.ToUnstructured(live)
		if err != nil {
			t.Fatal(err)
		}
		for step := range 3 {
			containers, _, _ := unstructured.NestedSlice(tree, "spec", "containers")
			env := containers[0].(map[string]any)["env"].([]any)
			h.mutator.Shuffle(len(env), func(i, j int) { env[i], env[j] = env[j], env[i] })
			config := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "x"},
				"spec": map[string]any{"containers": []any{map[string]any{"name": "web", "env": env[:len(env)-5*step]}}}}}
			live = h.apply(live, config, "", "m", true).(*corev1.Pod)
		}
		if h.quick < h.updates || h.quickApplies < h.applies {
			t.Errorf("%d of %d updates and %d of %d applies by the short cut", h.quick, h.updates, h.quickApplies, h.applies)
		}
	}
}
