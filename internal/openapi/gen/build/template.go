package main

import (
	"encoding/json"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/timonel/timonel/internal/openapi/gen/definitions"
)

// The template is the API of a custom resource that does not exist. Its words
// between @ signs stand for what package openapi puts there when a real one
// comes (see internal/openapi/custom.go).
const (
	templateKind    = "@kind@"
	templateArticle = "@a@ "
	templateID      = "@id@"
	templateTag     = "@tag@"
)

var (
	templateVersion = schema.GroupVersion{Group: "@group@", Version: "@version@"}
	templateModels  = map[string]any{templateKind: modelName("@model@"), templateKind + "List": modelName("@list@")}
	templateTypes   = mediaTypes{
		consumes: []string{"application/json", "application/yaml"},
		patches:  []string{"application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"},
		produces: []string{"application/json", "application/yaml"},
		lists:    []string{"application/json", "application/yaml"},
	}
)

// modelName is a model without a Go type.
type modelName string

func (m modelName) OpenAPIModelName() string { return string(m) }

// withTemplate are all definitions and those of the template's two models, which are left empty.
func withTemplate(ref common.ReferenceCallback) map[string]common.OpenAPIDefinition {
	all := definitions.GetOpenAPIDefinitions(ref)
	for _, model := range templateModels {
		all[string(model.(modelName))] = common.OpenAPIDefinition{}
	}
	return all
}

func templateService(names *names, namespaced bool) (*service, error) {
	s := &service{root: "/apis/" + templateVersion.String(), group: templateVersion.Group, version: templateVersion.Version}
	b := &resourceBuilder{service: s, scheme: names.scheme, gv: templateVersion, media: templateTypes, resource: resource{
		Name: "@plural@", Kind: templateKind, Namespaced: namespaced,
		Verbs: []string{"create", "delete", "deletecollection", "get", "list", "patch", "update"},
		Subresources: []subresource{
			{Name: "scale", Group: "autoscaling", Version: "v1", Kind: "Scale", Verbs: []string{"get", "patch", "update"}},
			{Name: "status", Kind: templateKind, Verbs: []string{"get", "patch", "update"}},
		},
	}}
	return s, b.build()
}

// template is the file that package openapi reads.
type template struct {
	V2      map[string]map[string]spec.PathItem `json:"v2"` // by scope, then path
	V3      map[string]map[string]*spec3.Path   `json:"v3"`
	Schemas map[string]*spec.Schema             `json:"schemas"` // the v3 schemas that the paths and every custom resource refer to
}

func (a *artifacts) addTemplate(names *names) error {
	t := template{V2: map[string]map[string]spec.PathItem{}, V3: map[string]map[string]*spec3.Path{}}
	for scope, namespaced := range map[string]bool{"Namespaced": true, "Cluster": false} {
		s, err := templateService(names, namespaced)
		if err != nil {
			return err
		}
		v2, err := buildV2(map[string]*service{s.root: s}, names)
		if err != nil {
			return err
		}
		v3, err := buildV3(s, names)
		if err != nil {
			return err
		}
		t.V2[scope], t.V3[scope], t.Schemas = v2.Paths.Paths, v3.Paths.Paths, v3.Components.Schemas
	}
	for _, model := range templateModels {
		delete(t.Schemas, string(model.(modelName)))
	}
	meta, err := buildV3(&service{root: "/", routes: []common.Route{&route{
		service: &service{}, method: "GET", path: "/", operation: "x", tag: "x", responses: ok(modelName("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")),
	}}}, names)
	if err != nil {
		return err
	}
	maps.Copy(t.Schemas, meta.Components.Schemas)
	content, err := json.Marshal(t)
	if err != nil {
		return err
	}
	a.Template = "template.json.gz"
	return a.write(a.Template, slices.Concat(content, []byte("\n")))
}
