package watchcache

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/storagetest"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "run the model test with this seed only")
	seedsFlag = flag.Uint64("seeds", 12, "how many seeds the model test runs")
)

// model is what the cache should show: the objects of a resource after each revision.
type model struct {
	prefix string
	states map[storage.Revision]map[string]modelObject // after each revision that changed it
	revs   []storage.Revision                          // of states, in order
}

type modelObject struct {
	object
	revision storage.Revision
}

func (m *model) at(rev storage.Revision) map[string]modelObject {
	i, found := slices.BinarySearch(m.revs, rev)
	if !found {
		i--
	}
	if i < 0 {
		return nil
	}
	return m.states[m.revs[i]]
}

func (m *model) change(rev storage.Revision, ops []storage.Op, objects map[string]object) {
	var next map[string]modelObject
	for _, op := range ops {
		key, mine := strings.CutPrefix(op.Key, m.prefix)
		if !mine {
			continue
		}
		if next == nil {
			next = maps.Clone(m.at(rev))
			if next == nil {
				next = map[string]modelObject{}
			}
		}
		if op.Value == nil {
			delete(next, key)
		} else {
			next[key] = modelObject{objects[op.Key], rev}
		}
	}
	if next != nil {
		m.states[rev] = next
		m.revs = append(m.revs, rev)
	}
}

func chosen(q Query, key string, o object) bool {
	namespace, name, _ := strings.Cut(key, "/")
	if q.Namespace != "" && namespace != q.Namespace || q.Name != "" && name != q.Name {
		return false
	}
	if q.Labels != nil && !q.Labels.Matches(labels.Set(o.Labels)) {
		return false
	}
	for _, f := range q.Fields {
		value := map[int]string{NameField: name, NamespaceField: namespace}[f.Index]
		if f.Index >= 0 {
			value = o.Fields[f.Index]
		}
		if (value == f.Value) == f.NotEqual {
			return false
		}
	}
	return true
}

// list returns the blobs the query should list, and how many there are in all.
func (m *model) list(q Query, rev storage.Revision) (blobs []string, total int) {
	objects := m.at(rev)
	for _, key := range slices.Sorted(maps.Keys(objects)) {
		o := objects[key]
		if key > q.After && chosen(q, key, o.object) {
			total++
			if q.Limit == 0 || total <= q.Limit {
				blobs = append(blobs, string(stamp(o.bytes(), o.revision)))
			}
		}
	}
	return blobs, total
}

// events returns what a watcher of the query should be told after the revision. Changes of
// one revision may come in any order; here they are sorted by key.
func (m *model) events(q Query, after storage.Revision) []string {
	var events []string
	for i, rev := range m.revs {
		if rev <= after {
			continue
		}
		var before map[string]modelObject
		if i > 0 {
			before = m.states[m.revs[i-1]]
		}
		now := m.states[rev]
		keys := maps.Clone(before)
		if keys == nil {
			keys = map[string]modelObject{}
		}
		maps.Copy(keys, now)
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			old, existed := before[key]
			new, exists := now[key]
			if existed && exists && old.revision == new.revision {
				continue
			}
			was := existed && chosen(q, key, old.object)
			is := exists && chosen(q, key, new.object)
			switch {
			case was && is:
				events = append(events, fmt.Sprintf("MODIFIED %s %s", key, stamp(new.bytes(), rev)))
			case is:
				events = append(events, fmt.Sprintf("ADDED %s %s", key, stamp(new.bytes(), rev)))
			case was:
				events = append(events, fmt.Sprintf("DELETED %s %s", key, stamp(old.bytes(), rev)))
			}
		}
	}
	return events
}

// sortWithin sorts the events of each revision by key.
func sortWithin(events []string) []string {
	revision := func(e string) string { return strings.SplitN(strings.SplitN(e, " ", 3)[2], "|", 2)[0] }
	for i := 0; i < len(events); {
		j := i + 1
		for j < len(events) && revision(events[j]) == revision(events[i]) {
			j++
		}
		slices.SortFunc(events[i:j], func(a, b string) int {
			return strings.Compare(strings.SplitN(a, " ", 3)[1], strings.SplitN(b, " ", 3)[1])
		})
		i = j
	}
	return events
}

