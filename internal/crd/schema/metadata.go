package schema

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
)

// Metadata brings the metadata of an object, and of resources embedded in it, into the form of ObjectMeta: unknown fields
// are removed and returned as paths, empty ones too. The error says that something has the wrong type;
// with drop, it is removed instead.
func (s *Schema) Metadata(object map[string]any, drop bool) (unknown []string, err error) {
	if unknown, err = TopMetadata(object, drop); err != nil || !s.root.embeds {
		return unknown, err
	}
	more, err := embeddedMetadata(object, s.root, "", drop)
	unknown = append(unknown, more...)
	slices.Sort(unknown)
	return unknown, err
}

// TopMetadata is Metadata for the object alone.
func TopMetadata(object map[string]any, drop bool) (unknown []string, err error) {
	return coerceMeta(object, "", drop)
}

func embeddedMetadata(v any, n *node, path string, drop bool) (unknown []string, err error) {
	if !n.embeds {
		return nil, nil
	}
	visit := func(v any, child *node, path string) error {
		if child == nil {
			return nil
		}
		if child.embedded {
			if m, ok := v.(map[string]any); ok {
				if err := coerceType(m, path, drop); err != nil {
					return err
				}
				more, err := coerceMeta(m, path, drop)
				if err != nil {
					return err
				}
				unknown = append(unknown, more...)
			}
		}
		more, err := embeddedMetadata(v, child, path, drop)
		unknown = append(unknown, more...)
		return err
	}
	switch v := v.(type) {
	case map[string]any:
		for _, key := range sortedKeys(v) {
			if err := visit(v[key], n.child(key), joined(path, key)); err != nil {
				return nil, err
			}
		}
	case []any:
		for i, e := range v {
			if err := visit(e, n.items, fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return nil, err
			}
		}
	}
	return unknown, nil
}

func joined(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// coerceType wants apiVersion and kind to be texts; with drop, what is not is removed.
func coerceType(object map[string]any, path string, drop bool) error {
	for _, name := range []string{"apiVersion", "kind"} {
		value, has := object[name]
		if _, isText := value.(string); !has || isText {
			continue
		}
		if !drop {
			return field.Invalid(field.NewPath(path, name), value, "must be a string")
		}
		delete(object, name)
	}
	return nil
}

func coerceMeta(object map[string]any, path string, drop bool) (unknown []string, err error) {
	value, has := object["metadata"]
	if !has {
		return nil, nil
	}
	meta, ok := value.(map[string]any)
	if !ok {
		if value == nil || drop {
			delete(object, "metadata")
			return nil, nil
		}
		return nil, metaError(path, fmt.Errorf("json: cannot unmarshal %s into Go struct field .metadata of type v1.ObjectMeta", jsonType(value)))
	}
	if settled(meta) {
		return nil, nil
	}
	raw, err := json.Marshal(meta)
	if err != nil {
		return nil, err
	}
	var typed metav1.ObjectMeta
	strict, err := kjson.UnmarshalStrict(raw, &typed)
	if err != nil {
		if !drop {
			return nil, metaError(path, err)
		}
		for _, key := range sortedKeys(meta) { // keep what can be kept
			one, _ := json.Marshal(map[string]any{key: meta[key]})
			if _, err := kjson.UnmarshalStrict(one, &metav1.ObjectMeta{}); err != nil {
				delete(meta, key)
			}
		}
		return coerceMeta(object, path, false)
	}
	for _, problem := range strict {
		if name, ok := strings.CutPrefix(problem.Error(), `unknown field "`); ok {
			unknown = append(unknown, joined(joined(path, "metadata"), strings.TrimSuffix(name, `"`)))
		}
	}
	if raw, err = json.Marshal(&typed); err != nil {
		return nil, err
	}
	var clean map[string]any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &clean); err != nil {
		return nil, err
	}
	if typed.CreationTimestamp.IsZero() {
		delete(clean, "creationTimestamp")
	}
	object["metadata"] = clean
	return unknown, nil
}

func metaError(path string, err error) error {
	where := field.NewPath("metadata")
	if path != "" {
		where = field.NewPath(path, "metadata")
	}
	return field.Invalid(where, nil, err.Error())
}

func jsonType(v any) string {
	switch v.(type) {
	case string:
		return "string"
	case bool:
		return "bool"
	case []any:
		return "array"
	}
	return "number"
}

// settled reports whether metadata plainly has the form of ObjectMeta; false means that it must be
// looked at in full.
func settled(meta map[string]any) bool {
	for key, value := range meta {
		switch key {
		case "name", "generateName", "namespace", "uid", "resourceVersion":
			if s, ok := value.(string); !ok || s == "" {
				return false
			}
		case "generation":
			if n, ok := value.(int64); !ok || n == 0 {
				return false
			}
		case "labels", "annotations":
			m, ok := value.(map[string]any)
			if !ok || len(m) == 0 {
				return false
			}
			for _, v := range m {
				if _, ok := v.(string); !ok {
					return false
				}
			}
		case "finalizers":
			list, ok := value.([]any)
			if !ok || len(list) == 0 {
				return false
			}
			for _, v := range list {
				if _, ok := v.(string); !ok {
					return false
				}
			}
		case "creationTimestamp", "deletionTimestamp":
			// Those that the server wrote.
			if s, ok := value.(string); !ok || len(s) != len("2006-01-02T15:04:05Z") {
				return false
			}
		case "managedFields":
			if !settledManagers(value) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// settledManagers reports whether managedFields have the form in which the server writes them.
func settledManagers(value any) bool {
	list, ok := value.([]any)
	if !ok || len(list) == 0 {
		return false
	}
	for _, e := range list {
		m, ok := e.(map[string]any)
		if !ok {
			return false
		}
		for key, v := range m {
			switch key {
			case "manager", "operation", "apiVersion", "fieldsType", "subresource":
				if s, ok := v.(string); !ok || s == "" {
					return false
				}
			case "time":
				if s, ok := v.(string); !ok || len(s) != len("2006-01-02T15:04:05Z") {
					return false
				}
			case "fieldsV1":
				if _, ok := v.(map[string]any); !ok {
					return false
				}
			default:
				return false
			}
		}
	}
	return true
}
