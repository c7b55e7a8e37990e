package crd

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/timonel/timonel/internal/crd/cel"
	"github.com/timonel/timonel/internal/crd/schema"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/openapi"
	"github.com/timonel/timonel/internal/patch"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	gv "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/version"
)

// Load returns a CustomResourceDefinition with its schemas. It is called on first use of a kind, and
// again for each OpenAPI document that is asked for.
type Load func() (*apiextensions.CustomResourceDefinition, error)

// custom is what the versions of one custom resource share.
type custom struct {
	group   string
	names   apiextensions.CustomResourceDefinitionNames
	load    Load
	storage string // version
	webhook bool   // conversion by webhook, which is not done
	// unpruned: spec.preserveUnknownFields of definitions made before v1.
	unpruned bool
	stored   *compiled            // of storage
	versions map[string]*compiled // served
}

// compiled is a version's schema, compiled on first use.
type compiled struct {
	schema    func() (*schema.Schema, error) // nil, nil: there is none
	rules     func() *cel.Rules
	ownership func() *patch.Schema
	prune     func(obj object.Object, stored bool) (unknown []string, err error)
	defaults  func(object.Object)
}

// Definitions makes the kinds of a custom resource, preferred version first. They keep nothing
// of definition's schemas: load gives them when they are needed.
func Definitions(definition *apiextensions.CustomResourceDefinition, load Load) []*kind.Definition {
	spec := &definition.Spec
	c := &custom{
		group: spec.Group, names: definition.Status.AcceptedNames, load: load, unpruned: spec.PreserveUnknownFields, versions: map[string]*compiled{},
		webhook: spec.Conversion != nil && spec.Conversion.Strategy == apiextensions.WebhookConverter,
	}
	c.names.Plural = spec.Names.Plural
	terminating := definition.DeletionTimestamp != nil
	served := slices.DeleteFunc(slices.Clone(spec.Versions), func(v apiextensions.CustomResourceDefinitionVersion) bool { return !v.Served })
	if len(served) == 0 && terminating { // so that its objects can be deleted
		served = slices.DeleteFunc(slices.Clone(spec.Versions), func(v apiextensions.CustomResourceDefinitionVersion) bool { return !v.Storage })
	}
	slices.SortStableFunc(served, func(a, b apiextensions.CustomResourceDefinitionVersion) int {
		return version.CompareKubeAwareVersionStrings(b.Name, a.Name)
	})
	for _, v := range spec.Versions {
		if v.Storage {
			c.storage = v.Name
			c.stored = c.compile(v.Name)
		}
	}
	if c.stored == nil {
		return nil // not valid
	}
	selectable := selectablePaths(spec.Versions)
	var kinds []*kind.Definition
	for i := range served {
		v := &served[i]
		c.versions[v.Name] = c.stored
		if v.Name != c.storage {
			c.versions[v.Name] = c.compile(v.Name)
		}
		d := c.definition(v)
		if spec.Scope == apiextensions.NamespaceScoped {
			d.Scope = kind.Namespaced
		} else {
			d.Scope = kind.Cluster
		}
		d.Fields = selectableFields(selectable, v.SelectableFields)
		if terminating {
			d.Terminating = true
			d.Reserve = refuseNew(d)
		}
		kinds = append(kinds, d)
	}
	return kinds
}

// compile prepares the schema of a version.
func (c *custom) compile(version string) *compiled {
	made := &compiled{}
	made.schema = sync.OnceValues(func() (*schema.Schema, error) {
		props, err := c.props(version)
		if props == nil || err != nil {
			return nil, err
		}
		s, err := schema.New(props)
		if err != nil {
			return nil, fmt.Errorf("schema of %s.%s/%s: %w", c.names.Plural, c.group, version, err)
		}
		return s, nil
	})
	made.prune, made.defaults = c.pruneBy(made), defaults(made)
	made.rules = sync.OnceValue(func() *cel.Rules {
		props, err := c.props(version)
		if props == nil || err != nil {
			return nil // the schema's error is told
		}
		return cel.Compile(props)
	})
	made.ownership = sync.OnceValue(func() *patch.Schema {
		s, err := made.schema()
		if err != nil || s == nil {
			return patch.Schemaless()
		}
		published, err := s.OpenAPI()
		if err != nil {
			return patch.Schemaless()
		}
		owned, err := patch.FromOpenAPI(published, c.unpruned)
		if err != nil {
			return patch.Schemaless()
		}
		return owned
	})
	return made
}

