package route

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func catalog() *kind.Catalog {
	status := &kind.Subresource{Verbs: kind.ReadWrite, View: &kind.View{}}
	job := &kind.Subresource{Verbs: kind.Create, New: kind.Of[corev1.Binding]()}
	proxied := &kind.Subresource{Verbs: kind.Get | kind.Create | kind.Update | kind.Patch | kind.Delete, Connect: true}
	return kind.NewCatalog(
		&kind.Definition{Version: "v1", Kind: "Pod", Plural: "pods", Scope: kind.Namespaced, Verbs: kind.Standard, New: kind.Of[corev1.Pod](),
			Subresources: map[string]*kind.Subresource{
				"status": status, "binding": job, "proxy": proxied,
				"exec": {Verbs: kind.Get | kind.Create, Connect: true}, "log": {Verbs: kind.Get, Connect: true},
			}},
		&kind.Definition{Version: "v1", Kind: "Node", Plural: "nodes", Scope: kind.Cluster, Verbs: kind.Standard, New: kind.Of[corev1.Node](),
			Subresources: map[string]*kind.Subresource{"status": status, "proxy": proxied}},
		&kind.Definition{Version: "v1", Kind: "Namespace", Plural: "namespaces", Scope: kind.Cluster, Verbs: kind.Standard &^ kind.DeleteCollection, New: kind.Of[corev1.Namespace](),
			Subresources: map[string]*kind.Subresource{"status": status, "finalize": {Verbs: kind.Update, View: &kind.View{}}}},
		&kind.Definition{Version: "v1", Kind: "Binding", Plural: "bindings", Scope: kind.Namespaced, Verbs: kind.Create, New: kind.Of[corev1.Binding](),
			Job: kind.Job(nil)},
		&kind.Definition{Group: "apps", Version: "v1", Kind: "Deployment", Plural: "deployments", Scope: kind.Namespaced, Verbs: kind.Standard, New: kind.Of[appsv1.Deployment](),
			Subresources: map[string]*kind.Subresource{"status": status, "scale": {Verbs: kind.ReadWrite, Scale: &kind.Scale{}}}},
		&kind.Definition{Group: "authorization.k8s.io", Version: "v1", Kind: "SelfSubjectAccessReview", Plural: "selfsubjectaccessreviews", Scope: kind.Cluster,
			Verbs: kind.Create, New: kind.Of[authorizationv1.SelfSubjectAccessReview]()},
		&kind.Definition{Group: "example.com", Version: "v1", Kind: "Widget", Plural: "widgets", Scope: kind.Namespaced, Verbs: kind.Standard,
			New: kind.Of[unstructured.Unstructured](), Prune: func(object.Object, bool) ([]string, error) { return nil, nil }},
	)
}

// describe is a request in one line: verb, group/version, namespace, resource, name, subresource, tail, and its problem.
func describe(r Request) string {
	var b strings.Builder
	b.WriteString(r.Verb)
	if r.IsResource() {
		b.WriteString(" " + strings.TrimPrefix(r.Group+"/"+r.Version, "/") + " ")
		if r.Namespace != "" {
			b.WriteString(r.Namespace + ":")
		}
		b.WriteString(r.Resource)
		if r.Name != "" {
			b.WriteString(" " + r.Name)
		}
		if r.Subresource != "" {
			b.WriteString(" /" + r.Subresource)
		}
		if r.Tail != "" {
			b.WriteString(" +" + r.Tail)
		}
	}
	switch {
	case r.Problem == nil:
	case errors.Is(r.Problem, ErrNoPage):
		b.WriteString(" = no page")
	default:
		b.WriteString(" = " + string(apierrors.ReasonForError(r.Problem)))
	}
	return b.String()
}

func check(t *testing.T, c *kind.Catalog, request, want string) {
	t.Helper()
	method, target, _ := strings.Cut(request, " ")
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	if got := describe(Locate(c, method, u.Path, u.Query())); got != want {
		t.Errorf("%s is\n  %s, want\n  %s", request, got, want)
	}
}

