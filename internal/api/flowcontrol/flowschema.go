package flowcontrol

import (
	"fmt"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const defaultPrecedence = 1000

// FlowSchema assigns requests to a priority level.
func flowSchema() *kind.Definition {
	spec := flowcontrolv1.FlowSchemaSpec{}.SwaggerDoc()
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "FlowSchema", Plural: "flowschemas",
		Scope: kind.Cluster, Verbs: kind.Standard,
		New: kind.Of[flowcontrolv1.FlowSchema](),
		Default: kind.Default(func(s *flowcontrolv1.FlowSchema) {
			if s.Spec.MatchingPrecedence == 0 {
				s.Spec.MatchingPrecedence = defaultPrecedence
			}
		}),
		PrepareCreate: kind.Prepare(func(s *flowcontrolv1.FlowSchema) { s.Status = flowcontrolv1.FlowSchemaStatus{} }),
		PrepareUpdate: kind.PrepareUpdate(func(s, old *flowcontrolv1.FlowSchema) { s.Status = old.Status }),
		Generation:    kind.Changed(func(s, old *flowcontrolv1.FlowSchema) bool { return !object.Equal(&s.Spec, &old.Spec) }),
		Validate:      kind.Validate(validateSchema),
		Columns: kind.Columns{
			{Name: "PriorityLevel", Description: flowcontrolv1.PriorityLevelConfigurationReference{}.SwaggerDoc()["name"], Of: kind.Cell(func(s *flowcontrolv1.FlowSchema) any {
				return s.Spec.PriorityLevelConfiguration.Name
			})},
			{Name: "MatchingPrecedence", Description: spec["matchingPrecedence"], Of: kind.Cell(func(s *flowcontrolv1.FlowSchema) any { return int64(s.Spec.MatchingPrecedence) })},
			{Name: "DistinguisherMethod", Description: spec["distinguisherMethod"], Of: kind.Cell(func(s *flowcontrolv1.FlowSchema) any {
				if s.Spec.DistinguisherMethod == nil {
					return show.None
				}
				return string(s.Spec.DistinguisherMethod.Type)
			})},
			kind.Age,
			{Name: "MissingPL", Description: "references a broken or non-existent PriorityLevelConfiguration", Of: kind.Cell(func(s *flowcontrolv1.FlowSchema) any {
				for _, c := range s.Status.Conditions {
					if c.Type == flowcontrolv1.FlowSchemaConditionDangling {
						return string(c.Status)
					}
				}
				return "?"
			})},
		},
		ColumnFields: []string{
			"spec.priorityLevelConfiguration", "spec.matchingPrecedence", "spec.distinguisherMethod",
			"status.conditions.type", "status.conditions.status",
		},
		Subresources: map[string]*kind.Subresource{
			"status": kind.StatusOnly(func(s, old *flowcontrolv1.FlowSchema) { s.Spec = old.Spec }, func(s, _ *flowcontrolv1.FlowSchema) field.ErrorList {
				return checkConditions(len(s.Status.Conditions), func(i int) (string, flowcontrolv1.ConditionStatus) {
					return string(s.Status.Conditions[i].Type), s.Status.Conditions[i].Status
				})
			}),
		},
	}
}

