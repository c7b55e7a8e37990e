package authz

import (
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
)

// Uncovered returns the parts of the rules wanted that the rules held do not
// allow, each about one verb on one resource (and one name) or path. Empty: whoever holds the one may grant the
// other.
func Uncovered(held, wanted []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	var missing []rbacv1.PolicyRule
	for i := range wanted {
		for part := range parts(&wanted[i]) {
			if !slices.ContainsFunc(held, func(h rbacv1.PolicyRule) bool { return covers(&h, &part) }) {
				missing = append(missing, part)
			}
		}
	}
	return missing
}

// parts yields the smallest rules that together are the rule.
func parts(rule *rbacv1.PolicyRule) func(yield func(rbacv1.PolicyRule) bool) {
	return func(yield func(rbacv1.PolicyRule) bool) {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					part := rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: []string{verb}}
					if len(rule.ResourceNames) == 0 {
						if !yield(part) {
							return
						}
						continue
					}
					for _, name := range rule.ResourceNames {
						part.ResourceNames = []string{name}
						if !yield(part) {
							return
						}
					}
				}
			}
		}
		for _, url := range rule.NonResourceURLs {
			for _, verb := range rule.Verbs {
				if !yield(rbacv1.PolicyRule{NonResourceURLs: []string{url}, Verbs: []string{verb}}) {
					return
				}
			}
		}
	}
}

// covers reports whether a held rule allows all that a part allows.
func covers(held, part *rbacv1.PolicyRule) bool {
	if !hasAll(held.Verbs, part.Verbs[0]) {
		return false
	}
	if len(part.NonResourceURLs) > 0 {
		url := part.NonResourceURLs[0]
		return slices.ContainsFunc(held.NonResourceURLs, func(have string) bool {
			start, open := strings.CutSuffix(have, "*")
			return have == url || open && strings.HasPrefix(url, start)
		})
	}
	if !hasAll(held.APIGroups, part.APIGroups[0]) || !slices.ContainsFunc(held.Resources, func(have string) bool { return coversResource(have, part.Resources[0]) }) {
		return false
	}
	return len(held.ResourceNames) == 0 || len(part.ResourceNames) > 0 && slices.Contains(held.ResourceNames, part.ResourceNames[0])
}

// hasAll reports whether the list has the value, or "*".
func hasAll(list []string, value string) bool {
	return slices.Contains(list, value) || slices.Contains(list, "*")
}

func coversResource(have, want string) bool {
	if have == want || have == rbacv1.ResourceAll {
		return true
	}
	sub, ok := strings.CutPrefix(have, "*/")
	_, wantSub, hasSub := strings.Cut(want, "/")
	return ok && hasSub && sub == wantSub
}

// Compact joins rules about the same single resource that name no objects into one, with the
// verbs of all, and keeps the others as they are.
func Compact(rules []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	var out []rbacv1.PolicyRule
	at := map[target]int{}
	for _, rule := range rules {
		if len(rule.APIGroups) != 1 || len(rule.Resources) != 1 || len(rule.ResourceNames) > 0 || len(rule.NonResourceURLs) > 0 {
			out = append(out, rule)
			continue
		}
		key := target{group: rule.APIGroups[0], resource: rule.Resources[0]}
		i, seen := at[key]
		if !seen {
			at[key] = len(out)
			rule.Verbs = slices.Clone(rule.Verbs)
			out = append(out, rule)
			continue
		}
		for _, verb := range rule.Verbs {
			if !slices.Contains(out[i].Verbs, verb) {
				out[i].Verbs = append(out[i].Verbs, verb)
			}
		}
	}
	return out
}

// ruleText is a rule in the short form of messages.
func ruleText(rule *rbacv1.PolicyRule) string {
	var fields []string
	for _, f := range []struct {
		name   string
		values []string
	}{
		{"APIGroups", rule.APIGroups}, {"Resources", rule.Resources}, {"NonResourceURLs", rule.NonResourceURLs},
		{"ResourceNames", rule.ResourceNames}, {"Verbs", rule.Verbs},
	} {
		if len(f.values) > 0 {
			fields = append(fields, fmt.Sprintf("%s:%q", f.name, f.values))
		}
	}
	return "{" + strings.Join(fields, ", ") + "}"
}
