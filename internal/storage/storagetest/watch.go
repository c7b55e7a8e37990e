package storagetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/storage"
)

// testWatchOrder checks that several watches, begun at any time, tell one story:
// every change once, in order, with what was written.
func testWatchOrder(t *testing.T, s storage.Store, _ Options) {
	const writers, each = 4, 100
	start := put(t, s, "/w/first", "x")
	var wg sync.WaitGroup
	var mu sync.Mutex
	written := map[storage.Revision]string{}
	for i := range writers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(i)))
			for n := range each {
				key := fmt.Sprintf("/w/%d", random.IntN(20))
				op := storage.Op{Key: key, Value: fmt.Appendf(nil, "%d-%d", i, n)}
				before, err := s.Now(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				rev, err := s.Commit(t.Context(), storage.Txn{Then: []storage.Op{op}})
				if err != nil {
					t.Error(err)
					return
				}
				if rev <= before {
					t.Errorf("commit at %d, though %d was before it", rev, before)
				}
				mu.Lock()
				written[rev] = key + "=" + string(op.Value)
				mu.Unlock()
			}
		})
	}
	early := startWatch(t, s, "/w/", start)
	wg.Wait()
	if len(written) != writers*each {
		t.Fatalf("%d commits have %d revisions", writers*each, len(written))
	}
	late := startWatch(t, s, "/w/", start)
	for _, w := range []*watching{early, late} {
		got := map[storage.Revision]string{}
		last := start
		for len(got) < len(written) {
			for _, c := range w.next(t).Changes {
				if c.Modified <= last {
					t.Fatalf("revision %d after %d", c.Modified, last)
				}
				last = c.Modified
				got[c.Modified] = c.Key + "=" + string(c.Value)
			}
		}
		for rev, want := range written {
			if got[rev] != want {
				t.Fatalf("revision %d: watched %q, wrote %q", rev, got[rev], want)
			}
		}
	}
}

func testWatchWholeRevisions(t *testing.T, s storage.Store, _ Options) {
	const txns, keys = 30, 60
	start := put(t, s, "/w", "x")
	write := func(i int) {
		var txn storage.Txn
		for k := range keys {
			txn.Then = append(txn.Then, storage.Op{Key: fmt.Sprintf("/w/%d", k), Value: fmt.Append(nil, i)})
		}
		commit(t, s, txn)
	}
	live := startWatch(t, s, "/w/", start)
	for i := range txns {
		write(i)
	}
	for _, w := range []*watching{live, startWatch(t, s, "/w/", start)} {
		for seen := 0; seen < txns*keys; {
			b := w.next(t)
			count := map[storage.Revision]int{}
			for _, c := range b.Changes {
				count[c.Modified]++
			}
			for rev, n := range count {
				if n != keys {
					t.Fatalf("a batch has %d of the %d changes of revision %d", n, keys, rev)
				}
			}
			if n := len(b.Changes); n > 0 && b.Revision < b.Changes[n-1].Modified {
				t.Fatalf("batch up to %d has a change at %d", b.Revision, b.Changes[n-1].Modified)
			}
			seen += len(b.Changes)
		}
	}
}

func testWatchResumes(t *testing.T, s storage.Store, _ Options) {
	var revs []storage.Revision
	for i := range 5 {
		revs = append(revs, put(t, s, fmt.Sprintf("/w/%d", i%3), fmt.Sprint(i)))
	}
	revs = append(revs, remove(t, s, "/w/0"))
	for from, after := range revs[:len(revs)-1] {
		w := startWatch(t, s, "/w/", after)
		var got []storage.Revision
		for len(got) < len(revs)-1-from {
			for _, c := range w.next(t).Changes {
				got = append(got, c.Modified)
			}
		}
		if !slices.Equal(got, revs[from+1:]) {
			t.Fatalf("after %d: %v, want %v", after, got, revs[from+1:])
		}
		w.stop()
	}
}

