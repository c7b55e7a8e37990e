package robust_test

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// change is one revision of an object, as etcd has it.
type change struct {
	Revision int64
	Name     string
	Value    string // "" deleted
	Created  bool
}

// history is the truth: every change of the objects, read from etcd past the servers.
type history struct {
	mu  sync.Mutex
	all []change
	at  int64 // everything up to this revision is in all
}

var marker = regexp.MustCompile(`v=[0-9]+\.[0-9]+=`)

const keyPrefix = "/registry/configmaps/" + namespace + "/"

// record follows etcd from the beginning until the test ends.
func (c *cluster) record(t *testing.T) *history {
	t.Helper()
	h := &history{}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	t.Cleanup(func() { cancel(); done.Wait() })
	resp, err := c.client.Get(ctx, "/now")
	if err != nil {
		t.Fatal(err)
	}
	h.at = resp.Header.Revision
	done.Go(func() {
		for ctx.Err() == nil {
			stream := c.client.Watch(clientv3.WithRequireLeader(ctx), keyPrefix, clientv3.WithPrefix(), clientv3.WithRev(h.revision()+1), clientv3.WithProgressNotify())
			for r := range stream {
				if r.Err() != nil {
					break
				}
				h.add(r)
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond): // etcd is away
			}
		}
	})
	return h
}

func (h *history) add(r clientv3.WatchResponse) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range r.Events {
		c := change{Revision: e.Kv.ModRevision, Name: strings.TrimPrefix(string(e.Kv.Key), keyPrefix), Created: e.IsCreate()}
		if e.Type != clientv3.EventTypeDelete {
			c.Value = string(marker.Find(e.Kv.Value))
		}
		if c.Revision > h.at {
			h.all = append(h.all, c)
		}
	}
	h.at = max(h.at, r.Header.Revision)
}

func (h *history) revision() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at
}

func (h *history) events() []change {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.all)
}

// wait returns when everything up to a revision is recorded.
func (h *history) wait(t *testing.T, revision int64) {
	t.Helper()
	end := time.Now().Add(startWait)
	for h.revision() < revision {
		if time.Now().After(end) {
			t.Fatalf("the recording is at revision %d, not at %d", h.revision(), revision)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// state is what the objects are at a revision.
func state(events []change, revision int64) map[string]change {
	out := map[string]change{}
	for _, e := range events {
		if e.Revision > revision {
			break
		}
		if out[e.Name] = e; e.Value == "" {
			delete(out, e.Name)
		}
	}
	return out
}
