package admissionregistration

import (
	"fmt"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

const (
	maxAuditAnnotations = 20
	maxValueExpression  = 5 << 10
)

// ValidatingAdmissionPolicy refuses requests for which an expression is false.
func validatingPolicy(o Options) *kind.Definition {
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "ValidatingAdmissionPolicy", Plural: "validatingadmissionpolicies", Categories: categories,
		Scope: kind.Cluster, Verbs: kind.Standard, MustMatch: true, AnyFinalizer: true,
		New: kind.Of[admissionv1.ValidatingAdmissionPolicy](),
		Default: kind.Default(func(p *admissionv1.ValidatingAdmissionPolicy) {
			if p.Spec.FailurePolicy == nil {
				p.Spec.FailurePolicy = ptr.To(admissionv1.Fail)
			}
			defaultMatch(p.Spec.MatchConstraints)
		}),
		PrepareCreate: kind.Prepare(func(p *admissionv1.ValidatingAdmissionPolicy) {
			p.Status = admissionv1.ValidatingAdmissionPolicyStatus{}
		}),
		PrepareUpdate: kind.PrepareUpdate(func(p, old *admissionv1.ValidatingAdmissionPolicy) { p.Status = old.Status }),
		Generation: kind.Changed(func(p, old *admissionv1.ValidatingAdmissionPolicy) bool {
			return !object.Equal(&p.Spec, &old.Spec)
		}),
		Validate: kind.Validate(func(p *admissionv1.ValidatingAdmissionPolicy) field.ErrorList { return validateValidating(p, nil, o) }),
		ValidateUpdate: kind.ValidateUpdate(func(p, old *admissionv1.ValidatingAdmissionPolicy) field.ErrorList {
			return validateValidating(p, old, o)
		}),
		Columns: policyColumns("Validations", "Validations indicates the number of validation rules defined in this configuration",
			func(p *admissionv1.ValidatingAdmissionPolicy) int { return len(p.Spec.Validations) },
			func(p *admissionv1.ValidatingAdmissionPolicy) *admissionv1.ParamKind { return p.Spec.ParamKind }),
		ColumnFields: []string{"spec.validations.reason", "spec.paramKind"},
		Subresources: map[string]*kind.Subresource{
			"status": kind.StatusOnly(func(p, old *admissionv1.ValidatingAdmissionPolicy) { p.Spec = old.Spec }, validateValidatingStatus),
		},
	}
}

// knownExpressions are those of an old policy.
func knownExpressions(s *admissionv1.ValidatingAdmissionPolicySpec) map[string]bool {
	known := map[string]bool{}
	for _, v := range s.Variables {
		known[v.Expression] = true
	}
	for _, c := range s.MatchConditions {
		known[c.Expression] = true
	}
	for _, v := range s.Validations {
		known[v.Expression], known[v.MessageExpression] = true, true
	}
	for _, a := range s.AuditAnnotations {
		known[a.ValueExpression] = true
	}
	return known
}

func validateValidating(p, old *admissionv1.ValidatingAdmissionPolicy, o Options) field.ErrorList {
	s, spec := &p.Spec, field.NewPath("spec")
	e := &expressions{Options: o, scope: Scope{Params: s.ParamKind != nil}}
	if old != nil && equality.Semantic.DeepEqual(s.Variables, old.Spec.Variables) && (s.ParamKind != nil) == (old.Spec.ParamKind != nil) {
		e.known = knownExpressions(&old.Spec)
	}
	errs := checkFailurePolicy(s.FailurePolicy, spec)
	if s.ParamKind != nil {
		errs = append(errs, checkParamKind(s.ParamKind, spec.Child("paramKind"))...)
	}
	if s.MatchConstraints == nil {
		errs = append(errs, field.Required(spec.Child("matchConstraints"), ""))
	} else {
		errs = append(errs, checkMatch(s.MatchConstraints, true, spec.Child("matchConstraints"))...)
	}
	errs = append(errs, checkConditions(s.MatchConditions, e, spec.Child("matchConditions"))...)
	e.see(Scope{Params: s.ParamKind != nil, Variables: len(s.Variables) > 0})
	errs = append(errs, checkVariables(s.Variables, e, spec.Child("variables"))...)
	if len(s.Validations)+len(s.AuditAnnotations) == 0 {
		const text = "validations or auditAnnotations must contain at least one item"
		return append(errs, field.Required(spec.Child("validations"), text), field.Required(spec.Child("auditAnnotations"), text))
	}
	for i := range s.Validations {
		errs = append(errs, checkValidation(&s.Validations[i], e, spec.Child("validations").Index(i))...)
	}
	return append(errs, checkAuditAnnotations(p.Name, s.AuditAnnotations, e, spec.Child("auditAnnotations"))...)
}

var reasons = []metav1.StatusReason{metav1.StatusReasonForbidden, metav1.StatusReasonInvalid, metav1.StatusReasonRequestEntityTooLarge}

