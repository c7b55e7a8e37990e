// Package route turns a URL into a [Request] and back. It is pure: it looks at
// method, path and query and at the catalogue, and touches nothing else.
//
// The grammar is that of the Kubernetes API ("API concepts", "Resource URIs").
package route

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/timonel/timonel/internal/kind"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// Request is what a URL asks for.
type Request struct {
	Verb  string // get, list, watch, create, update, patch, delete, deletecollection; else the lower-case method
	Path  string
	Query url.Values

	// Of a request for an API resource; Resource is empty otherwise.
	Group, Version  string
	Resource        string // the plural
	Subresource     string
	Namespace, Name string
	Tail            string // what follows a proxy subresource, with its leading slash
	OldWatch        bool   // the deprecated /watch/ prefix was used

	Definition *kind.Definition
	Sub        *kind.Subresource // nil for the resource itself

	// Problem is the answer if the request is let through at all: 404 or 405. (Who
	// may not ask is told 403 first, whether the thing exists or not.)
	Problem error
}

// IsResource reports whether the request is about an API resource.
func (r *Request) IsResource() bool { return r.Resource != "" }

// LongRunning reports whether the answer may take as long as it likes: watches and
// streams have no deadline.
func (r *Request) LongRunning() bool {
	switch {
	case r.Verb == "watch", r.Verb == "proxy", r.Subresource == "log":
		return true
	case !r.IsResource():
		return strings.HasPrefix(r.Path, "/debug/pprof/") // profiles take as long as was asked for
	case r.Definition == nil: // whoever serves it, such names are those of streams
		return streams[r.Subresource]
	}
	return r.Sub != nil && r.Sub.Connect
}

// streams are the subresources that stay open, by the names that kube-apiserver goes by.
var streams = map[string]bool{"attach": true, "exec": true, "proxy": true, "log": true, "portforward": true}

// Locate reads method, path and query. It never fails: see Request.Problem.
func Locate(catalog *kind.Catalog, method, path string, query url.Values) Request {
	r := Request{Verb: strings.ToLower(method), Path: path, Query: query}
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case parts[0] == "api" && len(parts) >= 3:
		r.Version, parts = parts[1], parts[2:]
	case parts[0] == "apis" && len(parts) >= 4:
		r.Group, r.Version, parts = parts[1], parts[2], parts[3:]
	default:
		return r
	}
	deprecatedProxy := false
	if len(parts) > 1 && (parts[0] == "watch" || parts[0] == "proxy") {
		r.OldWatch = parts[0] == "watch"
		deprecatedProxy = parts[0] == "proxy"
		parts = parts[1:]
	}
	r.split(parts)
	if r.Resource == "" { // a path with an empty part, such as /api/v1//pods
		return Request{Verb: r.Verb, Path: path, Query: query}
	}
	r.Verb = r.verbOf(method)
	if deprecatedProxy { // the name is kept for who may not; the paths are long gone
		r.Verb, r.Problem = "proxy", NoResource()
		return r
	}
	if r.Problem == nil {
		r.resolve(catalog, method)
	}
	return r
}

// split takes the parts after the version apart.
func (r *Request) split(parts []string) {
	if parts[0] == "namespaces" && len(parts) > 1 {
		r.Namespace = parts[1]
		if len(parts) > 2 && parts[2] != "status" && parts[2] != "finalize" {
			parts = parts[2:]
		}
	}
	r.Resource = parts[0]
	if len(parts) > 1 {
		r.Name = parts[1]
	}
	if len(parts) > 2 {
		r.Subresource = parts[2]
	}
	if len(parts) > 3 {
		r.Tail = "/" + strings.Join(parts[3:], "/")
	}
	if len(parts) > 2 && (r.Name == "" || r.Subresource == "") { // an empty part before others
		r.Problem = NoResource()
	}
}

