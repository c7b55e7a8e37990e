package resource

import (
	"fmt"
	"slices"

	"github.com/timonel/timonel/internal/api/check"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxValidValues is how many amounts a policy can list.
const maxValidValues = 10

// checkRequestPolicy checks how much of a capacity of a shared device can be asked for at once (KEP-5075).
func checkRequestPolicy(p *resourcev1.CapacityRequestPolicy, capacity resource.Quantity, shared bool, path *field.Path) field.ErrorList {
	if !shared {
		return field.ErrorList{field.Forbidden(path, "may only be set if `allowMultipleAllocations` is true")}
	}
	limited := ""
	switch {
	case len(p.ValidValues) > 0 && p.ValidRange != nil:
		return field.ErrorList{field.Forbidden(path, "`validValues` and `validRange` may not be set both")}
	case len(p.ValidValues) > 0:
		limited = "validValues"
	case p.ValidRange != nil:
		limited = "validRange"
	default:
		return nil
	}
	var errs field.ErrorList
	if p.Default == nil {
		errs = append(errs, field.Required(path.Child("default"), fmt.Sprintf("must be set when `%s` is set", limited)))
	}
	if p.ValidRange != nil {
		return append(errs, checkValidRange(p.ValidRange, p.Default, capacity, path)...)
	}
	return append(errs, checkValidValues(p.ValidValues, p.Default, capacity, path)...)
}

func checkValidValues(values []resource.Quantity, chosen *resource.Quantity, capacity resource.Quantity, path *field.Path) field.ErrorList {
	list := path.Child("validValues")
	errs := tooMany(len(values), maxValidValues, list)
	for i := range values {
		at := list.Index(i)
		errs = append(errs, noMoreThan(&values[i], capacity, at, "the capacity")...)
		if i == 0 {
			continue
		}
		switch values[i].Cmp(values[i-1]) {
		case 0:
			errs = append(errs, field.Duplicate(at, values[i].String()))
		case -1:
			errs = append(errs, field.Invalid(at, values[i].String(), "values must be in ascending order"))
		}
	}
	if chosen != nil && !slices.ContainsFunc(values, func(v resource.Quantity) bool { return v.Cmp(*chosen) == 0 }) {
		errs = append(errs, field.Invalid(path.Child("default"), chosen.String(), "must be one of `validValues`"))
	}
	return errs
}

func checkValidRange(r *resourcev1.CapacityRequestPolicyRange, chosen *resource.Quantity, capacity resource.Quantity, path *field.Path) field.ErrorList {
	at := path.Child("validRange")
	if r.Min == nil {
		return field.ErrorList{field.Required(at.Child("min"), "")}
	}
	errs := check.NonNegativeQuantity(*r.Min, at.Child("min"))
	errs = append(errs, noMoreThan(r.Min, capacity, at.Child("min"), "the capacity")...)
	for _, q := range []struct {
		value *resource.Quantity
		path  *field.Path
	}{{r.Max, at.Child("max")}, {chosen, path.Child("default")}} {
		if q.value == nil {
			continue
		}
		if q.value.Cmp(*r.Min) < 0 {
			errs = append(errs, field.Invalid(q.path, q.value.String(), fmt.Sprintf("must be greater than or equal to `min` (%s)", r.Min)))
		}
		if r.Step != nil && r.Step.Sign() > 0 && !onStep(*q.value, *r.Min, *r.Step) {
			errs = append(errs, field.Invalid(q.path, q.value.String(), fmt.Sprintf("must be `min` (%s) plus a multiple of `step` (%s)", r.Min, r.Step)))
		}
	}
	if r.Max != nil {
		errs = append(errs, noMoreThan(r.Max, capacity, at.Child("max"), "the capacity")...)
		errs = append(errs, noMoreThan(chosen, *r.Max, path.Child("default"), "`max`")...)
	}
	if r.Step == nil {
		return errs
	}
	if r.Step.Sign() <= 0 {
		return append(errs, field.Invalid(at.Child("step"), r.Step.String(), "must be greater than zero"))
	}
	next := r.Min.DeepCopy()
	if next.Add(*r.Step); next.Cmp(capacity) > 0 {
		errs = append(errs, field.Invalid(at.Child("step"), r.Step.String(), fmt.Sprintf("`min` plus `step` must be less than or equal to the capacity (%s)", &capacity)))
	}
	return errs
}

// onStep reports whether a value is some steps above min. Quantities are counted in whole units, as the scheduler counts them.
func onStep(value, min, step resource.Quantity) bool {
	return (value.Value()-min.Value())%step.Value() == 0
}

func noMoreThan(q *resource.Quantity, most resource.Quantity, path *field.Path, what string) field.ErrorList {
	if q == nil || q.Cmp(most) <= 0 {
		return nil
	}
	return field.ErrorList{field.Invalid(path, q.String(), fmt.Sprintf("must be less than or equal to %s (%s)", what, &most))}
}
