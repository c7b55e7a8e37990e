package schema

import "k8s.io/apimachinery/pkg/runtime"

// Default removes nulls from fields that may not be null, then fills in the defaults of
// fields that are absent ("Defaulting and Nullable"). metadata is left alone.
func (s *Schema) Default(object map[string]any) {
	settle(object, s.root, true)
}

func settle(v any, n *node, resource bool) {
	if !n.defaults && !n.nulls {
		return
	}
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if resource && key == "metadata" {
				continue
			}
			child := n.child(key)
			if child == nil {
				continue
			}
			if value == nil {
				if !child.nullable {
					delete(v, key)
				}
				continue
			}
			settle(value, child, child.embedded)
		}
		if !n.defaults {
			return
		}
		for key, child := range n.properties {
			if !child.hasDefault || resource && key == "metadata" {
				continue
			}
			if _, has := v[key]; has {
				continue
			}
			made := runtime.DeepCopyJSONValue(child.def)
			settle(made, child, child.embedded)
			v[key] = made
		}
	case []any:
		if n.items == nil {
			return
		}
		for i, e := range v {
			if e == nil && !n.items.nullable && n.items.hasDefault {
				v[i] = runtime.DeepCopyJSONValue(n.items.def)
			}
			settle(v[i], n.items, n.items.embedded)
		}
	}
}
