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

// Expression is a CEL expression of a policy or a webhook, with what it can refer to (Kubernetes documentation, "Common Expression
// Language in Kubernetes").
type Expression struct {
	Text    string
	Returns Result
	// Webhook says that it is a match condition of a webhook, which knows the request and nothing of the policy's.
	Webhook bool
	// Params says that the policy has parameters, called params.
	Params bool
	// Variables are those that it can use, each of which can use those before it.
	Variables []admissionv1.Variable
}

// Options are what the kinds need to know about the server.
type Options struct {
	// CheckExpression says what is wrong with an expression, in the words of the answer ("compilation failed: …", "must evaluate to bool"); ""
	// if nothing is. nil: only the syntax is checked.
	CheckExpression func(Expression) string
}

// Definitions lists the kinds of the group in alphabetical order, as discovery does.
func Definitions(o Options) []*kind.Definition {
	if o.CheckExpression == nil {
		o.CheckExpression = func(e Expression) string { return expression.Syntax(e.Text) }
	}
	return []*kind.Definition{
		mutatingPolicy(o), mutatingBinding(), mutatingWebhooks(o), validatingPolicy(o), validatingBinding(), validatingWebhooks(o),
	}
}

var categories = []string{"api-extensions"}

// expressions checks the expressions of an object. Those that its old version has already are not checked again, so that
// a stricter language does not get in the way of other changes.
type expressions struct {
	Options
	known     map[string]bool
	params    bool
	webhook   bool
	variables []admissionv1.Variable
}

func (e *expressions) check(text string, returns Result, path *field.Path) field.ErrorList {
	if e.known[text] {
		return nil
	}
	problem := e.CheckExpression(Expression{Text: text, Returns: returns, Webhook: e.webhook, Params: e.params, Variables: e.variables})
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