func checkValidation(v *admissionv1.Validation, e *expressions, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if strings.TrimSpace(v.Expression) == "" {
		errs = append(errs, field.Required(path.Child("expression"), "expression is not specified"))
	} else {
		errs = append(errs, e.check(v.Expression, Bool, path.Child("expression"))...)
	}
	if v.MessageExpression != "" {
		if strings.TrimSpace(v.MessageExpression) == "" {
			errs = append(errs, field.Invalid(path.Child("messageExpression"), v.MessageExpression, "must be non-empty if specified"))
		} else {
			errs = append(errs, e.check(v.MessageExpression, String, path.Child("messageExpression"))...)
		}
	}
	errs = append(errs, noBreaks(v.Message, "message", path.Child("message"))...)
	if v.Message == "" && v.MessageExpression == "" && strings.ContainsAny(strings.TrimSpace(v.Expression), "\n\r") {
		errs = append(errs, field.Required(path.Child("message"), "message must be specified if expression contains line breaks"))
	}
	if v.Reason != nil {
		errs = append(errs, check.OneOf(*v.Reason, path.Child("reason"), reasons...)...)
	}
	return errs
}

func checkAuditAnnotations(policy string, annotations []admissionv1.AuditAnnotation, e *expressions, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if n := len(annotations); n > maxAuditAnnotations {
		errs = append(errs, field.Invalid(path, check.GoNames(annotations), fmt.Sprintf("must not have more than %d auditAnnotations", maxAuditAnnotations)))
	}
	seen := map[string]bool{}
	for i, a := range annotations {
		key := path.Index(i).Child("key")
		switch {
		case a.Key == "":
			errs = append(errs, field.Required(key, ""))
		case policy != "":
			errs = append(errs, check.Each(key, a.Key, validation.IsQualifiedName(policy+"/"+a.Key))...)
		}
		if seen[a.Key] {
			errs = append(errs, field.Duplicate(key, a.Key))
		}
		seen[a.Key] = true
		value := path.Index(i).Child("valueExpression")
		switch text := strings.TrimSpace(a.ValueExpression); {
		case text == "":
			errs = append(errs, field.Required(value, "valueExpression is not specified"))
		case len(text) > maxValueExpression:
			errs = append(errs, field.Required(value, fmt.Sprintf("must not exceed %d bytes in length", maxValueExpression)))
		default:
			errs = append(errs, e.check(a.ValueExpression, StringOrNull, value)...)
		}
	}
	return errs
}

func validateValidatingStatus(p, _ *admissionv1.ValidatingAdmissionPolicy) field.ErrorList {
	status := field.NewPath("status")
	var errs field.ErrorList
	if t := p.Status.TypeChecking; t != nil {
		for i, w := range t.ExpressionWarnings {
			at := status.Child("typeChecking", "expressionWarnings").Index(i)
			errs = append(errs, check.Required(w.Warning, at.Child("warning"))...)
			errs = append(errs, check.Required(w.FieldRef, at.Child("fieldRef"))...)
		}
	}
	return append(errs, metavalidation.ValidateConditions(p.Status.Conditions, status.Child("conditions"))...)
}

// validatingBinding is ValidatingAdmissionPolicyBinding, which puts a policy into force, with parameters and for some resources.
func validatingBinding() *kind.Definition {
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "ValidatingAdmissionPolicyBinding", Plural: "validatingadmissionpolicybindings", Categories: categories,
		Scope: kind.Cluster, Verbs: kind.Standard, MustMatch: true, AnyFinalizer: true,
		New:     kind.Of[admissionv1.ValidatingAdmissionPolicyBinding](),
		Default: kind.Default(func(b *admissionv1.ValidatingAdmissionPolicyBinding) { defaultMatch(b.Spec.MatchResources) }),
		Generation: kind.Changed(func(b, old *admissionv1.ValidatingAdmissionPolicyBinding) bool {
			return !object.Equal(&b.Spec, &old.Spec)
		}),
		Validate: kind.Validate(validateValidatingBinding),
		Columns: bindingColumns(func(b *admissionv1.ValidatingAdmissionPolicyBinding) (string, *admissionv1.ParamRef) {
			return b.Spec.PolicyName, b.Spec.ParamRef
		}),
		ColumnFields: []string{"spec.policyName", "spec.paramRef"},
	}
}

var actions = []admissionv1.ValidationAction{admissionv1.Audit, admissionv1.Deny, admissionv1.Warn}

func validateValidatingBinding(b *admissionv1.ValidatingAdmissionPolicyBinding) field.ErrorList {
	spec := field.NewPath("spec")
	errs := check.Form(b.Spec.PolicyName, spec.Child("policyName"), check.Subdomain)
	if b.Spec.ParamRef != nil {
		errs = append(errs, checkParamRef(b.Spec.ParamRef, spec.Child("paramRef"))...)
	}
	if b.Spec.MatchResources != nil {
		errs = append(errs, checkMatch(b.Spec.MatchResources, false, spec.Child("matchResources"))...)
	}
	path := spec.Child("validationActions")
	errs = append(errs, checkActions(b.Spec.ValidationActions, path)...)
	errs = append(errs, check.Required(b.Spec.PolicyName, spec.Child("policyName"))...) // Parity: what is missing is reported last
	if len(b.Spec.ValidationActions) == 0 {
		errs = append(errs, field.Required(path, ""))
	}
	return errs
}

func checkActions(list []admissionv1.ValidationAction, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, a := range list {
		errs = append(errs, check.OneOf(a, path.Index(i), actions...)...)
		if slices.Contains(list[:i], a) {
			errs = append(errs, field.Duplicate(path.Index(i), a))
		}
	}
	if slices.Contains(list, admissionv1.Deny) && slices.Contains(list, admissionv1.Warn) {
		errs = append(errs, field.Invalid(path, list, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"))
	}
	return errs
}
