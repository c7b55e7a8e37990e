// Package check is the vocabulary in which kinds say what is valid: names, numbers,
// enumerations, quantities, label maps, immutability.
//
// Promises: each function returns every problem it finds, with the path, type and message that
// clients of Kubernetes know; maps are visited in the order of their keys, so the same object always gets the
// same answer.
// Does not know: any kind. What apimachinery already checks is used from there.
package check

import (
	"maps"
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Texts that several checks share.
const (
	TextPositive    = "must be greater than 0"
	TextNonNegative = apivalidation.IsNegativeErrorMsg
	TextImmutable   = apivalidation.FieldImmutableErrorMsg
)

// Integer is any number that a field of the API holds.
type Integer interface{ ~int | ~int32 | ~int64 }

// Each says every message about one value: Invalid at path, once per message.
func Each(path *field.Path, value any, messages []string) field.ErrorList {
	var errs field.ErrorList
	for _, m := range messages {
		errs = append(errs, field.Invalid(path, value, m))
	}
	return errs
}

// Join puts lists together; nil if there is nothing in them.
func Join(lists ...field.ErrorList) field.ErrorList { return slices.Concat(lists...) }

// NonNegative wants n >= 0.
func NonNegative[T Integer](n T, path *field.Path) field.ErrorList {
	return apivalidation.ValidateNonnegativeField(int64(n), path)
}

// NonNegativePtr wants *n >= 0 if n is set.
func NonNegativePtr[T Integer](n *T, path *field.Path) field.ErrorList {
	if n == nil {
		return nil
	}
	return NonNegative(*n, path)
}

// PositivePtr wants *n > 0 if n is set.
func PositivePtr[T Integer](n *T, path *field.Path) field.ErrorList {
	if n == nil || *n > 0 {
		return nil
	}
	return field.ErrorList{field.Invalid(path, *n, TextPositive)}
}

// Range wants lo <= n <= hi.
func Range[T Integer](n, lo, hi T, path *field.Path) field.ErrorList {
	if n >= lo && n <= hi {
		return nil
	}
	return field.ErrorList{field.Invalid(path, n, validation.InclusiveRangeError(int(lo), int(hi)))}
}

// Port wants a port number, 1 to 65535.
func Port[T Integer](n T, path *field.Path) field.ErrorList {
	return Each(path, n, validation.IsValidPortNum(int(n)))
}

// OneOf wants one of the supported values, which the answer lists in the order given.
func OneOf[T ~string](value T, path *field.Path, supported ...T) field.ErrorList {
	if slices.Contains(supported, value) {
		return nil
	}
	return field.ErrorList{field.NotSupported(path, value, supported)}
}

// RequiredOneOf is OneOf for a field that must be set.
func RequiredOneOf[T ~string](value T, path *field.Path, supported ...T) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return OneOf(value, path, supported...)
}

// Required wants a text that is not empty.
func Required[T ~string](value T, path *field.Path) field.ErrorList {
	if value != "" {
		return nil
	}
	return field.ErrorList{field.Required(path, "")}
}

// RequiredForm wants a text that is set and that form has nothing against.
func RequiredForm[T ~string](value T, path *field.Path, form func(string) []string) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return Each(path, value, form(string(value)))
}

// Form wants a text that is empty or that form has nothing against.
func Form[T ~string](value T, path *field.Path, form func(string) []string) field.ErrorList {
	if value == "" {
		return nil
	}
	return Each(path, value, form(string(value)))
}

// Equal compares values of the API: what is empty equals what is not there.
func Equal(a, b any) bool { return equality.Semantic.DeepEqual(a, b) }

// Immutable wants the new value to be the old one.
func Immutable[T any](value, old T, path *field.Path) field.ErrorList {
	if equality.Semantic.DeepEqual(value, old) {
		return nil
	}
	return field.ErrorList{field.Invalid(path, quoted(value), TextImmutable)}
}

// quoted is a value as answers quote it: anything made of structs with Go names.
func quoted(value any) any {
	t := reflect.TypeOf(value)
	for t != nil && (t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice) {
		t = t.Elem()
	}
	if t != nil && t.Kind() == reflect.Struct {
		return GoNames(value)
	}
	return value
}

// Once wants that no two items have the same key; each repetition is a Duplicate at the path that
// at gives for its index.
func Once[T any, K comparable](items []T, key func(T) K, at func(i int) *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := make(map[K]bool, len(items))
	for i, item := range items {
		k := key(item)
		if seen[k] {
			errs = append(errs, field.Duplicate(at(i), k))
		}
		seen[k] = true
	}
	return errs
}

// Sorted yields the keys of a map in order.
func Sorted[K ~string, V any](m map[K]V) []K {
	return slices.Sorted(maps.Keys(m))
}
