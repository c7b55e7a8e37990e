package apiextensions

import (
	"regexp"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// A schema is structural (Kubernetes documentation, "Specifying a structural schema") when it says of every field that it
// mentions which type it has, once, outside of the logical junctors allOf, anyOf, oneOf and not. Only such a schema can prune, fill in
// defaults and tell owners apart without trying alternatives.

// place is where in its parent a schema stands.
type place int

const (
	atRoot place = iota
	inFields
	inItems
)

func (v validator) schema(s *apiextensionsv1.CustomResourceValidation, path *field.Path) field.ErrorList {
	if s == nil || s.OpenAPIV3Schema == nil {
		return nil
	}
	root := s.OpenAPIV3Schema
	var errs field.ErrorList
	errs = append(errs, checkSchema(root, path, atRoot)...)
	if len(errs) > 0 {
		return errs
	}
	errs = append(errs, checkDefaults(root, path)...)
	if v.CheckRules != nil && len(errs) == 0 {
		errs = append(errs, v.CheckRules(root, path)...)
	}
	return errs
}

func checkSchema(s *apiextensionsv1.JSONSchemaProps, path *field.Path, where place) field.ErrorList {
	errs := checkUnsupported(s, path)
	errs = append(errs, checkType(s, path, where)...)
	errs = append(errs, checkExtensions(s, path)...)
	if s.Pattern != "" {
		if _, err := regexp.Compile(s.Pattern); err != nil {
			errs = append(errs, field.Invalid(path.Child("pattern"), s.Pattern, "must be a valid regular expression, but isn't: "+err.Error()))
		}
	}
	for i, r := range s.XValidations {
		errs = append(errs, checkRule(&r, path.Child("x-kubernetes-validations").Index(i))...)
	}
	if where == atRoot || s.XEmbeddedResource {
		errs = append(errs, checkMetadata(s, path)...)
	}
	for _, name := range check.Sorted(s.Properties) {
		property := s.Properties[name]
		if name == "metadata" && (where == atRoot || s.XEmbeddedResource) {
			continue
		}
		errs = append(errs, checkSchema(&property, path.Child("properties").Key(name), inFields)...)
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		errs = append(errs, checkSchema(s.AdditionalProperties.Schema, path.Child("additionalProperties"), inFields)...)
	}
	if s.Items != nil && s.Items.Schema != nil {
		errs = append(errs, checkSchema(s.Items.Schema, path.Child("items"), inItems)...)
	}
	return append(errs, checkJunctors(s, s, path)...)
}

// checkUnsupported forbids what JSON schema has and structural schemas do not.
func checkUnsupported(s *apiextensionsv1.JSONSchemaProps, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	forbid := func(set bool, name, text string) {
		if set {
			errs = append(errs, field.Forbidden(path.Child(name), text))
		}
	}
	forbid(s.UniqueItems, "uniqueItems", "uniqueItems cannot be set to true since the runtime complexity becomes quadratic")
	forbid(s.AdditionalProperties != nil && len(s.Properties) > 0 && (s.AdditionalProperties.Allows || s.AdditionalProperties.Schema != nil),
		"additionalProperties", "additionalProperties and properties are mutual exclusive")
	forbid(s.Ref != nil, "$ref", "$ref is not supported")
	forbid(s.ID != "", "id", "id is not supported")
	forbid(s.AdditionalItems != nil, "additionalItems", "additionalItems is not supported")
	forbid(len(s.PatternProperties) > 0, "patternProperties", "patternProperties is not supported")
	forbid(len(s.Definitions) > 0, "definitions", "definitions is not supported")
	forbid(len(s.Dependencies) > 0, "dependencies", "dependencies is not supported")
	forbid(s.Items != nil && len(s.Items.JSONSchemas) > 0, "items", "items must be a schema object and not an array")
	return errs
}

var schemaTypes = []string{"array", "boolean", "integer", "number", "object", "string"}

func checkType(s *apiextensionsv1.JSONSchemaProps, path *field.Path, where place) field.ErrorList {
	at := path.Child("type")
	switch {
	case s.Type == "null":
		return field.ErrorList{field.Forbidden(at, "type cannot be set to null, use nullable as an alternative")}
	case s.Type != "" && !slices.Contains(schemaTypes, s.Type):
		return field.ErrorList{field.NotSupported(at, s.Type, schemaTypes)}
	case where == atRoot && s.Type == "":
		return field.ErrorList{field.Required(at, "must not be empty at the root")}
	case where == atRoot && s.Type != "object":
		return field.ErrorList{field.Invalid(at, s.Type, "must be object at the root")}
	case s.Type != "" || s.XIntOrString || ptr.Deref(s.XPreserveUnknownFields, false):
		return nil
	case where == inItems:
		return field.ErrorList{field.Required(at, "must not be empty for specified array items")}
	}
	return field.ErrorList{field.Required(at, "must not be empty for specified object fields")}
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
	if s.XEmbeddedResource {
		if s.Type != "object" {
			errs = append(errs, wrongType(s, path, "must be object if x-kubernetes-embedded-resource is true")...)
		}
		if len(s.Properties) == 0 && !ptr.Deref(s.XPreserveUnknownFields, false) {
			errs = append(errs, field.Required(path.Child("properties"), "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"))
		}
	}
	return append(errs, checkListType(s, path)...)
}

func wrongType(s *apiextensionsv1.JSONSchemaProps, path *field.Path, text string) field.ErrorList {
	if s.Type == "" {
		return field.ErrorList{field.Required(path.Child("type"), text)}
	}
	return field.ErrorList{field.Invalid(path.Child("type"), s.Type, text)}
}

func checkListType(s *apiextensionsv1.JSONSchemaProps, path *field.Path) field.ErrorList {
	keys, kindOf := path.Child("x-kubernetes-list-map-keys"), path.Child("x-kubernetes-list-type")
	var errs field.ErrorList
	if s.XListType == nil {
		if len(s.XListMapKeys) > 0 {
			errs = append(errs, field.Required(kindOf, "must be map if x-kubernetes-list-map-keys is non-empty"))
		}
		return errs
	}
	if s.Type != "array" {
		errs = append(errs, wrongType(s, path, "must be array if x-kubernetes-list-type is specified")...)
	}
	var items *apiextensionsv1.JSONSchemaProps
	if s.Items != nil {
		items = s.Items.Schema
	}
	switch *s.XListType {
	case "atomic":
	case "set":
		if items != nil && items.Nullable {
			errs = append(errs, field.Forbidden(path.Child("items", "nullable"), "cannot be nullable when x-kubernetes-list-type is set"))
		}
		if items != nil && items.Type == "object" && ptr.Deref(items.XMapType, "") != "atomic" {
			errs = append(errs, field.Invalid(path.Child("items", "x-kubernetes-map-type"), items.XMapType, "must be atomic as item of a list with x-kubernetes-list-type=set"))
		}
		if items != nil && items.Type == "array" && items.XListType != nil && *items.XListType != "atomic" {
			errs = append(errs, field.Invalid(path.Child("items", "x-kubernetes-list-type"), items.XListType, "must be atomic as item of a list with x-kubernetes-list-type=set"))
		}
	case "map":
		return append(errs, checkMapKeys(s, items, path)...)
	default:
		return append(errs, field.NotSupported(kindOf, *s.XListType, []string{"atomic", "map", "set"}))
	}
	if len(s.XListMapKeys) > 0 {
		errs = append(errs, field.Forbidden(keys, "must be empty if x-kubernetes-list-type is not map"))
	}
	return errs
}

func checkMapKeys(s, items *apiextensionsv1.JSONSchemaProps, path *field.Path) field.ErrorList {
	keys := path.Child("x-kubernetes-list-map-keys")
	if len(s.XListMapKeys) == 0 {
		return field.ErrorList{field.Required(keys, "must not be empty if x-kubernetes-list-type is map")}
	}
	if items == nil {
		return field.ErrorList{field.Required(path.Child("items"), "must have a schema if x-kubernetes-list-type is map")}
	}
	if items.Type != "object" {
		return wrongType(items, path.Child("items"), "must be object if parent array's x-kubernetes-list-type is map")
	}
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, key := range s.XListMapKeys {
		at := path.Child("items", "properties").Key(key)
		if seen[key] {
			errs = append(errs, field.Invalid(keys, s.XListMapKeys, "must not contain duplicate entries"))
		}
		seen[key] = true
		property, ok := items.Properties[key]
		switch {
		case !ok:
			errs = append(errs, field.Invalid(keys.Index(i), key, "entries must all be names of item properties"))
			continue
		case property.Type == "array" || property.Type == "object":
			errs = append(errs, field.Invalid(at.Child("type"), property.Type, "must be a scalar type if parent array's x-kubernetes-list-type is map"))
		case property.Nullable:
			errs = append(errs, field.Forbidden(at.Child("nullable"), "this property is in x-kubernetes-list-map-keys, so it cannot be nullable"))
		}
		if property.Default == nil && !slices.Contains(items.Required, key) {
			errs = append(errs, field.Required(at.Child("default"), "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"))
		}
	}
	return errs
}

// checkMetadata: the metadata of an object is that of every object; only its name can be restricted further.
func checkMetadata(s *apiextensionsv1.JSONSchemaProps, path *field.Path) field.ErrorList {
	metadata, ok := s.Properties["metadata"]
	if !ok {
		return nil
	}
	at := path.Child("properties").Key("metadata")
	if metadata.Type != "object" {
		return field.ErrorList{field.Invalid(at.Child("type"), metadata.Type, "must be object")}
	}
	own := metadata
	own.Properties, own.Description = nil, ""
	extra := !equality.Semantic.DeepEqual(own, apiextensionsv1.JSONSchemaProps{Type: "object"})
	for name := range metadata.Properties {
		extra = extra || name != "name" && name != "generateName"
	}
	if extra {
		return field.ErrorList{field.Forbidden(at, "must not specify anything other than name and generateName, but metadata is implicitly specified")}
	}
	var errs field.ErrorList
	for _, name := range check.Sorted(metadata.Properties) {
		property := metadata.Properties[name]
		errs = append(errs, checkSchema(&property, at.Child("properties").Key(name), inFields)...)
	}
	return errs
}

// checkJunctors wants junctors to restrict values only, and only of fields that are described outside of them.
func checkJunctors(s, outer *apiextensionsv1.JSONSchemaProps, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	each := func(list []apiextensionsv1.JSONSchemaProps, name string) {
		for i := range list {
			errs = append(errs, checkAlternative(&list[i], outer, path.Child(name).Index(i), intOrString(s, name, i))...)
		}
	}
	each(s.AllOf, "allOf")
	each(s.AnyOf, "anyOf")
	each(s.OneOf, "oneOf")
	if s.Not != nil {
		errs = append(errs, checkAlternative(s.Not, outer, path.Child("not"), false)...)
	}
	return errs
}

// intOrString reports whether an alternative is part of the only form in which one may name a type: x-kubernetes-int-or-string
// with anyOf integer or string, alone or as the first of allOf.
func intOrString(s *apiextensionsv1.JSONSchemaProps, name string, i int) bool {
	if !s.XIntOrString {
		return false
	}
	pair := func(list []apiextensionsv1.JSONSchemaProps) bool {
		return len(list) == 2 && list[0].Type == "integer" && list[1].Type == "string"
	}
	return name == "anyOf" && pair(s.AnyOf) || name == "allOf" && i == 0 && pair(s.AllOf[0].AnyOf)
}

func checkAlternative(s, outer *apiextensionsv1.JSONSchemaProps, path *field.Path, typed bool) field.ErrorList {
	var errs field.ErrorList
	forbid := func(set bool, name string) {
		if set {
			errs = append(errs, field.Forbidden(path.Child(name), "must be empty to be structural"))
		}
	}
	forbid(s.Type != "" && !typed, "type")
	forbid(s.Description != "", "description")
	forbid(s.Default != nil, "default")
	forbid(s.Title != "", "title")
	forbid(s.AdditionalProperties != nil, "additionalProperties")
	forbid(s.Nullable, "nullable")
	forbid(s.XPreserveUnknownFields != nil, "x-kubernetes-preserve-unknown-fields")
	forbid(s.XEmbeddedResource, "x-kubernetes-embedded-resource")
	forbid(s.XIntOrString, "x-kubernetes-int-or-string")
	forbid(len(s.XListMapKeys) > 0, "x-kubernetes-list-map-keys")
	forbid(s.XListType != nil, "x-kubernetes-list-type")
	forbid(s.XMapType != nil, "x-kubernetes-map-type")
	forbid(len(s.XValidations) > 0, "x-kubernetes-validations")
	errs = append(errs, checkUnsupported(s, path)...)
	if s.Pattern != "" {
		if _, err := regexp.Compile(s.Pattern); err != nil {
			errs = append(errs, field.Invalid(path.Child("pattern"), s.Pattern, "must be a valid regular expression, but isn't: "+err.Error()))
		}
	}
	for _, name := range check.Sorted(s.Properties) {
		property, at := s.Properties[name], path.Child("properties").Key(name)
		described, ok := outer.Properties[name]
		if !ok && outer.AdditionalProperties != nil && outer.AdditionalProperties.Schema != nil {
			described, ok = *outer.AdditionalProperties.Schema, true
		}
		if !ok {
			errs = append(errs, field.Required(outerPath(path).Child("properties").Key(name), "because it is defined in "+at.String()))
			continue
		}
		errs = append(errs, checkAlternative(&property, &described, at, false)...)
	}
	if s.Items != nil && s.Items.Schema != nil {
		if outer.Items == nil || outer.Items.Schema == nil {
			errs = append(errs, field.Required(outerPath(path).Child("items"), "because it is defined in "+path.Child("items").String()))
		} else {
			errs = append(errs, checkAlternative(s.Items.Schema, outer.Items.Schema, path.Child("items"), false)...)
		}
	}
	if typed { // the pair inside allOf
		for i := range s.AnyOf {
			errs = append(errs, checkAlternative(&s.AnyOf[i], outer, path.Child("anyOf").Index(i), true)...)
		}
		return errs
	}
	return append(errs, checkJunctors(s, outer, path)...)
}

// outerPath is the path of the schema whose junctor path lies in.
func outerPath(path *field.Path) *field.Path {
	text := path.String()
	for _, junctor := range []string{".allOf[", ".anyOf[", ".oneOf[", ".not"} {
		for {
			i := strings.Index(text, junctor)
			if i < 0 {
				break
			}
			rest := text[i+len(junctor):]
			if junctor != ".not" {
				if end := strings.IndexByte(rest, ']'); end >= 0 {
					rest = rest[end+1:]
				}
			}
			text = text[:i] + rest
		}
	}
	return field.NewPath(text)
}

const maxRuleMessage = 2048

var ruleReasons = []apiextensionsv1.FieldValueErrorReason{
	apiextensionsv1.FieldValueRequired, apiextensionsv1.FieldValueForbidden, apiextensionsv1.FieldValueInvalid, apiextensionsv1.FieldValueDuplicate,
}

// checkRule checks a validation rule besides its expressions.
func checkRule(r *apiextensionsv1.ValidationRule, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if strings.TrimSpace(r.Rule) == "" {
		errs = append(errs, field.Required(path.Child("rule"), "rule is not specified"))
	}
	message := path.Child("message")
	switch {
	case r.Message != "" && strings.TrimSpace(r.Message) == "":
		errs = append(errs, field.Invalid(message, r.Message, "message must be non-empty if specified"))
	case strings.ContainsAny(strings.TrimSpace(r.Message), "\n\r"):
		errs = append(errs, field.Invalid(message, r.Message, "message must not contain line breaks"))
	case strings.ContainsAny(strings.TrimSpace(r.Rule), "\n\r") && strings.TrimSpace(r.Message) == "":
		errs = append(errs, field.Required(message, "message must be specified if rule contains line breaks"))
	case len(r.Message) > maxRuleMessage:
		errs = append(errs, field.TooLong(message, r.Message, maxRuleMessage))
	}
	if r.Reason != nil {
		errs = append(errs, check.OneOf(*r.Reason, path.Child("reason"), ruleReasons...)...)
	}
	return errs
}
