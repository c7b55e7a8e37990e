// Package robust_test lets random clients loose on several API servers that share one etcd, while servers and etcd are killed
// (kill -9), paused (SIGSTOP), cut off, compacted and defragmented, and then checks what everybody saw against what etcd holds.
//
// Promises that are checked: writes and consistent reads are linearizable; an acknowledged write is never lost; a list is
// the state of one revision; watches are Ordered, Unique, Atomic, Reliable, Resumable and Bookmarkable (see watch_test.go).
//
// A run is made by its seed, as far as the machine's timing allows. A failing run prints the command that replays it. The package is a module of its own, so
// that its dependencies stay out of the product. Start reading at TestRobust.
package robust_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

var (
	seed     = flag.Uint64("seed", 0, "seed of the random choices; 0: a random one")
	duration = flag.Duration("duration", 20*time.Second, "how long clients work")
	servers  = flag.Int("servers", 2, "API servers")
)

const (
	writers  = 6
	watchers = 4
	objects  = 5 // names that all clients fight over
)

func TestRobust(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64N(1 << 32)
	}
	t.Logf("replay with: make robust SEED=%d DURATION=%s", *seed, *duration)
	defer func() {
		if t.Failed() {
			t.Logf("FAILED. Replay with: make robust SEED=%d DURATION=%s", *seed, *duration)
		}
	}()

	c := startCluster(t, *servers)
	h := c.record(t)
	log := &operations{start: time.Now()}

	load, stop := context.WithTimeout(t.Context(), *duration)
	defer stop()
	var clients sync.WaitGroup
	for i := range writers {
		clients.Go(func() { newClient(c, log, i, dice(uint64(i))).run(load) })
	}
	clients.Go(func() { (&pair{cluster: c, log: log, id: writers, dice: dice(writers)}).run(load) })
	watching, stopWatching := context.WithCancel(t.Context())
	defer stopWatching()
	var streams sync.WaitGroup
	watches := make([]*watcher, watchers)
	for i := range watches {
		watches[i] = newWatcher(c, dice(100+uint64(i)))
		streams.Go(func() { watches[i].run(watching) })
	}
	faults := newFaults(t, c, h, dice(200))
	faults.run(load)
	clients.Wait()

	faults.heal()
	t.Logf("%s: all is well again", time.Since(log.start).Round(time.Second))
	end := c.settle(t, log)
	h.wait(t, end)
	for _, w := range watches {
		w.waitFor(t, end)
	}
	stopWatching()
	streams.Wait()
	t.Logf("%s: everything is seen", time.Since(log.start).Round(time.Second))

	log.mu.Lock()
	all, lists := log.all, log.lists
	log.mu.Unlock()
	t.Logf("%d operations, %d revisions of the objects, faults: %s", len(all), len(h.events()), faults.summary())
	checkOperations(t, all, h)
	checkLists(t, lists, h)
	for i, w := range watches {
		t.Logf("watch %d: %d events, %d bookmarks, %d streams, %d lists", i, w.count("event"), w.count("bookmark"), w.count("open"), w.count("list"))
		for _, problem := range w.check(h) {
			t.Errorf("watch %d: %s", i, problem)
		}
	}
	if len(all) < 50 || len(h.events()) < 20 {
		t.Errorf("only %d operations and %d revisions: the run says nothing", len(all), len(h.events()))
	}
}

// dice are the random choices of one actor.
func dice(actor uint64) *rand.Rand { return rand.New(rand.NewPCG(*seed, actor)) }

func objectName(i int) string { return fmt.Sprintf("c%d", i) }