func validateSchema(s *flowcontrolv1.FlowSchema) field.ErrorList {
	spec := field.NewPath("spec")
	precedence := spec.Child("matchingPrecedence")
	var errs field.ErrorList
	switch n := s.Spec.MatchingPrecedence; {
	case n <= 0:
		errs = append(errs, field.Invalid(precedence, n, "must be a positive value"))
	case n > flowcontrolv1.FlowSchemaMaxMatchingPrecedence:
		errs = append(errs, field.Invalid(precedence, n, fmt.Sprintf("must not be greater than %v", flowcontrolv1.FlowSchemaMaxMatchingPrecedence)))
	case n == 1 && s.Name != flowcontrolv1.FlowSchemaNameExempt:
		errs = append(errs, field.Invalid(precedence, n, "only the schema named 'exempt' may have matchingPrecedence 1"))
	}
	if m := s.Spec.DistinguisherMethod; m != nil {
		at := spec.Child("distinguisherMethod", "type")
		supported := []flowcontrolv1.FlowDistinguisherMethodType{flowcontrolv1.FlowDistinguisherMethodByNamespaceType, flowcontrolv1.FlowDistinguisherMethodByUserType}
		if !slices.Contains(supported, m.Type) {
			errs = append(errs, field.NotSupported(at, check.GoNames(*m), supported))
		}
	}
	name := spec.Child("priorityLevelConfiguration", "name")
	if s.Spec.PriorityLevelConfiguration.Name == "" {
		errs = append(errs, field.Required(name, "must reference a priority level"))
	} else {
		errs = append(errs, check.Each(name, s.Spec.PriorityLevelConfiguration.Name, check.Subdomain(s.Spec.PriorityLevelConfiguration.Name))...)
	}
	for i := range s.Spec.Rules {
		errs = append(errs, checkRules(&s.Spec.Rules[i], spec.Child("rules").Index(i))...)
	}
	if fixed := mandatorySchema(s.Name); fixed != nil && !equality.Semantic.DeepEqual(s.Spec, *fixed) {
		errs = append(errs, field.Invalid(spec, check.GoNames(s.Spec), fmt.Sprintf("spec of '%s' must equal the fixed value", s.Name)))
	}
	return errs
}

func checkRules(r *flowcontrolv1.PolicyRulesWithSubjects, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(r.Subjects) == 0 {
		errs = append(errs, field.Required(path.Child("subjects"), "subjects must contain at least one value"))
	}
	for i := range r.Subjects {
		errs = append(errs, checkSubject(&r.Subjects[i], path.Child("subjects").Index(i))...)
	}
	if len(r.ResourceRules)+len(r.NonResourceRules) == 0 {
		errs = append(errs, field.Required(path, "at least one of resourceRules and nonResourceRules has to be non-empty"))
	}
	for i := range r.ResourceRules {
		errs = append(errs, checkResourceRule(&r.ResourceRules[i], path.Child("resourceRules").Index(i))...)
	}
	for i := range r.NonResourceRules {
		errs = append(errs, checkNonResourceRule(&r.NonResourceRules[i], path.Child("nonResourceRules").Index(i))...)
	}
	return errs
}

// checkSubject wants the part of a subject that belongs to its kind, and no other.
func checkSubject(s *flowcontrolv1.Subject, path *field.Path) field.ErrorList {
	kinds := []flowcontrolv1.SubjectKind{flowcontrolv1.SubjectKindGroup, flowcontrolv1.SubjectKindServiceAccount, flowcontrolv1.SubjectKindUser}
	if !slices.Contains(kinds, s.Kind) {
		return check.OneOf(s.Kind, path.Child("kind"), kinds...)
	}
	var own, others field.ErrorList
	for _, part := range []struct {
		kind  flowcontrolv1.SubjectKind
		name  string
		set   bool
		check func(at *field.Path) field.ErrorList
	}{
		{flowcontrolv1.SubjectKindServiceAccount, "serviceAccount", s.ServiceAccount != nil, func(at *field.Path) field.ErrorList { return checkServiceAccount(s.ServiceAccount, at) }},
		{flowcontrolv1.SubjectKindUser, "user", s.User != nil, func(at *field.Path) field.ErrorList { return check.Required(s.User.Name, at.Child("name")) }},
		{flowcontrolv1.SubjectKindGroup, "group", s.Group != nil, func(at *field.Path) field.ErrorList { return check.Required(s.Group.Name, at.Child("name")) }},
	} {
		switch at := path.Child(part.name); {
		case part.kind == s.Kind && part.set:
			own = part.check(at)
		case part.kind == s.Kind:
			own = field.ErrorList{field.Required(at, fmt.Sprintf("%s is required when subject kind is '%s'", part.name, part.kind))}
		case part.set:
			others = append(others, field.Forbidden(at, fmt.Sprintf("%s is forbidden when subject kind is not '%s'", part.name, part.kind)))
		}
	}
	return append(own, others...)
}