func testWatchPrefix(t *testing.T, s storage.Store, _ Options) {
	start := put(t, s, "/other", "")
	w := startWatch(t, s, "/w/", start)
	put(t, s, "/w/a", "1")
	put(t, s, "/w", "no")
	put(t, s, "/w0", "no")
	put(t, s, "/v/a", "no")
	remove(t, s, "/w/a")
	put(t, s, "/w/b/c", "2")
	var got []string
	for len(got) < 3 {
		for _, c := range w.next(t).Changes {
			got = append(got, fmt.Sprintf("%s=%s,%t", c.Key, c.Value, c.Deleted))
			if c.Deleted && (c.Value != nil || c.Modified == 0) {
				t.Errorf("a deletion has value %q, revision %d", c.Value, c.Modified)
			}
			if !c.Deleted && c.Created != c.Modified {
				t.Errorf("%s was created at %d, says %d", c.Key, c.Modified, c.Created)
			}
		}
	}
	if want := []string{"/w/a=1,false", "/w/a=,true", "/w/b/c=2,false"}; !slices.Equal(got, want) {
		t.Errorf("watched %q, want %q", got, want)
	}
}

func testWatchEnds(t *testing.T, s storage.Store, _ Options) {
	start := put(t, s, "/w/a", "1")
	mine := errors.New("mine")
	put(t, s, "/w/a", "2")
	if err := s.Watch(t.Context(), "/w/", start, func(storage.Batch) error { return mine }); !errors.Is(err, mine) {
		t.Errorf("after deliver failed: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Watch(ctx, "/w/", start, func(storage.Batch) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("after its context ended: %v", err)
	}
}

func testProgress(t *testing.T, s storage.Store, _ Options) {
	start := put(t, s, "/w/a", "1")
	w := startWatch(t, s, "/w/", start)
	elsewhere := put(t, s, "/elsewhere", "x")
	// Progress does not promise an answer while a watch is catching up: ask until it comes.
	for {
		if err := s.Progress(t.Context()); err != nil {
			t.Fatal(err)
		}
		b, ok := w.within(100 * time.Millisecond)
		if !ok {
			continue
		}
		if len(b.Changes) > 0 {
			t.Fatalf("changes: %+v", b.Changes)
		}
		if b.Revision >= elsewhere {
			break
		}
	}
}

func testCompacted(t *testing.T, s storage.Store, opts Options) {
	if opts.Compact == nil {
		t.Skip("compaction is not offered")
	}
	old := put(t, s, "/w/a", "1")
	put(t, s, "/w/a", "2")
	at := put(t, s, "/w/a", "3")
	last := put(t, s, "/w/b", "4")
	opts.Compact(t, s, at)

	_, err := s.List(t.Context(), "/w/", storage.ListOptions{At: old})
	wantError(t, err, storage.ErrCompacted)
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	err = s.Watch(ctx, "/w/", old, func(b storage.Batch) error {
		if len(b.Changes) > 0 {
			return fmt.Errorf("delivered %+v", b)
		}
		return nil
	})
	wantError(t, err, storage.ErrCompacted)

	checkKeys(t, list(t, s, "/w/", storage.ListOptions{At: at}), "/w/a")
	checkKeys(t, list(t, s, "/w/", storage.ListOptions{}), "/w/a", "/w/b")
	w := startWatch(t, s, "/w/", at)
	if b := w.next(t); len(b.Changes) != 1 || b.Changes[0].Modified != last {
		t.Errorf("after the compacted revision: %+v", b)
	}
}

func testClosed(t *testing.T, s storage.Store, _ Options) {
	start := put(t, s, "/w/a", "1")
	put(t, s, "/w/a", "2")
	ended := make(chan error, 1)
	started := make(chan struct{})
	var once sync.Once
	go func() {
		ended <- s.Watch(context.Background(), "/w/", start, func(storage.Batch) error {
			once.Do(func() { close(started) })
			return nil
		})
	}()
	select {
	case <-started:
	case err := <-ended:
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a watch ended without error")
		}
	case <-time.After(wait):
		t.Error("a watch outlived the store")
	}
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	if _, err := s.Get(ctx, "/w/a"); err == nil || ctx.Err() != nil {
		t.Errorf("get on a closed store: %v", err)
	}
	if _, err := s.Now(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("now on a closed store: %v", err)
	}
	if _, err := s.Commit(ctx, storage.Txn{Then: []storage.Op{{Key: "/a", Value: []byte("x")}}}); err == nil || ctx.Err() != nil {
		t.Errorf("commit on a closed store: %v", err)
	}
}
