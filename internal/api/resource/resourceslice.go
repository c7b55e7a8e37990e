package resource

import (
	"github.com/timonel/timonel/internal/feature"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// ResourceSlice lists devices that a driver has.
func resourceSlice(gates feature.Gates) *kind.Definition {
	spec := resourcev1.ResourceSliceSpec{}.SwaggerDoc()
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "ResourceSlice", Plural: "resourceslices",
		Scope: kind.Cluster, Verbs: kind.Standard,
		New: kind.Of[resourcev1.ResourceSlice](),
		Default: kind.Default(func(s *resourcev1.ResourceSlice) {
			for i := range s.Spec.Devices {
				for k := range s.Spec.Devices[i].Taints {
					defaultTaint(&s.Spec.Devices[i].Taints[k])
				}
			}
		}),
		PrepareCreate: kind.Prepare(func(s *resourcev1.ResourceSlice) { dropDisabled(s, nil, gates) }),
		PrepareUpdate: kind.PrepareUpdate(func(s, old *resourcev1.ResourceSlice) { dropDisabled(s, old, gates) }),
		Generation:    kind.Changed(func(s, old *resourcev1.ResourceSlice) bool { return !object.Equal(&s.Spec, &old.Spec) }),
		Validate:      kind.Validate(validateSlice),
		ValidateUpdate: kind.ValidateUpdate(func(s, old *resourcev1.ResourceSlice) field.ErrorList {
			return append(validateSlice(s), keepSlice(s, old)...)
		}),
		ReturnsDeleted: true,
		Fields:         []kind.Field{{Label: resourcev1.ResourceSliceSelectorNodeName, Indexed: true}, {Label: resourcev1.ResourceSliceSelectorDriver}, {Label: resourcev1.ResourceSliceSelectorPoolName}},
		FieldsUnknown: func(label string) string {
			return "field label not supported for " + resourcev1.SchemeGroupVersion.WithKind("ResourceSlice").String() + ": " + label
		},
		Columns: kind.Columns{
			{Name: "Node", Description: spec["nodeName"], Of: kind.Cell(func(s *resourcev1.ResourceSlice) any { return ptr.Deref(s.Spec.NodeName, "") })},
			{Name: "Driver", Description: spec["driver"], Of: kind.Cell(func(s *resourcev1.ResourceSlice) any { return s.Spec.Driver })},
			{Name: "Pool", Description: resourcev1.ResourcePool{}.SwaggerDoc()["name"], Of: kind.Cell(func(s *resourcev1.ResourceSlice) any { return s.Spec.Pool.Name })},
			kind.Age,
		},
		ColumnFields: []string{"spec.nodeName", "spec.driver", "spec.pool.name"},
	}
}

// dropDisabled removes the fields of features that are off, unless old uses the feature already.
func dropDisabled(s, old *resourcev1.ResourceSlice, gates feature.Gates) {
	used := map[string]bool{partitionTypes: gates.Enabled(partitionTypes)}
	if old != nil {
		eachDisabled(old, func(feature string, set bool, _ func()) { used[feature] = used[feature] || set })
	}
	eachDisabled(s, func(feature string, set bool, clear func()) {
		if set && !used[feature] {
			clear()
		}
	})
}

// eachDisabled visits the fields of features that are off by default: whether they are set, and how to clear them.
func eachDisabled(s *resourcev1.ResourceSlice, visit func(feature string, set bool, clear func())) {
	visit(partitionTypes, s.Spec.PartitionTypeAttribute != nil, func() { s.Spec.PartitionTypeAttribute = nil })
	visit("DRAOptionalNodeOperations", s.Spec.SkipNodeOperations != nil, func() { s.Spec.SkipNodeOperations = nil })
	for i := range s.Spec.Devices {
		d := &s.Spec.Devices[i]
		visit("DRANodeAllocatableResources", d.NodeAllocatableResources != nil, func() { d.NodeAllocatableResources = nil })
		for k := range d.ConsumesCounters {
			c := &d.ConsumesCounters[k]
			visit("DRADeviceCompatibilityGroups", c.CompatibilityGroups != nil, func() { c.CompatibilityGroups = nil })
		}
		for name, a := range d.Attributes {
			lists := a.IntValues != nil || a.BoolValues != nil || a.StringValues != nil || a.VersionValues != nil
			visit("DRAListTypeAttributes", lists, func() {
				a.IntValues, a.BoolValues, a.StringValues, a.VersionValues = nil, nil, nil, nil
				d.Attributes[name] = a
			})
		}
	}
}