// TestLocate is the path grammar: docs of the API, "Resource URIs", and what the reference answers.
func TestLocate(t *testing.T) {
	c := catalog()
	for _, one := range []struct{ request, want string }{
		// collections and objects
		{"GET /api/v1/pods", "list v1 pods"},
		{"GET /api/v1/pods/", "list v1 pods"},
		{"GET /api/v1/namespaces/a/pods", "list v1 a:pods"},
		{"GET /api/v1/namespaces/a/pods/web", "get v1 a:pods web"},
		{"GET /apis/apps/v1/namespaces/a/deployments/web", "get apps/v1 a:deployments web"},
		{"GET /api/v1/nodes", "list v1 nodes"},
		{"GET /api/v1/nodes/n1", "get v1 nodes n1"},
		{"POST /api/v1/namespaces/a/pods", "create v1 a:pods"},
		{"PUT /api/v1/namespaces/a/pods/web", "update v1 a:pods web"},
		{"PATCH /api/v1/namespaces/a/pods/web", "patch v1 a:pods web"},
		{"DELETE /api/v1/namespaces/a/pods/web", "delete v1 a:pods web"},
		{"DELETE /api/v1/namespaces/a/pods", "deletecollection v1 a:pods"},
		{"DELETE /api/v1/nodes", "deletecollection v1 nodes"},
		{"POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "create authorization.k8s.io/v1 selfsubjectaccessreviews"},
		{"POST /api/v1/namespaces/a/bindings", "create v1 a:bindings"},

		// namespaces
		{"GET /api/v1/namespaces", "list v1 namespaces"},
		{"GET /api/v1/namespaces/a", "get v1 a:namespaces a"},
		{"PUT /api/v1/namespaces/a/status", "update v1 a:namespaces a /status"},
		{"PUT /api/v1/namespaces/a/finalize", "update v1 a:namespaces a /finalize"},
		{"GET /api/v1/namespaces/a/finalize", "get v1 a:namespaces a /finalize = MethodNotAllowed"},
		{"DELETE /api/v1/namespaces", "deletecollection v1 namespaces = MethodNotAllowed"},

		// subresources
		{"GET /api/v1/namespaces/a/pods/web/status", "get v1 a:pods web /status"},
		{"PATCH /api/v1/nodes/n1/status", "patch v1 nodes n1 /status"},
		{"DELETE /api/v1/nodes/n1/status", "delete v1 nodes n1 /status = MethodNotAllowed"},
		{"POST /api/v1/namespaces/a/pods/web/binding", "create v1 a:pods web /binding"},
		{"GET /apis/apps/v1/namespaces/a/deployments/web/scale", "get apps/v1 a:deployments web /scale"},
		{"GET /api/v1/namespaces/a/pods/web/unknown", "get v1 a:pods web /unknown = NotFound"},
		{"GET /apis/example.com/v1/namespaces/a/widgets/w/status", "get example.com/v1 a:widgets w /status = NotFound"},
		{"GET /api/v1/namespaces/a/pods/web/status/more", "get v1 a:pods web /status +/more = NotFound"},

		// streams; a proxy passes on what follows, and any method
		{"GET /api/v1/namespaces/a/pods/web/log", "get v1 a:pods web /log"},
		{"POST /api/v1/namespaces/a/pods/web/exec", "create v1 a:pods web /exec"},
		{"GET /api/v1/namespaces/a/pods/web/exec/x", "get v1 a:pods web /exec +/x = NotFound"},
		{"GET /api/v1/namespaces/a/pods/web/proxy/a/b", "get v1 a:pods web /proxy +/a/b"},
		{"OPTIONS /api/v1/nodes/n1/proxy/stats", " v1 nodes n1 /proxy +/stats"},
		{"HEAD /api/v1/nodes/n1/proxy/stats", "get v1 nodes n1 /proxy +/stats"},

		// watches
		{"GET /api/v1/pods?watch=true", "watch v1 pods"},
		{"GET /api/v1/pods?watch=1", "watch v1 pods"},
		{"GET /api/v1/pods?watch", "watch v1 pods"},
		{"GET /api/v1/pods?watch=anything", "watch v1 pods"},
		{"GET /api/v1/pods?watch=false", "list v1 pods"},
		{"GET /api/v1/pods?watch=0", "list v1 pods"},
		{"GET /api/v1/namespaces/a/pods/web?watch=true", "get v1 a:pods web"},
		{"GET /api/v1/watch/pods", "watch v1 pods"},
		{"GET /api/v1/watch/namespaces/a/pods", "watch v1 a:pods"},
		{"GET /api/v1/watch/namespaces/a/pods/web", "watch v1 a:pods web"},
		{"GET /apis/apps/v1/watch/deployments", "watch apps/v1 deployments"},
		{"POST /api/v1/watch/namespaces/a/pods", "create v1 a:pods = MethodNotAllowed"},
		{"DELETE /api/v1/watch/namespaces/a/pods/web", "delete v1 a:pods web = MethodNotAllowed"},
		{"GET /api/v1/proxy/nodes/n1", "proxy v1 nodes n1 = NotFound"},

		// a name in the field selector counts for authorization
		{"GET /api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dweb", "list v1 a:pods web"},
		{"GET /api/v1/pods?fieldSelector=metadata.name%3Dweb&watch=1", "watch v1 pods web"},
		{"GET /api/v1/pods?fieldSelector=metadata.name!%3Dweb", "list v1 pods"},
		{"GET /api/v1/pods?fieldSelector=%3D%3D%3D", "list v1 pods"},

		// what a collection across namespaces cannot do
		{"POST /api/v1/pods", "create v1 pods = MethodNotAllowed"},
		{"DELETE /api/v1/pods", "deletecollection v1 pods = MethodNotAllowed"},
		{"GET /api/v1/pods/web", "get v1 pods web = NotFound"},

		// methods that do not fit
		{"HEAD /api/v1/namespaces/a/pods/web", "get v1 a:pods web = MethodNotAllowed"},
		{"OPTIONS /api/v1/namespaces/a/pods", " v1 a:pods = MethodNotAllowed"},
		{"POST /api/v1/namespaces/a/pods/web", "create v1 a:pods web = MethodNotAllowed"},
		{"PUT /api/v1/namespaces/a/pods", "update v1 a:pods = MethodNotAllowed"},
		{"PATCH /api/v1/nodes", "patch v1 nodes = MethodNotAllowed"},
		{"GET /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "list authorization.k8s.io/v1 selfsubjectaccessreviews = MethodNotAllowed"},

		// what there is not
		{"GET /api/v1/namespaces/a/nodes/n1", "get v1 a:nodes n1 = NotFound"},
		{"GET /api/v1/things", "list v1 things = NotFound"},
		{"GET /api/v1/namespaces/a/pods//proxy", "list v1 a:pods /proxy = NotFound"},
		{"GET /api/v1/namespaces/a/pods//proxy?fieldSelector=metadata.name%3Dweb", "list v1 a:pods web /proxy = NotFound"},
		{"GET /api/v1/pods///web", "list v1 pods +/web = NotFound"},
		{"GET /api/v1/namespaces/a/pods/web//x", "get v1 a:pods web +/x = NotFound"},
		{"GET /api/v2/pods", "list v2 pods = NotFound"},
		{"GET /apis/apps/v2/deployments", "list apps/v2 deployments = NotFound"},
		{"GET /apis/none.example.com/v1/things", "list none.example.com/v1 things = no page"},

		// what is no resource: the verb is the method
		{"GET /", "get"},
		{"GET /healthz", "get"},
		{"POST /healthz", "post"},
		{"GET /api", "get"},
		{"GET /api/v1", "get"},
		{"GET /apis/apps", "get"},
		{"GET /apis/apps/v1/", "get"},
		{"GET /openapi/v3/apis/apps/v1", "get"},
		{"GET /api/v1//pods", "get"},
	} {
		check(t, c, one.request, one.want)
	}
}

func TestLongRunning(t *testing.T) {
	c := catalog()
	for path, want := range map[string]bool{
		"/api/v1/pods?watch=1": true, "/api/v1/watch/pods": true, "/api/v1/pods": false, "/healthz": false,
		"/api/v1/namespaces/a/pods/p/log": true, "/api/v1/namespaces/a/pods/p/exec": true, "/api/v1/nodes/n/proxy": true,
		"/api/v1/namespaces/a/pods/p/status": false, "/debug/pprof/profile": true, "/debug/flags": false,
		"/apis/elsewhere.io/v1/namespaces/a/things/x/exec": true, "/apis/elsewhere.io/v1/namespaces/a/things/x/status": false,
	} {
		u, _ := url.Parse(path)
		r := Locate(c, http.MethodGet, u.Path, u.Query())
		if r.LongRunning() != want {
			t.Errorf("%s runs long: %t, want %t", path, !want, want)
		}
	}
}

// path is where a resource request came from, unless by a deprecated prefix.
func path(r *Request) string {
	p := "/apis/" + r.Group + "/" + r.Version
	if r.Group == "" {
		p = "/api/" + r.Version
	}
	if r.Namespace != "" && r.Resource != "namespaces" {
		p += "/namespaces/" + r.Namespace
	}
	p += "/" + r.Resource
	if r.Name != "" {
		p += "/" + r.Name
	}
	if r.Subresource != "" {
		p += "/" + r.Subresource
	}
	return p + r.Tail
}

// FuzzLocate: no URL does harm, what is no resource keeps its method as verb, and what was understood says where it
// came from.
func FuzzLocate(f *testing.F) {
	for _, seed := range []string{
		"/", "//", "/api//", "/api/v1/namespaces//pods", "/api/v1/namespaces/a/pods/p/proxy//x/", "/apis/apps/v1/watch/namespaces/a",
		"/api/v1/namespaces/a/status", "/apis/example.com/v1/namespaces/n/widgets/w/scale", "/api/v1/watch/watch/watch",
	} {
		for _, method := range []string{"GET", "POST", "DELETE", "OPTIONS"} {
			f.Add(method, seed, "watch=1")
		}
	}
	c := catalog()
	f.Fuzz(func(t *testing.T, method, target, rawQuery string) {
		query, _ := url.ParseQuery(rawQuery)
		r := Locate(c, method, target, query)
		r.LongRunning()
		if !r.IsResource() {
			if r.Verb != strings.ToLower(method) || r.Problem != nil || r.Definition != nil {
				t.Fatalf("%s %q is no resource but %+v", method, target, r)
			}
			return
		}
		if r.Problem != nil || r.OldWatch {
			return
		}
		if r.Definition == nil || r.Definition.Plural != r.Resource || (r.Sub == nil) != (r.Subresource == "") {
			t.Fatalf("%s %q has no problem but %+v", method, target, r)
		}
		if again := Locate(c, method, path(&r), query); describe(again) != describe(r) {
			t.Fatalf("%s %q is %q, but its path %q is %q", method, target, describe(r), path(&r), describe(again))
		}
	})
}