// props reads the schema of a version, nil if it has none.
func (c *custom) props(version string) (*apiextensions.JSONSchemaProps, error) {
	definition, err := c.load()
	if err != nil {
		return nil, fmt.Errorf("schema of %s.%s/%s: %w", c.names.Plural, c.group, version, err)
	}
	for _, v := range definition.Spec.Versions {
		if v.Name == version && v.Schema != nil {
			return v.Schema.OpenAPIV3Schema, nil
		}
	}
	return nil, nil
}

func newTree() object.Object { return &unstructured.Unstructured{Object: map[string]any{}} }

func (c *custom) definition(v *apiextensions.CustomResourceDefinitionVersion) *kind.Definition {
	it := c.versions[v.Name]
	d := &kind.Definition{
		Group: c.group, Version: v.Name, Kind: c.names.Kind, ListKind: c.names.ListKind,
		Plural: c.names.Plural, Singular: c.names.Singular, ShortNames: c.names.ShortNames, Categories: c.names.Categories,
		Verbs: kind.Standard, MustMatch: true, AnyFinalizer: true, New: newTree,
		Stored:        kind.Stored{Prefix: c.group + "/" + c.names.Plural, Version: c.storage, Encoding: kind.JSON},
		Prune:         c.prune(it),
		Default:       it.defaults,
		Columns:       columns(v.AdditionalPrinterColumns),
		FieldsUnknown: func(label string) string { return "field label not supported: " + label },
		Schema: func(apiVersion string) (*patch.Schema, bool) {
			group, version, _ := strings.Cut(apiVersion, "/")
			known := c.versions[version]
			if group != c.group || known == nil {
				return nil, false
			}
			return known.ownership(), true
		},
	}
	if v.Name != c.storage {
		d.Stored.Shape = &kind.Shape{ToStored: c.toStored, New: func() any { return &map[string]any{} }, FromStored: fromStored}
	}
	if v.Deprecated {
		d.Deprecated = fmt.Sprintf("%s/%s %s is deprecated", c.group, v.Name, c.names.Kind)
		if v.DeprecationWarning != nil {
			d.Deprecated = *v.DeprecationWarning
		}
	}
	status := v.Subresources != nil && v.Subresources.Status != nil
	d.Generation = func(obj, old object.Object) bool { return changed(tree(obj), tree(old), status) }
	d.Validate = func(_ context.Context, obj object.Object) field.ErrorList {
		return it.check(func(s *schema.Schema) field.ErrorList { return it.obey(tree(obj), nil, s.Validate(tree(obj), nil)) })
	}
	d.ValidateUpdate = func(_ context.Context, obj, old object.Object) field.ErrorList {
		return it.check(func(s *schema.Schema) field.ErrorList {
			return it.obey(tree(obj), tree(old), s.Validate(tree(obj), tree(old)))
		})
	}
	d.Warnings = func(context.Context, object.Object, object.Object) []string { return it.unchecked() }
	d.Subresources = map[string]*kind.Subresource{}
	if status {
		d.PrepareCreate = func(_ context.Context, obj object.Object) { delete(tree(obj), "status") }
		d.PrepareUpdate = func(_ context.Context, obj, old object.Object) { keep(tree(obj), tree(old), "status") }
		d.Subresources["status"] = c.status(it)
	}
	if v.Subresources != nil && v.Subresources.Scale != nil {
		d.Subresources["scale"] = &kind.Subresource{Verbs: kind.ReadWrite, Scale: scale(v.Subresources.Scale)}
	}
	if c.webhook {
		d.Reserve = c.refuseConversion(v.Name)
	}
	return d
}

