package admissionregistration

import (
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// MutatingAdmissionPolicy changes objects as an expression says (KEP-3962).
func mutatingPolicy(o Options) *kind.Definition {
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "MutatingAdmissionPolicy", Plural: "mutatingadmissionpolicies", Categories: categories,
		Scope: kind.Cluster, Verbs: kind.Standard, MustMatch: true, AnyFinalizer: true,
		New: kind.Of[admissionv1.MutatingAdmissionPolicy](),
		Default: kind.Default(func(p *admissionv1.MutatingAdmissionPolicy) {
			if p.Spec.FailurePolicy == nil {
				p.Spec.FailurePolicy = ptr.To(admissionv1.Fail)
			}
			defaultMatch(p.Spec.MatchConstraints)
		}),
		Generation: kind.Changed(func(p, old *admissionv1.MutatingAdmissionPolicy) bool {
			return !object.Equal(&p.Spec, &old.Spec)
		}),
		Validate:       kind.Validate(func(p *admissionv1.MutatingAdmissionPolicy) field.ErrorList { return validateMutating(p, nil, o) }),
		ValidateUpdate: kind.ValidateUpdate(func(p, old *admissionv1.MutatingAdmissionPolicy) field.ErrorList { return validateMutating(p, old, o) }),
		Columns: policyColumns("Mutations", "Mutation indicates the number of mutations rules defined in this configuration",
			func(p *admissionv1.MutatingAdmissionPolicy) int { return len(p.Spec.Mutations) },
			func(p *admissionv1.MutatingAdmissionPolicy) *admissionv1.ParamKind { return p.Spec.ParamKind }),
		ColumnFields: []string{"spec.mutations.patchType", "spec.paramKind"},
	}
}

func knownMutations(s *admissionv1.MutatingAdmissionPolicySpec) map[string]bool {
	known := map[string]bool{}
	for _, v := range s.Variables {
		known[v.Expression] = true
	}
	for _, c := range s.MatchConditions {
		known[c.Expression] = true
	}
	for _, m := range s.Mutations {
		if m.ApplyConfiguration != nil {
			known[m.ApplyConfiguration.Expression] = true
		}
		if m.JSONPatch != nil {
			known[m.JSONPatch.Expression] = true
		}
	}
	return known
}

func validateMutating(p, old *admissionv1.MutatingAdmissionPolicy, o Options) field.ErrorList {
	s, spec := &p.Spec, field.NewPath("spec")
	e := &expressions{Options: o, scope: Scope{Params: s.ParamKind != nil}}
	if old != nil && equality.Semantic.DeepEqual(s.Variables, old.Spec.Variables) && (s.ParamKind != nil) == (old.Spec.ParamKind != nil) {
		e.known = knownMutations(&old.Spec)
	}
	errs := checkFailurePolicy(s.FailurePolicy, spec)
	if s.ParamKind != nil {
		errs = append(errs, checkParamKind(s.ParamKind, spec.Child("paramKind"))...)
	}
	if s.MatchConstraints == nil {
		errs = append(errs, field.Required(spec.Child("matchConstraints"), ""))
	} else {
		errs = append(errs, checkMatch(s.MatchConstraints, true, spec.Child("matchConstraints"))...)
		errs = append(errs, checkMutable(s.MatchConstraints, spec.Child("matchConstraints", "resourceRules"))...)
	}
	errs = append(errs, checkConditions(s.MatchConditions, e, spec.Child("matchConditions"))...)
	e.see(Scope{Params: s.ParamKind != nil, Variables: len(s.Variables) > 0, Mutation: true})
	errs = append(errs, checkVariables(s.Variables, e, spec.Child("variables"))...)
	if len(s.Mutations) == 0 {
		errs = append(errs, field.Required(spec.Child("mutations"), "mutations must contain at least one item"))
	}
	for i := range s.Mutations {
		errs = append(errs, checkMutation(&s.Mutations[i], e, spec.Child("mutations").Index(i))...)
	}
	return append(errs, check.RequiredOneOf(s.ReinvocationPolicy, spec.Child("reinvocationPolicy"), admissionv1.IfNeededReinvocationPolicy, admissionv1.NeverReinvocationPolicy)...)
}

