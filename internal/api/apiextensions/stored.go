package apiextensions

import (
	"encoding/json"
	"fmt"

	"github.com/timonel/timonel/internal/object"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// Definitions are stored as apiextensions.k8s.io/v1beta1, for servers that are older than v1. Its differences:
//
//   - What all versions have in common (schema, subresources, columns, selectable fields) is said once, at the top;
//     else in each version. The schema is called validation there.
//   - spec.version is the name of the first version.
//   - The webhook of the conversion is not a struct of its own.
//   - The path of a column is JSONPath, not jsonPath.
//   - preserveUnknownFields is true when it is not given.
const storedVersion = apiextensionsv1.GroupName + "/v1beta1"

// shared are the parts of a version that move to the top when all versions have the same, with their name there.
var shared = []struct{ inVersion, atTop string }{
	{"schema", "validation"}, {"subresources", "subresources"}, {"additionalPrinterColumns", "additionalPrinterColumns"}, {"selectableFields", "selectableFields"},
}

func toStored(obj object.Object) (map[string]any, error) {
	text, err := json.Marshal(obj)
	if err != nil {
		return nil, err
	}
	var tree map[string]any
	if err := json.Unmarshal(text, &tree); err != nil {
		return nil, err
	}
	tree["kind"], tree["apiVersion"] = "CustomResourceDefinition", storedVersion
	spec, _ := tree["spec"].(map[string]any)
	if spec == nil {
		return tree, nil
	}
	versions := list(spec["versions"])
	for _, v := range versions {
		rename(list(v["additionalPrinterColumns"]), "jsonPath", "JSONPath")
	}
	for _, part := range shared {
		if len(versions) == 0 || versions[0][part.inVersion] == nil || !same(versions, part.inVersion) {
			continue
		}
		spec[part.atTop] = versions[0][part.inVersion]
		for _, v := range versions {
			delete(v, part.inVersion)
		}
	}
	if len(versions) > 0 {
		spec["version"] = versions[0]["name"]
	}
	if conversion, ok := spec["conversion"].(map[string]any); ok {
		if webhook, ok := conversion["webhook"].(map[string]any); ok {
			delete(conversion, "webhook")
			move(webhook, "clientConfig", conversion, "webhookClientConfig")
			move(webhook, "conversionReviewVersions", conversion, "conversionReviewVersions")
		}
	}
	if spec["preserveUnknownFields"] == nil {
		spec["preserveUnknownFields"] = false
	}
	return tree, nil
}

func fromStored(tree map[string]any) (object.Object, error) {
	if tree["apiVersion"] == storedVersion {
		reshape(tree)
	}
	text, err := json.Marshal(tree)
	if err != nil {
		return nil, err
	}
	d := &apiextensionsv1.CustomResourceDefinition{}
	if err := json.Unmarshal(text, d); err != nil {
		return nil, fmt.Errorf("read stored definition: %w", err)
	}
	d.SetGroupVersionKind(apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"))
	return d, nil
}

// reshape turns the stored form into that of v1.
func reshape(tree map[string]any) {
	spec, _ := tree["spec"].(map[string]any)
	if spec == nil {
		return
	}
	versions := list(spec["versions"])
	if len(versions) == 0 && spec["version"] != nil { // from before there could be several
		versions = []map[string]any{{"name": spec["version"], "served": true, "storage": true}}
		spec["versions"] = []any{versions[0]}
	}
	for _, part := range shared {
		top := spec[part.atTop]
		delete(spec, part.atTop)
		for _, v := range versions {
			if v[part.inVersion] == nil && top != nil {
				v[part.inVersion] = clone(top)
			}
		}
	}
	for _, v := range versions {
		rename(list(v["additionalPrinterColumns"]), "JSONPath", "jsonPath")
	}
	delete(spec, "version")
	if conversion, ok := spec["conversion"].(map[string]any); ok && (conversion["webhookClientConfig"] != nil || conversion["conversionReviewVersions"] != nil) {
		webhook := map[string]any{}
		move(conversion, "webhookClientConfig", webhook, "clientConfig")
		move(conversion, "conversionReviewVersions", webhook, "conversionReviewVersions")
		conversion["webhook"] = webhook
	}
	if spec["preserveUnknownFields"] == nil {
		spec["preserveUnknownFields"] = true
	}
}

func list(v any) []map[string]any {
	items, _ := v.([]any)
	out := make([]map[string]any, 0, len(items))
	for _, item := range items {
		if m, ok := item.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}

func rename(items []map[string]any, from, to string) {
	for _, m := range items {
		move(m, from, m, to)
	}
}

func move(from map[string]any, name string, to map[string]any, as string) {
	if v, ok := from[name]; ok {
		delete(from, name)
		to[as] = v
	}
}

func same(versions []map[string]any, part string) bool {
	for _, v := range versions[1:] {
		if !equality.Semantic.DeepEqual(v[part], versions[0][part]) {
			return false
		}
	}
	return true
}

// clone is a copy of a JSON tree, so that versions do not share it.
func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = clone(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = clone(e)
		}
		return out
	}
	return v
}
