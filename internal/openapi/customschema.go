package openapi

import (
	"bytes"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// dialect is what differs between the schemas of the two versions.
type dialect struct {
	refs string
	ref  func(to string) map[string]any
	// adapt changes one schema, not those within it.
	adapt func(schema map[string]any)
}

var (
	dialectV2 = &dialect{
		refs:  "#/definitions/",
		ref:   func(to string) map[string]any { return map[string]any{"$ref": to} },
		adapt: relax,
	}
	dialectV3 = &dialect{
		refs:  "#/components/schemas/",
		ref:   func(to string) map[string]any { return map[string]any{"allOf": []any{map[string]any{"$ref": to}}} },
		adapt: func(map[string]any) {},
	}
)

// relax takes from a schema what swagger 2.0 cannot say, and with it what would
// make a client that believes the rest refuse objects the server takes: for
// fields that may be null or hold anything, even their type.
func relax(schema map[string]any) {
	free, _ := schema["x-kubernetes-preserve-unknown-fields"].(bool)
	nullable, _ := schema["nullable"].(bool)
	intOrString, _ := schema["x-kubernetes-int-or-string"].(bool)
	if free || nullable || intOrString {
		for _, key := range []string{"type", "items", "properties", "additionalProperties", "required"} {
			delete(schema, key)
		}
	}
	for _, key := range []string{"nullable", "default", "allOf", "anyOf", "oneOf", "not"} {
		delete(schema, key)
	}
}

// notPublished are members of a definition's schema that are no part of structural schemas.
var notPublished = []string{"id", "$schema", "$ref", "example", "externalDocs", "definitions", "dependencies", "additionalItems", "patternProperties"}

const (
	metaPackage     = "io.k8s.apimachinery.pkg.apis.meta.v1."
	conventions     = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md"
	aboutObjectMeta = "Standard object's metadata. More info: " + conventions + "#metadata"
	aboutListMeta   = "Standard list metadata. More info: " + conventions + "#types-kinds"
)

// schemas adds the models of the resource and of its list.
func (r *CustomResource) schemas(to map[string]json.RawMessage, d *dialect) error {
	raw, err := r.schema()
	if err != nil {
		return err
	}
	object := map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}
	if len(raw) > 0 {
		object = nil
		in := json.NewDecoder(bytes.NewReader(raw))
		in.UseNumber()
		if err := in.Decode(&object); err != nil {
			return fmt.Errorf("the schema of %s.%s/%s: %w", r.Plural, r.Group, r.Version, err)
		}
		if preserve, _ := object["x-kubernetes-preserve-unknown-fields"].(bool); d == dialectV2 && preserve {
			// The object itself stays one, so that its kind can be found and its metadata explained.
			object = map[string]any{"type": "object", "description": object["description"]}
			if object["description"] == nil {
				delete(object, "description")
			}
		}
		d.walk(object)
	} else if d == dialectV2 {
		object = map[string]any{"type": "object"}
	}
	d.typeMeta(object)
	d.metadata(object)
	object["x-kubernetes-group-version-kind"] = r.kinds(r.Kind)
	if len(r.Selectable) > 0 {
		var fields []any
		for _, path := range r.Selectable {
			fields = append(fields, map[string]any{"fieldPath": trimDot(path)})
		}
		object["x-kubernetes-selectable-fields"] = fields
	}

	meta := d.ref(d.refs + metaPackage + "ListMeta")
	meta["description"] = aboutListMeta
	list := map[string]any{
		"description": r.ListKind + " is a list of " + r.Kind,
		"type":        "object",
		"required":    []string{"items"},
		"properties": map[string]any{
			"items": map[string]any{
				"description": "List of " + r.Plural + ". More info: " + conventions,
				"type":        "array",
				"items":       map[string]any{"$ref": d.refs + r.model(r.Kind)},
			},
			"metadata": meta,
		},
		"x-kubernetes-group-version-kind": r.kinds(r.ListKind),
	}
	d.typeMeta(list)

	for kind, schema := range map[string]map[string]any{r.Kind: object, r.ListKind: list} {
		if to[r.model(kind)], err = encode(schema); err != nil {
			return err
		}
	}
	return nil
}

func trimDot(path string) string {
	if len(path) > 0 && path[0] == '.' {
		return path[1:]
	}
	return path
}

func (r *CustomResource) kinds(kind string) []any {
	return []any{map[string]string{"group": r.Group, "version": r.Version, "kind": kind}}
}

// walk adapts a schema and those within it.
func (d *dialect) walk(schema map[string]any) {
	for _, key := range notPublished {
		delete(schema, key)
	}
	d.adapt(schema)
	each := func(v any) {
		if sub, ok := v.(map[string]any); ok {
			d.walk(sub)
		}
	}
	if properties, ok := schema["properties"].(map[string]any); ok {
		for _, v := range properties {
			each(v)
		}
	}
	each(schema["items"])
	each(schema["additionalProperties"])
	each(schema["not"])
	for _, key := range []string{"allOf", "anyOf", "oneOf"} {
		if list, ok := schema[key].([]any); ok {
			for _, v := range list {
				each(v)
			}
		}
	}
	if embedded, _ := schema["x-kubernetes-embedded-resource"].(bool); embedded && schema["type"] == "object" {
		d.typeMeta(schema)
		d.metadata(schema)
	}
}

func properties(schema map[string]any) map[string]any {
	p, ok := schema["properties"].(map[string]any)
	if !ok {
		p = map[string]any{}
		schema["properties"] = p
	}
	return p
}

// typeMeta gives a schema of objects the properties apiVersion and kind.
func (d *dialect) typeMeta(schema map[string]any) {
	docs := metav1.TypeMeta{}.SwaggerDoc()
	for _, name := range []string{"apiVersion", "kind"} {
		properties(schema)[name] = map[string]any{"type": "string", "description": docs[name]}
	}
}

// metadata gives a schema of objects the property metadata, in place of what
// the definition says of it: that binds the server, not the shape.
func (d *dialect) metadata(schema map[string]any) {
	meta := d.ref(d.refs + metaPackage + "ObjectMeta")
	meta["description"] = aboutObjectMeta
	properties(schema)["metadata"] = meta
}
