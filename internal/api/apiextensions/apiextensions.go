// Package apiextensions holds the kinds of apiextensions.k8s.io: CustomResourceDefinition, served as v1 and stored as v1beta1.
//
// Promises: every function is pure; what is stored and what is served say the same. Does not know how a definition becomes a kind,
// nor the language of validation rules nor what schemas do to values: the server gives it a checker for either.
// Start reading at definition.go; stored.go for the stored form, validate.go and structural.go for what is valid.
package apiextensions

import (
	"github.com/timonel/timonel/internal/kind"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Options are what the kind needs to know about the server.
type Options struct {
	// CheckRules reports what is wrong with the validation rules (x-kubernetes-validations) in a schema whose root is at path,
	// besides rules that are empty. It is called for structural schemas only. nil: rules are stored as they are.
	CheckRules func(root *apiextensionsv1.JSONSchemaProps, path *field.Path) field.ErrorList
	// CheckDefaults reports what is wrong with the defaults in a structural schema whose root is at path. nil: they are stored as they are.
	CheckDefaults func(root *apiextensionsv1.JSONSchemaProps, path *field.Path) field.ErrorList
	// Warnings says what the author of a schema should know. nil: nothing.
	Warnings func(root *apiextensionsv1.JSONSchemaProps) []string
}

// Definitions lists the kinds of the group.
func Definitions(o Options) []*kind.Definition {
	return []*kind.Definition{customResourceDefinition(o)}
}
