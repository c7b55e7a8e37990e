package election

import (
	"cmp"
	"slices"

	coordinationv1 "k8s.io/api/coordination/v1"
	coordinationv1beta1 "k8s.io/api/coordination/v1beta1"
	"k8s.io/apimachinery/pkg/util/version"
)

type candidate = coordinationv1beta1.LeaseCandidate

// strategyOf is the strategy by which the candidates want to be chosen: that of the latest binary version. "" if its
// candidates disagree, which somebody has to resolve.
func strategyOf(all []*candidate) (chosen coordinationv1.CoordinatedLeaseStrategy) {
	var latest *version.Version
	for _, c := range all {
		v, err := version.ParseSemantic(c.Spec.BinaryVersion)
		if err != nil {
			continue
		}
		switch {
		case latest == nil || latest.LessThan(v):
			latest, chosen = v, c.Spec.Strategy
		case latest.EqualTo(v) && c.Spec.Strategy != chosen:
			chosen = ""
		}
	}
	return chosen
}

// oldest is the candidate that OldestEmulationVersion prefers: with the lowest emulation version, of these with the lowest binary
// version, of these that was created first. Those without versions do not count; nil: there is none.
func oldest(all []*candidate) *candidate {
	var first *ranked
	for _, c := range all {
		emulation, err := version.ParseSemantic(c.Spec.EmulationVersion)
		if err != nil {
			continue
		}
		binary, err := version.ParseSemantic(c.Spec.BinaryVersion)
		if err != nil {
			continue
		}
		if r := (&ranked{c, emulation, binary}); first == nil || r.before(first) {
			first = r
		}
	}
	if first == nil {
		return nil
	}
	return first.candidate
}

type ranked struct {
	candidate         *candidate
	emulation, binary *version.Version
}

func (r *ranked) before(o *ranked) bool {
	return cmp.Or(
		order(r.emulation, o.emulation), order(r.binary, o.binary),
		r.candidate.CreationTimestamp.Compare(o.candidate.CreationTimestamp.Time),
		cmp.Compare(r.candidate.Name, o.candidate.Name), // created in the same second
	) < 0
}

func order(a, b *version.Version) int {
	switch {
	case a.LessThan(b):
		return -1
	case b.LessThan(a):
		return 1
	}
	return 0
}

// without returns the candidates that are not dropped.
func without(all []*candidate, drop func(*candidate) bool) []*candidate {
	return slices.DeleteFunc(slices.Clone(all), drop)
}
