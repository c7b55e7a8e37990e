package cel

import (
	"net/url"
	"regexp"
	"sync"

	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/ext"
)

// environment is what all rules share: the standard library, CEL's extensions that Kubernetes has on, and
// Kubernetes' functions over URLs, regular expressions and lists ("CEL in Kubernetes").
var environment = sync.OnceValues(func() (*celgo.Env, error) {
	return celgo.NewEnv(
		celgo.OptionalTypes(), celgo.DefaultUTCTimeZone(true), celgo.CrossTypeNumericComparisons(true), celgo.EagerlyValidateDeclarations(true),
		ext.Strings(ext.StringsVersion(2)), ext.Sets(), ext.TwoVarComprehensions(), ext.Network(),
		urls(), regexes(), lists(),
	)
})

func options(all ...celgo.EnvOption) celgo.EnvOption {
	return func(e *celgo.Env) (env *celgo.Env, err error) {
		for _, o := range all {
			if e, err = o(e); err != nil {
				return nil, err
			}
		}
		return e, nil
	}
}

func parseURL(text ref.Val) (*url.URL, ref.Val) {
	s, ok := text.(types.String)
	if !ok {
		return nil, types.MaybeNoSuchOverloadErr(text)
	}
	u, err := url.ParseRequestURI(string(s))
	if err != nil {
		return nil, types.NewErr("URL parse error during conversion from string: %v", err)
	}
	return u, nil
}

// urls: isURL(string), and url(string) with its parts. A URL is kept as its text.
func urls() celgo.EnvOption {
	isURL := celgo.Function("isURL", celgo.Overload("is_url_string", []*celgo.Type{celgo.StringType}, celgo.BoolType, celgo.UnaryBinding(func(v ref.Val) ref.Val {
		_, err := parseURL(v)
		return types.Bool(err == nil)
	})))
	make1 := celgo.Function("url", celgo.Overload("string_to_url", []*celgo.Type{celgo.StringType}, celgo.DynType, celgo.UnaryBinding(func(v ref.Val) ref.Val {
		if _, err := parseURL(v); err != nil {
			return err
		}
		return v
	})))
	part := func(name string, of func(*url.URL) string) celgo.EnvOption {
		return celgo.Function(name, celgo.MemberOverload("url_"+name, []*celgo.Type{celgo.StringType}, celgo.StringType, celgo.UnaryBinding(func(v ref.Val) ref.Val {
			u, err := parseURL(v)
			if err != nil {
				return err
			}
			return types.String(of(u))
		})))
	}
	return options(isURL, make1,
		part("getScheme", func(u *url.URL) string { return u.Scheme }), part("getHost", func(u *url.URL) string { return u.Host }),
		part("getHostname", (*url.URL).Hostname), part("getPort", (*url.URL).Port), part("getEscapedPath", (*url.URL).EscapedPath))
}

// regexes: find and findAll.
func regexes() celgo.EnvOption {
	compiled := func(v ref.Val) (*regexp.Regexp, ref.Val) {
		s, ok := v.(types.String)
		if !ok {
			return nil, types.MaybeNoSuchOverloadErr(v)
		}
		re, err := regexp.Compile(string(s))
		if err != nil {
			return nil, types.NewErr("Illegal regex: %v", err)
		}
		return re, nil
	}
	return options(
		celgo.Function("find", celgo.MemberOverload("string_find_string", []*celgo.Type{celgo.StringType, celgo.StringType}, celgo.StringType,
			celgo.BinaryBinding(func(s, pattern ref.Val) ref.Val {
				re, err := compiled(pattern)
				if err != nil {
					return err
				}
				return types.String(re.FindString(string(s.(types.String))))
			}))),
		celgo.Function("findAll", celgo.MemberOverload("string_find_all_string", []*celgo.Type{celgo.StringType, celgo.StringType}, celgo.ListType(celgo.StringType),
			celgo.BinaryBinding(func(s, pattern ref.Val) ref.Val {
				re, err := compiled(pattern)
				if err != nil {
					return err
				}
				return types.NewStringList(types.DefaultTypeAdapter, re.FindAllString(string(s.(types.String)), -1))
			}))),
	)
}

// lists: isSorted, sum, min, max, indexOf, lastIndexOf.
func lists() celgo.EnvOption {
	of := celgo.ListType(celgo.TypeParamType("T"))
	element := celgo.TypeParamType("T")
	fold := func(name string, out *celgo.Type, f func(l traits.Lister) ref.Val) celgo.EnvOption {
		return celgo.Function(name, celgo.MemberOverload("list_"+name, []*celgo.Type{of}, out, celgo.UnaryBinding(func(v ref.Val) ref.Val {
			l, ok := v.(traits.Lister)
			if !ok {
				return types.MaybeNoSuchOverloadErr(v)
			}
			return f(l)
		})))
	}
	size := func(l traits.Lister) int { return int(l.Size().(types.Int)) }
	at := func(l traits.Lister, i int) ref.Val { return l.Get(types.Int(i)) }
	compare := func(a, b ref.Val) (int, ref.Val) {
		c, ok := a.(traits.Comparer)
		if !ok {
			return 0, types.MaybeNoSuchOverloadErr(a)
		}
		n, ok := c.Compare(b).(types.Int)
		if !ok {
			return 0, c.Compare(b)
		}
		return int(n), nil
	}
	extreme := func(sign int, name string) func(traits.Lister) ref.Val {
		return func(l traits.Lister) ref.Val {
			if size(l) == 0 {
				return types.NewErr("%s called on empty list", name)
			}
			best := at(l, 0)
			for i := 1; i < size(l); i++ {
				n, err := compare(at(l, i), best)
				if err != nil {
					return err
				}
				if n*sign > 0 {
					best = at(l, i)
				}
			}
			return best
		}
	}
	index := func(name string, last bool) celgo.EnvOption {
		return celgo.Function(name, celgo.MemberOverload("list_a_"+name+"_int", []*celgo.Type{of, element}, celgo.IntType, celgo.BinaryBinding(func(v, what ref.Val) ref.Val {
			l, ok := v.(traits.Lister)
			if !ok {
				return types.MaybeNoSuchOverloadErr(v)
			}
			found := -1
			for i := range size(l) {
				if at(l, i).Equal(what) == types.True {
					found = i
					if !last {
						break
					}
				}
			}
			return types.Int(found)
		})))
	}
	return options(
		fold("isSorted", celgo.BoolType, func(l traits.Lister) ref.Val {
			for i := 1; i < size(l); i++ {
				n, err := compare(at(l, i-1), at(l, i))
				if err != nil {
					return err
				}
				if n > 0 {
					return types.False
				}
			}
			return types.True
		}),
		fold("sum", element, func(l traits.Lister) ref.Val {
			if size(l) == 0 {
				return types.IntZero
			}
			total := at(l, 0)
			for i := 1; i < size(l); i++ {
				adder, ok := total.(traits.Adder)
				if !ok {
					return types.MaybeNoSuchOverloadErr(total)
				}
				total = adder.Add(at(l, i))
			}
			return total
		}),
		fold("min", element, extreme(-1, "min")), fold("max", element, extreme(1, "max")),
		index("indexOf", false), index("lastIndexOf", true),
	)
}
