package cel

import (
	"time"

	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
)

// summable are the types that can be added up, with what nothing adds up to; ordered are those that can be sorted.
var (
	summable = []struct {
		name string
		of   *celgo.Type
		zero ref.Val
	}{
		{"int", celgo.IntType, types.IntZero}, {"uint", celgo.UintType, types.Uint(0)}, {"double", celgo.DoubleType, types.Double(0)},
		{"duration", celgo.DurationType, types.Duration{Duration: time.Duration(0)}},
	}
	ordered = []struct {
		name string
		of   *celgo.Type
	}{
		{"int", celgo.IntType}, {"uint", celgo.UintType}, {"double", celgo.DoubleType}, {"bool", celgo.BoolType},
		{"duration", celgo.DurationType}, {"timestamp", celgo.TimestampType}, {"string", celgo.StringType}, {"bytes", celgo.BytesType},
	}
)

func length(l traits.Lister) int { return int(l.Size().(types.Int)) }

func element(l traits.Lister, i int) ref.Val { return l.Get(types.Int(i)) }

// order compares two values.
func order(a, b ref.Val) (int, ref.Val) {
	c, ok := a.(traits.Comparer)
	if !ok {
		return 0, types.MaybeNoSuchOverloadErr(a)
	}
	result := c.Compare(b)
	n, ok := result.(types.Int)
	if !ok {
		return 0, result
	}
	return int(n), nil
}

func list(f func(traits.Lister) ref.Val) func(ref.Val) ref.Val {
	return func(v ref.Val) ref.Val {
		l, ok := v.(traits.Lister)
		if !ok {
			return types.MaybeNoSuchOverloadErr(v)
		}
		return f(l)
	}
}

func isSorted(l traits.Lister) ref.Val {
	for i := 1; i < length(l); i++ {
		n, problem := order(element(l, i-1), element(l, i))
		if problem != nil {
			return problem
		}
		if n > 0 {
			return types.False
		}
	}
	return types.True
}

func sum(zero ref.Val) func(traits.Lister) ref.Val {
	return func(l traits.Lister) ref.Val {
		if length(l) == 0 {
			return zero
		}
		total := element(l, 0)
		for i := 1; i < length(l); i++ {
			adder, ok := total.(traits.Adder)
			if !ok {
				return types.MaybeNoSuchOverloadErr(total)
			}
			total = adder.Add(element(l, i))
		}
		return total
	}
}

// extreme is the least (sign -1) or greatest (1) element.
func extreme(name string, sign int) func(traits.Lister) ref.Val {
	return func(l traits.Lister) ref.Val {
		if length(l) == 0 {
			return types.NewErr("%s called on empty list", name)
		}
		best := element(l, 0)
		for i := 1; i < length(l); i++ {
			n, problem := order(element(l, i), best)
			if problem != nil {
				return problem
			}
			if n*sign > 0 {
				best = element(l, i)
			}
		}
		return best
	}
}

func index(last bool) func(v, what ref.Val) ref.Val {
	return func(v, what ref.Val) ref.Val {
		l, ok := v.(traits.Lister)
		if !ok {
			return types.MaybeNoSuchOverloadErr(v)
		}
		found := -1
		for i := range length(l) {
			if element(l, i).Equal(what) == types.True {
				found = i
				if !last {
					break
				}
			}
		}
		return types.Int(found)
	}
}

// lists: isSorted, sum, min, max, indexOf, lastIndexOf.
func lists() celgo.EnvOption {
	var sums, sorted, least, greatest []celgo.FunctionOpt
	overload := func(id string, of, result *celgo.Type, f func(traits.Lister) ref.Val) celgo.FunctionOpt {
		return celgo.MemberOverload(id, takes(celgo.ListType(of)), result, celgo.UnaryBinding(list(f)))
	}
	for _, t := range summable {
		sums = append(sums, overload("list_"+t.name+"_sum_"+t.name, t.of, t.of, sum(t.zero)))
	}
	for _, t := range ordered {
		sorted = append(sorted, overload("list_"+t.name+"_is_sorted_bool", t.of, celgo.BoolType, isSorted))
		least = append(least, overload("list_"+t.name+"_min_"+t.name, t.of, t.of, extreme("min", -1)))
		greatest = append(greatest, overload("list_"+t.name+"_max_"+t.name, t.of, t.of, extreme("max", 1)))
	}
	any := celgo.TypeParamType("T")
	return options(
		celgo.Function("sum", sums...), celgo.Function("isSorted", sorted...), celgo.Function("min", least...), celgo.Function("max", greatest...),
		method1("indexOf", "list_a_index_of_int", celgo.ListType(any), any, celgo.IntType, index(false)),
		method1("lastIndexOf", "list_a_last_index_of_int", celgo.ListType(any), any, celgo.IntType, index(true)),
	)
}
