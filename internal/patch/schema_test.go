package patch

import (
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/timonel/timonel/internal/patch/schemagen/source"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	smd "sigs.k8s.io/structured-merge-diff/v6/schema"
)

// The embedded schema says the same as the schemas it was made from.
func TestSchemaEqualsItsSources(t *testing.T) {
	want, err := source.Types()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(schemaText, "\n"); got != len(want) {
		t.Errorf("%d lines for %d types: run go generate", got, len(want))
	}
	for name, def := range want {
		got, ok := builtinDef(name)
		if !ok {
			t.Errorf("%s is missing", name)
			continue
		}
		if want := read(def.Atom); got.Name != name || !reflect.DeepEqual(got.Atom, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got.Atom, want)
		}
	}
}

// read drops what nothing reads (defaults that are not scalars, unions) and the
// traces of use.
func read(a smd.Atom) smd.Atom {
	if a.Map == nil {
		return a
	}
	m := &smd.Map{ElementType: a.Map.ElementType, ElementRelationship: a.Map.ElementRelationship}
	for _, f := range a.Map.Fields {
		switch f.Default.(type) {
		case string, int, bool:
		default:
			f.Default = nil
		}
		m.Fields = append(m.Fields, f)
	}
	a.Map = m
	return a
}

// unstored are kinds that are answered and forgotten, so nobody owns their fields.
var unstored = regexp.MustCompile(`Review$|^Binding$|^TokenRequest$|^RangeAllocation$|^Scale$`)

// Every stored built-in kind has a schema, and every type in it can be resolved.
func TestEveryKindHasASchema(t *testing.T) {
	scheme := source.Scheme()
	kinds := 0
	for gvk, goType := range scheme.AllKnownTypes() {
		obj, err := scheme.New(gvk)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := obj.(metav1.Object); !ok || goType.PkgPath() == "k8s.io/apimachinery/pkg/apis/meta/v1" {
			continue
		}
		schema, ok := SchemaOf(obj)
		if !ok {
			if !unstored.MatchString(gvk.Kind) {
				t.Errorf("%s has no schema", gvk)
			}
			continue
		}
		kinds++
		if meta := schema.root.fields.typeOf("metadata"); meta == nil || meta.fields.typeOf("labels") == nil {
			t.Errorf("%s: metadata has no labels", gvk)
		}
		seen := map[*typ]bool{}
		var check func(*typ)
		check = func(at *typ) {
			if at == nil {
				t.Fatalf("%s: a type is not resolved", gvk)
			}
			if seen[at] {
				return
			}
			seen[at] = true
			if at.list != nil {
				check(at.list.elem)
			}
			if at.fields != nil {
				for _, f := range at.fields.fields {
					check(f.typ)
				}
				if at.fields.elem != nil {
					check(at.fields.elem)
				}
			}
		}
		check(schema.root)
	}
	if kinds < 80 {
		t.Errorf("only %d kinds", kinds)
	}
}
