//go:build load

// Package load puts one API server under more load than it has memory for if it were careless: thousands of watches, some of which
// are never read, and many full lists of many pods at once, under a memory limit. The server may become slower; it must
// not die, outgrow the limit, cut a list short or lose an event.
//
// The server is a process of its own, bin/timonel with embedded etcd, so that its memory can be told from the test's. Start
// reading at TestLoad.
package load

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	pods    = flag.Int("pods", 50_000, "pods to create")
	lists   = flag.Int("lists", 100, "full lists at once")
	watches = flag.Int("watches", 10_000, "watches that are read")
	stalled = flag.Int("stalled", 50, "watches of everything that are never read")
	limit   = flag.Int("limit", 2048, "memory of the server, in MiB")
	wait    = flag.Duration("wait", 20*time.Minute, "how long all lists may take")
)

const (
	nodes   = 500
	writers = 16
)

func TestLoad(t *testing.T) {
	s := startServer(t)
	began := time.Now()
	fill(t, s)
	t.Logf("%d pods after %s; %s", *pods, time.Since(began).Round(time.Second), s.memory(t))

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	revision := s.revision(t)
	for i := range *stalled {
		s.stall(t, ctx, i, revision)
	}
	var reading sync.WaitGroup
	watchers := make([]*watcher, *watches)
	for i := range watchers {
		watchers[i] = &watcher{server: s, node: i % nodes, client: s.client(i / watchesPerConnection)}
		body := watchers[i].open(t, ctx, revision)
		reading.Go(func() { watchers[i].read(body) })
	}
	t.Logf("%d watches are open, and %d that nobody reads; %s", *watches, *stalled, s.memory(t))

	writing, stopWriting := context.WithCancel(ctx)
	var changing sync.WaitGroup
	changing.Go(func() { s.change(t, writing) })
	began = time.Now()
	listAll(t, s)
	took := time.Since(began)
	stopWriting()
	changing.Wait()
	t.Logf("%d lists of %d pods in %s (%.1f GB); %s", *lists, *pods, took.Round(time.Second), float64(s.bytes.Load())/1e9, s.memory(t))

	// What is written now must reach every watch.
	began = time.Now()
	last := make([]int64, nodes)
	for node := range last {
		last[node] = s.label(t, ctx, podOn(node), "last")
	}
	for i, w := range watchers {
		if err := w.waitFor(last[w.node], began.Add(2*time.Minute)); err != nil {
			t.Errorf("watch %d: %v", i, err)
		}
	}
	t.Logf("every watch has seen the last change after %s", time.Since(began).Round(time.Millisecond))
	stop()
	reading.Wait()

	if peak := s.peak(t); peak > int64(*limit)<<20 {
		t.Errorf("the server took %d MiB, and was to stay below %d", peak>>20, *limit)
	}
	if err := s.alive(); err != nil {
		t.Error(err)
	}
}

// fill creates the pods, spread over nodes.
func fill(t *testing.T, s *server) {
	var next atomic.Int64
	var creating sync.WaitGroup
	for w := range writers {
		creating.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= *pods {
					return
				}
				if err := s.do(t.Context(), s.client(w%4), "POST", podsPath, "application/json", pod(i), nil); err != nil {
					t.Errorf("create pod %d: %v", i, err)
					return
				}
			}
		})
	}
	creating.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// listAll reads all pods many times at once, each list on a connection of its own.
func listAll(t *testing.T, s *server) {
	ctx, cancel := context.WithTimeout(t.Context(), *wait)
	defer cancel()
	var listing sync.WaitGroup
	for i := range *lists {
		listing.Go(func() {
			seen := counter{what: []byte(mark)}
			if err := s.do(ctx, newClient(), "GET", podsPath+"?timeout="+wait.String(), "", nil, &seen); err != nil {
				t.Errorf("list %d: %v", i, err)
				return
			}
			s.bytes.Add(seen.bytes)
			if seen.count != *pods || !bytes.HasSuffix(seen.tail, []byte("]}\n")) {
				t.Errorf("list %d has %d pods of %d and ends with %q", i, seen.count, *pods, seen.tail)
			}
		})
	}
	listing.Wait()
}

// counter counts a word in what is written to it, keeping nothing but the end.
type counter struct {
	what  []byte
	tail  []byte // fewer bytes than the word has
	count int
	bytes int64
}

func (c *counter) Write(p []byte) (int, error) {
	c.bytes += int64(len(p))
	edge := append(c.tail, p[:min(len(p), len(c.what)-1)]...)
	c.count += bytes.Count(edge, c.what) + bytes.Count(p, c.what)
	if len(p) < len(c.what) {
		c.tail = edge
	} else {
		c.tail = append(c.tail[:0], p...)
	}
	c.tail = c.tail[max(0, len(c.tail)-len(c.what)+1):]
	return len(p), nil
}

func TestCounter(t *testing.T) {
	text := []byte("a mark and mark, markmark; ma rk mark")
	for size := 1; size < len(text); size++ {
		c := counter{what: []byte("mark")}
		for at := 0; at < len(text); at += size {
			fmt.Fprintf(&c, "%s", text[at:min(len(text), at+size)])
		}
		if c.count != 5 || c.bytes != int64(len(text)) {
			t.Errorf("in pieces of %d: %d marks in %d bytes", size, c.count, c.bytes)
		}
	}
}
