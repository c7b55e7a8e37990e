package core

import (
	"fmt"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/podspec"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// kubeletPort cannot be a load balancer's: its nodes are already reached there.
const kubeletPort = 10250

func validateService(s, old *corev1.Service, families clusterFamilies) field.ErrorList {
	spec, path := &s.Spec, field.NewPath("spec")
	var errs field.ErrorList
	if len(spec.Ports) == 0 && !headless(s) && spec.Type != corev1.ServiceTypeExternalName {
		errs = append(errs, field.Required(path.Child("ports"), ""))
	}
	if spec.Type == corev1.ServiceTypeExternalName {
		errs = append(errs, check.RequiredForm(strings.TrimSuffix(spec.ExternalName, "."), path.Child("externalName"), check.Subdomain)...)
	}
	errs = append(errs, validateServicePorts(s, path.Child("ports"))...)
	errs = append(errs, check.Labels(spec.Selector, path.Child("selector"))...)
	errs = append(errs, check.RequiredOneOf(spec.SessionAffinity, path.Child("sessionAffinity"), corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone)...)
	errs = append(errs, validateAffinityConfig(spec, path.Child("sessionAffinityConfig"))...)
	var clusterIPs, externalIPs, ranges []string
	if old != nil {
		clusterIPs, externalIPs, ranges = old.Spec.ClusterIPs, old.Spec.ExternalIPs, old.Spec.LoadBalancerSourceRanges
	}
	errs = append(errs, families.validate(s, clusterIPs, path)...)
	for i, ip := range spec.ExternalIPs {
		at := path.Child("externalIPs").Index(i)
		if bad := check.IP(ip, at, externalIPs...); bad != nil {
			errs = append(errs, bad...)
		} else {
			errs = append(errs, check.NotSpecialIP(ip, at)...)
		}
	}
	errs = append(errs, check.RequiredOneOf(spec.Type, path.Child("type"), corev1.ServiceTypeClusterIP, corev1.ServiceTypeExternalName,
		corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort)...)
	errs = append(errs, validateBalancer(s, ranges, path)...)
	errs = append(errs, validateTraffic(s, path)...)
	return errs
}

func validateServicePorts(s *corev1.Service, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := map[string]bool{}
	type numbered struct {
		protocol corev1.Protocol
		port     int32
	}
	ports, nodePorts := map[numbered]bool{}, map[numbered]bool{}
	var late field.ErrorList
	for i, p := range s.Spec.Ports {
		at := path.Index(i)
		switch {
		case p.Name == "" && len(s.Spec.Ports) > 1:
			errs = append(errs, field.Required(at.Child("name"), ""))
		case p.Name != "":
			errs = append(errs, check.Each(at.Child("name"), p.Name, check.Label(p.Name))...)
			if names[p.Name] {
				errs = append(errs, field.Duplicate(at.Child("name"), p.Name))
			}
			names[p.Name] = true
		}
		errs = append(errs, check.Port(p.Port, at.Child("port"))...)
		errs = append(errs, check.RequiredOneOf(p.Protocol, at.Child("protocol"), protocols...)...)
		errs = append(errs, podspec.PortOrName(p.TargetPort, at.Child("targetPort"))...)
		if p.AppProtocol != nil {
			errs = append(errs, check.Each(at.Child("appProtocol"), *p.AppProtocol, check.QualifiedName(*p.AppProtocol))...)
		}
		if s.Spec.Type == corev1.ServiceTypeLoadBalancer && p.Port == kubeletPort {
			errs = append(errs, field.Invalid(at, p.Port, fmt.Sprintf("may not expose port %v externally since it is used by kubelet", kubeletPort)))
		}
		if s.Spec.Type == corev1.ServiceTypeClusterIP && p.NodePort != 0 {
			late = append(late, field.Forbidden(at.Child("nodePort"), "may not be used when `type` is 'ClusterIP'"))
		}
		if n := (numbered{p.Protocol, p.NodePort}); p.NodePort != 0 {
			if nodePorts[n] {
				late = append(late, field.Duplicate(at.Child("nodePort"), p.NodePort))
			}
			nodePorts[n] = true
		}
		if n := (numbered{p.Protocol, p.Port}); ports[n] {
			late = append(late, field.Duplicate(at, check.GoNames(corev1.ServicePort{Protocol: p.Protocol, Port: p.Port})))
		} else {
			ports[n] = true
		}
	}
	return append(errs, late...)
}

func validateAffinityConfig(spec *corev1.ServiceSpec, path *field.Path) field.ErrorList {
	c := spec.SessionAffinityConfig
	switch spec.SessionAffinity {
	case corev1.ServiceAffinityNone:
		if c != nil {
			return field.ErrorList{field.Forbidden(path, fmt.Sprintf("must not be set when session affinity is %s", corev1.ServiceAffinityNone))}
		}
	case corev1.ServiceAffinityClientIP:
		if c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
			return field.ErrorList{field.Required(path, fmt.Sprintf("when session affinity is %s", corev1.ServiceAffinityClientIP))}
		}
		if n := *c.ClientIP.TimeoutSeconds; n <= 0 || n > maxAffinitySeconds {
			return field.ErrorList{field.Invalid(path.Child("clientIP", "timeoutSeconds"), n, fmt.Sprintf("must be greater than 0 and less than %d", maxAffinitySeconds))}
		}
	}
	return nil
}

