package watchcache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/storagetest"
)

// object is what the tests store.
type object struct {
	Labels map[string]string `json:"l,omitempty"`
	Fields []string          `json:"f,omitempty"`
	Data   string            `json:"d,omitempty"`
}

func (o object) bytes() []byte {
	b, err := json.Marshal(o)
	if err != nil {
		panic(err)
	}
	return b
}

// widgets is a namespaced resource with an indexed field "node" and another one "phase".
func widgets(prefix string) Collection {
	return Collection{
		Prefix: prefix, Namespaced: true,
		Fields: []string{"node", "phase"}, Indexed: []bool{true, false},
		Describe: func(key string, value []byte, revision storage.Revision) Description {
			var o object
			if err := json.Unmarshal(value, &o); err != nil {
				return Description{Err: fmt.Errorf("%s: %w", key, err)}
			}
			return Description{UID: types.UID("uid of " + key), Labels: LabelsOf(o.Labels), Fields: o.Fields, Blob: stamp(value, revision)}
		},
		Restamp: func(blob []byte, revision storage.Revision) []byte {
			_, value, _ := bytes.Cut(blob, []byte("|"))
			return stamp(value, revision)
		},
	}
}

// stamp is the blob of a value: its revision, a bar and the value.
func stamp(value []byte, revision storage.Revision) []byte {
	return fmt.Appendf(nil, "%d|%s", revision, value)
}

const (
	prefix = "/registry/"
	pods   = prefix + "pods/"
	secret = prefix + "secrets/"
	things = prefix + "example.com/things/"
)

// start runs a cache of the store in the test's synctest bubble and waits until it is loaded.
func start(t *testing.T, store storage.Store, options Options, prefixes ...string) (*Cache, []*View) {
	t.Helper()
	options.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	c := New(store, prefix, options)
	var views []*View
	for _, p := range prefixes {
		views = append(views, c.Serve(widgets(p)))
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := c.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v", err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	<-c.Ready()
	return c, views
}

func commit(t *testing.T, s storage.Store, ops ...storage.Op) storage.Revision {
	t.Helper()
	rev, err := s.Commit(context.Background(), storage.Txn{Then: ops})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func put(key string, o object) storage.Op { return storage.Op{Key: key, Value: o.bytes()} }
func del(key string) storage.Op           { return storage.Op{Key: key} }

// bubble runs the test in a synctest bubble with an empty store.
func bubble(t *testing.T, test func(t *testing.T, store *storagetest.Memory)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, storagetest.NewMemory()) })
}

// watchQuery begins a watch that is closed with the test.
func watchQuery(t *testing.T, v *View, q Query, after storage.Revision) *Watcher {
	t.Helper()
	w, err := v.Watch(q, after)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// drain returns what the watcher has to say now, one string for each event.
func drain(t *testing.T, w *Watcher) (events []string, upTo storage.Revision) {
	t.Helper()
	for {
		b, err := w.Poll()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range b.Events {
			events = append(events, describe(e))
		}
		upTo = b.Revision
		if len(b.Events) == 0 {
			return events, upTo
		}
	}
}

func describe(e Event) string {
	return fmt.Sprintf("%s %s %s", e.Type, e.Version.Key(), e.Version.Blob)
}

func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
