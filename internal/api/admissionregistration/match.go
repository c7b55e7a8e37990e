package admissionregistration

import (
	"fmt"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

const maxMatchConditions = 64

func defaultSelector(s **metav1.LabelSelector) {
	if *s == nil {
		*s = &metav1.LabelSelector{}
	}
}

func defaultRule(r *admissionv1.Rule) {
	if r.Scope == nil {
		r.Scope = ptr.To(admissionv1.AllScopes)
	}
}

// defaultMatch fills in what is left out of what a policy or a binding matches.
func defaultMatch(m *admissionv1.MatchResources) {
	if m == nil {
		return
	}
	if m.MatchPolicy == nil {
		m.MatchPolicy = ptr.To(admissionv1.Equivalent)
	}
	defaultSelector(&m.NamespaceSelector)
	defaultSelector(&m.ObjectSelector)
	for i := range m.ResourceRules {
		defaultRule(&m.ResourceRules[i].Rule)
	}
	for i := range m.ExcludeResourceRules {
		defaultRule(&m.ExcludeResourceRules[i].Rule)
	}
}

// checkMatch checks what a policy (required: it must name resources) or a binding matches.
func checkMatch(m *admissionv1.MatchResources, required bool, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	selector := func(s *metav1.LabelSelector, name string) {
		if s == nil {
			errs = append(errs, field.Required(path.Child(name), ""))
		} else {
			errs = append(errs, check.Selector(s, nil, path.Child(name))...)
		}
	}
	if m.MatchPolicy == nil {
		errs = append(errs, field.Required(path.Child("matchPolicy"), ""))
	} else {
		errs = append(errs, check.OneOf(*m.MatchPolicy, path.Child("matchPolicy"), matchPolicies...)...)
	}
	selector(m.NamespaceSelector, "namespaceSelector")
	selector(m.ObjectSelector, "objectSelector")
	rules := path.Child("resourceRules")
	for i := range m.ResourceRules {
		errs = append(errs, checkNamedRule(&m.ResourceRules[i], rules.Index(i))...)
	}
	for i := range m.ExcludeResourceRules {
		errs = append(errs, checkNamedRule(&m.ExcludeResourceRules[i], path.Child("excludeResourceRules").Index(i))...)
	}
	if required && len(m.ResourceRules) == 0 {
		errs = append(errs, field.Required(rules, ""))
	}
	return errs
}

func checkNamedRule(r *admissionv1.NamedRuleWithOperations, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := at.Child("resourceNames")
	seen := map[string]bool{}
	for i, name := range r.ResourceNames {
		errs = append(errs, check.Each(names.Index(i), name, path.IsValidPathSegmentName(name))...)
		if seen[name] {
			errs = append(errs, field.Duplicate(names.Index(i), name))
		}
		seen[name] = true
	}
	return append(errs, checkRule(&r.RuleWithOperations, at)...)
}

var (
	operations = []admissionv1.OperationType{admissionv1.OperationAll, admissionv1.Connect, admissionv1.Create, admissionv1.Delete, admissionv1.Update}
	scopes     = []admissionv1.ScopeType{admissionv1.AllScopes, admissionv1.ClusterScope, admissionv1.NamespacedScope}
)

// checkRule checks which operations on which resources are meant.
func checkRule(r *admissionv1.RuleWithOperations, path *field.Path) field.ErrorList {
	ops := path.Child("operations")
	var errs field.ErrorList
	if len(r.Operations) == 0 {
		errs = append(errs, field.Required(ops, ""))
	}
	if len(r.Operations) > 1 && slices.Contains(r.Operations, admissionv1.OperationAll) {
		errs = append(errs, field.Invalid(ops, r.Operations, "if '*' is present, must not specify other operations"))
	}
	for i, o := range r.Operations {
		errs = append(errs, check.OneOf(o, ops.Index(i), operations...)...)
	}
	errs = append(errs, wildcard(r.APIGroups, "API groups", true, path.Child("apiGroups"))...)
	errs = append(errs, wildcard(r.APIVersions, "API versions", false, path.Child("apiVersions"))...)
	errs = append(errs, checkResources(r.Resources, path.Child("resources"))...)
	if r.Scope != nil {
		errs = append(errs, check.OneOf(*r.Scope, path.Child("scope"), scopes...)...)
	}
	return errs
}

// wildcard wants a list with something in it, and "*" only by itself.
func wildcard(list []string, what string, empty bool, path *field.Path) field.ErrorList {
	if len(list) == 0 {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	if len(list) > 1 && slices.Contains(list, "*") {
		errs = append(errs, field.Invalid(path, list, fmt.Sprintf("if '*' is present, must not specify other %s", what)))
	}
	for i, v := range list {
		if v == "" && !empty {
			errs = append(errs, field.Required(path.Index(i), ""))
		}
	}
	return errs
}

// checkResources checks "pods", "pods/*", "*/scale", "*", "*/*": none may be contained in one before it.
func checkResources(list []string, path *field.Path) field.ErrorList {
	if len(list) == 0 {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	whole, every := map[string]bool{}, map[string]bool{} // resources with "/*", subresources with "*/"
	plain := false                                       // the last resource without a subresource is not "*"
	for i, r := range list {
		at := path.Index(i)
		if r == "" {
			errs = append(errs, field.Required(at, ""))
			continue
		}
		name, sub, hasSub := strings.Cut(r, "/")
		if !hasSub {
			plain = r != "*"
			continue
		}
		if whole[name] {
			errs = append(errs, field.Invalid(at, r, fmt.Sprintf("if '%s/*' is present, must not specify %s", name, r)))
		}
		if every[sub] {
			errs = append(errs, field.Invalid(at, r, fmt.Sprintf("if '*/%s' is present, must not specify %s", sub, r)))
		}
		whole[name] = whole[name] || sub == "*"
		every[sub] = every[sub] || name == "*"
	}
	if len(list) > 1 && slices.Contains(list, "*/*") {
		errs = append(errs, field.Invalid(path, list, "if '*/*' is present, must not specify other resources"))
	}
	if plain && slices.Contains(list, "*") {
		errs = append(errs, field.Invalid(path, list, "if '*' is present, must not specify other resources without subresources"))
	}
	return errs
}

// checkConditions checks match conditions.
func checkConditions(conditions []admissionv1.MatchCondition, e *expressions, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if n := len(conditions); n > maxMatchConditions {
		errs = append(errs, field.TooMany(at, n, maxMatchConditions))
	}
	seen := map[string]bool{}
	for i, c := range conditions {
		at := at.Index(i)
		if strings.TrimSpace(c.Expression) == "" {
			errs = append(errs, field.Required(at.Child("expression"), ""))
		} else {
			errs = append(errs, e.check(c.Expression, Bool, at.Child("expression"))...)
		}
		errs = append(errs, check.RequiredForm(c.Name, at.Child("name"), check.QualifiedName)...)
		if c.Name != "" && seen[c.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), c.Name))
		}
		seen[c.Name] = true
	}
	return errs
}
