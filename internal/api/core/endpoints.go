package core

import (
	"net"
	"slices"
	"strconv"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxEndpointsShown is how many addresses a table shows.
const maxEndpointsShown = 3

// Endpoints is the older form of EndpointSlice.
func endpoints() *kind.Definition {
	return &kind.Definition{
		Version: "v1", Kind: "Endpoints", Plural: "endpoints", ShortNames: []string{"ep"},
		Scope: kind.Namespaced, Verbs: kind.Standard, CreateOnPut: true,
		Stored:         kind.Stored{Prefix: "services/endpoints"},
		New:            kind.Of[corev1.Endpoints](),
		Default:        kind.Default(defaultEndpoints),
		Validate:       kind.Validate(func(e *corev1.Endpoints) field.ErrorList { return validateEndpoints(e, nil) }),
		ValidateUpdate: kind.ValidateUpdate(validateEndpoints),
		Warnings:       kind.Warn(warnEndpoints),
		Columns: kind.Columns{
			{Name: "Endpoints", Description: corev1.Endpoints{}.SwaggerDoc()["subsets"], Of: kind.Cell(endpointsCell)},
			kind.Age,
		},
		ColumnFields: []string{"subsets.addresses.ip", "subsets.ports.port"},
	}
}

func defaultEndpoints(e *corev1.Endpoints) {
	for i := range e.Subsets {
		for j := range e.Subsets[i].Ports {
			if p := &e.Subsets[i].Ports[j]; p.Protocol == "" {
				p.Protocol = corev1.ProtocolTCP
			}
		}
	}
}

func validateEndpoints(e, old *corev1.Endpoints) field.ErrorList {
	var before []string
	if old != nil {
		for _, s := range old.Subsets {
			for _, a := range slices.Concat(s.Addresses, s.NotReadyAddresses) {
				before = append(before, a.IP)
			}
		}
	}
	errs := check.Form(e.Annotations[corev1.EndpointsLastChangeTriggerTime], field.NewPath("metadata", "annotations").Key(corev1.EndpointsLastChangeTriggerTime), timestampForm)
	for i, s := range e.Subsets {
		at := field.NewPath("subsets").Index(i)
		if len(s.Addresses) == 0 && len(s.NotReadyAddresses) == 0 {
			errs = append(errs, field.Required(at, "must specify `addresses` or `notReadyAddresses`"))
		}
		for j := range s.Addresses {
			errs = append(errs, validateEndpointAddress(&s.Addresses[j], before, at.Child("addresses").Index(j))...)
		}
		for j := range s.NotReadyAddresses {
			errs = append(errs, validateEndpointAddress(&s.NotReadyAddresses[j], before, at.Child("notReadyAddresses").Index(j))...)
		}
		for j := range s.Ports {
			errs = append(errs, validateEndpointPort(&s.Ports[j], len(s.Ports) > 1, at.Child("ports").Index(j))...)
		}
	}
	return errs
}

func validateEndpointAddress(a *corev1.EndpointAddress, before []string, at *field.Path) field.ErrorList {
	errs := check.IP(a.IP, at.Child("ip"), before...)
	errs = append(errs, check.Form(a.Hostname, at.Child("hostname"), check.Label)...)
	if a.NodeName != nil {
		errs = append(errs, check.Each(at.Child("nodeName"), *a.NodeName, check.SubdomainName(*a.NodeName, false))...)
	}
	return append(errs, check.NotSpecialIP(a.IP, at.Child("ip"))...)
}

func validateEndpointPort(p *corev1.EndpointPort, named bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if named {
		errs = append(errs, check.Required(p.Name, at.Child("name"))...)
	}
	errs = append(errs, check.Form(p.Name, at.Child("name"), check.Label)...)
	errs = append(errs, check.Port(p.Port, at.Child("port"))...)
	errs = append(errs, check.RequiredOneOf(p.Protocol, at.Child("protocol"), protocols...)...)
	if p.AppProtocol != nil {
		errs = append(errs, check.Each(at.Child("appProtocol"), *p.AppProtocol, check.QualifiedName(*p.AppProtocol))...)
	}
	return errs
}

// warnEndpoints tells of addresses that are written in a form that not all programs read alike.
func warnEndpoints(e, _ *corev1.Endpoints) []string {
	var warnings []string
	for i, s := range e.Subsets {
		at := field.NewPath("subsets").Index(i)
		for j, a := range s.Addresses {
			warnings = append(warnings, validation.GetWarningsForIP(at.Child("addresses").Index(j).Child("ip"), a.IP)...)
		}
		for j, a := range s.NotReadyAddresses {
			warnings = append(warnings, validation.GetWarningsForIP(at.Child("notReadyAddresses").Index(j).Child("ip"), a.IP)...)
		}
	}
	return warnings
}

func endpointsCell(e *corev1.Endpoints) any {
	var shown []string
	for _, s := range e.Subsets {
		if len(s.Ports) == 0 {
			for _, a := range s.Addresses {
				shown = append(shown, a.IP)
			}
		}
		for _, p := range s.Ports {
			for _, a := range s.Addresses {
				shown = append(shown, net.JoinHostPort(a.IP, strconv.Itoa(int(p.Port))))
			}
		}
	}
	return show.Some(shown, maxEndpointsShown, show.None)
}

// Where API servers keep addresses of theirs alive: those that are the endpoints of service default/kubernetes, and those at which they ask
// each other.
const (
	MasterLeases     = "masterleases"
	PeerServerLeases = "peerserverleases"
)

// ServerLease is what lies at such a place: Endpoints without a name. It is private: no path serves it.
func ServerLease(place string) *kind.Definition {
	return &kind.Definition{
		Version: "v1", Kind: "Endpoints", Plural: place, Scope: kind.Cluster, Private: true,
		New: kind.Of[corev1.Endpoints](),
	}
}
