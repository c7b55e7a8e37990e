// Package cel checks objects by the validation rules in a custom resource's schema
// (x-kubernetes-validations, KEP-2876).
//
// Promises: a rule is compiled once; it runs within a budget; a transition rule (oldSelf) runs only on updates of values
// that belong together; a rule that can be too dear for the largest request is refused when it is written.
//
// Does not know: kinds, requests; the language itself (package cel beside it). Start reading at Check, then Compile.
package cel

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	language "github.com/timonel/timonel/internal/cel"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

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
func Compile(props *apiextensions.JSONSchemaProps) *Rules { return compile(props, true) }

func compile(props *apiextensions.JSONSchemaProps, root bool) *Rules {
	n := &Rules{props: props}
	any := len(props.XValidations) > 0
	if any {
		scope := newScope(props, root)
		for _, r := range props.XValidations {
			n.rules = append(n.rules, scope.rule(r))
		}
	}
	for name := range props.Properties {
		child := props.Properties[name]
		if made := compile(&child, child.XEmbeddedResource); made != nil {
			if n.properties == nil {
				n.properties = map[string]*Rules{}
			}
			n.properties[name], any = made, true
		}
	}
	if props.Items != nil && props.Items.Schema != nil {
		n.items = compile(props.Items.Schema, props.Items.Schema.XEmbeddedResource)
	}
	if props.AdditionalProperties != nil && props.AdditionalProperties.Schema != nil {
		n.additional = compile(props.AdditionalProperties.Schema, props.AdditionalProperties.Schema.XEmbeddedResource)
	}
	if !any && n.items == nil && n.additional == nil {
		return nil
	}
	return n
}

var (
	errNotBool   = errors.New("cel expression must evaluate to a bool")
	errNotString = errors.New("messageExpression must evaluate to a string")
)

// scope is what the rules of a schema node see: self, and oldSelf, with optionalOldSelf as an optional value. The languages are made
// once for all rules of the node.
type scope struct {
	self     *language.Type
	plain    func() (*language.Language, error)
	optional func() (*language.Language, error)
}

func newScope(props *apiextensions.JSONSchemaProps, root bool) *scope {
	s := &scope{self: typeOf(props, "Self", root)}
	if s.self == nil {
		s.self = language.Dyn()
	}
	s.plain = sync.OnceValues(func() (*language.Language, error) {
		return language.New(map[string]*language.Type{"self": s.self, "oldSelf": s.self})
	})
	s.optional = sync.OnceValues(func() (*language.Language, error) {
		old := *s.self
		old.CEL = celgo.OptionalType(s.self.CEL)
		return language.New(map[string]*language.Type{"self": s.self, "oldSelf": &old})
	})
	return s
}

func (s *scope) compile(text string, optional bool, want *celgo.Type, otherwise error) (*language.Expression, error) {
	made := s.plain
	if optional {
		made = s.optional
	}
	l, err := made()
	if err != nil {
		return nil, err
	}
	e, err := l.Compile(text)
	if err != nil {
		return nil, err
	}
	if !e.Type().IsExactType(want) && !e.Type().IsExactType(celgo.DynType) {
		return nil, otherwise
	}
	return e, nil
}

// condition compiles the rule itself, message what tells how it failed.
func (s *scope) condition(v *apiextensions.ValidationRule) (*language.Expression, error) {
	return s.compile(v.Rule, ptr.Deref(v.OptionalOldSelf, false), celgo.BoolType, errNotBool)
}

func (s *scope) message(v *apiextensions.ValidationRule) (*language.Expression, error) {
	return s.compile(v.MessageExpression, ptr.Deref(v.OptionalOldSelf, false), celgo.StringType, errNotString)
}

func (s *scope) rule(v apiextensions.ValidationRule) rule {
	r := rule{ValidationRule: v}
	if e, err := s.condition(&v); err == nil { // Check has told the author
		r.program, r.transition = e.Program(), e.Uses("oldSelf")
	}
	if v.MessageExpression != "" {
		if e, err := s.message(&v); err == nil {
			r.message = e.Program()
		}
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

// objectBudget bounds what all rules together may cost for one object, in CEL's units (limits of kube-apiserver).
const objectBudget = 10_000_000

// budget is what is left of it; once it is spent no more rules run.
type budget struct{ left int64 }

func (b *budget) spent() bool { return b.left < 0 }

// Validate runs the rules on an object; old is what it replaces, nil on create.
func (n *Rules) Validate(object, old map[string]any) field.ErrorList {
	var was any
	if old != nil {
		was = old
	}
	return n.check(nil, object, was, old != nil, &budget{objectBudget})
}

func (n *Rules) check(at *field.Path, value, old any, correlated bool, b *budget) (errs field.ErrorList) {
	if n == nil || value == nil {
		return nil
	}
	for i := range n.rules {
		if b.spent() {
			return errs
		}
		if err := n.run(&n.rules[i], at, value, old, correlated, b); err != nil {
			errs = append(errs, err)
		}
	}
	switch v := value.(type) {
	case map[string]any:
		before, _ := old.(map[string]any)
		for _, key := range slices.Sorted(maps.Keys(v)) {
			was, had := before[key]
			if child := n.properties[key]; child != nil {
				errs = append(errs, child.check(child1(at, key), v[key], was, correlated && had, b)...)
			} else if _, declared := n.props.Properties[key]; !declared && n.additional != nil {
				errs = append(errs, n.additional.check(at.Key(key), v[key], was, correlated && had, b)...)
			}
		}
	case []any:
		if n.items == nil {
			return errs
		}
		before, _ := old.([]any)
		for i, e := range v {
			was, had := n.partner(e, before)
			errs = append(errs, n.items.check(at.Index(i), e, was, correlated && had, b)...)
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

func (n *Rules) run(r *rule, at *field.Path, value, old any, correlated bool, b *budget) *field.Error {
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
	result, details, err := r.program.Eval(input)
	b.pay(details)
	switch {
	case err != nil && strings.Contains(err.Error(), "actual cost limit exceeded"):
		b.left = -1
		return field.Invalid(at, typeName(n.props, value), fmt.Sprintf("'%v': no further validation rules will be run due to call cost exceeds limit for rule: %s", err, about))
	case err != nil && strings.HasPrefix(err.Error(), "no such overload"):
		return field.Invalid(at, typeName(n.props, value), fmt.Sprintf("'%v': call arguments did not match a supported operator, function or macro signature for rule: %s", err, about))
	case err != nil:
		return field.Invalid(at, typeName(n.props, value), fmt.Sprintf("%v evaluating rule: %s", err, about))
	case b.spent():
		return field.Invalid(at, typeName(n.props, value), "validation failed due to running out of cost budget, no further validation rules will be run")
	}
	if ok, isBool := result.Value().(bool); isBool && ok {
		return nil
	}
	message := "failed rule: " + strings.TrimSpace(r.Rule)
	if r.Message != "" {
		message = about
	}
	if r.message != nil {
		if text := evalText(r.message, input, b); text != "" {
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

// pay takes what a run cost off the budget.
func (b *budget) pay(d *celgo.EvalDetails) {
	if d == nil || d.ActualCost() == nil {
		return
	}
	b.left -= int64(*d.ActualCost())
}

// evalText is the message that an expression makes; "" if it makes none that is fit to be shown.
func evalText(p celgo.Program, input map[string]any, b *budget) string {
	out, details, err := p.Eval(input)
	b.pay(details)
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
