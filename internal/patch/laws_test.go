package patch

import (
	"encoding/json"
	"testing"

	"github.com/timonel/timonel/internal/object"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// What must hold for all documents and patches.

// merge(a, diff(a, b)) == b, if no field of b is null.
func FuzzMergeLaw(f *testing.F) {
	f.Add([]byte(`{"a":1,"b":{"c":[1]}}`), []byte(`{"a":{"x":"y"},"b":{}}`))
	f.Add([]byte(`{"a":{"b":{"c":1}}}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, x, y []byte) {
		var a, b map[string]any
		if json.Unmarshal(x, &a) != nil || json.Unmarshal(y, &b) != nil || a == nil || b == nil || hasNull(b) {
			return
		}
		patch := mergeDiff(a, b)
		if got := merged(a, patch); !equalTrees(got, b) {
			t.Fatalf("a %s b %s patch %s: got %s", x, y, dump(patch), dump(got))
		}
		got, err := Merge([]byte(dump(a)), []byte(dump(patch)))
		if err != nil {
			t.Fatal(err)
		}
		if !sameJSON(t, got, dump(b)) {
			t.Fatalf("a %s b %s patch %s: got %s", x, y, dump(patch), got)
		}
	})
}

func hasNull(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case map[string]any:
		for _, below := range v {
			if hasNull(below) {
				return true
			}
		}
	case []any:
		for _, below := range v {
			if hasNull(below) {
				return true
			}
		}
	}
	return false
}

// A merge patch applied twice is applied once.
func FuzzMergeTwice(f *testing.F) {
	f.Add([]byte(`{"a":1,"b":{"c":[1]}}`), []byte(`{"a":{"x":null},"b":null}`))
	f.Fuzz(func(t *testing.T, doc, patch []byte) {
		var a, p map[string]any
		if json.Unmarshal(doc, &a) != nil || json.Unmarshal(patch, &p) != nil || a == nil || p == nil {
			return
		}
		once := merged(a, p)
		if twice := merged(once, p); !equalTrees(once, twice) {
			t.Fatalf("doc %s patch %s: once %s, twice %s", doc, patch, dump(once), dump(twice))
		}
	})
}

// strategic(a, diff(a, b)) == b.
func TestStrategicLaw(t *testing.T) {
	for _, s := range subjects(t) {
		switch {
		case s.options.Schema != nil, s.name == "Service": // whose ports may share their merge key
			continue
		case s.name == "PodDisruptionBudget": // whose selector is replaced whole, and so is in every difference that the library makes
			continue
		}
		for seed := range uint64(*seeds) {
			h := newHistory(t, s, seed)
			a := s.start()
			b := object.Copy(a)
			h.mutate(b)
			body, err := strategicpatch.CreateTwoWayMergePatch([]byte(dump(a)), []byte(dump(b)), a)
			if err != nil {
				continue // repeated merge keys
			}
			p, err := ParseStrategic(body)
			if err != nil {
				t.Fatal(err)
			}
			got, strict, err := p.ApplyTo(a)
			if err != nil || strict != nil {
				t.Fatalf("%s seed %d: patch %s: %v %v", s.name, seed, body, strict, err)
			}
			again, err := strategicpatch.CreateTwoWayMergePatch([]byte(dump(got)), []byte(dump(b)), a)
			if err != nil {
				continue // items without their merge key
			}
			if string(again) != "{}" {
				t.Fatalf("%s seed %d: patch %s: still to do %s", s.name, seed, body, again)
			}
		}
	}
}

// Applying what is there changes nothing, and the second time is like the first.
func TestApplyLaws(t *testing.T) {
	for _, s := range subjects(t) {
		for seed := range uint64(*seeds) {
			h := newHistory(t, s, seed)
			door := h.doors[""]
			live := h.update(s.options.New(), s.start(), "", "creator")
			live.SetUID("u")
			once, err := door.Apply(live, h.config(live, "m", ""), "m", true, h.now)
			if err != nil {
				continue
			}
			config := h.configs["m"]
			if once, err = door.Apply(once, config, "m", true, h.now); err != nil {
				continue
			}
			twice, err := door.Apply(once, config, "m", false, h.now.Add(1000))
			if err != nil {
				t.Fatalf("%s seed %d: the second time: %v", s.name, seed, err)
			}
			if d := firstDifference("", asTree(twice), asTree(once)); d != "" && !hasNullOrEmpty(config.Object) {
				t.Fatalf("%s seed %d: the second time %s\nconfig %s", s.name, seed, d, dump(config))
			}
		}
	}
}

// hasNullOrEmpty: such fields may be a change each time, as they do not survive
// being stored.
func hasNullOrEmpty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case map[string]any:
		for _, below := range v {
			if hasNullOrEmpty(below) {
				return true
			}
		}
		return len(v) == 0
	case []any:
		for _, below := range v {
			if hasNullOrEmpty(below) {
				return true
			}
		}
		return len(v) == 0
	case string:
		return v == ""
	case bool:
		return !v
	case int64:
		return v == 0
	}
	return false
}
