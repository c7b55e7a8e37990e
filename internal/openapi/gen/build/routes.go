package main

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/kube-openapi/pkg/common"
)

// groupVersion is an entry of resources.json.
type groupVersion struct {
	Group, Version string
	Off            bool // not served by default
	Resources      []resource
}

type resource struct {
	Name, Kind   string
	Namespaced   bool
	Verbs        []string
	Subresources []subresource
}

// subresource takes group and version from the group version it is in when its own are empty.
type subresource struct {
	Name, Kind, Group, Version string
	Verbs                      []string
}

// returnsDeleted are the resources whose delete answers with the object instead of a Status.
var returnsDeleted = map[string]bool{
	"pods": true, "services": true, "persistentvolumes": true, "persistentvolumeclaims": true, "serviceaccounts": true,
	"resourcequotas": true, "podtemplates": true, "storageclasses": true, "csidrivers": true, "csinodes": true,
	"volumeattachments": true, "volumeattributesclasses": true, "deviceclasses": true, "resourceclaims": true,
	"resourceclaimtemplates": true, "resourceslices": true, "resourcepoolstatusrequests": true,
}

var objectTypes = []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf"}

// service is the routes of one root path, which make one v3 document.
type service struct {
	root           string // "/apis/apps/v1"
	group, version string
	off            bool // not served by default
	routes         []common.Route
}

func (s *service) RootPath() string                   { return s.root }
func (s *service) PathParameters() []common.Parameter { return nil }
func (s *service) Routes() []common.Route             { return s.routes }

// route implements common.Route.
type route struct {
	service            *service
	method, path       string
	operation, tag     string
	description        string
	parameters         []common.Parameter
	consumes, produces []string
	action             string
	kind               schema.GroupVersionKind
	request            any
	responses          []common.StatusCodeResponse
}

func (r *route) Method() string                                   { return r.method }
func (r *route) Path() string                                     { return r.path }
func (r *route) OperationName() string                            { return r.operation }
func (r *route) Parameters() []common.Parameter                   { return r.parameters }
func (r *route) Description() string                              { return r.description }
func (r *route) Consumes() []string                               { return r.consumes }
func (r *route) Produces() []string                               { return r.produces }
func (r *route) RequestPayloadSample() any                        { return r.request }
func (r *route) ResponsePayloadSample() any                       { return nil }
func (r *route) StatusCodeResponses() []common.StatusCodeResponse { return r.responses }
func (r *route) Metadata() map[string]any {
	if r.action == "" {
		return nil
	}
	return map[string]any{
		common.ExtensionPrefix + "action":             r.action,
		common.ExtensionPrefix + "group-version-kind": map[string]any{"group": r.kind.Group, "version": r.kind.Version, "kind": r.kind.Kind},
	}
}

// response implements common.StatusCodeResponse.
type response struct {
	code    int
	message string
	model   any
}

func (r response) Code() int       { return r.code }
func (r response) Message() string { return r.message }
func (r response) Model() any      { return r.model }

func ok(model any) []common.StatusCodeResponse {
	return []common.StatusCodeResponse{response{200, "OK", model}}
}

