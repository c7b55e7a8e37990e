// Package coordination holds the kinds of coordination.k8s.io: Lease and LeaseCandidate, a file each.
package coordination

import (
	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/feature"
	"github.com/timonel/timonel/internal/kind"
	coordinationv1 "k8s.io/api/coordination/v1"
	coordinationv1alpha2 "k8s.io/api/coordination/v1alpha2"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// Definitions lists the kinds of the group, the preferred version first.
func Definitions(gates feature.Gates) []*kind.Definition {
	candidate := leaseCandidate()
	return []*kind.Definition{
		lease(gates.Enabled(coordinated)), candidate,
		candidate.Renamed("v1alpha2", kind.Of[coordinationv1alpha2.LeaseCandidate]()),
	}
}

// coordinated is the gate of leases whose holder is elected by the control plane (KEP-4355).
const coordinated = "CoordinatedLeaderElection"

// Lease is a lock that a component renews to show it is alive.
func lease(coordinated bool) *kind.Definition {
	drop := func(l, old *coordinationv1.Lease) {
		if !coordinated {
			dropCoordinated(l, old)
		}
	}
	return &kind.Definition{
		Group: "coordination.k8s.io", Version: "v1", Kind: "Lease", Plural: "leases",
		Scope: kind.Namespaced, Verbs: kind.Standard, CreateOnPut: true, MustMatch: true, AnyFinalizer: true,
		New:           kind.Of[coordinationv1.Lease](),
		PrepareCreate: kind.Prepare(func(l *coordinationv1.Lease) { drop(l, nil) }),
		PrepareUpdate: kind.PrepareUpdate(drop),
		Validate:      kind.Validate(validateLease),
		Columns: kind.Columns{
			{Name: "Holder", Description: coordinationv1.LeaseSpec{}.SwaggerDoc()["holderIdentity"], Of: kind.Cell(func(l *coordinationv1.Lease) any {
				return ptr.Deref(l.Spec.HolderIdentity, "")
			})},
			kind.Age,
		},
		ColumnFields: []string{"spec.holderIdentity"},
	}
}

// dropCoordinated removes the fields of leases whose holder is elected, unless they are in use already.
func dropCoordinated(l, old *coordinationv1.Lease) {
	if old == nil || old.Spec.Strategy == nil && old.Spec.PreferredHolder == nil {
		l.Spec.Strategy, l.Spec.PreferredHolder = nil, nil
	}
}

func validateLease(l *coordinationv1.Lease) field.ErrorList {
	spec := field.NewPath("spec")
	errs := check.Join(
		check.PositivePtr(l.Spec.LeaseDurationSeconds, spec.Child("leaseDurationSeconds")),
		check.NonNegativePtr(l.Spec.LeaseTransitions, spec.Child("leaseTransitions")),
	)
	switch {
	case l.Spec.Strategy != nil:
		errs = append(errs, checkStrategy(*l.Spec.Strategy, spec.Child("strategy"))...)
	case l.Spec.PreferredHolder != nil && *l.Spec.PreferredHolder != "":
		errs = append(errs, field.Forbidden(spec.Child("preferredHolder"), "may only be specified when `strategy` is defined"))
	}
	return errs
}
