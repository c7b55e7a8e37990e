package cel

import (
	"cmp"
	"regexp"
	"strings"
	"sync"

	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
)

// SemverType is the type of semantic versions (semver.org, 2.0.0).
var SemverType = types.NewOpaqueType("kubernetes.Semver")

// semver is a semantic version. Numbers stay text: they have no bound.
type semver struct {
	numbers [3]string // major, minor, patch, without leading zeros
	pre     []string  // pre-release identifiers
	build   string
}

// semverForm is the form that semver.org publishes.
var semverForm = sync.OnceValue(func() *regexp.Regexp {
	const number, word = `(0|[1-9]\d*)`, `[0-9A-Za-z-]`
	return regexp.MustCompile(`^` + number + `\.` + number + `\.` + number +
		`(?:-((?:0|[1-9]\d*|\d*[A-Za-z-]` + word + `*)(?:\.(?:0|[1-9]\d*|\d*[A-Za-z-]` + word + `*))*))?(?:\+(` + word + `+(?:\.` + word + `+)*))?$`)
})

func parseSemver(s string) (semver, bool) {
	m := semverForm().FindStringSubmatch(s)
	if m == nil {
		return semver{}, false
	}
	v := semver{numbers: [3]string{m[1], m[2], m[3]}, build: m[5]}
	if m[4] != "" {
		v.pre = strings.Split(m[4], ".")
	}
	return v, true
}

// normalized makes a version of what is nearly one: "v1.2" is 1.2.0, "01.01.01" is 1.1.1.
func normalized(s string) string {
	s = strings.TrimPrefix(s, "v")
	end := strings.IndexAny(s, "+-")
	if end < 0 {
		end = len(s)
	}
	parts := strings.Split(s[:end], ".")
	for i, p := range parts {
		if trimmed := strings.TrimLeft(p, "0"); trimmed != "" {
			parts[i] = trimmed
		} else if p != "" {
			parts[i] = "0"
		}
	}
	if len(parts) < 3 && end == len(s) { // only a plain number may be short
		for len(parts) < 3 {
			parts = append(parts, "0")
		}
	}
	return strings.Join(parts, ".") + s[end:]
}

func compareNumbers(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

func numeric(s string) bool { return strings.Trim(s, "0123456789") == "" }

// compare orders versions by precedence (semver.org §11); builds do not count.
func (v semver) compare(w semver) int {
	for i := range v.numbers {
		if c := compareNumbers(v.numbers[i], w.numbers[i]); c != 0 {
			return c
		}
	}
	switch {
	case len(v.pre) == 0 && len(w.pre) == 0:
		return 0
	case len(v.pre) == 0:
		return 1
	case len(w.pre) == 0:
		return -1
	}
	for i := range min(len(v.pre), len(w.pre)) {
		if c := compareIdentifiers(v.pre[i], w.pre[i]); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(v.pre), len(w.pre))
}

// compareIdentifiers: numbers come before words.
func compareIdentifiers(a, b string) int {
	switch na, nb := numeric(a), numeric(b); {
	case na && nb:
		return compareNumbers(a, b)
	case na:
		return -1
	case nb:
		return 1
	}
	return strings.Compare(a, b)
}

func toSemver(v ref.Val, normalize bool) (semver, ref.Val) {
	s, problem := text(v)
	if problem != nil {
		return semver{}, problem
	}
	if normalize {
		s = normalized(s)
	}
	parsed, ok := parseSemver(s)
	if !ok {
		return semver{}, types.NewErr("%q is not a semantic version", s)
	}
	return parsed, nil
}

// semvers: semver(string), isSemver(string), each with an optional "normalize"; the numbers of a version; comparison.
func semvers() celgo.EnvOption {
	both := func(name, id string, result *celgo.Type, f func(v ref.Val, normalize bool) ref.Val) celgo.EnvOption {
		return celgo.Function(name,
			celgo.Overload(id, takes(celgo.StringType), result, celgo.UnaryBinding(func(v ref.Val) ref.Val { return f(v, false) })),
			celgo.Overload(id+"_bool", takes(celgo.StringType, celgo.BoolType), result, celgo.BinaryBinding(func(v, normalize ref.Val) ref.Val {
				n, ok := normalize.(types.Bool)
				if !ok {
					return types.MaybeNoSuchOverloadErr(normalize)
				}
				return f(v, bool(n))
			})))
	}
	part := func(name string, i int) celgo.EnvOption {
		return method(name, "semver_"+name, SemverType, celgo.IntType, func(v ref.Val) ref.Val {
			s, problem := inside[semver](v)
			if problem != nil {
				return problem
			}
			return types.String(s.numbers[i]).ConvertToType(types.IntType)
		})
	}
	compare := func(name string, result *celgo.Type, f func(order int) ref.Val) celgo.EnvOption {
		return method1(name, "semver_"+name, SemverType, SemverType, result, func(a, b ref.Val) ref.Val {
			x, problem := inside[semver](a)
			if problem != nil {
				return problem
			}
			y, problem := inside[semver](b)
			if problem != nil {
				return problem
			}
			return f(x.compare(y))
		})
	}
	return options(
		both("isSemver", "is_semver_string", celgo.BoolType, func(v ref.Val, normalize bool) ref.Val {
			_, problem := toSemver(v, normalize)
			return types.Bool(problem == nil)
		}),
		both("semver", "string_to_semver", SemverType, func(v ref.Val, normalize bool) ref.Val {
			s, problem := toSemver(v, normalize)
			if problem != nil {
				return problem
			}
			return value[semver]{SemverType, s, func(a, b semver) bool { return a.compare(b) == 0 }}
		}),
		part("major", 0), part("minor", 1), part("patch", 2),
		compare("isGreaterThan", celgo.BoolType, func(order int) ref.Val { return types.Bool(order > 0) }),
		compare("isLessThan", celgo.BoolType, func(order int) ref.Val { return types.Bool(order < 0) }),
		compare("compareTo", celgo.IntType, func(order int) ref.Val { return types.Int(order) }),
	)
}
