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
		tree, err := toStored(d)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var wanted map[string]any
		if err := yaml.Unmarshal([]byte(want), &wanted); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(wanted, tree["spec"]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		text, err := json.Marshal(tree)
		if err != nil {
			t.Fatal(err)
		}
		var again map[string]any
		if err := json.Unmarshal(text, &again); err != nil {
			t.Fatal(err)
		}
		back, err := fromStored(again)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
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

func TestStoredLongAgo(t *testing.T) {
	var tree map[string]any
	if err := yaml.Unmarshal([]byte(`{apiVersion: apiextensions.k8s.io/v1beta1, kind: CustomResourceDefinition, metadata: {name: ws.g.example.com}, spec: {group: g.example.com, version: v1, names: {plural: ws, kind: W}, scope: Cluster}}`), &tree); err != nil {
		t.Fatal(err)
	}
	obj, err := fromStored(tree)
	if err != nil {
		t.Fatal(err)
	}
	d := obj.(*apiextensionsv1.CustomResourceDefinition)
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
