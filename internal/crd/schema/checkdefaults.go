package schema

import (
	"maps"
	"reflect"
	"slices"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// CheckDefaults reports what is wrong with the defaults in a structural schema: each has to be a value that its schema
// would neither prune nor reject.
func CheckDefaults(props *apiextensions.JSONSchemaProps, path *field.Path) (errs field.ErrorList) {
	if props.Default != nil {
		errs = append(errs, checkDefault(props, path.Child("default"))...)
	}
	if props.Items != nil && props.Items.Schema != nil {
		errs = append(errs, CheckDefaults(props.Items.Schema, path.Child("items"))...)
	}
	for _, name := range slices.Sorted(maps.Keys(props.Properties)) {
		property := props.Properties[name]
		errs = append(errs, CheckDefaults(&property, path.Child("properties").Key(name))...)
	}
	if props.AdditionalProperties != nil && props.AdditionalProperties.Schema != nil {
		errs = append(errs, CheckDefaults(props.AdditionalProperties.Schema, path.Child("additionalProperties"))...)
	}
	return errs
}

func checkDefault(props *apiextensions.JSONSchemaProps, path *field.Path) field.ErrorList {
	n, err := compile(props)
	if err != nil {
		return field.ErrorList{field.Invalid(path, string(props.Default.Raw), err.Error())}
	}
	pruned := runtime.DeepCopyJSONValue(n.def)
	(&pruner{}).value(pruned, n)
	if !reflect.DeepEqual(pruned, n.def) {
		return field.ErrorList{field.Invalid(path, n.def, "must not have unknown fields")}
	}
	if m, ok := n.def.(map[string]any); ok && n.embedded {
		if errs := checkType(m, path); len(errs) > 0 {
			return errs
		}
	}
	if errs := embeddedErrors(n.def, n, path); len(errs) > 0 {
		return errs
	}
	v, err := newValidator(props)
	if err != nil {
		return field.ErrorList{field.InternalError(path, err)}
	}
	return (&Schema{root: n}).check(v.object, path, n.def, nil, n)
}
