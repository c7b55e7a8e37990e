package core

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
	"k8s.io/utils/ptr"
)

const (
	affinitySeconds    = corev1.DefaultClientIPServiceAffinitySeconds
	maxAffinitySeconds = 86400
)

// Service is a stable address for a set of pods. Its cluster IPs and node ports are chosen when it is stored
// (service_reserve.go); what can be said without looking at other objects is here and in service_validate.go.
func service(o Options) *kind.Definition {
	families := familiesOf(o.ServiceCIDRs)
	doc := corev1.ServiceSpec{}.SwaggerDoc()
	d := &kind.Definition{
		Version: "v1", Kind: "Service", Plural: "services", ShortNames: []string{"svc"}, Categories: []string{"all"},
		Scope: kind.Namespaced, Verbs: kind.Standard, CreateOnPut: true,
		Stored:    kind.Stored{Prefix: "services/specs"},
		New:       kind.Of[corev1.Service](),
		CheckName: check.LabelName,
		Default:   kind.Default(defaultService),
		PrepareCreate: kind.Prepare(func(s *corev1.Service) {
			s.Status = corev1.ServiceStatus{}
			normalizeClusterIPs(s, nil)
			families.fill(s, nil)
		}),
		PrepareUpdate: kind.PrepareUpdate(func(s, old *corev1.Service) {
			s.Status = old.Status
			normalizeClusterIPs(s, old)
			dropDependent(s, old)
			keepAllocated(s, old)
			families.fill(s, old)
		}),
		Validate:       kind.Validate(func(s *corev1.Service) field.ErrorList { return validateService(s, nil, families) }),
		ValidateUpdate: kind.ValidateUpdate(func(s, old *corev1.Service) field.ErrorList { return validateServiceUpdate(s, old, families) }),
		Warnings:       kind.Warn(warnService),
		ReturnsDeleted: true,
		Fields:         []kind.Field{{Label: "spec.clusterIP"}, {Label: "spec.type"}},
		FieldsUnknown:  labelNotSupported,
		Columns: kind.Columns{
			{Name: "Type", Description: doc["type"], Of: kind.Cell(func(s *corev1.Service) any { return string(s.Spec.Type) })},
			{Name: "Cluster-IP", Description: doc["clusterIP"], Of: kind.Cell(func(s *corev1.Service) any {
				if len(s.Spec.ClusterIPs) == 0 {
					return show.None
				}
				return s.Spec.ClusterIPs[0]
			})},
			{Name: "External-IP", Description: doc["externalIPs"], Of: kind.Cell(serviceExternal)},
			{Name: "Port(s)", Description: doc["ports"], Of: kind.Cell(servicePorts)},
			kind.Age,
			{Name: "Selector", Wide: true, Description: doc["selector"], Of: kind.Cell(func(s *corev1.Service) any { return show.Labels(s.Spec.Selector) })},
		},
		ColumnFields: []string{
			"spec.type", "spec.clusterIPs", "spec.externalIPs", "spec.externalName", "spec.ports.port", "spec.ports.nodePort",
			"spec.ports.protocol", "spec.selector",
			"status.loadBalancer.ingress.ip", "status.loadBalancer.ingress.hostname",
		},
		Subresources: map[string]*kind.Subresource{
			"status": kind.Status(func(s, old *corev1.Service) { s.Spec = old.Spec }, validateServiceStatus),
			"proxy":  connect("ServiceProxyOptions", proxyVerbs),
		},
	}
	a := &allocator{options: o}
	d.Reserve = func(ctx context.Context, r kind.Reader, obj, old object.Object, dryRun bool) ([]kind.Companion, error) {
		s, _ := obj.(*corev1.Service)
		before, _ := old.(*corev1.Service)
		return a.reserve(ctx, r, s, before)
	}
	return d
}

