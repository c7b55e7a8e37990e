package authz

import (
	"slices"
	"strings"
	"sync/atomic"

	rbacv1 "k8s.io/api/rbac/v1"
)

// verbs are request verbs as bits, so that a rule's verbs are one word. Verbs that have no
// bit are kept as text.
type verbs uint32

// known are the verbs with a bit of their own: those of requests, and those that
// special checks ask for.
var known = [...]string{
	"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection",
	"proxy", "use", "bind", "escalate", "impersonate", "approve", "sign", "attest", "post", "put", "head", "options",
}

const allVerbs = ^verbs(0)

// verbBit returns the bit of a verb, 0 if it has none.
func verbBit(verb string) verbs {
	switch verb {
	case "get":
		return 1 << 0
	case "list":
		return 1 << 1
	case "watch":
		return 1 << 2
	case "create":
		return 1 << 3
	case "update":
		return 1 << 4
	case "patch":
		return 1 << 5
	case "delete":
		return 1 << 6
	case "deletecollection":
		return 1 << 7
	}
	for i := 8; i < len(known); i++ {
		if known[i] == verb {
			return 1 << i
		}
	}
	return 0
}

// permission is what a rule allows on one resource or path.
type permission struct {
	verbs verbs
	other []string // verbs without a bit
	names []string // resource names; none: all
}

func (p *permission) allows(bit verbs, verb, name string) bool {
	if p.verbs&bit == 0 && p.verbs != allVerbs && (bit != 0 || !slices.Contains(p.other, verb)) {
		return false
	}
	return len(p.names) == 0 || slices.Contains(p.names, name)
}

// target is a resource in a group, with its subresource if any: "pods/log" is {"", "pods", "log"}.
type target struct{ group, resource, sub string }

// wildcard is a permission on resources that a pattern describes: group or resource "*",
// resource "*/scale".
type wildcard struct {
	target
	permission
}

// role is a role's rules, indexed. It never changes.
type role struct {
	source    []rbacv1.PolicyRule
	exact     map[target][]permission
	wildcards []wildcard
	urls      map[string][]permission
	prefixes  []prefix
}

// prefix is a permission on paths that begin with a text.
type prefix struct {
	path string
	permission
}

// compile indexes rules.
func compile(rules []rbacv1.PolicyRule) *role {
	r := &role{source: rules}
	for i := range rules {
		rule := &rules[i]
		p := permission{names: rule.ResourceNames}
		for _, v := range rule.Verbs {
			switch bit := verbBit(v); {
			case v == rbacv1.VerbAll:
				p.verbs = allVerbs
			case bit != 0:
				p.verbs |= bit
			default:
				p.other = append(p.other, v)
			}
		}
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				t := targetOf(group, resource)
				if t.group == rbacv1.APIGroupAll || t.resource == rbacv1.ResourceAll {
					r.wildcards = append(r.wildcards, wildcard{t, p})
					continue
				}
				if r.exact == nil {
					r.exact = map[target][]permission{}
				}
				r.exact[t] = append(r.exact[t], p)
			}
		}
		p.names = nil
		for _, url := range rule.NonResourceURLs {
			if strings.HasSuffix(url, "*") {
				r.prefixes = append(r.prefixes, prefix{strings.TrimRight(url, "*"), p})
				continue
			}
			if r.urls == nil {
				r.urls = map[string][]permission{}
			}
			r.urls[url] = append(r.urls[url], p)
		}
	}
	return r
}

// targetOf splits a rule's resource, "pods/log".
func targetOf(group, resource string) target {
	resource, sub, _ := strings.Cut(resource, "/")
	return target{group, resource, sub}
}

// question is a request as rules look at it.
type question struct {
	*Attributes
	bit verbs
}

func ask(a *Attributes) question { return question{Attributes: a, bit: verbBit(a.Verb)} }

// allows reports whether a rule of the role allows what is asked.
func (r *role) allows(q *question) bool {
	if !q.IsResource() {
		return r.allowsPath(q)
	}
	for i, ps := 0, r.exact[target{q.Group, q.Resource, q.Subresource}]; i < len(ps); i++ {
		if ps[i].allows(q.bit, q.Verb, q.Name) {
			return true
		}
	}
	for i := range r.wildcards {
		w := &r.wildcards[i]
		if w.matches(q) && w.allows(q.bit, q.Verb, q.Name) {
			return true
		}
	}
	return false
}

func (w *wildcard) matches(q *question) bool {
	if w.group != rbacv1.APIGroupAll && w.group != q.Group {
		return false
	}
	if w.resource == rbacv1.ResourceAll {
		return w.sub == "" || w.sub == q.Subresource
	}
	return w.resource == q.Resource && w.sub == q.Subresource
}

func (r *role) allowsPath(q *question) bool {
	for i, ps := 0, r.urls[q.Path]; i < len(ps); i++ {
		if ps[i].allows(q.bit, q.Verb, "") {
			return true
		}
	}
	for i := range r.prefixes {
		if p := &r.prefixes[i]; strings.HasPrefix(q.Path, p.path) && p.allows(q.bit, q.Verb, "") {
			return true
		}
	}
	return false
}

// cell holds the current content of a role. Bindings point to cells, so a role changes without touching
// its bindings.
type cell struct {
	kind, name string // for messages: "clusterrole" or "role"
	role       atomic.Pointer[role]
	bindings   int // how many refer to it; RBAC.mu guards it
}
