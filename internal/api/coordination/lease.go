// Package coordination holds the kinds of coordination.k8s.io: Lease.
package coordination

import (
	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// Definitions lists the kinds of the group.
func Definitions() []*kind.Definition {
	return []*kind.Definition{lease()}
}

// Lease is a lock that a component renews to show it is alive.
func lease() *kind.Definition {
	return &kind.Definition{
		Group: "coordination.k8s.io", Version: "v1", Kind: "Lease", Plural: "leases",
		Scope: kind.Namespaced, Verbs: kind.Standard, CreateOnPut: true, MustMatch: true,
		New:           kind.Of[coordinationv1.Lease](),
		PrepareCreate: kind.Prepare(func(l *coordinationv1.Lease) { dropCoordinated(l, nil) }),
		PrepareUpdate: kind.PrepareUpdate(dropCoordinated),
		Validate:      kind.Validate(validateLease),
		Columns: kind.Columns{
			{Name: "Holder", Description: coordinationv1.LeaseSpec{}.SwaggerDoc()["holderIdentity"], Of: kind.Cell(func(l *coordinationv1.Lease) any {
				return ptr.Deref(l.Spec.HolderIdentity, "")
			})},
			kind.Age,
		},
	}
}

// dropCoordinated removes the fields of feature CoordinatedLeaderElection (alpha, off), unless they
// are in use already.
func dropCoordinated(l, old *coordinationv1.Lease) {
	if old == nil || old.Spec.Strategy == nil && old.Spec.PreferredHolder == nil {
		l.Spec.Strategy, l.Spec.PreferredHolder = nil, nil
	}
}

func validateLease(l *coordinationv1.Lease) field.ErrorList {
	spec := field.NewPath("spec")
	return check.Join(
		check.PositivePtr(l.Spec.LeaseDurationSeconds, spec.Child("leaseDurationSeconds")),
		check.NonNegativePtr(l.Spec.LeaseTransitions, spec.Child("leaseTransitions")),
	)
}
