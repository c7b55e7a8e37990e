package object

import (
	"bytes"
	"reflect"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Equal is apimachinery's equality.Semantic.DeepEqual for values of API types, which means that what is empty is
// equal to what is not there, and quantities and times are compared by what they say. It looks each type up once and not at each field
// of each value: every update compares what was desired with what is, two or three times, and with a Pod that took longer than anything else.
func Equal[T any](a, b *T) bool {
	if a == nil || b == nil || a == b {
		return a == b
	}
	return comparisonOf(reflect.TypeFor[T]())(reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem())
}

// comparison compares two values of one type.
type comparison func(a, b reflect.Value) bool

var comparisons sync.Map // reflect.Type → comparison

// own are the types with an equality of their own.
var own = map[reflect.Type]comparison{
	reflect.TypeFor[resource.Quantity](): ownEqual(func(a, b *resource.Quantity) bool { return a.Cmp(*b) == 0 }),
	reflect.TypeFor[metav1.Time]():       ownEqual(func(a, b *metav1.Time) bool { return a.UTC() == b.UTC() }),
	reflect.TypeFor[metav1.MicroTime]():  ownEqual(func(a, b *metav1.MicroTime) bool { return a.UTC() == b.UTC() }),
	reflect.TypeFor[metav1.FieldsV1]():   ownEqual(func(a, b *metav1.FieldsV1) bool { return a.Equal(*b) }),
}

func ownEqual[T any](equal func(a, b *T) bool) comparison {
	return func(a, b reflect.Value) bool { return equal(a.Addr().Interface().(*T), b.Addr().Interface().(*T)) }
}

// comparisonOf returns the comparison of a type, made on first use; that of a struct looks at its fields on its first use, so types may hold
// themselves.
func comparisonOf(t reflect.Type) comparison {
	if c, ok := comparisons.Load(t); ok {
		return c.(comparison)
	}
	c, _ := comparisons.LoadOrStore(t, newComparison(t))
	return c.(comparison)
}

func newComparison(t reflect.Type) comparison {
	if c := own[t]; c != nil {
		return c
	}
	switch t.Kind() {
	case reflect.String:
		return func(a, b reflect.Value) bool { return a.String() == b.String() }
	case reflect.Bool:
		return func(a, b reflect.Value) bool { return a.Bool() == b.Bool() }
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return func(a, b reflect.Value) bool { return a.Int() == b.Int() }
	case reflect.Pointer:
		elem := comparisonOf(t.Elem())
		return func(a, b reflect.Value) bool {
			if a.IsNil() || b.IsNil() || a.Pointer() == b.Pointer() {
				return a.IsNil() == b.IsNil()
			}
			return elem(a.Elem(), b.Elem())
		}
	case reflect.Slice:
		return compareSlices(t)
	case reflect.Map:
		return compareMaps(t)
	case reflect.Struct:
		return compareStructs(t)
	}
	return compareByLibrary
}

// compareByLibrary is for types of which there are few values: numbers with a fraction, interfaces, structs that hide something.
func compareByLibrary(a, b reflect.Value) bool {
	return equality.Semantic.DeepEqual(a.Interface(), b.Interface())
}

func compareSlices(t reflect.Type) comparison {
	if t.Elem().Kind() == reflect.Uint8 {
		return func(a, b reflect.Value) bool { return bytes.Equal(a.Bytes(), b.Bytes()) }
	}
	elem := comparisonOf(t.Elem())
	return func(a, b reflect.Value) bool {
		n := a.Len()
		if n != b.Len() {
			return false
		}
		if n == 0 || a.Pointer() == b.Pointer() {
			return true
		}
		for i := range n {
			if !elem(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	}
}

func compareMaps(t reflect.Type) comparison {
	elem := comparisonOf(t.Elem())
	return func(a, b reflect.Value) bool {
		if a.Len() != b.Len() {
			return false
		}
		if a.Len() == 0 || a.Pointer() == b.Pointer() {
			return true
		}
		x, y := reflect.New(t.Elem()).Elem(), reflect.New(t.Elem()).Elem() // comparisons want what has an address
		for entries := a.MapRange(); entries.Next(); {
			other := b.MapIndex(entries.Key())
			if !other.IsValid() {
				return false
			}
			x.SetIterValue(entries)
			y.Set(other)
			if !elem(x, y) {
				return false
			}
		}
		return true
	}
}

func compareStructs(t reflect.Type) comparison {
	for f := range t.Fields() {
		if !f.IsExported() {
			return compareByLibrary
		}
	}
	fields := sync.OnceValue(func() []comparison {
		made := make([]comparison, t.NumField())
		for i := range made {
			made[i] = comparisonOf(t.Field(i).Type)
		}
		return made
	})
	return func(a, b reflect.Value) bool {
		for i, equal := range fields() {
			if !equal(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	}
}
