// Package rbac holds the kinds of rbac.authorization.k8s.io: Role, RoleBinding, ClusterRole and
// ClusterRoleBinding. Who may grant what is decided elsewhere (authz); here is only what the objects look like.
package rbac

import (
	"fmt"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	rbacv1 "k8s.io/api/rbac/v1"
	rbacv1beta1 "k8s.io/api/rbac/v1beta1"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const group = rbacv1.GroupName

// Definitions lists the kinds of the group.
func Definitions() []*kind.Definition {
	return []*kind.Definition{clusterRoleBinding(), clusterRole(), roleBinding(), role()}
}

func base(name, plural string, scope kind.Scope) *kind.Definition {
	return &kind.Definition{
		Group: group, Version: "v1", Kind: name, Plural: plural, Scope: scope,
		Verbs: kind.Standard, CreateOnPut: true, CheckName: check.SegmentName,
	}
}

func role() *kind.Definition {
	d := base("Role", "roles", kind.Namespaced)
	d.New = kind.Of[rbacv1.Role]()
	d.Validate = kind.Validate(func(r *rbacv1.Role) field.ErrorList { return validateRules(r.Rules, true) })
	return d
}

func clusterRole() *kind.Definition {
	d := base("ClusterRole", "clusterroles", kind.Cluster)
	d.New = kind.Of[rbacv1.ClusterRole]()
	d.Validate = kind.Validate(validateClusterRole)
	return d
}

func validateClusterRole(r *rbacv1.ClusterRole) field.ErrorList {
	errs := validateRules(r.Rules, false)
	if r.AggregationRule == nil {
		return errs
	}
	selectors := field.NewPath("aggregationRule", "clusterRoleSelectors")
	if len(r.AggregationRule.ClusterRoleSelectors) == 0 {
		return append(errs, field.Required(selectors, "at least one clusterRoleSelector required if aggregationRule is non-nil"))
	}
	for i, s := range r.AggregationRule.ClusterRoleSelectors {
		at := selectors.Index(i)
		errs = append(errs, check.Selector(&s, nil, at)...)
		if _, err := metav1.LabelSelectorAsSelector(&s); err != nil {
			errs = append(errs, field.Invalid(at, nil, "invalid label selector."))
		}
	}
	return errs
}

func validateRules(rules []rbacv1.PolicyRule, namespaced bool) field.ErrorList {
	var errs, verbs field.ErrorList
	for i, r := range rules {
		at := field.NewPath("rules").Index(i)
		if len(r.Verbs) == 0 {
			verbs = append(verbs, field.Required(at.Child("verbs"), ""))
		}
		if len(r.NonResourceURLs) > 0 {
			if namespaced {
				errs = append(errs, field.Invalid(at.Child("nonResourceURLs"), r.NonResourceURLs, "namespaced rules cannot apply to non-resource URLs"))
			}
			if len(r.APIGroups) > 0 || len(r.Resources) > 0 || len(r.ResourceNames) > 0 {
				errs = append(errs, field.Invalid(at.Child("nonResourceURLs"), r.NonResourceURLs, "rules cannot apply to both regular resources and non-resource URLs"))
			}
			continue
		}
		if len(r.APIGroups) == 0 {
			errs = append(errs, field.Required(at.Child("apiGroups"), "resource rules must supply at least one api group"))
		}
		if len(r.Resources) == 0 {
			errs = append(errs, field.Required(at.Child("resources"), "resource rules must supply at least one resource"))
		}
	}
	return append(errs, verbs...) // Parity: missing verbs are reported last
}

func roleBinding() *kind.Definition {
	d := base("RoleBinding", "rolebindings", kind.Namespaced)
	d.New = kind.Of[rbacv1.RoleBinding]()
	d.Default = kind.Default(func(b *rbacv1.RoleBinding) { defaultBinding(&b.RoleRef, b.Subjects) })
	d.Validate = kind.Validate(func(b *rbacv1.RoleBinding) field.ErrorList {
		return validateBinding(&b.RoleRef, b.Subjects, true)
	})
	d.ValidateUpdate = kind.ValidateUpdate(func(b, old *rbacv1.RoleBinding) field.ErrorList {
		return append(validateBinding(&b.RoleRef, b.Subjects, true), keepRoleRef(b.RoleRef, old.RoleRef)...)
	})
	d.Columns = bindingColumns("roleBinding", func(b *rbacv1.RoleBinding) (rbacv1.RoleRef, []rbacv1.Subject) { return b.RoleRef, b.Subjects })
	d.ColumnFields = bindingColumnFields
	return d
}

func clusterRoleBinding() *kind.Definition {
	d := base("ClusterRoleBinding", "clusterrolebindings", kind.Cluster)
	d.New = kind.Of[rbacv1.ClusterRoleBinding]()
	d.Default = kind.Default(func(b *rbacv1.ClusterRoleBinding) { defaultBinding(&b.RoleRef, b.Subjects) })
	d.Validate = kind.Validate(func(b *rbacv1.ClusterRoleBinding) field.ErrorList {
		return validateBinding(&b.RoleRef, b.Subjects, false)
	})
	d.ValidateUpdate = kind.ValidateUpdate(func(b, old *rbacv1.ClusterRoleBinding) field.ErrorList {
		return append(validateBinding(&b.RoleRef, b.Subjects, false), keepRoleRef(b.RoleRef, old.RoleRef)...)
	})
	d.Columns = bindingColumns("clusterRoleBinding", func(b *rbacv1.ClusterRoleBinding) (rbacv1.RoleRef, []rbacv1.Subject) {
		return b.RoleRef, b.Subjects
	})
	d.ColumnFields = bindingColumnFields
	return d
}

func defaultBinding(ref *rbacv1.RoleRef, subjects []rbacv1.Subject) {
	if ref.APIGroup == "" {
		ref.APIGroup = group
	}
	for i := range subjects {
		if s := &subjects[i]; s.APIGroup == "" && (s.Kind == rbacv1.UserKind || s.Kind == rbacv1.GroupKind) {
			s.APIGroup = group
		}
	}
}

func validateBinding(ref *rbacv1.RoleRef, subjects []rbacv1.Subject, namespaced bool) field.ErrorList {
	at := field.NewPath("roleRef")
	errs := check.OneOf(ref.APIGroup, at.Child("apiGroup"), group)
	if namespaced {
		errs = append(errs, check.OneOf(ref.Kind, at.Child("kind"), "Role", "ClusterRole")...)
	} else {
		errs = append(errs, check.OneOf(ref.Kind, at.Child("kind"), "ClusterRole")...)
	}
	errs = append(errs, check.Form(ref.Name, at.Child("name"), path.IsValidPathSegmentName)...)
	for i := range subjects {
		errs = append(errs, validateSubject(&subjects[i], namespaced, field.NewPath("subjects").Index(i))...)
	}
	for i := range subjects { // Parity: missing names are reported last
		errs = append(errs, check.Required(subjects[i].Name, field.NewPath("subjects").Index(i).Child("name"))...)
	}
	return append(errs, check.Required(ref.Name, at.Child("name"))...)
}

func validateSubject(s *rbacv1.Subject, namespaced bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch s.Kind {
	case rbacv1.ServiceAccountKind:
		errs = append(errs, check.Form(s.Name, at.Child("name"), check.Subdomain)...)
		if s.APIGroup != "" {
			errs = append(errs, field.NotSupported(at.Child("apiGroup"), s.APIGroup, []string{""}))
		}
		if !namespaced {
			errs = append(errs, check.Required(s.Namespace, at.Child("namespace"))...)
		}
	case rbacv1.UserKind, rbacv1.GroupKind:
		errs = append(errs, check.OneOf(s.APIGroup, at.Child("apiGroup"), group)...)
	default:
		errs = append(errs, field.NotSupported(at.Child("kind"), s.Kind, []string{rbacv1.ServiceAccountKind, rbacv1.UserKind, rbacv1.GroupKind}))
	}
	return errs
}

func keepRoleRef(ref, old rbacv1.RoleRef) field.ErrorList {
	return check.Immutable(ref, old, field.NewPath("roleRef"))
}

// bindingColumns are the columns of a binding; parts takes one to pieces.
func bindingColumns[P object.Object](what string, parts func(P) (rbacv1.RoleRef, []rbacv1.Subject)) kind.Columns {
	of := func(subjectKind string) func(object.Object) any {
		return kind.Cell(func(b P) any {
			_, subjects := parts(b)
			return subjectsOf(subjects, subjectKind)
		})
	}
	return kind.Columns{
		{Name: "Role", Description: roleRefDescription[what], Of: kind.Cell(func(b P) any {
			ref, _ := parts(b)
			return ref.Kind + "/" + ref.Name
		})},
		kind.Age,
		{Name: "Users", Wide: true, Description: "Users in the " + what, Of: of(rbacv1.UserKind)},
		{Name: "Groups", Wide: true, Description: "Groups in the " + what, Of: of(rbacv1.GroupKind)},
		{Name: "ServiceAccounts", Wide: true, Description: "ServiceAccounts in the " + what, Of: of(rbacv1.ServiceAccountKind)},
	}
}

var bindingColumnFields = []string{"roleRef.kind", "roleRef.name", "subjects"}

// Parity: the tables show the texts of v1beta1, which do not say that roleRef is immutable.
var roleRefDescription = map[string]string{
	"roleBinding":        rbacv1beta1.RoleBinding{}.SwaggerDoc()["roleRef"],
	"clusterRoleBinding": rbacv1beta1.ClusterRoleBinding{}.SwaggerDoc()["roleRef"],
}

func subjectsOf(subjects []rbacv1.Subject, subjectKind string) string {
	var names []string
	for _, s := range subjects {
		switch {
		case s.Kind != subjectKind:
		case s.Kind == rbacv1.ServiceAccountKind:
			names = append(names, fmt.Sprintf("%s/%s", s.Namespace, s.Name))
		default:
			names = append(names, s.Name)
		}
	}
	return strings.Join(names, ", ")
}
