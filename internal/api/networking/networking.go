// Package networking holds the kinds of networking.k8s.io: Ingress, IngressClass and NetworkPolicy, a file each, and
// those that the cluster's own addresses need, IPAddress and ServiceCIDR.
package networking

import (
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const group = networkingv1.GroupName

// Definitions lists the kinds of the group; ipAddress is made by [IPAddress], because Services use it too.
func Definitions(ipAddress *kind.Definition) []*kind.Definition {
	return []*kind.Definition{ingressClass(), ingress(), ipAddress, networkPolicy(), ServiceCIDR()}
}

// IPAddress is a cluster IP that is taken, and by what.
func IPAddress() *kind.Definition {
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "IPAddress", Plural: "ipaddresses", ShortNames: []string{"ip"},
		Scope: kind.Cluster, Verbs: kind.Standard,
		New:            kind.Of[networkingv1.IPAddress](),
		CheckName:      ipName,
		Validate:       kind.Validate(validateIPAddress),
		ValidateUpdate: kind.ValidateUpdate(validateIPAddressUpdate),
		Columns: kind.Columns{
			{Name: "ParentRef", Description: networkingv1.IPAddressSpec{}.SwaggerDoc()["parentRef"], Of: kind.Cell(parentCell)},
			{Of: kind.Age.Of}, // Parity: rows have an age that no column is declared for
		},
		ColumnFields: []string{"spec.parentRef"},
	}
}

// ipName wants an address in its canonical form; a generated name cannot be one.
func ipName(name string, prefix bool) []string {
	var messages []string
	for _, e := range validation.IsValidIP(field.NewPath("metadata", "name"), name) {
		messages = append(messages, e.Detail)
	}
	return messages
}

func validateIPAddress(a *networkingv1.IPAddress) field.ErrorList {
	at := field.NewPath("spec", "parentRef")
	ref := a.Spec.ParentRef
	if ref == nil {
		return field.ErrorList{field.Required(at, "")}
	}
	return check.Join(
		check.Form(ref.Group, at.Child("group"), check.Subdomain),
		check.Form(ref.Resource, at.Child("resource"), path.IsValidPathSegmentName),
		check.Form(ref.Name, at.Child("name"), path.IsValidPathSegmentName),
		check.Form(ref.Namespace, at.Child("namespace"), path.IsValidPathSegmentName),
		check.Required(ref.Resource, at.Child("resource")),
		check.Required(ref.Name, at.Child("name")),
	)
}

func validateIPAddressUpdate(a, old *networkingv1.IPAddress) field.ErrorList {
	return check.Unchanged(a.Spec.ParentRef, old.Spec.ParentRef, field.NewPath("spec", "parentRef"))
}

func parentCell(a *networkingv1.IPAddress) any {
	ref := a.Spec.ParentRef
	if ref == nil {
		return show.None
	}
	shown := ref.Resource
	if ref.Group != "" {
		shown += "." + ref.Group
	}
	if ref.Namespace != "" {
		shown += "/" + ref.Namespace
	}
	return strings.ToLower(shown + "/" + ref.Name)
}

// ServiceCIDR is a range of addresses that Services get their cluster IPs from.
func ServiceCIDR() *kind.Definition {
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "ServiceCIDR", Plural: "servicecidrs",
		Scope: kind.Cluster, Verbs: kind.Standard,
		New:            kind.Of[networkingv1.ServiceCIDR](),
		PrepareCreate:  kind.Prepare(func(c *networkingv1.ServiceCIDR) { c.Status = networkingv1.ServiceCIDRStatus{} }),
		PrepareUpdate:  kind.PrepareUpdate(func(c, old *networkingv1.ServiceCIDR) { c.Status = old.Status }),
		Validate:       kind.Validate(validateServiceCIDR),
		ValidateUpdate: kind.ValidateUpdate(validateServiceCIDRUpdate),
		Columns: kind.Columns{
			{Name: "CIDRs", Description: networkingv1.ServiceCIDRSpec{}.SwaggerDoc()["cidrs"], Of: kind.Cell(func(c *networkingv1.ServiceCIDR) any {
				return strings.Join(c.Spec.CIDRs, ",")
			})},
			kind.Age,
		},
		ColumnFields: []string{"spec.cidrs"},
		Subresources: map[string]*kind.Subresource{"status": kind.StatusOnly(func(c, old *networkingv1.ServiceCIDR) { c.Spec = old.Spec }, nil)},
	}
}

func validateServiceCIDR(c *networkingv1.ServiceCIDR) field.ErrorList {
	cidrs := field.NewPath("spec", "cidrs")
	var errs field.ErrorList
	switch n := len(c.Spec.CIDRs); {
	case n == 0:
		return field.ErrorList{field.Required(cidrs, "at least one CIDR required")}
	case n > 2:
		return field.ErrorList{field.Invalid(cidrs, c.Spec.CIDRs, "may only hold up to 2 values")}
	case n == 2:
		if v4, v6 := check.Families(c.Spec.CIDRs); v4 == 2 || v6 == 2 {
			errs = append(errs, field.Invalid(cidrs, c.Spec.CIDRs, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"))
		}
	}
	for i, cidr := range c.Spec.CIDRs {
		at := cidrs.Index(i)
		errs = append(errs, validation.IsValidCIDR(at, cidr)...)
	}
	return errs
}

// validateServiceCIDRUpdate lets a single-stack range get a second one, and nothing else.
func validateServiceCIDRUpdate(c, old *networkingv1.ServiceCIDR) field.ErrorList {
	cidrs, now, was := field.NewPath("spec", "cidrs"), c.Spec.CIDRs, old.Spec.CIDRs
	grown := len(was) == 1 && len(now) == 2
	if len(now) != len(was) && !grown {
		return check.Immutable(now, was, cidrs)
	}
	var errs field.ErrorList
	for i := range was {
		errs = append(errs, check.Immutable(now[i], was[i], cidrs.Index(i))...)
	}
	if grown {
		errs = append(errs, validateServiceCIDR(c)...)
	}
	return errs
}
