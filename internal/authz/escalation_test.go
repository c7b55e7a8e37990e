package authz

import (
	"strings"
	"testing"

	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/user"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestEscalation is corpus authz/escalation: what kube-apiserver 1.37 answers.
func TestEscalation(t *testing.T) {
	r := NewRBAC()
	r.Reset([]object.Object{
		clusterRole("adm", rule("get,list,create,update,patch,delete", rbacv1.GroupName, "roles,rolebindings,clusterroles,clusterrolebindings"), rule("get,list", "", "configmaps")),
		clusterBinding("adm", "adm", "u:e"),
		clusterRole("system:node-problem-detector", rule("get", "", "nodes"), rule("patch", "", "nodes/status"), rule("create,patch,update", ",events.k8s.io", "events")),
		clusterRole("binder", rule("bind", rbacv1.GroupName, "clusterroles", "system:node-problem-detector"), rule("escalate", rbacv1.GroupName, "roles")),
		clusterBinding("binder", "binder", "u:b"),
		roleIn("ns", "ok", rule("get", "", "configmaps")),
		clusterRole("admin", rule("*", "*", "*"), urls("*", "*")),
		clusterBinding("admin", "admin", "u:root"),
	})
	e := &user.Info{Name: "e", Groups: []string{"system:authenticated"}}
	b := &user.Info{Name: "b", Groups: []string{"system:authenticated"}}
	root := &user.Info{Name: "root"}
	masters := &user.Info{Name: "m", Groups: []string{"system:masters"}}
	aggregated := clusterRole("ag")
	aggregated.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"a": "b"}}}}
	grant := ` is forbidden: user "e" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:` + "\n"
	for _, c := range []struct {
		name     string
		user     *user.Info
		obj, old object.Object
		want     string
	}{
		{"role with own rights", e, roleIn("ns", "ok", rule("get", "", "configmaps")), nil, ""},
		{"role with more", e, roleIn("ns", "no", rule("get,delete", "", "configmaps,secrets")), nil,
			`roles.rbac.authorization.k8s.io "no"` + grant + `{APIGroups:[""], Resources:["configmaps"], Verbs:["delete"]}` + "\n" + `{APIGroups:[""], Resources:["secrets"], Verbs:["get" "delete"]}`},
		{"same rules", e, roleIn("ns", "x", rule("get", "", "secrets")), roleIn("ns", "x", rule("get", "", "secrets")), ""},
		{"bind a role with more", e, bindingIn("ns", "no", "ClusterRole/system:node-problem-detector", "u:e"), nil,
			`rolebindings.rbac.authorization.k8s.io "no"` + grant + `{APIGroups:[""], Resources:["events"], Verbs:["create" "patch" "update"]}
{APIGroups:[""], Resources:["nodes"], Verbs:["get"]}
{APIGroups:[""], Resources:["nodes/status"], Verbs:["patch"]}
{APIGroups:["events.k8s.io"], Resources:["events"], Verbs:["create" "patch" "update"]}`},
		{"bind own role", e, bindingIn("ns", "ok", "Role/ok", "u:q"), nil, ""},
		{"bind absent role", e, bindingIn("ns", "ab", "Role/absent", "u:q"), nil, `rolebindings.rbac.authorization.k8s.io "absent" not found`},
		{"cluster role with urls", e, clusterRole("nr", urls("get", "/x")), nil, `clusterroles.rbac.authorization.k8s.io "nr"` + grant + `{NonResourceURLs:["/x"], Verbs:["get"]}`},
		{"aggregated role needs everything", e, aggregated, nil, `clusterroles.rbac.authorization.k8s.io "ag" is forbidden: must have cluster-admin privileges to use the aggregationRule`},
		{"everything", e, roleIn("ns", "all", rule("*", "*", "*")), nil, `roles.rbac.authorization.k8s.io "all"` + grant + `{APIGroups:["*"], Resources:["*"], Verbs:["*"]}`},
		{"names", e, roleIn("ns", "n", rule("get", "", "secrets", "a", "b")), nil,
			`roles.rbac.authorization.k8s.io "n"` + grant + `{APIGroups:[""], Resources:["secrets"], ResourceNames:["a"], Verbs:["get"]}` + "\n" + `{APIGroups:[""], Resources:["secrets"], ResourceNames:["b"], Verbs:["get"]}`},
		{"escalate allows more", b, roleIn("ns", "esc", rule("get", "", "secrets")), nil, ""},
		{"bind verb allows one", b, bindingIn("ns", "bv", "ClusterRole/system:node-problem-detector", "u:q"), nil, ""},
		{"bind verb is for that one", b, bindingIn("ns", "bv", "ClusterRole/admin", "u:q"), nil, "not currently held"},
		{"subjects added", e, bindingIn("ns", "no", "ClusterRole/admin", "u:e"), bindingIn("ns", "no", "ClusterRole/admin"), "not currently held"},
		{"metadata only", e, bindingIn("ns", "no", "ClusterRole/admin", "u:e"), bindingIn("ns", "no", "ClusterRole/admin", "u:e"), ""},
		{"administrator", root, aggregated, nil, ""},
		{"masters", masters, clusterBinding("x", "absent", "u:x"), nil, ""},
		{"loopback and controllers of the server", nil, clusterRole("x", rule("*", "*", "*")), nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := r.CheckEscalation(t.Context(), Chain{Masters{}, r}, c.user, c.obj, c.old)
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || err.Error() != c.want && !(!strings.Contains(c.want, "rbac.") && strings.Contains(err.Error(), c.want))):
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

// TestUncovered: wildcards cover what they stand for and are covered only by wildcards;
// a rule with names covers those names alone.
func TestUncovered(t *testing.T) {
	for _, c := range []struct {
		held, wanted rbacv1.PolicyRule
		missing      int
	}{
		{rule("get", "", "pods"), rule("get", "", "pods"), 0},
		{rule("get", "", "pods"), rule("get", "", "pods", "a"), 0},
		{rule("get", "", "pods", "a"), rule("get", "", "pods"), 1},
		{rule("get", "", "pods", "a"), rule("get", "", "pods", "a", "b"), 1},
		{rule("*", "", "pods"), rule("get,list", "", "pods"), 0},
		{rule("get", "", "pods"), rule("*", "", "pods"), 1},
		{rule("get", "", "*"), rule("get", "", "pods,pods/log"), 0},
		{rule("get", "", "*/log"), rule("get", "", "pods,pods/log"), 1},
		{rule("get", "", "pods"), rule("get", "", "*"), 1},
		{rule("get", "*", "pods"), rule("get", "apps,", "pods"), 0},
		{rule("get", "", "pods"), rule("get", "*", "pods"), 1},
		{urls("get", "/a/*"), urls("get", "/a/b", "/a/*", "/a"), 1},
		{urls("get", "*"), urls("get,post", "/a"), 1},
	} {
		if got := Uncovered([]rbacv1.PolicyRule{c.held}, []rbacv1.PolicyRule{c.wanted}); len(got) != c.missing {
			t.Errorf("%v of %v: missing %v", c.wanted, c.held, got)
		}
	}
}

func TestAggregate(t *testing.T) {
	labelled := func(r *rbacv1.ClusterRole, key string) *rbacv1.ClusterRole {
		r.Labels = map[string]string{key: "true"}
		return r
	}
	view := labelled(clusterRole("view"), "to-edit")
	view.AggregationRule = &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{MatchLabels: map[string]string{"to-view": "true"}}}}
	all := []*rbacv1.ClusterRole{
		labelled(clusterRole("z", rule("get", "", "z"), rule("get", "", "same")), "to-view"),
		labelled(clusterRole("a", rule("get", "", "same"), rule("get", "", "a")), "to-view"),
		view, clusterRole("other", rule("*", "*", "*")),
	}
	rules, err := Aggregate(view, all)
	if err != nil || len(rules) != 3 || rules[0].Resources[0] != "same" || rules[1].Resources[0] != "a" || rules[2].Resources[0] != "z" {
		t.Errorf("%v %v", rules, err)
	}
}
