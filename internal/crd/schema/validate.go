package schema

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	openapierrors "k8s.io/kube-openapi/pkg/validation/errors"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kube-openapi/pkg/validation/strfmt"
	"k8s.io/kube-openapi/pkg/validation/validate"
)

// validator checks values against the OpenAPI side of a schema.
type validator struct {
	object, status *validate.SchemaValidator
}

func newValidator(props *apiextensions.JSONSchemaProps) (*validator, error) {
	s, err := openAPI(props)
	if err != nil {
		return nil, err
	}
	adapt(s)
	v := &validator{object: validate.NewSchemaValidator(s, nil, "", strfmt.Default)}
	if status, ok := s.Properties["status"]; ok {
		v.status = validate.NewSchemaValidator(&status, nil, "", strfmt.Default)
	}
	return v, nil
}

// adapt says in OpenAPI's words what the extensions mean for validation.
func adapt(s *spec.Schema) {
	if is, _ := s.Extensions["x-kubernetes-int-or-string"].(bool); is {
		s.Type = spec.StringOrArray{"integer", "string"}
	}
	if s.Format != "" && !known(s.Format) {
		s.Format = ""
	}
	s.Default = nil
	for name, child := range s.Properties {
		adapt(&child)
		s.Properties[name] = child
	}
	if s.Items != nil && s.Items.Schema != nil {
		adapt(s.Items.Schema)
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		adapt(s.AdditionalProperties.Schema)
	}
	if s.Not != nil {
		adapt(s.Not)
	}
	for _, list := range [][]spec.Schema{s.AllOf, s.AnyOf, s.OneOf} {
		for i := range list {
			adapt(&list[i])
		}
	}
}

// Validate reports everything wrong with an object. old is what an update replaces, nil on
// create: what was wrong in parts that an update leaves alone is tolerated (KEP-4008).
func (s *Schema) Validate(object, old map[string]any) field.ErrorList {
	v, err := s.validator()
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	errs := s.check(v.object, nil, object, anyMap(old), s.root)
	errs = append(errs, s.embedded(object, old)...)
	if s.root.lists && (old == nil || len(s.uniqueness(old)) == 0) {
		errs = append(errs, s.uniqueness(object)...)
	}
	return errs
}

// ValidateStatus is Validate for an update that can change the status alone.
func (s *Schema) ValidateStatus(object, old map[string]any) field.ErrorList {
	v, err := s.validator()
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	var errs field.ErrorList
	status, has := object["status"]
	if has && v.status != nil {
		errs = s.check(v.status, field.NewPath("status"), status, old["status"], s.root.properties["status"])
	}
	errs = append(errs, s.embedded(object, old)...)
	if s.root.lists && (old == nil || len(s.uniqueness(old)) == 0) {
		errs = append(errs, s.uniqueness(object)...)
	}
	return errs
}

func anyMap(m map[string]any) any {
	if m == nil {
		return nil
	}
	return m
}

// check runs an OpenAPI validator and gives its errors the types and texts of the API.
func (s *Schema) check(v *validate.SchemaValidator, root *field.Path, value, old any, n *node) field.ErrorList {
	result := v.Validate(value)
	if result == nil || result.IsValid() {
		return nil
	}
	type problem struct {
		name string
		errs field.ErrorList
	}
	var problems []problem
	tolerated := false
	for _, err := range result.Errors {
		invalid, ok := err.(*openapierrors.Validation)
		if !ok { // says more about the problem before
			if tolerated {
				continue
			}
			e := field.Invalid(root, "", err.Error())
			if len(problems) > 0 {
				last := &problems[len(problems)-1]
				last.errs = append(last.errs, e)
			} else {
				problems = append(problems, problem{"", field.ErrorList{e}})
			}
			continue
		}
		name := strings.TrimPrefix(invalid.Name, ".")
		where := name
		if invalid.Code() == openapierrors.RequiredFailCode {
			where = parentOf(where)
		}
		if tolerated = old != nil && unchanged(value, old, n, where); tolerated {
			continue
		}
		problems = append(problems, problem{name, field.ErrorList{toFieldError(root, name, invalid)}})
	}
	slices.SortStableFunc(problems, func(a, b problem) int { return strings.Compare(a.name, b.name) })
	var errs field.ErrorList
	for _, p := range problems {
		errs = append(errs, p.errs...)
	}
	return errs
}

