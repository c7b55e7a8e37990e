package podspec

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// Bounds of the rules by which a single container restarts (KEP-5307).
const (
	maxRestartRules     = 20
	maxRestartExitCodes = 255
)

// checkContainers checks containers, then init containers, then ephemeral ones; their names share one space.
func (c *checker) checkContainers(path *field.Path) field.ErrorList {
	s := c.spec
	names := map[string]bool{}
	containers := path.Child("containers")
	var errs field.ErrorList
	if len(s.Containers) == 0 {
		errs = append(errs, field.Required(containers, ""))
	}
	for i := range s.Containers {
		ctr, at := &s.Containers[i], containers.Index(i)
		errs = append(errs, c.checkContainer(ctr, at)...)
		errs = append(errs, onlyOnce(ctr.Name, names, at)...)
		errs = append(errs, c.checkLifecycle(ctr.Lifecycle, at.Child("lifecycle"))...)
		errs = append(errs, c.checkProbes(ctr, at)...)
		errs = append(errs, c.checkRestart(ctr, at, false)...)
	}
	errs = append(errs, hostPortsOnce(s.Containers, containers)...)
	for i := range s.InitContainers {
		errs = append(errs, c.checkInitContainer(i, names, path.Child("initContainers"))...)
	}
	for i := range s.EphemeralContainers {
		errs = append(errs, c.checkEphemeral(&s.EphemeralContainers[i], names, path.Child("ephemeralContainers").Index(i))...)
	}
	return errs
}

// checkPodOnly checks what templates are not held to, because they were not from the beginning: that images have no blanks
// around them, and that tokens are asked for only with an account.
func (c *checker) checkPodOnly(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if c.spec.ServiceAccountName == "" {
		for i, v := range c.spec.Volumes {
			if v.Projected == nil {
				continue
			}
			for j, s := range v.Projected.Sources {
				if s.ServiceAccountToken != nil {
					errs = append(errs, field.Forbidden(path.Child("volumes").Index(i).Child("projected", "sources").Index(j).Child("serviceAccountToken"),
						"must not be specified when serviceAccountName is not set"))
				}
			}
		}
	}
	errs = append(errs, trimmedImages(c.spec.Containers, path.Child("containers"))...)
	return append(errs, trimmedImages(c.spec.InitContainers, path.Child("initContainers"))...)
}

func trimmedImages(containers []corev1.Container, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range containers {
		errs = append(errs, trimmedImage(&containers[i], path.Index(i))...)
	}
	return errs
}

func trimmedImage(ctr *corev1.Container, at *field.Path) field.ErrorList {
	if strings.TrimSpace(ctr.Image) == ctr.Image {
		return nil
	}
	return field.ErrorList{field.Invalid(at.Child("image"), ctr.Image, "must not have leading or trailing whitespace")}
}

// checkHostNetwork: in the network of the host, a port of a container is the same port of the host.
func (c *checker) checkHostNetwork(path *field.Path) field.ErrorList {
	s := c.spec
	var errs field.ErrorList
	if s.HostNetwork {
		errs = append(errs, hostPortsSame(s.Containers, path.Child("containers"))...)
		errs = append(errs, hostPortsSame(s.InitContainers, path.Child("initContainers"))...)
	}
	return errs
}

// checkContainer checks what all sorts of containers have.
func (c *checker) checkContainer(ctr *corev1.Container, at *field.Path) field.ErrorList {
	errs := check.RequiredForm(ctr.Name, at.Child("name"), check.Label)
	errs = append(errs, check.Required(ctr.Image, at.Child("image"))...)
	errs = append(errs, check.RequiredOneOf(ctr.TerminationMessagePolicy, at.Child("terminationMessagePolicy"),
		corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)...)
	errs = append(errs, checkPorts(ctr.Ports, at.Child("ports"))...)
	errs = append(errs, c.checkEnv(ctr.Env, at.Child("env"))...)
	errs = append(errs, c.checkEnvFrom(ctr.EnvFrom, at.Child("envFrom"))...)
	errs = append(errs, c.checkMounts(ctr, at.Child("volumeMounts"))...)
	errs = append(errs, c.checkDevices(ctr, at.Child("volumeDevices"))...)
	errs = append(errs, check.RequiredOneOf(ctr.ImagePullPolicy, at.Child("imagePullPolicy"),
		corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)...)
	errs = append(errs, check.ContainerResources(&ctr.Resources, at.Child("resources"), nil, c.before != nil && oddPages(c.before))...)
	errs = append(errs, c.checkResourceClaims(ctr.Resources.Claims, at.Child("resources", "claims"))...)
	errs = append(errs, c.checkResizePolicy(ctr.ResizePolicy, at.Child("resizePolicy"))...)
	return append(errs, c.checkSecurity(ctr.SecurityContext, at.Child("securityContext"))...)
}

