// Package discovery holds the kinds of discovery.k8s.io: EndpointSlice.
package discovery

import (
	"strconv"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// Bounds of what one slice can hold.
const (
	maxEndpoints   = 1000
	maxPorts       = 20000
	maxAddresses   = 100
	maxHints       = 8
	maxTopology    = 16
	maxShown       = 3 // ports and endpoints in a table
	addressTypeKey = "addressType"
)

// Definitions lists the kinds of the group.
func Definitions() []*kind.Definition {
	return []*kind.Definition{endpointSlice()}
}

// EndpointSlice is some of the endpoints of a Service.
func endpointSlice() *kind.Definition {
	doc := discoveryv1.EndpointSlice{}.SwaggerDoc()
	return &kind.Definition{
		Group: discoveryv1.GroupName, Version: "v1", Kind: "EndpointSlice", Plural: "endpointslices",
		Scope: kind.Namespaced, Verbs: kind.Standard,
		New:            kind.Of[discoveryv1.EndpointSlice](),
		Default:        kind.Default(defaultSlice),
		PrepareCreate:  kind.Prepare(func(s *discoveryv1.EndpointSlice) { dropTopology(s, nil) }),
		PrepareUpdate:  kind.PrepareUpdate(dropTopology),
		Generation:     kind.Changed(sliceChanged),
		Validate:       kind.Validate(validateNewSlice),
		ValidateUpdate: kind.ValidateUpdate(validateSliceUpdate),
		Warnings:       kind.Warn(warnSlice),
		Columns: kind.Columns{
			{Name: "AddressType", Description: doc["addressType"], Of: kind.Cell(func(s *discoveryv1.EndpointSlice) any { return string(s.AddressType) })},
			{Name: "Ports", Description: doc["ports"], Of: kind.Cell(func(s *discoveryv1.EndpointSlice) any { return show.Some(portsOf(s), maxShown, show.Unset) })},
			{Name: "Endpoints", Description: doc["endpoints"], Of: kind.Cell(func(s *discoveryv1.EndpointSlice) any { return show.Some(addressesOf(s), maxShown, show.Unset) })},
			kind.Age,
		},
		ColumnFields: []string{"addressType", "ports.name", "ports.port", "endpoints.addresses"},
	}
}

func defaultSlice(s *discoveryv1.EndpointSlice) {
	for i := range s.Ports {
		p := &s.Ports[i]
		if p.Name == nil {
			p.Name = ptr.To("")
		}
		if p.Protocol == nil {
			p.Protocol = ptr.To(corev1.ProtocolTCP)
		}
	}
}

// dropTopology takes out the topology of v1beta1, which v1 shows and does not write. A node that was known by its
// host name only gets into the field for it.
func dropTopology(s, old *discoveryv1.EndpointSlice) {
	nodes := sets.New[string]()
	if old != nil {
		if equality.Semantic.DeepEqual(s.Endpoints, old.Endpoints) {
			return
		}
		for _, e := range old.Endpoints {
			if node, named := e.DeprecatedTopology[corev1.LabelHostname]; named {
				nodes.Insert(node)
			}
		}
	}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		if node := e.DeprecatedTopology[corev1.LabelHostname]; e.NodeName == nil && nodes.Has(node) && len(check.Subdomain(node)) == 0 {
			e.NodeName = &node
		}
		e.DeprecatedTopology = nil
	}
}

func warnSlice(s, _ *discoveryv1.EndpointSlice) []string {
	if s.AddressType != discoveryv1.AddressTypeIPv4 && s.AddressType != discoveryv1.AddressTypeIPv6 {
		return nil
	}
	var texts []string
	for i, e := range s.Endpoints {
		for k, a := range e.Addresses {
			texts = append(texts, validation.GetWarningsForIP(field.NewPath("endpoints").Index(i).Child("addresses").Index(k), a)...)
		}
	}
	return texts
}

// sliceChanged compares everything but the metadata, and the labels, which say whose slice it is.
func sliceChanged(s, old *discoveryv1.EndpointSlice) bool {
	a, b := *s, *old
	a.ObjectMeta, b.ObjectMeta = *s.ObjectMeta.DeepCopy(), *s.ObjectMeta.DeepCopy()
	return !equality.Semantic.DeepEqual(&a, &b) || !equality.Semantic.DeepEqual(s.Labels, old.Labels)
}

func validateSliceUpdate(s, old *discoveryv1.EndpointSlice) field.ErrorList {
	return check.Join(
		validateSlice(s, old),
		check.Unchanged(s.AddressType, old.AddressType, field.NewPath(addressTypeKey)),
		countAddresses(s.Endpoints),
	)
}

func validateNewSlice(s *discoveryv1.EndpointSlice) field.ErrorList {
	return check.Join(
		validateSlice(s, nil),
		check.RequiredOneOf(s.AddressType, field.NewPath(addressTypeKey),
			discoveryv1.AddressTypeFQDN, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6),
		countAddresses(s.Endpoints),
	)
}

func countAddresses(endpoints []discoveryv1.Endpoint) field.ErrorList {
	var errs field.ErrorList
	for i, e := range endpoints {
		switch at := field.NewPath("endpoints").Index(i).Child("addresses"); {
		case len(e.Addresses) == 0:
			errs = append(errs, field.Required(at, ""))
		case len(e.Addresses) > maxAddresses:
			errs = append(errs, field.TooMany(at, len(e.Addresses), maxAddresses))
		}
	}
	return errs
}

