// Package feature is what of the API is switched on: the feature gates of Kubernetes 1.37 (--feature-gates) and the
// group versions that are served (--runtime-config).
//
// Promises: names, stages, defaults and errors are kube-apiserver's; the values do not change once they are made.
// Does not know: kinds, nor what a gate does. Whoever depends on a gate asks for it by name, and says so in
// implemented. Start reading at Gates.
package feature

import (
	_ "embed"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// gatesText has a line for each gate: its name, its stage, its default, and "locked" when it cannot be set to anything else.
//
//go:embed gates.txt
var gatesText string

// Stage is how far a feature is.
type Stage string

const (
	Alpha      Stage = "alpha"
	Beta       Stage = "beta"
	GA         Stage = "ga"
	Deprecated Stage = "deprecated"
)

// The gates that switch all of a stage.
const allAlpha, allBeta = "AllAlpha", "AllBeta"

type gate struct {
	stage      Stage
	on, locked bool
}

var known = sync.OnceValue(func() map[string]gate {
	gates := map[string]gate{}
	for line := range strings.Lines(gatesText) {
		f := strings.Fields(line)
		gates[f[0]] = gate{stage: Stage(f[1]), on: f[2] == "on", locked: len(f) > 3}
	}
	return gates
})

// implemented are the gates that something here depends on. Setting another one is accepted, because its name is good, and
// changes nothing.
var implemented = map[string]bool{
	allAlpha: true, allBeta: true,
	"CBORServingAndStorage":           true,
	"CompositePodGroup":               true,
	"CoordinatedLeaderElection":       true,
	"DRAPartitionableDevicesType":     true,
	"DRAResourcePoolStatus":           true,
	"DRAWorkloadResourceClaims":       true,
	"EvictionRequestAPI":              true,
	"GenericWorkload":                 true,
	"PodGroupPreemptionPolicy":        true,
	"StorageVersionAPI":               true,
	"TopologyAwareWorkloadScheduling": true,
}

// Gates are the values of all gates. The zero value has every gate at its default.
type Gates struct {
	set   map[string]bool // what differs from the default
	named []string        // of these, what was asked for by its own name, sorted
}

// component is the part of Kubernetes that the gates are those of.
const component = "kube"

// ParseGates reads values of --feature-gates: lists of name=true|false, each name with "kube:" in front of it or not.
func ParseGates(values []string) (Gates, error) {
	asked := map[string]bool{}
	for _, value := range values {
		for pair := range strings.SplitSeq(value, ",") {
			if pair = strings.TrimSpace(pair); pair == "" {
				continue
			}
			name, on, err := parseGate(pair)
			if err != nil {
				return Gates{}, err
			}
			asked[name] = on
		}
	}
	g := Gates{set: map[string]bool{}}
	for _, all := range []struct {
		name  string
		stage Stage
	}{{allAlpha, Alpha}, {allBeta, Beta}} {
		on, given := asked[all.name]
		if !given {
			continue
		}
		for name, is := range known() {
			if is.stage == all.stage && !is.locked {
				g.put(name, on)
			}
		}
	}
	for name, on := range asked { // what is named counts more than what is switched with others
		g.put(name, on)
	}
	g.named = slices.DeleteFunc(slices.Sorted(maps.Keys(asked)), func(name string) bool { _, differs := g.set[name]; return !differs })
	return g, nil
}

func (g *Gates) put(name string, on bool) {
	if known()[name].on == on {
		delete(g.set, name)
	} else {
		g.set[name] = on
	}
}

func parseGate(pair string) (name string, on bool, err error) {
	name, text, ok := strings.Cut(pair, "=")
	if of, rest, named := strings.Cut(name, ":"); named {
		if of != component {
			return "", false, fmt.Errorf("component not registered: %s", of)
		}
		name = rest
	}
	if name = strings.TrimSpace(name); !ok {
		return "", false, fmt.Errorf("missing bool value for %s", name)
	}
	text = strings.TrimSpace(text)
	if on, err = strconv.ParseBool(text); err != nil {
		return "", false, fmt.Errorf("invalid value of %s=%s, err: %w", name, text, err)
	}
	is, found := known()[name]
	switch {
	case !found:
		return "", false, fmt.Errorf("unrecognized feature gate: %s", name)
	case is.locked && is.on != on:
		return "", false, fmt.Errorf("cannot set feature gate %s to %v, feature is locked to %v", name, on, is.on)
	}
	return name, on, nil
}

// Enabled reports whether a gate is on. The name must be that of a gate.
func (g Gates) Enabled(name string) bool {
	if on, set := g.set[name]; set {
		return on
	}
	is, found := known()[name]
	if !found {
		panic("no feature gate " + name)
	}
	return is.on
}

// Idle are the gates that were set, by their own names, to something else than their default, and change nothing.
func (g Gates) Idle() []string {
	return slices.DeleteFunc(slices.Clone(g.named), func(name string) bool { return implemented[name] })
}

// All yields every gate with its stage, as metrics name it, and its value.
func (g Gates) All() iter.Seq2[Named, bool] {
	return func(yield func(Named, bool) bool) {
		for name, is := range known() {
			stage := strings.ToUpper(string(is.stage))
			switch is.stage {
			case GA:
				stage = ""
			case Deprecated:
				stage = "DEPRECATED"
			}
			if !yield(Named{Name: name, Stage: stage}, g.Enabled(name)) {
				return
			}
		}
	}
}

// Named is a gate's name with its stage: ALPHA, BETA, DEPRECATED, or nothing once it is GA.
type Named struct{ Name, Stage string }
