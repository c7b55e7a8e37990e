// Package cel checks objects by the validation rules in a custom resource's schema
// (x-kubernetes-validations, KEP-2876).
//
// Promises: a rule is compiled once; it runs within a budget; a transition rule (oldSelf) runs only on updates of values
// that belong together. Rules are typed as far as their own value goes: fields of objects are dynamic.
//
// Does not know: kinds, requests; how dear a rule may be when it is written. Start reading at Compile.
package cel

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ruleBudget bounds the cost of one run of a rule, in CEL's units (kube-apiserver's per-call limit).
const ruleBudget = 1_000_000

// interruptEvery is after how many steps of a comprehension a run looks at its budget.
const interruptEvery = 100

// Rules are the compiled rules of a schema node and of those below it.
type Rules struct {
	props      *apiextensions.JSONSchemaProps
	rules      []rule
	properties map[string]*Rules
	items      *Rules
	additional *Rules
}

type rule struct {
	apiextensions.ValidationRule
	program    celgo.Program // nil: does not compile here
	message    celgo.Program // of messageExpression, or nil
	transition bool
}

// Compile compiles the rules of a schema; nil if it has none.
func Compile(props *apiextensions.JSONSchemaProps) *Rules {
	n := &Rules{props: props}
	any := len(props.XValidations) > 0
	for _, r := range props.XValidations {
		n.rules = append(n.rules, compileRule(props, r))
	}
	for name := range props.Properties {
		child := props.Properties[name]
		if made := Compile(&child); made != nil {
			if n.properties == nil {
				n.properties = map[string]*Rules{}
			}
			n.properties[name], any = made, true
		}
	}
	if props.Items != nil && props.Items.Schema != nil {
		n.items = Compile(props.Items.Schema)
	}
	if props.AdditionalProperties != nil && props.AdditionalProperties.Schema != nil {
		n.additional = Compile(props.AdditionalProperties.Schema)
	}
	if !any && n.items == nil && n.additional == nil {
		return nil
	}
	return n
}

var errNotBool = errors.New("cel expression must evaluate to a bool")

// compileExpression returns the program of an expression over self and oldSelf.
func compileExpression(props *apiextensions.JSONSchemaProps, text string, want *celgo.Type, optionalOld bool) (celgo.Program, error) {
	self := typeOf(props)
	old := self
	if optionalOld {
		old = celgo.OptionalType(self)
	}
	base, err := environment()
	if err != nil {
		return nil, err
	}
	env, err := base.Extend(celgo.Variable("self", self), celgo.Variable("oldSelf", old))
	if err != nil {
		return nil, err
	}
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		return nil, fmt.Errorf("compilation failed: %w", issues.Err())
	}
	if out := ast.OutputType(); !out.IsExactType(want) && !out.IsExactType(celgo.DynType) {
		return nil, errNotBool
	}
	return env.Program(ast, celgo.EvalOptions(celgo.OptOptimize, celgo.OptTrackCost), celgo.CostLimit(ruleBudget), celgo.InterruptCheckFrequency(interruptEvery))
}

func compileRule(props *apiextensions.JSONSchemaProps, v apiextensions.ValidationRule) rule {
	optional := v.OptionalOldSelf != nil && *v.OptionalOldSelf
	r := rule{ValidationRule: v, transition: strings.Contains(v.Rule, "oldSelf")}
	r.program, _ = compileExpression(props, v.Rule, celgo.BoolType, optional) // Check has told the author
	if v.MessageExpression != "" {
		r.message, _ = compileExpression(props, v.MessageExpression, celgo.StringType, optional)
	}
	return r
}

// Unchecked lists the rules that do not compile here, for a warning.
func (n *Rules) Unchecked() []string {
	if n == nil {
		return nil
	}
	var out []string
	for _, r := range n.rules {
		if r.program == nil {
			out = append(out, r.Rule)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.properties)) {
		out = append(out, n.properties[name].Unchecked()...)
	}
	return append(append(out, n.items.Unchecked()...), n.additional.Unchecked()...)
}

// Validate runs the rules on an object; old is what it replaces, nil on create.
func (n *Rules) Validate(object, old map[string]any) field.ErrorList {
	var was any
	if old != nil {
		was = old
	}
	return n.check(nil, object, was, old != nil)
}

