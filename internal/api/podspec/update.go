package podspec

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

const textPodUpdate = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"

const textContainerCount = "pod updates may not add or remove containers"

// ValidatePodUpdate checks an update through the main door: hardly anything of a pod may change.
func ValidatePodUpdate(p, old *corev1.Pod, rules Rules) field.ErrorList {
	spec := field.NewPath("spec")
	errs := validatePod(p, old, rules)
	errs = append(errs, keepAnnotations(p, old)...)
	if len(p.Spec.Containers) != len(old.Spec.Containers) {
		return append(errs, field.Forbidden(spec.Child("containers"), textContainerCount))
	}
	if len(p.Spec.InitContainers) != len(old.Spec.InitContainers) {
		return append(errs, field.Forbidden(spec.Child("initContainers"), textContainerCount))
	}
	deadline := deadlineOnlyShorter(p.Spec.ActiveDeadlineSeconds, old.Spec.ActiveDeadlineSeconds, spec.Child("activeDeadlineSeconds"))
	if errs = append(errs, deadline...); deadline != nil && p.Spec.ActiveDeadlineSeconds != nil {
		return errs
	}
	errs = append(errs, tolerationsOnlyAdded(p.Spec.Tolerations, old.Spec.Tolerations, spec.Child("tolerations"))...)
	gated := len(old.Spec.SchedulingGates) > 0
	errs = append(errs, gatesOnlyRemoved(p.Spec.SchedulingGates, old.Spec.SchedulingGates, spec.Child("schedulingGates"))...)

	if !gated && object.Equal(&p.Spec, &old.Spec) {
		return errs
	}
	// What may change is put back; what differs then was not allowed to change.
	put := p.Spec.DeepCopy()
	for i := range put.Containers {
		put.Containers[i].Image = old.Spec.Containers[i].Image
	}
	for i := range put.InitContainers {
		put.InitContainers[i].Image = old.Spec.InitContainers[i].Image
	}
	put.ActiveDeadlineSeconds = old.Spec.ActiveDeadlineSeconds
	put.Tolerations = old.Spec.Tolerations
	put.SchedulingGates = old.Spec.SchedulingGates
	if ptr.Deref(old.Spec.TerminationGracePeriodSeconds, 0) < 0 && ptr.Deref(put.TerminationGracePeriodSeconds, 0) == 1 {
		put.TerminationGracePeriodSeconds = old.Spec.TerminationGracePeriodSeconds
	}
	if gated {
		errs = append(errs, placementOnlyNarrower(put, &old.Spec, spec)...)
	}
	if object.Equal(put, &old.Spec) {
		return errs
	}
	return append(errs, field.Forbidden(spec, textPodUpdate+"\n"+check.Diff(old.Spec, *put)))
}

// keepAnnotations wants that annotations which say how a pod is run stay as they are.
func keepAnnotations(p, old *corev1.Pod) field.ErrorList {
	at := field.NewPath("metadata", "annotations")
	kept := func(key string) (what string, kept bool) {
		switch {
		case strings.HasPrefix(key, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix):
			return "AppArmor annotations", true
		case key == corev1.MirrorPodAnnotationKey:
			return "mirror pod annotation", true
		}
		return "", false
	}
	var errs field.ErrorList
	for _, k := range check.Sorted(old.Annotations) {
		value, found := p.Annotations[k]
		if what, ok := kept(k); ok && (!found || value != old.Annotations[k]) {
			errs = append(errs, field.Forbidden(at.Key(k), "may not remove or update "+what))
		}
	}
	for _, k := range check.Sorted(p.Annotations) {
		_, found := old.Annotations[k]
		if what, ok := kept(k); ok && !found {
			errs = append(errs, field.Forbidden(at.Key(k), "may not add "+what))
		}
	}
	return errs
}

