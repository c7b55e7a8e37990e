package core

import (
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/podspec"
	"github.com/timonel/timonel/internal/kind"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ResourceQuota bounds what all objects of a namespace can use together; the plug-in ResourceQuota charges it.
func resourceQuota() *kind.Definition {
	return &kind.Definition{
		Version: "v1", Kind: "ResourceQuota", Plural: "resourcequotas", ShortNames: []string{"quota"},
		Scope: kind.Namespaced, Verbs: kind.Standard,
		New:            kind.Of[corev1.ResourceQuota](),
		Default:        kind.Default(defaultResourceQuota),
		PrepareCreate:  kind.Prepare(func(q *corev1.ResourceQuota) { q.Status = corev1.ResourceQuotaStatus{} }),
		PrepareUpdate:  kind.PrepareUpdate(func(q, old *corev1.ResourceQuota) { q.Status = old.Status }),
		Validate:       kind.Validate(validateResourceQuota),
		ValidateUpdate: kind.ValidateUpdate(validateResourceQuotaUpdate),
		ReturnsDeleted: true,
		Columns: kind.Columns{
			{Name: "Request", Description: "Request represents a minimum amount of cpu/memory that a container may consume.", Of: kind.Cell(func(q *corev1.ResourceQuota) any { return quotaCell(q, false) })},
			{Name: "Limit", Description: "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.", Of: kind.Cell(func(q *corev1.ResourceQuota) any { return quotaCell(q, true) })},
			kind.Age,
		},
		ColumnFields: []string{"status.hard", "status.used"},
		Subresources: map[string]*kind.Subresource{
			"status": kind.Status(func(q, old *corev1.ResourceQuota) { q.Spec = old.Spec }, validateResourceQuotaStatus),
		},
	}
}

func defaultResourceQuota(q *corev1.ResourceQuota) {
	podspec.RoundUp(q.Spec.Hard)
	podspec.RoundUp(q.Status.Hard)
	podspec.RoundUp(q.Status.Used)
}

func quotaCell(q *corev1.ResourceQuota, limits bool) string {
	var shown []string
	for _, name := range check.Sorted(q.Status.Hard) {
		if strings.HasPrefix(string(name), "limits.") != limits {
			continue
		}
		used, hard := q.Status.Used[name], q.Status.Hard[name]
		shown = append(shown, string(name)+": "+used.String()+"/"+hard.String())
	}
	return strings.Join(shown, ", ")
}

func validateResourceQuota(q *corev1.ResourceQuota) field.ErrorList {
	path := field.NewPath("spec")
	errs := validateAmounts(q.Spec.Hard, path.Child("hard"))
	errs = append(errs, validateScopes(&q.Spec, path)...)
	return append(errs, validateScopeSelector(&q.Spec, path)...)
}

func validateAmounts(list corev1.ResourceList, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, name := range check.Sorted(list) {
		at := path.Key(string(name))
		errs = append(errs, check.QuotaResourceName(name, at)...)
		errs = append(errs, check.Quantity(name, list[name], at)...)
	}
	return errs
}

// The scopes of quotas, and what can be counted within them (Kubernetes documentation, "Quota scopes").
var (
	podScopes = []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating,
		corev1.ResourceQuotaScopeNotBestEffort, corev1.ResourceQuotaScopePriorityClass, corev1.ResourceQuotaScopeCrossNamespacePodAffinity}

	podScopeResources = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourcePods,
		corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory}
)

func scopeKnown(s corev1.ResourceQuotaScope) bool {
	return s == corev1.ResourceQuotaScopeBestEffort || s == corev1.ResourceQuotaScopeVolumeAttributesClass || slices.Contains(podScopes, s)
}

// scopeCounts reports whether a quota with the scope can count the resource. Resources with a domain are nobody's business.
func scopeCounts(s corev1.ResourceQuotaScope, name corev1.ResourceName) bool {
	switch {
	case !check.StandardQuota(name):
		return true
	case s == corev1.ResourceQuotaScopeBestEffort:
		return name == corev1.ResourcePods
	case s == corev1.ResourceQuotaScopeVolumeAttributesClass:
		return name == corev1.ResourcePersistentVolumeClaims || name == corev1.ResourceRequestsStorage
	}
	return slices.Contains(podScopeResources, name)
}

