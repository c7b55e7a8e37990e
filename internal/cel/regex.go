package cel

import (
	"regexp"

	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
)

// search takes a text and a regular expression (RE2) apart.
func search(s, pattern ref.Val) (string, *regexp.Regexp, ref.Val) {
	in, problem := text(s)
	if problem != nil {
		return "", nil, problem
	}
	p, problem := text(pattern)
	if problem != nil {
		return "", nil, problem
	}
	re, err := regexp.Compile(p)
	if err != nil {
		return "", nil, types.NewErr("Illegal regex: %v", err)
	}
	return in, re, nil
}

// regexes: find and findAll.
func regexes() celgo.EnvOption {
	findAll := func(s, pattern ref.Val, limit int) ref.Val {
		in, re, problem := search(s, pattern)
		if problem != nil {
			return problem
		}
		return types.NewStringList(types.DefaultTypeAdapter, re.FindAllString(in, limit))
	}
	return options(
		method1("find", "string_find_string", celgo.StringType, celgo.StringType, celgo.StringType, func(s, pattern ref.Val) ref.Val {
			in, re, problem := search(s, pattern)
			if problem != nil {
				return problem
			}
			return types.String(re.FindString(in))
		}),
		celgo.Function("findAll",
			celgo.MemberOverload("string_find_all_string", takes(celgo.StringType, celgo.StringType), celgo.ListType(celgo.StringType),
				celgo.BinaryBinding(func(s, pattern ref.Val) ref.Val { return findAll(s, pattern, -1) })),
			celgo.MemberOverload("string_find_all_string_int", takes(celgo.StringType, celgo.StringType, celgo.IntType), celgo.ListType(celgo.StringType),
				celgo.FunctionBinding(func(args ...ref.Val) ref.Val {
					limit, problem := number(args[2])
					if problem != nil {
						return problem
					}
					return findAll(args[0], args[1], int(limit))
				})),
		),
	)
}
