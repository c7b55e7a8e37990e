package core

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/timonel/timonel/internal/api/check"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// clusterFamilies are the IP families of the cluster, the primary one first.
type clusterFamilies []corev1.IPFamily

func familiesOf(ranges []netip.Prefix) clusterFamilies {
	var families clusterFamilies
	for _, r := range ranges {
		f := corev1.IPv4Protocol
		if r.Addr().Is6() {
			f = corev1.IPv6Protocol
		}
		if !slices.Contains(families, f) {
			families = append(families, f)
		}
	}
	if families == nil {
		families = clusterFamilies{corev1.IPv4Protocol}
	}
	return families
}

func other(f corev1.IPFamily) corev1.IPFamily {
	if f == corev1.IPv4Protocol {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}

// fill chooses the policy and the families of a Service where the client left them open (KEP-563). What contradicts
// itself stays as it is, for validation to refuse.
func (c clusterFamilies) fill(s, old *corev1.Service) {
	spec := &s.Spec
	if !wantsClusterIP(s) {
		return
	}
	if old != nil && wantsClusterIP(old) { // what was decided stays decided
		if spec.IPFamilyPolicy == nil {
			spec.IPFamilyPolicy = old.Spec.IPFamilyPolicy
		}
		if len(spec.IPFamilies) == 0 {
			spec.IPFamilies = old.Spec.IPFamilies
		}
		single := ptr.Deref(spec.IPFamilyPolicy, "") == corev1.IPFamilyPolicySingleStack
		if was := ptr.Deref(old.Spec.IPFamilyPolicy, ""); single && was != corev1.IPFamilyPolicySingleStack && was != "" {
			c.shrink(s, old)
		}
	}
	if headless(s) && len(spec.Selector) == 0 && spec.IPFamilyPolicy == nil && len(spec.IPFamilies) < 2 {
		// Nothing else says which families the endpoints will have.
		spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicyRequireDualStack)
	}
	if spec.IPFamilyPolicy == nil {
		policy := corev1.IPFamilyPolicySingleStack
		if len(spec.ClusterIPs) > 1 || len(spec.IPFamilies) > 1 {
			policy = corev1.IPFamilyPolicyRequireDualStack
		}
		spec.IPFamilyPolicy = &policy
	}
	for i, ip := range spec.ClusterIPs {
		if ip != corev1.ClusterIPNone && i == len(spec.IPFamilies) && check.IP(ip, nil) == nil {
			spec.IPFamilies = append(spec.IPFamilies, ipFamily(ip))
		}
	}
	if len(spec.IPFamilies) == 0 {
		spec.IPFamilies = []corev1.IPFamily{c[0]}
	}
	dual := *spec.IPFamilyPolicy == corev1.IPFamilyPolicyPreferDualStack || *spec.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack
	anyFamily := headless(s) && len(spec.Selector) == 0
	if dual && len(spec.IPFamilies) == 1 && (len(c) > 1 || anyFamily) {
		spec.IPFamilies = append(slices.Clip(spec.IPFamilies), other(spec.IPFamilies[0]))
	}
}

// shrink gives up the second family of a Service that becomes single-stack.
func (c clusterFamilies) shrink(s, old *corev1.Service) {
	spec := &s.Spec
	if len(spec.IPFamilies) == 2 && slices.Equal(spec.IPFamilies, old.Spec.IPFamilies) {
		spec.IPFamilies = spec.IPFamilies[:1]
	}
	if len(spec.ClusterIPs) == 2 && slices.Equal(spec.ClusterIPs, old.Spec.ClusterIPs) {
		spec.ClusterIPs = spec.ClusterIPs[:1]
	}
}

