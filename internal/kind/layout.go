package kind

import (
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Layout says which resource a stored key belongs to.
type Layout struct {
	prefix   string // of all keys, e.g. "/registry/"
	builtins map[string]schema.GroupResource
}

// unserved are the server's own keys, under the names that kube-apiserver has for them.
var unserved = map[string]schema.GroupResource{
	"ranges":           {Resource: "servicenodeportallocations"},
	"masterleases":     {Resource: "apiserveripinfo"},
	"peerserverleases": {Resource: "apiserverpeeripinfo"},
}

// NewLayout is the layout of built-in kinds, and of every custom resource, below prefix ("/registry").
func NewLayout(prefix string, definitions []*Definition) *Layout {
	l := &Layout{prefix: prefix + "/", builtins: map[string]schema.GroupResource{}}
	for p, r := range unserved {
		l.builtins[p] = r
	}
	for _, d := range NewCatalog(definitions...).Stored() {
		l.builtins[d.Stored.Prefix] = d.GroupResource()
	}
	return l
}

// Resource returns the resource of a key; none if the key is not below the prefix.
func (l *Layout) Resource(key string) schema.GroupResource {
	rest, ok := strings.CutPrefix(key, l.prefix)
	if !ok {
		return schema.GroupResource{}
	}
	first, rest, _ := strings.Cut(rest, "/")
	second, _, more := strings.Cut(rest, "/")
	if r, ok := l.builtins[first+"/"+second]; ok && more {
		return r
	}
	if r, ok := l.builtins[first]; ok {
		return r
	}
	if more && strings.Contains(first, ".") { // a custom resource: GROUP/PLURAL/…
		return schema.GroupResource{Group: first, Resource: second}
	}
	return schema.GroupResource{Resource: first}
}
