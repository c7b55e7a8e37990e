package podspec

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/timonel/timonel/internal/api/check"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

const (
	maxSysctlName    = 253
	sysctlPattern    = `^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$`
	maxAppArmorName  = 4096 - 1
	maxGMSASpec      = 64 * 1024
	maxWindowsDomain = 256
	maxWindowsUser   = 104
)

var sysctlForm = regexp.MustCompile(sysctlPattern)

func (c *checker) checkPodSecurity(path *field.Path) field.ErrorList {
	s := c.spec
	at := path.Child("securityContext")
	sc := s.SecurityContext
	if sc == nil {
		return nil
	}
	var errs field.ErrorList
	id := func(value *int64, name string, form func(int64) []string) {
		if value != nil {
			errs = append(errs, check.Each(at.Child(name), *value, form(*value))...)
		}
	}
	id(sc.FSGroup, "fsGroup", validation.IsValidGroupID)
	id(sc.RunAsUser, "runAsUser", validation.IsValidUserID)
	id(sc.RunAsGroup, "runAsGroup", validation.IsValidGroupID)
	for i, g := range sc.SupplementalGroups {
		errs = append(errs, check.Each(at.Child("supplementalGroups").Index(i), g, validation.IsValidGroupID(g))...)
	}
	if ptr.Deref(s.ShareProcessNamespace, false) && s.HostPID { // Parity: the path says securityContext
		errs = append(errs, field.Invalid(at.Child("shareProcessNamespace"), *s.ShareProcessNamespace, "ShareProcessNamespace and HostPID cannot both be enabled"))
	}
	errs = append(errs, c.checkSysctls(sc.Sysctls, at.Child("sysctls"))...)
	if p := sc.FSGroupChangePolicy; p != nil {
		errs = append(errs, check.OneOf(*p, at.Child("fsGroupChangePolicy"), corev1.FSGroupChangeOnRootMismatch, corev1.FSGroupChangeAlways)...)
	}
	errs = append(errs, checkSeccomp(sc.SeccompProfile, at.Child("seccompProfile"))...)
	errs = append(errs, checkWindows(sc.WindowsOptions, at.Child("windowsOptions"))...)
	errs = append(errs, checkAppArmor(sc.AppArmorProfile, at.Child("appArmorProfile"))...)
	if p := sc.SupplementalGroupsPolicy; p != nil {
		errs = append(errs, check.OneOf(*p, at.Child("supplementalGroupsPolicy"), corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)...)
	}
	if p := sc.SELinuxChangePolicy; p != nil {
		errs = append(errs, check.OneOf(*p, at.Child("seLinuxChangePolicy"), corev1.SELinuxChangePolicyMountOption, corev1.SELinuxChangePolicyRecursive)...)
	}
	return errs
}

// checkSecurity checks the security context of one container.
func (c *checker) checkSecurity(sc *corev1.SecurityContext, at *field.Path) field.ErrorList {
	if sc == nil {
		return nil
	}
	var errs field.ErrorList
	privileged := ptr.Deref(sc.Privileged, false)
	if privileged && !c.AllowPrivileged {
		errs = append(errs, field.Forbidden(at.Child("privileged"), "disallowed by cluster policy"))
	}
	if sc.RunAsUser != nil {
		errs = append(errs, check.Each(at.Child("runAsUser"), *sc.RunAsUser, validation.IsValidUserID(*sc.RunAsUser))...)
	}
	if sc.RunAsGroup != nil {
		errs = append(errs, check.Each(at.Child("runAsGroup"), *sc.RunAsGroup, validation.IsValidGroupID(*sc.RunAsGroup))...)
	}
	if p := sc.ProcMount; p != nil {
		errs = append(errs, check.OneOf(*p, at.Child("procMount"), corev1.DefaultProcMount, corev1.UnmaskedProcMount)...)
		if *p == corev1.UnmaskedProcMount && ptr.Deref(c.spec.HostUsers, true) {
			errs = append(errs, field.Invalid(at.Child("procMount"), *p, "`hostUsers` must be false to use `Unmasked`"))
		}
	}
	errs = append(errs, checkSeccomp(sc.SeccompProfile, at.Child("seccompProfile"))...)
	if sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation {
		if privileged {
			errs = append(errs, field.Invalid(at, check.GoNames(sc), "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"))
		}
		if sc.Capabilities != nil && slices.ContainsFunc(sc.Capabilities.Add, func(c corev1.Capability) bool { return c == "CAP_SYS_ADMIN" }) {
			errs = append(errs, field.Invalid(at, check.GoNames(sc), "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"))
		}
	}
	errs = append(errs, checkWindows(sc.WindowsOptions, at.Child("windowsOptions"))...)
	return append(errs, checkAppArmor(sc.AppArmorProfile, at.Child("appArmorProfile"))...)
}

