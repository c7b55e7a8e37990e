// Package storagetest proves the promises of package storage on an implementation.
//
// A test calls Run with a function that opens an empty store; each promise is a
// subtest of its own. Durability across a crash and compaction need means
// that the contract does not have; they are options.
package storagetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/timonel/timonel/internal/storage"
)

// Options tell Run what the store under test can do besides the contract.
type Options struct {
	// Compact drops the history before the revision; nil skips the tests that need it.
	Compact func(t *testing.T, s storage.Store, at storage.Revision)

	// Reopen closes the store as hard as it can and opens another one on the same data.
	Reopen func(t *testing.T, s storage.Store) storage.Store

	// MaxRequest is how many bytes a transaction may have; 0 if there is no limit.
	MaxRequest int

	// FakeTime runs each test in a bubble of fake time: for stores with no clock but that of package time.
	FakeTime bool
}

// wait bounds how long anything may take that is bound to happen.
const wait = 30 * time.Second

// Run proves each promise on a new store that open returns. The store is closed
// by the test.
func Run(t *testing.T, open func(t *testing.T) storage.Store, opts Options) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, s storage.Store, opts Options)
	}{
		{"Get", testGet},
		{"Commit", testCommit},
		{"Conflict", testConflict},
		{"Atomic", testAtomic},
		{"List", testList},
		{"ListAt", testListAt},
		{"ListPages", testListPages},
		{"ListLarge", testListLarge},
		{"Now", testNow},
		{"CompareAndSwapRace", testRace},
		{"TTL", testTTL},
		{"Keep", testKeep},
		{"TooLarge", testTooLarge},
		{"WatchOrder", testWatchOrder},
		{"WatchWholeRevisions", testWatchWholeRevisions},
		{"WatchResumes", testWatchResumes},
		{"WatchPrefix", testWatchPrefix},
		{"WatchEnds", testWatchEnds},
		{"Progress", testProgress},
		{"Linearizable", testLinearizable},
		{"Compacted", testCompacted},
		{"Canceled", testCanceled},
		{"Durable", testDurable},
		{"Closed", testClosed},
	} {
		prove := func(t *testing.T) {
			s := open(t)
			closed := false
			t.Cleanup(func() {
				if !closed {
					s.Close()
				}
			})
			if test.name == "Closed" || test.name == "Durable" {
				closed = true
			}
			test.run(t, s, opts)
		}
		t.Run(test.name, func(t *testing.T) {
			if opts.FakeTime {
				synctest.Test(t, prove)
			} else {
				prove(t)
			}
		})
	}
}

func testGet(t *testing.T, s storage.Store, _ Options) {
	_, err := s.Get(t.Context(), "/a")
	wantError(t, err, storage.ErrNotFound)

	rev := put(t, s, "/a", "one")
	check(t, get(t, s, "/a"), storage.Entry{Key: "/a", Value: []byte("one"), Created: rev, Modified: rev})

	rev2 := put(t, s, "/a", "two")
	check(t, get(t, s, "/a"), storage.Entry{Key: "/a", Value: []byte("two"), Created: rev, Modified: rev2})

	put(t, s, "/empty", "")
	if e := get(t, s, "/empty"); e.Value == nil || len(e.Value) != 0 {
		t.Errorf("an empty value reads as %#v, want empty and not nil", e.Value)
	}

	remove(t, s, "/a")
	_, err = s.Get(t.Context(), "/a")
	wantError(t, err, storage.ErrNotFound)
}

