package etcd

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/storage/mvcc"

	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/storagetest"
)

func openEmbedded(t testing.TB, cfg EmbeddedConfig) *Store {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	s, err := Embedded(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func compact(t *testing.T, s storage.Store, at storage.Revision) {
	t.Helper()
	if err := s.(*Store).backend.compact(t.Context(), at); err != nil {
		t.Fatal(err)
	}
}

func TestEmbeddedKeepsThePromises(t *testing.T) {
	t.Parallel()
	dirs := map[storage.Store]string{}
	storagetest.Run(t, func(t *testing.T) storage.Store {
		dir := t.TempDir()
		s := openEmbedded(t, EmbeddedConfig{Dir: dir})
		dirs[s] = dir
		return s
	}, storagetest.Options{
		Compact:    compact,
		MaxRequest: DefaultMaxRequestBytes,
		Reopen: func(t *testing.T, s storage.Store) storage.Store {
			s.Close()
			return openEmbedded(t, EmbeddedConfig{Dir: dirs[s]})
		},
	})
}

func TestExternalKeepsThePromises(t *testing.T) {
	t.Parallel()
	endpoint := "unix://" + filepath.Join(t.TempDir(), "etcd.sock")
	server := openEmbedded(t, EmbeddedConfig{Listen: []string{endpoint}, Compaction: -1})
	open := func(t *testing.T) storage.Store {
		s, err := Dial(t.Context(), Config{Endpoints: []string{endpoint}, Compaction: -1})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	storagetest.Run(t, func(t *testing.T) storage.Store {
		clear(t, server)
		return open(t)
	}, storagetest.Options{
		Compact:    compact,
		MaxRequest: DefaultMaxRequestBytes,
		Reopen: func(t *testing.T, s storage.Store) storage.Store {
			s.Close()
			return open(t)
		},
	})
}

// clear deletes all keys.
func clear(t *testing.T, s *Store) {
	t.Helper()
	page, err := s.List(t.Context(), "/", storage.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range page.Entries {
		if _, err := s.Commit(t.Context(), storage.Txn{Then: []storage.Op{{Key: e.Key}}}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	first := openEmbedded(t, EmbeddedConfig{Dir: dir})
	if _, err := Embedded(t.Context(), EmbeddedConfig{Dir: dir}); !errors.Is(err, ErrLocked) {
		t.Fatalf("second start: %v, want %v", err, ErrLocked)
	}
	if _, err := first.Now(t.Context()); err != nil {
		t.Errorf("the first one suffered: %v", err)
	}
	first.Close()
	openEmbedded(t, EmbeddedConfig{Dir: dir})
}

// TestStart starts servers on new and on used data directories, several at a time, with logs of
// lengths around those at which etcd makes snapshots. Each must start its election itself.
func TestStart(t *testing.T) {
	t.Parallel()
	for _, entries := range []int{0, 1, 90, 110, 200, snapshotEntries - 10, snapshotEntries + 50, snapshotEntries + 200} {
		t.Run(fmt.Sprint(entries), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for range 3 {
				s := openEmbedded(t, EmbeddedConfig{Dir: dir, NoFsync: true})
				if !s.backend.(*embedded).campaigned {
					t.Error("waited for an election timeout")
				}
				var wg sync.WaitGroup
				for i := range entries {
					wg.Go(func() {
						if _, err := s.Commit(t.Context(), storage.Txn{Then: []storage.Op{{Key: fmt.Sprint("/", i), Value: []byte("x")}}}); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestFull(t *testing.T) {
	s := openEmbedded(t, EmbeddedConfig{QuotaBytes: 4 << 20, Compaction: -1})
	b := s.backend.(*embedded)
	var err error
	var last storage.Revision
	for range 100 {
		b.server.Backend().ForceCommit() // as it happens every second
		var rev storage.Revision
		if rev, err = s.Commit(t.Context(), storage.Txn{Then: []storage.Op{{Key: "/a", Value: make([]byte, 500_000)}}}); err != nil {
			break
		}
		last = rev
	}
	if !errors.Is(err, storage.ErrFull) {
		t.Fatalf("filling: %v, want %v", err, storage.ErrFull)
	}
	if _, err := s.Commit(t.Context(), storage.Txn{Then: []storage.Op{{Key: "/a"}}}); err != nil {
		t.Errorf("deleting in a full store: %v", err)
	}
	// Compaction makes room, with no operator to disarm an alarm.
	if err := b.compact(t.Context(), last+1); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		b.server.Backend().ForceCommit()
		if _, err = s.Commit(t.Context(), storage.Txn{Then: []storage.Op{{Key: "/b", Value: []byte("x")}}}); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // compaction works in the background
	}
}

// TestCompactors runs the rounds of several servers that share a store: one compacts in
// each round, at what the store was at the round before, and an idle store is left alone.
func TestCompactors(t *testing.T) {
	s := openEmbedded(t, EmbeddedConfig{Compaction: -1})
	type compaction struct {
		by int
		at storage.Revision
	}
	var made []compaction
	compactors := make([]*compactor, 3)
	for i := range compactors {
		compactors[i] = &compactor{every: time.Minute, backend: &recording{backend: s.backend, compacted: func(at storage.Revision) {
			made = append(made, compaction{i, at})
		}}}
	}
	round := func() storage.Revision {
		if _, err := s.Commit(t.Context(), storage.Txn{Then: []storage.Op{{Key: "/a", Value: []byte("x")}}}); err != nil {
			t.Fatal(err)
		}
		now, _ := s.Now(t.Context())
		for _, c := range compactors {
			if err := c.round(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		return now
	}
	last := round()
	if len(made) != 0 {
		t.Fatalf("the first round compacted: %v", made)
	}
	for n := range 5 {
		made = nil
		now := round()
		if len(made) != 1 {
			t.Fatalf("round %d: compactions %v, want one", n, made)
		}
		if made[0].at < last || made[0].at >= now {
			t.Fatalf("round %d compacted at %d, want what the last round saw: %d up to %d", n, made[0].at, last, now)
		}
		last = now
	}
	// The others learn of the last writer's key; then nothing moves any more.
	for range 3 {
		for _, c := range compactors {
			c.round(t.Context())
		}
	}
	before, _ := s.Now(t.Context())
	for range 3 {
		for _, c := range compactors {
			c.round(t.Context())
		}
	}
	if after, _ := s.Now(t.Context()); after != before {
		t.Errorf("idle rounds wrote: revision %d became %d", before, after)
	}
}

type recording struct {
	backend
	compacted func(storage.Revision)
}

func (r *recording) compact(ctx context.Context, at storage.Revision) error {
	r.compacted(at)
	return r.backend.compact(ctx, at)
}

func TestWatchBuffer(t *testing.T) {
	if got := mvcc.ChanBufLen(); got != watchBuffer {
		t.Errorf("etcd buffers %d responses, not %d", got, watchBuffer)
	}
}

func TestLeasesAreShared(t *testing.T) {
	granted := 0
	l := leases{grant: func(_ context.Context, ttl int64) (int64, error) { granted++; return int64(granted), nil }}
	for range 2*leaseObjects + 1 {
		if _, err := l.get(t.Context(), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if granted != 3 {
		t.Errorf("%d leases for %d objects, want 3", granted, 2*leaseObjects+1)
	}
	l.get(t.Context(), time.Minute)
	if granted != 4 {
		t.Errorf("objects of another TTL share the lease")
	}
	l.forget()
	l.get(t.Context(), time.Minute)
	if granted != 5 {
		t.Errorf("a lost lease was handed out again")
	}
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		s, err := Embedded(b.Context(), EmbeddedConfig{Dir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		s.Close()
		b.StartTimer()
	}
}

func BenchmarkCommit(b *testing.B) {
	for _, noFsync := range []bool{false, true} {
		b.Run(fmt.Sprintf("noFsync=%t", noFsync), func(b *testing.B) {
			s := openEmbedded(b, EmbeddedConfig{NoFsync: noFsync})
			value := make([]byte, 1000)
			var rev storage.Revision
			b.ReportAllocs()
			for b.Loop() {
				var err error
				rev, err = s.Commit(b.Context(), storage.Txn{
					If:   []storage.Condition{{Key: "/a", Revision: rev}},
					Then: []storage.Op{{Key: "/a", Value: value}},
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkNow(b *testing.B) {
	s := openEmbedded(b, EmbeddedConfig{})
	for b.Loop() {
		s.Now(b.Context())
	}
}
