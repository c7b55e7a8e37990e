package authz

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/user"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func rule(verbs, groups, resources string, names ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: strings.Split(verbs, ","), APIGroups: strings.Split(groups, ","), Resources: strings.Split(resources, ","), ResourceNames: names}
}

func urls(verbs string, paths ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: strings.Split(verbs, ","), NonResourceURLs: paths}
}

func clusterRole(name string, rules ...rbacv1.PolicyRule) *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}
}

func roleIn(namespace, name string, rules ...rbacv1.PolicyRule) *rbacv1.Role {
	return &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Rules: rules}
}

// subjects reads "u:name", "g:name", "sa:namespace/name".
func subjects(texts []string) []rbacv1.Subject {
	var all []rbacv1.Subject
	for _, text := range texts {
		kind, name, _ := strings.Cut(text, ":")
		s := rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}
		switch kind {
		case "g":
			s.Kind = rbacv1.GroupKind
		case "sa":
			s.Kind, s.APIGroup = rbacv1.ServiceAccountKind, ""
			s.Namespace, s.Name, _ = strings.Cut(name, "/")
		}
		all = append(all, s)
	}
	return all
}

func clusterBinding(name, role string, to ...string) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: subjects(to),
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}}
}

func bindingIn(namespace, name, ref string, to ...string) *rbacv1.RoleBinding {
	kind, role, _ := strings.Cut(ref, "/")
	return &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Subjects: subjects(to),
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: role}}
}

// request reads "verb group/resource[/sub][=name][@namespace]" or "verb /path".
func request(u *user.Info, text string) *Attributes {
	verb, rest, _ := strings.Cut(text, " ")
	a := &Attributes{User: u, Verb: verb}
	if strings.HasPrefix(rest, "//") {
		a.Path = rest[1:]
		return a
	}
	rest, a.Namespace, _ = strings.Cut(rest, "@")
	rest, a.Name, _ = strings.Cut(rest, "=")
	a.Group, rest, _ = strings.Cut(rest, "/")
	a.Resource, a.Subresource, _ = strings.Cut(rest, "/")
	return a
}