func testCommit(t *testing.T, s storage.Store, _ Options) {
	first := commit(t, s, storage.Txn{If: []storage.Condition{{Key: "/a"}}, Then: []storage.Op{{Key: "/a", Value: []byte("1")}}})
	second := commit(t, s, storage.Txn{
		If:   []storage.Condition{{Key: "/a", Revision: first}, {Key: "/b"}},
		Then: []storage.Op{{Key: "/a", Value: []byte("2")}, {Key: "/b", Value: []byte("3")}},
	})
	if second <= first {
		t.Errorf("revisions %d, %d do not grow", first, second)
	}
	a, b := get(t, s, "/a"), get(t, s, "/b")
	if a.Modified != second || b.Modified != second {
		t.Errorf("one transaction wrote at revisions %d and %d, want %d", a.Modified, b.Modified, second)
	}
	third := commit(t, s, storage.Txn{
		If:   []storage.Condition{{Key: "/a", Revision: second}},
		Then: []storage.Op{{Key: "/a"}, {Key: "/c", Value: []byte("4")}},
	})
	if _, err := s.Get(t.Context(), "/a"); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("deleted key: %v", err)
	}
	if c := get(t, s, "/c"); c.Modified != third {
		t.Errorf("/c is at %d, want %d", c.Modified, third)
	}
}

func testConflict(t *testing.T, s storage.Store, _ Options) {
	rev := put(t, s, "/a", "1")
	check := func(name string, conditions []storage.Condition, key string, current string) {
		t.Helper()
		before, _ := s.Now(t.Context())
		_, err := s.Commit(t.Context(), storage.Txn{If: conditions, Then: []storage.Op{{Key: "/x", Value: []byte("x")}}})
		wantError(t, err, storage.ErrConflict)
		var conflict *storage.ConflictError
		if !errors.As(err, &conflict) {
			t.Fatalf("%s: %T is no ConflictError", name, err)
		}
		if conflict.Key != key {
			t.Errorf("%s: conflict at %s, want %s", name, conflict.Key, key)
		}
		if (conflict.Current == nil) != (current == "") {
			t.Fatalf("%s: current is %v, want %q", name, conflict.Current, current)
		}
		if current != "" && (string(conflict.Current.Value) != current || conflict.Current.Modified != rev) {
			t.Errorf("%s: current is %q at %d, want %q at %d", name, conflict.Current.Value, conflict.Current.Modified, current, rev)
		}
		if _, err := s.Get(t.Context(), "/x"); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("%s: a failed transaction wrote", name)
		}
		if after, _ := s.Now(t.Context()); after != before {
			t.Errorf("%s: a failed transaction moved the revision from %d to %d", name, before, after)
		}
	}
	check("exists", []storage.Condition{{Key: "/a"}}, "/a", "1")
	check("older", []storage.Condition{{Key: "/a", Revision: rev - 1}}, "/a", "1")
	check("newer", []storage.Condition{{Key: "/a", Revision: rev + 1}}, "/a", "1")
	check("missing", []storage.Condition{{Key: "/b", Revision: rev}}, "/b", "")
	check("second of two", []storage.Condition{{Key: "/a", Revision: rev}, {Key: "/b", Revision: 1}}, "/b", "")
}

// testAtomic moves a unit between two keys and checks that no reader ever sees
// the sum change.
func testAtomic(t *testing.T, s storage.Store, _ Options) {
	commit(t, s, storage.Txn{Then: []storage.Op{{Key: "/l/a", Value: []byte("50")}, {Key: "/l/b", Value: []byte("50")}}})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 100 {
			commit(t, s, storage.Txn{Then: []storage.Op{
				{Key: "/l/a", Value: fmt.Append(nil, i)}, {Key: "/l/b", Value: fmt.Append(nil, 100-i)},
			}})
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		page := list(t, s, "/l/", storage.ListOptions{})
		sum := 0
		for _, e := range page.Entries {
			var n int
			fmt.Sscan(string(e.Value), &n)
			sum += n
		}
		if sum != 100 {
			t.Fatalf("a list shows half a transaction: sum %d at %d", sum, page.Revision)
		}
	}
}

