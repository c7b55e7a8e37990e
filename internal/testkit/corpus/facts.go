package corpus

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// openAPIFacts reduces an OpenAPI document to its paths with methods and its schemas in a line each.
func openAPIFacts(body any) any {
	doc, _ := body.(map[string]any)
	schemas, _ := pick(doc, []string{"components", "schemas"}).(map[string]any)
	if definitions, ok := doc["definitions"].(map[string]any); ok {
		schemas = definitions
	}
	paths, lines := map[string]any{}, map[string]any{}
	items, _ := doc["paths"].(map[string]any)
	for path, item := range items {
		methods := []string{}
		if m, ok := item.(map[string]any); ok {
			for method := range m {
				if method != "parameters" {
					methods = append(methods, method)
				}
			}
		}
		slices.Sort(methods)
		paths[path] = strings.Join(methods, " ")
	}
	for name, v := range schemas {
		schema, _ := v.(map[string]any)
		lines[name] = describe(schema)
	}
	return map[string]any{"paths": paths, "schemas": lines}
}

// describe writes a schema as {property:type=default/list-type! …}, where ! marks the required ones.
func describe(schema map[string]any) string {
	properties, _ := schema["properties"].(map[string]any)
	if len(properties) == 0 {
		return typeName(schema)
	}
	required, _ := schema["required"].([]any)
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(properties)) {
		p, _ := properties[k].(map[string]any)
		part := k + ":" + typeName(p)
		if d, ok := p["default"]; ok {
			b, _ := json.Marshal(d)
			part += "=" + string(b)
		}
		if listType, ok := p["x-kubernetes-list-type"].(string); ok {
			part += "/" + listType
		}
		if slices.Contains(required, any(k)) {
			part += "!"
		}
		parts = append(parts, part)
	}
	return "{" + strings.Join(parts, " ") + "}"
}

func typeName(p map[string]any) string {
	if all, ok := p["allOf"].([]any); ok && len(all) == 1 {
		p, _ = all[0].(map[string]any)
	}
	if ref, ok := p["$ref"].(string); ok {
		return ref[strings.LastIndex(ref, "/")+1:]
	}
	t, _ := p["type"].(string)
	if f, ok := p["format"].(string); ok {
		t += "(" + f + ")"
	}
	if items, ok := p["items"].(map[string]any); ok {
		t = "[]" + typeName(items)
	}
	if values, ok := p["additionalProperties"].(map[string]any); ok {
		t = "map:" + typeName(values)
	}
	return t
}

// envelope reads the type from a protobuf answer, runtime.Unknown{1: TypeMeta{1: apiVersion, 2: kind}, …}.
func envelope(b []byte) any {
	meta := fields(fields(b)[1])
	return map[string]any{"apiVersion": string(meta[1]), "kind": string(meta[2])}
}

// fields splits a message of length-delimited fields with tags of one byte.
func fields(b []byte) map[int][]byte {
	out := map[int][]byte{}
	for len(b) > 1 && b[0]&7 == 2 {
		tag, n, i := int(b[0]>>3), 0, 1
		for shift := 0; i < len(b); i, shift = i+1, shift+7 {
			n |= int(b[i]&0x7f) << shift
			if b[i] < 0x80 {
				break
			}
		}
		if i+1+n > len(b) {
			break
		}
		out[tag] = b[i+1 : i+1+n]
		b = b[i+1+n:]
	}
	return out
}
