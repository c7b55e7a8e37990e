package apiextensions

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

func definition(t *testing.T, spec string) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	d := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict([]byte("apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: ws.g.example.com}\nspec:\n"+spec), d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestStoredForm(t *testing.T) {
	check := func(name, spec, want string) {
		t.Helper()
		d := definition(t, spec)
		stored, err := toStored(d)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		text, err := json.Marshal(stored)
		if err != nil {
			t.Fatal(err)
		}
		var tree map[string]any
		if err := json.Unmarshal(text, &tree); err != nil {
			t.Fatal(err)
		}
		var wanted map[string]any
		if err := yaml.Unmarshal([]byte(want), &wanted); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(wanted, tree["spec"]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		back := readStored(t, string(text))
		if diff := cmp.Diff(d, back); diff != "" {
			t.Errorf("%s: there and back (-was +is):\n%s", name, diff)
		}
	}
	check("what all versions share is said once", `
  group: g.example.com
  names: {plural: ws, kind: W}
  scope: Cluster
  conversion: {strategy: Webhook, webhook: {clientConfig: {url: "https://h"}, conversionReviewVersions: [v1]}}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}, additionalPrinterColumns: [{name: A, type: string, jsonPath: .a}]}
  - {name: v2, served: true, storage: false, schema: {openAPIV3Schema: {type: object}}, additionalPrinterColumns: [{name: A, type: string, jsonPath: .a}]}`, `
group: g.example.com
version: v1
names: {plural: ws, kind: W}
scope: Cluster
conversion: {strategy: Webhook, webhookClientConfig: {url: "https://h"}, conversionReviewVersions: [v1]}
preserveUnknownFields: false
validation: {openAPIV3Schema: {type: object}}
additionalPrinterColumns: [{name: A, type: string, JSONPath: .a}]
versions: [{name: v1, served: true, storage: true}, {name: v2, served: true, storage: false}]`)
	check("what they do not share stays with them", `
  group: g.example.com
  names: {plural: ws, kind: W}
  scope: Cluster
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}, additionalPrinterColumns: [{name: A, type: string, jsonPath: .a}], subresources: {status: {}}}
  - {name: v2, served: true, storage: false, schema: {openAPIV3Schema: {type: object, description: d}}, subresources: {status: {}}}`, `
group: g.example.com
version: v1
names: {plural: ws, kind: W}
scope: Cluster
preserveUnknownFields: false
subresources: {status: {}}
versions:
- {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}, additionalPrinterColumns: [{name: A, type: string, JSONPath: .a}]}
- {name: v2, served: true, storage: false, schema: {openAPIV3Schema: {type: object, description: d}}}`)
}

func readStored(t *testing.T, text string) *apiextensionsv1.CustomResourceDefinition {
	t.Helper()
	stored := newStored()
	if err := yaml.Unmarshal([]byte(text), stored); err != nil {
		t.Fatal(err)
	}
	obj, err := fromStored(stored)
	if err != nil {
		t.Fatal(err)
	}
	return obj.(*apiextensionsv1.CustomResourceDefinition)
}

// What another server stored as v1 has its fields in other places.
func TestStoredAsV1(t *testing.T) {
	want := definition(t, `
  group: g.example.com
  names: {plural: ws, kind: W}
  scope: Cluster
  conversion: {strategy: Webhook, webhook: {clientConfig: {url: "https://h"}, conversionReviewVersions: [v1]}}
  versions: [{name: v1, served: true, storage: true, additionalPrinterColumns: [{name: A, type: string, jsonPath: .a}]}]`)
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, readStored(t, string(text))); diff != "" {
		t.Errorf("-was +is:\n%s", diff)
	}
}

// The order of keys in free JSON is not the client's.
func TestValuesInSchemasAreSorted(t *testing.T) {
	d := definition(t, `
  versions: [{name: v1, schema: {openAPIV3Schema: {properties: {a: {items: {default: {"b": 1, "a": {"d": 1234567890123456789, "c": [ ]}}, enum: [{"z": 0, "y": 1}, 2]}}}}}}]`)
	a := d.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["a"].Items.Schema
	a.Default.Raw, a.Enum[0].Raw = []byte(`{ "b": 1, "a": {"d": 1234567890123456789, "c": [ ]}}`), []byte(`{"z":0.0, "y":1}`)
	defaultDefinition(d)
	if got := string(a.Default.Raw) + string(a.Enum[0].Raw) + string(a.Enum[1].Raw); got != `{"a":{"c":[],"d":1234567890123456789},"b":1}{"y":1,"z":0}2` {
		t.Errorf("got %s", got)
	}
}

func TestStoredLongAgo(t *testing.T) {
	d := readStored(t, `{apiVersion: apiextensions.k8s.io/v1beta1, kind: CustomResourceDefinition, metadata: {name: ws.g.example.com}, spec: {group: g.example.com, version: v1, names: {plural: ws, kind: W}, scope: Cluster}}`)
	if v := d.Spec.Versions; len(v) != 1 || v[0].Name != "v1" || !v[0].Served || !v[0].Storage || !d.Spec.PreserveUnknownFields {
		t.Errorf("got %+v", d.Spec)
	}
}

func TestDeletionWaitsForTheObjects(t *testing.T) {
	d := &apiextensionsv1.CustomResourceDefinition{}
	if !beginDelete(d) || len(d.Finalizers) != 1 || d.Status.Conditions[0].Type != apiextensionsv1.Terminating {
		t.Fatalf("a definition that begins to be deleted: %+v", d)
	}
	now := metav1.Now()
	d.DeletionTimestamp = &now
	if !beginDelete(d) {
		t.Error("it went with its finalizer")
	}
	d.Finalizers = nil
	if beginDelete(d) {
		t.Error("it stayed without its finalizer")
	}
}

// TestRulesAreChecked: the checker of rules sees each schema once, at its stored place, if it is structural.
func TestRulesAreChecked(t *testing.T) {
	var places []string
	v := validator{Options{CheckRules: func(_ *apiextensionsv1.JSONSchemaProps, path *field.Path) field.ErrorList {
		places = append(places, path.String())
		return nil
	}}}
	head := `
  group: g.example.com
  names: {plural: ws, kind: W, singular: w, listKind: WList}
  scope: Cluster
  versions:
`
	check := func(name, versions string, want ...string) {
		t.Helper()
		places = nil
		d := definition(t, head+versions)
		noteStorageVersion(d)
		v.validate(d)
		if diff := cmp.Diff(want, places); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	check("one schema", `  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
  - {name: v2, served: true, storage: false, schema: {openAPIV3Schema: {type: object}}}`, "spec.validation.openAPIV3Schema")
	check("two schemas", `  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
  - {name: v2, served: true, storage: false, schema: {openAPIV3Schema: {type: object, description: d}}}`,
		"spec.versions[0].schema.openAPIV3Schema", "spec.versions[1].schema.openAPIV3Schema")
	check("not structural", `  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: string}}}`)
}
