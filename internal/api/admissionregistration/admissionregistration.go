// Package admissionregistration holds the kinds of admissionregistration.k8s.io, which let clusters check and change requests with
// rules of their own: admission policies with their bindings, and webhook configurations. A file each.
//
// Promises: every function is pure. Does not know the language of expressions: the server gives it a checker for
// them. Start reading at match.go, which all kinds share, then validatingadmissionpolicy.go.
package admissionregistration

import (
	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/expression"
	"github.com/timonel/timonel/internal/kind"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	admissionv1alpha1 "k8s.io/api/admissionregistration/v1alpha1"
	admissionv1beta1 "k8s.io/api/admissionregistration/v1beta1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const group = admissionv1.GroupName

// Result is what an expression must evaluate to.
type Result int

const (
	Any          Result = iota // a variable
	Bool                       // a validation or a match condition
	String                     // the message of a validation
	StringOrNull               // an audit annotation
	Object                     // an apply configuration
	Patches                    // a list of JSONPatch
)

// Scope says what expressions can refer to besides the request and its objects (Kubernetes documentation, "Validating Admission Policy").
type Scope struct {
	Params    bool // the policy has parameters, called params
	Variables bool // the policy has variables, called variables: those that were declared so far
	Mutation  bool // the types that mutations are written with
}

// Checker checks the expressions of an object one after the other.
type Checker interface {
	// Check says what is wrong with an expression, in the words of the answer ("compilation failed: …", "must evaluate to bool but got int"); ""
	// if nothing is.
	Check(text string, returns Result) string
	// Declare makes the value of an expression a variable that later ones can use, or says what is wrong with it.
	Declare(name, text string) string
}

// Options are what the kinds need to know about the server.
type Options struct {
	// Checker knows the language of expressions. nil: only the syntax is checked.
	Checker func(Scope) Checker
}

// syntax checks no more than the syntax.
type syntax struct{}

func (syntax) Check(text string, _ Result) string { return expression.Syntax(text) }

func (syntax) Declare(_, text string) string { return expression.Syntax(text) }

// Definitions lists the kinds of the group in alphabetical order, as discovery does.
func Definitions(o Options) []*kind.Definition {
	if o.Checker == nil {
		o.Checker = func(Scope) Checker { return syntax{} }
	}
	policy, binding := mutatingPolicy(o), mutatingBinding()
	return []*kind.Definition{
		policy, binding, mutatingWebhooks(o), validatingPolicy(o), validatingBinding(), validatingWebhooks(o),
		policy.Renamed("v1beta1", kind.Of[admissionv1beta1.MutatingAdmissionPolicy]()),
		binding.Renamed("v1beta1", kind.Of[admissionv1beta1.MutatingAdmissionPolicyBinding]()),
		policy.Renamed("v1alpha1", kind.Of[admissionv1alpha1.MutatingAdmissionPolicy]()),
		binding.Renamed("v1alpha1", kind.Of[admissionv1alpha1.MutatingAdmissionPolicyBinding]()),
	}
}

var categories = []string{"api-extensions"}

// expressions checks the expressions of an object. Those that its old version has already are not checked again, so that
// a stricter language does not get in the way of other changes.
type expressions struct {
	Options
	known   map[string]bool
	scope   Scope
	checker Checker // of scope; nil until there is something to check
}

// see changes what the expressions that follow can refer to.
func (e *expressions) see(scope Scope) { e.scope, e.checker = scope, nil }

func (e *expressions) language() Checker {
	if e.checker == nil {
		e.checker = e.Checker(e.scope)
	}
	return e.checker
}

func (e *expressions) check(text string, returns Result, path *field.Path) field.ErrorList {
	if e.known[text] {
		return nil
	}
	return refuse(e.language().Check(text, returns), text, path)
}

// declare checks a variable that has a name.
func (e *expressions) declare(name, text string, path *field.Path) field.ErrorList {
	problem := e.language().Declare(name, text)
	if e.known[text] {
		return nil
	}
	return refuse(problem, text, path)
}

func refuse(problem, text string, path *field.Path) field.ErrorList {
	if problem == "" {
		return nil
	}
	return field.ErrorList{field.Invalid(path, text, problem)}
}

// failurePolicies and matchPolicies are in the order in which answers list them.
var (
	failurePolicies = []admissionv1.FailurePolicyType{admissionv1.Fail, admissionv1.Ignore}
	matchPolicies   = []admissionv1.MatchPolicyType{admissionv1.Equivalent, admissionv1.Exact}
)

func checkFailurePolicy(p *admissionv1.FailurePolicyType, path *field.Path) field.ErrorList {
	if p == nil {
		return nil
	}
	return check.OneOf(*p, path.Child("failurePolicy"), failurePolicies...)
}
