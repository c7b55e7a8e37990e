package watchcache

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// entry is an item of a tree and nothing else.
type entry struct{ term, key string }

func (e entry) compare(term, key string) int {
	return cmp.Or(strings.Compare(e.term, term), strings.Compare(e.key, key))
}

func (e entry) position() (term, key string) { return e.term, e.key }

func compareEntries(a, b entry) int { return a.compare(b.position()) }

// TestTreeModel makes random edits and compares the tree, and every older root, with sorted slices.
func TestTreeModel(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		universe := 50 << (seed % 6)
		var current tree[entry]
		var model []entry
		type root struct {
			tree  tree[entry]
			model []entry
		}
		var roots []root
		if seed%2 == 1 { // begin with a grown tree
			for i := range universe {
				if random.IntN(2) == 0 {
					model = append(model, entry{"", fmt.Sprintf("%05d", i)})
				}
			}
			current = grow(model, 1)
		}
		epoch := uint64(2)
		for step := range 2000 {
			p := entry{"", fmt.Sprintf("%05d", random.IntN(universe))}
			i, found := slices.BinarySearchFunc(model, p, compareEntries)
			if random.IntN(100) < 40+int(seed)%20 {
				if old := current.set(p, epoch); (old == p) != found {
					t.Fatalf("seed %d step %d: set(%v) replaced %v, found %t", seed, step, p, old, found)
				}
				if !found {
					model = slices.Insert(slices.Clone(model), i, p)
				}
			} else {
				if old := current.remove("", p.key, epoch); (old == p) != found {
					t.Fatalf("seed %d step %d: remove(%v) returned %v, found %t", seed, step, p, old, found)
				}
				if found {
					model = slices.Delete(slices.Clone(model), i, i+1)
				}
			}
			if random.IntN(10) == 0 { // publish
				roots = append(roots, root{current, model})
				epoch++
			}
		}
		roots = append(roots, root{current, model})
		for n, r := range roots {
			checkTree(t, fmt.Sprintf("seed %d root %d", seed, n), r.tree, r.model, random)
		}
	}
}

func checkTree(t *testing.T, name string, tr tree[entry], model []entry, random *rand.Rand) {
	t.Helper()
	if tr.root != nil {
		checkNode(t, name, tr.root, true)
	}
	var all []entry
	tr.ascend("", "", false, func(p entry) bool { all = append(all, p); return true })
	if !slices.Equal(all, model) {
		t.Fatalf("%s: has %d items, want %d", name, len(all), len(model))
	}
	if tr.len() != len(model) {
		t.Fatalf("%s: len %d, want %d", name, tr.len(), len(model))
	}
	for range 20 {
		pivot := entry{"", fmt.Sprintf("%05d", random.IntN(1700))}
		i, found := slices.BinarySearchFunc(model, pivot, compareEntries)
		if got := tr.get("", pivot.key); (got == pivot) != found {
			t.Fatalf("%s: get(%v) = %v, found %t", name, pivot, got, found)
		}
		for _, after := range []bool{false, true} {
			want := i
			if after && found {
				want++
			}
			if got := tr.rank("", pivot.key, after); got != want {
				t.Fatalf("%s: rank(%v, %t) = %d, want %d", name, pivot, after, got, want)
			}
			limit := random.IntN(40)
			var got []entry
			tr.ascend("", pivot.key, after, func(p entry) bool {
				if len(got) == limit {
					return false
				}
				got = append(got, p)
				return true
			})
			if want := model[want:min(len(model), want+limit)]; !slices.Equal(got, want) {
				t.Fatalf("%s: ascend(%v, %t) = %v, want %v", name, pivot, after, got, want)
			}
		}
	}
}

func checkNode(t *testing.T, name string, n *node[entry], root bool) (depth int) {
	t.Helper()
	count := len(n.items)
	if n.kids != nil {
		if len(n.kids) != len(n.items)+1 {
			t.Fatalf("%s: %d kids of %d items", name, len(n.kids), len(n.items))
		}
		for i, kid := range n.kids {
			d := checkNode(t, name, kid, false)
			if i > 0 && d != depth {
				t.Fatalf("%s: leaves at different depths", name)
			}
			depth = d
			count += kid.count
		}
	}
	if count != n.count {
		t.Fatalf("%s: node says %d items below, has %d", name, n.count, count)
	}
	if len(n.items) > maxItems || !root && len(n.items) < minItems {
		t.Fatalf("%s: node of %d items", name, len(n.items))
	}
	return depth + 1
}

func TestGrow(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for _, n := range []int{0, 1, 31, 32, 33, 34, 65, 66, 100, 800, 833, 1000, 5000, 40_000} {
		var items []entry
		for i := range n {
			items = append(items, entry{"", fmt.Sprintf("%05d", i)})
		}
		checkTree(t, fmt.Sprint(n), grow(items, 1), items, random)
	}
}
