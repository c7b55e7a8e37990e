// Package cel is the Common Expression Language as Kubernetes speaks it: the standard library, CEL's extensions that are on, Kubernetes'
// own functions (a file each), declared types for the variables of an expression, and estimates of what an expression costs before it runs
// ("Common Expression Language in Kubernetes"; KEP-2876).
//
// Promises: nothing is made before the first expression; an environment is made once for each set of variables and then
// shared; functions are pure and cost what their arguments' sizes say.
//
// Does not know: kinds, schemas, policies, requests. Rooms that hold expressions declare variables and words of errors: crd/cel (rules of
// custom resources), admission/policy (admission policies and match conditions), cel/device (device selectors).
// Start reading at Compile.
package cel

import (
	"errors"
	"fmt"
	"sync"

	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/checker"
	"github.com/google/cel-go/ext"
	"github.com/google/cel-go/interpreter"
)

// Limits in CEL's units of cost ("CEL in Kubernetes", resource constraints).
const (
	// CallLimit bounds one run of an expression.
	CallLimit = 1_000_000
	// interruptEvery is after how many steps of a comprehension a run looks whether it was given up.
	interruptEvery = 100
)

// base is what all expressions share.
var base = sync.OnceValues(func() (*celgo.Env, error) {
	return celgo.NewEnv(
		celgo.OptionalTypes(), celgo.DefaultUTCTimeZone(true), celgo.CrossTypeNumericComparisons(true), celgo.EagerlyValidateDeclarations(true),
		celgo.HomogeneousAggregateLiterals(), celgo.CostEstimatorOptions(checker.PresenceTestHasCost(false)),
		ext.Strings(ext.StringsVersion(2)), ext.Sets(), ext.TwoVarComprehensions(), ext.Network(),
		urls(), regexes(), lists(), quantities(), semvers(), formats(),
	)
})

// Language is the environment of expressions that see the same variables.
type Language struct {
	env       *celgo.Env
	variables map[string]*Type
}

// New returns the language with the variables, and with more functions or types.
func New(variables map[string]*Type, more ...celgo.EnvOption) (*Language, error) {
	env, err := base()
	if err != nil {
		return nil, fmt.Errorf("make the environment of expressions: %w", err)
	}
	return extend(env, variables, more)
}

// With returns the language with more variables, or with variables of other types.
func (l *Language) With(variables map[string]*Type, more ...celgo.EnvOption) (*Language, error) {
	extended, err := extend(l.env, variables, more)
	if err != nil {
		return nil, err
	}
	for name, t := range l.variables {
		if extended.variables[name] == nil {
			extended.variables[name] = t
		}
	}
	return extended, nil
}

func extend(env *celgo.Env, variables map[string]*Type, more []celgo.EnvOption) (*Language, error) {
	provider := newProvider(env.CELTypeProvider(), variables)
	options := append([]celgo.EnvOption{celgo.CustomTypeProvider(provider)}, more...)
	l := &Language{variables: map[string]*Type{}}
	for name, t := range variables {
		options = append(options, celgo.Variable(name, t.CEL))
		l.variables[name] = t
	}
	var err error
	if l.env, err = env.Extend(options...); err != nil {
		return nil, fmt.Errorf("declare the variables of expressions: %w", err)
	}
	return l, nil
}

// Expression is a compiled expression.
type Expression struct {
	language *Language
	ast      *celgo.Ast
	program  celgo.Program
}

// Compile checks an expression and makes it ready to run.
func (l *Language) Compile(text string) (*Expression, error) {
	ast, issues := l.env.Compile(text)
	if issues.Err() != nil {
		return nil, fmt.Errorf("compilation failed: %w", issues.Err())
	}
	program, err := l.env.Program(ast, celgo.EvalOptions(celgo.OptOptimize, celgo.OptTrackCost), celgo.CostTracking(runtimeCosts{}),
		celgo.CostTrackerOptions(interpreter.PresenceTestHasCost(false)), celgo.CostLimit(CallLimit), celgo.InterruptCheckFrequency(interruptEvery))
	if err != nil {
		return nil, fmt.Errorf("program instantiation failed: %w", err)
	}
	return &Expression{l, ast, program}, nil
}

// Type is what the expression evaluates to.
func (e *Expression) Type() *celgo.Type { return e.ast.OutputType() }

// Uses reports whether the expression refers to a variable.
func (e *Expression) Uses(variable string) bool {
	for _, r := range e.ast.NativeRep().ReferenceMap() {
		if r.Name == variable {
			return true
		}
	}
	return false
}

// Program runs the expression.
func (e *Expression) Program() celgo.Program { return e.program }

// Cost is the most that one run can cost, judging by the sizes that the types of the variables allow.
func (e *Expression) Cost() (uint64, error) {
	estimate, err := e.language.env.EstimateCost(e.ast, estimator{e.language.variables})
	if err != nil {
		return 0, errors.New("cost estimation failed: " + err.Error())
	}
	return estimate.Max, nil
}

// options joins several options into one.
func options(all ...celgo.EnvOption) celgo.EnvOption {
	return func(e *celgo.Env) (env *celgo.Env, err error) {
		for _, o := range all {
			if e, err = o(e); err != nil {
				return nil, err
			}
		}
		return e, nil
	}
}
