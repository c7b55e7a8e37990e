package cel

import (
	"encoding/base64"
	"net/url"
	"regexp"
	"sync"
	"time"

	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
)

var formatType = types.NewOpaqueType("kubernetes.NamedFormat")

// format is a named form of texts; check says what is wrong with one.
type format struct {
	name  string
	check func(string) []string
}

var uuidForm = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$`)
})

// holds makes a check of a test and the complaint.
func holds(complaint string, test func(string) bool) func(string) []string {
	return func(s string) []string {
		if test(s) {
			return nil
		}
		return []string{complaint}
	}
}

func prefix(f validation.ValidateNameFunc) func(string) []string {
	return func(s string) []string { return f(s, true) }
}

// namedFormats are those of the documentation ("Kubernetes format library").
func namedFormats() []format {
	parses := func(layout string) func(string) bool {
		return func(s string) bool {
			_, err := time.Parse(layout, s)
			return err == nil
		}
	}
	return []format{
		{"dns1123Label", utilvalidation.IsDNS1123Label},
		{"dns1123Subdomain", utilvalidation.IsDNS1123Subdomain},
		{"dns1035Label", utilvalidation.IsDNS1035Label},
		{"qualifiedName", utilvalidation.IsQualifiedName},
		{"dns1123LabelPrefix", prefix(validation.NameIsDNSLabel)},
		{"dns1123SubdomainPrefix", prefix(validation.NameIsDNSSubdomain)},
		{"dns1035LabelPrefix", prefix(validation.NameIsDNS1035Label)},
		{"labelValue", utilvalidation.IsValidLabelValue},
		{"uri", func(s string) []string {
			if _, err := url.ParseRequestURI(s); err != nil {
				return []string{err.Error()}
			}
			return nil
		}},
		{"uuid", holds("does not match the UUID format", func(s string) bool { return uuidForm().MatchString(s) })},
		{"byte", holds("invalid base64", func(s string) bool {
			_, err := base64.StdEncoding.DecodeString(s)
			return err == nil
		})},
		{"date", holds("invalid date", parses(time.DateOnly))},
		{"datetime", holds("invalid datetime", parses(time.RFC3339))},
	}
}

func formatValue(f format) ref.Val {
	return value[format]{formatType, f, func(a, b format) bool { return a.name == b.name }}
}

// formats: format.dns1123Label() …, format.named("dns1123Label"), and <format>.validate(string), which lists what is wrong.
func formats() celgo.EnvOption {
	all := namedFormats()
	byName := make(map[string]ref.Val, len(all))
	declared := make([]celgo.EnvOption, 0, len(all)+2)
	for _, f := range all {
		made := formatValue(f)
		byName[f.name] = made
		declared = append(declared, celgo.Function("format."+f.name,
			celgo.Overload("format-"+f.name, nil, formatType, celgo.FunctionBinding(func(...ref.Val) ref.Val { return made }))))
	}
	declared = append(declared,
		function("format.named", "format-named", celgo.StringType, celgo.OptionalType(formatType), func(v ref.Val) ref.Val {
			name, problem := text(v)
			if problem != nil {
				return problem
			}
			if f, ok := byName[name]; ok {
				return types.OptionalOf(f)
			}
			return types.OptionalNone
		}),
		method1("validate", "format-validate", formatType, celgo.StringType, celgo.OptionalType(celgo.ListType(celgo.StringType)), func(v, of ref.Val) ref.Val {
			f, problem := inside[format](v)
			if problem != nil {
				return problem
			}
			s, problem := text(of)
			if problem != nil {
				return problem
			}
			if wrong := f.check(s); len(wrong) > 0 {
				return types.OptionalOf(types.NewStringList(types.DefaultTypeAdapter, wrong))
			}
			return types.OptionalNone
		}))
	return options(declared...)
}
