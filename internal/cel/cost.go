package cel

import (
	"math"
	"slices"

	"github.com/google/cel-go/checker"
	"github.com/google/cel-go/common"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
)

// What Kubernetes' functions cost: a step for each element of a list, a tenth of one for each character that is looked at
// (CEL's own factors), and for a search the characters times a quarter of the pattern's. The same formulas serve the
// estimate before and the bill after a run, with sizes that can be and sizes that are.

// shape says how the cost of a function follows from its arguments.
type shape int

const (
	step      shape = iota // one
	scan                   // every character of the first argument
	scanBoth               // every character of the first two
	traverse               // every element of the list
	search2                // a regular expression (second) in a text (first)
	authorize              // asking the authorizer
)

// askCost is what one question to the authorizer costs: more than everything else.
const askCost = 350_000

// validateCost stands for the regular expressions behind named formats.
const validateCost = 10

// shapes of functions by name. Functions that are not here are CEL's own, which know their costs.
var shapes = map[string]shape{
	"check": authorize,
	"path":  step, "group": step, "serviceAccount": step, "resource": step, "subresource": step, "namespace": step, "name": step,
	"fieldSelector": scan, "labelSelector": scan, "errored": step, "error": step, "allowed": step, "reason": step,
	"isSorted": traverse, "sum": traverse, "min": traverse, "max": traverse,
	"url": scan, "isURL": scan, "getScheme": step, "getHost": step, "getHostname": step, "getPort": step, "getEscapedPath": step, "getQuery": step,
	"find": search2, "findAll": search2,
	"quantity": scan, "isQuantity": scan, "sign": step, "isInteger": step, "asInteger": step, "asApproximateFloat": step,
	"isGreaterThan": step, "isLessThan": step, "compareTo": step, "add": step, "sub": step,
	"semver": scan, "isSemver": scan, "major": step, "minor": step, "patch": step,
	"ip": scan, "cidr": scan, "isIP": scan, "isCIDR": scan, "ip.isCanonical": scanBoth,
	"containsIP": scan, "containsCIDR": scan, "validate": scan, "format.named": step, "jsonpatch.escapeKey": scan,
}

// cost computes from the sizes of the arguments, the owner of a method first.
func (s shape) cost(function string, sizes []uint64) uint64 {
	size := func(i int) uint64 {
		if i < len(sizes) {
			return sizes[i]
		}
		return 0
	}
	switch s {
	case scan:
		n := scaled(size(0), common.StringTraversalCostFactor)
		if function == "containsIP" || function == "containsCIDR" || function == "validate" {
			n = scaled(size(1), common.StringTraversalCostFactor)
		}
		if function == "validate" {
			return Times(n, validateCost)
		}
		return n
	case scanBoth:
		return scaled(size(0), 2*common.StringTraversalCostFactor)
	case traverse:
		return size(0)
	case search2:
		// A search begins at every character, and once behind the last.
		in := scaled(plus(size(0), 1), common.StringTraversalCostFactor)
		return Times(in, scaled(size(1), common.RegexStringLengthCostFactor))
	case authorize:
		return askCost
	}
	return 1
}

func plus(x, y uint64) uint64 {
	if x > math.MaxUint64-y {
		return math.MaxUint64
	}
	return x + y
}

func scaled(n uint64, factor float64) uint64 {
	f := math.Ceil(float64(n) * factor)
	if f >= math.MaxUint64 {
		return math.MaxUint64
	}
	return uint64(f)
}

// estimator knows how large the values of variables can be.
type estimator struct{ variables map[string]*Type }

// EstimateSize is asked for values whose size does not follow from the expression.
func (e estimator) EstimateSize(node checker.AstNode) *checker.SizeEstimate {
	path := node.Path()
	if len(path) == 0 {
		return nil
	}
	t := e.variables[path[0]].at(path[1:])
	if t == nil {
		return nil
	}
	return &checker.SizeEstimate{Max: t.MaxSize}
}

func (e estimator) size(node checker.AstNode) checker.SizeEstimate {
	if s := node.ComputedSize(); s != nil {
		return *s
	}
	if s := e.EstimateSize(node); s != nil {
		return *s
	}
	if slices.Contains(sized, node.Type().Kind()) {
		return checker.SizeEstimate{Max: math.MaxUint64}
	}
	return checker.FixedSizeEstimate(1)
}

// sized are the kinds of types whose values have a size.
var sized = []types.Kind{types.StringKind, types.BytesKind, types.ListKind, types.MapKind, types.DynKind}