// routes lists everything that is served, by root path.
func routes(served []groupVersion, scheme *runtime.Scheme) (map[string]*service, error) {
	services := map[string]*service{}
	single := func(root, operation, tag, description string, produces, consumes []string, model any) {
		services[root] = &service{root: root}
		services[root].routes = []common.Route{&route{
			service: services[root], method: "GET", path: root + "/", operation: operation, tag: tag, description: description,
			produces: produces, consumes: consumes, responses: ok(model),
		}}
	}
	single("/api", "getCoreAPIVersions", "core", "get available API versions", objectTypes, objectTypes, metav1.APIVersions{})
	single("/apis", "getAPIVersions", "apis", "get available API versions", objectTypes, objectTypes, metav1.APIGroupList{})
	single("/version", "getCodeVersion", "version", "get the version information for this server", []string{"application/json"}, []string{"application/json"}, version.Info{})
	single("/.well-known/openid-configuration", "getServiceAccountIssuerOpenIDConfiguration", "WellKnown",
		"get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'", []string{"application/json"}, nil, "")
	single("/openid/v1/jwks", "getServiceAccountIssuerOpenIDKeyset", "openid",
		"get service account issuer OpenID JSON Web Key Set (contains public token verification keys)", []string{"application/jwk-set+json"}, nil, "")

	for _, gv := range served {
		s := &service{root: "/apis/" + gv.Group + "/" + gv.Version, group: gv.Group, version: gv.Version, off: gv.Off}
		if gv.Group == "" {
			s.root = "/api/" + gv.Version
		} else if services["/apis/"+gv.Group] == nil {
			single("/apis/"+gv.Group, "get"+title(camel(gv.Group))+"APIGroup", camel(gv.Group), "get information of a group", objectTypes, objectTypes, metav1.APIGroup{})
			services["/apis/"+gv.Group].off = gv.Off // versions that are off stand behind those that are not
		}
		services[s.root] = s
		s.routes = append(s.routes, &route{
			service: s, method: "GET", path: s.root + "/", operation: "getAPIResources", description: "get available resources",
			produces: objectTypes, consumes: objectTypes, responses: ok(metav1.APIResourceList{}),
		})
		for _, r := range gv.Resources {
			b := &resourceBuilder{service: s, scheme: scheme, media: builtIn, resource: r, gv: schema.GroupVersion{Group: gv.Group, Version: gv.Version}}
			if err := b.build(); err != nil {
				return nil, fmt.Errorf("%s/%s: %w", s.root, r.Name, err)
			}
		}
	}
	return services, nil
}

// resourceBuilder adds the routes of one resource to its service.
type resourceBuilder struct {
	service  *service
	scheme   *runtime.Scheme
	gv       schema.GroupVersion
	resource resource
	media    mediaTypes
	err      error
}

// mediaTypes are what a resource speaks.
type mediaTypes struct {
	consumes, patches, produces, lists []string
}

var builtIn = mediaTypes{
	consumes: []string{"*/*"},
	patches:  []string{"application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml"},
	produces: objectTypes,
	lists:    append(slices.Clone(objectTypes), "application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"),
}

// sample returns a value whose type names the model of a kind.
func (b *resourceBuilder) sample(gvk schema.GroupVersionKind) any {
	if gvk.GroupVersion() == templateVersion {
		return templateModels[gvk.Kind]
	}
	obj, err := b.scheme.New(gvk)
	if err != nil {
		b.err = err
		return nil
	}
	return obj
}

func (b *resourceBuilder) options(o runtime.Object, without ...string) []common.Parameter {
	p, err := fromOptions(o, without...)
	if err != nil {
		b.err = err
	}
	return p
}

