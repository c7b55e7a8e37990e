package networking

import (
	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"
)

// maxPolicyTypes: there are two.
const maxPolicyTypes = 2

// NetworkPolicy says who may talk to a set of pods, and whom they may talk to.
func networkPolicy() *kind.Definition {
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "NetworkPolicy", Plural: "networkpolicies", ShortNames: []string{"netpol"},
		Scope: kind.Namespaced, Verbs: kind.Standard,
		New:            kind.Of[networkingv1.NetworkPolicy](),
		Default:        kind.Default(defaultNetworkPolicy),
		Generation:     kind.Changed(func(p, old *networkingv1.NetworkPolicy) bool { return !object.Equal(&p.Spec, &old.Spec) }),
		Validate:       kind.Validate(func(p *networkingv1.NetworkPolicy) field.ErrorList { return validateNetworkPolicy(p, nil) }),
		ValidateUpdate: kind.ValidateUpdate(validateNetworkPolicy),
		Warnings:       kind.Warn(warnNetworkPolicy),
		Columns: kind.Columns{
			{Name: "Pod-Selector", Description: networkingv1.NetworkPolicySpec{}.SwaggerDoc()["podSelector"], Of: kind.Cell(func(p *networkingv1.NetworkPolicy) any {
				return metav1.FormatLabelSelector(&p.Spec.PodSelector)
			})},
			kind.Age,
		},
		ColumnFields: []string{"spec.podSelector"},
	}
}