// EstimateCallCost is asked for every call; nil leaves it to CEL.
func (e estimator) EstimateCallCost(function, overload string, target *checker.AstNode, args []checker.AstNode) *checker.CallEstimate {
	s, ok := shapes[function]
	if !ok {
		return e.extension(function, overload, target, args)
	}
	least, most := make([]uint64, 0, len(args)+1), make([]uint64, 0, len(args)+1)
	nodes := args
	if target != nil {
		nodes = append([]checker.AstNode{*target}, args...)
	}
	for _, n := range nodes {
		size := e.size(n)
		least, most = append(least, size.Min), append(most, size.Max)
	}
	call := &checker.CallEstimate{CostEstimate: checker.CostEstimate{Min: s.cost(function, least), Max: s.cost(function, most)}}
	switch function {
	case "find":
		call.ResultSize = &checker.SizeEstimate{Max: most[0]}
	case "findAll":
		call.ResultSize = &checker.SizeEstimate{Max: plus(most[0], 1)}
	case "getScheme", "getHost", "getHostname", "getPort", "getEscapedPath", "getQuery":
		call.ResultSize = &checker.SizeEstimate{Max: most[0]}
	case "jsonpatch.escapeKey":
		call.ResultSize = &checker.SizeEstimate{Min: least[0], Max: Times(most[0], 2)}
	case "min", "max":
		// The result is an element: as large as the list's type allows.
		if path := nodes[0].Path(); len(path) > 0 {
			if t := e.variables[path[0]].at(append(slices.Clone(path[1:]), "@items")); t != nil {
				call.ResultSize = &checker.SizeEstimate{Max: t.MaxSize}
			}
		}
	}
	return call
}

// extension are functions of CEL's extensions over strings, which do not estimate themselves: they look at every character.
func (e estimator) extension(function, overload string, target *checker.AstNode, args []checker.AstNode) *checker.CallEstimate {
	if target == nil {
		return nil
	}
	size := e.size(*target)
	whole := func(result checker.SizeEstimate) *checker.CallEstimate {
		return &checker.CallEstimate{CostEstimate: size.MultiplyByCostFactor(common.StringTraversalCostFactor), ResultSize: &result}
	}
	switch function {
	case "lowerAscii", "upperAscii", "trim", "substring", "charAt":
		most := size.Max
		if function == "charAt" {
			most = 1
		}
		return whole(checker.SizeEstimate{Max: most})
	case "indexOf", "lastIndexOf":
		if (*target).Type().Kind() == types.ListKind {
			return &checker.CallEstimate{CostEstimate: size.AsCost()}
		}
		return &checker.CallEstimate{CostEstimate: size.MultiplyByCostFactor(common.StringTraversalCostFactor)}
	case "replace":
		if len(args) < 2 {
			return nil
		}
		// The most grows where every character, and the place before the first, is replaced.
		by := e.size(args[1])
		return whole(checker.SizeEstimate{Max: plus(Times(plus(size.Max, 1), by.Max), size.Max)})
	case "split":
		return whole(checker.SizeEstimate{Max: plus(size.Max, 1)})
	case "join":
		element := checker.SizeEstimate{Max: math.MaxUint64}
		if path := (*target).Path(); len(path) > 0 {
			if t := e.variables[path[0]].at(append(slices.Clone(path[1:]), "@items")); t != nil {
				element.Max = t.MaxSize
			}
		}
		if len(args) > 0 {
			element = element.Add(e.size(args[0]))
		}
		result := size.Multiply(element)
		return &checker.CallEstimate{CostEstimate: result.MultiplyByCostFactor(common.StringTraversalCostFactor), ResultSize: &result}
	}
	return nil
}

// runtimeCosts bills calls of Kubernetes' functions by the sizes that their arguments have.
type runtimeCosts struct{}

// CallCost is asked for every call; nil leaves it to CEL.
func (runtimeCosts) CallCost(function, overload string, args []ref.Val, _ ref.Val) *uint64 {
	s, ok := shapes[function]
	if !ok {
		return nil
	}
	sizes := make([]uint64, len(args))
	for i, v := range args {
		sizes[i] = 1
		if l, ok := v.(traits.Sizer); ok {
			if n, ok := l.Size().(types.Int); ok && n >= 0 {
				sizes[i] = uint64(n)
			}
		}
	}
	cost := s.cost(function, sizes)
	return &cost
}
