package server

import (
	"runtime"
	"runtime/metrics"
	"sync"
	"time"
)

// A server that was busy keeps memory that it no longer needs: the collector lets the heap grow to twice what is reachable, and pages of
// files stay that were read once. So memory is given back when the collector, which runs the more often the more there is to
// do, has not run for a while. Nothing runs while nothing happens: each collection starts the clock.

const (
	quietAfter     = 30 * time.Second // since the last collection
	worthGivenBack = 16 << 20         // bytes
)

// giver gives memory back.
type giver struct {
	quiet time.Duration
	trim  func()
	mu    struct {
		sync.Mutex
		timer *time.Timer
		ended bool
	}
}

// giveBack begins to give memory back, for the first time after a while.
func giveBack(first, quiet time.Duration, trim func()) *giver {
	g := &giver{quiet: quiet, trim: trim}
	g.mu.timer = time.AfterFunc(first, func() {
		g.follow() // first, so that no collection is missed
		trim()
	})
	return g
}

// sentinel is unreachable from the start, so that its cleanup tells of the next collection.
type sentinel struct{ _ *sentinel }

func (g *giver) follow() {
	runtime.AddCleanup(new(sentinel), (*giver).collected, g)
}

// collected starts the clock again.
func (g *giver) collected() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.ended {
		return
	}
	g.mu.timer.Stop()
	g.mu.timer = time.AfterFunc(g.quiet, func() {
		if spare() > worthGivenBack {
			g.trim()
		}
	})
	g.follow()
}

func (g *giver) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.ended = true
	g.mu.timer.Stop()
}

// spare is how much memory the heap has beyond what the last collection found reachable.
func spare() int64 {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/unused:bytes"},
	}
	metrics.Read(samples)
	var held uint64
	for _, s := range samples[1:] {
		held += s.Value.Uint64()
	}
	return int64(held) - int64(samples[0].Value.Uint64())
}