func testList(t *testing.T, s storage.Store, _ Options) {
	if page := list(t, s, "/p/", storage.ListOptions{}); len(page.Entries) != 0 || page.More || page.Remaining != 0 {
		t.Errorf("an empty store lists %+v", page)
	}
	var last storage.Revision
	for _, k := range []string{"/p/b", "/p/a", "/p/a-b/x", "/p/a/x", "/pq", "/p", "/p0"} {
		last = put(t, s, k, "v"+k)
	}
	page := list(t, s, "/p/", storage.ListOptions{})
	checkKeys(t, page, "/p/a", "/p/a-b/x", "/p/a/x", "/p/b")
	if page.Revision != last {
		t.Errorf("list is at revision %d, want %d", page.Revision, last)
	}
	if string(page.Entries[3].Value) != "v/p/b" {
		t.Errorf("value %q", page.Entries[3].Value)
	}
	checkKeys(t, list(t, s, "/nothing/", storage.ListOptions{}))
	checkKeys(t, list(t, s, "/p/", storage.ListOptions{After: "/p/a/x"}), "/p/b")
	checkKeys(t, list(t, s, "/p/", storage.ListOptions{After: "/p/b"}))
	checkKeys(t, list(t, s, "/p/", storage.ListOptions{After: "/z"}))
	checkKeys(t, list(t, s, "/p/", storage.ListOptions{After: "/a"}), "/p/a", "/p/a-b/x", "/p/a/x", "/p/b")
}

func testListAt(t *testing.T, s storage.Store, _ Options) {
	r1 := put(t, s, "/p/a", "1")
	r2 := put(t, s, "/p/b", "2")
	r3 := put(t, s, "/p/a", "3")
	r4 := remove(t, s, "/p/b")

	at := func(rev storage.Revision, want ...string) {
		t.Helper()
		page := list(t, s, "/p/", storage.ListOptions{At: rev})
		var got []string
		for _, e := range page.Entries {
			got = append(got, e.Key+"="+string(e.Value))
		}
		if !slices.Equal(got, want) {
			t.Errorf("at %d: %q, want %q", rev, got, want)
		}
		if page.Revision != rev {
			t.Errorf("at %d: page says revision %d", rev, page.Revision)
		}
	}
	at(r1, "/p/a=1")
	at(r2, "/p/a=1", "/p/b=2")
	at(r3, "/p/a=3", "/p/b=2")
	at(r4, "/p/a=3")

	_, err := s.List(t.Context(), "/p/", storage.ListOptions{At: r4 + 100})
	wantError(t, err, storage.ErrFuture)
}

func testListPages(t *testing.T, s storage.Store, _ Options) {
	const n = 25
	var keys []string
	for i := range n {
		k := fmt.Sprintf("/p/%02d", i)
		keys = append(keys, k)
		put(t, s, k, k)
	}
	put(t, s, "/q/1", "")
	first := list(t, s, "/p/", storage.ListOptions{Limit: 10})
	put(t, s, "/p/00a", "late")
	remove(t, s, "/p/15")

	var got []string
	page, after := first, ""
	for {
		for _, e := range page.Entries {
			got = append(got, e.Key)
			after = e.Key
		}
		if want := int64(n - len(got)); page.Remaining != want || page.More != (want > 0) {
			t.Errorf("after %d: remaining %d, more %t, want %d", len(got), page.Remaining, page.More, want)
		}
		if !page.More {
			break
		}
		page = list(t, s, "/p/", storage.ListOptions{Limit: 10, After: after, At: first.Revision})
	}
	if !slices.Equal(got, keys) {
		t.Errorf("pages at one revision have %q, want %q", got, keys)
	}
}

// testListLarge lists more bytes than one message of a protocol might hold.
func testListLarge(t *testing.T, s storage.Store, _ Options) {
	const n, size = 12, 1_000_000
	for i := range n {
		put(t, s, fmt.Sprintf("/l/%02d", i), strings.Repeat(string(rune('a'+i)), size))
	}
	page := list(t, s, "/l/", storage.ListOptions{})
	if len(page.Entries) != n {
		t.Fatalf("%d entries, want %d", len(page.Entries), n)
	}
	for i, e := range page.Entries {
		if len(e.Value) != size || e.Value[0] != byte('a'+i) || e.Value[size-1] != byte('a'+i) {
			t.Errorf("entry %d has %d bytes of %c", i, len(e.Value), e.Value[0])
		}
	}
}

