package storagetest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/storage"
)

func commit(t *testing.T, s storage.Store, txn storage.Txn) storage.Revision {
	t.Helper()
	rev, err := s.Commit(t.Context(), txn)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func put(t *testing.T, s storage.Store, key, value string) storage.Revision {
	t.Helper()
	return commit(t, s, storage.Txn{Then: []storage.Op{{Key: key, Value: []byte(value)}}})
}

func remove(t *testing.T, s storage.Store, key string) storage.Revision {
	t.Helper()
	return commit(t, s, storage.Txn{Then: []storage.Op{{Key: key}}})
}

func get(t *testing.T, s storage.Store, key string) storage.Entry {
	t.Helper()
	e, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func list(t *testing.T, s storage.Store, prefix string, opts storage.ListOptions) storage.Page {
	t.Helper()
	page, err := s.List(t.Context(), prefix, opts)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

func check(t *testing.T, got, want storage.Entry) {
	t.Helper()
	if got.Key != want.Key || !bytes.Equal(got.Value, want.Value) || got.Created != want.Created || got.Modified != want.Modified {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func checkKeys(t *testing.T, page storage.Page, want ...string) {
	t.Helper()
	var got []string
	for _, e := range page.Entries {
		got = append(got, e.Key)
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %q, want %q", got, want)
	}
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
}

// watching is a Watch in a goroutine of its own.
type watching struct {
	batches chan storage.Batch
	ended   chan error
	stop    context.CancelFunc
}

func startWatch(t *testing.T, s storage.Store, prefix string, after storage.Revision) *watching {
	ctx, cancel := context.WithCancel(t.Context())
	w := &watching{batches: make(chan storage.Batch, 4096), ended: make(chan error, 1)}
	go func() {
		w.ended <- s.Watch(ctx, prefix, after, func(b storage.Batch) error {
			select {
			case w.batches <- b:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	stopped := false
	w.stop = func() {
		if !stopped {
			stopped = true
			cancel()
			<-w.ended
		}
	}
	t.Cleanup(w.stop)
	return w
}

// next returns the next batch.
func (w *watching) next(t *testing.T) storage.Batch {
	t.Helper()
	select {
	case b := <-w.batches:
		return b
	case err := <-w.ended:
		w.ended <- err
		t.Fatalf("the watch ended: %v", err)
	case <-time.After(wait):
		t.Fatal("the watch is silent")
	}
	panic("unreachable")
}

func (w *watching) within(d time.Duration) (storage.Batch, bool) {
	select {
	case b := <-w.batches:
		return b, true
	case <-time.After(d):
		return storage.Batch{}, false
	}
}
