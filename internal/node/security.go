package node

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What a container must not see or write of /proc and /sys unless it asks for
// procMount Unmasked; the runtimes hide only what they are told to.
var (
	maskedPaths = []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
		"/sys/firmware", "/sys/devices/virtual/powercap",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// containerSecurity returns a container's security context, never nil.
func containerSecurity(c *v1.Container) *v1.SecurityContext {
	if c.SecurityContext == nil {
		return &v1.SecurityContext{}
	}
	return c.SecurityContext
}

func podSecurity(pod *v1.Pod) *v1.PodSecurityContext {
	if pod.Spec.SecurityContext == nil {
		return &v1.PodSecurityContext{}
	}
	return pod.Spec.SecurityContext
}

// orElse is the container's setting where it has one, else the pod's.
func orElse[T any](container, pod *T) *T {
	if container != nil {
		return container
	}
	return pod
}

func runAsUser(pod *v1.Pod, c *v1.Container) *int64 {
	return orElse(containerSecurity(c).RunAsUser, podSecurity(pod).RunAsUser)
}

// checkNonRoot enforces runAsNonRoot against the user of the image.
func checkNonRoot(pod *v1.Pod, c *v1.Container, image *runtimeapi.Image) error {
	if !isTrue(orElse(containerSecurity(c).RunAsNonRoot, podSecurity(pod).RunAsNonRoot)) {
		return nil
	}
	where := fmt.Sprintf("(pod: %q, container: %s)", podDescription(pod), c.Name)
	if user := runAsUser(pod, c); user != nil {
		if *user == 0 {
			return configErrorf("container's runAsUser breaks non-root policy %s", where)
		}
		return nil
	}
	switch {
	case image.GetUid() != nil && image.GetUid().Value == 0:
		return configErrorf("container has runAsNonRoot and image will run as root %s", where)
	case image.GetUid() == nil && image.GetUsername() != "":
		return configErrorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root %s", image.GetUsername(), where)
	case image.GetUid() == nil:
		return configErrorf("container has runAsNonRoot and image will run as root %s", where)
	}
	return nil
}

// linuxSecurity is what the runtime is told about a container's powers. image
// is what the container runs; target the container whose processes an
// ephemeral container joins, if any.
func linuxSecurity(pod *v1.Pod, c *v1.Container, image *runtimeapi.Image, target, seccompDir string) (*runtimeapi.LinuxContainerSecurityContext, error) {
	if err := checkNonRoot(pod, c, image); err != nil {
		return nil, err
	}
	sc, psc := containerSecurity(c), podSecurity(pod)
	out := &runtimeapi.LinuxContainerSecurityContext{
		Privileged:         isTrue(sc.Privileged),
		NamespaceOptions:   namespaceOptions(pod),
		ReadonlyRootfs:     isTrue(sc.ReadOnlyRootFilesystem),
		SupplementalGroups: supplementalGroups(pod),
		SelinuxOptions:     selinux(orElse(sc.SELinuxOptions, psc.SELinuxOptions)),
		MaskedPaths:        maskedPaths,
		ReadonlyPaths:      readonlyPaths,
	}
	if target != "" {
		out.NamespaceOptions.Pid = runtimeapi.NamespaceMode_TARGET
		out.NamespaceOptions.TargetId = target
	}
	if psc.SupplementalGroupsPolicy != nil && *psc.SupplementalGroupsPolicy == v1.SupplementalGroupsPolicyStrict {
		out.SupplementalGroupsPolicy = runtimeapi.SupplementalGroupsPolicy_Strict
	}
	if user := runAsUser(pod, c); user != nil {
		out.RunAsUser = &runtimeapi.Int64Value{Value: *user}
	} else if image.GetUid() != nil {
		out.RunAsUser = &runtimeapi.Int64Value{Value: image.GetUid().Value}
	} else {
		out.RunAsUsername = image.GetUsername()
	}
	if group := orElse(sc.RunAsGroup, psc.RunAsGroup); group != nil {
		out.RunAsGroup = &runtimeapi.Int64Value{Value: *group}
		if out.RunAsUser == nil && out.RunAsUsername == "" {
			// The CRI takes a group only with a user; the image's default is root.
			out.RunAsUser = &runtimeapi.Int64Value{}
		}
	}
	if sc.Capabilities != nil {
		out.Capabilities = &runtimeapi.Capability{}
		for _, capability := range sc.Capabilities.Add {
			out.Capabilities.AddCapabilities = append(out.Capabilities.AddCapabilities, string(capability))
		}
		for _, capability := range sc.Capabilities.Drop {
			out.Capabilities.DropCapabilities = append(out.Capabilities.DropCapabilities, string(capability))
		}
	}
	if sc.AllowPrivilegeEscalation != nil {
		out.NoNewPrivs = !*sc.AllowPrivilegeEscalation
	}
	if sc.ProcMount != nil && *sc.ProcMount == v1.UnmaskedProcMount {
		out.MaskedPaths, out.ReadonlyPaths = nil, nil
	}
	var err error
	if out.Seccomp, err = seccomp(orElse(sc.SeccompProfile, psc.SeccompProfile), seccompDir); err != nil {
		return nil, err
	}
	if out.Apparmor, err = apparmor(orElse(sc.AppArmorProfile, psc.AppArmorProfile)); err != nil {
		return nil, err
	}
	return out, nil
}

func namespaceOptions(pod *v1.Pod) *runtimeapi.NamespaceOption {
	options := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
	if pod.Spec.HostNetwork {
		options.Network = runtimeapi.NamespaceMode_NODE
	}
	if pod.Spec.HostIPC {
		options.Ipc = runtimeapi.NamespaceMode_NODE
	}
	switch {
	case pod.Spec.HostPID:
		options.Pid = runtimeapi.NamespaceMode_NODE
	case isTrue(pod.Spec.ShareProcessNamespace):
		options.Pid = runtimeapi.NamespaceMode_POD
	}
	return options
}

func supplementalGroups(pod *v1.Pod) []int64 {
	psc := podSecurity(pod)
	groups := slices.Clone(psc.SupplementalGroups)
	if psc.FSGroup != nil && !slices.Contains(groups, *psc.FSGroup) {
		groups = append(groups, *psc.FSGroup)
	}
	return groups
}

func seccomp(profile *v1.SeccompProfile, dir string) (*runtimeapi.SecurityProfile, error) {
	if profile == nil {
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
	}
	switch profile.Type {
	case v1.SeccompProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
	case v1.SeccompProfileTypeUnconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
	case v1.SeccompProfileTypeLocalhost:
		if profile.LocalhostProfile == nil || *profile.LocalhostProfile == "" || !filepath.IsLocal(*profile.LocalhostProfile) {
			return nil, configErrorf("localhostProfile must be set if seccompProfile type is Localhost.")
		}
		return &runtimeapi.SecurityProfile{
			ProfileType:  runtimeapi.SecurityProfile_Localhost,
			LocalhostRef: filepath.Join(dir, *profile.LocalhostProfile),
		}, nil
	}
	return nil, configErrorf("seccomp profile type %q is not supported", profile.Type)
}

func apparmor(profile *v1.AppArmorProfile) (*runtimeapi.SecurityProfile, error) {
	if profile == nil {
		return nil, nil
	}
	switch profile.Type {
	case v1.AppArmorProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
	case v1.AppArmorProfileTypeUnconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
	case v1.AppArmorProfileTypeLocalhost:
		if profile.LocalhostProfile == nil || strings.TrimSpace(*profile.LocalhostProfile) == "" {
			return nil, configErrorf("localhostProfile must be set if appArmorProfile type is Localhost.")
		}
		return &runtimeapi.SecurityProfile{
			ProfileType:  runtimeapi.SecurityProfile_Localhost,
			LocalhostRef: *profile.LocalhostProfile,
		}, nil
	}
	return nil, configErrorf("AppArmor profile type %q is not supported", profile.Type)
}

func selinux(options *v1.SELinuxOptions) *runtimeapi.SELinuxOption {
	if options == nil {
		return nil
	}
	return &runtimeapi.SELinuxOption{User: options.User, Role: options.Role, Type: options.Type, Level: options.Level}
}