func defaultService(s *corev1.Service) {
	spec := &s.Spec
	if spec.SessionAffinity == "" {
		spec.SessionAffinity = corev1.ServiceAffinityNone
	}
	switch spec.SessionAffinity {
	case corev1.ServiceAffinityNone:
		spec.SessionAffinityConfig = nil
	case corev1.ServiceAffinityClientIP:
		if c := spec.SessionAffinityConfig; c == nil || c.ClientIP == nil || c.ClientIP.TimeoutSeconds == nil {
			spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: ptr.To[int32](affinitySeconds)}}
		}
	}
	if spec.Type == "" {
		spec.Type = corev1.ServiceTypeClusterIP
	}
	for i := range spec.Ports {
		p := &spec.Ports[i]
		if p.Protocol == "" {
			p.Protocol = corev1.ProtocolTCP
		}
		if p.TargetPort == intstr.FromInt32(0) || p.TargetPort == intstr.FromString("") {
			p.TargetPort = intstr.FromInt32(p.Port)
		}
	}
	if wantsExternalPolicy(s) && spec.ExternalTrafficPolicy == "" {
		spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
	if wantsClusterIP(s) && spec.InternalTrafficPolicy == nil {
		spec.InternalTrafficPolicy = ptr.To(corev1.ServiceInternalTrafficPolicyCluster)
	}
	if spec.Type == corev1.ServiceTypeLoadBalancer {
		if spec.AllocateLoadBalancerNodePorts == nil {
			spec.AllocateLoadBalancerNodePorts = ptr.To(true)
		}
		for i := range s.Status.LoadBalancer.Ingress {
			if in := &s.Status.LoadBalancer.Ingress[i]; in.IP != "" && in.IPMode == nil {
				in.IPMode = ptr.To(corev1.LoadBalancerIPModeVIP)
			}
		}
	}
}

// What a Service needs follows from its type.

func wantsClusterIP(s *corev1.Service) bool {
	switch s.Spec.Type {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
		return true
	}
	return false
}

// mayHaveNodePorts: a LoadBalancer may have them although it does not want new ones.
func mayHaveNodePorts(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeNodePort || s.Spec.Type == corev1.ServiceTypeLoadBalancer
}

func wantsNodePorts(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeNodePort ||
		s.Spec.Type == corev1.ServiceTypeLoadBalancer && ptr.Deref(s.Spec.AllocateLoadBalancerNodePorts, true)
}

