package podspec

import (
	"fmt"
	"slices"

	"github.com/timonel/timonel/internal/api/check"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

const (
	minWeight, maxWeight = 1, 100
	textWeight           = "must be in the range 1-100"
)

func (c *checker) checkAffinity(path *field.Path) field.ErrorList {
	a := c.spec.Affinity
	if a == nil {
		return nil
	}
	var errs field.ErrorList
	if n := a.NodeAffinity; n != nil {
		at := path.Child("nodeAffinity")
		if r := n.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
			errs = append(errs, ValidateNodeSelector(r, c.before != nil && badNodeValues(c.before), at.Child("requiredDuringSchedulingIgnoredDuringExecution"))...)
		}
		for i, p := range n.PreferredDuringSchedulingIgnoredDuringExecution {
			here := at.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i)
			if p.Weight < minWeight || p.Weight > maxWeight {
				errs = append(errs, field.Invalid(here.Child("weight"), p.Weight, textWeight))
			}
			errs = append(errs, validateNodeTerm(&p.Preference, true, here.Child("preference"))...)
		}
	}
	terms := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm, at *field.Path) {
		for i := range required {
			errs = append(errs, c.checkTerm(&required[i], at.Child("requiredDuringSchedulingIgnoredDuringExecution").Index(i))...)
		}
		for i := range preferred {
			here := at.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i)
			if w := preferred[i].Weight; w < minWeight || w > maxWeight {
				errs = append(errs, field.Invalid(here.Child("weight"), w, textWeight))
			}
			errs = append(errs, c.checkTerm(&preferred[i].PodAffinityTerm, here.Child("podAffinityTerm"))...)
		}
	}
	if p := a.PodAffinity; p != nil {
		terms(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution, path.Child("podAffinity"))
	}
	if p := a.PodAntiAffinity; p != nil {
		terms(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution, path.Child("podAntiAffinity"))
	}
	return errs
}

