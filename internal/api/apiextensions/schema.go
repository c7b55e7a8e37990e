package apiextensions

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// rootFields are the fields that the schema of an object with a status subresource may have: none that would say
// something about the status and be lost where the status is checked alone.
var rootFields = []string{
	"Description", "Type", "Format", "Title", "Maximum", "ExclusiveMaximum", "Minimum", "ExclusiveMinimum", "MaxLength", "MinLength", "Pattern",
	"MaxItems", "MinItems", "UniqueItems", "MultipleOf", "Required", "Items", "Properties", "ExternalDocs", "Example", "XPreserveUnknownFields", "XValidations",
}

// schema reports everything wrong with the schema of objects; status: they have a status subresource.
func (v validator) schema(s *apiextensionsv1.CustomResourceValidation, status bool, path *field.Path) field.ErrorList {
	if s == nil || s.OpenAPIV3Schema == nil {
		return nil
	}
	root := s.OpenAPIV3Schema
	var errs field.ErrorList
	if status {
		errs = append(errs, checkRootFields(root, path)...)
	}
	if root.Nullable {
		errs = append(errs, field.Forbidden(path.Child("nullable"), "nullable cannot be true at the root"))
	}
	structural := checkStructural(root, path)
	errs = append(errs, structural...)
	if len(structural) == 0 && v.CheckDefaults != nil {
		errs = append(errs, v.CheckDefaults(root, path)...)
	}
	errs = append(errs, checkSchema(root, path)...)
	if len(errs) == 0 && v.CheckRules != nil {
		errs = append(errs, v.CheckRules(root, path)...)
	}
	return errs
}

func (v validator) warn(d, _ *apiextensionsv1.CustomResourceDefinition) []string {
	if v.Warnings == nil {
		return nil
	}
	var texts []string
	for i := range d.Spec.Versions {
		if s := d.Spec.Versions[i].Schema; s != nil && s.OpenAPIV3Schema != nil {
			texts = append(texts, v.Warnings(s.OpenAPIV3Schema)...)
		}
	}
	return texts
}

func checkRootFields(root *apiextensionsv1.JSONSchemaProps, path *field.Path) field.ErrorList {
	if root.Type != "" && root.Type != "object" {
		return field.ErrorList{field.Invalid(path.Child("type"), root.Type, `only "object" is allowed as the type at the root of the schema if the status subresource is enabled`)}
	}
	value := reflect.ValueOf(*root)
	for i := range value.NumField() {
		if name := value.Type().Field(i).Name; !value.Field(i).IsZero() && !slices.Contains(rootFields, name) {
			return field.ErrorList{field.Invalid(path, check.GoNames(*root), fmt.Sprintf("only %v fields are allowed at the root of the schema if the status subresource is enabled", rootFields))}
		}
	}
	return nil
}

// hasDefaults reports whether anything in the schema of a version has a default.
func hasDefaults(v apiextensionsv1.CustomResourceDefinitionVersion) bool {
	return v.Schema != nil && v.Schema.OpenAPIV3Schema != nil && anyDefault(v.Schema.OpenAPIV3Schema)
}

func anyDefault(s *apiextensionsv1.JSONSchemaProps) bool {
	found := s.Default != nil
	eachBelow(s, nil, func(below *apiextensionsv1.JSONSchemaProps, _ *field.Path) { found = found || anyDefault(below) })
	return found
}

// eachBelow calls f with every schema directly in s, at its path.
func eachBelow(s *apiextensionsv1.JSONSchemaProps, path *field.Path, f func(*apiextensionsv1.JSONSchemaProps, *field.Path)) {
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		f(s.AdditionalProperties.Schema, path.Child("additionalProperties"))
	}
	for _, name := range check.Sorted(s.Properties) {
		property := s.Properties[name]
		f(&property, path.Child("properties").Key(name))
	}
	if s.Not != nil {
		f(s.Not, path.Child("not"))
	}
	for _, junctor := range []struct {
		name string
		list []apiextensionsv1.JSONSchemaProps
	}{{"allOf", s.AllOf}, {"oneOf", s.OneOf}, {"anyOf", s.AnyOf}} {
		for i := range junctor.list {
			f(&junctor.list[i], path.Child(junctor.name).Index(i))
		}
	}
	if s.Items != nil && s.Items.Schema != nil {
		f(s.Items.Schema, path.Child("items"))
	}
}

// checkSchema checks what a schema says, whether it is structural or not.
func checkSchema(s *apiextensionsv1.JSONSchemaProps, path *field.Path) field.ErrorList {
	errs := checkUnsupported(s, path)
	eachBelow(s, path, func(below *apiextensionsv1.JSONSchemaProps, at *field.Path) {
		errs = append(errs, checkSchema(below, at)...)
	})
	errs = append(errs, checkExtensions(s, path)...)
	for i := range s.XValidations {
		errs = append(errs, checkRule(&s.XValidations[i], s, path.Child("x-kubernetes-validations").Index(i))...)
	}
	return errs
}