func deadlineOnlyShorter(value, old *int64, at *field.Path) field.ErrorList {
	switch {
	case value == nil && old == nil:
	case value == nil:
		return field.ErrorList{field.Invalid(at, value, "must not update from a positive integer to nil value")}
	case *value < 0 || *value > math.MaxInt32:
		return check.Range(*value, 0, math.MaxInt32, at)
	case old != nil && *value > *old:
		return field.ErrorList{field.Invalid(at, *value, "must be less than or equal to previous value")}
	}
	return nil
}

func tolerationsOnlyAdded(tolerations, old []corev1.Toleration, at *field.Path) field.ErrorList {
	for _, o := range old {
		o.TolerationSeconds = nil
		same := func(t corev1.Toleration) bool {
			t.TolerationSeconds = nil
			return t == o
		}
		if !slices.ContainsFunc(tolerations, same) {
			return field.ErrorList{field.Forbidden(at, "existing toleration can not be modified except its tolerationSeconds")}
		}
	}
	return nil
}

func gatesOnlyRemoved(gates, old []corev1.PodSchedulingGate, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, g := range gates {
		if !slices.Contains(old, g) {
			errs = append(errs, field.Forbidden(at.Index(i).Child("name"), fmt.Sprintf("only deletion is allowed, but found new scheduling gate '%s'", g.Name)))
		}
	}
	return errs
}

// placementOnlyNarrower: while a pod waits at a gate (KEP-3838), the nodes that it may go to can become fewer. What is
// allowed is put back in put.
func placementOnlyNarrower(put, old *corev1.PodSpec, spec *field.Path) field.ErrorList {
	var errs field.ErrorList
	if !equality.Semantic.DeepEqual(put.NodeSelector, old.NodeSelector) {
		for k, v := range old.NodeSelector {
			if put.NodeSelector[k] != v {
				errs = append(errs, field.Invalid(spec.Child("nodeSelector"), put.NodeSelector, "only additions to spec.nodeSelector are allowed (no mutations or deletions)"))
				break
			}
		}
		put.NodeSelector = old.NodeSelector
	}
	var now, before *corev1.NodeAffinity
	if put.Affinity != nil {
		now = put.Affinity.NodeAffinity
	}
	if old.Affinity != nil {
		before = old.Affinity.NodeAffinity
	}
	if equality.Semantic.DeepEqual(now, before) {
		return errs
	}
	errs = append(errs, affinityOnlyNarrower(now, before, spec.Child("affinity", "nodeAffinity"))...)
	switch {
	case put.Affinity == nil && old.Affinity.PodAntiAffinity == nil && old.Affinity.PodAffinity == nil:
		put.Affinity = old.Affinity
	case put.Affinity == nil:
		put.Affinity = &corev1.Affinity{NodeAffinity: before}
	default:
		put.Affinity = put.Affinity.DeepCopy()
		put.Affinity.NodeAffinity = before
		if old.Affinity == nil && *put.Affinity == (corev1.Affinity{}) {
			put.Affinity = nil
		}
	}
	return errs
}

func affinityOnlyNarrower(now, before *corev1.NodeAffinity, at *field.Path) field.ErrorList {
	if before == nil || before.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return nil
	}
	here := at.Child("requiredDuringSchedulingIgnoredDuringExecution")
	var terms []corev1.NodeSelectorTerm
	if now != nil && now.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		terms = now.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	}
	was := before.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	if len(was) > 0 && len(terms) != len(was) {
		return field.ErrorList{field.Invalid(here.Child("nodeSelectorTerms"), check.GoNames(terms), "no additions/deletions to non-empty NodeSelectorTerms list are allowed")}
	}
	var errs field.ErrorList
	prefix := func(a, b []corev1.NodeSelectorRequirement) bool {
		return len(a) >= len(b) && equality.Semantic.DeepEqual(a[:len(b)], b)
	}
	for i := range was {
		empty := len(was[i].MatchExpressions)+len(was[i].MatchFields) == 0
		grown := len(terms[i].MatchExpressions)+len(terms[i].MatchFields) > 0
		if empty && grown || !prefix(terms[i].MatchExpressions, was[i].MatchExpressions) || !prefix(terms[i].MatchFields, was[i].MatchFields) {
			errs = append(errs, field.Invalid(here.Child("nodeSelectorTerms").Index(i), check.GoNames(terms[i]), "only additions are allowed (no mutations or deletions)"))
		}
	}
	return errs
}

