package policy

import (
	"fmt"
	"maps"
	"sync"

	celgo "github.com/google/cel-go/cel"
	"github.com/timonel/timonel/internal/api/admissionregistration"
	"github.com/timonel/timonel/internal/cel"
)

// Scope says what the expressions of a policy can refer to.
type Scope = admissionregistration.Scope

// Result is what an expression must evaluate to.
type Result = admissionregistration.Result

// results are the types of each Result; any type will do for a variable.
var results = map[Result][]*celgo.Type{
	admissionregistration.Bool:         {celgo.BoolType},
	admissionregistration.String:       {celgo.StringType},
	admissionregistration.StringOrNull: {celgo.StringType, celgo.NullType},
	admissionregistration.Object:       {cel.ObjectType},
	admissionregistration.Patches:      {celgo.ListType(cel.PatchType)},
}

// languages are those without variables, by whether there are parameters and whether mutations are written.
var languages = sync.OnceValue(func() map[Scope]func() (*cel.Language, error) {
	all := map[Scope]func() (*cel.Language, error){}
	for _, scope := range []Scope{{}, {Params: true}, {Mutation: true}, {Params: true, Mutation: true}} {
		all[scope] = sync.OnceValues(func() (*cel.Language, error) { return newLanguage(scope) })
	}
	return all
})

func newLanguage(scope Scope) (*cel.Language, error) {
	variables := map[string]*cel.Type{
		"object": cel.Dyn(), "oldObject": cel.Dyn(), "request": requestType(), "namespaceObject": namespaceType(),
		"authorizer": {CEL: cel.AuthorizerType}, "authorizer.requestResource": {CEL: cel.ResourceCheckType},
	}
	if scope.Params {
		variables["params"] = cel.Dyn()
	}
	more := []celgo.EnvOption{cel.Authorizer()}
	if scope.Mutation {
		more = append(more, cel.Mutation())
	}
	return cel.New(variables, more...)
}

// Compiler compiles the expressions of one policy, in order. It is used by one goroutine.
type Compiler struct {
	scope    Scope
	declared map[string]*cel.Type
	language *cel.Language // of scope and declared; nil: to be made
}

// NewCompiler returns a compiler for expressions that see the scope.
func NewCompiler(scope Scope) *Compiler {
	return &Compiler{scope: scope, declared: map[string]*cel.Type{}}
}

// current is the language with the variables that are declared so far.
func (c *Compiler) current() (*cel.Language, error) {
	if c.language != nil {
		return c.language, nil
	}
	l, err := languages()[Scope{Params: c.scope.Params, Mutation: c.scope.Mutation}]()
	if err == nil && c.scope.Variables {
		l, err = l.With(map[string]*cel.Type{"variables": cel.Object("kubernetes.variables", maps.Clone(c.declared))})
	}
	c.language = l
	return l, err
}

// Compile compiles an expression that must evaluate to what is said.
func (c *Compiler) Compile(text string, returns Result) (*cel.Expression, error) {
	l, err := c.current()
	if err != nil {
		return nil, err
	}
	e, err := l.Compile(text)
	if err != nil {
		return nil, err
	}
	want := results[returns]
	for _, t := range want {
		if e.Type().IsExactType(t) {
			return e, nil
		}
	}
	switch len(want) {
	case 0:
		return e, nil
	case 1:
		return nil, fmt.Errorf("must evaluate to %v but got %v", want[0], e.Type())
	}
	return nil, fmt.Errorf("must evaluate to one of %v", want)
}

// Variable compiles the expression of a variable and makes it known to those that follow, by its type.
func (c *Compiler) Variable(name, text string) (*cel.Expression, error) {
	e, err := c.Compile(text, admissionregistration.Any)
	if err != nil {
		return nil, err
	}
	c.declared[name] = &cel.Type{CEL: e.Type(), MaxSize: cel.RequestBytes, MinBytes: 1}
	c.language = nil
	return e, nil
}

// checker is a Compiler of which only the problems are of interest.
type checker struct{ *Compiler }

// Checker checks expressions that see the scope (admissionregistration.Options).
func Checker(scope Scope) admissionregistration.Checker { return checker{NewCompiler(scope)} }

func (c checker) Check(text string, returns Result) string {
	_, err := c.Compile(text, returns)
	return problem(err)
}

func (c checker) Declare(name, text string) string {
	_, err := c.Variable(name, text)
	return problem(err)
}

func problem(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