// check runs a validation with the compiled schema, if there is one.
func (v *compiled) check(with func(*schema.Schema) field.ErrorList) field.ErrorList {
	switch s, err := v.schema(); {
	case err != nil:
		return field.ErrorList{field.InternalError(nil, err)}
	case s == nil:
		return nil
	default:
		return with(s)
	}
}

// blocking are errors after which rules make no sense: the object is not of the shape that they expect.
var blocking = []field.ErrorType{field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid}

// obey adds what the CEL rules find to the errors of the schema.
func (v *compiled) obey(obj, old map[string]any, errs field.ErrorList) field.ErrorList {
	rules := v.rules()
	if rules == nil {
		return errs
	}
	if slices.ContainsFunc(errs, func(e *field.Error) bool { return slices.Contains(blocking, e.Type) }) {
		return append(errs, field.Invalid(nil, nil, "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"))
	}
	return append(errs, rules.Validate(obj, old)...)
}

// unchecked warns of rules that this server cannot run.
func (v *compiled) unchecked() (texts []string) {
	for _, rule := range v.rules().Unchecked() {
		texts = append(texts, fmt.Sprintf("validation rule %q is not checked: it uses a function that this server does not have", rule))
	}
	return texts
}

// prune removes what the schema does not know.
func (c *custom) prune(v *compiled) func(object.Object, bool) ([]string, error) {
	prune := c.pruneBy(v)
	return func(obj object.Object, stored bool) ([]string, error) {
		if !stored {
			return prune(obj, false)
		}
		// Parity: an object that was read has the defaults of the version in which it is stored, and of no other; see
		// the corpus, crd/versions.
		if _, err := c.stored.prune(obj, true); err != nil {
			return nil, err
		}
		c.stored.defaults(obj)
		if v == c.stored {
			return nil, nil
		}
		return prune(obj, true)
	}
}

// toStored gives an object the fields of the version in which it is stored.
func (c *custom) toStored(obj object.Object) (any, error) {
	copied := object.Copy(obj)
	copied.GetObjectKind().SetGroupVersionKind(gv.GroupVersion{Group: c.group, Version: c.storage}.WithKind(c.names.Kind))
	if _, err := c.stored.prune(copied, true); err != nil {
		return nil, err
	}
	return tree(copied), nil
}

func fromStored(stored any) (object.Object, error) {
	return &unstructured.Unstructured{Object: *stored.(*map[string]any)}, nil
}

func (c *custom) pruneBy(v *compiled) func(object.Object, bool) ([]string, error) {
	return func(obj object.Object, stored bool) ([]string, error) {
		s, err := v.schema()
		if err != nil {
			return nil, apierrors.NewInternalError(err)
		}
		t := tree(obj)
		if s == nil {
			return schema.TopMetadata(t, stored)
		}
		unknown, err := s.Metadata(t, stored)
		if err != nil || c.unpruned {
			return unknown, err
		}
		unknown = append(unknown, s.Prune(t)...)
		slices.Sort(unknown)
		return unknown, nil
	}
}

func defaults(v *compiled) func(object.Object) {
	return func(obj object.Object) {
		if s, err := v.schema(); err == nil && s != nil {
			s.Default(tree(obj))
		}
	}
}

// status is the door to the status alone.
func (c *custom) status(v *compiled) *kind.Subresource {
	return &kind.Subresource{Verbs: kind.ReadWrite, View: &kind.View{
		Prepare: func(_ context.Context, obj, old object.Object) {
			t, was := tree(obj), tree(old)
			managers, version := obj.GetManagedFields(), obj.GetResourceVersion()
			for _, key := range slices.Collect(maps.Keys(t)) {
				if key != "status" {
					delete(t, key)
				}
			}
			for key := range was {
				if key != "status" {
					t[key] = was[key]
				}
			}
			t["metadata"] = maps.Clone(metadata(was))
			obj.SetManagedFields(managers)
			obj.SetResourceVersion(version)
		},
		Validate: func(_ context.Context, obj, old object.Object) field.ErrorList {
			return v.check(func(s *schema.Schema) field.ErrorList {
				return v.obey(tree(obj), tree(old), s.ValidateStatus(tree(obj), tree(old)))
			})
		},
		Warnings:    func(context.Context, object.Object, object.Object) []string { return v.unchecked() },
		ResetFields: []string{"spec", "metadata"},
	}}
}

