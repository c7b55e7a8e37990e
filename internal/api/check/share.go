package check

import (
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Share wants a number that is not negative, or a percentage.
func Share(v *intstr.IntOrString, path *field.Path) field.ErrorList {
	switch {
	case v == nil:
		return nil
	case v.Type == intstr.String:
		return Each(path, v.StrVal, validation.IsValidPercent(v.StrVal))
	}
	return NonNegative(v.IntVal, path)
}

// ShareAtMostAll wants no more than 100%.
func ShareAtMostAll(v *intstr.IntOrString, path *field.Path) field.ErrorList {
	if n, ok := percent(v); ok && n > 100 {
		return field.ErrorList{field.Invalid(path, v, "must not be greater than 100%")}
	}
	return nil
}

// ZeroShare reports whether v is 0, 0% or not there. A text that is neither a number nor a percentage counts as 0.
func ZeroShare(v *intstr.IntOrString) bool {
	if n, ok := percent(v); ok {
		return n == 0
	}
	return v == nil || v.IntValue() == 0
}

// percent returns the number of a percentage, if v is one.
func percent(v *intstr.IntOrString) (int, bool) {
	if v == nil || v.Type != intstr.String || len(validation.IsValidPercent(v.StrVal)) > 0 {
		return 0, false
	}
	n, err := strconv.Atoi(strings.TrimSuffix(v.StrVal, "%"))
	return n, err == nil
}
