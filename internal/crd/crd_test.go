package crd

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

const widgets = `
metadata: {name: widgets.example.com, uid: u, generation: 1}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, listKind: WidgetList, shortNames: [wd]}
  versions:
  - {name: v2beta1, served: true, storage: false, schema: {openAPIV3Schema: {type: object, properties: {s: {type: string}, b: {type: string, default: two}}}}}
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {s: {type: string}, a: {type: string, default: one}}}}
    subresources: {status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
    selectableFields: [{jsonPath: .s}]
    additionalPrinterColumns:
    - {name: S, type: string, jsonPath: .s}
    - {name: Size, type: integer, jsonPath: .size}
    - {name: First, type: string, jsonPath: '.list[0].a'}
    - {name: Ready, type: string, jsonPath: '.conditions[?(@.type=="Ready")].status'}
  - {name: v1alpha1, served: false, storage: false, schema: {openAPIV3Schema: {type: object}}}
status:
  acceptedNames: {plural: widgets, singular: widget, kind: Widget, listKind: WidgetList, shortNames: [wd]}
`

func parse(t *testing.T, text string) *apiextensions.CustomResourceDefinition {
	t.Helper()
	d := &apiextensions.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict([]byte(text), d); err != nil {
		t.Fatal(err)
	}
	return d
}

func kindsOf(t *testing.T, text string) ([]*kind.Definition, *int) {
	d := parse(t, text)
	loads := 0
	load := func() (*apiextensions.CustomResourceDefinition, error) { loads++; return d, nil }
	kinds := Definitions(d, load)
	kind.NewCatalog(kinds...)
	return kinds, &loads
}

func tree0(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		t.Fatal(err)
	}
	return u
}

// Served versions are in the order of preference, and no schema is looked at before an object comes.
func TestDefinitions(t *testing.T) {
	kinds, loads := kindsOf(t, widgets)
	if len(kinds) != 2 || kinds[0].Version != "v1" || kinds[1].Version != "v2beta1" {
		t.Fatalf("kinds %v", kinds)
	}
	if *loads != 0 {
		t.Errorf("the schema was loaded %d times for nobody", *loads)
	}
	obj := tree0(t, `{apiVersion: example.com/v1, kind: Widget, metadata: {name: x}, s: t, zap: 1}`)
	unknown, err := kinds[0].Prune(obj, false)
	if err != nil || strings.Join(unknown, " ") != "zap" {
		t.Errorf("pruned %q, %v", unknown, err)
	}
	if *loads == 0 {
		t.Error("the schema was not loaded")
	}
	if kinds[0].Fields[0].Label != "s" || kinds[1].Fields[0].Label != "" || kinds[1].Fields[0].Path != "s" {
		t.Errorf("fields %v %v", kinds[0].Fields, kinds[1].Fields)
	}
}

// What is written in one version is stored in the stored one, with its fields, and read with its defaults.
func TestStoredVersion(t *testing.T) {
	kinds, _ := kindsOf(t, widgets)
	v1, beta := kinds[0], kinds[1]
	stored, err := codec.EncodeStored(beta, tree0(t, `{apiVersion: example.com/v2beta1, kind: Widget, metadata: {name: x}, s: t, b: lost}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(stored), `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"x"},"s":"t"}`+"\n"; got != want {
		t.Errorf("stored\n got %s want %s", got, want)
	}
	for d, want := range map[*kind.Definition]string{
		v1:   `{"a":"one","apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"x","resourceVersion":"7"},"s":"t"}`,
		beta: `{"apiVersion":"example.com/v2beta1","kind":"Widget","metadata":{"name":"x","resourceVersion":"7"},"s":"t"}`,
	} {
		obj, err := codec.DecodeStored(d, stored, 7)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := json.Marshal(obj.(*unstructured.Unstructured).Object)
		if string(got) != want {
			t.Errorf("read as %s\n got %s\nwant %s", d.Version, got, want)
		}
	}
}

