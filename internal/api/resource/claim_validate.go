package resource

import (
	"fmt"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// claim checks what a claim asks for.
func (c checker) claim(d *resourcev1.DeviceClaim, path *field.Path) field.ErrorList {
	requests := path.Child("requests")
	errs := check.Keyed(d.Requests, resourcev1.DeviceRequestsMaxSize, func(r *resourcev1.DeviceRequest) string { return r.Name }, requests)
	names := requestNames(d)
	for i := range d.Requests {
		errs = append(errs, c.request(&d.Requests[i], requests.Index(i))...)
	}
	constraints := path.Child("constraints")
	errs = append(errs, tooMany(len(d.Constraints), resourcev1.DeviceConstraintsMaxSize, constraints)...)
	for i := range d.Constraints {
		k, at := &d.Constraints[i], constraints.Index(i)
		errs = append(errs, refers(k.Requests, names, at.Child("requests"))...)
		errs = append(errs, oneOf(at, "exactly one of `matchAttribute` or `distinctAttribute` is required",
			member{"matchAttribute", k.MatchAttribute != nil}, member{"distinctAttribute", k.DistinctAttribute != nil})...)
		if k.MatchAttribute != nil {
			errs = append(errs, attributeName(*k.MatchAttribute, at.Child("matchAttribute"))...)
		}
		if k.DistinctAttribute != nil {
			errs = append(errs, attributeName(*k.DistinctAttribute, at.Child("distinctAttribute"))...)
		}
	}
	config := path.Child("config")
	errs = append(errs, tooMany(len(d.Config), resourcev1.DeviceConfigMaxSize, config)...)
	for i := range d.Config {
		errs = append(errs, refers(d.Config[i].Requests, names, config.Index(i).Child("requests"))...)
		errs = append(errs, configuration(d.Config[i].Opaque, config.Index(i))...)
	}
	return errs
}

// requestNames are those that constraints and results can refer to: "request" and "request/subrequest".
func requestNames(d *resourcev1.DeviceClaim) map[string]bool {
	names := map[string]bool{}
	for _, r := range d.Requests {
		names[r.Name] = true
		for _, sub := range r.FirstAvailable {
			names[r.Name+"/"+sub.Name] = true
		}
	}
	return names
}

func refers(requests []string, names map[string]bool, path *field.Path) field.ErrorList {
	errs := tooMany(len(requests), resourcev1.DeviceRequestsMaxSize, path)
	errs = append(errs, check.Once(requests, func(r string) string { return r }, path.Index)...)
	for i, name := range requests {
		if !names[name] {
			errs = append(errs, field.Invalid(path.Index(i), name, "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"))
		}
	}
	return errs
}

func (c checker) request(r *resourcev1.DeviceRequest, path *field.Path) field.ErrorList {
	errs := check.Each(path.Child("name"), r.Name, check.Label(r.Name))
	const text = "exactly one of `exactly` or `firstAvailable` is required"
	switch {
	case r.Exactly == nil && len(r.FirstAvailable) == 0:
		return append(errs, field.Required(path, text))
	case r.Exactly != nil && len(r.FirstAvailable) > 0:
		return append(errs, field.Invalid(path, nil, text+", but multiple fields are set"))
	case r.Exactly != nil:
		e, at := r.Exactly, path.Child("exactly")
		return append(errs, c.ask(ask{e.DeviceClassName, e.Selectors, e.AllocationMode, e.Count, e.Tolerations, e.Capacity}, at)...)
	}
	list := path.Child("firstAvailable")
	errs = append(errs, check.Keyed(r.FirstAvailable, resourcev1.FirstAvailableDeviceRequestMaxSize, func(s *resourcev1.DeviceSubRequest) string { return s.Name }, list)...)
	for i := range r.FirstAvailable {
		s, at := &r.FirstAvailable[i], list.Index(i)
		errs = append(errs, check.Each(at.Child("name"), s.Name, check.Label(s.Name))...)
		errs = append(errs, c.ask(ask{s.DeviceClassName, s.Selectors, s.AllocationMode, s.Count, s.Tolerations, s.Capacity}, at)...)
	}
	return errs
}

// ask is what a request and its alternatives have in common.
type ask struct {
	class       string
	selectors   []resourcev1.DeviceSelector
	mode        resourcev1.DeviceAllocationMode
	count       int64
	tolerations []resourcev1.DeviceToleration
	capacity    *resourcev1.CapacityRequirements
}

func (c checker) ask(a ask, path *field.Path) field.ErrorList {
	errs := className(a.class, path.Child("deviceClassName"))
	errs = append(errs, c.selectors(a.selectors, path.Child("selectors"))...)
	count := path.Child("count")
	switch a.mode {
	case resourcev1.DeviceAllocationModeAll:
		if a.count != 0 {
			errs = append(errs, field.Invalid(count, a.count, fmt.Sprintf("must not be specified when allocationMode is '%s'", a.mode)))
		}
	case resourcev1.DeviceAllocationModeExactCount:
		if a.count <= 0 {
			errs = append(errs, field.Invalid(count, a.count, "must be greater than zero"))
		}
	default:
		errs = append(errs, field.NotSupported(path.Child("allocationMode"), a.mode, []resourcev1.DeviceAllocationMode{resourcev1.DeviceAllocationModeAll, resourcev1.DeviceAllocationModeExactCount}))
	}
	errs = append(errs, tolerations(a.tolerations, path.Child("tolerations"))...)
	if a.capacity != nil {
		requests := path.Child("capacity", "requests")
		for _, name := range check.Sorted(a.capacity.Requests) {
			at := requests.Key(string(name))
			errs = append(errs, propertyName(name, at)...)
			errs = append(errs, check.NonNegativeQuantity(a.capacity.Requests[name], at)...)
		}
	}
	return errs
}

func tolerations(all []resourcev1.DeviceToleration, path *field.Path) field.ErrorList {
	errs := tooMany(len(all), resourcev1.DeviceTolerationsMaxLength, path)
	for i := range all {
		errs = append(errs, toleration(&all[i], path.Index(i))...)
	}
	return errs
}

func toleration(t *resourcev1.DeviceToleration, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if t.Key != "" {
		errs = append(errs, check.Each(path.Child("key"), t.Key, check.QualifiedName(t.Key))...)
	}
	switch t.Operator {
	case resourcev1.DeviceTolerationOpExists:
		if t.Value != "" {
			errs = append(errs, field.Invalid(path.Child("value"), t.Value, "must be empty for operator `Exists`"))
		}
	case resourcev1.DeviceTolerationOpEqual:
		errs = append(errs, check.Each(path.Child("value"), t.Value, labelValue(t.Value))...)
		if t.Key == "" {
			errs = append(errs, field.Required(path.Child("key"), "must not be empty for operator `Equal`"))
		}
	default:
		errs = append(errs, check.RequiredOneOf(t.Operator, path.Child("operator"), resourcev1.DeviceTolerationOpEqual, resourcev1.DeviceTolerationOpExists)...)
	}
	if t.Effect != "" {
		errs = append(errs, check.OneOf(t.Effect, path.Child("effect"), effects...)...)
	}
	if t.TolerationSeconds != nil && t.Effect != resourcev1.DeviceTaintEffectNoExecute {
		errs = append(errs, field.Invalid(path.Child("effect"), t.Effect, "effect must be 'NoExecute' when `tolerationSeconds` is set"))
	}
	return errs
}

// allocated reports whether a device is among those that a claim got.
func allocated(a *resourcev1.AllocationResult, d *resourcev1.AllocatedDeviceStatus) bool {
	return slices.ContainsFunc(a.Devices.Results, func(r resourcev1.DeviceRequestAllocationResult) bool {
		return r.Driver == d.Driver && r.Pool == d.Pool && r.Device == d.Device && string(ptr.Deref(r.ShareID, "")) == ptr.Deref(d.ShareID, "")
	})
}

// deviceID names a device in answers.
func deviceID(d *resourcev1.AllocatedDeviceStatus) string {
	return strings.Join([]string{d.Driver, d.Pool, d.Device}, "/")
}