func validateScopes(s *corev1.ResourceQuotaSpec, path *field.Path) field.ErrorList {
	if len(s.Scopes) == 0 {
		return nil
	}
	var errs field.ErrorList
	at := path.Child("scopes")
	for _, scope := range s.Scopes {
		if !scopeKnown(scope) {
			errs = append(errs, field.Invalid(at, s.Scopes, "unsupported scope"))
		}
		for _, name := range check.Sorted(s.Hard) {
			if scopeKnown(scope) && !scopeCounts(scope, name) {
				errs = append(errs, field.Invalid(at, s.Scopes, "unsupported scope applied to resource"))
			}
		}
	}
	return append(errs, conflictingScopes(s.Scopes, s, at)...)
}

// conflictingScopes wants that no pair of scopes excludes each other. Parity: what is quoted are the scopes of the quota, wherever those
// in question stand.
func conflictingScopes(scopes []corev1.ResourceQuotaScope, s *corev1.ResourceQuotaSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, pair := range [][2]corev1.ResourceQuotaScope{
		{corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort},
		{corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating},
	} {
		if slices.Contains(scopes, pair[0]) && slices.Contains(scopes, pair[1]) {
			errs = append(errs, field.Invalid(at, s.Scopes, "conflicting scopes"))
		}
	}
	return errs
}

func validateScopeSelector(s *corev1.ResourceQuotaSpec, path *field.Path) field.ErrorList {
	if s.ScopeSelector == nil {
		return nil
	}
	var errs field.ErrorList
	at := path.Child("scopeSelector", "matchExpressions")
	var seen []corev1.ResourceQuotaScope
	for _, r := range s.ScopeSelector.MatchExpressions {
		if !scopeKnown(r.ScopeName) {
			errs = append(errs, field.Invalid(at.Child("scopeName"), r.ScopeName, "unsupported scope"))
		}
		for _, name := range check.Sorted(s.Hard) {
			if scopeKnown(r.ScopeName) && !scopeCounts(r.ScopeName, name) {
				errs = append(errs, field.Invalid(at, check.GoNames(s.ScopeSelector), "unsupported scope applied to resource"))
			}
		}
		switch r.ScopeName {
		case corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort, corev1.ResourceQuotaScopeTerminating,
			corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
			if r.Operator != corev1.ScopeSelectorOpExists {
				errs = append(errs, field.Invalid(at.Child("operator"), r.Operator, "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"))
			}
		}
		switch r.Operator {
		case corev1.ScopeSelectorOpIn, corev1.ScopeSelectorOpNotIn:
			if len(r.Values) == 0 {
				errs = append(errs, field.Required(at.Child("values"), "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"))
			}
		case corev1.ScopeSelectorOpExists, corev1.ScopeSelectorOpDoesNotExist:
			if len(r.Values) != 0 {
				errs = append(errs, field.Invalid(at.Child("values"), r.Values, "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"))
			}
		default:
			errs = append(errs, field.Invalid(at.Child("operator"), r.Operator, "not a valid selector operator"))
		}
		seen = append(seen, r.ScopeName)
	}
	return append(errs, conflictingScopes(seen, s, at)...)
}

func validateResourceQuotaUpdate(q, old *corev1.ResourceQuota) field.ErrorList {
	path := field.NewPath("spec")
	errs := validateResourceQuota(q)
	a, b := slices.Clone(q.Spec.Scopes), slices.Clone(old.Spec.Scopes)
	slices.Sort(a)
	slices.Sort(b)
	if !slices.Equal(slices.Compact(a), slices.Compact(b)) {
		errs = append(errs, field.Invalid(path.Child("scopes"), q.Spec.Scopes, check.TextImmutable))
	}
	return errs
}

func validateResourceQuotaStatus(q, _ *corev1.ResourceQuota) field.ErrorList {
	path := field.NewPath("status")
	return append(validateAmounts(q.Status.Hard, path.Child("hard")), validateAmounts(q.Status.Used, path.Child("used"))...)
}