// validateSlice checks everything but the type, which is given once, and how many addresses endpoints have: both are reported last.
func validateSlice(s, old *discoveryv1.EndpointSlice) field.ErrorList {
	var errs field.ErrorList
	endpoints, ports := field.NewPath("endpoints"), field.NewPath("ports")
	if len(s.Endpoints) > maxEndpoints {
		errs = append(errs, field.TooMany(endpoints, len(s.Endpoints), maxEndpoints))
	} else {
		before := oldAddresses(old)
		for i := range s.Endpoints {
			errs = append(errs, validateEndpoint(&s.Endpoints[i], s.AddressType, before, endpoints.Index(i))...)
		}
	}
	return append(errs, validatePorts(s.Ports, ports)...)
}

func oldAddresses(old *discoveryv1.EndpointSlice) []string {
	if old == nil {
		return nil
	}
	var all []string
	for _, e := range old.Endpoints {
		all = append(all, e.Addresses...)
	}
	return all
}

func validateEndpoint(e *discoveryv1.Endpoint, kind discoveryv1.AddressType, before []string, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	addresses := at.Child("addresses")
	for i, a := range e.Addresses {
		errs = append(errs, validateAddress(a, kind, before, addresses.Index(i))...)
	}
	if e.NodeName != nil {
		errs = append(errs, check.Each(at.Child("nodeName"), *e.NodeName, check.SubdomainName(*e.NodeName, false))...)
	}
	topology := at.Child("deprecatedTopology")
	if len(e.DeprecatedTopology) > maxTopology {
		errs = append(errs, field.TooMany(topology, len(e.DeprecatedTopology), maxTopology))
	}
	errs = append(errs, check.Labels(e.DeprecatedTopology, topology)...)
	if _, found := e.DeprecatedTopology[corev1.LabelHostname]; found {
		errs = append(errs, field.Invalid(topology.Key(corev1.LabelHostname), corev1.LabelHostname, "cannot be set"))
	}
	if e.Hostname != nil {
		errs = append(errs, check.Each(at.Child("hostname"), *e.Hostname, validation.IsDNS1123Label(*e.Hostname))...)
	}
	if e.Hints != nil {
		errs = append(errs, validateHints(e.Hints, at.Child("hints"))...)
	}
	return errs
}

func validateAddress(a string, kind discoveryv1.AddressType, before []string, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch kind {
	case discoveryv1.AddressTypeIPv4:
		if errs = check.IP(a, at, before...); errs == nil {
			errs = append(check.Family(a, corev1.IPv4Protocol, at), check.NotSpecialIP(a, at)...)
		}
	case discoveryv1.AddressTypeIPv6:
		if errs = check.IP(a, at, before...); errs == nil {
			errs = append(check.Family(a, corev1.IPv6Protocol, at), check.NotSpecialIP(a, at)...)
		}
	case discoveryv1.AddressTypeFQDN:
		errs = validation.IsFullyQualifiedDomainName(at, a)
	}
	return errs
}

func validateHints(h *discoveryv1.EndpointHints, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	zones, nodes := at.Child("forZones"), at.Child("forNodes")
	if len(h.ForZones) > maxHints {
		return field.ErrorList{field.TooMany(zones, len(h.ForZones), maxHints)}
	}
	errs = append(errs, check.Once(h.ForZones, func(z discoveryv1.ForZone) string { return z.Name },
		func(i int) *field.Path { return zones.Index(i).Child("name") })...)
	for i, z := range h.ForZones {
		errs = append(errs, check.Each(zones.Index(i).Child("name"), z.Name, validation.IsValidLabelValue(z.Name))...)
	}
	if len(h.ForNodes) > maxHints {
		return append(errs, field.TooMany(nodes, len(h.ForNodes), maxHints))
	}
	errs = append(errs, check.Once(h.ForNodes, func(n discoveryv1.ForNode) string { return n.Name },
		func(i int) *field.Path { return nodes.Index(i).Child("name") })...)
	for i, n := range h.ForNodes {
		errs = append(errs, check.Each(nodes.Index(i).Child("name"), n.Name, check.SubdomainName(n.Name, false))...)
	}
	return errs
}

// validatePorts does not look at the numbers. Parity: a port of 70000 is accepted.
func validatePorts(ports []discoveryv1.EndpointPort, at *field.Path) field.ErrorList {
	if len(ports) > maxPorts {
		return field.ErrorList{field.TooMany(at, len(ports), maxPorts)}
	}
	var errs field.ErrorList
	names := map[string]bool{}
	for i, p := range ports {
		here := at.Index(i)
		name := ptr.Deref(p.Name, "")
		if name != "" {
			errs = append(errs, check.Each(here.Child("name"), name, check.Label(name))...)
		}
		if names[name] {
			errs = append(errs, field.Duplicate(here.Child("name"), name))
		}
		names[name] = true
		errs = append(errs, check.RequiredOneOf(ptr.Deref(p.Protocol, ""), here.Child("protocol"),
			corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
		if p.AppProtocol != nil {
			errs = append(errs, check.Each(here.Child("appProtocol"), *p.AppProtocol, check.QualifiedName(*p.AppProtocol))...)
		}
	}
	return errs
}

// portsOf shows a port by its number, else its name, else a star.
func portsOf(s *discoveryv1.EndpointSlice) []string {
	var shown []string
	for _, p := range s.Ports {
		switch {
		case p.Port != nil:
			shown = append(shown, strconv.Itoa(int(*p.Port)))
		case ptr.Deref(p.Name, "") != "":
			shown = append(shown, *p.Name)
		default:
			shown = append(shown, "*")
		}
	}
	return shown
}

func addressesOf(s *discoveryv1.EndpointSlice) []string {
	var shown []string
	for _, e := range s.Endpoints {
		shown = append(shown, e.Addresses...)
	}
	return shown
}