// ValidatePodStatusUpdate checks what a node agent says about a pod.
func ValidatePodStatusUpdate(p, old *corev1.Pod, _ Rules) field.ErrorList {
	status := field.NewPath("status")
	errs := keepAnnotations(p, old)
	errs = append(errs, validateAnnotations(p.Annotations, old.Annotations, &p.Spec, field.NewPath("metadata", "annotations"))...)
	errs = append(errs, checkConditionTypes(p.Status.Conditions, field.NewPath("metadata", "conditions"))...)
	if p.Spec.NodeName != old.Spec.NodeName {
		errs = append(errs, field.Forbidden(status.Child("nodeName"), "may not be changed directly"))
	}
	if n := p.Status.NominatedNodeName; n != "" && n != old.Status.NominatedNodeName {
		errs = append(errs, check.Each(status.Child("nominatedNodeName"), n, check.SubdomainName(n, false))...)
	}
	if p.Status.ObservedGeneration < 0 {
		errs = append(errs, check.NonNegative(p.Status.ObservedGeneration, status.Child("observedGeneration"))...)
	}
	for i, c := range p.Status.Conditions {
		errs = append(errs, check.NonNegative(c.ObservedGeneration, status.Child("conditions").Index(i).Child("observedGeneration"))...)
	}
	errs = append(errs, noReturn(p.Status.ContainerStatuses, old.Status.ContainerStatuses, &old.Spec, status.Child("containerStatuses"))...)
	errs = append(errs, noReturnInit(p.Status.InitContainerStatuses, old.Status.InitContainerStatuses, &old.Spec, status.Child("initContainerStatuses"))...)
	errs = append(errs, checkPodIPs(&p.Status, &old.Status, status)...)
	if old.Status.QOSClass != "" && p.Status.QOSClass != old.Status.QOSClass {
		errs = append(errs, field.Invalid(status.Child("qosClass"), p.Status.QOSClass, validation.FieldImmutableErrorMsg))
	}
	return append(errs, checkClaimStatuses(p, status.Child("resourceClaimStatuses"))...)
}

// checkConditionTypes. Parity: the path says metadata.
func checkConditionTypes(conditions []corev1.PodCondition, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, c := range conditions {
		switch c.Type {
		case corev1.PodScheduled, corev1.PodReady, corev1.PodInitialized:
		default:
			errs = append(errs, check.Each(path.Index(i).Child("Type"), c.Type, check.QualifiedName(string(c.Type)))...)
		}
	}
	return errs
}

// noReturn: a container that ended for good does not run again.
func noReturn(now, before []corev1.ContainerStatus, s *corev1.PodSpec, path *field.Path) field.ErrorList {
	if s.RestartPolicy == corev1.RestartPolicyAlways {
		return nil
	}
	var errs field.ErrorList
	for i, b := range before {
		if b.State.Terminated == nil || b.State.Terminated.ExitCode != 0 && s.RestartPolicy == corev1.RestartPolicyOnFailure || restarts(s, b.Name) {
			continue
		}
		for _, n := range now {
			if n.Name == b.Name && n.State.Terminated == nil {
				errs = append(errs, field.Forbidden(path.Index(i).Child("state"), "may not be transitioned to non-terminated state"))
			}
		}
	}
	return errs
}

// restarts reports whether the container has a restart policy of its own.
func restarts(s *corev1.PodSpec, name string) bool {
	own := false
	eachLifecycle(s, func(c *corev1.Container) { own = own || c.Name == name && c.RestartPolicy != nil })
	return own
}

