// Package source gathers the server-side apply schemas of the built-in kinds
// from the libraries that ship them. It is used by the generator and by the test
// that proves the generated file equal; it costs tens of megabytes of memory.
package source

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/applyconfiguration"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregator "k8s.io/kube-aggregator/pkg/client/applyconfiguration"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

// Scheme knows the Go types of all built-in kinds.
func Scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientscheme.AddToScheme, apiextensionsv1.AddToScheme, apiregistrationv1.AddToScheme,
	} {
		if err := add(s); err != nil {
			panic(err)
		}
	}
	return s
}

// Types returns the schema types by name.
func Types() (map[string]schema.TypeDef, error) {
	scheme := Scheme()
	defs := map[string]schema.TypeDef{}
	for _, from := range []struct {
		converter managedfields.TypeConverter
		probe     runtime.Object // of a kind that the converter knows
	}{
		{applyconfigurations.NewTypeConverter(scheme), &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}}},
		{apiextensions.NewTypeConverter(scheme), &apiextensionsv1.CustomResourceDefinition{TypeMeta: metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition"}}},
		{aggregator.NewTypeConverter(scheme), &apiregistrationv1.APIService{TypeMeta: metav1.TypeMeta{APIVersion: "apiregistration.k8s.io/v1", Kind: "APIService"}}},
	} {
		// A typed value carries the whole schema; that the probe misses required lists does not matter.
		value, err := from.converter.ObjectToTyped(from.probe, typed.AllowDuplicates)
		if err != nil {
			return nil, fmt.Errorf("probe %T: %w", from.probe, err)
		}
		for _, def := range value.Schema().Types {
			if _, ok := defs[def.Name]; !ok {
				defs[def.Name] = def
			}
		}
	}
	// Clients do not apply a Scale through a typed client, so no library has it.
	for name, fields := range map[string][]schema.StructField{
		"Scale": {
			{Name: "apiVersion", Type: scalar(schema.String)}, {Name: "kind", Type: scalar(schema.String)},
			{Name: "metadata", Type: named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")},
			{Name: "spec", Type: named("io.k8s.api.autoscaling.v1.ScaleSpec")}, {Name: "status", Type: named("io.k8s.api.autoscaling.v1.ScaleStatus")},
		},
		"ScaleSpec":   {{Name: "replicas", Type: scalar(schema.Numeric), Default: 0}},
		"ScaleStatus": {{Name: "replicas", Type: scalar(schema.Numeric), Default: 0}, {Name: "selector", Type: scalar(schema.String)}},
	} {
		name = "io.k8s.api.autoscaling.v1." + name
		defs[name] = schema.TypeDef{Name: name, Atom: schema.Atom{Map: &schema.Map{Fields: fields}}}
	}
	for _, review := range []any{authorizationv1.SubjectAccessReview{}, authorizationv1.LocalSubjectAccessReview{}, authorizationv1.SelfSubjectAccessReview{}} {
		derive(defs, reflect.TypeOf(review))
	}
	return defs, nil
}

// derive adds the type of a review and what it is made of, which no library has either: nobody applies a
// question. It follows the Go types, whose lists are all atomic.
func derive(defs map[string]schema.TypeDef, t reflect.Type) schema.TypeRef {
	name := reflect.Zero(t).Interface().(interface{ OpenAPIModelName() string }).OpenAPIModelName()
	if _, known := defs[name]; known {
		return named(name)
	}
	var fields []schema.StructField
	for i := range t.NumField() {
		f := t.Field(i)
		switch tag, _, _ := strings.Cut(f.Tag.Get("json"), ","); {
		case tag == "" && f.Type == reflect.TypeFor[metav1.TypeMeta]():
			fields = append(fields, schema.StructField{Name: "apiVersion", Type: scalar(schema.String)}, schema.StructField{Name: "kind", Type: scalar(schema.String)})
		default:
			fields = append(fields, schema.StructField{Name: tag, Type: deriveField(defs, f.Type)})
		}
	}
	slices.SortFunc(fields, func(a, b schema.StructField) int { return strings.Compare(a.Name, b.Name) })
	defs[name] = schema.TypeDef{Name: name, Atom: schema.Atom{Map: &schema.Map{Fields: fields}}}
	return named(name)
}

func deriveField(defs map[string]schema.TypeDef, t reflect.Type) schema.TypeRef {
	switch t.Kind() {
	case reflect.Pointer:
		return deriveField(defs, t.Elem())
	case reflect.String:
		return scalar(schema.String)
	case reflect.Bool:
		return scalar(schema.Boolean)
	case reflect.Slice:
		return schema.TypeRef{Inlined: schema.Atom{List: &schema.List{ElementType: deriveField(defs, t.Elem()), ElementRelationship: schema.Atomic}}}
	case reflect.Map:
		return schema.TypeRef{Inlined: schema.Atom{Map: &schema.Map{ElementType: deriveField(defs, t.Elem())}}}
	case reflect.Struct:
		return derive(defs, t)
	}
	panic(fmt.Sprintf("a review has a field of type %v", t))
}

func scalar(s schema.Scalar) schema.TypeRef { return schema.TypeRef{Inlined: schema.Atom{Scalar: &s}} }
func named(name string) schema.TypeRef      { return schema.TypeRef{NamedType: &name} }