func randomObject(r *rand.Rand) object {
	o := object{Fields: []string{fmt.Sprint("n", r.IntN(5)), []string{"Running", "Pending", ""}[r.IntN(3)]}, Data: fmt.Sprint(r.IntN(1000))}
	if r.IntN(4) > 0 {
		o.Labels = map[string]string{"app": fmt.Sprint("a", r.IntN(4))}
		if r.IntN(2) == 0 {
			o.Labels["tier"] = []string{"front", "back"}[r.IntN(2)]
		}
	}
	return o
}

func randomQuery(r *rand.Rand) Query {
	var q Query
	if r.IntN(3) == 0 {
		q.Namespace = fmt.Sprint("ns", r.IntN(3))
	}
	if r.IntN(6) == 0 {
		q.Name = fmt.Sprint("o", r.IntN(12))
	}
	if r.IntN(3) == 0 {
		text := []string{"app=a1", "app in (a1,a2)", "app!=a1", "!app", "tier", "app=a0,tier=front", "tier notin (back)", "app in (a3)"}[r.IntN(8)]
		selector, err := labels.Parse(text)
		if err != nil {
			panic(err)
		}
		q.Labels = selector
	}
	if r.IntN(3) == 0 {
		q.Fields = append(q.Fields, FieldRequirement{Index: 0, Value: fmt.Sprint("n", r.IntN(5)), NotEqual: r.IntN(4) == 0})
	}
	if r.IntN(5) == 0 {
		q.Fields = append(q.Fields, FieldRequirement{Index: 1, Value: "Running", NotEqual: r.IntN(3) == 0})
	}
	if r.IntN(8) == 0 {
		q.Fields = append(q.Fields, FieldRequirement{Index: NameField, Value: fmt.Sprint("o", r.IntN(12)), NotEqual: r.IntN(2) == 0})
	}
	if r.IntN(8) == 0 {
		q.Fields = append(q.Fields, FieldRequirement{Index: NamespaceField, Value: fmt.Sprint("ns", r.IntN(3)), NotEqual: r.IntN(2) == 0})
	}
	return q
}

// TestModel does random things to a store and compares what the cache shows and tells with the model.
func TestModel(t *testing.T) {
	first, last := uint64(1), *seedsFlag
	if *seedFlag != 0 {
		first, last = *seedFlag, *seedFlag
	}
	t.Cleanup(func(a, b int) func() {
		return func() { minIndexed, labelIndexFrom = a, b }
	}(minIndexed, labelIndexFrom))
	minIndexed, labelIndexFrom = 1, 8 // let small resources use indexes
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T, store *storagetest.Memory) { runModel(t, store, seed) })
			if t.Failed() {
				t.Logf("again with: go test ./internal/storage/watchcache -run TestModel -seed %d", seed)
			}
		})
	}
}

type modelWatcher struct {
	*Watcher
	query  Query
	after  storage.Revision
	view   int
	events []string
	seen   storage.Revision
}