func testNow(t *testing.T, s storage.Store, _ Options) {
	for i := range 10 {
		rev := put(t, s, "/a", fmt.Sprint(i))
		now, err := s.Now(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if now < rev {
			t.Fatalf("now is %d after a commit at %d", now, rev)
		}
	}
}

// testRace lets several writers increment one counter with compare-and-swap.
func testRace(t *testing.T, s storage.Store, _ Options) {
	const writers, each = 8, 20
	put(t, s, "/n", "0")
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				e, err := s.Get(t.Context(), "/n")
				for {
					if err != nil {
						t.Error(err)
						return
					}
					var n int
					fmt.Sscan(string(e.Value), &n)
					_, err = s.Commit(t.Context(), storage.Txn{
						If:   []storage.Condition{{Key: "/n", Revision: e.Modified}},
						Then: []storage.Op{{Key: "/n", Value: fmt.Append(nil, n+1)}},
					})
					var conflict *storage.ConflictError
					if !errors.As(err, &conflict) {
						break
					}
					e, err = *conflict.Current, nil // no need to read again
				}
			}
		})
	}
	wg.Wait()
	if got := string(get(t, s, "/n").Value); got != fmt.Sprint(writers*each) {
		t.Errorf("the counter is %s, want %d: an increment was lost", got, writers*each)
	}
}

func testTTL(t *testing.T, s storage.Store, _ Options) {
	w := startWatch(t, s, "/ttl/", put(t, s, "/ttl/stays", "x"))
	for i := range 3 {
		commit(t, s, storage.Txn{Then: []storage.Op{{Key: fmt.Sprintf("/ttl/%d", i), Value: []byte("x"), TTL: time.Second}}})
	}
	deleted := map[string]bool{}
	for len(deleted) < 3 {
		for _, c := range w.next(t).Changes {
			if c.Deleted {
				deleted[c.Key] = true
			}
		}
	}
	checkKeys(t, list(t, s, "/ttl/", storage.ListOptions{}), "/ttl/stays")
}

