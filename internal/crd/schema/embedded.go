package schema

import (
	"strings"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// embedded reports what is wrong with the types and metadata of resources embedded in an object
// (x-kubernetes-embedded-resource). Parity: a name is held to no kind's form, see the corpus, crd/preserve-unknown.
func (s *Schema) embedded(object, _ map[string]any) field.ErrorList {
	return embeddedErrors(object, s.root, nil)
}

func embeddedErrors(v any, n *node, at *field.Path) (errs field.ErrorList) {
	if n == nil || !n.embeds {
		return nil
	}
	visit := func(v any, child *node, at *field.Path) {
		if child == nil {
			return
		}
		if m, ok := v.(map[string]any); ok && child.embedded {
			errs = append(errs, checkType(m, at)...)
		}
		errs = append(errs, embeddedErrors(v, child, at)...)
	}
	switch v := v.(type) {
	case map[string]any:
		for _, key := range sortedKeys(v) {
			below := at.Child(key)
			if at == nil {
				below = field.NewPath(key)
			}
			if n.properties[key] == nil {
				below = at.Key(key)
			}
			visit(v[key], n.child(key), below)
		}
	case []any:
		for i, e := range v {
			visit(e, n.items, at.Index(i))
		}
	}
	return errs
}

func checkType(m map[string]any, at *field.Path) (errs field.ErrorList) {
	if text, ok := typeText(m, "apiVersion", at, &errs); ok {
		if _, err := schema.ParseGroupVersion(text); err != nil {
			errs = append(errs, field.Invalid(at.Child("apiVersion"), text, err.Error()))
		}
	}
	if text, ok := typeText(m, "kind", at, &errs); ok {
		if problems := validation.IsDNS1035Label(strings.ToLower(text)); len(problems) > 0 {
			errs = append(errs, field.Invalid(at.Child("kind"), text, "may have mixed case, but should otherwise match: "+strings.Join(problems, ",")))
		}
	}
	meta, ok := m["metadata"].(map[string]any)
	if !ok {
		return errs
	}
	var typed metav1.ObjectMeta
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(meta, &typed); err != nil {
		return append(errs, field.Invalid(at.Child("metadata"), meta, err.Error()))
	}
	if typed.Name == "" {
		typed.Name = "unnamed" // a template needs no name
	}
	return append(errs, apivalidation.ValidateObjectMeta(&typed, typed.Namespace != "", segmentName, at.Child("metadata"))...)
}

func segmentName(name string, prefix bool) []string {
	if prefix {
		return path.IsValidPathSegmentPrefix(name)
	}
	return path.IsValidPathSegmentName(name)
}

// typeText reads apiVersion or kind; ok: it is a text that can be looked at further.
func typeText(m map[string]any, name string, at *field.Path, errs *field.ErrorList) (text string, ok bool) {
	value, has := m[name]
	text, isText := value.(string)
	switch {
	case !has:
		*errs = append(*errs, field.Required(at.Child(name), ""))
	case !isText:
		*errs = append(*errs, field.Invalid(at.Child(name), value, "must be a string"))
	case strings.TrimSpace(text) == "":
		*errs = append(*errs, field.Invalid(at.Child(name), text, "must not be empty"))
	default:
		return text, true
	}
	return "", false
}