func runModel(t *testing.T, store *storagetest.Memory, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 7))
	prefixes := []string{pods, things}
	models := make([]*model, len(prefixes))
	for i, p := range prefixes {
		models[i] = &model{prefix: p, states: map[storage.Revision]map[string]modelObject{}}
	}
	exists := map[string]bool{}
	names := 12 << (3 * (seed % 2))
	write := func() {
		var ops []storage.Op
		objects := map[string]object{}
		for range 1 + r.IntN(3) {
			key := fmt.Sprintf("%sns%d/o%d", prefixes[r.IntN(2)], r.IntN(3), r.IntN(names))
			if slices.ContainsFunc(ops, func(o storage.Op) bool { return o.Key == key }) {
				continue
			}
			if r.IntN(3) == 0 {
				if exists[key] {
					ops = append(ops, del(key))
					delete(exists, key)
				}
				continue
			}
			objects[key] = randomObject(r)
			ops = append(ops, put(key, objects[key]))
			exists[key] = true
		}
		if r.IntN(10) == 0 {
			ops = append(ops, storage.Op{Key: "/elsewhere", Value: []byte("x")})
		}
		if len(ops) == 0 {
			return
		}
		rev := commit(t, store, ops...)
		for _, m := range models {
			m.change(rev, ops, objects)
		}
	}
	for range r.IntN(8 * names) {
		write()
	}
	c, views := start(t, store, Options{}, prefixes...)
	loaded := c.Revision()
	now := func() storage.Revision {
		rev, err := store.Now(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return rev
	}

	var watchers []*modelWatcher
	type keptSnapshot struct {
		Snapshot
		view int
	}
	var kept []keptSnapshot
	look := func(w *modelWatcher) {
		b, err := w.Poll()
		if err != nil {
			t.Fatalf("watch %+v after %d: %v", w.query, w.after, err)
		}
		for _, e := range b.Events {
			w.events = append(w.events, describe(e))
			if e.Version.Revision <= w.seen {
				t.Fatalf("an event of revision %d after everything up to %d was told", e.Version.Revision, w.seen)
			}
		}
		if b.Revision < w.seen {
			t.Fatalf("revision went from %d to %d", w.seen, b.Revision)
		}
		w.seen = b.Revision
	}
	for range 400 {
		switch n := r.IntN(20); {
		case n < 10:
			write()
		case n < 11:
			store.Break()
		case n < 13:
			i := r.IntN(2)
			after := loaded + storage.Revision(r.Int64N(int64(now()-loaded)+1))
			w := &modelWatcher{query: randomQuery(r), after: after, view: i, seen: after}
			w.Watcher = watchQuery(t, views[i], w.query, after)
			watchers = append(watchers, w)
		case n < 16:
			if len(watchers) > 0 {
				look(watchers[r.IntN(len(watchers))])
			}
		case n < 17:
			synctest.Wait()
		default:
			rev, err := c.Fresh(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			i := r.IntN(2)
			snapshot := views[i].Latest()
			if snapshot.Revision() < rev {
				t.Fatalf("latest is %d, fresh was %d", snapshot.Revision(), rev)
			}
			if r.IntN(2) == 0 {
				rev = loaded + storage.Revision(r.Int64N(int64(rev-loaded)+1))
				if snapshot, err = views[i].At(rev); err != nil {
					t.Fatalf("at %d, loaded at %d: %v", rev, loaded, err)
				}
				if snapshot.Revision() != rev {
					t.Fatalf("at %d gives %d", rev, snapshot.Revision())
				}
			}
			compareList(t, r, snapshot, models[i])
			kept = append(kept, keptSnapshot{snapshot, i})
			old := kept[r.IntN(len(kept))]
			compareList(t, r, old.Snapshot, models[old.view])
		}
	}
	if _, err := c.Fresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, w := range watchers {
		for {
			n := len(w.events)
			look(w)
			if len(w.events) == n {
				break
			}
		}
		want := models[w.view].events(w.query, w.after)
		if got := sortWithin(w.events); !slices.Equal(got, want) {
			t.Fatalf("watch %+v after %d told\n%s\nwant\n%s", w.query, w.after, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if w.seen != now() {
			t.Errorf("a watcher that was told everything is at %d, the store at %d", w.seen, now())
		}
		if len(w.Wake()) > 1 {
			t.Error("woken more than once")
		}
	}
	if _, err := views[0].At(now() + 1); !errors.Is(err, ErrFuture) {
		t.Errorf("the future: %v", err)
	}
	if _, err := views[0].At(loaded - 1); !errors.Is(err, ErrExpired) {
		t.Errorf("before loading: %v", err)
	}
}

func compareList(t *testing.T, r *rand.Rand, s Snapshot, m *model) {
	t.Helper()
	q := randomQuery(r)
	if r.IntN(2) == 0 {
		q.Limit = 1 + r.IntN(10)
	}
	if r.IntN(3) == 0 {
		q.After = fmt.Sprintf("ns%d/o%d", r.IntN(3), r.IntN(12))
	}
	page := s.List(q)
	var got []string
	for _, v := range page.Versions {
		got = append(got, string(v.Blob))
	}
	want, total := m.list(q, s.Revision())
	if !slices.Equal(got, want) {
		t.Fatalf("list %+v at %d:\n%q\nwant\n%q", q, s.Revision(), got, want)
	}
	if rest := total - len(want); page.More != (rest > 0) || page.Remaining >= 0 && page.Remaining != int64(rest) {
		t.Fatalf("list %+v: more %t, remaining %d, want %d", q, page.More, page.Remaining, rest)
	}
	if q.Labels == nil && q.Fields == nil && q.Name == "" && page.Remaining < 0 {
		t.Fatalf("list %+v does not say how many remain", q)
	}
	if _, n := m.list(Query{Namespace: q.Namespace}, s.Revision()); s.Len(q.Namespace) != n {
		t.Fatalf("len(%q) is %d, want %d", q.Namespace, s.Len(q.Namespace), n)
	}
}