// validateBalancer checks the fields that only load balancers have. Parity: one path begins with a capital letter.
func validateBalancer(s *corev1.Service, oldRanges []string, path *field.Path) field.ErrorList {
	spec := &s.Spec
	var errs field.ErrorList
	balancer := spec.Type == corev1.ServiceTypeLoadBalancer
	const only = "may only be used when `type` is 'LoadBalancer'"
	ranges := path.Child("LoadBalancerSourceRanges")
	annotation, annotated := s.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey]
	switch {
	case len(spec.LoadBalancerSourceRanges) > 0 && !balancer:
		errs = append(errs, field.Forbidden(path.Child("loadBalancerSourceRanges"), only))
	case len(spec.LoadBalancerSourceRanges) > 0:
		for i, cidr := range spec.LoadBalancerSourceRanges {
			errs = append(errs, check.CIDR(strings.TrimSpace(cidr), ranges.Index(i), oldRanges...)...)
		}
	case annotated:
		at := field.NewPath("metadata", "annotations").Key(corev1.AnnotationLoadBalancerSourceRangesKey)
		if !balancer {
			errs = append(errs, field.Forbidden(at, only))
		}
		for _, cidr := range strings.Split(strings.TrimSpace(annotation), ",") {
			if annotation != "" && check.CIDR(strings.TrimSpace(cidr), at) != nil {
				errs = append(errs, field.Invalid(at, annotation, "must be a comma separated list of CIDRs e.g. 192.168.0.0/16,10.0.0.0/8"))
				break
			}
		}
	}
	allocate := path.Child("allocateLoadBalancerNodePorts")
	if spec.AllocateLoadBalancerNodePorts != nil && !balancer {
		errs = append(errs, field.Forbidden(allocate, only))
	}
	if spec.AllocateLoadBalancerNodePorts == nil && balancer {
		errs = append(errs, field.Required(allocate, ""))
	}
	if spec.LoadBalancerClass != nil {
		at := path.Child("loadBalancerClass")
		if !balancer {
			errs = append(errs, field.Forbidden(at, only))
		} else {
			errs = append(errs, check.Each(at, *spec.LoadBalancerClass, check.QualifiedName(*spec.LoadBalancerClass))...)
		}
	}
	return errs
}

