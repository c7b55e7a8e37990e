// Package expression checks the syntax of CEL expressions, for kinds whose language nobody told them more about.
package expression

import (
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/ext"
)

// environment knows the syntax of the language as Kubernetes uses it, and no variables: made on first use.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(cel.OptionalTypes(), ext.TwoVarComprehensions(), cel.HomogeneousAggregateLiterals())
})

// Syntax says what is wrong with the syntax of an expression, as "compilation failed: …"; "" if nothing is.
func Syntax(text string) string {
	env, err := environment()
	if err != nil {
		return "compilation failed: " + err.Error()
	}
	if _, issues := env.Parse(text); issues.Err() != nil {
		return "compilation failed: " + issues.String()
	}
	return ""
}