func defaultNetworkPolicy(p *networkingv1.NetworkPolicy) {
	s := &p.Spec
	ports := func(list []networkingv1.NetworkPolicyPort) {
		for i := range list {
			if list[i].Protocol == nil {
				list[i].Protocol = ptr.To(corev1.ProtocolTCP)
			}
		}
	}
	for i := range s.Ingress {
		ports(s.Ingress[i].Ports)
	}
	for i := range s.Egress {
		ports(s.Egress[i].Ports)
	}
	if len(s.PolicyTypes) == 0 {
		s.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(s.Egress) > 0 {
			s.PolicyTypes = append(s.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
}

// eachBlock calls f with every address block of a policy and its place.
func eachBlock(p *networkingv1.NetworkPolicy, f func(b *networkingv1.IPBlock, at *field.Path)) {
	peers := func(list []networkingv1.NetworkPolicyPeer, at *field.Path) {
		for i := range list {
			if b := list[i].IPBlock; b != nil {
				f(b, at.Index(i).Child("ipBlock"))
			}
		}
	}
	spec := field.NewPath("spec")
	for i := range p.Spec.Ingress {
		peers(p.Spec.Ingress[i].From, spec.Child("ingress").Index(i).Child("from"))
	}
	for i := range p.Spec.Egress {
		peers(p.Spec.Egress[i].To, spec.Child("egress").Index(i).Child("to"))
	}
}

func warnNetworkPolicy(p, _ *networkingv1.NetworkPolicy) []string {
	var texts []string
	eachBlock(p, func(b *networkingv1.IPBlock, at *field.Path) {
		texts = append(texts, validation.GetWarningsForCIDR(at.Child("cidr"), b.CIDR)...)
		for i, except := range b.Except {
			texts = append(texts, validation.GetWarningsForCIDR(at.Child("except").Index(i), except)...)
		}
	})
	return texts
}

// validateNetworkPolicy checks a policy; what old has already passes where the rules became stricter.
func validateNetworkPolicy(p, old *networkingv1.NetworkPolicy) field.ErrorList {
	spec := field.NewPath("spec")
	c := policyChecker{}
	if old != nil {
		c.before = &old.Spec.PodSelector
		eachBlock(old, func(b *networkingv1.IPBlock, _ *field.Path) { c.known = append(append(c.known, b.CIDR), b.Except...) })
	}
	errs := check.Selector(&p.Spec.PodSelector, c.before, spec.Child("podSelector"))
	for i, r := range p.Spec.Ingress {
		at := spec.Child("ingress").Index(i)
		errs = append(errs, c.ports(r.Ports, at.Child("ports"))...)
		errs = append(errs, c.peers(r.From, at.Child("from"))...)
	}
	for i, r := range p.Spec.Egress {
		at := spec.Child("egress").Index(i)
		errs = append(errs, c.ports(r.Ports, at.Child("ports"))...)
		errs = append(errs, c.peers(r.To, at.Child("to"))...)
	}
	errs = append(errs, checkPolicyTypes(p.Spec.PolicyTypes, spec.Child("policyTypes"))...)
	eachBlock(p, func(b *networkingv1.IPBlock, at *field.Path) {
		errs = append(errs, check.Required(b.CIDR, at.Child("cidr"))...)
	})
	return errs
}

func checkPolicyTypes(types []networkingv1.PolicyType, at *field.Path) field.ErrorList {
	if len(types) > maxPolicyTypes {
		return field.ErrorList{field.Invalid(at, types, "may not specify more than two policyTypes")}
	}
	var errs field.ErrorList
	for i, t := range types {
		errs = append(errs, check.OneOf(t, at.Index(i), networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress)...)
	}
	return errs
}

type policyChecker struct {
	before *metav1.LabelSelector
	known  []string // address blocks of the old policy
}

func (c *policyChecker) ports(ports []networkingv1.NetworkPolicyPort, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, p := range ports {
		at := at.Index(i)
		if p.Protocol != nil {
			errs = append(errs, check.OneOf(*p.Protocol, at.Child("protocol"), corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)...)
		}
		end := at.Child("endPort")
		switch {
		case p.Port == nil:
			if p.EndPort != nil {
				errs = append(errs, field.Invalid(end, *p.EndPort, "may not be specified when `port` is not specified"))
			}
		case p.Port.Type == intstr.String:
			if p.EndPort != nil {
				errs = append(errs, field.Invalid(end, *p.EndPort, "may not be specified when `port` is non-numeric"))
			}
			errs = append(errs, check.Each(at.Child("port"), p.Port.StrVal, validation.IsValidPortName(p.Port.StrVal))...)
		default:
			errs = append(errs, check.Port(p.Port.IntVal, at.Child("port"))...)
			if p.EndPort == nil {
				continue
			}
			if *p.EndPort < p.Port.IntVal {
				errs = append(errs, field.Invalid(end, *p.EndPort, "must be greater than or equal to `port`"))
			}
			errs = append(errs, check.Port(*p.EndPort, end)...)
		}
	}
	return errs
}

func (c *policyChecker) peers(peers []networkingv1.NetworkPolicyPeer, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, p := range peers {
		at := at.Index(i)
		n := 0
		if p.PodSelector != nil {
			n++
			errs = append(errs, check.Selector(p.PodSelector, c.before, at.Child("podSelector"))...)
		}
		if p.NamespaceSelector != nil {
			n++
			errs = append(errs, check.Selector(p.NamespaceSelector, c.before, at.Child("namespaceSelector"))...)
		}
		if p.IPBlock != nil {
			n++
			errs = append(errs, c.block(p.IPBlock, at.Child("ipBlock"))...)
		}
		switch {
		case n == 0:
			errs = append(errs, field.Required(at, "must specify a peer"))
		case n > 1 && p.IPBlock != nil:
			errs = append(errs, field.Forbidden(at, "may not specify both ipBlock and another peer"))
		}
	}
	return errs
}

func (c *policyChecker) block(b *networkingv1.IPBlock, at *field.Path) field.ErrorList {
	if b.CIDR == "" {
		return nil
	}
	errs := check.CIDR(b.CIDR, at.Child("cidr"), c.known...)
	_, whole, err := netutils.ParseCIDRSloppy(b.CIDR)
	if err != nil {
		return errs
	}
	wholeBits, _ := whole.Mask.Size()
	for i, except := range b.Except {
		at := at.Child("except").Index(i)
		errs = append(errs, check.CIDR(except, at, c.known...)...)
		_, part, err := netutils.ParseCIDRSloppy(except)
		if err != nil {
			continue
		}
		if bits, _ := part.Mask.Size(); !whole.Contains(part.IP) || bits <= wholeBits {
			errs = append(errs, field.Invalid(at, except, "must be a strict subset of `cidr`"))
		}
	}
	return errs
}