func checkServiceAccount(s *flowcontrolv1.ServiceAccountSubject, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.Name != flowcontrolv1.NameAll {
		errs = append(errs, check.RequiredForm(s.Name, path.Child("name"), check.Subdomain)...)
	}
	if s.Namespace == "" {
		return append(errs, field.Required(path.Child("namespace"), "must specify namespace for service account"))
	}
	return append(errs, check.Each(path.Child("namespace"), s.Namespace, check.Label(s.Namespace))...)
}

var requestVerbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"}

// alone wants a list with something in it, and "*" only by itself.
func alone(list []string, what string, path *field.Path) field.ErrorList {
	if len(list) == 0 {
		return field.ErrorList{field.Required(path, fmt.Sprintf("%s must contain at least one value", what))}
	}
	if len(list) > 1 && slices.Contains(list, "*") {
		return field.ErrorList{field.Invalid(path, list, fmt.Sprintf("if '*' is present, must not specify other %s", what))}
	}
	return nil
}

func checkResourceRule(r *flowcontrolv1.ResourcePolicyRule, path *field.Path) field.ErrorList {
	verbs := path.Child("verbs")
	errs := alone(r.Verbs, "verbs", verbs)
	if len(errs) == 0 && slices.ContainsFunc(r.Verbs, func(v string) bool { return v != "*" && !slices.Contains(requestVerbs, v) }) {
		errs = append(errs, field.NotSupported(verbs, r.Verbs, requestVerbs))
	}
	errs = append(errs, alone(r.APIGroups, "api groups", path.Child("apiGroups"))...)
	errs = append(errs, alone(r.Resources, "resources", path.Child("resources"))...)
	namespaces := path.Child("namespaces")
	if len(r.Namespaces) == 0 {
		if !r.ClusterScope {
			errs = append(errs, field.Required(namespaces, "resource rules that are not cluster scoped must supply at least one namespace"))
		}
		return errs
	}
	if len(r.Namespaces) > 1 && slices.Contains(r.Namespaces, flowcontrolv1.NamespaceEvery) {
		return append(errs, field.Invalid(namespaces, r.Namespaces, "may not contain '*' among others"))
	}
	for i, name := range r.Namespaces {
		if name != flowcontrolv1.NamespaceEvery {
			errs = append(errs, check.Each(namespaces.Index(i), name, check.Label(name))...)
		}
	}
	return errs
}

var httpVerbs = []string{"delete", "get", "head", "options", "patch", "post", "put"}

func checkNonResourceRule(r *flowcontrolv1.NonResourcePolicyRule, path *field.Path) field.ErrorList {
	verbs, urls := path.Child("verbs"), path.Child("nonResourceURLs")
	errs := alone(r.Verbs, "verbs", verbs)
	if len(errs) == 0 && slices.ContainsFunc(r.Verbs, func(v string) bool { return v != "*" && !slices.Contains(httpVerbs, v) }) {
		errs = append(errs, field.NotSupported(verbs, r.Verbs, httpVerbs))
	}
	errs = append(errs, alone(r.NonResourceURLs, "non-resource URLs", urls)...)
	for i, u := range r.NonResourceURLs {
		if u == "*" {
			continue
		}
		errs = append(errs, checkPath(u, urls.Index(i))...)
	}
	return errs
}

func checkPath(u string, path *field.Path) field.ErrorList {
	say := func(text string) field.ErrorList { return field.ErrorList{field.Invalid(path, u, text)} }
	switch {
	case u == "":
		return say("must not be empty")
	case u == "/":
		return nil
	case !strings.HasPrefix(u, "/"):
		return say("must start with slash")
	case strings.Contains(u, " "):
		return say("must not contain white-space")
	case strings.Contains(u, "//"):
		return say("must not contain double slash")
	}
	if i := strings.IndexByte(u, '*'); i >= 0 && (i != len(u)-1 || u[i-1] != '/') {
		return say("wildcard can only do suffix matching")
	}
	return nil
}
