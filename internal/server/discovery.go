package server

import (
	"crypto/sha256"
	"encoding/base64"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/discovery"
	"github.com/timonel/timonel/internal/kind"
)

// discoveryHandler serves the discovery documents of the current catalogue. They are made
// when they are first asked for after a change.
type discoveryHandler struct {
	server  *Server
	current atomic.Pointer[builtDiscovery]
}

type builtDiscovery struct {
	catalog   *kind.Catalog
	documents *discovery.Documents
}

func (s *Server) discovery() http.Handler { return &discoveryHandler{server: s} }

func (h *discoveryHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	catalog := h.server.Catalog.Catalog()
	built := h.current.Load()
	if built == nil || built.catalog != catalog {
		built = &builtDiscovery{catalog, discovery.Build(describe(catalog), h.server.discoveryOptions())}
		h.current.Store(built)
	}
	built.documents.ServeHTTP(w, r)
}

func (s *Server) discoveryOptions() discovery.Options {
	return discovery.Options{
		ServerAddress:  s.advertiseHostPort(),
		ServiceAddress: netip.AddrPortFrom(firstServiceIPs(s.serviceRanges)[0], 443).String(),
		ServiceRange:   s.serviceRanges[0],
	}
}

// describe is the catalogue as discovery shows it.
func describe(c *kind.Catalog) []discovery.Group {
	var groups []discovery.Group
	all := c.All()
	for _, name := range c.Groups() {
		group := discovery.Group{Name: name}
		for _, version := range c.Versions(name) {
			v := discovery.Version{Name: version}
			for _, d := range all {
				if d.Group == name && d.Version == version {
					v.Resources = append(v.Resources, describeKind(d))
					group.Custom = group.Custom || codec.IsTree(d)
				}
			}
			slices.SortFunc(v.Resources, func(a, b discovery.Resource) int { return strings.Compare(a.Name, b.Name) })
			group.Versions = append(group.Versions, v)
		}
		groups = append(groups, group)
	}
	return groups
}

func describeKind(d *kind.Definition) discovery.Resource {
	r := discovery.Resource{
		Name: d.Plural, Singular: d.Singular, Kind: d.Kind, Namespaced: d.Namespaced(), Verbs: d.Verbs.Names(),
		ShortNames: d.ShortNames, Categories: d.Categories,
	}
	if d.Persistent() {
		hub := d.Hub()
		sum := sha256.Sum256([]byte(hub.Group + "/" + hub.Stored.Version + "/" + hub.Kind))
		r.StorageVersionHash = base64.StdEncoding.EncodeToString(sum[:8])
	}
	names := slices.Sorted(maps.Keys(d.Subresources))
	if d.Prune != nil { // Parity: of custom resources, see the corpus, crd/status-scale
		slices.Reverse(names)
		r.Verbs = []string{"delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"}
		if d.Terminating {
			r.Verbs = []string{"delete", "deletecollection", "get", "list", "watch"}
		}
	}
	for _, name := range names {
		sub := d.Subresources[name]
		one := discovery.Subresource{Name: name, Kind: d.Kind, Verbs: sub.Verbs.Names()}
		if !sub.Kind.Empty() {
			one.Kind = sub.Kind.Kind
			if sub.Kind.GroupVersion() != d.GroupVersion() {
				one.Group, one.Version = sub.Kind.Group, sub.Kind.Version
			}
		}
		r.Subresources = append(r.Subresources, one)
	}
	return r
}