func noReturnInit(now, before []corev1.ContainerStatus, s *corev1.PodSpec, path *field.Path) field.ErrorList {
	if s.RestartPolicy != corev1.RestartPolicyNever {
		return nil
	}
	return noReturn(now, before, s, path)
}

func checkPodIPs(s, old *corev1.PodStatus, path *field.Path) field.ErrorList {
	pods, hosts := path.Child("podIPs"), path.Child("hostIPs")
	errs := checkFamilies(podIPs(s), podIPs(old), check.GoNames(s.PodIPs), pods)
	if len(s.HostIPs) > 0 && s.HostIP != s.HostIPs[0].IP {
		errs = append(errs, field.Invalid(hosts.Index(0).Child("ip"), s.HostIPs[0].IP, "must be equal to `hostIP`"))
	}
	return append(errs, checkFamilies(hostIPs(s), hostIPs(old), check.GoNames(s.HostIPs), hosts)...)
}

// checkFamilies wants one address of each family at most; whole is the value that answers quote.
func checkFamilies(ips, before []string, whole any, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, ip := range ips {
		errs = append(errs, check.IP(ip, at.Index(i), before...)...)
	}
	if v4, v6 := check.Families(ips); v4 > 1 || v6 > 1 {
		errs = append(errs, field.Invalid(at, whole, "may specify no more than one IP for each IP family"))
	}
	for i, ip := range ips {
		if slices.Contains(ips[:i], ip) {
			errs = append(errs, field.Duplicate(at.Index(i), check.GoNames(corev1.PodIP{IP: ip})))
		}
	}
	return errs
}

func podIPs(s *corev1.PodStatus) (ips []string) {
	for _, ip := range s.PodIPs {
		ips = append(ips, ip.IP)
	}
	return ips
}

func hostIPs(s *corev1.PodStatus) (ips []string) {
	for _, ip := range s.HostIPs {
		ips = append(ips, ip.IP)
	}
	return ips
}

func checkClaimStatuses(p *corev1.Pod, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, s := range p.Status.ResourceClaimStatuses {
		at := path.Index(i)
		if seen[s.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), s.Name))
		}
		seen[s.Name] = true
		if !slices.ContainsFunc(p.Spec.ResourceClaims, func(c corev1.PodResourceClaim) bool { return c.Name == s.Name }) {
			errs = append(errs, field.Invalid(at.Child("name"), s.Name, "must match the name of an entry in `spec.resourceClaims`"))
		}
		if s.ResourceClaimName != nil {
			errs = append(errs, check.Each(at.Child("name"), *s.ResourceClaimName, check.Subdomain(*s.ResourceClaimName))...)
		}
	}
	return errs
}

// ValidateEphemeralUpdate checks that ephemeral containers are only added.
func ValidateEphemeralUpdate(p, old *corev1.Pod, rules Rules) field.ErrorList {
	path := field.NewPath("spec", "ephemeralContainers")
	if _, mirror := old.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods do not support ephemeral containers")}
	}
	errs := validatePod(p, old, rules)
	errs = append(errs, keepAnnotations(p, old)...)
	now := map[string]*corev1.EphemeralContainer{}
	for i := range p.Spec.EphemeralContainers {
		now[p.Spec.EphemeralContainers[i].Name] = &p.Spec.EphemeralContainers[i]
	}
	for i := range old.Spec.EphemeralContainers {
		o := &old.Spec.EphemeralContainers[i]
		switch n := now[o.Name]; {
		case n == nil:
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("existing ephemeral containers %q may not be removed\n", o.Name)))
		case !equality.Semantic.DeepEqual(n, o):
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("existing ephemeral containers %q may not be changed\n%s", o.Name, check.Diff(o, n))))
		}
	}
	return errs
}