// onlyOnce wants that no container before had the name.
func onlyOnce(name string, names map[string]bool, at *field.Path) field.ErrorList {
	if names[name] {
		return field.ErrorList{field.Duplicate(at.Child("name"), name)}
	}
	names[name] = true
	return nil
}

// checkInitContainer checks the init container i. Parity: host ports used twice are reported as those of the first.
func (c *checker) checkInitContainer(i int, names map[string]bool, path *field.Path) field.ErrorList {
	ctr, at := &c.spec.InitContainers[i], path.Index(i)
	errs := c.checkContainer(ctr, at)
	errs = append(errs, c.checkRestart(ctr, at, true)...)
	errs = append(errs, onlyOnce(ctr.Name, names, at)...)
	errs = append(errs, hostPortsOnce(c.spec.InitContainers[i:i+1], path)...)
	if Restartable(ctr) {
		errs = append(errs, c.checkLifecycle(ctr.Lifecycle, at.Child("lifecycle"))...)
		return append(errs, c.checkProbes(ctr, at)...)
	}
	const text = "may not be set for init containers without restartPolicy=Always"
	forbid := func(set bool, name string) {
		if set {
			errs = append(errs, field.Forbidden(at.Child(name), text))
		}
	}
	forbid(ctr.Lifecycle != nil, "lifecycle")
	forbid(ctr.LivenessProbe != nil, "livenessProbe")
	forbid(ctr.ReadinessProbe != nil, "readinessProbe")
	forbid(ctr.StartupProbe != nil, "startupProbe")
	if len(ctr.ResizePolicy) > 0 {
		errs = append(errs, field.Invalid(at.Child("resizePolicy"), check.GoNames(ctr.ResizePolicy), "must not be set for init containers"))
	}
	return errs
}

// checkEphemeral: an ephemeral container is for looking around. It takes no part in the pod's life.
func (c *checker) checkEphemeral(e *corev1.EphemeralContainer, names map[string]bool, at *field.Path) field.ErrorList {
	ctr := (*corev1.Container)(&e.EphemeralContainerCommon)
	errs := c.checkContainer(ctr, at)
	errs = append(errs, trimmedImage(ctr, at)...)
	errs = append(errs, onlyOnce(ctr.Name, names, at)...)
	if e.TargetContainerName != "" && !c.hasContainer(e.TargetContainerName) {
		errs = append(errs, field.NotFound(at.Child("targetContainerName"), e.TargetContainerName))
	}
	forbid := func(set bool, name string) {
		if set {
			errs = append(errs, field.Forbidden(at.Child(name), "cannot be set for an Ephemeral Container"))
		}
	}
	forbid(len(ctr.Ports) > 0, "ports")
	forbid(len(ctr.Resources.Limits)+len(ctr.Resources.Requests)+len(ctr.Resources.Claims) > 0, "resources")
	forbid(len(ctr.ResizePolicy) > 0, "resizePolicy")
	forbid(ctr.RestartPolicy != nil, "restartPolicy")
	forbid(len(ctr.RestartPolicyRules) > 0, "restartPolicyRules")
	forbid(ctr.LivenessProbe != nil, "livenessProbe")
	forbid(ctr.ReadinessProbe != nil, "readinessProbe")
	forbid(ctr.StartupProbe != nil, "startupProbe")
	forbid(ctr.Lifecycle != nil, "lifecycle")
	for i, m := range ctr.VolumeMounts {
		if m.SubPath != "" {
			errs = append(errs, field.Forbidden(at.Child("volumeMounts").Index(i).Child("subPath"), "cannot be set for an Ephemeral Container"))
		}
		if m.SubPathExpr != "" {
			errs = append(errs, field.Forbidden(at.Child("volumeMounts").Index(i).Child("subPathExpr"), "cannot be set for an Ephemeral Container"))
		}
	}
	return errs
}

func (c *checker) hasContainer(name string) bool {
	same := func(ctr corev1.Container) bool { return ctr.Name == name }
	return slices.ContainsFunc(c.spec.Containers, same) || slices.ContainsFunc(c.spec.InitContainers, same)
}

func (c *checker) checkRestart(ctr *corev1.Container, at *field.Path, init bool) field.ErrorList {
	var errs field.ErrorList
	policy, rules := at.Child("restartPolicy"), at.Child("restartPolicyRules")
	if ctr.RestartPolicy == nil {
		if len(ctr.RestartPolicyRules) > 0 {
			errs = append(errs, field.Required(policy, "must specify restartPolicy when restart rules are used"))
		}
		return errs
	}
	errs = append(errs, check.OneOf(*ctr.RestartPolicy, policy, corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure)...)
	if init && Restartable(ctr) && len(ctr.RestartPolicyRules) > 0 {
		return append(errs, field.Forbidden(rules, "restartPolicyRules are not allowed for init containers with restart policy Always"))
	}
	if len(ctr.RestartPolicyRules) > maxRestartRules {
		errs = append(errs, field.TooMany(rules, len(ctr.RestartPolicyRules), maxRestartRules))
	}
	for i, rule := range ctr.RestartPolicyRules {
		here := rules.Index(i)
		errs = append(errs, check.RequiredOneOf(rule.Action, here.Child("action"),
			corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers)...)
		codes := here.Child("exitCodes")
		if rule.ExitCodes == nil {
			errs = append(errs, field.Required(codes, "must be specified"))
			continue
		}
		errs = append(errs, check.RequiredOneOf(rule.ExitCodes.Operator, codes.Child("operator"),
			corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn)...)
		switch n := len(rule.ExitCodes.Values); {
		case n == 0:
			errs = append(errs, field.Required(codes.Child("values"), "must be specified"))
		case n > maxRestartExitCodes:
			errs = append(errs, field.TooMany(codes.Child("values"), n, maxRestartExitCodes))
		}
	}
	return errs
}