func (n *Rules) check(at *field.Path, value, old any, correlated bool) (errs field.ErrorList) {
	if n == nil || value == nil {
		return nil
	}
	for i := range n.rules {
		if err := n.run(&n.rules[i], at, value, old, correlated); err != nil {
			errs = append(errs, err)
		}
	}
	switch v := value.(type) {
	case map[string]any:
		before, _ := old.(map[string]any)
		for _, key := range slices.Sorted(maps.Keys(v)) {
			was, had := before[key]
			if child := n.properties[key]; child != nil {
				errs = append(errs, child.check(child1(at, key), v[key], was, correlated && had)...)
			} else if _, declared := n.props.Properties[key]; !declared && n.additional != nil {
				errs = append(errs, n.additional.check(at.Key(key), v[key], was, correlated && had)...)
			}
		}
	case []any:
		if n.items == nil {
			return errs
		}
		before, _ := old.([]any)
		for i, e := range v {
			was, had := n.partner(e, before)
			errs = append(errs, n.items.check(at.Index(i), e, was, correlated && had)...)
		}
	}
	return errs
}

func child1(at *field.Path, key string) *field.Path {
	if at == nil {
		return field.NewPath(key)
	}
	return at.Child(key)
}

// partner finds the element of old that an element of a list of type map belongs to.
func (n *Rules) partner(e any, old []any) (any, bool) {
	if n.props.XListType == nil || *n.props.XListType != "map" {
		return nil, false
	}
	m, ok := e.(map[string]any)
	if !ok {
		return nil, false
	}
	for _, o := range old {
		was, ok := o.(map[string]any)
		if ok && !slices.ContainsFunc(n.props.XListMapKeys, func(key string) bool { return !reflect.DeepEqual(m[key], was[key]) }) {
			return was, true
		}
	}
	return nil, false
}

func (n *Rules) run(r *rule, at *field.Path, value, old any, correlated bool) *field.Error {
	optional := r.OptionalOldSelf != nil && *r.OptionalOldSelf
	switch {
	case r.program == nil:
		return nil
	case r.transition && !correlated && !optional:
		return nil
	case !r.transition && correlated && reflect.DeepEqual(value, old):
		return nil // what was wrong and is left alone is tolerated (KEP-4008)
	}
	input := map[string]any{"self": toCEL(value, n.props)}
	switch {
	case !r.transition:
	case optional && correlated:
		input["oldSelf"] = types.OptionalOf(types.DefaultTypeAdapter.NativeToValue(toCEL(old, n.props)))
	case optional:
		input["oldSelf"] = types.OptionalNone
	default:
		input["oldSelf"] = toCEL(old, n.props)
	}
	about := r.Rule
	if r.Message != "" {
		about = strings.TrimSpace(r.Message)
	}
	result, _, err := r.program.Eval(input)
	if err != nil {
		return field.Invalid(at, typeName(n.props, value), fmt.Sprintf("%v evaluating rule: %s", err, about))
	}
	if ok, isBool := result.Value().(bool); isBool && ok {
		return nil
	}
	message := "failed rule: " + strings.TrimSpace(r.Rule)
	if r.Message != "" {
		message = about
	}
	if r.message != nil {
		if text := evalText(r.message, input); text != "" {
			message = text
		}
	}
	where := at
	for step := range strings.SplitSeq(strings.TrimPrefix(r.FieldPath, "."), ".") {
		if step != "" {
			where = child1(where, step)
		}
	}
	reason := apiextensions.FieldValueInvalid
	if r.Reason != nil {
		reason = *r.Reason
	}
	switch reason {
	case apiextensions.FieldValueForbidden:
		return field.Forbidden(where, message)
	case apiextensions.FieldValueRequired:
		return field.Required(where, message)
	case apiextensions.FieldValueDuplicate:
		return field.Duplicate(where, shown(value))
	}
	return field.Invalid(where, shown(value), message)
}

func evalText(p celgo.Program, input map[string]any) string {
	var out ref.Val
	out, _, err := p.Eval(input)
	if err != nil {
		return ""
	}
	text, _ := out.Value().(string)
	if strings.ContainsAny(text, "\n") {
		return ""
	}
	return strings.TrimSpace(text)
}

// shown is a value in an error; objects and lists are left out.
func shown(value any) any {
	switch value.(type) {
	case map[string]any, []any:
		return field.OmitValueType{}
	}
	return value
}

func typeName(props *apiextensions.JSONSchemaProps, value any) string {
	if props.Type != "" {
		return props.Type
	}
	return fmt.Sprintf("%T", value)
}
