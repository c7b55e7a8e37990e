package node

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// sandboxConfig describes the pod's sandbox, attempt 0 being its first.
func sandboxConfig(pod *v1.Pod, cfg *Config, attempt uint32, dns *runtimeapi.DNSConfig, cgroupParent string) (*runtimeapi.PodSandboxConfig, error) {
	config := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID), Attempt: attempt},
		LogDirectory: cfg.podLogDir(pod.Namespace, pod.Name, pod.UID),
		DnsConfig:    dns,
		Labels:       sandboxLabels(cfg.NodeName, pod),
		Annotations:  sandboxAnnotations(pod),
	}
	if !pod.Spec.HostNetwork {
		host, domain := hostname(pod, cfg.ClusterDomain)
		if isTrue(pod.Spec.SetHostnameAsFQDN) && domain != "" {
			host = host + "." + domain
			if len(host) > maxFQDN {
				return nil, fmt.Errorf("failed to construct FQDN from pod hostname and cluster domain, FQDN %s is too long (%d characters is the max, %d characters requested)", host, maxFQDN, len(host))
			}
		}
		config.Hostname = host
		everyContainer(pod, func(_ kindOf, c *v1.Container) {
			for _, port := range c.Ports {
				if port.HostPort > 0 {
					config.PortMappings = append(config.PortMappings, &runtimeapi.PortMapping{
						Protocol: protocolOf(port.Protocol), ContainerPort: port.ContainerPort, HostPort: port.HostPort, HostIp: port.HostIP,
					})
				}
			}
		})
	}

	sc := podSecurity(pod)
	security := &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions:   namespaceOptions(pod),
		SupplementalGroups: supplementalGroups(pod),
		SelinuxOptions:     selinux(sc.SELinuxOptions),
		Privileged:         hasPrivileged(pod),
		// The pause process needs no system call a default profile withholds.
		Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
	}
	if sc.RunAsUser != nil {
		security.RunAsUser = &runtimeapi.Int64Value{Value: *sc.RunAsUser}
	}
	if sc.RunAsGroup != nil && sc.RunAsUser != nil {
		security.RunAsGroup = &runtimeapi.Int64Value{Value: *sc.RunAsGroup}
	}
	config.Linux = &runtimeapi.LinuxPodSandboxConfig{
		CgroupParent:    cgroupParent,
		SecurityContext: security,
		Sysctls:         map[string]string{},
		Overhead:        listedResources(pod.Spec.Overhead, pod.Spec.Overhead),
		Resources:       listedResources(podRequests(pod), podLimits(pod)),
	}
	for _, sysctl := range sc.Sysctls {
		config.Linux.Sysctls[sysctl.Name] = sysctl.Value
	}
	return config, nil
}

// maxFQDN is how long a kernel host name may be.
const maxFQDN = 64

func listedResources(requests, limits v1.ResourceList) *runtimeapi.LinuxContainerResources {
	return &runtimeapi.LinuxContainerResources{
		CpuPeriod:          quotaPeriod,
		CpuShares:          sharesOf(requests.Cpu().MilliValue()),
		CpuQuota:           quotaOf(limits.Cpu().MilliValue()),
		MemoryLimitInBytes: limits.Memory().Value(),
	}
}

func hasPrivileged(pod *v1.Pod) bool {
	found := false
	everyContainer(pod, func(_ kindOf, c *v1.Container) {
		found = found || isTrue(containerSecurity(c).Privileged)
	})
	return found
}

func protocolOf(p v1.Protocol) runtimeapi.Protocol {
	switch p {
	case v1.ProtocolUDP:
		return runtimeapi.Protocol_UDP
	case v1.ProtocolSCTP:
		return runtimeapi.Protocol_SCTP
	}
	return runtimeapi.Protocol_TCP
}

// safeSysctls are those a pod may set without the node's administrator
// allowing it, as the Kubernetes documentation lists them.
var safeSysctls = map[string]bool{
	"kernel.shm_rmid_forced":              true,
	"net.ipv4.ip_local_port_range":        true,
	"net.ipv4.tcp_syncookies":             true,
	"net.ipv4.ping_group_range":           true,
	"net.ipv4.ip_unprivileged_port_start": true,
	"net.ipv4.ip_local_reserved_ports":    true,
	"net.ipv4.tcp_keepalive_time":         true,
	"net.ipv4.tcp_fin_timeout":            true,
	"net.ipv4.tcp_keepalive_intvl":        true,
	"net.ipv4.tcp_keepalive_probes":       true,
	"net.ipv4.tcp_rmem":                   true,
	"net.ipv4.tcp_wmem":                   true,
}

// forbiddenSysctl names the first sysctl of the pod that this node refuses.
func forbiddenSysctl(pod *v1.Pod) (name, why string) {
	for _, sysctl := range podSecurity(pod).Sysctls {
		name := strings.ReplaceAll(sysctl.Name, "/", ".")
		switch {
		case !safeSysctls[name]:
			return sysctl.Name, "not allowlisted"
		case strings.HasPrefix(name, "net.") && pod.Spec.HostNetwork:
			return sysctl.Name, "not allowed with host net enabled"
		case strings.HasPrefix(name, "kernel.shm") && pod.Spec.HostIPC:
			return sysctl.Name, "not allowed with host ipc enabled"
		}
	}
	return "", ""
}

// unsupported names what the pod asks for and this agent does not do, where
// running the pod without it would break a promise. Unsupported volumes are
// told by the volumes themselves.
func unsupported(pod *v1.Pod) []string {
	found := map[string]bool{}
	if pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers {
		found["user namespaces (spec.hostUsers: false)"] = true
	}
	if len(pod.Spec.ResourceClaims) > 0 {
		found["dynamic resource allocation (spec.resourceClaims)"] = true
	}
	everyContainer(pod, func(_ kindOf, c *v1.Container) {
		if len(c.VolumeDevices) > 0 {
			found["block volumes (volumeDevices)"] = true
		}
		for _, m := range c.VolumeMounts {
			if len(m.BindMountOptions) > 0 {
				found["volumeMounts.bindMountOptions"] = true
			}
			if m.RecursiveReadOnly != nil && *m.RecursiveReadOnly == v1.RecursiveReadOnlyEnabled {
				found["volumeMounts.recursiveReadOnly: Enabled"] = true
			}
		}
		for _, rule := range c.RestartPolicyRules {
			if rule.Action == v1.ContainerRestartRuleActionRestartAllContainers {
				found["restartPolicyRules with action RestartAllContainers"] = true
			}
		}
		for name := range c.Resources.Limits {
			switch {
			case name == v1.ResourceCPU, name == v1.ResourceMemory, name == v1.ResourceEphemeralStorage:
			default:
				found["resource "+string(name)] = true
			}
		}
	})
	return slices.Sorted(maps.Keys(found))
}