func checkPorts(ports []corev1.ContainerPort, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := map[string]bool{}
	for i, p := range ports {
		at := path.Index(i)
		if p.Name != "" {
			messages := validation.IsValidPortName(p.Name)
			errs = append(errs, check.Each(at.Child("name"), p.Name, messages)...)
			if messages == nil {
				if names[p.Name] {
					errs = append(errs, field.Duplicate(at.Child("name"), p.Name))
				}
				names[p.Name] = true
			}
		}
		if p.ContainerPort == 0 {
			errs = append(errs, field.Required(at.Child("containerPort"), ""))
		} else {
			errs = append(errs, check.Port(p.ContainerPort, at.Child("containerPort"))...)
		}
		if p.HostPort != 0 {
			errs = append(errs, check.Port(p.HostPort, at.Child("hostPort"))...)
		}
		errs = append(errs, check.RequiredOneOf(p.Protocol, at.Child("protocol"), corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
	}
	return errs
}

// hostPortsOnce wants that no two containers claim the same port of the host.
func hostPortsOnce(containers []corev1.Container, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i := range containers {
		for j, p := range containers[i].Ports {
			if p.HostPort == 0 {
				continue
			}
			key := fmt.Sprintf("%s/%s/%d", p.Protocol, p.HostIP, p.HostPort)
			if seen[key] {
				errs = append(errs, field.Duplicate(path.Index(i).Child("ports").Index(j).Child("hostPort"), key))
			}
			seen[key] = true
		}
	}
	return errs
}

func hostPortsSame(containers []corev1.Container, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range containers {
		for j, p := range containers[i].Ports {
			if p.HostPort != 0 && p.HostPort != p.ContainerPort {
				errs = append(errs, field.Invalid(path.Index(i).Child("ports").Index(j).Child("hostPort"), p.HostPort, "must match `containerPort` when `hostNetwork` is true"))
			}
		}
	}
	return errs
}

// checkResourceClaims wants that a container uses claims of its pod, each once.
func (c *checker) checkResourceClaims(claims []corev1.ResourceClaim, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[corev1.ResourceClaim]bool{}
	for i, claim := range claims {
		at := path.Index(i)
		if claim.Name == "" {
			errs = append(errs, field.Required(at, ""))
			continue
		}
		whole := corev1.ResourceClaim{Name: claim.Name}
		if seen[claim] || seen[whole] {
			errs = append(errs, field.Duplicate(at, claim.Name))
		}
		seen[claim] = true
		if !c.claims[claim.Name] {
			e := field.NotFound(at, claim.Name)
			known := slices.Sorted(maps.Keys(c.claims))
			if len(known) == 0 {
				e.Detail = "must be one of the names in pod.spec.resourceClaims which is empty"
			} else {
				e.Detail = "must be one of the names in pod.spec.resourceClaims: " + strings.Join(known, ", ")
			}
			errs = append(errs, e)
		}
	}
	return errs
}

// checkResizePolicy. Parity: only a repeated resource is reported with its index.
func (c *checker) checkResizePolicy(policies []corev1.ContainerResizePolicy, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[corev1.ResourceName]bool{}
	for i, p := range policies {
		if seen[p.ResourceName] {
			errs = append(errs, field.Duplicate(path.Index(i), p.ResourceName))
		}
		seen[p.ResourceName] = true
		errs = append(errs, check.RequiredOneOf(p.ResourceName, path, corev1.ResourceCPU, corev1.ResourceMemory)...)
		errs = append(errs, check.RequiredOneOf(p.RestartPolicy, path, corev1.NotRequired, corev1.RestartContainer)...)
		if c.spec.RestartPolicy == corev1.RestartPolicyNever && p.RestartPolicy != corev1.NotRequired {
			errs = append(errs, field.Invalid(path, p.RestartPolicy, "must be 'NotRequired' when `restartPolicy` is 'Never'"))
		}
	}
	return errs
}

func (c *checker) privileged(ctr *corev1.Container) bool {
	return ctr.SecurityContext != nil && ptr.Deref(ctr.SecurityContext.Privileged, false)
}