// validate checks policy, families and addresses against each other and against the cluster.
func (c clusterFamilies) validate(s *corev1.Service, old []string, path *field.Path) field.ErrorList {
	spec := &s.Spec
	policyPath, familiesPath := path.Child("ipFamilyPolicy"), path.Child("ipFamilies")
	if spec.Type == corev1.ServiceTypeExternalName { // has neither
		return nil
	}
	policy := ptr.Deref(spec.IPFamilyPolicy, "")
	errs := validateOneClusterIP(spec, path)
	for i, f := range spec.IPFamilies {
		errs = append(errs, check.OneOf(f, familiesPath.Index(i), corev1.IPv4Protocol, corev1.IPv6Protocol)...)
		if slices.Contains(spec.IPFamilies[:i], f) {
			errs = append(errs, field.Duplicate(familiesPath.Index(i), f))
		}
	}
	if policy != "" {
		errs = append(errs, check.OneOf(policy, policyPath, corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack, corev1.IPFamilyPolicySingleStack)...)
	}
	if errs = append(errs, validateClusterIPs(s, old, path)...); errs != nil {
		return errs
	}
	// What the cluster has to say is said of families that make sense.
	anyFamily := headless(s) && len(spec.Selector) == 0
	for i, f := range spec.IPFamilies {
		if !anyFamily && !slices.Contains(c, f) {
			errs = append(errs, field.Invalid(familiesPath.Index(i), f, "not configured on this cluster"))
		}
	}
	if policy == corev1.IPFamilyPolicyRequireDualStack && len(c) < 2 && !anyFamily {
		errs = append(errs, field.Invalid(policyPath, spec.IPFamilyPolicy, "this cluster is not configured for dual-stack services"))
	}
	if policy == corev1.IPFamilyPolicySingleStack {
		if len(spec.IPFamilies) == 2 {
			errs = append(errs, field.Invalid(policyPath, spec.IPFamilyPolicy, "must be RequireDualStack or PreferDualStack when multiple `ipFamilies` are specified"))
		}
		if len(spec.ClusterIPs) == 2 {
			errs = append(errs, field.Invalid(policyPath, spec.IPFamilyPolicy, "must be RequireDualStack or PreferDualStack when multiple `clusterIPs` are specified"))
		}
	}
	return errs
}

func forbidFamilies(s *corev1.Service, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	forbid := func(set bool, name string) {
		if set {
			errs = append(errs, field.Forbidden(path.Child(name), "may not be set for ExternalName services"))
		}
	}
	forbid(len(s.Spec.ClusterIPs) > 0 || s.Spec.ClusterIP != "", "clusterIPs")
	forbid(len(s.Spec.IPFamilies) > 0, "ipFamilies")
	forbid(s.Spec.IPFamilyPolicy != nil, "ipFamilyPolicy")
	return errs
}

// validateOneClusterIP wants the older field, for one address, to agree with the newer one.
func validateOneClusterIP(spec *corev1.ServiceSpec, path *field.Path) field.ErrorList {
	ips := path.Child("clusterIPs")
	switch {
	case len(spec.ClusterIPs) == 0 && spec.ClusterIP != "":
		return field.ErrorList{field.Required(ips, "")}
	case len(spec.ClusterIPs) > 0 && spec.ClusterIP == "":
		return field.ErrorList{field.Invalid(ips, spec.ClusterIPs, "must be empty when `clusterIP` is not specified")}
	case len(spec.ClusterIPs) > 0 && spec.ClusterIP != spec.ClusterIPs[0]:
		return field.ErrorList{field.Invalid(ips, spec.ClusterIPs, "first value must match `clusterIP`")}
	}
	return nil
}

func validateClusterIPs(s *corev1.Service, old []string, path *field.Path) field.ErrorList {
	spec := &s.Spec
	ips := path.Child("clusterIPs")
	var errs field.ErrorList
	bad := false
	for i, ip := range spec.ClusterIPs {
		if i == 0 && ip == corev1.ClusterIPNone {
			if len(spec.ClusterIPs) > 1 {
				bad = true
				errs = append(errs, field.Invalid(ips, spec.ClusterIPs, "'None' must be the first and only value"))
			}
			continue
		}
		if wrong := check.IP(ip, ips.Index(i), old...); wrong != nil {
			bad = true
			errs = append(errs, wrong...)
		}
	}
	if len(spec.ClusterIPs) > 2 {
		errs = append(errs, field.Invalid(ips, spec.ClusterIPs, "may only hold up to 2 values"))
	}
	if bad {
		return errs
	}
	if v4, v6 := check.Families(spec.ClusterIPs); v4 > 1 || v6 > 1 {
		errs = append(errs, field.Invalid(ips, spec.ClusterIPs, "may specify no more than one IP for each IP family"))
	}
	for i, ip := range spec.ClusterIPs {
		if i < len(spec.IPFamilies) && ip != corev1.ClusterIPNone && ipFamily(ip) != spec.IPFamilies[i] {
			errs = append(errs, field.Invalid(ips.Index(i), ip, fmt.Sprintf("expected an %s value as indicated by `ipFamilies[%d]`", spec.IPFamilies[i], i)))
		}
	}
	return errs
}