func wantsHealthPort(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

func wantsExternalPolicy(s *corev1.Service) bool {
	return mayHaveNodePorts(s) || s.Spec.Type == corev1.ServiceTypeClusterIP && len(s.Spec.ExternalIPs) > 0
}

func headless(s *corev1.Service) bool {
	return slices.Equal(s.Spec.ClusterIPs, []string{corev1.ClusterIPNone}) ||
		len(s.Spec.ClusterIPs) == 0 && s.Spec.ClusterIP == corev1.ClusterIPNone
}

// normalizeClusterIPs keeps clusterIP and clusterIPs together for clients that know only one of them: what a client
// changed of the two decides.
func normalizeClusterIPs(s, old *corev1.Service) {
	spec := &s.Spec
	if old == nil {
		if spec.ClusterIP != "" && len(spec.ClusterIPs) == 0 {
			spec.ClusterIPs = []string{spec.ClusterIP}
		}
		return
	}
	same := slices.Equal(spec.ClusterIPs, old.Spec.ClusterIPs)
	switch {
	case spec.ClusterIP == "" && old.Spec.ClusterIP != "" && same: // cleared through the older field
		spec.ClusterIPs = nil
	case spec.ClusterIP != old.Spec.ClusterIP && spec.ClusterIP != "" && (same || len(spec.ClusterIPs) == 0):
		spec.ClusterIPs = []string{spec.ClusterIP}
	case spec.ClusterIP == old.Spec.ClusterIP && len(spec.ClusterIPs) == 0 && len(old.Spec.ClusterIPs) > 0: // cleared through the newer field
		spec.ClusterIP = ""
	}
}

// dropDependent removes what the old type had and the new one cannot have, unless the client changed it: then
// it is the client's, and validation will say so.
func dropDependent(s, old *corev1.Service) {
	spec, was := &s.Spec, &old.Spec
	if wantsClusterIP(old) && !wantsClusterIP(s) {
		if spec.ClusterIP == was.ClusterIP && slices.Equal(spec.ClusterIPs, was.ClusterIPs) {
			spec.ClusterIP, spec.ClusterIPs = "", nil
		}
		if slices.Equal(spec.IPFamilies, was.IPFamilies) {
			spec.IPFamilies = nil
		}
		dropSame(&spec.IPFamilyPolicy, was.IPFamilyPolicy)
		dropSame(&spec.InternalTrafficPolicy, was.InternalTrafficPolicy)
	}
	if mayHaveNodePorts(old) && !mayHaveNodePorts(s) && slices.Equal(nodePortsOf(s), nodePortsOf(old)) {
		for i := range spec.Ports {
			spec.Ports[i].NodePort = 0
		}
	}
	if wantsHealthPort(old) && !wantsHealthPort(s) && spec.HealthCheckNodePort == was.HealthCheckNodePort {
		spec.HealthCheckNodePort = 0
	}
	if was.Type == corev1.ServiceTypeLoadBalancer && spec.Type != corev1.ServiceTypeLoadBalancer {
		dropSame(&spec.AllocateLoadBalancerNodePorts, was.AllocateLoadBalancerNodePorts)
		dropSame(&spec.LoadBalancerClass, was.LoadBalancerClass)
	}
	if wantsExternalPolicy(old) && !wantsExternalPolicy(s) && spec.ExternalTrafficPolicy == was.ExternalTrafficPolicy {
		spec.ExternalTrafficPolicy = ""
	}
	if was.Type == corev1.ServiceTypeExternalName && spec.Type != corev1.ServiceTypeExternalName && spec.ExternalName == was.ExternalName {
		spec.ExternalName = ""
	}
}

func dropSame[T comparable](p **T, old *T) {
	if *p != nil && old != nil && **p == *old {
		*p = nil
	}
}

func nodePortsOf(s *corev1.Service) []int32 {
	var ports []int32
	for _, p := range s.Spec.Ports {
		if p.NodePort != 0 {
			ports = append(ports, p.NodePort)
		}
	}
	slices.Sort(ports)
	return ports
}

// keepAllocated carries over what was allocated before and the client left out.
func keepAllocated(s, old *corev1.Service) {
	if wantsClusterIP(s) && wantsClusterIP(old) && s.Spec.ClusterIP == "" && len(s.Spec.ClusterIPs) == 0 {
		s.Spec.ClusterIP, s.Spec.ClusterIPs = old.Spec.ClusterIP, old.Spec.ClusterIPs
	}
	if wantsNodePorts(s) && mayHaveNodePorts(old) {
		type port struct {
			protocol corev1.Protocol
			number   int32
		}
		before, used := map[port]int32{}, map[int32]bool{}
		for _, p := range old.Spec.Ports {
			before[port{p.Protocol, p.Port}] = p.NodePort
		}
		for _, p := range s.Spec.Ports {
			used[p.NodePort] = true
		}
		for i := range s.Spec.Ports {
			p := &s.Spec.Ports[i]
			if n := before[port{p.Protocol, p.Port}]; p.NodePort == 0 && n != 0 && !used[n] {
				p.NodePort = n
				used[n] = true
			}
		}
	}
	if wantsHealthPort(s) && wantsHealthPort(old) && s.Spec.HealthCheckNodePort == 0 {
		s.Spec.HealthCheckNodePort = old.Spec.HealthCheckNodePort
	}
}

func serviceExternal(s *corev1.Service) any {
	switch s.Spec.Type {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort:
		return show.Or(strings.Join(s.Spec.ExternalIPs, ","), show.None)
	case corev1.ServiceTypeLoadBalancer:
		var balancers []string
		for _, in := range s.Status.LoadBalancer.Ingress {
			if a := show.Or(in.IP, in.Hostname); a != "" {
				balancers = append(balancers, a)
			}
		}
		all := slices.Concat(show.Distinct(balancers), s.Spec.ExternalIPs)
		return show.Or(strings.Join(all, ","), show.Pending)
	case corev1.ServiceTypeExternalName:
		return s.Spec.ExternalName
	}
	return show.Unknown
}

func servicePorts(s *corev1.Service) any {
	var shown []string
	for _, p := range s.Spec.Ports {
		if p.NodePort != 0 {
			shown = append(shown, fmt.Sprintf("%d:%d/%s", p.Port, p.NodePort, p.Protocol))
		} else {
			shown = append(shown, fmt.Sprintf("%d/%s", p.Port, p.Protocol))
		}
	}
	return show.Or(strings.Join(shown, ","), show.None)
}

// ipFamily is the family of an address that parses.
func ipFamily(ip string) corev1.IPFamily {
	if netutils.IsIPv6String(ip) {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}
