package discovery

import (
	"net/netip"
	"sync"

	apidiscovery "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Options are what of the server, beside the catalogue, the documents say.
type Options struct {
	// ServerAddress is host:port under which clients reach the server.
	ServerAddress string
	// ServiceAddress is host:port of the server's Service, which clients with an
	// address in ServiceRange are told too. Empty: nobody is.
	ServiceAddress string
	ServiceRange   netip.Prefix
}

// Documents are the discovery documents of one catalogue.
type Documents struct {
	options Options
	api     *document // /api
	service *document // /api for clients in the service range, or nil
	apis    *document
	// aggregated forms of api and apis
	aggregatedAPI, aggregatedAPIs *document
	groups                        map[string]*document            // "/apis/<group>"
	versions                      map[string]map[string]*document // by group, then version
	custom                        map[string]bool                 // groups of custom resources only
}

// Build makes the documents of a catalogue. It keeps the groups, which must not
// change afterwards, until the documents have been made.
func Build(groups []Group, o Options) *Documents {
	d := &Documents{options: o, groups: map[string]*document{}, versions: map[string]map[string]*document{}, custom: map[string]bool{}}
	var legacy, named []Group
	for _, g := range sorted(groups) {
		d.versions[g.Name] = map[string]*document{}
		for _, v := range g.Versions {
			if !v.Remote {
				d.versions[g.Name][v.Name] = newDocument(func() message { return resourceList(g.Name, v) })
			}
		}
		if g.Name == "" {
			legacy = append(legacy, g)
			continue
		}
		named = append(named, g)
		d.custom[g.Name] = g.Custom
		d.groups[g.Name] = newDocument(func() message {
			group := apiGroup(g)
			group.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
			return &group
		})
	}
	everywhere := metav1.ServerAddressByClientCIDR{ClientCIDR: "0.0.0.0/0", ServerAddress: o.ServerAddress}
	d.api = newDocument(func() message { return apiVersions(legacy, everywhere) })
	if o.ServiceAddress != "" {
		inside := metav1.ServerAddressByClientCIDR{ClientCIDR: o.ServiceRange.String(), ServerAddress: o.ServiceAddress}
		d.service = newDocument(func() message { return apiVersions(legacy, everywhere, inside) })
	}
	d.apis = newDocument(func() message {
		list := &metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: []metav1.APIGroup{}}
		for _, g := range named {
			list.Groups = append(list.Groups, apiGroup(g))
		}
		return list
	})
	d.aggregatedAPI = newDocument(func() message { return aggregate(legacy) })
	d.aggregatedAPIs = newDocument(func() message { return aggregate(named) })
	return d
}

// apiVersions, and lists of the legacy group's resources, have no apiVersion.
func apiVersions(legacy []Group, addresses ...metav1.ServerAddressByClientCIDR) *metav1.APIVersions {
	out := &metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{}, ServerAddressByClientCIDRs: addresses}
	for _, g := range legacy {
		for _, v := range g.Versions {
			out.Versions = append(out.Versions, v.Name)
		}
	}
	return out
}

func apiGroup(g Group) metav1.APIGroup {
	out := metav1.APIGroup{Name: g.Name}
	for _, v := range g.Versions {
		out.Versions = append(out.Versions, metav1.GroupVersionForDiscovery{GroupVersion: g.Name + "/" + v.Name, Version: v.Name})
	}
	out.PreferredVersion = out.Versions[0]
	return out
}

func resourceList(group string, v Version) *metav1.APIResourceList {
	out := &metav1.APIResourceList{
		TypeMeta:     metav1.TypeMeta{Kind: "APIResourceList"},
		GroupVersion: schema.GroupVersion{Group: group, Version: v.Name}.String(),
		APIResources: []metav1.APIResource{},
	}
	if group != "" {
		out.APIVersion = "v1"
	}
	for _, r := range v.Resources {
		out.APIResources = append(out.APIResources, metav1.APIResource{
			Name: r.Name, SingularName: r.Singular, Kind: r.Kind, Namespaced: r.Namespaced, Verbs: r.Verbs,
			ShortNames: r.ShortNames, Categories: r.Categories, StorageVersionHash: r.StorageVersionHash,
		})
		for _, s := range r.Subresources {
			out.APIResources = append(out.APIResources, metav1.APIResource{
				Name: r.Name + "/" + s.Name, Kind: s.Kind, Group: s.Group, Version: s.Version, Namespaced: r.Namespaced, Verbs: s.Verbs,
			})
		}
	}
	return out
}

// aggregate makes the aggregated form. An empty group or version in a response
// kind means that of the document.
func aggregate(groups []Group) *apidiscovery.APIGroupDiscoveryList {
	out := &apidiscovery.APIGroupDiscoveryList{
		TypeMeta: metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: "apidiscovery.k8s.io/v2"},
		Items:    []apidiscovery.APIGroupDiscovery{},
	}
	for _, g := range groups {
		item := apidiscovery.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: g.Name}}
		for _, v := range g.Versions {
			version := apidiscovery.APIVersionDiscovery{Version: v.Name, Freshness: apidiscovery.DiscoveryFreshnessCurrent}
			if v.Stale {
				version.Freshness = apidiscovery.DiscoveryFreshnessStale
			}
			for _, r := range v.Resources {
				version.Resources = append(version.Resources, aggregateResource(r))
			}
			item.Versions = append(item.Versions, version)
		}
		out.Items = append(out.Items, item)
	}
	return out
}

func aggregateResource(r Resource) apidiscovery.APIResourceDiscovery {
	out := apidiscovery.APIResourceDiscovery{
		Resource: r.Name, SingularResource: r.Singular, Scope: apidiscovery.ScopeCluster, ResponseKind: &metav1.GroupVersionKind{Kind: r.Kind},
		Verbs: r.Verbs, ShortNames: r.ShortNames, Categories: r.Categories,
	}
	if r.Namespaced {
		out.Scope = apidiscovery.ScopeNamespace
	}
	for _, s := range r.Subresources {
		out.Subresources = append(out.Subresources, apidiscovery.APISubresourceDiscovery{
			Subresource: s.Name, Verbs: s.Verbs, ResponseKind: &metav1.GroupVersionKind{Group: s.Group, Version: s.Version, Kind: s.Kind},
		})
	}
	return out
}

// message is an API type in its JSON and protobuf forms.
type message interface {
	GetObjectKind() schema.ObjectKind
	Marshal() ([]byte, error)
}

// document is made, and encoded in each format, when it is first asked for.
type document struct {
	json func() ([]byte, error)
	// encoded are the formats, by media type; each keeps what it made.
	encoded map[string]func() (encoding, error)
	etag    func() string
}

func newDocument(build func() message) *document {
	d := &document{}
	made := sync.OnceValue(build)
	d.json = sync.OnceValues(func() ([]byte, error) { return encodeJSON(made()) })
	d.etag = sync.OnceValue(func() string { return etag(d.json) })
	d.encoded = map[string]func() (encoding, error){
		typeJSON:     sync.OnceValues(func() (encoding, error) { return newEncoding(d.json()) }),
		typeYAML:     sync.OnceValues(func() (encoding, error) { return newEncoding(encodeYAML(d.json())) }),
		typeProtobuf: sync.OnceValues(func() (encoding, error) { return newEncoding(encodeProtobuf(made())) }),
	}
	return d
}
