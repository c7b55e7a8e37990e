package controller

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const (
	retryFirst = 20 * time.Millisecond
	retryMost  = 30 * time.Second
)

// queue is a set of keys to work on. A key is worked on by one worker at a time; adding it meanwhile makes it
// come again afterwards. Keys that wait for a time have a timer each, so an idle queue has neither
// goroutine nor ticker.
type queue struct {
	name string
	log  *slog.Logger

	mu struct {
		sync.Mutex
		order    []string
		wanted   map[string]bool // in order, or to come again when its worker is done
		active   map[string]bool
		later    map[string]*delayed
		failures map[string]int
		closed   bool
	}
	some *sync.Cond
}

// delayed is a key that comes at a time.
type delayed struct {
	at    time.Time
	timer *time.Timer
}

func newQueue(name string, log *slog.Logger) *queue {
	q := &queue{name: name, log: log}
	q.mu.wanted, q.mu.active = map[string]bool{}, map[string]bool{}
	q.mu.later, q.mu.failures = map[string]*delayed{}, map[string]int{}
	q.some = sync.NewCond(&q.mu)
	return q
}

// Add makes a key come now.
func (q *queue) Add(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.add(key)
}

func (q *queue) add(key string) {
	if q.mu.closed || q.mu.wanted[key] {
		return
	}
	q.mu.wanted[key] = true
	if !q.mu.active[key] {
		q.mu.order = append(q.mu.order, key)
		q.some.Signal()
	}
}

// AddAfter makes a key come after a while; of several times the earliest counts.
func (q *queue) AddAfter(key string, after time.Duration) {
	if after <= 0 {
		q.Add(key)
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.closed {
		return
	}
	at := time.Now().Add(after)
	if d := q.mu.later[key]; d != nil {
		if !at.Before(d.at) {
			return
		}
		d.timer.Stop()
	}
	d := &delayed{at: at}
	d.timer = time.AfterFunc(after, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.mu.later[key] == d {
			delete(q.mu.later, key)
			q.add(key)
		}
	})
	q.mu.later[key] = d
}

// AddGrowing makes a key come after a while that doubles each time, from first to most, until the key is
// done without error and without another AddGrowing.
func (q *queue) AddGrowing(key string, first, most time.Duration) {
	q.mu.Lock()
	n := q.mu.failures[key]
	q.mu.failures[key] = n + 1
	q.mu.Unlock()
	q.AddAfter(key, min(first<<min(n, 20), most))
}

// get waits for a key and takes it. It returns false when the queue is closed.
func (q *queue) get() (string, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.mu.order) == 0 {
		if q.mu.closed {
			return "", false
		}
		q.some.Wait()
	}
	if q.mu.closed {
		return "", false
	}
	key := q.mu.order[0]
	if q.mu.order = q.mu.order[1:]; len(q.mu.order) == 0 {
		q.mu.order = nil // let go of what a burst took
	}
	delete(q.mu.wanted, key)
	q.mu.active[key] = true
	return key, true
}

func (q *queue) done(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.mu.active, key)
	if q.mu.wanted[key] {
		q.mu.order = append(q.mu.order, key)
		q.some.Signal()
	}
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.closed = true
	for _, d := range q.mu.later {
		d.timer.Stop()
	}
	q.mu.later = nil
	q.some.Broadcast()
}

// run works on keys until the queue is closed.
func (q *queue) run(ctx context.Context, sync func(ctx context.Context, key string) error) {
	for {
		key, ok := q.get()
		if !ok {
			return
		}
		q.once(ctx, key, sync)
	}
}

func (q *queue) once(ctx context.Context, key string, sync func(ctx context.Context, key string) error) {
	defer q.done(key)
	q.mu.Lock()
	before := q.mu.failures[key]
	q.mu.Unlock()
	err := fenced(ctx, key, sync)
	switch {
	case ctx.Err() != nil:
	case err == nil:
		q.mu.Lock()
		if q.mu.failures[key] == before { // it did not ask for more time
			delete(q.mu.failures, key)
		}
		q.mu.Unlock()
	default:
		if apierrors.IsConflict(err) {
			q.log.Debug("to be tried again", "controller", q.name, "key", key, "error", err)
		} else {
			q.log.Info("to be tried again", "controller", q.name, "key", key, "error", err)
		}
		q.AddGrowing(key, retryFirst, retryMost)
	}
}

// fenced turns a panic, which is our bug, into an error: it costs one key, not the process, which may be the API server's too.
func fenced(ctx context.Context, key string, sync func(ctx context.Context, key string) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return sync(ctx, key)
}
