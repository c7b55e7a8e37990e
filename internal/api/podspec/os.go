package podspec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// checkOS: fields of one operating system cannot be set for a pod of the other (KEP-2802).
func (c *checker) checkOS(path *field.Path) field.ErrorList {
	s := c.spec
	if s.OS == nil {
		return nil
	}
	at := path.Child("os")
	switch s.OS.Name {
	case "":
		return field.ErrorList{field.Required(at.Child("name"), "cannot be empty")}
	case corev1.Linux:
		return c.checkLinux(path)
	case corev1.Windows:
		return c.checkWindowsPod(path)
	}
	return field.ErrorList{field.NotSupported(at, s.OS.Name, []corev1.OSName{corev1.Linux, corev1.Windows})}
}

func (c *checker) checkLinux(path *field.Path) field.ErrorList {
	const text = "windows options cannot be set for a linux pod"
	s := c.spec
	var errs field.ErrorList
	if s.SecurityContext != nil && s.SecurityContext.WindowsOptions != nil {
		errs = append(errs, field.Forbidden(path.Child("securityContext", "windowsOptions"), text))
	}
	c.eachContainer(path, func(ctr *corev1.Container, at *field.Path) {
		if ctr.SecurityContext != nil && ctr.SecurityContext.WindowsOptions != nil {
			errs = append(errs, field.Forbidden(at.Child("securityContext", "windowsOptions"), text))
		}
	})
	return errs
}

func (c *checker) checkWindowsPod(path *field.Path) field.ErrorList {
	s := c.spec
	var errs field.ErrorList
	forbid := func(set bool, at *field.Path) {
		if set {
			errs = append(errs, field.Forbidden(at, "cannot be set for a windows pod"))
		}
	}
	forbid(s.Resources != nil, path.Child("resources"))
	at := path.Child("securityContext")
	sc := ptr.Deref(s.SecurityContext, corev1.PodSecurityContext{})
	forbid(sc.AppArmorProfile != nil, at.Child("appArmorProfile"))
	forbid(sc.SELinuxOptions != nil, at.Child("seLinuxOptions"))
	forbid(s.HostUsers != nil, path.Child("hostUsers"))
	forbid(s.HostPID, path.Child("hostPID"))
	forbid(s.HostIPC, path.Child("hostIPC"))
	forbid(sc.SeccompProfile != nil, at.Child("seccompProfile"))
	forbid(sc.FSGroup != nil, at.Child("fsGroup"))
	forbid(sc.FSGroupChangePolicy != nil, at.Child("fsGroupChangePolicy"))
	forbid(sc.SELinuxChangePolicy != nil, at.Child("seLinuxChangePolicy"))
	forbid(len(sc.Sysctls) > 0, at.Child("sysctls"))
	forbid(s.ShareProcessNamespace != nil, path.Child("shareProcessNamespace"))
	forbid(sc.RunAsUser != nil, at.Child("runAsUser"))
	forbid(sc.RunAsGroup != nil, at.Child("runAsGroup"))
	forbid(sc.SupplementalGroups != nil, at.Child("supplementalGroups"))
	forbid(sc.SupplementalGroupsPolicy != nil, at.Child("supplementalGroupsPolicy"))
	c.eachContainer(path, func(ctr *corev1.Container, at *field.Path) {
		sc := ctr.SecurityContext
		if sc == nil {
			return
		}
		at = at.Child("securityContext")
		forbid(sc.AppArmorProfile != nil, at.Child("appArmorProfile"))
		forbid(sc.SELinuxOptions != nil, at.Child("seLinuxOptions"))
		forbid(sc.SeccompProfile != nil, at.Child("seccompProfile"))
		forbid(sc.Capabilities != nil, at.Child("capabilities"))
		forbid(sc.ReadOnlyRootFilesystem != nil, at.Child("readOnlyRootFilesystem"))
		forbid(sc.Privileged != nil, at.Child("privileged"))
		forbid(sc.AllowPrivilegeEscalation != nil, at.Child("allowPrivilegeEscalation"))
		forbid(sc.ProcMount != nil, at.Child("procMount"))
		forbid(sc.RunAsUser != nil, at.Child("runAsUser"))
		forbid(sc.RunAsGroup != nil, at.Child("runAsGroup"))
	})
	return errs
}

// eachContainer calls f with every container of the specification and its path.
func (c *checker) eachContainer(path *field.Path, f func(ctr *corev1.Container, at *field.Path)) {
	s := c.spec
	for i := range s.InitContainers {
		f(&s.InitContainers[i], path.Child("initContainers").Index(i))
	}
	for i := range s.Containers {
		f(&s.Containers[i], path.Child("containers").Index(i))
	}
	for i := range s.EphemeralContainers {
		f((*corev1.Container)(&s.EphemeralContainers[i].EphemeralContainerCommon), path.Child("ephemeralContainers").Index(i))
	}
}
