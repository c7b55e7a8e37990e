package robust_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// faults does to the processes what happens to them.
type faults struct {
	t       *testing.T
	cluster *cluster
	history *history
	dice    *rand.Rand
	counts  map[string]int
}

func newFaults(t *testing.T, c *cluster, h *history, dice *rand.Rand) *faults {
	return &faults{t: t, cluster: c, history: h, dice: dice, counts: map[string]int{}}
}

// run makes one fault after the other, with pauses in which all is well, until ctx is done.
func (f *faults) run(ctx context.Context) {
	for f.pause(ctx, 300, 1500) {
		i := f.dice.IntN(len(f.cluster.servers))
		server, link := f.cluster.servers[i], f.cluster.links[i]
		switch n := f.dice.IntN(100); {
		case n < 22:
			f.count("server killed")
			server.kill()
			f.pause(ctx, 0, 500)
			f.restart(server)
		case n < 37:
			f.count("server paused")
			server.signal(syscall.SIGSTOP)
			f.pause(ctx, 100, 3000)
			server.signal(syscall.SIGCONT)
		case n < 50:
			f.count("etcd killed")
			f.cluster.etcd.kill()
			f.pause(ctx, 0, 500)
			f.restart(f.cluster.etcd)
		case n < 62:
			f.count("etcd paused")
			f.cluster.etcd.signal(syscall.SIGSTOP)
			f.pause(ctx, 100, 3000)
			f.cluster.etcd.signal(syscall.SIGCONT)
		case n < 72:
			f.count("connections cut")
			link.cut()
		case n < 82:
			f.count("network silent")
			heard := link.silence()
			f.pause(ctx, 100, 4000)
			heard()
		case n < 90:
			f.count("defragmented")
			f.defragment(ctx)
		default:
			f.count("compacted")
			f.compact(ctx)
		}
	}
}

// pause waits some milliseconds; it reports whether the run goes on.
func (f *faults) pause(ctx context.Context, least, most int) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(time.Duration(least+f.dice.IntN(most-least)) * time.Millisecond):
		return true
	}
}

func (f *faults) restart(p *process) {
	if err := p.start(); err != nil {
		f.t.Errorf("restart %s: %v", p.name, err)
	}
}

// compact forgets etcd's history up to what is recorded.
func (f *faults) compact(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	at := f.history.revision()
	_, err := f.cluster.client.Compact(ctx, at)
	if err != nil && !strings.Contains(err.Error(), "compacted") && ctx.Err() == nil {
		f.t.Logf("compact: %v", err)
	}
}

// defragment rewrites etcd's file, while which it answers nobody.
func (f *faults) defragment(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := f.cluster.client.Defragment(ctx, f.cluster.etcdURL); err != nil && ctx.Err() == nil {
		f.t.Logf("defragment: %v", err)
	}
}

// heal makes everything well again.
func (f *faults) heal() {
	for _, p := range append([]*process{f.cluster.etcd}, f.cluster.servers...) {
		p.signal(syscall.SIGCONT)
		if err := p.ready(); err != nil {
			f.t.Fatal(err)
		}
	}
}

func (f *faults) count(what string) { f.counts[what]++ }

func (f *faults) summary() string {
	var all []string
	for what, n := range f.counts {
		all = append(all, fmt.Sprintf("%s %d×", what, n))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