func TestColumns(t *testing.T) {
	kinds, _ := kindsOf(t, widgets)
	obj := tree0(t, `{s: {a: [1]}, size: big, list: [{a: b}], conditions: [{type: Other, status: No}, {type: Ready, status: "True"}]}`)
	var cells []any
	for _, c := range kinds[0].Columns[1:] {
		cells = append(cells, c.Of(obj))
	}
	if got, want := cells, []any{`{"a":[1]}`, nil, "b", "True"}; len(got) != 4 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] || got[3] != want[3] {
		t.Errorf("cells %q, want %q", got, want)
	}
}

func TestStatusDoorAndGeneration(t *testing.T) {
	kinds, _ := kindsOf(t, widgets)
	d := kinds[0]
	old := tree0(t, `{metadata: {name: x, labels: {a: b}}, s: t, status: {num: 1}}`)
	obj := tree0(t, `{metadata: {name: x, labels: {a: c}}, s: other, status: {num: 2}}`)
	if !d.Generation(obj, old) {
		t.Error("a changed field does not count")
	}
	d.Subresources["status"].View.Prepare(t.Context(), obj, old)
	got, _ := json.Marshal(obj.Object)
	if want := `{"metadata":{"labels":{"a":"b"},"name":"x"},"s":"t","status":{"num":2}}`; string(got) != want {
		t.Errorf("through the status\n got %s\nwant %s", got, want)
	}
	if d.Generation(obj, old) {
		t.Error("the status counts")
	}
}

func TestDecide(t *testing.T) {
	now := time.Unix(1000, 0)
	first := parse(t, widgets)
	first.Status = decide(first, nil, now)
	if !isTrue(&first.Status, apiextensions.NamesAccepted) || !isTrue(&first.Status, apiextensions.Established) || first.Status.AcceptedNames.ShortNames[0] != "wd" {
		t.Fatalf("alone: %+v", first.Status)
	}
	second := parse(t, strings.NewReplacer("widgets", "gadgets", "Widget", "Gadget", "widget", "gadget").Replace(widgets))
	second.Status = apiextensions.CustomResourceDefinitionStatus{}
	second.Status = decide(second, []*apiextensions.CustomResourceDefinition{first, second}, now)
	var names apiextensions.CustomResourceDefinitionCondition
	for _, c := range second.Status.Conditions {
		if c.Type == apiextensions.NamesAccepted {
			names = c
		}
	}
	if names.Status != apiextensions.ConditionFalse || names.Reason != "ShortNamesConflict" || names.Message != `"wd" is already in use` {
		t.Errorf("with a short name that is taken: %+v", names)
	}
	if isTrue(&second.Status, apiextensions.Established) || second.Status.AcceptedNames.Plural != "gadgets" || len(second.Status.AcceptedNames.ShortNames) != 0 {
		t.Errorf("with a short name that is taken: %+v", second.Status)
	}
	both := second.DeepCopy()
	both.Spec.Names.ListKind = first.Spec.Names.ListKind
	if _, found := accept(both, []*apiextensions.CustomResourceDefinition{first}); found != (conflicts{"ListKindConflict", `"WidgetList" is already in use`}) {
		t.Errorf("with two names that are taken: %+v", found)
	}
	again := decide(second, nil, now.Add(time.Hour)) // the first is gone
	if !isTrue(&again, apiextensions.Established) {
		t.Errorf("when it is free: %+v", again)
	}
	settled := second.DeepCopy()
	settled.Status = again
	if later := decide(settled, nil, now.Add(2*time.Hour)); !equalStatus(&later, &again) || later.Conditions[0].LastTransitionTime != again.Conditions[0].LastTransitionTime {
		t.Errorf("deciding again changed something: %+v", later)
	}
	settled.Generation++ // a new schema
	if later := decide(settled, nil, now.Add(2*time.Hour)); !reflect.DeepEqual(later, again) {
		t.Errorf("a change of the schema changed the status: %+v", later)
	}
}