func validateTraffic(s *corev1.Service, path *field.Path) field.ErrorList {
	spec := &s.Spec
	var errs field.ErrorList
	external, health := path.Child("externalTrafficPolicy"), path.Child("healthCheckNodePort")
	switch {
	case wantsExternalPolicy(s):
		errs = append(errs, check.RequiredOneOf(spec.ExternalTrafficPolicy, external, corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)...)
	case spec.ExternalTrafficPolicy != "":
		errs = append(errs, field.Invalid(external, spec.ExternalTrafficPolicy, "may only be set for externally-accessible services"))
	}
	if !wantsHealthPort(s) && spec.HealthCheckNodePort != 0 {
		errs = append(errs, field.Invalid(health, spec.HealthCheckNodePort, "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"))
	} else if spec.HealthCheckNodePort < 0 {
		errs = append(errs, check.Port(spec.HealthCheckNodePort, health)...)
	}
	internal := path.Child("internalTrafficPolicy")
	switch {
	case wantsClusterIP(s) && spec.InternalTrafficPolicy == nil:
		errs = append(errs, field.Required(internal, ""))
	case spec.InternalTrafficPolicy != nil:
		errs = append(errs, check.OneOf(*spec.InternalTrafficPolicy, internal, corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal)...)
	}
	if d := spec.TrafficDistribution; d != nil {
		errs = append(errs, check.OneOf(*d, path.Child("trafficDistribution"), corev1.ServiceTrafficDistributionPreferClose,
			corev1.ServiceTrafficDistributionPreferSameZone, corev1.ServiceTrafficDistributionPreferSameNode)...)
	}
	return errs
}

func validateServiceUpdate(s, old *corev1.Service, families clusterFamilies) field.ErrorList {
	path := field.NewPath("spec")
	var errs field.ErrorList
	if wantsClusterIP(s) && wantsClusterIP(old) {
		errs = append(errs, keepAddresses(s, old, path)...)
	}
	if wantsHealthPort(s) && wantsHealthPort(old) {
		errs = append(errs, check.Immutable(s.Spec.HealthCheckNodePort, old.Spec.HealthCheckNodePort, path.Child("healthCheckNodePort"))...)
	}
	balancer := corev1.ServiceTypeLoadBalancer
	if s.Spec.Type == balancer && old.Spec.Type == balancer && !ptr.Equal(s.Spec.LoadBalancerClass, old.Spec.LoadBalancerClass) {
		errs = append(errs, field.Invalid(path.Child("loadBalancerClass"), s.Spec.LoadBalancerClass, textOnce))
	}
	return append(errs, validateService(s, old, families)...)
}

const textOnce = "may not change once set"

// keepAddresses: the first address and family of a Service are for ever; a second one can come and go with the policy.
func keepAddresses(s, old *corev1.Service, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	ips, families := path.Child("clusterIPs"), path.Child("ipFamilies")
	now, was := s.Spec.ClusterIPs, old.Spec.ClusterIPs
	dual := ptr.Deref(s.Spec.IPFamilyPolicy, "") != corev1.IPFamilyPolicySingleStack
	if len(was) > 0 && (len(now) == 0 || now[0] != was[0]) {
		errs = append(errs, field.Invalid(ips.Index(0), now, textOnce))
	}
	if len(was) > 1 && dual {
		switch {
		case len(now) < 2:
			errs = append(errs, field.Invalid(ips.Index(1), now, "may only be removed when `ipFamilyPolicy` is changed to SingleStack"))
		case now[1] != was[1]:
			errs = append(errs, field.Invalid(ips.Index(1), now, textOnce))
		}
	}
	if f, b := s.Spec.IPFamilies, old.Spec.IPFamilies; len(b) > 0 && !headlessAny(s) {
		if len(f) == 0 || f[0] != b[0] {
			errs = append(errs, field.Invalid(families.Index(0), f, textOnce))
		}
		if len(b) > 1 && dual {
			switch {
			case len(f) < 2:
				errs = append(errs, field.Invalid(families.Index(1), f, "may only be removed when `ipFamilyPolicy` is changed to SingleStack"))
			case f[1] != b[1]:
				errs = append(errs, field.Invalid(families.Index(1), f, textOnce))
			}
		}
	}
	return errs
}

// headlessAny: the families of a headless Service without selector bind nobody.
func headlessAny(s *corev1.Service) bool { return headless(s) && len(s.Spec.Selector) == 0 }

