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
	errs := validateTopologyAnnotations(s)
	if len(spec.Ports) == 0 && !headless(s) && spec.Type != corev1.ServiceTypeExternalName {
		errs = append(errs, field.Required(path.Child("ports"), ""))
	}
	errs = append(errs, validateServiceType(s, path)...)
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
	errs = append(errs, validatePortUse(s, path.Child("ports"))...)
	errs = append(errs, validateBalancer(s, ranges, path)...)
	errs = append(errs, validateTraffic(s, path)...)
	return errs
}

// validateTopologyAnnotations wants that the two names of one setting do not contradict each other.
func validateTopologyAnnotations(s *corev1.Service) field.ErrorList {
	mode, newer := s.Annotations[corev1.AnnotationTopologyMode]
	hints, older := s.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]
	if !newer || !older || mode == hints {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata", "annotations").Key(corev1.AnnotationTopologyMode), mode,
		fmt.Sprintf("must match annotations[%s] when both are specified", corev1.DeprecatedAnnotationTopologyAwareHints))}
}

// validateServiceType checks what is peculiar to a type.
func validateServiceType(s *corev1.Service, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch s.Spec.Type {
	case corev1.ServiceTypeLoadBalancer:
		for i, p := range s.Spec.Ports {
			if p.Port == kubeletPort {
				errs = append(errs, field.Invalid(path.Child("ports").Index(i), p.Port, fmt.Sprintf("may not expose port %v externally since it is used by kubelet", kubeletPort)))
			}
		}
		errs = append(errs, notHeadless(s, path)...)
	case corev1.ServiceTypeNodePort:
		errs = append(errs, notHeadless(s, path)...)
	case corev1.ServiceTypeExternalName:
		errs = append(errs, forbidFamilies(s, path)...)
		errs = append(errs, check.RequiredForm(strings.TrimSuffix(s.Spec.ExternalName, "."), path.Child("externalName"), check.Subdomain)...)
	}
	return errs
}

func notHeadless(s *corev1.Service, path *field.Path) field.ErrorList {
	if !headless(s) {
		return nil
	}
	return field.ErrorList{field.Invalid(path.Child("clusterIPs").Index(0), corev1.ClusterIPNone, "may not be set to 'None' for "+string(s.Spec.Type)+" services")}
}

func validateServicePorts(s *corev1.Service, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := map[string]bool{}
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
	}
	return errs
}

// validatePortUse wants each port, of the Service and of nodes, once, and none of nodes where it leads to nothing.
func validatePortUse(s *corev1.Service, path *field.Path) field.ErrorList {
	var useless, nodes, own field.ErrorList
	ports, nodePorts := map[corev1.ServicePort]bool{}, map[corev1.ServicePort]bool{}
	for i, p := range s.Spec.Ports {
		at := path.Index(i)
		if s.Spec.Type == corev1.ServiceTypeClusterIP && p.NodePort != 0 {
			useless = append(useless, field.Forbidden(at.Child("nodePort"), "may not be used when `type` is 'ClusterIP'"))
		}
		if key := (corev1.ServicePort{Protocol: p.Protocol, NodePort: p.NodePort}); p.NodePort != 0 {
			if nodePorts[key] {
				nodes = append(nodes, field.Duplicate(at.Child("nodePort"), p.NodePort))
			}
			nodePorts[key] = true
		}
		key := corev1.ServicePort{Protocol: p.Protocol, Port: p.Port}
		if ports[key] {
			own = append(own, field.Duplicate(at, check.GoNames(key)))
		}
		ports[key] = true
	}
	return check.Join(useless, nodes, own)
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
	case len(spec.LoadBalancerSourceRanges) > 0:
		if !balancer {
			errs = append(errs, field.Forbidden(ranges, only))
		}
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

// keepAddresses: the first address and family of a Service are for ever; a second one can come, and go with the policy. Headless
// Services have no addresses, so they may have any family.
func keepAddresses(s, old *corev1.Service, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	policy := ptr.Deref(s.Spec.IPFamilyPolicy, "")
	if !headless(s) || !headless(old) {
		errs = append(errs, keepFirst(s.Spec.ClusterIPs, old.Spec.ClusterIPs, policy, "clusterIP", path.Child("clusterIPs"))...)
	}
	if !headless(s) && !headless(old) {
		errs = append(errs, keepFirst(s.Spec.IPFamilies, old.Spec.IPFamilies, policy, "ipFamily", path.Child("ipFamilies"))...)
	}
	return errs
}

// keepFirst wants that of a pair, which a Service calls name, the first stays, and the second until the Service says that it wants one only.
func keepFirst[T comparable](now, was []T, policy corev1.IPFamilyPolicy, name string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	say := func(i int, text string) { errs = append(errs, field.Invalid(path.Index(i), now, text)) }
	switch {
	case len(now) == len(was):
		for i := range was {
			if now[i] != was[i] {
				say(i, textOnce)
			}
		}
	case len(now) == 0:
		say(0, fmt.Sprintf("primary %s can not be unset", name))
	default:
		if len(was) > 0 && now[0] != was[0] {
			say(0, textOnce)
		}
		if len(now) < len(was) && len(now) == 1 && policy != corev1.IPFamilyPolicySingleStack {
			say(0, fmt.Sprintf("`ipFamilyPolicy` must be set to 'SingleStack' when releasing the secondary %s", name))
		}
	}
	return errs
}

func validateServiceStatus(s, old *corev1.Service) field.ErrorList {
	var before []string
	for _, in := range old.Status.LoadBalancer.Ingress {
		before = append(before, in.IP)
	}
	ingress := field.NewPath("status", "loadBalancer", "ingress")
	if s.Spec.Type != corev1.ServiceTypeLoadBalancer && len(s.Status.LoadBalancer.Ingress) > 0 {
		return field.ErrorList{field.Forbidden(ingress, "may only be used when `spec.type` is \"LoadBalancer\"")}
	}
	return ValidateBalancerStatus(s.Status.LoadBalancer.Ingress, before, ingress)
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
	say := func(wrong bool, text string) {
		if wrong {
			warnings = append(warnings, text)
		}
	}
	_, older := s.Annotations[corev1.DeprecatedAnnotationTopologyAwareHints]
	say(older, fmt.Sprintf("annotation %s is deprecated, please use %s instead", corev1.DeprecatedAnnotationTopologyAwareHints, corev1.AnnotationTopologyMode))
	if headless(s) {
		say(s.Spec.LoadBalancerIP != "", "spec.loadBalancerIP is ignored for headless services")
		say(len(s.Spec.ExternalIPs) > 0, "spec.externalIPs is ignored for headless services")
		say(s.Spec.SessionAffinity != corev1.ServiceAffinityNone, "spec.SessionAffinity is ignored for headless services")
	}
	external := s.Spec.Type == corev1.ServiceTypeExternalName
	say(external && len(s.Spec.ExternalIPs) > 0, `spec.externalIPs is ignored when spec.type is "ExternalName"`)
	say(!external && s.Spec.ExternalName != "", `spec.externalName is ignored when spec.type is not "ExternalName"`)
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