// testKeep has keys that end in each way that there is: released, taken over, and left alone, which another one outlives
// that is renewed.
func testKeep(t *testing.T, s storage.Store, _ Options) {
	keep := func(key string, ttl time.Duration) storage.Kept {
		t.Helper()
		k, err := s.Keep(t.Context(), key, []byte("v"), ttl)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	put(t, s, "/keep/stays", "x")
	released, taken := keep("/keep/released", time.Minute), keep("/keep/taken", time.Minute)
	if got := get(t, s, "/keep/released"); string(got.Value) != "v" {
		t.Errorf("kept %q", got.Value)
	}
	put(t, s, "/keep/taken", "somebody else's")
	for _, k := range []storage.Kept{released, taken} {
		if err := k.Release(t.Context()); err != nil {
			t.Error(err)
		}
	}
	checkKeys(t, list(t, s, "/keep/", storage.ListOptions{}), "/keep/stays", "/keep/taken")

	const ttl = 2 * time.Second // the least that etcd grants
	for attempt := 1; ; attempt++ {
		now, err := s.Now(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w := startWatch(t, s, "/keep/", now)
		gone := func() string {
			t.Helper()
			for {
				for _, c := range w.next(t).Changes {
					if c.Deleted {
						return c.Key
					}
				}
			}
		}
		left, renewed := keep("/keep/left", ttl), keep("/keep/renewed", ttl)
		before := get(t, s, "/keep/renewed")
		stop := make(chan struct{})
		late := make(chan bool)
		go func() {
			tooLate := false
			for last := time.Now(); ; {
				select {
				case <-stop:
					late <- tooLate
					return
				case <-time.After(ttl / 4):
				}
				err := renewed.Renew(t.Context())
				// A key may go when its TTL has passed since the renewal before.
				if tooLate = tooLate || time.Since(last) >= ttl; err != nil && !tooLate {
					t.Errorf("renew: %v", err)
				}
				last = time.Now()
			}
		}()
		first := gone()
		after, err := s.Get(t.Context(), "/keep/renewed")
		close(stop)
		if <-late && attempt < 5 { // this machine stood still; it says nothing about the store
			t.Log("the key was not renewed in time: once more")
			_ = renewed.Release(t.Context())
			_ = left.Release(t.Context())
			w.stop()
			continue
		}
		if first != "/keep/left" {
			t.Fatalf("%s is gone, want /keep/left", first)
		}
		if err := left.Renew(t.Context()); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("renew what is gone: %v", err)
		}
		if err != nil || after.Modified != before.Modified {
			t.Errorf("renewing wrote: revision %d became %d, %v", before.Modified, after.Modified, err)
		}
		if next := gone(); next != "/keep/renewed" {
			t.Fatalf("%s is gone, want /keep/renewed", next)
		}
		break
	}
	checkKeys(t, list(t, s, "/keep/", storage.ListOptions{}), "/keep/stays", "/keep/taken")
}

func testTooLarge(t *testing.T, s storage.Store, opts Options) {
	if opts.MaxRequest == 0 {
		t.Skip("the store has no limit")
	}
	put(t, s, "/fits", strings.Repeat("x", opts.MaxRequest-2000))
	_, err := s.Commit(t.Context(), storage.Txn{Then: []storage.Op{{Key: "/large", Value: make([]byte, opts.MaxRequest+1)}}})
	wantError(t, err, storage.ErrTooLarge)
	var many storage.Txn
	for i := range 1000 {
		many.Then = append(many.Then, storage.Op{Key: fmt.Sprintf("/many/%d", i), Value: []byte("x")})
	}
	_, err = s.Commit(t.Context(), many)
	wantError(t, err, storage.ErrTooLarge)
	checkKeys(t, list(t, s, "/", storage.ListOptions{}), "/fits")
}

// testLinearizable checks, while others write, that a reader never sees less than
// what was committed before it asked, and that its own reads never go back.
func testLinearizable(t *testing.T, s storage.Store, _ Options) {
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var committed storage.Revision
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				rev, err := s.Commit(t.Context(), storage.Txn{Then: []storage.Op{{Key: fmt.Sprintf("/k/%d", i), Value: fmt.Append(nil, n)}}})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				committed = max(committed, rev)
				mu.Unlock()
			}
		})
	}
	var last storage.Revision
	for range 300 {
		mu.Lock()
		least := max(committed, last)
		mu.Unlock()
		now, err := s.Now(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		page := list(t, s, "/k/", storage.ListOptions{})
		if now < least || page.Revision < now {
			t.Fatalf("committed %d, then now is %d, then a list at %d", least, now, page.Revision)
		}
		last = page.Revision
	}
	cancel()
	wg.Wait()
}

func testCanceled(t *testing.T, s storage.Store, _ Options) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Get(ctx, "/a"); !errors.Is(err, context.Canceled) {
		t.Errorf("get: %v", err)
	}
	if _, err := s.List(ctx, "/", storage.ListOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("list: %v", err)
	}
	if _, err := s.Commit(ctx, storage.Txn{Then: []storage.Op{{Key: "/a", Value: []byte("x")}}}); err == nil {
		t.Error("commit: no error")
	}
}

func testDurable(t *testing.T, s storage.Store, opts Options) {
	if opts.Reopen == nil {
		s.Close()
		t.Skip("reopening is not offered")
	}
	var last storage.Revision
	for i := range 50 {
		last = put(t, s, fmt.Sprintf("/d/%02d", i), fmt.Sprint(i))
	}
	s = opts.Reopen(t, s)
	defer s.Close()
	page := list(t, s, "/d/", storage.ListOptions{})
	if len(page.Entries) != 50 || page.Entries[49].Modified != last {
		t.Fatalf("%d entries, the last of %d, want 50, %d", len(page.Entries), page.Entries[len(page.Entries)-1].Modified, last)
	}
	if next := put(t, s, "/d/more", "x"); next <= last {
		t.Errorf("revision %d after %d", next, last)
	}
	w := startWatch(t, s, "/d/", last-1)
	if b := w.next(t); b.Changes[0].Modified != last {
		t.Errorf("history after reopening begins at %d, want %d", b.Changes[0].Modified, last)
	}
	w.stop()
}