func validateServiceStatus(s, old *corev1.Service) field.ErrorList {
	var before []string
	for _, in := range old.Status.LoadBalancer.Ingress {
		before = append(before, in.IP)
	}
	ingress := field.NewPath("status", "loadBalancer", "ingress")
	var errs field.ErrorList
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer && len(s.Status.LoadBalancer.Ingress) > 0 {
		errs = append(errs, field.Forbidden(ingress, "may only be used when `spec.type` is \"LoadBalancer\""))
	}
	return append(errs, ValidateBalancerStatus(s.Status.LoadBalancer.Ingress, before, ingress)...)
}

// ValidateBalancerStatus checks where a load balancer can be reached; before are addresses that pass because they were there already.
func ValidateBalancerStatus(ingress []corev1.LoadBalancerIngress, before []string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, in := range ingress {
		at := path.Index(i)
		if in.IP != "" {
			errs = append(errs, check.IP(in.IP, at.Child("ip"), before...)...)
			if in.IPMode == nil {
				errs = append(errs, field.Required(at.Child("ipMode"), "must be specified when `ip` is set"))
			}
		} else if in.IPMode != nil {
			errs = append(errs, field.Forbidden(at.Child("ipMode"), "may not be specified when `ip` is not set"))
		}
		if in.IPMode != nil {
			errs = append(errs, check.OneOf(*in.IPMode, at.Child("ipMode"), corev1.LoadBalancerIPModeProxy, corev1.LoadBalancerIPModeVIP)...)
		}
		if in.Hostname != "" {
			errs = append(errs, check.Each(at.Child("hostname"), in.Hostname, check.Subdomain(in.Hostname))...)
			if check.IP(in.Hostname, at) == nil {
				errs = append(errs, field.Invalid(at.Child("hostname"), in.Hostname, "must be a DNS name, not an IP address"))
			}
		}
	}
	return errs
}

func warnService(s, old *corev1.Service) []string {
	var warnings []string
	path := field.NewPath("spec")
	if s.Spec.SessionAffinity != corev1.ServiceAffinityNone && headless(s) {
		warnings = append(warnings, "spec.SessionAffinity is ignored for headless services")
	}
	if headless(s) && s.Spec.LoadBalancerIP != "" {
		warnings = append(warnings, "spec.loadBalancerIP is ignored for headless services")
	}
	if headless(s) && len(s.Spec.ExternalIPs) > 0 {
		warnings = append(warnings, "spec.externalIPs is ignored when spec.clusterIP is \"None\"")
	}
	if s.Spec.Type != corev1.ServiceTypeExternalName && s.Spec.ExternalName != "" {
		warnings = append(warnings, "spec.externalName is ignored when spec.type is not \"ExternalName\"")
	}
	if len(s.Spec.ExternalIPs) > 0 && (old == nil || !slices.Equal(s.Spec.ExternalIPs, old.Spec.ExternalIPs)) {
		warnings = append(warnings, "spec.externalIPs is deprecated and may no longer be implemented in some clusters")
	}
	ips := func(list, before []string, name string) {
		for i, ip := range list {
			if ip != corev1.ClusterIPNone && !slices.Contains(before, ip) {
				warnings = append(warnings, validation.GetWarningsForIP(path.Child(name).Index(i), ip)...)
			}
		}
	}
	was := &corev1.ServiceSpec{}
	if old != nil {
		was = &old.Spec
	}
	ips(s.Spec.ClusterIPs, was.ClusterIPs, "clusterIPs")
	ips(s.Spec.ExternalIPs, was.ExternalIPs, "externalIPs")
	if ip := s.Spec.LoadBalancerIP; ip != "" && ip != was.LoadBalancerIP && check.IP(ip, path) == nil {
		warnings = append(warnings, validation.GetWarningsForIP(path.Child("loadBalancerIP"), ip)...)
	}
	for i, cidr := range s.Spec.LoadBalancerSourceRanges {
		if !slices.Contains(was.LoadBalancerSourceRanges, cidr) {
			warnings = append(warnings, validation.GetWarningsForCIDR(path.Child("loadBalancerSourceRanges").Index(i), cidr)...)
		}
	}
	return warnings
}