// ValidateResize checks a change of the resources of a running pod (KEP-1287, KEP-5419).
func ValidateResize(p, old *corev1.Pod, rules Rules) field.ErrorList {
	spec := field.NewPath("spec")
	errs := validatePod(p, old, rules)
	if _, mirror := old.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods cannot be resized")}
	}
	if old.Spec.OS != nil && old.Spec.OS.Name == corev1.Windows {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "windows pods cannot be resized")}
	}
	if len(p.Spec.Containers) != len(old.Spec.Containers) {
		return append(errs, field.Forbidden(spec.Child("containers"), "containers may not be added or removed on resize"))
	}
	if len(p.Spec.InitContainers) != len(old.Spec.InitContainers) {
		return append(errs, field.Forbidden(spec.Child("initContainers"), "initContainers may not be added or removed on resize"))
	}
	if class := QOSClass(&p.Spec); class != QOSClass(&old.Spec) {
		errs = append(errs, field.Invalid(spec, old.Status.QOSClass, "Pod QOS Class may not change as a result of resizing"))
	}
	each := func(f func(now, before *corev1.Container, at *field.Path, init bool)) {
		for i := range p.Spec.Containers {
			f(&p.Spec.Containers[i], &old.Spec.Containers[i], spec.Child("containers").Index(i), false)
		}
		for i := range p.Spec.InitContainers {
			f(&p.Spec.InitContainers[i], &old.Spec.InitContainers[i], spec.Child("initContainers").Index(i), true)
		}
	}
	each(func(now, before *corev1.Container, at *field.Path, _ bool) {
		errs = append(errs, nothingRemoved(&now.Resources, &before.Resources, at.Child("resources"))...)
	})
	each(func(now, before *corev1.Container, _ *field.Path, init bool) {
		switch {
		case init && !Restartable(before):
			if !equality.Semantic.DeepEqual(now.Resources, before.Resources) {
				errs = append(errs, field.Forbidden(spec, "resources for non-sidecar init containers are immutable"))
			}
		case sameButCompute(&now.Resources, &before.Resources):
		case init:
			errs = append(errs, field.Forbidden(spec, "only cpu and memory resources for sidecar containers are mutable"))
		default:
			errs = append(errs, field.Forbidden(spec, "only cpu and memory resources are mutable"))
		}
	})
	if now, before := p.Spec.Resources, old.Spec.Resources; before != nil {
		if now == nil {
			now = &corev1.ResourceRequirements{}
		}
		errs = append(errs, nothingRemoved(now, before, spec.Child("resources"))...)
		if !sameButCompute(now, before) {
			errs = append(errs, field.Forbidden(spec, "only cpu and memory resources are mutable"))
		}
	}
	return errs
}

// nothingRemoved: what was asked for once can become more or less, it cannot be taken back.
func nothingRemoved(now, before *corev1.ResourceRequirements, at *field.Path) field.ErrorList {
	removed := func(now, before corev1.ResourceList) bool {
		for name := range before {
			if _, found := now[name]; !found {
				return true
			}
		}
		return false
	}
	var errs field.ErrorList
	if removed(now.Requests, before.Requests) {
		errs = append(errs, field.Forbidden(at.Child("requests"), "resource requests cannot be removed"))
	}
	if removed(now.Limits, before.Limits) {
		errs = append(errs, field.Forbidden(at.Child("limits"), "resource limits cannot be removed"))
	}
	return errs
}

// sameButCompute reports whether nothing but cpu and memory differs.
func sameButCompute(now, before *corev1.ResourceRequirements) bool {
	rest := func(r *corev1.ResourceRequirements) *corev1.ResourceRequirements {
		out := r.DeepCopy()
		for _, list := range []corev1.ResourceList{out.Requests, out.Limits} {
			delete(list, corev1.ResourceCPU)
			delete(list, corev1.ResourceMemory)
		}
		return out
	}
	a, b := rest(now), rest(before)
	return equality.Semantic.DeepEqual(a, b)
}
