package watchcache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/etcd"
)

// TestServersShareAnEtcd runs two caches on one real etcd, as two servers would have them, while
// clients of both write and read, and etcd is restarted under them. It checks what
// clients rely on:
//
//	Fresh      a consistent read through one server shows what was acknowledged by the other
//	Monotonic  what a client reads never goes back, whichever server it asks
//	Reliable   each watcher of a cache is told every change once, in order; all are told the same
//	Durable    in the end both show what etcd has, and every acknowledged write is in it
func TestServersShareAnEtcd(t *testing.T) {
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	dir, endpoint := t.TempDir(), "unix://"+filepath.Join(t.TempDir(), "etcd.sock")
	serve := func() *etcd.Store {
		s, err := etcd.Embedded(t.Context(), etcd.EmbeddedConfig{Dir: dir, Listen: []string{endpoint}, Compaction: -1, Log: quiet})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	server := serve()
	defer func() { server.Close() }()

	type node struct {
		store storage.Store
		cache *Cache
		view  *View
		told  []string // by its watcher
		last  storage.Revision
	}
	ctx, cancel := context.WithCancel(t.Context())
	var background sync.WaitGroup
	nodes := make([]*node, 2)
	for i := range nodes {
		store, err := etcd.Dial(t.Context(), etcd.Config{Endpoints: []string{endpoint}, Compaction: -1, Log: quiet})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		n := &node{store: store, cache: New(store, prefix, Options{Log: quiet})}
		n.view = n.cache.Serve(widgets(pods))
		background.Go(func() { n.cache.Run(ctx) })
		<-n.cache.Ready()
		nodes[i] = n
	}
	start := max(nodes[0].cache.Revision(), nodes[1].cache.Revision())
	for _, n := range nodes {
		w, err := n.view.Watch(Query{}, start)
		if err != nil {
			t.Fatal(err)
		}
		background.Go(func() {
			defer w.Close()
			for {
				b, err := w.Next(ctx)
				if err != nil {
					return
				}
				for _, e := range b.Events {
					n.told = append(n.told, describe(e))
					if e.Version.Revision <= n.last {
						t.Errorf("revision %d after %d", e.Version.Revision, n.last)
					}
					n.last = e.Version.Revision
				}
			}
		})
	}

	// Clients: each owns some keys, so that it knows what it should read.
	const clients, steps = 6, 60
	var working sync.WaitGroup
	restart := make(chan struct{})
	var once sync.Once
	for i := range clients {
		working.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			newest := storage.Revision(0)
			for step := 0; step < steps; step++ {
				if i == 0 && step == steps/2 {
					once.Do(func() { close(restart) })
				}
				key := fmt.Sprintf("a/p%d-%d", i, r.IntN(4))
				write := nodes[r.IntN(2)]
				op := put(pods+key, randomObject(r))
				if r.IntN(4) == 0 {
					op = del(pods + key)
				}
				rev, err := write.store.Commit(t.Context(), storage.Txn{Then: []storage.Op{op}})
				if err != nil {
					if !errors.Is(err, storage.ErrUnknown) && !errors.Is(err, storage.ErrNoLeader) {
						t.Errorf("commit: %v", err)
					}
					time.Sleep(20 * time.Millisecond) // etcd is being restarted
					step--
					continue
				}
				read := nodes[r.IntN(2)]
				wait, stop := context.WithTimeout(t.Context(), 20*time.Second)
				fresh, err := read.cache.Fresh(wait)
				for err != nil && wait.Err() == nil {
					fresh, err = read.cache.Fresh(wait)
				}
				stop()
				if err != nil {
					t.Errorf("fresh: %v", err)
					return
				}
				if fresh < rev {
					t.Errorf("fresh as of %d after a commit at %d", fresh, rev)
				}
				snapshot := read.view.Latest()
				if snapshot.Revision() < newest {
					t.Errorf("read %d after %d", snapshot.Revision(), newest)
				}
				newest = snapshot.Revision()
				v, exists := snapshot.Get(key)
				if exists != (op.Value != nil) || exists && v.Revision != rev {
					t.Errorf("%s, written at %d: exists %t, %+v", key, rev, exists, v)
				}
			}
		})
	}
	<-restart
	server.Close()
	server = serve()
	working.Wait()

	var want []string
	var end storage.Revision
	for i, n := range nodes {
		rev, err := n.cache.Fresh(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		page, err := n.store.List(t.Context(), pods, storage.ListOptions{At: rev})
		if err != nil {
			t.Fatal(err)
		}
		want = want[:0]
		for _, e := range page.Entries {
			want = append(want, string(stamp(e.Value, e.Modified)))
		}
		var got []string
		for _, v := range n.view.Latest().List(Query{}).Versions {
			got = append(got, string(v.Blob))
		}
		if !slices.Equal(got, want) {
			t.Errorf("server %d shows %q, etcd has %q", i, got, want)
		}
		end = max(end, rev)
	}
	time.Sleep(50 * time.Millisecond) // let the watchers' goroutines take what they were told
	cancel()
	background.Wait()
	if !slices.Equal(nodes[0].told, nodes[1].told) {
		t.Errorf("the servers told %d and %d events, which differ", len(nodes[0].told), len(nodes[1].told))
	}
	if len(nodes[0].told) < clients*steps/2 {
		t.Errorf("only %d events", len(nodes[0].told))
	}
}
