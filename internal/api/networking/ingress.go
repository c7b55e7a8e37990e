package networking

import (
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"
)

const (
	// classAnnotation named the class of an Ingress before there was a field.
	classAnnotation = "kubernetes.io/ingress.class"
	maxShownHosts   = 3
)

// Ingress leads HTTP requests from outside to services.
func ingress() *kind.Definition {
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "Ingress", Plural: "ingresses", ShortNames: []string{"ing"},
		Scope: kind.Namespaced, Verbs: kind.Standard,
		Stored:         kind.Stored{Prefix: "ingress"},
		New:            kind.Of[networkingv1.Ingress](),
		PrepareCreate:  kind.Prepare(func(i *networkingv1.Ingress) { i.Status = networkingv1.IngressStatus{} }),
		PrepareUpdate:  kind.PrepareUpdate(func(i, old *networkingv1.Ingress) { i.Status = old.Status }),
		Generation:     kind.Changed(func(i, old *networkingv1.Ingress) bool { return !object.Equal(&i.Spec, &old.Spec) }),
		Validate:       kind.Validate(validateNewIngress),
		ValidateUpdate: kind.ValidateUpdate(func(i, old *networkingv1.Ingress) field.ErrorList { return validateIngress(i, old) }),
		Warnings:       kind.Warn(warnIngress),
		Columns: kind.Columns{
			{Name: "Class", Description: "The name of the IngressClass resource that should be used for additional configuration", Of: kind.Cell(func(i *networkingv1.Ingress) any {
				return ptr.Deref(i.Spec.IngressClassName, show.None)
			})},
			{Name: "Hosts", Description: "Hosts that incoming requests are matched against before the ingress rule", Of: kind.Cell(func(i *networkingv1.Ingress) any { return hosts(i) })},
			{Name: "Address", Description: "Address is a list containing ingress points for the load-balancer", Of: kind.Cell(func(i *networkingv1.Ingress) any { return addresses(i) })},
			{Name: "Ports", Description: "Ports of TLS configurations that open", Of: kind.Cell(func(i *networkingv1.Ingress) any {
				if len(i.Spec.TLS) > 0 {
					return "80, 443"
				}
				return "80"
			})},
			kind.Age,
		},
		ColumnFields: []string{
			"spec.ingressClassName", "spec.rules.host", "spec.tls.secretName",
			"status.loadBalancer.ingress.ip", "status.loadBalancer.ingress.hostname",
		},
		Subresources: map[string]*kind.Subresource{
			"status": kind.Status(func(i, old *networkingv1.Ingress) { i.Spec = old.Spec }, validateIngressStatus),
		},
	}
}

func hosts(i *networkingv1.Ingress) string {
	var names []string
	for _, r := range i.Spec.Rules {
		if r.Host != "" {
			names = append(names, r.Host)
		}
	}
	return show.Some(names, maxShownHosts, "*")
}

func addresses(i *networkingv1.Ingress) string {
	var names []string
	for _, a := range i.Status.LoadBalancer.Ingress {
		if name := show.Or(a.IP, a.Hostname); name != "" {
			names = append(names, name)
		}
	}
	return strings.Join(show.Distinct(names), ",")
}

func warnIngress(i, _ *networkingv1.Ingress) []string {
	if _, old := i.Annotations[classAnnotation]; old && i.Spec.IngressClassName == nil {
		return []string{`annotation "` + classAnnotation + `" is deprecated, please use 'spec.ingressClassName' instead`}
	}
	return nil
}

func validateNewIngress(i *networkingv1.Ingress) field.ErrorList {
	errs := validateIngress(i, nil)
	if class, given := i.Annotations[classAnnotation]; given && i.Spec.IngressClassName != nil && *i.Spec.IngressClassName != class {
		errs = append(errs, field.Invalid(field.NewPath("annotations").Child(classAnnotation), class, "must match `ingressClassName` when both are specified"))
	}
	return errs
}

// validateIngress checks an Ingress; old is the one that it replaces, if any.
func validateIngress(i, old *networkingv1.Ingress) field.ErrorList {
	s, spec := &i.Spec, field.NewPath("spec")
	var errs field.ErrorList
	if len(s.Rules) == 0 && s.DefaultBackend == nil {
		errs = append(errs, field.Invalid(spec, s.Rules, "either `defaultBackend` or `rules` must be specified"))
	}
	if s.DefaultBackend != nil {
		errs = append(errs, checkBackend(s.DefaultBackend, spec.Child("defaultBackend"))...)
	}
	for k := range s.Rules {
		errs = append(errs, checkIngressRule(&s.Rules[k], old != nil && hasWildcard(old, s.Rules[k].Host), spec.Child("rules").Index(k))...)
	}
	for k, t := range s.TLS {
		at := spec.Child("tls").Index(k)
		for n, host := range t.Hosts {
			errs = append(errs, checkHost(host, at.Child("hosts").Index(n))...)
		}
		var was []networkingv1.IngressTLS
		if old != nil {
			was = old.Spec.TLS
		}
		known := slices.ContainsFunc(was, func(w networkingv1.IngressTLS) bool { return w.SecretName == t.SecretName })
		if !known {
			errs = append(errs, check.Form(t.SecretName, at.Child("secretName"), check.Subdomain)...)
		}
	}
	if s.IngressClassName != nil {
		errs = append(errs, check.Each(spec.Child("ingressClassName"), *s.IngressClassName, check.Subdomain(*s.IngressClassName))...)
	}
	return errs
}

