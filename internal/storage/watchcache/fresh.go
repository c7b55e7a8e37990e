package watchcache

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/timonel/timonel/internal/storage"
)

// Wait returns when Revision is at least rev, or with the error of ctx.
func (c *Cache) Wait(ctx context.Context, rev storage.Revision) error {
	if c.Revision() >= rev {
		return nil
	}
	return c.waiters.wait(ctx, rev, c.Revision)
}

// Fresh returns when everything that was committed before it was called, through
// whichever server, is visible, and says as of which revision that is so.
func (c *Cache) Fresh(ctx context.Context) (storage.Revision, error) {
	ask := c.fresh.now
	if c.local {
		ask = c.store.Now
	}
	now, err := ask(ctx)
	if err != nil {
		return 0, err
	}
	return now, c.Wait(ctx, now)
}

// IsFresh reports whether what Fresh would wait for is visible already, as far as that can be seen without asking
// or waiting.
func (c *Cache) IsFresh(ctx context.Context) bool {
	if !c.local {
		return false
	}
	now, err := c.store.Now(ctx)
	return err == nil && c.Revision() >= now
}

// Promise notes a revision that a change of this resource was made at, before anybody is told of it.
func (v *View) Promise(rev storage.Revision) {
	for {
		promised := v.promised.Load()
		if int64(rev) <= promised || v.promised.CompareAndSwap(promised, int64(rev)) {
			return
		}
	}
}

// Promised is the newest revision that was promised.
func (v *View) Promised() storage.Revision { return storage.Revision(v.promised.Load()) }

// Told is the revision of the newest change that anybody can know of: it was promised, or the view shows it.
func (v *View) Told() storage.Revision { return max(v.Promised(), v.current.Load().revision) }

func (c *Cache) askProgress() {
	ctx, cancel := context.WithTimeout(context.Background(), progressEvery)
	defer cancel()
	c.store.Progress(ctx) // a failed question is asked again
}

// fresh asks for the store's newest revision. Callers share questions, but only
// such as are asked after they came: an answer that was already on its way may be older than what they know.
type fresh struct {
	ask func(context.Context) (storage.Revision, error)

	mu   sync.Mutex
	busy bool
	next *question // what those wait for who came while busy
}

type question struct {
	done     chan struct{}
	revision storage.Revision
	err      error
}

// askTimeout bounds a question; callers may give up sooner.
const askTimeout = 10 * time.Second

func (f *fresh) now(ctx context.Context) (storage.Revision, error) {
	f.mu.Lock()
	q := f.next
	if q == nil {
		q = &question{done: make(chan struct{})}
		if f.busy {
			f.next = q
		} else {
			f.busy = true
			go f.run(q)
		}
	}
	f.mu.Unlock()
	select {
	case <-q.done:
		return q.revision, q.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// run asks the question, and then those that came up meanwhile.
func (f *fresh) run(q *question) {
	for q != nil {
		ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
		q.revision, q.err = f.ask(ctx)
		cancel()
		close(q.done)
		f.mu.Lock()
		q, f.next = f.next, nil
		f.busy = q != nil
		f.mu.Unlock()
	}
}

const (
	progressFirst = 5 * time.Millisecond   // waited before progress is asked for: an event is probably on its way
	progressEvery = 100 * time.Millisecond // between questions
)

// waiters are those who wait for a revision. While there are any, the store is
// asked for progress: the revision they wait for may be of a write outside the prefix.
type waiters struct {
	progress func()
	count    atomic.Int32

	mu      sync.Mutex
	waiting []*waiter
	timer   *time.Timer // not nil while anyone waits
}

type waiter struct {
	revision storage.Revision
	reached  chan struct{}
}

func (ws *waiters) wait(ctx context.Context, rev storage.Revision, current func() storage.Revision) error {
	w := &waiter{revision: rev, reached: make(chan struct{})}
	ws.mu.Lock()
	ws.waiting = append(ws.waiting, w)
	ws.count.Store(int32(len(ws.waiting)))
	if ws.timer == nil {
		ws.timer = time.AfterFunc(progressFirst, ws.ask)
	}
	ws.mu.Unlock()
	defer ws.leave(w)
	if current() >= rev { // it came before we were among them
		return nil
	}
	select {
	case <-w.reached:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (ws *waiters) leave(w *waiter) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.waiting = slices.DeleteFunc(ws.waiting, func(o *waiter) bool { return o == w })
	ws.count.Store(int32(len(ws.waiting)))
	ws.stopIfNobody()
}

func (ws *waiters) stopIfNobody() {
	if len(ws.waiting) == 0 && ws.timer != nil {
		ws.timer.Stop()
		ws.timer = nil
	}
}

// ask asks for progress, and will again until nobody waits.
func (ws *waiters) ask() {
	ws.progress()
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.timer != nil {
		ws.timer.Reset(progressEvery)
	}
}

// reached lets those go who wait for the revision or an earlier one.
func (ws *waiters) reached(rev storage.Revision) {
	if ws.count.Load() == 0 {
		return
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.waiting = slices.DeleteFunc(ws.waiting, func(w *waiter) bool {
		if w.revision > rev {
			return false
		}
		close(w.reached)
		return true
	})
	ws.count.Store(int32(len(ws.waiting)))
	ws.stopIfNobody()
}
