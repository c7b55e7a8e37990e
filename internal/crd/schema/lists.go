package schema

import (
	"encoding/json"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// uniqueness reports elements of sets and of lists that are maps which are there twice
// (x-kubernetes-list-type).
func (s *Schema) uniqueness(object map[string]any) field.ErrorList {
	return unique(object, s.root, nil)
}

func unique(v any, n *node, path *field.Path) (errs field.ErrorList) {
	if n == nil || !n.lists && n.listType == atomicList {
		return nil
	}
	switch v := v.(type) {
	case map[string]any:
		for _, key := range sortedKeys(v) {
			child := n.child(key)
			if child == nil || !child.lists && child.listType == atomicList {
				continue
			}
			at := path.Child(key)
			if path == nil {
				at = field.NewPath(key)
			}
			if n.properties[key] == nil {
				at = path.Key(key)
			}
			errs = append(errs, unique(v[key], child, at)...)
		}
	case []any:
		seen := map[string]bool{}
		for i, e := range v {
			var identity any
			switch n.listType {
			case setList:
				identity = e
			case mapList:
				m, ok := e.(map[string]any)
				if !ok {
					continue // a type error
				}
				identity = keysOf(m, n)
			}
			if n.listType != atomicList {
				text, err := json.Marshal(identity)
				if err != nil {
					continue
				}
				if seen[string(text)] {
					errs = append(errs, field.Duplicate(path.Index(i), identity))
				}
				seen[string(text)] = true
			}
			if n.items != nil {
				errs = append(errs, unique(e, n.items, path.Index(i))...)
			}
		}
	}
	return errs
}

func keysOf(m map[string]any, n *node) map[string]any {
	keys := make(map[string]any, len(n.listKeys))
	for _, key := range n.listKeys {
		if v, ok := m[key]; ok {
			keys[key] = v
		}
	}
	return keys
}
