package check

import (
	"context"

	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The tags in the comments of the newer types ("+k8s:…", KEP-5073) say what is valid; the functions here say it in Go, with the
// answers that package validate of apimachinery gives.

// Spelling is a form of texts: validate.ShortName, validate.LongName …
type Spelling[T ~string] func(context.Context, operation.Operation, *field.Path, *T, *T) field.ErrorList

// Spelled wants a text to have a form.
func Spelled[T ~string](value T, path *field.Path, form Spelling[T]) field.ErrorList {
	return form(context.Background(), operation.Operation{}, path, &value, nil)
}

// RequiredSpelled wants a text that is there and has a form.
func RequiredSpelled[T ~string](value T, path *field.Path, form Spelling[T]) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	return Spelled(value, path, form)
}

// SpelledIfSet wants a text that is empty or has a form.
func SpelledIfSet[T ~string](value T, path *field.Path, form Spelling[T]) field.ErrorList {
	if value == "" {
		return nil
	}
	return Spelled(value, path, form)
}

// SpelledPtr wants the text, if there is one, to have a form.
func SpelledPtr[T ~string](value *T, path *field.Path, form Spelling[T]) field.ErrorList {
	if value == nil {
		return nil
	}
	return Spelled(*value, path, form)
}

// AtLeast and AtMost want a number, if there is one, on that side of a bound.
func AtLeast[T Integer](n *T, least T, path *field.Path) field.ErrorList {
	if n == nil {
		return nil
	}
	wide, bound := int64(*n), int64(least)
	return validate.Minimum(context.Background(), operation.Operation{}, path, &wide, nil, bound)
}

func AtMost[T Integer](n *T, most T, path *field.Path) field.ErrorList {
	if n == nil {
		return nil
	}
	wide, bound := int64(*n), int64(most)
	return validate.Maximum(context.Background(), operation.Operation{}, path, &wide, nil, bound)
}

// RequiredPtr wants a value to be there.
func RequiredPtr[T any](value *T, path *field.Path) field.ErrorList {
	if value == nil {
		return field.ErrorList{field.Required(path, "")}
	}
	return nil
}

// Member is one of the fields of which exactly one must be set.
type Member struct {
	Name string
	Set  bool
}

// Union wants exactly one of the members to be set.
func Union(path *field.Path, members ...Member) field.ErrorList {
	names := make([]validate.UnionMember, len(members))
	set := make([]validate.ExtractorFn[[]Member, bool], len(members))
	for i, m := range members {
		names[i] = validate.NewUnionMember(m.Name)
		set[i] = func(all []Member) bool { return all[i].Set }
	}
	return validate.Union(context.Background(), operation.Operation{}, path, members, nil, validate.NewUnionMembership(names...), set...)
}

// Unchanged wants a field to be as it was, like Immutable; the answer does not repeat the value.
func Unchanged[T any](value, old T, path *field.Path) field.ErrorList {
	if Equal(value, old) {
		return nil
	}
	return field.ErrorList{field.Invalid(path, nil, TextImmutable)}
}

// Keyed says what holds for a list whose items have keys: how many there may be, and each key only once.
func Keyed[T any, K comparable](items []T, most int, key func(*T) K, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(items) > most {
		errs = append(errs, field.TooMany(path, len(items), most))
	}
	same := func(a, b *T) bool { return key(a) == key(b) }
	return append(errs, validate.ValSliceUnique(context.Background(), operation.Operation{}, path, items, nil, same)...)
}

// FixedKeys wants a list to have the keys that it had.
func FixedKeys[T any, K comparable](items, old []T, key func(*T) K, path *field.Path) field.ErrorList {
	same := func(a, b *T) bool { return key(a) == key(b) }
	return validate.ValSliceUpdate(context.Background(), operation.Operation{Type: operation.Update}, path, items, old, same, validate.NoAddItem, validate.NoRemoveItem)
}

// Bounded is the form of texts that a bound of apimachinery's allows.
func Bounded[T ~string](bound func(context.Context, operation.Operation, *field.Path, *T, *T, int) field.ErrorList, n int) Spelling[T] {
	return func(ctx context.Context, op operation.Operation, path *field.Path, value, old *T) field.ErrorList {
		return bound(ctx, op, path, value, old, n)
	}
}
