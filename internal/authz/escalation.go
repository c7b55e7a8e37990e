package authz

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/user"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// everything is what a role that aggregates others may come to grant.
var everything = []rbacv1.PolicyRule{
	{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}},
	{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}},
}

// CheckEscalation refuses to let a user write a role or binding that grants more
// than the user may do (docs: "Privilege escalation prevention and bootstrapping"). obj is what would be
// stored, old what it replaces, nil on create. Objects of other kinds pass. The error is the API
// error for the client: 403 that lists what is missing, or 404 for a binding to a role that does not exist.
//
// Users in system:masters may do everything; others may when the authorizer allows them the verb "escalate" on the role, or
// "bind" on the role that a binding refers to.
func (r *RBAC) CheckEscalation(ctx context.Context, authorizer Authorizer, u *user.Info, obj, old object.Object) error {
	if u == nil || u.InGroup(user.SystemPrivileged) {
		return nil
	}
	switch o := obj.(type) {
	case *rbacv1.Role:
		if before, ok := old.(*rbacv1.Role); ok && reflect.DeepEqual(before.Rules, o.Rules) {
			return nil
		}
		return r.checkRole(ctx, authorizer, u, "roles", o.Namespace, o.Name, o.Rules)
	case *rbacv1.ClusterRole:
		before, _ := old.(*rbacv1.ClusterRole)
		if before != nil && reflect.DeepEqual(before.Rules, o.Rules) && reflect.DeepEqual(before.AggregationRule, o.AggregationRule) {
			return nil
		}
		if may(ctx, authorizer, u, "escalate", "clusterroles", "", o.Name) {
			return nil
		}
		if o.AggregationRule != nil && (before == nil || !reflect.DeepEqual(before.AggregationRule, o.AggregationRule)) {
			held, _ := r.RulesFor(u, "")
			if len(Uncovered(held, everything)) > 0 {
				return forbidden("clusterroles", o.Name, errors.New("must have cluster-admin privileges to use the aggregationRule"))
			}
		}
		return r.checkRules(u, "clusterroles", "", o.Name, o.Rules)
	case *rbacv1.RoleBinding:
		before, _ := old.(*rbacv1.RoleBinding)
		if before != nil && before.RoleRef == o.RoleRef && sameSubjects(before.Subjects, o.Subjects) {
			return nil
		}
		return r.checkBinding(ctx, authorizer, u, "rolebindings", o.Namespace, o.Name, o.RoleRef)
	case *rbacv1.ClusterRoleBinding:
		before, _ := old.(*rbacv1.ClusterRoleBinding)
		if before != nil && before.RoleRef == o.RoleRef && sameSubjects(before.Subjects, o.Subjects) {
			return nil
		}
		return r.checkBinding(ctx, authorizer, u, "clusterrolebindings", "", o.Name, o.RoleRef)
	}
	return nil
}

func sameSubjects(a, b []rbacv1.Subject) bool { return slices.Equal(a, b) }

func (r *RBAC) checkRole(ctx context.Context, authorizer Authorizer, u *user.Info, resource, namespace, name string, rules []rbacv1.PolicyRule) error {
	if may(ctx, authorizer, u, "escalate", resource, namespace, name) {
		return nil
	}
	return r.checkRules(u, resource, namespace, name, rules)
}

func (r *RBAC) checkBinding(ctx context.Context, authorizer Authorizer, u *user.Info, resource, namespace, name string, ref rbacv1.RoleRef) error {
	bound := "clusterroles"
	if ref.Kind == "Role" {
		bound = "roles"
	}
	if may(ctx, authorizer, u, "bind", bound, namespace, ref.Name) {
		return nil
	}
	rules, err := r.roleRules(ref, namespace)
	switch {
	case errors.Is(err, errRoleNotFound):
		return apierrors.NewNotFound(schema.GroupResource{Group: rbacv1.GroupName, Resource: resource}, ref.Name)
	case err != nil:
		return err
	}
	return r.checkRules(u, resource, namespace, name, rules)
}

// checkRules refuses unless the user holds all the rules in the namespace.
func (r *RBAC) checkRules(u *user.Info, resource, namespace, name string, rules []rbacv1.PolicyRule) error {
	held, resolution := r.RulesFor(u, namespace)
	missing := Uncovered(held, rules)
	if len(missing) == 0 {
		return nil
	}
	var lines []string
	for _, rule := range Compact(missing) {
		lines = append(lines, ruleText(&rule))
	}
	slices.Sort(lines)
	text := fmt.Sprintf("user %q (groups=%q) is attempting to grant RBAC permissions not currently held:\n%s", u.Name, u.Groups, strings.Join(lines, "\n"))
	if resolution != nil {
		text += fmt.Sprintf("; resolution errors: %v", resolution)
	}
	return forbidden(resource, name, errors.New(text))
}

func forbidden(resource, name string, err error) error {
	return apierrors.NewForbidden(schema.GroupResource{Group: rbacv1.GroupName, Resource: resource}, name, err)
}

// may asks the authorizer about a verb on a role.
func may(ctx context.Context, authorizer Authorizer, u *user.Info, verb, resource, namespace, name string) bool {
	decision, _, _ := authorizer.Authorize(ctx, &Attributes{User: u, Verb: verb, Group: rbacv1.GroupName, Version: "v1", Resource: resource, Namespace: namespace, Name: name})
	return decision == Allow
}