// checkMutable: what is deleted cannot be changed.
func checkMutable(m *admissionv1.MatchResources, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, r := range m.ResourceRules {
		if k := slices.Index(r.Operations, admissionv1.Delete); k >= 0 {
			errs = append(errs, field.NotSupported(path.Index(i).Child("operations").Index(k), admissionv1.Delete,
				[]admissionv1.OperationType{admissionv1.OperationAll, admissionv1.Connect, admissionv1.Create, admissionv1.Update}))
		}
	}
	return errs
}

func checkMutation(m *admissionv1.Mutation, e *expressions, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	expression := func(text string, returns Result, path *field.Path) {
		if strings.TrimSpace(text) == "" {
			errs = append(errs, field.Required(path, "expression is not specified"))
			return
		}
		errs = append(errs, e.check(text, returns, path)...)
	}
	apply, patch := path.Child("applyConfiguration"), path.Child("jsonPatch")
	switch m.PatchType {
	case admissionv1.PatchTypeApplyConfiguration:
		if m.ApplyConfiguration == nil {
			errs = append(errs, field.Required(apply, "must be specified when patchType is ApplyConfiguration"))
		} else {
			expression(m.ApplyConfiguration.Expression, Object, apply.Child("expression"))
		}
		if m.JSONPatch != nil {
			errs = append(errs, field.Invalid(patch, "{jsonPatch}", "must not be specified when patchType is ApplyConfiguration"))
		}
	case admissionv1.PatchTypeJSONPatch:
		if m.JSONPatch == nil {
			errs = append(errs, field.Required(patch, "must be specified when patchType is JSONPatch"))
		} else {
			expression(m.JSONPatch.Expression, Patches, patch.Child("expression"))
		}
		if m.ApplyConfiguration != nil {
			errs = append(errs, field.Invalid(apply, "{applyConfiguration}", "must not be specified when patchType is JSONPatch"))
		}
	default:
		errs = append(errs, check.RequiredOneOf(m.PatchType, path.Child("patchType"), admissionv1.PatchTypeApplyConfiguration, admissionv1.PatchTypeJSONPatch)...)
	}
	return errs
}

// mutatingBinding is MutatingAdmissionPolicyBinding, which puts a policy into force, with parameters and for some resources.
func mutatingBinding() *kind.Definition {
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "MutatingAdmissionPolicyBinding", Plural: "mutatingadmissionpolicybindings", Categories: categories,
		Scope: kind.Cluster, Verbs: kind.Standard, MustMatch: true, AnyFinalizer: true,
		New:     kind.Of[admissionv1.MutatingAdmissionPolicyBinding](),
		Default: kind.Default(func(b *admissionv1.MutatingAdmissionPolicyBinding) { defaultMatch(b.Spec.MatchResources) }),
		Generation: kind.Changed(func(b, old *admissionv1.MutatingAdmissionPolicyBinding) bool {
			return !object.Equal(&b.Spec, &old.Spec)
		}),
		Validate: kind.Validate(func(b *admissionv1.MutatingAdmissionPolicyBinding) field.ErrorList {
			spec := field.NewPath("spec")
			errs := checkPolicyName(b.Spec.PolicyName, spec)
			if b.Spec.ParamRef != nil {
				errs = append(errs, checkParamRef(b.Spec.ParamRef, spec.Child("paramRef"))...)
			}
			if b.Spec.MatchResources != nil {
				errs = append(errs, checkMatch(b.Spec.MatchResources, false, spec.Child("matchResources"))...)
			}
			return errs
		}),
		Columns: bindingColumns(func(b *admissionv1.MutatingAdmissionPolicyBinding) (string, *admissionv1.ParamRef) {
			return b.Spec.PolicyName, b.Spec.ParamRef
		}),
		ColumnFields: []string{"spec.policyName", "spec.paramRef"},
	}
}