func checkSeccomp(p *corev1.SeccompProfile, at *field.Path) field.ErrorList {
	if p == nil {
		return nil
	}
	var errs field.ErrorList
	if p.Type == "" {
		errs = append(errs, field.Required(at.Child("type"), "type is required when seccompProfile is set"))
	} else {
		errs = append(errs, check.OneOf(p.Type, at.Child("type"), corev1.SeccompProfileTypeLocalhost, corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined)...)
	}
	profile := at.Child("localhostProfile")
	switch {
	case p.Type == corev1.SeccompProfileTypeLocalhost && p.LocalhostProfile == nil:
		errs = append(errs, field.Required(profile, "must be set when seccomp type is Localhost"))
	case p.Type == corev1.SeccompProfileTypeLocalhost:
		errs = append(errs, descendingPath(*p.LocalhostProfile, profile)...)
	case p.LocalhostProfile != nil:
		errs = append(errs, field.Invalid(profile, check.GoNames(p), "can only be set when seccomp type is Localhost"))
	}
	return errs
}

func checkAppArmor(p *corev1.AppArmorProfile, at *field.Path) field.ErrorList {
	if p == nil {
		return nil
	}
	profile := at.Child("localhostProfile")
	switch p.Type {
	case corev1.AppArmorProfileTypeLocalhost:
		switch {
		case p.LocalhostProfile == nil:
			return field.ErrorList{field.Required(profile, "must be set when AppArmor type is Localhost")}
		case strings.TrimSpace(*p.LocalhostProfile) != *p.LocalhostProfile:
			return field.ErrorList{field.Invalid(profile, *p.LocalhostProfile, "must not be padded with whitespace")}
		case *p.LocalhostProfile == "":
			return field.ErrorList{field.Required(profile, "must be set when AppArmor type is Localhost")}
		case len(*p.LocalhostProfile) > maxAppArmorName:
			return field.ErrorList{field.TooLong(profile, *p.LocalhostProfile, maxAppArmorName)}
		}
	case corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined:
		if p.LocalhostProfile != nil {
			return field.ErrorList{field.Invalid(profile, p.LocalhostProfile, "can only be set when AppArmor type is Localhost")}
		}
	case "":
		return field.ErrorList{field.Required(at.Child("type"), "type is required when appArmorProfile is set")}
	default:
		return check.OneOf(p.Type, at.Child("type"), corev1.AppArmorProfileTypeLocalhost, corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined)
	}
	return nil
}

func checkWindows(w *corev1.WindowsSecurityContextOptions, at *field.Path) field.ErrorList {
	if w == nil {
		return nil
	}
	var errs field.ErrorList
	if n := w.GMSACredentialSpecName; n != nil {
		errs = append(errs, check.Each(at.Child("gmsaCredentialSpecName"), *n, check.Subdomain(*n))...)
	}
	if s := w.GMSACredentialSpec; s != nil {
		switch {
		case *s == "":
			errs = append(errs, field.Invalid(at.Child("gmsaCredentialSpec"), *s, "gmsaCredentialSpec cannot be an empty string"))
		case len(*s) > maxGMSASpec:
			errs = append(errs, field.Invalid(at.Child("gmsaCredentialSpec"), *s, fmt.Sprintf("gmsaCredentialSpec size must be under %d KiB", maxGMSASpec/1024)))
		}
	}
	if u := w.RunAsUserName; u != nil {
		for _, text := range windowsUser(*u) {
			errs = append(errs, field.Invalid(at.Child("runAsUserName"), *u, text))
		}
	}
	return errs
}

