package cel

import (
	"fmt"
	"reflect"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
)

// value is a value of one of Kubernetes' own types, which only its functions look into.
type value[T any] struct {
	kind  *types.Type
	of    T
	equal func(a, b T) bool
}

func (v value[T]) ConvertToNative(want reflect.Type) (any, error) {
	if reflect.TypeOf(v.of).AssignableTo(want) {
		return v.of, nil
	}
	return nil, fmt.Errorf("type conversion error from '%s' to '%s'", v.kind, want)
}

func (v value[T]) ConvertToType(want ref.Type) ref.Val {
	switch {
	case want.TypeName() == v.kind.TypeName():
		return v
	case want.TypeName() == types.TypeType.TypeName():
		return v.kind
	}
	return types.NewErr("type conversion error from '%s' to '%s'", v.kind, want)
}

func (v value[T]) Equal(other ref.Val) ref.Val {
	o, ok := other.(value[T])
	return types.Bool(ok && v.equal(v.of, o.of))
}

func (v value[T]) Type() ref.Type { return v.kind }

func (v value[T]) Value() any { return v.of }

// text is the string in a value; the error says that it is none.
func text(v ref.Val) (string, ref.Val) {
	if s, ok := v.(types.String); ok {
		return string(s), nil
	}
	return "", types.MaybeNoSuchOverloadErr(v)
}

// number is the integer in a value; the error says that it is none.
func number(v ref.Val) (int64, ref.Val) {
	if n, ok := v.(types.Int); ok {
		return int64(n), nil
	}
	return 0, types.MaybeNoSuchOverloadErr(v)
}

// inside is what a value of one of Kubernetes' own types holds; the error says that it is not one.
func inside[T any](v ref.Val) (of T, err ref.Val) {
	if x, ok := v.(value[T]); ok {
		return x.of, nil
	}
	return of, types.MaybeNoSuchOverloadErr(v)
}