var schemaTypes = []string{"array", "boolean", "integer", "number", "object", "string"}

// checkUnsupported forbids what JSON schema has and definitions do not.
func checkUnsupported(s *apiextensionsv1.JSONSchemaProps, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	forbid := func(set bool, name, text string) {
		if set {
			errs = append(errs, field.Forbidden(path.Child(name), text))
		}
	}
	forbid(s.ID != "", "id", "id is not supported")
	forbid(s.AdditionalItems != nil, "additionalItems", "additionalItems is not supported")
	forbid(len(s.PatternProperties) > 0, "patternProperties", "patternProperties is not supported")
	forbid(len(s.Definitions) > 0, "definitions", "definitions is not supported")
	forbid(s.Dependencies != nil, "dependencies", "dependencies is not supported")
	forbid(s.Ref != nil, "$ref", "$ref is not supported")
	forbid(s.Type == "null", "type", "type cannot be set to null, use nullable as an alternative")
	forbid(s.Items != nil && len(s.Items.JSONSchemas) > 0, "items", "items must be a schema object and not an array")
	if s.Type != "" && s.Type != "null" && !slices.Contains(schemaTypes, s.Type) {
		errs = append(errs, field.NotSupported(path.Child("type"), s.Type, schemaTypes))
	}
	forbid(s.UniqueItems, "uniqueItems", "uniqueItems cannot be set to true since the runtime complexity becomes quadratic")
	forbid(s.AdditionalProperties != nil && len(s.Properties) > 0 && (!s.AdditionalProperties.Allows || s.AdditionalProperties.Schema != nil),
		"additionalProperties", "additionalProperties and properties are mutual exclusive")
	return errs
}

// checkExtensions checks the extensions of Kubernetes to JSON schema.
func checkExtensions(s *apiextensionsv1.JSONSchemaProps, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if p := s.XPreserveUnknownFields; p != nil && !*p {
		errs = append(errs, field.Invalid(path.Child("x-kubernetes-preserve-unknown-fields"), *p, "must be true or undefined"))
	}
	if s.XMapType != nil {
		if s.Type != "object" {
			errs = append(errs, wrongType(s, path, "must be object if x-kubernetes-map-type is specified")...)
		}
		errs = append(errs, check.OneOf(*s.XMapType, path.Child("x-kubernetes-map-type"), "atomic", "granular")...)
	}
	return append(errs, checkListType(s, path)...)
}

func checkListType(s *apiextensionsv1.JSONSchemaProps, path *field.Path) field.ErrorList {
	kindOf, listType := path.Child("x-kubernetes-list-type"), ptr.Deref(s.XListType, "")
	items := &apiextensionsv1.JSONSchemaProps{}
	if s.Items != nil && s.Items.Schema != nil {
		items = s.Items.Schema
	}
	var errs field.ErrorList
	if s.XListType != nil && s.Type != "array" {
		errs = append(errs, wrongType(s, path, "must be array if x-kubernetes-list-type is specified")...)
	} else if listType == "set" {
		errs = append(errs, checkSetItems(items, path.Child("items"))...)
	}
	if s.XListType != nil {
		errs = append(errs, check.OneOf(listType, kindOf, "atomic", "set", "map")...)
	}
	if len(s.XListMapKeys) > 0 {
		const text = "must be map if x-kubernetes-list-map-keys is non-empty"
		switch {
		case s.XListType == nil:
			errs = append(errs, field.Required(kindOf, text))
		case listType != "map":
			errs = append(errs, field.Invalid(kindOf, listType, text))
		}
	}
	if listType == "map" {
		errs = append(errs, checkMapKeys(s, items, path)...)
	}
	if (listType == "map" || listType == "set") && items.Nullable {
		errs = append(errs, field.Forbidden(path.Child("items", "nullable"), "cannot be nullable when x-kubernetes-list-type is "+listType))
	}
	if listType == "map" {
		errs = append(errs, checkKeysGiven(s, items, path)...)
	}
	return errs
}

// checkSetItems wants the elements of a set to be compared as a whole.
func checkSetItems(items *apiextensionsv1.JSONSchemaProps, path *field.Path) field.ErrorList {
	const text = "must be atomic as item of a list with x-kubernetes-list-type=set"
	switch {
	case items.Type == "array" && items.XListType != nil && *items.XListType != "atomic":
		return field.ErrorList{field.Invalid(path.Child("x-kubernetes-list-type"), items.XListType, text)}
	case items.Type == "object" && ptr.Deref(items.XMapType, "") != "atomic":
		return field.ErrorList{field.Invalid(path.Child("x-kubernetes-map-type"), items.XMapType, text)}
	}
	return nil
}