func metadata(t map[string]any) map[string]any {
	m, _ := t["metadata"].(map[string]any)
	return m
}

func tree(obj object.Object) map[string]any { return obj.(*unstructured.Unstructured).Object }

// keep copies a top-level field from old.
func keep(t, old map[string]any, name string) {
	if was, has := old[name]; has {
		t[name] = was
	} else {
		delete(t, name)
	}
}

// changed reports whether the desired state differs: all but metadata and, when it has a door of its
// own, status.
func changed(t, old map[string]any, status bool) bool {
	skip := func(name string) bool {
		return name == "metadata" || name == "apiVersion" || name == "kind" || name == "status" && status
	}
	for name, value := range t {
		if was, has := old[name]; !skip(name) && (!has || !reflect.DeepEqual(value, was)) {
			return true
		}
	}
	for name := range old {
		if _, has := t[name]; !skip(name) && !has {
			return true
		}
	}
	return false
}

// refuseNew keeps new objects out while all are being deleted.
func refuseNew(d *kind.Definition) func(context.Context, kind.Reader, object.Object, object.Object, bool) ([]kind.Companion, error) {
	return func(_ context.Context, _ kind.Reader, obj, old object.Object, _ bool) ([]kind.Companion, error) {
		if obj == nil || old != nil {
			return nil, nil
		}
		return nil, errTerminating(d)
	}
}

func errTerminating(d *kind.Definition) error {
	err := apierrors.NewMethodNotSupported(d.GroupResource(), "create")
	err.ErrStatus.Message = "create not allowed while custom resource definition is terminating"
	return err
}

// refuseConversion refuses to write in a version that would have to be converted by a webhook.
func (c *custom) refuseConversion(version string) func(context.Context, kind.Reader, object.Object, object.Object, bool) ([]kind.Companion, error) {
	if version == c.storage {
		return nil
	}
	return func(_ context.Context, _ kind.Reader, obj, _ object.Object, _ bool) ([]kind.Companion, error) {
		if obj == nil {
			return nil, nil
		}
		return nil, apierrors.NewInternalError(fmt.Errorf("conversion webhook for %s/%s, Kind=%s failed: conversion by webhook is not supported by this server; use version %s", c.group, version, c.names.Kind, c.storage))
	}
}

// Published tells the OpenAPI documents of the kinds of a custom resource.
func Published(definition *apiextensions.CustomResourceDefinition, load Load) []openapi.CustomResource {
	var out []openapi.CustomResource
	c := &custom{group: definition.Spec.Group, names: definition.Status.AcceptedNames, load: load}
	for _, v := range definition.Spec.Versions {
		if !v.Served {
			continue
		}
		r := openapi.CustomResource{
			Group: c.group, Version: v.Name, Plural: definition.Spec.Names.Plural, Kind: c.names.Kind, ListKind: c.names.ListKind,
			Namespaced:  definition.Spec.Scope == apiextensions.NamespaceScoped,
			Status:      v.Subresources != nil && v.Subresources.Status != nil,
			Scale:       v.Subresources != nil && v.Subresources.Scale != nil,
			Fingerprint: fmt.Sprintf("%s/%d/%s", definition.UID, definition.Generation, v.Name),
		}
		for _, f := range v.SelectableFields {
			r.Selectable = append(r.Selectable, f.JSONPath)
		}
		version, preserve := v.Name, definition.Spec.PreserveUnknownFields
		r.Schema = func() ([]byte, error) {
			props, err := c.props(version)
			if err != nil || props == nil || preserve {
				return nil, err
			}
			return json.Marshal(props)
		}
		out = append(out, r)
	}
	return out
}
