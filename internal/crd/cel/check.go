package cel

import (
	"errors"
	"maps"
	"slices"
	"strings"

	celgo "github.com/google/cel-go/cel"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// missing are functions of Kubernetes' CEL libraries that are not here: rules that use them are kept and
// not run, and writers of the objects are warned.
var missing = []string{"quantity", "isQuantity", "semver", "isSemver", "format", "jsonpatch", "authorizer"}

// shownRule is a rule as the reference shows it in errors.
type shownRule struct {
	Rule, Message, MessageExpression string
	Reason                           *apiextensions.FieldValueErrorReason
	FieldPath                        string
	OptionalOldSelf                  *bool
}

// Check reports the rules of a schema at path that do not compile.
func Check(props *apiextensions.JSONSchemaProps, path *field.Path) (errs field.ErrorList) {
	for i, r := range props.XValidations {
		if strings.TrimSpace(r.Rule) == "" {
			continue // told by the schema's own validation
		}
		at := path.Child("x-kubernetes-validations").Index(i)
		show := shownRule{r.Rule, r.Message, r.MessageExpression, r.Reason, r.FieldPath, r.OptionalOldSelf}
		optional := r.OptionalOldSelf != nil && *r.OptionalOldSelf
		if _, err := compileExpression(props, r.Rule, celgo.BoolType, optional); err != nil && !unknownHere(err) {
			errs = append(errs, field.Invalid(at.Child("rule"), show, err.Error()))
		}
		if r.MessageExpression == "" {
			continue
		}
		_, err := compileExpression(props, r.MessageExpression, celgo.StringType, optional)
		if errors.Is(err, errNotBool) {
			err = errors.New("messageExpression must evaluate to a string")
		}
		if err != nil && !unknownHere(err) {
			errs = append(errs, field.Invalid(at.Child("messageExpression"), show, err.Error()))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(props.Properties)) {
		child := props.Properties[name]
		errs = append(errs, Check(&child, path.Child("properties").Key(name))...)
	}
	if props.Items != nil && props.Items.Schema != nil {
		errs = append(errs, Check(props.Items.Schema, path.Child("items"))...)
	}
	if props.AdditionalProperties != nil && props.AdditionalProperties.Schema != nil {
		errs = append(errs, Check(props.AdditionalProperties.Schema, path.Child("additionalProperties"))...)
	}
	return errs
}

func unknownHere(err error) bool {
	text := err.Error()
	return slices.ContainsFunc(missing, func(name string) bool {
		return strings.Contains(text, "undeclared reference to '"+name+"'")
	})
}