func TestDecisions(t *testing.T) {
	r := NewRBAC()
	r.Reset([]object.Object{
		clusterRole("reader", rule("get,list", "", "pods,pods/log"), rule("get", "apps", "*"), rule("update", "*", "*/scale")),
		clusterRole("named", rule("update", "", "configmaps", "a", "b")),
		clusterRole("paths", urls("get", "/healthz", "/api/*")),
		clusterRole("all", rule("*", "*", "*"), urls("*", "*")),
		clusterRole("custom", rule("knit", "", "wool")),
		roleIn("ns", "local", rule("*", "", "secrets")),
		clusterBinding("reader", "reader", "u:jane", "g:readers"),
		clusterBinding("named", "named", "u:jane"),
		clusterBinding("paths", "paths", "g:system:authenticated"),
		clusterBinding("all", "all", "sa:kube-system/root"),
		clusterBinding("custom", "custom", "u:jane"),
		clusterBinding("lost", "nowhere", "u:lost"),
		bindingIn("ns", "local", "Role/local", "u:jane", "sa:/robot"),
		bindingIn("ns", "view", "ClusterRole/reader", "u:joe"),
		bindingIn("ns", "lost", "Role/nowhere", "u:lost"),
	})
	for _, c := range []struct {
		user, groups, request, want string
	}{
		{"jane", "", "get /pods", `RBAC: allowed by ClusterRoleBinding "reader" of ClusterRole "reader" to User "jane"`},
		{"zoe", "x,readers", "list /pods@ns", `RBAC: allowed by ClusterRoleBinding "reader" of ClusterRole "reader" to Group "readers"`},
		{"jane", "", "get /pods/log@ns", "allow"},
		{"jane", "", "get /pods/exec@ns", ""},
		{"jane", "", "watch /pods", ""},
		{"jane", "", "get apps/deployments/status@x", "allow"},
		{"jane", "", "update apps/deployments/scale@x", "allow"},
		{"jane", "", "update apps/deployments@x", ""},
		{"jane", "", "update /configmaps=a@x", "allow"},
		{"jane", "", "update /configmaps=c@x", ""},
		{"jane", "", "update /configmaps@x", ""},
		{"jane", "", "knit /wool", "allow"},
		{"jane", "", "purl /wool", ""},
		{"jane", "", "get //healthz", ""},
		{"jane", "system:authenticated", "get //healthz", `RBAC: allowed by ClusterRoleBinding "paths" of ClusterRole "paths" to Group "system:authenticated"`},
		{"jane", "system:authenticated", "get //healthz/etcd", ""},
		{"jane", "system:authenticated", "get //api/v1", "allow"},
		{"jane", "system:authenticated", "get //api", ""},
		{"jane", "system:authenticated", "post //api/v1", ""},
		{"system:serviceaccount:kube-system:root", "", "knit x/y/z=n@m", `RBAC: allowed by ClusterRoleBinding "all" of ClusterRole "all" to ServiceAccount "root/kube-system"`},
		{"system:serviceaccount:kube-system:root", "", "post //any", "allow"},
		{"jane", "", "deletecollection /secrets@ns", `RBAC: allowed by RoleBinding "local/ns" of Role "local" to User "jane"`},
		{"system:serviceaccount:ns:robot", "", "get /secrets@ns", `RBAC: allowed by RoleBinding "local/ns" of Role "local" to ServiceAccount "robot/ns"`},
		{"jane", "", "get /secrets@other", ""},
		{"jane", "", "get /secrets", ""},
		{"joe", "", "get /pods@ns", `RBAC: allowed by RoleBinding "view/ns" of ClusterRole "reader" to User "joe"`},
		{"joe", "", "get /pods", ""},
		{"lost", "", "get /pods", `RBAC: clusterrole.rbac.authorization.k8s.io "nowhere" not found`},
		{"lost", "", "get /pods@ns", `RBAC: [clusterrole.rbac.authorization.k8s.io "nowhere" not found, role.rbac.authorization.k8s.io "nowhere" not found]`},
	} {
		t.Run(c.user+" "+c.request, func(t *testing.T) {
			u := &user.Info{Name: c.user, Groups: strings.Split(c.groups, ",")}
			decision, reason, _ := r.Authorize(t.Context(), request(u, c.request))
			allowed := decision == Allow
			want := c.want == "allow" || strings.HasPrefix(c.want, "RBAC: allowed")
			if allowed != want || c.want != "allow" && reason != c.want {
				t.Errorf("got %v %q, want %q", allowed, reason, c.want)
			}
		})
	}
}

func TestChangesTakeEffect(t *testing.T) {
	r := NewRBAC()
	jane := &user.Info{Name: "jane", Groups: []string{"g"}}
	check := func(what string, want bool) {
		t.Helper()
		if d, _, _ := r.Authorize(t.Context(), request(jane, "get /pods@ns")); (d == Allow) != want {
			t.Errorf("%s: allowed is %v", what, d == Allow)
		}
	}
	b := bindingIn("ns", "b", "Role/r", "u:jane", "g:g")
	check("empty", false)
	r.Upsert(b)
	check("binding without role", false)
	r.Upsert(roleIn("ns", "r", rule("get", "", "pods")))
	check("role appears", true)
	r.Upsert(roleIn("ns", "r", rule("get", "", "secrets")))
	check("role changes", false)
	r.Upsert(roleIn("ns", "r", rule("get", "", "pods")))
	r.Upsert(bindingIn("ns", "b", "Role/r", "u:joe"))
	check("subject leaves", false)
	r.Upsert(bindingIn("ns", "b", "Role/r", "g:g"))
	check("group joins", true)
	r.Remove(roleIn("ns", "r"))
	check("role goes", false)
	r.Upsert(roleIn("ns", "r", rule("get", "", "pods")))
	check("role comes back", true)
	r.Remove(b)
	check("binding goes", false)
	r.Remove(roleIn("ns", "r"))
	if len(r.mu.cells)+len(r.mu.bindings) != 0 {
		t.Errorf("left over: %v %v", r.mu.cells, r.mu.bindings)
	}
	for i := range r.table {
		if len(*r.table[i].Load()) != 0 {
			t.Errorf("left over in the table: %v", *r.table[i].Load())
		}
	}
	r.Upsert(b)
	r.Reset(nil)
	check("reset", false)
}