// checkMapKeys wants the keys of a list that is a map to be plain fields of its elements.
func checkMapKeys(s, items *apiextensionsv1.JSONSchemaProps, path *field.Path) field.ErrorList {
	keys, at := path.Child("x-kubernetes-list-map-keys"), path.Child("items")
	var errs field.ErrorList
	if len(s.XListMapKeys) == 0 {
		errs = append(errs, field.Required(keys, "must not be empty if x-kubernetes-list-type is map"))
	}
	switch {
	case s.Items == nil:
		return append(errs, field.Required(at, "must have a schema if x-kubernetes-list-type is map"))
	case s.Items.Schema == nil:
		return append(errs, field.Invalid(at, check.GoNames(s.Items), "must only have a single schema if x-kubernetes-list-type is map"))
	case items.Type != "object":
		return append(errs, field.Invalid(at.Child("type"), items.Type, "must be object if parent array's x-kubernetes-list-type is map"))
	}
	seen := map[string]bool{}
	for _, key := range s.XListMapKeys {
		switch property, ok := items.Properties[key]; {
		case !ok:
			errs = append(errs, field.Invalid(keys, s.XListMapKeys, "entries must all be names of item properties"))
		case property.Type == "array" || property.Type == "object":
			errs = append(errs, field.Invalid(at.Child("properties").Key(key).Child("type"), property.Type, "must be a scalar type if parent array's x-kubernetes-list-type is map"))
		}
		if seen[key] {
			errs = append(errs, field.Invalid(keys, s.XListMapKeys, "must not contain duplicate entries"))
		}
		seen[key] = true
	}
	return errs
}

// checkKeysGiven wants every element of a list that is a map to have all keys.
func checkKeysGiven(s, items *apiextensionsv1.JSONSchemaProps, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, key := range s.XListMapKeys {
		property, ok := items.Properties[key]
		at := path.Child("items", "properties").Key(key)
		if ok && property.Default == nil && !slices.Contains(items.Required, key) {
			errs = append(errs, field.Required(at.Child("default"), "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"))
		}
		if ok && property.Nullable {
			errs = append(errs, field.Forbidden(at.Child("nullable"), "this property is in x-kubernetes-list-map-keys, so it cannot be nullable"))
		}
	}
	return errs
}

var ruleReasons = []apiextensionsv1.FieldValueErrorReason{
	apiextensionsv1.FieldValueDuplicate, apiextensionsv1.FieldValueForbidden, apiextensionsv1.FieldValueInvalid, apiextensionsv1.FieldValueRequired,
}

// checkRule checks a validation rule of a schema besides its expressions.
func checkRule(r *apiextensionsv1.ValidationRule, s *apiextensionsv1.JSONSchemaProps, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	rule, message := strings.TrimSpace(r.Rule), strings.TrimSpace(r.Message)
	at := path.Child("message")
	switch {
	case rule == "":
		errs = append(errs, field.Required(path.Child("rule"), "rule is not specified"))
	case r.Message != "" && message == "":
		errs = append(errs, field.Invalid(at, r.Message, "message must be non-empty if specified"))
	case hasLineBreaks(message):
		errs = append(errs, field.Invalid(at, r.Message, "message must not contain line breaks"))
	case hasLineBreaks(rule) && message == "":
		errs = append(errs, field.Required(at, "message must be specified if rule contains line breaks"))
	}
	if r.MessageExpression != "" && strings.TrimSpace(r.MessageExpression) == "" {
		errs = append(errs, field.Required(path.Child("messageExpression"), "messageExpression must be non-empty if specified"))
	}
	if r.Reason != nil {
		errs = append(errs, check.OneOf(*r.Reason, path.Child("reason"), ruleReasons...)...)
	}
	if r.FieldPath == "" {
		return errs
	}
	at = path.Child("fieldPath")
	if strings.TrimSpace(r.FieldPath) == "" {
		errs = append(errs, field.Invalid(at, r.FieldPath, "fieldPath must be non-empty if specified"))
	}
	if hasLineBreaks(r.FieldPath) {
		errs = append(errs, field.Invalid(at, r.FieldPath, "fieldPath must not contain line breaks"))
	}
	if _, problem := fieldAt(s, r.FieldPath); problem != "" {
		errs = append(errs, field.Invalid(at, r.FieldPath, "fieldPath must be a valid path: "+problem))
	}
	return errs
}

func hasLineBreaks(text string) bool { return strings.ContainsAny(text, "\n\r") }
