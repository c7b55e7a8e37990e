package apiextensions

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/timonel/timonel/internal/api/check"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	openapierrors "k8s.io/kube-openapi/pkg/validation/errors"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kube-openapi/pkg/validation/strfmt"
	"k8s.io/kube-openapi/pkg/validation/validate"
	"k8s.io/utils/ptr"
)

// checkDefaults wants every default to be a value that its schema accepts and would not prune.
func checkDefaults(s *apiextensionsv1.JSONSchemaProps, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.Default != nil {
		errs = append(errs, checkDefault(s, path.Child("default"))...)
	}
	for _, name := range check.Sorted(s.Properties) {
		property := s.Properties[name]
		errs = append(errs, checkDefaults(&property, path.Child("properties").Key(name))...)
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		errs = append(errs, checkDefaults(s.AdditionalProperties.Schema, path.Child("additionalProperties"))...)
	}
	if s.Items != nil && s.Items.Schema != nil {
		errs = append(errs, checkDefaults(s.Items.Schema, path.Child("items"))...)
	}
	return errs
}

func checkDefault(s *apiextensionsv1.JSONSchemaProps, path *field.Path) field.ErrorList {
	var value any
	if err := json.Unmarshal(s.Default.Raw, &value); err != nil {
		return field.ErrorList{field.Invalid(path, string(s.Default.Raw), "must be valid JSON: "+err.Error())}
	}
	if value == nil && s.Nullable {
		return nil
	}
	if unknown(s, value) {
		return field.ErrorList{field.Invalid(path, value, "must not have unknown fields")}
	}
	schema, err := openAPISchema(s)
	if err != nil {
		return field.ErrorList{field.InternalError(path, err)}
	}
	var errs field.ErrorList
	for _, problem := range validate.NewSchemaValidator(schema, nil, "", strfmt.Default).Validate(value).Errors {
		errs = append(errs, valueError(problem, path))
	}
	return errs
}

// valueError says in the terms of the API what is wrong with a value.
func valueError(problem error, path *field.Path) *field.Error {
	var v *openapierrors.Validation
	if !errors.As(problem, &v) {
		return field.Invalid(path, field.OmitValueType{}, problem.Error())
	}
	switch v.Code() {
	case openapierrors.RequiredFailCode:
		return field.Required(path, problem.Error())
	case openapierrors.InvalidTypeCode:
		return field.TypeInvalid(path, v.Value, problem.Error())
	}
	return field.Invalid(path, v.Value, problem.Error())
}

// unknown reports whether a value has fields that the schema does not know, and that would be dropped.
func unknown(s *apiextensionsv1.JSONSchemaProps, value any) bool {
	if s == nil {
		return false
	}
	switch value := value.(type) {
	case map[string]any:
		for name, field := range value {
			if s.XEmbeddedResource && (name == "apiVersion" || name == "kind" || name == "metadata") {
				continue
			}
			property, known := s.Properties[name]
			switch {
			case known:
				if unknown(&property, field) {
					return true
				}
			case s.AdditionalProperties != nil:
				if unknown(s.AdditionalProperties.Schema, field) {
					return true
				}
			case !ptr.Deref(s.XPreserveUnknownFields, false):
				return true
			}
		}
	case []any:
		for _, item := range value {
			if s.Items != nil && unknown(s.Items.Schema, item) {
				return true
			}
		}
	}
	return false
}

// openAPISchema is a schema in the form that values are checked with.
func openAPISchema(s *apiextensionsv1.JSONSchemaProps) (*spec.Schema, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("write schema: %w", err)
	}
	out := &spec.Schema{}
	if err := json.Unmarshal(text, out); err != nil {
		return nil, fmt.Errorf("read schema: %w", err)
	}
	loosen(out)
	return out, nil
}

// loosen lets values be what the extensions of Kubernetes allow besides the type: integers or strings.
func loosen(s *spec.Schema) {
	if both, ok := s.Extensions.GetBool("x-kubernetes-int-or-string"); ok && both {
		s.Type = spec.StringOrArray{"integer", "string"}
	}
	for name, property := range s.Properties {
		loosen(&property)
		s.Properties[name] = property
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		loosen(s.AdditionalProperties.Schema)
	}
	if s.Items != nil && s.Items.Schema != nil {
		loosen(s.Items.Schema)
	}
}