// hasWildcard finds a rule for a host with a wildcard, whose form was once not checked.
func hasWildcard(i *networkingv1.Ingress, host string) bool {
	return strings.Contains(host, "*") && slices.ContainsFunc(i.Spec.Rules, func(r networkingv1.IngressRule) bool { return r.Host == host })
}

// checkIngressRule checks a rule; of one whose host is known, the host is not checked.
func checkIngressRule(r *networkingv1.IngressRule, known bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if r.Host != "" && !known {
		errs = append(errs, notIP(r.Host, at.Child("host"))...)
		errs = append(errs, checkHost(r.Host, at.Child("host"))...)
	}
	if r.HTTP == nil {
		return errs
	}
	paths := at.Child("http", "paths")
	if len(r.HTTP.Paths) == 0 {
		errs = append(errs, field.Required(paths, ""))
	}
	for i := range r.HTTP.Paths {
		errs = append(errs, checkHTTPPath(&r.HTTP.Paths[i], paths.Index(i))...)
	}
	return errs
}

func notIP(host string, at *field.Path) field.ErrorList {
	if netutils.ParseIPSloppy(host) == nil {
		return nil
	}
	return field.ErrorList{field.Invalid(at, host, "must be a DNS name, not an IP address")}
}

func checkHost(host string, at *field.Path) field.ErrorList {
	if strings.Contains(host, "*") {
		return check.Each(at, host, validation.IsWildcardDNS1123Subdomain(host))
	}
	return check.Each(at, host, check.Subdomain(host))
}

// What paths that are compared by elements may not hold, because it would make two paths the same.
var (
	badSequences = []string{"//", "/./", "/../", "%2f", "%2F"}
	badEndings   = []string{"/..", "/."}
)

func checkHTTPPath(p *networkingv1.HTTPIngressPath, at *field.Path) field.ErrorList {
	if p.PathType == nil {
		return field.ErrorList{field.Required(at.Child("pathType"), "pathType must be specified")}
	}
	return append(checkPath(p, at), checkBackend(&p.Backend, at.Child("backend"))...)
}

func checkPath(p *networkingv1.HTTPIngressPath, parent *field.Path) field.ErrorList {
	at := parent.Child("path")
	var errs field.ErrorList
	switch *p.PathType {
	case networkingv1.PathTypeExact, networkingv1.PathTypePrefix:
		if !strings.HasPrefix(p.Path, "/") {
			errs = append(errs, field.Invalid(at, p.Path, "must be an absolute path"))
		}
		for _, s := range badSequences {
			if strings.Contains(p.Path, s) {
				errs = append(errs, field.Invalid(at, p.Path, "must not contain '"+s+"'"))
			}
		}
		for _, s := range badEndings {
			if strings.HasSuffix(p.Path, s) {
				errs = append(errs, field.Invalid(at, p.Path, "cannot end with '"+s+"'"))
			}
		}
	case networkingv1.PathTypeImplementationSpecific:
		if p.Path != "" && !strings.HasPrefix(p.Path, "/") {
			errs = append(errs, field.Invalid(at, p.Path, "must be an absolute path"))
		}
	default:
		errs = check.OneOf(*p.PathType, parent.Child("pathType"), networkingv1.PathTypeExact, networkingv1.PathTypeImplementationSpecific, networkingv1.PathTypePrefix)
	}
	return errs
}

func checkBackend(b *networkingv1.IngressBackend, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch {
	case b.Resource != nil && b.Service != nil:
		return field.ErrorList{field.Invalid(at, "", "cannot set both resource and service backends")}
	case b.Resource != nil:
		return checkReference(b.Resource.APIGroup, b.Resource.Kind, b.Resource.Name, true, at.Child("resource"))
	case b.Service == nil:
		return field.ErrorList{field.Invalid(at, "", "resource or service backend is required")}
	}
	service := at.Child("service")
	errs = append(errs, check.RequiredForm(b.Service.Name, service.Child("name"), check.Label)...)
	switch port := b.Service.Port; {
	case port.Name != "" && port.Number != 0:
		errs = append(errs, field.Invalid(at, "", "cannot set both port name & port number"))
	case port.Name != "":
		errs = append(errs, check.Each(service.Child("port", "name"), port.Name, validation.IsValidPortName(port.Name))...)
	case port.Number != 0:
		errs = append(errs, check.Port(port.Number, service.Child("port", "number"))...)
	default:
		errs = append(errs, field.Required(at, "port name or number is required"))
	}
	return errs
}

func validateIngressStatus(i, old *networkingv1.Ingress) field.ErrorList {
	at := field.NewPath("status", "loadBalancer", "ingress")
	var before []string
	for _, a := range old.Status.LoadBalancer.Ingress {
		before = append(before, a.IP)
	}
	var errs field.ErrorList
	for k, a := range i.Status.LoadBalancer.Ingress {
		if a.IP != "" {
			errs = append(errs, check.IP(a.IP, at.Index(k).Child("ip"), before...)...)
		}
		if a.Hostname == "" {
			continue
		}
		errs = append(errs, check.Each(at.Index(k).Child("hostname"), a.Hostname, check.Subdomain(a.Hostname))...)
		errs = append(errs, notIP(a.Hostname, at.Index(k).Child("hostname"))...)
	}
	return errs
}
