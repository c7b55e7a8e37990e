package resource

import (
	"fmt"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/podspec"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

func validateSlice(s *resourcev1.ResourceSlice) field.ErrorList {
	spec := field.NewPath("spec")
	errs := driverName(s.Spec.Driver, spec.Child("driver"))
	errs = append(errs, checkPool(&s.Spec.Pool, spec.Child("pool"))...)
	where := placement{s.Spec.NodeName, s.Spec.NodeSelector, s.Spec.AllNodes}
	errs = append(errs, oneOf(spec, "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required",
		member{"nodeName", s.Spec.NodeName != nil}, member{"nodeSelector", s.Spec.NodeSelector != nil},
		member{"allNodes", s.Spec.AllNodes != nil}, member{"perDeviceNodeSelection", s.Spec.PerDeviceNodeSelection != nil})...)
	errs = append(errs, where.check(spec)...)
	errs = append(errs, trueOnly(s.Spec.PerDeviceNodeSelection, spec.Child("perDeviceNodeSelection"))...)
	if len(s.Spec.Devices) > 0 && len(s.Spec.SharedCounters) > 0 {
		errs = append(errs, field.Invalid(spec, field.OmitValueType{}, "only one of `sharedCounters` or `devices` is allowed"))
	}
	errs = append(errs, check.SpelledPtr(s.Spec.PartitionTypeAttribute, spec.Child("partitionTypeAttribute"), validate.ResourceFullyQualifiedName)...)
	errs = append(errs, checkCounterSets(s.Spec.SharedCounters, spec.Child("sharedCounters"))...)
	return append(errs, checkDevices(&s.Spec, spec.Child("devices"))...)
}

func checkPool(p *resourcev1.ResourcePool, path *field.Path) field.ErrorList {
	errs := poolName(p.Name, path.Child("name"))
	if p.ResourceSliceCount <= 0 {
		errs = append(errs, field.Invalid(path.Child("resourceSliceCount"), p.ResourceSliceCount, "must be greater than zero"))
	}
	if p.Generation < 0 {
		errs = append(errs, field.Invalid(path.Child("generation"), p.Generation, "must be greater than or equal to zero"))
	}
	return errs
}

// placement is where devices can be used, for a slice or a single device.
type placement struct {
	nodeName     *string
	nodeSelector *corev1.NodeSelector
	allNodes     *bool
}

func (p placement) check(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if p.nodeName != nil {
		at := path.Child("nodeName")
		if *p.nodeName == "" {
			errs = append(errs, field.Invalid(at, "", "must be either unset or set to a non-empty string"))
		} else {
			errs = append(errs, check.Each(at, *p.nodeName, check.Subdomain(*p.nodeName))...)
		}
	}
	if p.nodeSelector != nil {
		at := path.Child("nodeSelector")
		errs = append(errs, podspec.ValidateNodeSelector(p.nodeSelector, false, at)...)
		if n := len(p.nodeSelector.NodeSelectorTerms); n != 1 { // for what reads it
			errs = append(errs, field.Invalid(at.Child("nodeSelectorTerms"), field.OmitValueType{}, "must have exactly one node selector term"))
		}
	}
	return append(errs, trueOnly(p.allNodes, path.Child("allNodes"))...)
}

func trueOnly(b *bool, path *field.Path) field.ErrorList {
	if b != nil && !*b {
		return field.ErrorList{field.Invalid(path, *b, "must be either unset or set to true")}
	}
	return nil
}

func checkCounterSets(sets []resourcev1.CounterSet, path *field.Path) field.ErrorList {
	errs := check.Keyed(sets, resourcev1.ResourceSliceMaxCounterSets, func(s *resourcev1.CounterSet) string { return s.Name }, path)
	for i, s := range sets {
		errs = append(errs, check.RequiredForm(s.Name, path.Index(i).Child("name"), check.Label)...)
		errs = append(errs, checkCounters(s.Counters, resourcev1.ResourceSliceMaxCountersPerCounterSet, path.Index(i).Child("counters"))...)
	}
	return errs
}

func checkCounters(counters map[string]resourcev1.Counter, max int, path *field.Path) field.ErrorList {
	if len(counters) == 0 {
		return field.ErrorList{field.Required(path, "")}
	}
	errs := tooMany(len(counters), max, path)
	for _, name := range check.Sorted(counters) {
		errs = append(errs, check.Each(path, name, check.Label(name))...) // what is declared of keys is said of their map
	}
	return errs
}

func checkDevices(s *resourcev1.ResourceSliceSpec, path *field.Path) field.ErrorList {
	limit := resourcev1.ResourceSliceMaxDevices
	for _, d := range s.Devices {
		if len(d.Taints)+len(d.ConsumesCounters) > 0 { // each takes more room
			limit = resourcev1.ResourceSliceMaxDevicesWithAdvancedFeatures
		}
	}
	errs := tooMany(len(s.Devices), limit, path)
	errs = append(errs, check.Once(s.Devices, func(d resourcev1.Device) string { return d.Name }, func(i int) *field.Path { return path.Index(i).Child("name") })...)
	for i := range s.Devices {
		errs = append(errs, checkDevice(&s.Devices[i], s.PerDeviceNodeSelection != nil, path.Index(i))...)
	}
	return errs
}

func checkDevice(d *resourcev1.Device, placed bool, path *field.Path) field.ErrorList {
	errs := check.Each(path.Child("name"), d.Name, check.Label(d.Name))
	const max = resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice
	if n := len(d.Attributes) + len(d.Capacity); n > max {
		errs = append(errs, field.Invalid(path, n, fmt.Sprintf("the total number of attributes and capacities must not exceed %d", max)))
	}
	for _, name := range check.Sorted(d.Attributes) {
		at := path.Child("attributes").Key(string(name))
		errs = append(errs, propertyName(name, at)...)
		errs = append(errs, checkAttribute(d.Attributes[name], at)...)
	}
	shared := ptr.Deref(d.AllowMultipleAllocations, false)
	for _, name := range check.Sorted(d.Capacity) {
		at, capacity := path.Child("capacity").Key(string(name)), d.Capacity[name]
		errs = append(errs, propertyName(name, at)...)
		if policy := capacity.RequestPolicy; policy != nil {
			errs = append(errs, checkRequestPolicy(policy, capacity.Value, shared, at.Child("requestPolicy"))...)
		}
	}
	taints := path.Child("taints")
	errs = append(errs, tooMany(len(d.Taints), resourcev1.DeviceTaintsMaxLength, taints)...)
	for i := range d.Taints {
		errs = append(errs, taint(&d.Taints[i], taints.Index(i))...)
	}
	consumes := path.Child("consumesCounters")
	errs = append(errs, check.Keyed(d.ConsumesCounters, resourcev1.ResourceSliceMaxDeviceCounterConsumptionsPerDevice, func(c *resourcev1.DeviceCounterConsumption) string { return c.CounterSet }, consumes)...)
	for i, c := range d.ConsumesCounters {
		errs = append(errs, check.RequiredForm(c.CounterSet, consumes.Index(i).Child("counterSet"), check.Label)...)
		errs = append(errs, checkCounters(c.Counters, resourcev1.ResourceSliceMaxCountersPerDeviceCounterConsumption, consumes.Index(i).Child("counters"))...)
	}
	errs = append(errs, conditionTypes(d.BindingConditions, resourcev1.BindingConditionsMaxSize, path.Child("bindingConditions"))...)
	errs = append(errs, conditionTypes(d.BindingFailureConditions, resourcev1.BindingFailureConditionsMaxSize, path.Child("bindingFailureConditions"))...)
	members := []member{{"nodeName", d.NodeName != nil}, {"nodeSelector", d.NodeSelector != nil}, {"allNodes", d.AllNodes != nil}}
	if placed {
		errs = append(errs, oneOf(path, "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec", members...)...)
		return append(errs, placement{d.NodeName, d.NodeSelector, d.AllNodes}.check(path)...)
	}
	for _, m := range members {
		if m.set {
			errs = append(errs, field.Invalid(path.Child(m.name), field.OmitValueType{}, fmt.Sprintf("%s can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec", m.name)))
		}
	}
	return errs
}

// conditionTypes wants the types of conditions that decide about the binding of pods.
func conditionTypes(types []string, max int, path *field.Path) field.ErrorList {
	errs := tooMany(len(types), max, path)
	for i, t := range types {
		errs = append(errs, check.Each(path.Index(i), t, check.QualifiedName(t))...)
	}
	return errs
}

// attributeMembers are the types that attributes have, in the order in which answers list them.
const attributeMembers = "`int`, `bool`, `string`, `version`, `ints`, `bools`, `strings`, `versions`"

func checkAttribute(a resourcev1.DeviceAttribute, path *field.Path) field.ErrorList {
	set := ""
	n := 0
	for _, m := range []member{
		{"int", a.IntValue != nil}, {"bool", a.BoolValue != nil}, {"string", a.StringValue != nil}, {"version", a.VersionValue != nil},
		{"ints", a.IntValues != nil}, {"bools", a.BoolValues != nil}, {"strings", a.StringValues != nil}, {"versions", a.VersionValues != nil},
	} {
		if !m.set {
			continue
		}
		if n++; n > 1 {
			set += ", "
		}
		set += m.name
	}
	switch n {
	case 0:
		return field.ErrorList{field.Invalid(path, "", "must specify one of: "+attributeMembers)}
	case 1:
	default:
		return field.ErrorList{field.Invalid(path, "{"+set+"}", "must specify exactly one of: "+attributeMembers)}
	}
	const max = resourcev1.DeviceAttributeMaxValueLength
	text := func(value string, at *field.Path) field.ErrorList {
		if len(value) > max {
			return field.ErrorList{field.TooLong(at, value, max)}
		}
		return nil
	}
	version := func(value string, at *field.Path) field.ErrorList {
		errs := text(value, at)
		if !semver.MatchString(value) {
			errs = append(errs, field.Invalid(at, value, "must be a string compatible with semver.org spec 2.0.0"))
		}
		return errs
	}
	var errs field.ErrorList
	if a.StringValue != nil {
		errs = append(errs, text(*a.StringValue, path.Child("string"))...)
	}
	if a.VersionValue != nil {
		errs = append(errs, version(*a.VersionValue, path.Child("version"))...)
	}
	for i, v := range a.StringValues {
		errs = append(errs, text(v, path.Child("strings").Index(i))...)
	}
	for i, v := range a.VersionValues {
		errs = append(errs, version(v, path.Child("versions").Index(i))...)
	}
	return errs
}

// keepSlice: what a slice is found by does not change.
func keepSlice(s, old *resourcev1.ResourceSlice) field.ErrorList {
	spec := field.NewPath("spec")
	errs := check.Immutable(s.Spec.Driver, old.Spec.Driver, spec.Child("driver"))
	errs = append(errs, check.Immutable(s.Spec.Pool.Name, old.Spec.Pool.Name, spec.Child("pool", "name"))...)
	errs = append(errs, check.Immutable(s.Spec.NodeName, old.Spec.NodeName, spec.Child("nodeName"))...)
	return append(errs, check.Immutable(s.Spec.AllNodes, old.Spec.AllNodes, spec.Child("allNodes"))...)
}
