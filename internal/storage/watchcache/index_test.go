package watchcache

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/storagetest"
)

func change(key string, o object, revision storage.Revision) storage.Change {
	return storage.Change{Entry: storage.Entry{Key: pods + key, Value: o.bytes(), Modified: revision}}
}

func deletion(key string, revision storage.Revision) storage.Change {
	return storage.Change{Deleted: true, Entry: storage.Entry{Key: pods + key, Modified: revision}}
}

// TestIndexCatchesUp adds an index that was made of a state that is no longer the newest.
func TestIndexCatchesUp(t *testing.T) {
	defer func(n int) { minIndexed = n }(minIndexed)
	minIndexed = 1
	v := New(storagetest.NewMemory(), prefix, Options{}).Serve(widgets(pods))
	v.install(nil, 1, false, time.Now())
	app := func(value string) object { return object{Labels: map[string]string{"app": value}} }
	rev := storage.Revision(1)
	apply := func(c func(storage.Revision) storage.Change) {
		rev++
		v.apply([]storage.Change{c(rev)}, time.Now())
	}
	for i := range 100 {
		apply(func(r storage.Revision) storage.Change {
			return change(fmt.Sprintf("a/p%02d", i), app(fmt.Sprint(i%20)), r)
		})
	}
	old := v.current.Load()
	index := labelIndex{"app", indexOf(old.objects, 0, labelValue("app"))}
	apply(func(r storage.Revision) storage.Change { return change("a/p07", app("other"), r) }) // was 7
	apply(func(r storage.Revision) storage.Change { return change("a/p01", app("7"), r) })     // was 1
	apply(func(r storage.Revision) storage.Change { return deletion("a/p27", r) })             // was 7
	apply(func(r storage.Revision) storage.Change { return change("a/new", app("7"), r) })
	v.addIndex(old, index)
	before := v.Latest()
	apply(func(r storage.Revision) storage.Change { return change("a/newer", app("7"), r) })

	checkAt := func(s Snapshot, value string, want ...string) {
		t.Helper()
		selector, _ := labels.Parse("app=" + value)
		if _, ok := s.labelIndex("app"); !ok {
			t.Fatal("no index")
		}
		var got []string
		for _, o := range s.List(Query{Labels: selector}).Versions {
			got = append(got, o.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("app=%s: %q, want %q", value, got, want)
		}
	}
	check := func(value string, want ...string) { t.Helper(); checkAt(v.Latest(), value, want...) }
	checkAt(before, "7", "new", "p01", "p47", "p67", "p87")
	check("7", "new", "newer", "p01", "p47", "p67", "p87")
	check("1", "p21", "p41", "p61", "p81")
	check("other", "p07")
	apply(func(r storage.Revision) storage.Change { return change("a/p47", app("8"), r) })
	checkAt(before, "7", "new", "p01", "p47", "p67", "p87")
	var all []posting
	v.current.Load().labels[0].postings.ascend("", "", false, func(p posting) bool { all = append(all, p); return true })
	if len(all) != 101 {
		t.Errorf("the index has %d postings of 101 objects", len(all))
	}
}

// TestChangesBeforeTheLoad brings a view, while it loads, changes that are in what it loads already.
func TestChangesBeforeTheLoad(t *testing.T) {
	c := New(storagetest.NewMemory(), prefix, Options{})
	v := c.Serve(widgets(pods))
	v.apply([]storage.Change{change("a/p", object{Data: "old"}, 5)}, time.Now())
	v.apply([]storage.Change{deletion("a/p", 6)}, time.Now())
	v.apply([]storage.Change{change("a/next", object{}, 9)}, time.Now())
	loaded := v.collection.version(&storage.Entry{Key: pods + "a/p", Value: object{Data: "new"}.bytes(), Modified: 7}, "a/p", nil)
	if !v.install([]*Version{loaded}, 8, true, time.Now()) {
		t.Fatal("not installed")
	}
	v.apply([]storage.Change{deletion("a/p", 6)}, time.Now()) // the feed is still behind
	var got []string
	for _, o := range v.Latest().List(Query{}).Versions {
		got = append(got, fmt.Sprintf("%s@%d", o.Name, o.Revision))
	}
	if want := []string{"next@9", "p@7"}; !slices.Equal(got, want) {
		t.Errorf("shows %q, want %q", got, want)
	}
	if v.install(nil, 20, true, time.Now()); v.Latest().Len("") != 2 {
		t.Error("a second first load replaced the first")
	}
}

// TestTooMuchBeforeTheLoad brings more changes than a view keeps while it loads.
func TestTooMuchBeforeTheLoad(t *testing.T) {
	v := New(storagetest.NewMemory(), prefix, Options{}).Serve(widgets(pods))
	v.apply([]storage.Change{change("a/p", object{}, 2)}, time.Now())
	v.apply(make([]storage.Change, maxBuffer), time.Now())
	if v.install(nil, 1, true, time.Now()) {
		t.Error("installed although changes were lost")
	}
	v.apply([]storage.Change{change("a/q", object{}, 200_000)}, time.Now())
	if !v.install(nil, 100_000, true, time.Now()) || v.Latest().Len("") != 1 {
		t.Error("the second load failed")
	}
}