// naive answers from the objects as they are, as the documentation describes it.
func naive(objects map[string]object.Object, a *Attributes) bool {
	grants := func(ref rbacv1.RoleRef, namespace string, subjects []rbacv1.Subject) bool {
		for _, s := range subjects {
			name := s.Name
			if s.Kind == rbacv1.ServiceAccountKind {
				name = "system:serviceaccount:" + s.Namespace + ":" + s.Name
			}
			if s.Kind == rbacv1.GroupKind && !slices.Contains(a.User.Groups, name) || s.Kind != rbacv1.GroupKind && a.User.Name != name {
				continue
			}
			for _, o := range objects {
				key, rules, ok := rulesOf(o)
				if ok && key.name == ref.Name && (ref.Kind == "ClusterRole" && key.namespace == "" || ref.Kind == "Role" && key.namespace == namespace) {
					if slices.ContainsFunc(rules, func(r rbacv1.PolicyRule) bool { return naiveRule(&r, a) }) {
						return true
					}
				}
			}
		}
		return false
	}
	for _, o := range objects {
		key, ref, subjects, ok := bindingOf(o)
		if ok && (key.namespace == "" || a.IsResource() && key.namespace == a.Namespace) && grants(ref, key.namespace, subjects) {
			return true
		}
	}
	return false
}

func naiveRule(r *rbacv1.PolicyRule, a *Attributes) bool {
	has := func(list []string, v string) bool { return slices.Contains(list, v) || slices.Contains(list, "*") }
	if !has(r.Verbs, a.Verb) {
		return false
	}
	if !a.IsResource() {
		return slices.ContainsFunc(r.NonResourceURLs, func(u string) bool {
			return u == a.Path || strings.HasSuffix(u, "*") && strings.HasPrefix(a.Path, strings.TrimRight(u, "*"))
		})
	}
	full := a.Resource
	if a.Subresource != "" {
		full += "/" + a.Subresource
	}
	return has(r.APIGroups, a.Group) &&
		(has(r.Resources, full) || a.Subresource != "" && slices.Contains(r.Resources, "*/"+a.Subresource)) &&
		(len(r.ResourceNames) == 0 || slices.Contains(r.ResourceNames, a.Name))
}

// policies makes random objects and requests from few words, so that they meet.
type policies struct{ *rand.Rand }

func (p policies) some(words ...string) []string {
	var out []string
	for range 1 + p.IntN(2) {
		out = append(out, p.one(words...))
	}
	return out
}

func (p policies) one(words ...string) string { return words[p.IntN(len(words))] }

var (
	someVerbs  = []string{"get", "list", "update", "knit", "purl"}
	someGroups = []string{"", "apps"}
	someNames  = []string{"a", "b", ""}
	someSpaces = []string{"", "n", "m"}
	somePaths  = []string{"/", "/a", "/a/b", "/b"}
)

func (p policies) rule() rbacv1.PolicyRule {
	r := rbacv1.PolicyRule{Verbs: p.some(append(someVerbs, "*")...)}
	if p.IntN(4) == 0 {
		r.NonResourceURLs = p.some(append(somePaths, "/a*", "*", "/a/*")...)
		return r
	}
	r.APIGroups = p.some(append(someGroups, "*")...)
	r.Resources = p.some("pods", "pods/log", "jobs", "jobs/log", "*", "*/log", "*/scale")
	if p.IntN(3) == 0 {
		r.ResourceNames = p.some("a", "b")
	}
	return r
}

func (p policies) object() object.Object {
	var rules []rbacv1.PolicyRule
	for range p.IntN(4) {
		rules = append(rules, p.rule())
	}
	to := p.some("u:u", "u:v", "g:g", "g:h", "sa:n/s")
	name := p.one("x", "y", "z")
	switch p.IntN(4) {
	case 0:
		return clusterRole(name, rules...)
	case 1:
		return roleIn(p.one("n", "m"), name, rules...)
	case 2:
		return clusterBinding(name, p.one("x", "y", "z"), to...)
	}
	return bindingIn(p.one("n", "m"), name, p.one("Role", "ClusterRole")+"/"+p.one("x", "y", "z"), to...)
}