func (b *resourceBuilder) build() error {
	r := b.resource
	root := b.service.root
	collection, scope, middle := root+"/"+r.Name, []common.Parameter{}, ""
	watched := root + "/watch/" + r.Name
	if r.Namespaced {
		collection, watched = root+"/namespaces/{namespace}/"+r.Name, root+"/watch/namespaces/{namespace}/"+r.Name
		scope, middle = append(scope, namespaceParameter), "Namespaced"
	}
	kind := b.gv.WithKind(r.Kind)
	has := func(verb string) bool { return slices.Contains(r.Verbs, verb) }
	name := []common.Parameter{inPath("name", "name of the "+r.Kind)}
	watchRoute := func(action, operation, path string, parameters ...[]common.Parameter) {
		what := "watch individual changes to a list of " + r.Kind + ". deprecated: use the 'watch' parameter with a list operation instead."
		if action == "watch" {
			what = "watch changes to an object of kind " + r.Kind + ". deprecated: use the 'watch' parameter with a list operation instead, filtered to a single item with the 'fieldSelector' parameter."
		}
		b.add(&route{
			method: "GET", path: path, operation: operation, description: what, action: action, kind: kind,
			parameters: slices.Concat(append(parameters, b.options(&metav1.ListOptions{}))...), produces: b.media.lists, responses: ok(metav1.WatchEvent{}),
		})
	}

	if has("list") {
		list := &route{
			method: "GET", path: collection, operation: "list" + middle + r.Kind, description: "list objects of kind " + r.Kind,
			action: "list", kind: kind, parameters: slices.Concat(scope, b.options(&metav1.ListOptions{})), produces: b.media.lists,
			responses: ok(b.sample(b.gv.WithKind(r.Kind + "List"))),
		}
		if has("watch") {
			list.description = "list or watch objects of kind " + r.Kind
		}
		b.add(list)
		if r.Namespaced {
			all := *list
			all.path, all.operation, all.parameters = root+"/"+r.Name, "list"+r.Kind+"ForAllNamespaces", b.options(&metav1.ListOptions{})
			b.add(&all)
		}
	}
	if has("create") {
		b.create(collection, "create"+middle+r.Kind, "create"+article(r.Kind, " ")+r.Kind, kind, scope)
	}
	if has("deletecollection") {
		b.add(&route{
			method: "DELETE", path: collection, operation: "deletecollection" + middle + r.Kind, description: "delete collection of " + r.Kind,
			action: "deletecollection", kind: kind, request: &metav1.DeleteOptions{}, responses: ok(&metav1.Status{}),
			parameters: slices.Concat(scope, []common.Parameter{inBody(false)}, b.options(&metav1.DeleteOptions{}),
				b.options(&metav1.ListOptions{}, "watch", "allowWatchBookmarks")),
		})
	}
	if has("get") {
		b.add(&route{
			method: "GET", path: collection + "/{name}", operation: "read" + middle + r.Kind, description: "read the specified " + r.Kind,
			action: "get", kind: kind, parameters: slices.Concat(scope, name), responses: ok(b.sample(kind)),
		})
	}
	if has("update") {
		b.replace(collection+"/{name}", "replace"+middle+r.Kind, "replace the specified "+r.Kind, kind, slices.Concat(scope, name))
	}
	if has("patch") {
		b.patch(collection+"/{name}", "patch"+middle+r.Kind, "partially update the specified "+r.Kind, kind, slices.Concat(scope, name))
	}
	if has("delete") {
		var answer any = &metav1.Status{}
		if returnsDeleted[r.Name] {
			answer = b.sample(kind)
		}
		b.add(&route{
			method: "DELETE", path: collection + "/{name}", operation: "delete" + middle + r.Kind, description: "delete" + article(r.Kind, " ") + r.Kind,
			action: "delete", kind: kind, request: &metav1.DeleteOptions{},
			parameters: slices.Concat(scope, name, []common.Parameter{inBody(false)}, b.options(&metav1.DeleteOptions{})),
			responses:  []common.StatusCodeResponse{response{200, "OK", answer}, response{202, "Accepted", answer}},
		})
	}
	if has("watch") {
		watchRoute("watchlist", "watch"+middle+r.Kind+"List", watched, scope)
		watchRoute("watch", "watch"+middle+r.Kind, watched+"/{name}", scope, name)
		if r.Namespaced {
			watchRoute("watchlist", "watch"+r.Kind+"ListForAllNamespaces", root+"/watch/"+r.Name)
		}
	}
	for _, sub := range r.Subresources {
		b.subresource(sub, collection+"/{name}/"+sub.Name, middle+r.Kind+title(sub.Name), scope)
	}
	return b.err
}

func (b *resourceBuilder) subresource(sub subresource, path, operation string, scope []common.Parameter) {
	kind := b.gv.WithKind(sub.Kind)
	if sub.Version != "" {
		kind = schema.GroupVersionKind{Group: sub.Group, Version: sub.Version, Kind: sub.Kind}
	}
	has := func(verb string) bool { return slices.Contains(sub.Verbs, verb) }
	parameters := append(slices.Clone(scope), inPath("name", "name of the "+sub.Kind))
	of := sub.Name + " of the specified " + b.resource.Kind
	switch {
	case strings.HasSuffix(sub.Kind, "Options"):
		b.connect(sub, path, operation, kind, parameters)
		return
	case sub.Name == "log":
		b.add(&route{
			method: "GET", path: path, operation: "read" + operation, description: "read " + of, action: "get", kind: kind,
			parameters: append(parameters, b.options(&corev1.PodLogOptions{})...),
			produces:   append([]string{"text/plain"}, objectTypes...), responses: ok(""),
		})
		return
	}
	if has("create") {
		b.create(path, "create"+operation, "create "+sub.Name+" of"+article(b.resource.Kind, " ")+b.resource.Kind, kind, parameters)
	}
	if has("get") {
		b.add(&route{
			method: "GET", path: path, operation: "read" + operation, description: "read " + of, action: "get", kind: kind,
			parameters: parameters, responses: ok(b.sample(kind)),
		})
	}
	if has("update") {
		b.replace(path, "replace"+operation, "replace "+of, kind, parameters)
	}
	if has("patch") {
		b.patch(path, "patch"+operation, "partially update "+of, kind, parameters)
	}
}

