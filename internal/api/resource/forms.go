package resource

import (
	"context"
	"encoding/json"
	"regexp"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/operation"
	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func labelValue(value string) []string { return validation.IsValidLabelValue(value) }

// semver is the form of a version (semver.org, version 2.0.0).
var semver = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?$`)

// propertyName wants the name of an attribute or a capacity: a C identifier, perhaps with a domain. Without one, it is the driver's.
func propertyName(name resourcev1.QualifiedName, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "name required")}
	}
	full := resourcev1.FullyQualifiedName(name)
	for _, r := range string(name) {
		if r == '/' {
			return validate.ResourceFullyQualifiedName(context.Background(), operation.Operation{}, path, &full, nil)
		}
	}
	var errs field.ErrorList
	if len(name) > resourcev1.DeviceMaxIDLength {
		errs = append(errs, field.TooLong(path, string(name), resourcev1.DeviceMaxIDLength))
	}
	for _, m := range validation.IsCIdentifier(string(name)) {
		errs = append(errs, field.Invalid(path, string(name), m))
	}
	return errs
}

// rawObject wants a JSON object that is not too long.
func rawObject(raw []byte, required bool, max int, path *field.Path) field.ErrorList {
	if len(raw) == 0 {
		if required {
			return field.ErrorList{field.Required(path, "")}
		}
		return nil
	}
	if len(raw) > max {
		return field.ErrorList{field.TooLong(path, "" /* too long to quote */, max)}
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return field.ErrorList{field.Invalid(path, "<value omitted>", "error parsing data as JSON: "+err.Error())}
	}
	if _, ok := v.(map[string]any); !ok {
		return field.ErrorList{field.Invalid(path, "<value omitted>", "must be a valid JSON object")}
	}
	return nil
}
