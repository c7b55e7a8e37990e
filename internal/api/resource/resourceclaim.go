package resource

import (
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ResourceClaim asks for devices, and says which it got.
func resourceClaim(c checker) *kind.Definition {
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "ResourceClaim", Plural: "resourceclaims",
		Scope: kind.Namespaced, Verbs: kind.Standard,
		New:     kind.Of[resourcev1.ResourceClaim](),
		Default: kind.Default(func(r *resourcev1.ResourceClaim) { defaultClaim(&r.Spec) }),
		PrepareCreate: kind.Prepare(func(r *resourcev1.ResourceClaim) {
			r.Status = resourcev1.ResourceClaimStatus{}
			dropDerived(&r.Spec, nil)
		}),
		PrepareUpdate: kind.PrepareUpdate(func(r, old *resourcev1.ResourceClaim) {
			r.Status = old.Status
			dropDerived(&r.Spec, &old.Spec)
		}),
		Validate: kind.Validate(func(r *resourcev1.ResourceClaim) field.ErrorList {
			return c.claim(&r.Spec.Devices, field.NewPath("spec", "devices"))
		}),
		ValidateUpdate: kind.ValidateUpdate(func(r, old *resourcev1.ResourceClaim) field.ErrorList {
			if object.Equal(&r.Spec, &old.Spec) {
				return nil
			}
			return field.ErrorList{field.Invalid(field.NewPath("spec"), nil, check.TextImmutable)}
		}),
		ReturnsDeleted: true,
		Columns: kind.Columns{
			{Name: "State", Description: "A summary of the current state (allocated, pending, reserved, etc.).", Of: kind.Cell(func(r *resourcev1.ResourceClaim) any { return claimState(r) })},
			kind.Age,
		},
		ColumnFields: []string{"metadata.deletionTimestamp", "status.allocation.allocationTimestamp", "status.reservedFor.name"},
		Subresources: map[string]*kind.Subresource{
			"status": kind.StatusOnly(func(r, old *resourcev1.ResourceClaim) {
				r.Spec = old.Spec
				forgetDevices(r)
				dropSkipped(r, old)
			}, validateClaimStatus),
		},
	}
}

func claimState(r *resourcev1.ResourceClaim) string {
	var states []string
	if r.DeletionTimestamp != nil {
		states = append(states, "deleted")
	}
	switch {
	case r.Status.Allocation != nil:
		states = append(states, "allocated")
	case r.DeletionTimestamp == nil:
		states = append(states, "pending")
	}
	if len(r.Status.ReservedFor) > 0 {
		states = append(states, "reserved")
	}
	return strings.Join(states, ",")
}

func defaultClaim(s *resourcev1.ResourceClaimSpec) {
	amount := func(mode *resourcev1.DeviceAllocationMode, count *int64, tolerations []resourcev1.DeviceToleration) {
		if *mode == "" {
			*mode = resourcev1.DeviceAllocationModeExactCount
		}
		if *mode == resourcev1.DeviceAllocationModeExactCount && *count == 0 {
			*count = 1
		}
		for i := range tolerations {
			if tolerations[i].Operator == "" {
				tolerations[i].Operator = resourcev1.DeviceTolerationOpEqual
			}
		}
	}
	for i := range s.Devices.Requests {
		r := &s.Devices.Requests[i]
		if e := r.Exactly; e != nil {
			amount(&e.AllocationMode, &e.Count, e.Tolerations)
		}
		for k := range r.FirstAvailable {
			sub := &r.FirstAvailable[k]
			amount(&sub.AllocationMode, &sub.Count, sub.Tolerations)
		}
	}
}

// dropDerived removes the field of the feature DRADerivedAttributes (alpha), unless old uses it already.
func dropDerived(s, old *resourcev1.ResourceClaimSpec) {
	used := false
	if old != nil {
		eachDerived(old, func(d *[]resourcev1.DeviceDerivedAttribute) { used = used || *d != nil })
	}
	if !used {
		eachDerived(s, func(d *[]resourcev1.DeviceDerivedAttribute) { *d = nil })
	}
}

func eachDerived(s *resourcev1.ResourceClaimSpec, visit func(*[]resourcev1.DeviceDerivedAttribute)) {
	for i := range s.Devices.Requests {
		r := &s.Devices.Requests[i]
		if r.Exactly != nil {
			visit(&r.Exactly.DerivedAttributes)
		}
		for k := range r.FirstAvailable {
			visit(&r.FirstAvailable[k].DerivedAttributes)
		}
	}
}

// dropSkipped removes the field of the feature DRAOptionalNodeOperations (alpha), unless it is in use already.
func dropSkipped(r, old *resourcev1.ResourceClaim) {
	if usesSkipped(old.Status.Allocation) || r.Status.Allocation == nil {
		return
	}
	results := r.Status.Allocation.Devices.Results
	for i := range results {
		results[i].SkipNodeOperations = nil
	}
}

func usesSkipped(a *resourcev1.AllocationResult) bool {
	return a != nil && slices.ContainsFunc(a.Devices.Results, func(d resourcev1.DeviceRequestAllocationResult) bool { return d.SkipNodeOperations != nil })
}

// forgetDevices removes what drivers said of devices when the claim gives them back.
func forgetDevices(r *resourcev1.ResourceClaim) {
	if r.Status.Allocation == nil {
		r.Status.Devices = nil
	}
}
