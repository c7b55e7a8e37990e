package cel

import (
	"net/url"

	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
)

var urlType = types.NewOpaqueType("kubernetes.URL")

// parseURL wants an absolute URI or an absolute path.
func parseURL(v ref.Val) (*url.URL, ref.Val) {
	s, problem := text(v)
	if problem != nil {
		return nil, problem
	}
	u, err := url.ParseRequestURI(s)
	if err != nil {
		return nil, types.NewErr("URL parse error during conversion from string: %v", err)
	}
	return u, nil
}

// urls: isURL(string), url(string), and the parts of a URL.
func urls() celgo.EnvOption {
	part := func(name string, of func(*url.URL) string) celgo.EnvOption {
		return method(name, "url_"+name, urlType, celgo.StringType, func(v ref.Val) ref.Val {
			u, problem := inside[*url.URL](v)
			if problem != nil {
				return problem
			}
			return types.String(of(u))
		})
	}
	return options(
		function("isURL", "is_url_string", celgo.StringType, celgo.BoolType, func(v ref.Val) ref.Val {
			_, problem := parseURL(v)
			return types.Bool(problem == nil)
		}),
		function("url", "string_to_url", celgo.StringType, urlType, func(v ref.Val) ref.Val {
			u, problem := parseURL(v)
			if problem != nil {
				return problem
			}
			return value[*url.URL]{urlType, u, func(a, b *url.URL) bool { return a.String() == b.String() }}
		}),
		part("getScheme", func(u *url.URL) string { return u.Scheme }), part("getHost", func(u *url.URL) string { return u.Host }),
		part("getHostname", (*url.URL).Hostname), part("getPort", (*url.URL).Port), part("getEscapedPath", (*url.URL).EscapedPath),
		method("getQuery", "url_getQuery", urlType, celgo.MapType(celgo.StringType, celgo.ListType(celgo.StringType)), func(v ref.Val) ref.Val {
			u, problem := inside[*url.URL](v)
			if problem != nil {
				return problem
			}
			return types.DefaultTypeAdapter.NativeToValue(map[string][]string(u.Query()))
		}),
	)
}
