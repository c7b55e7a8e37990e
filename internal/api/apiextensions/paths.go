package apiextensions

import (
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/util/jsonpath"
)

// Types and formats of printer columns, in the order in which answers list them.
var (
	columnTypes   = []string{"boolean", "date", "integer", "number", "string"}
	columnFormats = []string{"byte", "date", "date-time", "double", "float", "int32", "int64", "password"}
)

// simplePath wants a JSON path of field names alone.
func simplePath(text string, path *field.Path) field.ErrorList {
	switch {
	case text == "":
		return field.ErrorList{field.Invalid(path, text, "must not be empty")}
	case !strings.HasPrefix(text, "."):
		return field.ErrorList{field.Invalid(path, text, "must be a simple json path starting with .")}
	}
	for _, step := range strings.Split(text[1:], ".") {
		if step == "" || strings.ContainsAny(step, "[]{}@*?()'\"") {
			return field.ErrorList{field.Invalid(path, text, "must be a dot separated list of field names")}
		}
	}
	return nil
}

func checkColumns(columns []apiextensionsv1.CustomResourceColumnDefinition, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, c := range columns {
		at := path.Index(i)
		if c.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), ""))
		}
		switch {
		case c.Type == "":
			errs = append(errs, field.Required(at.Child("type"), "must be one of "+strings.Join(columnTypes, ",")))
		case !slices.Contains(columnTypes, c.Type):
			errs = append(errs, field.Invalid(at.Child("type"), c.Type, "must be one of "+strings.Join(columnTypes, ",")))
		}
		if c.Format != "" && !slices.Contains(columnFormats, c.Format) {
			errs = append(errs, field.Invalid(at.Child("format"), c.Format, "must be one of "+strings.Join(columnFormats, ",")))
		}
		at = at.Child("JSONPath")
		switch {
		case c.JSONPath == "":
			errs = append(errs, field.Required(at, ""))
		case !strings.HasPrefix(c.JSONPath, "."):
			errs = append(errs, field.Invalid(at, c.JSONPath, "must be a simple json path starting with ."))
		default:
			if err := jsonpath.New(c.Name).Parse("{" + c.JSONPath + "}"); err != nil {
				errs = append(errs, field.Invalid(at, c.JSONPath, err.Error()))
			}
		}
	}
	return errs
}

// checkSelectable wants fields of the schema that hold one plain value (KEP-4358).
func checkSelectable(v *apiextensionsv1.CustomResourceDefinitionVersion, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	var root *apiextensionsv1.JSONSchemaProps
	if v.Schema != nil {
		root = v.Schema.OpenAPIV3Schema
	}
	seen := map[string]bool{}
	for i, f := range v.SelectableFields {
		at := path.Index(i).Child("jsonPath")
		if f.JSONPath == "" {
			errs = append(errs, field.Required(at, ""))
			continue
		}
		s, problem := fieldAt(root, f.JSONPath)
		if strings.Contains(f.JSONPath, "[") {
			problem = "must be a dot separated list of field names"
		}
		switch {
		case problem != "":
			errs = append(errs, field.Invalid(at, f.JSONPath, "is an invalid path: "+problem))
			continue
		case s.Type != "string" && s.Type != "boolean" && s.Type != "integer":
			errs = append(errs, field.Invalid(at, f.JSONPath, "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed."))
		}
		if seen[f.JSONPath] {
			errs = append(errs, field.Duplicate(at, f.JSONPath))
		}
		seen[f.JSONPath] = true
	}
	if n := len(seen); n > maxSelectableFields {
		errs = append(errs, field.TooMany(path, n, maxSelectableFields))
	}
	return errs
}

// fieldAt finds the schema of a field by a path of steps .name and ['name']. Metadata has no schema here.
func fieldAt(s *apiextensionsv1.JSONSchemaProps, text string) (_ *apiextensionsv1.JSONSchemaProps, problem string) {
	const nowhere = "does not refer to a valid field"
	for rest := text; rest != ""; {
		var name string
		switch rest[0] {
		case '.':
			rest = rest[1:]
			end := strings.IndexAny(rest, ".[")
			if end < 0 {
				end = len(rest)
			}
			name, rest = rest[:end], rest[end:]
		case '[':
			quoted, after, closed := strings.Cut(rest[1:], "]")
			if !closed || len(quoted) < 2 || quoted[0] != '\'' || quoted[len(quoted)-1] != '\'' {
				return nil, nowhere
			}
			name, rest = quoted[1:len(quoted)-1], after
		default:
			token, _, _ := strings.Cut(rest, ".")
			return nil, "expected [ or . but got: " + token
		}
		switch {
		case name == "":
			return nil, "unexpected end of JSON path"
		case s == nil:
			return nil, nowhere
		case s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil:
			s = s.AdditionalProperties.Schema
			continue
		}
		next, ok := s.Properties[name]
		if !ok {
			return nil, nowhere
		}
		s = &next
	}
	return s, ""
}
