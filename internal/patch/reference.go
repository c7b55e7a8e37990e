package patch

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/timonel/timonel/internal/object"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

// The reference implementation is k8s.io/apimachinery/pkg/util/managedfields. It
// decides what is right: the short cuts are tested against it, and fall back on it.

func (o *Ownership) newReference() *managedfields.FieldManager {
	var filters map[fieldpath.APIVersion]fieldpath.Filter
	if filter := o.filter(); filter != nil {
		filters = anyVersion(o, filter)
	}
	hub, err := schema.ParseGroupVersion(o.Hub)
	if err != nil {
		panic(fmt.Sprintf("ownership of %s: hub: %v", o.Kind, err))
	}
	link := linkage{o}
	make := managedfields.NewDefaultFieldManager
	if o.Schema != nil {
		make = managedfields.NewDefaultCRDFieldManager
	}
	manager, err := make(link, link, link, link, o.Kind, hub, o.Subresource, filters)
	if err != nil {
		panic(fmt.Sprintf("ownership of %s: %v", o.Kind, err)) // only for a nil converter
	}
	return manager
}

func (o *Ownership) filter() fieldpath.Filter {
	if o.Filter != nil {
		return o.Filter
	}
	if o.reset == nil {
		return nil
	}
	return fieldpath.NewExcludeSetFilter(o.reset.set())
}

// anyVersion gives a filter to the versions that the endpoint can meet.
func anyVersion(o *Ownership, filter fieldpath.Filter) map[fieldpath.APIVersion]fieldpath.Filter {
	return map[fieldpath.APIVersion]fieldpath.Filter{
		fieldpath.APIVersion(o.apiVersion): filter,
		fieldpath.APIVersion(o.Hub):        filter,
	}
}

func (o *Ownership) referenceUpdate(live, obj object.Object, manager string) {
	if _, err := o.reference().Update(live, obj, manager); err != nil {
		obj.SetManagedFields(live.GetManagedFields())
	}
}

func (o *Ownership) referenceApply(live object.Object, applied *unstructured.Unstructured, manager string, force bool) (object.Object, error) {
	merged, err := o.reference().Apply(live, applied, manager, force)
	if err != nil {
		return nil, err
	}
	return merged.(object.Object), nil
}

// linkage is an Ownership as the reference implementation wants to see it: it
// converts between versions, makes empty objects, fills defaults and gives values their types.
type linkage struct{ o *Ownership }

var _ interface {
	managedfields.TypeConverter
	runtime.ObjectConvertor
	runtime.ObjectDefaulter
	runtime.ObjectCreater
} = linkage{}

func (l linkage) New(schema.GroupVersionKind) (runtime.Object, error) { return l.o.nothing(), nil }

func (l linkage) Default(obj runtime.Object) { l.o.Default(obj.(object.Object)) }

func (l linkage) Convert(in, out, context any) error { return errors.New("patch: not used") }

func (l linkage) ConvertFieldLabel(_ schema.GroupVersionKind, label, value string) (string, string, error) {
	return "", "", errors.New("patch: not used")
}

// ConvertToVersion never returns in itself, so that the caller can change the
// result's type and nothing else shows in in.
func (l linkage) ConvertToVersion(in runtime.Object, target runtime.GroupVersioner) (runtime.Object, error) {
	gv, ok := target.(schema.GroupVersion)
	if !ok {
		return nil, fmt.Errorf("patch: converting to %T", target)
	}
	obj := in.(object.Object)
	if tree, ok := in.(*unstructured.Unstructured); ok && l.o.Schema == nil {
		made, err := l.o.fromTree(tree)
		if err != nil {
			return nil, err
		}
		obj = made
	}
	made, err := l.o.toVersion(obj, gv.String())
	if errors.Is(err, ErrNoVersion) {
		return nil, runtime.NewNotRegisteredErrForKind("", gv.WithKind(l.o.Kind.Kind))
	}
	if err != nil {
		return nil, err
	}
	if tree, ok := made.(*unstructured.Unstructured); ok {
		return tree, nil
	}
	// A shallow copy with its type set.
	c := reflect.New(reflect.TypeOf(made).Elem())
	c.Elem().Set(reflect.ValueOf(made).Elem())
	typed := c.Interface().(object.Object)
	typed.GetObjectKind().SetGroupVersionKind(gv.WithKind(l.o.Kind.Kind))
	return typed, nil
}

// fromTree makes the Go object of a tree.
func (o *Ownership) fromTree(tree *unstructured.Unstructured) (object.Object, error) {
	obj, err := o.empty(tree.GetAPIVersion())
	if err != nil {
		return nil, err
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(tree.Object, obj); err != nil {
		return nil, fmt.Errorf("unable to convert unstructured object to %v: %v", tree.GroupVersionKind(), err)
	}
	return obj, nil
}

// empty returns an empty object of a version of the kind.
func (o *Ownership) empty(apiVersion string) (object.Object, error) {
	obj := o.New()
	if apiVersion == o.apiVersion {
		return obj, nil
	}
	other, err := o.toVersion(obj, apiVersion)
	if err != nil {
		return nil, err
	}
	return reflect.New(reflect.TypeOf(other).Elem()).Interface().(object.Object), nil
}

func (l linkage) ObjectToTyped(obj runtime.Object, options ...typed.ValidationOptions) (*typed.TypedValue, error) {
	gvk := obj.GetObjectKind().GroupVersionKind()
	found, ok := l.o.schemaFor(obj, gvk.GroupVersion().String())
	if !ok {
		return nil, runtime.NewNotRegisteredErrForKind("", gvk)
	}
	if tree, ok := obj.(*unstructured.Unstructured); ok {
		return found.parseable().FromUnstructured(tree.Object, options...)
	}
	return found.parseable().FromStructured(obj, options...)
}

// schemaFor is schemaOf for trees of built-in kinds too.
func (o *Ownership) schemaFor(obj runtime.Object, apiVersion string) (*Schema, bool) {
	if _, ok := obj.(*unstructured.Unstructured); ok && o.Schema == nil {
		empty, err := o.empty(apiVersion)
		if err != nil {
			return nil, false
		}
		return SchemaOf(empty)
	}
	return o.schemaOf(obj.(object.Object), apiVersion)
}

func (l linkage) TypedToObject(value *typed.TypedValue) (runtime.Object, error) {
	tree, ok := value.AsValue().Unstructured().(map[string]any)
	if !ok {
		return nil, fmt.Errorf("failed to convert value to unstructured for type %T", value.AsValue().Unstructured())
	}
	return &unstructured.Unstructured{Object: tree}, nil
}
