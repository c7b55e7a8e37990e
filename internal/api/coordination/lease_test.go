package coordination

import (
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/utils/ptr"
)

// TestCoordinatedLease: the strategy is known, or somebody's own, and no holder is preferred without one.
func TestCoordinatedLease(t *testing.T) {
	for _, c := range []struct{ strategy, preferred, field string }{
		{"OldestEmulationVersion", "a", ""},
		{"example.com/mine", "", ""},
		{"mine", "", "spec.strategy"},
		{"", "a", "spec.preferredHolder"},
	} {
		l := &coordinationv1.Lease{}
		if c.strategy != "" {
			l.Spec.Strategy = ptr.To(coordinationv1.CoordinatedLeaseStrategy(c.strategy))
		}
		if c.preferred != "" {
			l.Spec.PreferredHolder = &c.preferred
		}
		errs := validateLease(l)
		if c.field == "" && len(errs) > 0 || c.field != "" && (len(errs) != 1 || errs[0].Field != c.field) {
			t.Errorf("%q, %q: %v, want %q", c.strategy, c.preferred, errs, c.field)
		}
	}
}