// badNodeValues reports whether the specification requires values of node labels that no label can have.
func badNodeValues(s *corev1.PodSpec) bool {
	if s.Affinity == nil || s.Affinity.NodeAffinity == nil {
		return false
	}
	return BadNodeValues(s.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
}

// BadNodeValues reports whether a choice of nodes has values that no label can have: older servers took them.
func BadNodeValues(s *corev1.NodeSelector) bool {
	if s == nil {
		return false
	}
	for _, t := range s.NodeSelectorTerms {
		for _, e := range t.MatchExpressions {
			if slices.ContainsFunc(e.Values, func(v string) bool { return len(validation.IsValidLabelValue(v)) > 0 }) {
				return true
			}
		}
	}
	return false
}

// ValidateNodeSelector checks a choice of nodes (core/v1 NodeSelector); with anyValue, labels may have values that no label has.
func ValidateNodeSelector(s *corev1.NodeSelector, anyValue bool, path *field.Path) field.ErrorList {
	terms := path.Child("nodeSelectorTerms")
	if len(s.NodeSelectorTerms) == 0 {
		return field.ErrorList{field.Required(terms, "must have at least one node selector term")}
	}
	var errs field.ErrorList
	for i := range s.NodeSelectorTerms {
		errs = append(errs, validateNodeTerm(&s.NodeSelectorTerms[i], anyValue, terms.Index(i))...)
	}
	return errs
}

func validateNodeTerm(t *corev1.NodeSelectorTerm, anyValue bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i := range t.MatchExpressions {
		errs = append(errs, validateNodeRequirement(&t.MatchExpressions[i], anyValue, path.Child("matchExpressions").Index(i))...)
	}
	for i := range t.MatchFields {
		errs = append(errs, validateNodeField(&t.MatchFields[i], path.Child("matchFields").Index(i))...)
	}
	return errs
}

func validateNodeRequirement(r *corev1.NodeSelectorRequirement, anyValue bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	values := at.Child("values")
	switch r.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(r.Values) == 0 {
			errs = append(errs, field.Required(values, "must be specified when `operator` is 'In' or 'NotIn'"))
		}
	case corev1.NodeSelectorOpExists, corev1.NodeSelectorOpDoesNotExist:
		if len(r.Values) > 0 {
			errs = append(errs, field.Forbidden(values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"))
		}
	case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
		if len(r.Values) != 1 {
			errs = append(errs, field.Required(values, "must be specified single value when `operator` is 'Lt' or 'Gt'"))
		}
	default:
		errs = append(errs, field.Invalid(at.Child("operator"), r.Operator, "not a valid selector operator"))
	}
	errs = append(errs, metavalidation.ValidateLabelName(r.Key, at.Child("key"))...)
	if anyValue {
		return errs
	}
	for i, v := range r.Values {
		errs = append(errs, check.Each(values.Index(i), v, validation.IsValidLabelValue(v))...)
	}
	return errs
}

// validateNodeField checks a choice by a field of the node; there is one: its name.
func validateNodeField(r *corev1.NodeSelectorRequirement, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch r.Operator {
	case corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn:
		if len(r.Values) != 1 {
			errs = append(errs, field.Required(at.Child("values"), "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"))
		}
	default:
		errs = append(errs, field.Invalid(at.Child("operator"), r.Operator, "not a valid selector operator"))
	}
	if r.Key != metav1.ObjectNameField {
		return append(errs, field.Invalid(at.Child("key"), r.Key, "not a valid field selector key"))
	}
	for i, v := range r.Values {
		errs = append(errs, check.Each(at.Child("values").Index(i), v, check.SubdomainName(v, false))...)
	}
	return errs
}

func (c *checker) checkTerm(t *corev1.PodAffinityTerm, at *field.Path) field.ErrorList {
	errs := c.checkSelector(t.LabelSelector, at.Child("labelSelector"))
	errs = append(errs, c.checkSelector(t.NamespaceSelector, at.Child("namespaceSelector"))...)
	for _, ns := range t.Namespaces {
		errs = append(errs, check.Each(at.Child("namespace"), ns, check.Label(ns))...)
	}
	errs = append(errs, checkMatchKeys(t.MatchLabelKeys, t.LabelSelector, "matchLabelKeys", at)...)
	errs = append(errs, checkMatchKeys(t.MismatchLabelKeys, t.LabelSelector, "mismatchLabelKeys", at)...)
	for i, k := range t.MatchLabelKeys {
		if slices.Contains(t.MismatchLabelKeys, k) {
			errs = append(errs, field.Invalid(at.Child("matchLabelKeys").Index(i), k, "exists in both matchLabelKeys and mismatchLabelKeys"))
		}
	}
	if t.TopologyKey == "" {
		errs = append(errs, field.Required(at.Child("topologyKey"), "can not be empty"))
	}
	return append(errs, metavalidation.ValidateLabelName(t.TopologyKey, at.Child("topologyKey"))...)
}

// checkSelector accepts bad label values that the specification had before.
func (c *checker) checkSelector(s *metav1.LabelSelector, path *field.Path) field.ErrorList {
	var old *metav1.LabelSelector
	if c.before != nil {
		old = s
	}
	return check.Selector(s, old, path)
}

// checkMatchKeys checks the labels in the field called name whose values a pod's own labels decide (KEP-3633).
func checkMatchKeys(keys []string, selector *metav1.LabelSelector, name string, at *field.Path) field.ErrorList {
	path := at.Child(name)
	if len(keys) == 0 {
		return nil
	}
	if selector == nil {
		return field.ErrorList{field.Forbidden(path, "must not be specified when labelSelector is not set")}
	}
	var errs field.ErrorList
	for i, k := range keys {
		errs = append(errs, metavalidation.ValidateLabelName(k, path.Index(i))...)
		if mentions(selector, k) > 1 {
			errs = append(errs, field.Invalid(path.Index(i), k, fmt.Sprintf("exists in both %s and labelSelector", name)))
		}
	}
	return errs
}

// mentions counts the requirements of a selector on a label. One of them is what the key itself was turned into when the pod was made.
func mentions(selector *metav1.LabelSelector, key string) int {
	n := 0
	if _, found := selector.MatchLabels[key]; found {
		n++
	}
	for _, e := range selector.MatchExpressions {
		if e.Key == key {
			n++
		}
	}
	return n
}

func (c *checker) checkSpread(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	all := c.spec.TopologySpreadConstraints
	for i := range all {
		t, at := &all[i], path.Index(i)
		if t.MaxSkew <= 0 {
			errs = append(errs, field.Invalid(at.Child("maxSkew"), t.MaxSkew, "must be greater than zero"))
		}
		if t.TopologyKey == "" {
			errs = append(errs, field.Required(at.Child("topologyKey"), "can not be empty"))
		} else {
			errs = append(errs, metavalidation.ValidateLabelName(t.TopologyKey, at.Child("topologyKey"))...)
		}
		errs = append(errs, check.OneOf(t.WhenUnsatisfiable, at.Child("whenUnsatisfiable"), corev1.DoNotSchedule, corev1.ScheduleAnyway)...)
		for _, later := range all[i+1:] { // Parity: reported once for each later constraint, at the first
			if later.TopologyKey == t.TopologyKey && later.WhenUnsatisfiable == t.WhenUnsatisfiable {
				errs = append(errs, field.Duplicate(at.Child("{topologyKey, whenUnsatisfiable}"), fmt.Sprintf("{%v, %v}", t.TopologyKey, t.WhenUnsatisfiable)))
				break
			}
		}
		if d := t.MinDomains; d != nil {
			if *d <= 0 {
				errs = append(errs, field.Invalid(at.Child("minDomains"), *d, "must be greater than zero"))
			}
			if t.WhenUnsatisfiable != corev1.DoNotSchedule {
				errs = append(errs, field.Invalid(at.Child("minDomains"), d, fmt.Sprintf("can only use minDomains if whenUnsatisfiable=%s, not %s", corev1.DoNotSchedule, t.WhenUnsatisfiable)))
			}
		}
		policy := func(p *corev1.NodeInclusionPolicy, name string) {
			if p != nil {
				errs = append(errs, check.OneOf(*p, at.Child(name), corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore)...)
			}
		}
		policy(t.NodeAffinityPolicy, "nodeAffinityPolicy")
		policy(t.NodeTaintsPolicy, "nodeTaintsPolicy")
		errs = append(errs, checkMatchKeys(t.MatchLabelKeys, t.LabelSelector, "matchLabelKeys", at)...)
		if c.before == nil || !badSpread(c.before) {
			errs = append(errs, c.checkSelector(t.LabelSelector, at.Child("labelSelector"))...)
		}
	}
	return errs
}

// checkHostProcess checks Windows containers that run as processes of the host: either all of the pod's do, or none, and
// they need the network of the host.
func (c *checker) checkHostProcess(path *field.Path) field.ErrorList {
	s := c.spec
	var pod *bool
	if s.SecurityContext != nil && s.SecurityContext.WindowsOptions != nil {
		pod = s.SecurityContext.WindowsOptions.HostProcess
	}
	with, without := 0, 0
	var errs field.ErrorList
	c.eachContainer(path, func(ctr *corev1.Container, at *field.Path) {
		host := ptr.Deref(pod, false)
		if ctr.SecurityContext != nil && ctr.SecurityContext.WindowsOptions != nil && ctr.SecurityContext.WindowsOptions.HostProcess != nil {
			host = *ctr.SecurityContext.WindowsOptions.HostProcess
			if pod != nil && *pod != host {
				errs = append(errs, field.Invalid(at.Child("securityContext", "windowsOptions", "hostProcess"), host,
					fmt.Sprintf("pod hostProcess value must be identical if both are specified, was %v", *pod)))
			}
		}
		if host {
			with++
		} else {
			without++
		}
	})
	if with == 0 {
		return errs
	}
	if without > 0 {
		errs = append(errs, field.Invalid(path, "", "If pod contains any hostProcess containers then all containers must be HostProcess containers"))
	}
	if !s.HostNetwork {
		errs = append(errs, field.Invalid(path.Child("hostNetwork"), s.HostNetwork, "hostNetwork must be true if pod contains any hostProcess containers"))
	}
	if !c.AllowPrivileged {
		errs = append(errs, field.Forbidden(path, "hostProcess containers are disallowed by cluster policy"))
	}
	return errs
}
