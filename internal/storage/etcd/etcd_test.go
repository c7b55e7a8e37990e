package etcd

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	servererrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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

// smallEtcd is a real etcd of its own with a quota, as it is found elsewhere.
func smallEtcd(t *testing.T, quota int64) (endpoint string) {
	t.Helper()
	cfg := EmbeddedConfig{Dir: t.TempDir(), NoFsync: true, Listen: []string{"unix://" + filepath.Join(t.TempDir(), "etcd.sock")}}
	e := &embedded{}
	serverConfig, err := e.config(cfg)
	if err != nil {
		t.Fatal(err)
	}
	serverConfig.QuotaBackendBytes, serverConfig.BackendBatchInterval = quota, time.Millisecond
	starting.Lock()
	defer starting.Unlock()
	server, err := newServer(serverConfig)
	if err != nil {
		t.Fatal(err)
	}
	e.server = server
	server.Start()
	t.Cleanup(server.Stop)
	if err := e.lead(t.Context()); err != nil {
		t.Fatal(err)
	}
	clients, err := serveClients(server, cfg.Listen)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(clients.stop)
	return cfg.Listen[0]
}

// TestFullElsewhere fills an etcd up to its quota: writes fail, reads and watches go on, and after an operator made
// room the same store works again.
func TestFullElsewhere(t *testing.T) {
	endpoint := smallEtcd(t, 4<<20)
	s := dialTest(t, Config{Endpoints: []string{endpoint}})
	put := func(key string, size int) (storage.Revision, error) {
		return s.Commit(t.Context(), storage.Txn{Then: []storage.Op{{Key: key, Value: make([]byte, size)}}})
	}
	first, err := put("/first", 10)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err = put("/a", 500_000); err != nil {
			break
		}
	}
	if !errors.Is(err, storage.ErrFull) || !strings.Contains(err.Error(), "etcdserver: mvcc: database space exceeded") {
		t.Fatalf("filling: %v, want %v", err, storage.ErrFull)
	}
	if _, err := s.Get(t.Context(), "/first"); err != nil {
		t.Errorf("reading from a full store: %v", err)
	}
	if _, err := s.Now(t.Context()); err != nil {
		t.Errorf("the revision of a full store: %v", err)
	}
	changes := make(chan storage.Change, 1000)
	go s.Watch(t.Context(), "/", first, func(b storage.Batch) error {
		for _, c := range b.Changes {
			changes <- c
		}
		return nil
	})
	if c := <-changes; c.Key != "/a" {
		t.Errorf("watched %s", c.Key)
	}
	if _, err := s.Keep(t.Context(), "/kept", []byte("x"), time.Minute); !errors.Is(err, storage.ErrFull) {
		t.Errorf("keep: %v", err)
	}
	if _, err := s.Commit(t.Context(), storage.Txn{Then: []storage.Op{{Key: "/a"}}}); err != nil {
		t.Errorf("deleting in a full store: %v", err)
	}

	// What an operator does: etcdctl compact, defrag, alarm disarm.
	operator, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	defer operator.Close()
	now, _ := s.Now(t.Context())
	if _, err := operator.Compact(t.Context(), int64(now), clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	if _, err := operator.Defragment(t.Context(), endpoint); err != nil {
		t.Fatal(err)
	}
	if _, err := put("/b", 10); !errors.Is(err, storage.ErrFull) {
		t.Errorf("before the alarm is disarmed: %v", err)
	}
	if _, err := operator.AlarmDisarm(t.Context(), &clientv3.AlarmMember{}); err != nil {
		t.Fatal(err)
	}
	if _, err := put("/b", 500_000); err != nil {
		t.Errorf("after there is room again: %v", err)
	}
	if size, err := s.Size(t.Context()); err != nil || size <= 0 || size > 4<<20 {
		t.Errorf("size %d, %v", size, err)
	}
}

// TestErrors: what etcd says means one thing, whether it comes from this process or from elsewhere.
func TestErrors(t *testing.T) {
	check := func(err, read, write error) {
		t.Helper()
		if got := readError(err); !errors.Is(got, read) || !strings.Contains(got.Error(), rpctypes.ErrorDesc(err)) {
			t.Errorf("reading, %v means %v, want %v", err, got, read)
		}
		if got := writeError(err); !errors.Is(got, write) {
			t.Errorf("writing, %v means %v, want %v", err, got, write)
		}
	}
	for _, err := range []error{servererrors.ErrNoLeader, rpctypes.ErrGRPCNoLeader, servererrors.ErrNotLeader, rpctypes.ErrGRPCNotLeader} {
		check(err, storage.ErrNoLeader, storage.ErrNoLeader)
	}
	for _, err := range []error{
		servererrors.ErrLeaderChanged, rpctypes.ErrGRPCLeaderChanged, servererrors.ErrTimeout, rpctypes.ErrGRPCTimeout,
		servererrors.ErrTimeoutDueToLeaderFail, rpctypes.ErrGRPCTimeoutDueToLeaderFail, rpctypes.ErrGRPCTimeoutDueToConnectionLost,
		servererrors.ErrStopped, rpctypes.ErrGRPCStopped, rpctypes.ErrGRPCUnhealthy, status.Error(codes.Unavailable, "connection refused"),
	} {
		check(err, storage.ErrNoLeader, storage.ErrUnknown) // it may have been done
	}
	for _, err := range []error{servererrors.ErrTooManyRequests, rpctypes.ErrGRPCRequestTooManyRequests} {
		check(err, storage.ErrBusy, storage.ErrBusy)
	}
	for _, err := range []error{servererrors.ErrNoSpace, rpctypes.ErrGRPCNoSpace} {
		check(err, storage.ErrFull, storage.ErrFull)
	}
	for _, err := range []error{servererrors.ErrRequestTooLarge, rpctypes.ErrGRPCRequestTooLarge, status.Error(codes.ResourceExhausted, "grpc: received message larger than max")} {
		check(err, storage.ErrTooLarge, storage.ErrTooLarge)
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
