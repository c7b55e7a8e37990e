package cel

import (
	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"k8s.io/apimachinery/pkg/api/resource"
)

// QuantityType is the type of resource quantities.
var QuantityType = types.NewOpaqueType("kubernetes.Quantity")

// Quantity is a resource quantity as a value of an expression.
func Quantity(q resource.Quantity) ref.Val {
	return value[resource.Quantity]{QuantityType, q, func(a, b resource.Quantity) bool { return a.Equal(b) }}
}

func parseQuantity(v ref.Val) (resource.Quantity, ref.Val) {
	s, problem := text(v)
	if problem != nil {
		return resource.Quantity{}, problem
	}
	q, err := resource.ParseQuantity(s)
	if err != nil {
		return q, types.WrapErr(err)
	}
	return q, nil
}

// operand is a quantity, or an integer as one.
func operand(v ref.Val) (resource.Quantity, ref.Val) {
	if n, ok := v.(types.Int); ok {
		return *resource.NewQuantity(int64(n), resource.DecimalExponent), nil
	}
	return inside[resource.Quantity](v)
}

// quantities: quantity(string), isQuantity(string), arithmetic, comparison and conversion of quantities.
func quantities() celgo.EnvOption {
	one := func(name string, result *celgo.Type, f func(resource.Quantity) ref.Val) celgo.EnvOption {
		return method(name, "quantity_"+name, QuantityType, result, func(v ref.Val) ref.Val {
			q, problem := inside[resource.Quantity](v)
			if problem != nil {
				return problem
			}
			return f(q)
		})
	}
	two := func(f func(a, b resource.Quantity) ref.Val) celgo.OverloadOpt {
		return celgo.BinaryBinding(func(a, b ref.Val) ref.Val {
			x, problem := inside[resource.Quantity](a)
			if problem != nil {
				return problem
			}
			y, problem := operand(b)
			if problem != nil {
				return problem
			}
			return f(x, y)
		})
	}
	compare := func(name string, result *celgo.Type, f func(order int) ref.Val) celgo.EnvOption {
		return celgo.Function(name, celgo.MemberOverload("quantity_"+name, takes(QuantityType, QuantityType), result,
			two(func(a, b resource.Quantity) ref.Val { return f(a.Cmp(b)) })))
	}
	arithmetic := func(name string, f func(a *resource.Quantity, b resource.Quantity)) celgo.EnvOption {
		binding := two(func(a, b resource.Quantity) ref.Val {
			sum := a.DeepCopy()
			f(&sum, b)
			return Quantity(sum)
		})
		return celgo.Function(name,
			celgo.MemberOverload("quantity_"+name, takes(QuantityType, QuantityType), QuantityType, binding),
			celgo.MemberOverload("quantity_"+name+"_int", takes(QuantityType, celgo.IntType), QuantityType, binding))
	}
	return options(
		function("isQuantity", "is_quantity_string", celgo.StringType, celgo.BoolType, func(v ref.Val) ref.Val {
			_, problem := parseQuantity(v)
			return types.Bool(problem == nil)
		}),
		function("quantity", "string_to_quantity", celgo.StringType, QuantityType, func(v ref.Val) ref.Val {
			q, problem := parseQuantity(v)
			if problem != nil {
				return problem
			}
			return Quantity(q)
		}),
		one("sign", celgo.IntType, func(q resource.Quantity) ref.Val { return types.Int(q.Sign()) }),
		one("isInteger", celgo.BoolType, func(q resource.Quantity) ref.Val {
			_, ok := q.AsInt64()
			return types.Bool(ok)
		}),
		one("asInteger", celgo.IntType, func(q resource.Quantity) ref.Val {
			n, ok := q.AsInt64()
			if !ok {
				return types.NewErr("cannot convert value to integer")
			}
			return types.Int(n)
		}),
		one("asApproximateFloat", celgo.DoubleType, func(q resource.Quantity) ref.Val { return types.Double(q.AsApproximateFloat64()) }),
		compare("isGreaterThan", celgo.BoolType, func(order int) ref.Val { return types.Bool(order > 0) }),
		compare("isLessThan", celgo.BoolType, func(order int) ref.Val { return types.Bool(order < 0) }),
		compare("compareTo", celgo.IntType, func(order int) ref.Val { return types.Int(order) }),
		arithmetic("add", (*resource.Quantity).Add), arithmetic("sub", (*resource.Quantity).Sub),
	)
}