// connect adds the routes of a subresource that is a stream, and for proxies those of the paths behind them.
func (b *resourceBuilder) connect(sub subresource, path, operation string, kind schema.GroupVersionKind, parameters []common.Parameter) {
	options, isObject := b.sample(kind).(runtime.Object)
	if !isObject {
		return
	}
	methods := []string{"GET", "POST"}
	if sub.Name == "proxy" {
		methods = append(methods, "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")
	}
	parameters = append(parameters, b.options(options)...)
	for _, method := range methods {
		r := &route{
			method: method, path: path, operation: "connect" + title(strings.ToLower(method)) + operation,
			description: "connect " + method + " requests to " + sub.Name + " of " + b.resource.Kind,
			action:      "connect", kind: kind, parameters: parameters, produces: []string{"*/*"}, responses: ok(""),
		}
		b.add(r)
		if sub.Name == "proxy" {
			behind := *r
			behind.path, behind.operation = path+"/{path}", r.operation+"WithPath"
			behind.parameters = append(slices.Clone(parameters), inPath("path", "path to the resource"))
			b.addExact(&behind)
		}
	}
}

func (b *resourceBuilder) create(path, operation, description string, kind schema.GroupVersionKind, parameters []common.Parameter) {
	model := b.sample(kind)
	b.add(&route{
		method: "POST", path: path, operation: operation, description: description, action: "post", kind: kind, request: model,
		parameters: slices.Concat(parameters, []common.Parameter{inBody(true)}, b.options(&metav1.CreateOptions{})),
		responses:  []common.StatusCodeResponse{response{200, "OK", model}, response{201, "Created", model}, response{202, "Accepted", model}},
	})
}

func (b *resourceBuilder) replace(path, operation, description string, kind schema.GroupVersionKind, parameters []common.Parameter) {
	model := b.sample(kind)
	b.add(&route{
		method: "PUT", path: path, operation: operation, description: description, action: "put", kind: kind, request: model,
		parameters: slices.Concat(parameters, []common.Parameter{inBody(true)}, b.options(&metav1.UpdateOptions{})),
		responses:  []common.StatusCodeResponse{response{200, "OK", model}, response{201, "Created", model}},
	})
}

func (b *resourceBuilder) patch(path, operation, description string, kind schema.GroupVersionKind, parameters []common.Parameter) {
	model := b.sample(kind)
	b.add(&route{
		method: "PATCH", path: path, operation: operation, description: description, action: "patch", kind: kind, request: &metav1.Patch{},
		parameters: slices.Concat(parameters, []common.Parameter{inBody(true)}, b.options(&metav1.PatchOptions{})), consumes: b.media.patches,
		responses: []common.StatusCodeResponse{response{200, "OK", model}, response{201, "Created", model}},
	})
}

// add fills in what most routes share.
func (b *resourceBuilder) add(r *route) {
	r.service = b.service
	if r.consumes == nil {
		r.consumes = b.media.consumes
	}
	if r.produces == nil {
		r.produces = b.media.produces
	}
	if r.action != "connect" { // streams have nothing to print
		r.parameters = slices.Concat(r.parameters, []common.Parameter{prettyParameter})
	}
	b.service.routes = append(b.service.routes, r)
}

func (b *resourceBuilder) addExact(r *route) {
	b.service.routes = append(b.service.routes, r)
}

// article is the word before a kind: "a Pod", "an APIService", "Endpoints".
func article(kind, before string) string {
	switch {
	case kind == templateKind:
		return before + templateArticle
	case strings.HasSuffix(kind, "s") && !strings.HasSuffix(kind, "ss"):
		return before
	case strings.ContainsRune("AEIOU", rune(kind[0])):
		return before + "an "
	}
	return before + "a "
}