func (r *Request) verbOf(method string) string {
	switch method {
	case http.MethodPost:
		return "create"
	case http.MethodGet, http.MethodHead:
		if r.OldWatch {
			return "watch"
		}
		if r.Name != "" {
			return "get"
		}
		if len(r.Query) > 0 {
			if selected, err := fields.ParseSelector(r.Query.Get("fieldSelector")); err == nil {
				if name, ok := selected.RequiresExactMatch("metadata.name"); ok {
					r.Name = name
				}
			}
			if Watching(r.Query) {
				return "watch"
			}
		}
		return "list"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		if r.Name == "" {
			return "deletecollection"
		}
		return "delete"
	}
	return ""
}

// Watching reports whether the query of a collection asks for a watch.
func Watching(query url.Values) bool {
	values, given := query["watch"]
	if !given {
		return false
	}
	return len(values) == 0 || values[0] != "false" && values[0] != "0"
}

// resolve finds the definition and decides whether it serves the verb.
func (r *Request) resolve(catalog *kind.Catalog, method string) {
	d := catalog.Locate(r.Group, r.Version, r.Resource)
	if d == nil {
		if catalog.Versions(r.Group) == nil || catalog.Custom(r.Group) && !catalog.Has(r.Group, r.Version) {
			r.Problem = ErrNoPage
			return
		}
		r.Problem = NoResource()
		return
	}
	r.Definition = d
	if d.Scope == kind.Cluster && r.Namespace != "" && (d.Plural != "namespaces" || r.Name != r.Namespace) {
		r.Problem = NoResource()
		return
	}
	if d.Scope == kind.Namespaced && r.Namespace == "" && (r.Name != "" && r.Verb != "list" && r.Verb != "watch" || r.Subresource != "") {
		r.Problem = NoResource()
		return
	}
	if r.Subresource != "" {
		r.Sub = d.Subresources[r.Subresource]
		if r.Sub == nil && d.Prune != nil { // Parity: of custom resources, see the corpus, crd/crud
			r.Problem = apierrors.NewNotFound(d.GroupResource(), r.Name)
			return
		}
		if r.Sub == nil || r.Tail != "" && !r.takesTail() {
			r.Problem = NoResource()
			return
		}
	}
	if method == http.MethodHead && !(r.Sub != nil && r.Sub.Connect) || r.OldWatch && r.Verb != "watch" || !r.serves(d) {
		r.Problem = MethodNotAllowed()
	}
}

// takesTail: only proxies are followed by a path of the backend's.
func (r *Request) takesTail() bool { return r.Sub.Connect && r.Subresource == "proxy" }

var verbSet = map[string]kind.Verbs{
	"get": kind.Get, "list": kind.List, "watch": kind.Watch, "create": kind.Create, "update": kind.Update,
	"patch": kind.Patch, "delete": kind.Delete, "deletecollection": kind.DeleteCollection,
}

func (r *Request) serves(d *kind.Definition) bool {
	verb, known := verbSet[r.Verb]
	if !known {
		return r.Sub != nil && r.takesTail()
	}
	if r.Sub != nil {
		return r.Sub.Verbs.Has(verb)
	}
	if d.Scope == kind.Namespaced && r.Namespace == "" && verb&(kind.Create|kind.DeleteCollection) != 0 && d.Persistent() {
		return false
	}
	if verb == kind.Create && r.Name != "" {
		return false
	}
	if verb&(kind.Update|kind.Patch|kind.Delete) != 0 && r.Name == "" {
		return false
	}
	return d.Verbs.Has(verb)
}

// ErrNoPage is the problem of a path that belongs to no API: plain text 404.
var ErrNoPage = &noPage{}

type noPage struct{}

func (*noPage) Error() string { return "404 page not found" }

// NoResource is the 404 for a path below the API that names no resource.
func NoResource() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound,
		Message: "the server could not find the requested resource", Details: &metav1.StatusDetails{},
	}}
}

// MethodNotAllowed is the 405 for a path that exists.
func MethodNotAllowed() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusMethodNotAllowed, Reason: metav1.StatusReasonMethodNotAllowed,
		Message: "the server does not allow this method on the requested resource", Details: &metav1.StatusDetails{},
	}}
}