func toFieldError(root *field.Path, name string, err *openapierrors.Validation) *field.Error {
	path := root
	if name != "" {
		path = root.Child(name)
		if root == nil {
			path = field.NewPath(name)
		}
	}
	value := err.Value
	if value == nil {
		value = ""
	}
	switch err.Code() {
	case openapierrors.RequiredFailCode:
		return field.Required(path, "")
	case openapierrors.EnumFailCode:
		texts := make([]string, 0, len(err.Values))
		for _, allowed := range err.Values {
			text, ok := allowed.(string)
			if !ok {
				raw, _ := json.Marshal(allowed)
				text = string(raw)
			}
			texts = append(texts, text)
		}
		return field.NotSupported(path, err.Value, texts)
	case openapierrors.TooLongFailCode:
		return field.TooLong(path, value, int(bound(err)))
	case openapierrors.MaxItemsFailCode:
		return field.TooMany(path, int(length(err.Value)), int(bound(err)))
	case openapierrors.TooManyPropertiesCode:
		return field.TooMany(path, int(length(err.Value)), int(bound(err)))
	case openapierrors.InvalidTypeCode:
		return field.TypeInvalid(path, value, err.Error())
	}
	return field.Invalid(path, value, err.Error())
}

func bound(err *openapierrors.Validation) int64 {
	switch n := err.Valid.(type) {
	case int64:
		return n
	case *int64:
		if n != nil {
			return *n
		}
	case int:
		return int64(n)
	}
	return -1
}

func length(v any) int64 {
	switch n := v.(type) {
	case int64:
		return n
	case int:
		return int64(n)
	case []any:
		return int64(len(n))
	case map[string]any:
		return int64(len(n))
	}
	return -1
}

// parentOf cuts the last step off the name of a value.
func parentOf(name string) string {
	if i := strings.LastIndexAny(name, ".["); i >= 0 {
		return name[:i]
	}
	return ""
}

// unchanged reports whether the value with a name ("spec.ports[0].port", as the validator says it) is in old
// what it is in value. Elements of lists are compared only where the schema says which ones belong together.
func unchanged(value, old any, n *node, name string) bool {
	if reflect.DeepEqual(value, old) {
		return true
	}
	if name == "" || n == nil {
		return false
	}
	switch v := value.(type) {
	case map[string]any:
		before, ok := old.(map[string]any)
		if !ok {
			return false
		}
		name = strings.TrimPrefix(name, ".")
		for key := range v {
			rest, ok := strings.CutPrefix(name, key)
			if !ok || rest != "" && rest[0] != '.' && rest[0] != '[' {
				continue
			}
			was, ok := before[key]
			if ok && unchanged(v[key], was, n.child(key), rest) {
				return true
			}
		}
	case []any:
		before, ok := old.([]any)
		text, rest, closed := strings.Cut(strings.TrimPrefix(name, "["), "]")
		var i int
		if _, err := fmt.Sscanf(text, "%d", &i); err != nil || !ok || !closed || i < 0 || i >= len(v) || n.listType != mapList {
			return false
		}
		for _, was := range before {
			if sameKeys(v[i], was, n.listKeys) {
				return unchanged(v[i], was, n.items, rest)
			}
		}
	}
	return false
}

func sameKeys(a, b any, keys []string) bool {
	x, okX := a.(map[string]any)
	y, okY := b.(map[string]any)
	if !okX || !okY {
		return false
	}
	for _, key := range keys {
		if !reflect.DeepEqual(x[key], y[key]) {
			return false
		}
	}
	return true
}