// Forms of the names of Windows accounts, [DOMAIN\]USER (Microsoft, "User name formats", "Naming conventions in Active Directory").
var (
	netBIOSDomain    = regexp.MustCompile(`^[^\\/:*?"<>|.][^\\/:*?"<>|]{0,14}$`)
	dnsDomain        = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*\.?$`)
	userOddChars     = regexp.MustCompile(`["/\\:;|=,+*?<>@\[\]]`)
	userOnlyFillings = regexp.MustCompile(`^[. ]+$`)
)

// windowsUser says what is wrong with the name of a Windows account.
func windowsUser(name string) []string {
	parts := strings.Split(name, `\`)
	switch {
	case name == "":
		return []string{"runAsUserName cannot be an empty string"}
	case strings.ContainsFunc(name, unicode.IsControl):
		return []string{"runAsUserName cannot contain control characters"}
	case len(parts) > 2:
		return []string{"runAsUserName cannot contain more than one backslash"}
	}
	var texts []string
	if len(parts) == 2 {
		if len(parts[0]) >= maxWindowsDomain {
			texts = append(texts, fmt.Sprintf("runAsUserName's Domain length must be under %d characters", maxWindowsDomain))
		}
		if !netBIOSDomain.MatchString(parts[0]) && !dnsDomain.MatchString(parts[0]) {
			texts = append(texts, "runAsUserName's Domain doesn't match the NetBios nor the DNS format")
		}
	}
	user := parts[len(parts)-1]
	switch {
	case user == "":
		texts = append(texts, "runAsUserName's User cannot be empty")
	case len(user) > maxWindowsUser:
		texts = append(texts, fmt.Sprintf("runAsUserName's User length must not be longer than %d characters", maxWindowsUser))
	}
	if userOnlyFillings.MatchString(user) {
		texts = append(texts, "runAsUserName's User cannot contain only periods or spaces")
	}
	if userOddChars.MatchString(user) {
		texts = append(texts, `runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]`)
	}
	return texts
}

func (c *checker) checkSysctls(sysctls []corev1.Sysctl, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, s := range sysctls {
		at := path.Index(i).Child("name")
		switch {
		case s.Name == "":
			errs = append(errs, field.Required(at, ""))
		case len(s.Name) > maxSysctlName || !sysctlForm.MatchString(s.Name):
			errs = append(errs, field.Invalid(at, s.Name, fmt.Sprintf("must have at most %d characters and match regex %s", maxSysctlName, sysctlPattern)))
		case seen[s.Name]:
			errs = append(errs, field.Duplicate(at, s.Name))
		}
		seen[s.Name] = true
		if c.before != nil && hostSysctl(c.before, s.Name) != "" && hasSysctl(c.before, s.Name) {
			continue
		}
		if shared := hostSysctl(c.spec, s.Name); shared != "" {
			errs = append(errs, field.Invalid(at, s.Name, fmt.Sprintf("may not be specified when '%s' is true", shared)))
		}
	}
	return errs
}

// hostSysctl is the field by which a pod shares with its node what a sysctl is about; "" if it does not.
func hostSysctl(s *corev1.PodSpec, name string) string {
	name = strings.ReplaceAll(name, "/", ".")
	ipc := strings.HasPrefix(name, "kernel.shm") || strings.HasPrefix(name, "kernel.msg") || name == "kernel.sem" || strings.HasPrefix(name, "fs.mqueue.")
	switch {
	case s.HostNetwork && strings.HasPrefix(name, "net."):
		return "hostNetwork"
	case s.HostIPC && ipc:
		return "hostIPC"
	}
	return ""
}

// validateAnnotations checks annotations that mean something for pods; was are those of the pod that it replaces.
func validateAnnotations(annotations, was map[string]string, s *corev1.PodSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if value, mirror := annotations[corev1.MirrorPodAnnotationKey]; mirror && s.NodeName == "" {
		errs = append(errs, field.Invalid(path.Key(corev1.MirrorPodAnnotationKey), value, "must set spec.nodeName if mirror pod annotation is set"))
	}
	if text := annotations[corev1.TolerationsAnnotationKey]; text != "" {
		errs = append(errs, tolerationsAnnotation(text, path)...)
	}
	before, kept := was[corev1.PodDeletionCost]
	if cost, given := annotations[corev1.PodDeletionCost]; given && !(kept && cost == before) {
		errs = append(errs, deletionCost(cost, path.Key(corev1.PodDeletionCost))...)
	}
	if v, given := annotations[corev1.SeccompPodAnnotationKey]; given {
		errs = append(errs, seccompAnnotation(v, path.Child(corev1.SeccompPodAnnotationKey))...)
	}
	keys := check.Sorted(annotations)
	for _, k := range keys {
		if strings.HasPrefix(k, corev1.SeccompContainerAnnotationKeyPrefix) {
			errs = append(errs, seccompAnnotation(annotations[k], path.Child(k))...)
		}
	}
	for _, k := range keys {
		if strings.HasPrefix(k, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix) {
			errs = append(errs, appArmorAnnotation(k, annotations[k], s, path)...)
		}
	}
	return errs
}

// tolerationsAnnotation checks tolerations where they once stood.
func tolerationsAnnotation(text string, path *field.Path) field.ErrorList {
	var tolerations []corev1.Toleration
	if err := json.Unmarshal([]byte(text), &tolerations); err != nil {
		return field.ErrorList{field.Invalid(path, corev1.TolerationsAnnotationKey, err.Error())}
	}
	return ValidateTolerations(tolerations, path.Child(corev1.TolerationsAnnotationKey))
}

// deletionCost wants an integer of 32 bits without a plus sign or leading zeros.
func deletionCost(v string, at *field.Path) field.ErrorList {
	plain := v == "0" || v != "" && (v[0] == '-' || v[0] >= '1' && v[0] <= '9')
	if _, err := strconv.ParseInt(v, 10, 32); plain && err == nil {
		return nil
	}
	return field.ErrorList{field.Invalid(at, v, "must be a 32bit integer")}
}

func seccompAnnotation(v string, at *field.Path) field.ErrorList {
	switch {
	case v == corev1.SeccompProfileRuntimeDefault, v == corev1.DeprecatedSeccompProfileDockerDefault, v == corev1.SeccompProfileNameUnconfined:
		return nil
	case strings.HasPrefix(v, corev1.SeccompLocalhostProfileNamePrefix):
		return descendingPath(strings.TrimPrefix(v, corev1.SeccompLocalhostProfileNamePrefix), at)
	}
	return field.ErrorList{field.Invalid(at, v, "must be a valid seccomp profile")}
}

func appArmorAnnotation(k, v string, s *corev1.PodSpec, path *field.Path) field.ErrorList {
	name := strings.TrimPrefix(k, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix)
	found := false
	eachLifecycle(s, func(ctr *corev1.Container) { found = found || ctr.Name == name })
	var errs field.ErrorList
	if !found {
		errs = append(errs, field.Invalid(path.Key(k), name, "container not found"))
	}
	if v != "" && v != corev1.DeprecatedAppArmorBetaProfileRuntimeDefault && v != corev1.DeprecatedAppArmorBetaProfileNameUnconfined && !strings.HasPrefix(v, corev1.DeprecatedAppArmorBetaProfileNamePrefix) {
		errs = append(errs, field.Invalid(path.Key(k), v, fmt.Sprintf("invalid AppArmor profile name: %q", v)))
	}
	return errs
}

// appArmorAgrees wants that a new pod does not ask for one AppArmor profile in a field and for another in an annotation.
func appArmorAgrees(p *corev1.Pod) field.ErrorList {
	if p.Spec.OS != nil && p.Spec.OS.Name == corev1.Windows {
		return nil
	}
	var errs field.ErrorList
	c := checker{spec: &p.Spec}
	c.eachContainer(field.NewPath("spec"), func(ctr *corev1.Container, at *field.Path) {
		var asked *corev1.AppArmorProfile
		if p.Spec.SecurityContext != nil {
			asked = p.Spec.SecurityContext.AppArmorProfile
		}
		if ctr.SecurityContext != nil && ctr.SecurityContext.AppArmorProfile != nil {
			asked = ctr.SecurityContext.AppArmorProfile
		}
		annotation, given := p.Annotations[corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+ctr.Name]
		if asked == nil || !given {
			return
		}
		at = at.Child("securityContext", "appArmorProfile")
		switch annotated := ptr.Deref(appArmorOf(annotation), corev1.AppArmorProfile{}); {
		case annotated.Type != asked.Type:
			errs = append(errs, field.Forbidden(at.Child("type"), "apparmor type in annotation and field must match"))
		case ptr.Deref(annotated.LocalhostProfile, "") != ptr.Deref(asked.LocalhostProfile, ""):
			errs = append(errs, field.Forbidden(at.Child("localhostProfile"), "apparmor profile in annotation and field must match"))
		}
	})
	return errs
}