func (p policies) request() *Attributes {
	a := &Attributes{User: &user.Info{Name: p.one("u", "v", "w", "system:serviceaccount:n:s"), Groups: p.some("g", "h", "i")}, Verb: p.one(someVerbs...)}
	if p.IntN(4) == 0 {
		a.Path = p.one(somePaths...)
		return a
	}
	a.Group, a.Resource, a.Subresource = p.one(someGroups...), p.one("pods", "jobs"), p.one("", "log", "scale")
	a.Name, a.Namespace = p.one(someNames...), p.one(someSpaces...)
	return a
}

// TestCompiledEqualsNaive changes a random policy step by step and compares every decision with the
// documentation's reading of the objects.
func TestCompiledEqualsNaive(t *testing.T) {
	for seed := range uint64(40) {
		p := policies{rand.New(rand.NewPCG(seed, 1))}
		r := NewRBAC()
		objects := map[string]object.Object{}
		allowed := 0
		for step := range 60 {
			o := p.object()
			key := fmt.Sprintf("%T %s/%s", o, o.GetNamespace(), o.GetName())
			switch {
			case step%20 == 0:
				var all []object.Object
				for _, o := range objects {
					all = append(all, o)
				}
				r.Reset(all)
			case p.IntN(4) == 0:
				delete(objects, key)
				r.Remove(o)
			default:
				objects[key] = o
				r.Upsert(o)
			}
			for range 20 {
				a := p.request()
				decision, _, _ := r.Authorize(t.Context(), a)
				want := naive(objects, a)
				if want {
					allowed++
				}
				if (decision == Allow) != want {
					t.Fatalf("seed %d step %d: %+v by %+v: compiled says %v, want %v", seed, step, a, a.User, decision == Allow, want)
				}
			}
		}
		if allowed == 0 {
			t.Errorf("seed %d: nothing was ever allowed", seed)
		}
	}
}

func TestReadersAndWritersTogether(t *testing.T) {
	r := NewRBAC()
	p := policies{rand.New(rand.NewPCG(1, 2))}
	var objects []object.Object
	for range 200 {
		objects = append(objects, p.object())
	}
	keep := []object.Object{clusterRole("keep", rule("get", "", "pods")), clusterBinding("keep", "keep", "u:keep")}
	r.Reset(keep)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			a := request(&user.Info{Name: "keep"}, "get /pods")
			for {
				select {
				case <-done:
					return
				default:
				}
				if d, _, _ := r.Authorize(context.Background(), a); d != Allow {
					t.Error("a grant that never changed was not seen")
					return
				}
			}
		})
	}
	for i, o := range objects {
		r.Upsert(o)
		if i%3 == 0 {
			r.Remove(o)
		}
		if i%50 == 0 {
			r.Reset(append(slices.Clone(objects[:i]), keep...))
		}
	}
	close(done)
	readers.Wait()
}

func TestForbidden(t *testing.T) {
	u := &user.Info{Name: "o'brien"}
	for _, c := range []struct{ request, reason, want string }{
		{"get /secrets=x@ns", "", `secrets "x" is forbidden: User "o'brien" cannot get resource "secrets" in API group "" in the namespace "ns"`},
		{"list /secrets@ns", "", `secrets is forbidden: User "o'brien" cannot list resource "secrets" in API group "" in the namespace "ns"`},
		{"list /pods", "", `pods is forbidden: User "o'brien" cannot list resource "pods" in API group "" at the cluster scope`},
		{"get apps/deployments/scale=x@ns", "", `deployments.apps "x" is forbidden: User "o'brien" cannot get resource "deployments/scale" in API group "apps" in the namespace "ns"`},
		{"get //metrics", "", `forbidden: User "o'brien" cannot get path "/metrics"`},
		{"list /secrets@ns", "node: No Object name found", `secrets is forbidden: User "o'brien" cannot list resource "secrets" in API group "" in the namespace "ns": node: No Object name found`},
	} {
		if got := Forbidden(request(u, c.request), c.reason); got.Error() != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}
