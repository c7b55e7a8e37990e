package admissionregistration

import (
	"fmt"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What validating and mutating policies, and their bindings, have in common.

func checkParamKind(k *admissionv1.ParamKind, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if k.APIVersion == "" {
		errs = append(errs, field.Required(path.Child("apiVersion"), ""))
	} else if gv, err := schema.ParseGroupVersion(k.APIVersion); err != nil {
		errs = append(errs, field.Invalid(path.Child("apiVersion"), k.APIVersion, err.Error()))
	} else {
		errs = append(errs, check.Form(gv.Group, path.Child("apiVersion"), check.Subdomain)...)
		if gv.Version == "" {
			errs = append(errs, field.Invalid(path.Child("apiVersion"), k.APIVersion, "version must be specified"))
		}
		errs = append(errs, check.Form(gv.Version, path.Child("apiVersion"), validation.IsDNS1035Label)...)
	}
	if k.Kind == "" {
		return append(errs, field.Required(path.Child("kind"), ""))
	}
	for _, m := range validation.IsDNS1035Label(strings.ToLower(k.Kind)) {
		errs = append(errs, field.Invalid(path.Child("kind"), k.Kind, "may have mixed case, but should otherwise match: "+m))
	}
	return errs
}

// celReserved are identifiers that the language keeps for itself (Common Expression Language specification, "Syntax").
var celReserved = []string{
	"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package",
	"namespace", "return", "var", "void", "while",
}

// checkVariables checks the variables in order: each can use those before it.
func checkVariables(variables []admissionv1.Variable, e *expressions, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, v := range variables {
		at := path.Index(i)
		switch {
		case v.Name == "":
			errs = append(errs, field.Required(at.Child("name"), "name is not specified"))
		case len(validation.IsCIdentifier(v.Name)) > 0 || slices.Contains(celReserved, v.Name):
			errs = append(errs, field.Invalid(at.Child("name"), v.Name, "name is not a valid CEL identifier"))
		case seen[v.Name]:
			errs = append(errs, field.Duplicate(at.Child("name"), v.Name))
		}
		seen[v.Name] = true
		if strings.TrimSpace(v.Expression) == "" {
			errs = append(errs, field.Required(at.Child("expression"), "expression is not specified"))
			continue
		}
		errs = append(errs, e.declare(v.Name, v.Expression, at.Child("expression"))...)
	}
	return errs
}

var notFoundActions = []admissionv1.ParameterNotFoundActionType{admissionv1.AllowAction, admissionv1.DenyAction}

func checkParamRef(r *admissionv1.ParamRef, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	const exclusive = "name and selector are mutually exclusive"
	both := r.Name != "" && r.Selector != nil
	errs = append(errs, check.Form(r.Name, at.Child("name"), path.IsValidPathSegmentName)...)
	if both {
		errs = append(errs, field.Forbidden(at.Child("name"), exclusive))
	}
	if r.Selector != nil {
		errs = append(errs, check.Selector(r.Selector, nil, at.Child("selector"))...)
	}
	if both {
		errs = append(errs, field.Forbidden(at.Child("selector"), exclusive))
	}
	if r.Name == "" && r.Selector == nil {
		errs = append(errs, field.Required(at, "one of name or selector must be specified"))
	}
	if r.ParameterNotFoundAction == nil {
		return append(errs, field.Required(at.Child("parameterNotFoundAction"), ""))
	}
	return append(errs, check.RequiredOneOf(*r.ParameterNotFoundAction, at.Child("parameterNotFoundAction"), notFoundActions...)...)
}

func checkPolicyName(name string, path *field.Path) field.ErrorList {
	return check.RequiredForm(name, path.Child("policyName"), check.Subdomain)
}

func paramKind(k *admissionv1.ParamKind) string {
	if k == nil {
		return show.Unset
	}
	return k.APIVersion + "/" + k.Kind
}

func paramRef(r *admissionv1.ParamRef) string {
	switch {
	case r == nil:
		return show.Unset
	case r.Name == "":
		return metav1.FormatLabelSelector(r.Selector)
	case r.Namespace == "":
		return "*/" + r.Name
	}
	return r.Namespace + "/" + r.Name
}

// policyColumns are those of a policy: how many rules it has, and its parameters.
func policyColumns[P object.Object](name, what string, count func(P) int, params func(P) *admissionv1.ParamKind) kind.Columns {
	return kind.Columns{
		{Name: name, Type: "integer", Description: what, Of: kind.Cell(func(p P) any { return int64(count(p)) })},
		{Name: "ParamKind", Description: "ParamKind specifies the kind of resources used to parameterize this policy", Of: kind.Cell(func(p P) any { return paramKind(params(p)) })},
		kind.Age,
	}
}

// bindingColumns are those of a binding: its policy and parameters.
func bindingColumns[P object.Object](of func(P) (policy string, params *admissionv1.ParamRef)) kind.Columns {
	return kind.Columns{
		{Name: "PolicyName", Description: "PolicyName indicates the policy definition which the policy binding binded to", Of: kind.Cell(func(p P) any {
			policy, _ := of(p)
			return policy
		})},
		{Name: "ParamRef", Description: "ParamRef indicates the param resource which sets the configuration param", Of: kind.Cell(func(p P) any {
			_, params := of(p)
			return paramRef(params)
		})},
		kind.Age,
	}
}

// noBreaks wants a text of one line that says something.
func noBreaks(text, what string, path *field.Path) field.ErrorList {
	switch trimmed := strings.TrimSpace(text); {
	case text != "" && trimmed == "":
		return field.ErrorList{field.Invalid(path, text, fmt.Sprintf("%s must be non-empty if specified", what))}
	case strings.ContainsAny(trimmed, "\n\r"):
		return field.ErrorList{field.Invalid(path, text, "must not contain line breaks")}
	}
	return nil
}
