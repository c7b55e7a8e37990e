package apiextensions

import (
	"cmp"
	"regexp"
	"slices"

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

// checkStructural reports, in the order of their texts, why a schema is not structural.
func checkStructural(root *apiextensionsv1.JSONSchemaProps, path *field.Path) field.ErrorList {
	errs := structure(root, path, atRoot)
	errs = append(errs, completeness(root, root, path, path)...)
	slices.SortFunc(errs, func(a, b *field.Error) int { return cmp.Compare(a.Error(), b.Error()) })
	return errs
}

func structure(s *apiextensionsv1.JSONSchemaProps, path *field.Path, where place) field.ErrorList {
	errs := checkType(s, path, where)
	resource := where == atRoot || s.XEmbeddedResource
	if resource {
		errs = append(errs, checkTypeMeta(s, path)...)
		errs = append(errs, checkMetadata(s, path)...)
	}
	if s.XEmbeddedResource {
		errs = append(errs, checkEmbedded(s, path)...)
	}
	for _, name := range check.Sorted(s.Properties) {
		property := s.Properties[name]
		errs = append(errs, structure(&property, path.Child("properties").Key(name), inFields)...)
	}
	if a := s.AdditionalProperties; a != nil {
		if where == atRoot {
			errs = append(errs, field.Forbidden(path.Child("additionalProperties"), "must not be used at the root"))
		}
		if a.Schema != nil {
			errs = append(errs, structure(a.Schema, path.Child("additionalProperties"), inFields)...)
		}
	}
	if s.Items != nil && s.Items.Schema != nil {
		errs = append(errs, structure(s.Items.Schema, path.Child("items"), inItems)...)
	}
	return append(errs, checkJunctors(s, path)...)
}

// checkEmbedded checks a resource within a resource, besides its metadata.
func checkEmbedded(s *apiextensionsv1.JSONSchemaProps, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.AdditionalProperties != nil {
		errs = append(errs, field.Forbidden(path.Child("additionalProperties"), "must not be used if x-kubernetes-embedded-resource is set"))
	}
	if len(s.Properties) == 0 && !ptr.Deref(s.XPreserveUnknownFields, false) {
		errs = append(errs, field.Required(path.Child("properties"), "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"))
	}
	return errs
}

func checkType(s *apiextensionsv1.JSONSchemaProps, path *field.Path, where place) field.ErrorList {
	at := path.Child("type")
	switch {
	case s.XEmbeddedResource && s.Type != "object":
		return wrongType(s, path, "must be object if x-kubernetes-embedded-resource is true")
	case where == atRoot && s.Type != "" && s.Type != "object":
		return field.ErrorList{field.Invalid(at, s.Type, "must be object at the root")}
	case s.Type != "" || s.XIntOrString || ptr.Deref(s.XPreserveUnknownFields, false):
		return nil
	case where == atRoot:
		return field.ErrorList{field.Required(at, "must not be empty at the root")}
	case where == inItems:
		return field.ErrorList{field.Required(at, "must not be empty for specified array items")}
	}
	return field.ErrorList{field.Required(at, "must not be empty for specified object fields")}
}

func wrongType(s *apiextensionsv1.JSONSchemaProps, path *field.Path, text string) field.ErrorList {
	if s.Type == "" {
		return field.ErrorList{field.Required(path.Child("type"), text)}
	}
	return field.ErrorList{field.Invalid(path.Child("type"), s.Type, text)}
}

// checkTypeMeta: apiVersion and kind of an object are texts.
func checkTypeMeta(s *apiextensionsv1.JSONSchemaProps, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, name := range []string{"kind", "apiVersion"} {
		if property, ok := s.Properties[name]; ok && property.Type != "string" {
			errs = append(errs, field.Invalid(path.Child("properties").Key(name).Child("type"), property.Type, "must be string"))
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
	var errs field.ErrorList
	if metadata.Type != "object" {
		errs = append(errs, field.Invalid(at.Child("type"), metadata.Type, "must be object"))
	}
	own := metadata
	own.Type, own.Properties, own.Description, own.Default = "", nil, "", nil
	extra := !equality.Semantic.DeepEqual(own, apiextensionsv1.JSONSchemaProps{})
	for name := range metadata.Properties {
		extra = extra || name != "name" && name != "generateName"
	}
	if extra {
		errs = append(errs, field.Forbidden(at, "must not specify anything other than name and generateName, but metadata is implicitly specified"))
	}
	return errs
}

// checkJunctors wants junctors to restrict values only.
func checkJunctors(s *apiextensionsv1.JSONSchemaProps, path *field.Path) field.ErrorList {
	errs := checkPattern(s, path)
	each := func(list []apiextensionsv1.JSONSchemaProps, name string) {
		for i := range list {
			errs = append(errs, checkAlternative(&list[i], path.Child(name).Index(i), intOrString(s, name, i))...)
		}
	}
	each(s.AllOf, "allOf")
	each(s.AnyOf, "anyOf")
	each(s.OneOf, "oneOf")
	if s.Not != nil {
		errs = append(errs, checkAlternative(s.Not, path.Child("not"), false)...)
	}
	return errs
}

func checkPattern(s *apiextensionsv1.JSONSchemaProps, path *field.Path) field.ErrorList {
	if s.Pattern == "" {
		return nil
	}
	if _, err := regexp.Compile(s.Pattern); err != nil {
		return field.ErrorList{field.Invalid(path.Child("pattern"), s.Pattern, "must be a valid regular expression, but isn't: "+err.Error())}
	}
	return nil
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

// checkAlternative checks a schema inside of junctors; typed: it is part of the form of intOrString.
func checkAlternative(s *apiextensionsv1.JSONSchemaProps, path *field.Path, typed bool) field.ErrorList {
	var errs field.ErrorList
	forbid := func(set bool, name, must string) {
		if set {
			errs = append(errs, field.Forbidden(path.Child(name), "must be "+must+" to be structural"))
		}
	}
	forbid(s.Type != "" && !typed, "type", "empty")
	forbid(s.AdditionalProperties != nil, "additionalProperties", "undefined")
	forbid(s.Default != nil, "default", "undefined")
	forbid(s.Title != "", "title", "empty")
	forbid(s.Description != "", "description", "empty")
	forbid(s.Nullable, "nullable", "false")
	forbid(ptr.Deref(s.XPreserveUnknownFields, false), "x-kubernetes-preserve-unknown-fields", "false")
	forbid(s.XEmbeddedResource, "x-kubernetes-embedded-resource", "false")
	forbid(s.XIntOrString, "x-kubernetes-int-or-string", "false")
	forbid(len(s.XListMapKeys) > 0, "x-kubernetes-list-map-keys", "empty")
	forbid(s.XListType != nil, "x-kubernetes-list-type", "undefined")
	forbid(s.XMapType != nil, "x-kubernetes-map-type", "undefined")
	forbid(len(s.XValidations) > 0, "x-kubernetes-validations", "empty")
	for _, name := range check.Sorted(s.Properties) {
		property, at := s.Properties[name], path.Child("properties").Key(name)
		if name == "metadata" {
			errs = append(errs, field.Forbidden(at, "must not be specified in a nested context"))
		}
		errs = append(errs, checkAlternative(&property, at, false)...)
	}
	if s.Items != nil && s.Items.Schema != nil {
		errs = append(errs, checkAlternative(s.Items.Schema, path.Child("items"), false)...)
	}
	if typed && len(s.AnyOf) > 0 { // the pair inside allOf
		for i := range s.AnyOf {
			errs = append(errs, checkAlternative(&s.AnyOf[i], path.Child("anyOf").Index(i), true)...)
		}
		return append(errs, checkPattern(s, path)...)
	}
	return append(errs, checkJunctors(s, path)...)
}

// completeness wants whatever junctors mention to be described outside of them. outer, at outerPath, is the schema that
// describes what s, at path, restricts; s is outer where no junctor has been entered.
func completeness(s, outer *apiextensionsv1.JSONSchemaProps, path, outerPath *field.Path) field.ErrorList {
	var errs field.ErrorList
	each := func(list []apiextensionsv1.JSONSchemaProps, name string) {
		for i := range list {
			errs = append(errs, completeness(&list[i], outer, path.Child(name).Index(i), outerPath)...)
		}
	}
	each(s.AllOf, "allOf")
	each(s.AnyOf, "anyOf")
	each(s.OneOf, "oneOf")
	if s.Not != nil {
		errs = append(errs, completeness(s.Not, outer, path.Child("not"), outerPath)...)
	}
	for _, name := range check.Sorted(s.Properties) {
		property, key := s.Properties[name], func(p *field.Path) *field.Path { return p.Child("properties").Key(name) }
		described, ok := outer.Properties[name]
		if !ok {
			errs = append(errs, field.Required(key(outerPath), "because it is defined in "+key(path).String()))
			continue
		}
		errs = append(errs, completeness(&property, &described, key(path), key(outerPath))...)
	}
	if s.Items != nil && s.Items.Schema != nil {
		if outer.Items == nil || outer.Items.Schema == nil {
			errs = append(errs, field.Required(outerPath.Child("items"), "because it is defined in "+path.Child("items").String()))
		} else {
			errs = append(errs, completeness(s.Items.Schema, outer.Items.Schema, path.Child("items"), outerPath.Child("items"))...)
		}
	}
	if s == outer && s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		below := s.AdditionalProperties.Schema
		errs = append(errs, completeness(below, below, path.Child("additionalProperties"), outerPath.Child("additionalProperties"))...)
	}
	return errs
}
