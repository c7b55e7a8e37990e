package robust_test

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// checkOperations holds what clients saw against what etcd has: each answer against the history, and all together
// for an order in which they can have happened.
func checkOperations(t *testing.T, all []operation, h *history) {
	t.Helper()
	events := h.events()
	type place struct {
		revision int64
		name     string
	}
	byPlace, byValue := map[place]change{}, map[string]change{}
	for _, e := range events {
		byPlace[place{e.Revision, e.Name}] = e
		if e.Value != "" {
			if other, twice := byValue[e.Value]; twice {
				t.Errorf("one write, two revisions: %s was stored at %d and at %d", e.Value, other.Revision, e.Revision)
			}
			byValue[e.Value] = e
		}
	}
	for _, op := range all {
		switch stored, ok := byValue[op.Value]; {
		case op.Value != "" && op.Outcome == done && !ok:
			t.Errorf("lost: %+v was acknowledged and is not in etcd", op)
		case op.Value != "" && op.Outcome == done && stored.Revision != op.Revision:
			t.Errorf("%+v was acknowledged at another revision than it has, %d", op, stored.Revision)
		case op.Value != "" && op.Outcome != done && op.Outcome != unknown && ok:
			t.Errorf("%+v was refused and is in etcd at %d", op, stored.Revision)
		case op.Verb == read && op.Outcome == done:
			if e := byPlace[place{op.Revision, op.Name}]; e.Value != op.Got {
				t.Errorf("%+v: etcd has %+v at that revision", op, e)
			}
		}
	}

	var history []porcupine.Operation
	for _, op := range all {
		in := input{op: op, expect: byPlace[place{op.Expect, op.Name}].Value}
		back := op.Back
		if op.Outcome == unknown {
			e, stored := byValue[op.Value]
			switch {
			case op.Verb == remove:
				back = time.Duration(math.MaxInt64)
			case !stored:
				continue // it never happened
			default:
				in.op.Outcome, in.op.Revision = done, e.Revision
				back = time.Duration(math.MaxInt64)
				for _, other := range all { // it had happened when somebody saw it
					if other.Revision >= e.Revision && other.Back > op.Call {
						back = min(back, other.Back)
					}
				}
			}
		}
		history = append(history, porcupine.Operation{ClientId: op.Client, Input: in, Output: in.op.Outcome, Call: int64(op.Call), Return: int64(back)})
	}
	model := linear.ToModel()
	result, info := porcupine.CheckOperationsVerbose(model, history, 2*time.Minute)
	switch result {
	case porcupine.Unknown:
		t.Errorf("could not decide in time whether %d operations are linearizable", len(history))
	case porcupine.Illegal:
		path := filepath.Join(os.TempDir(), fmt.Sprintf("robust-%d.html", *seed))
		if err := porcupine.VisualizePath(model, info, path); err != nil {
			t.Log(err)
		}
		t.Errorf("not linearizable; see %s", path)
	}
}

// input is an operation, with the value (for they are all different) that it takes the object to have.
type input struct {
	op     operation
	expect string
}

// linear is what one object can do. Its state is its value; "" is absent.
var linear = porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) (parts [][]porcupine.Operation) {
		byName := map[string][]porcupine.Operation{}
		for _, op := range history {
			name := op.Input.(input).op.Name
			byName[name] = append(byName[name], op)
		}
		for _, part := range byName {
			parts = append(parts, part)
		}
		slices.SortFunc(parts, func(a, b []porcupine.Operation) int {
			return cmp.Compare(a[0].Input.(input).op.Name, b[0].Input.(input).op.Name)
		})
		return parts
	},
	Init: func() []any { return []any{""} },
	Step: func(current, in, out any) []any { return step(current.(string), in.(input), out.(outcome)) },
	DescribeOperation: func(in, out any) string {
		i := in.(input)
		return fmt.Sprintf("%s %s%s %s (server %d, revision %d)", i.op.Verb, i.op.Value, i.op.Got, out, i.op.Server, i.op.Revision)
	},
	DescribeState: func(s any) string { return s.(string) },
}

func step(current string, in input, out outcome) []any {
	only := func(ok bool, next string) []any {
		if !ok {
			return nil
		}
		return []any{next}
	}
	op := in.op
	switch op.Verb {
	case read:
		return only(current == op.Got, current)
	case remove:
		switch out {
		case done:
			return only(current != "", "")
		case missing:
			return only(current == "", current)
		case conflict:
			return only(true, current)
		}
		return []any{current, ""}
	case create:
		if out == done {
			return only(current == "", op.Value)
		}
		return only(current != "", current)
	}
	switch out { // update and patch
	case done:
		return only(current != "" && (op.Expect == 0 || current == in.expect), op.Value)
	case missing:
		return only(current == "", current)
	}
	return only(op.Expect == 0 || current != in.expect, current) // conflict
}

// checkLists holds lists against the state of the revision that they say they are.
func checkLists(t *testing.T, lists []snapshot, h *history) {
	t.Helper()
	events := h.events()
	for _, l := range lists {
		want := state(events, l.Revision)
		for name, value := range l.Values {
			if want[name].Value != value || want[name].Revision != l.Revisions[name] {
				t.Errorf("a list at revision %d by server %d has %s at %d, etcd has it at %d", l.Revision, l.Server, name, l.Revisions[name], want[name].Revision)
			}
		}
		for name, e := range want {
			if _, ok := l.Values[name]; !ok {
				t.Errorf("a list at revision %d by server %d misses %s of revision %d", l.Revision, l.Server, name, e.Revision)
			}
		}
	}
}

// TestStep checks the model itself.
func TestStep(t *testing.T) {
	check := func(current string, op operation, expect string, out outcome, want ...string) {
		t.Helper()
		got := step(current, input{op: op, expect: expect}, out)
		if len(got) != len(want) {
			t.Errorf("%s on %q, %s: %v, want %v", op.Verb, current, out, got, want)
			return
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%s on %q, %s: %v, want %v", op.Verb, current, out, got, want)
			}
		}
	}
	check("", operation{Verb: create, Value: "a"}, "", done, "a")
	check("b", operation{Verb: create, Value: "a"}, "", done)
	check("b", operation{Verb: create, Value: "a"}, "", exists, "b")
	check("", operation{Verb: create, Value: "a"}, "", exists)
	check("b", operation{Verb: read, Got: "a"}, "", done)
	check("b", operation{Verb: update, Value: "a", Expect: 7}, "b", done, "a")
	check("c", operation{Verb: update, Value: "a", Expect: 7}, "b", done)
	check("c", operation{Verb: update, Value: "a", Expect: 7}, "b", conflict, "c")
	check("b", operation{Verb: update, Value: "a", Expect: 7}, "b", conflict)
	check("", operation{Verb: patch, Value: "a"}, "", done)
	check("b", operation{Verb: remove}, "", done, "")
	check("b", operation{Verb: remove}, "", unknown, "b", "")
}
