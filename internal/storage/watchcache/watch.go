package watchcache

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/timonel/timonel/internal/storage"
)

// EventType is what an event means to a watcher.
type EventType uint8

const (
	Added EventType = iota
	Modified
	Deleted
)

func (t EventType) String() string {
	return [...]string{"ADDED", "MODIFIED", "DELETED"}[t]
}

// Event is a change as one watcher sees it.
type Event struct {
	Type EventType

	// Version is the object after the change; of a deletion, or when the object left
	// what the watcher chose, its last matching state with the revision of the change.
	Version *Version

	// Shared is the same for all watchers that see this event with this type: the
	// place for its encoded frames.
	Shared *Slot
}

// Batch is some events in order.
type Batch struct {
	Events   []Event
	Revision storage.Revision // up to here there is nothing else for this watcher
}

// maxBatch bounds the events that Next returns at once.
const maxBatch = 128

// Watcher follows a view. While nothing happens that it wants, it is a cursor and a
// place among the wakers. Its methods are for one goroutine, except Close.
//
// Invariant: every event that matches and is at or after the cursor is either noted in
// pending, by its number or an earlier one, or more is set, or the view has not come to waking for it yet.
// So with neither, there is nothing to look for, however far the history has moved on.
type Watcher struct {
	view       *View
	matcher    matcher
	demand     demand
	whole      bool // the demand is all of the query
	place      int  // in its stand; guarded by wakers.mu
	generation uint64
	after      storage.Revision // events up to here are not wanted

	pending atomic.Uint64 // 1 + number of the first matching event since the last look; 0: none
	ready   chan struct{} // has one element after pending was set
	closed  atomic.Bool

	cursor uint64           // number of the next event to look at
	more   bool             // there are events from the cursor on that were not looked at
	seen   storage.Revision // up to here everything was returned
	events []Event          // reused
}

// Watch follows what the query chooses, from after the revision on; After and
// Limit of the query do not count. ErrExpired if the history does not reach back so far. A revision in
// the future is waited for.
func (v *View) Watch(q Query, after storage.Revision) (*Watcher, error) {
	w := &Watcher{view: v, matcher: q.matcher(), after: after, seen: after, ready: make(chan struct{}, 1)}
	w.demand, w.whole = v.wakers.demandOf(&q, &w.matcher, &v.collection)
	w.generation = v.generation.Load()
	v.wakers.add(w) // before the look at the history: an event comes either here or there
	head := v.history.head.Load()
	dir := v.history.dir.Load()
	if after < dir.floor || v.generation.Load() != w.generation || v.dropped.Load() {
		v.wakers.remove(w)
		w.closed.Store(true)
		if v.dropped.Load() {
			return nil, ErrDropped
		}
		return nil, fmt.Errorf("watch after revision %d, history begins at %d: %w", after, dir.floor, ErrExpired)
	}
	w.cursor = dir.after(after, head)
	w.more = w.cursor < head
	return w, nil
}

// Next waits for events and returns them, in order, with the revision up to
// which there is nothing else. The slice is valid until the next call.
//
// When ctx ends first, the error is that of ctx, and the batch still says the
// revision: the moment to send a bookmark. ErrExpired: the watcher has fallen behind the
// history, or the history is lost. ErrDropped: the resource is gone.
func (w *Watcher) Next(ctx context.Context) (Batch, error) {
	for {
		b, err := w.Poll()
		if err != nil || len(b.Events) > 0 {
			return b, err
		}
		select {
		case <-w.ready:
		case <-ctx.Done():
			if b, err = w.Poll(); err != nil || len(b.Events) > 0 {
				return b, err
			}
			return b, ctx.Err()
		}
	}
}

// Wake returns a channel that has an element when Poll may have something new. A caller that waits
// for other things as well selects on it and calls Poll until that returns no events.
func (w *Watcher) Wake() <-chan struct{} { return w.ready }

// Poll is Next without waiting; it may return no events.
func (w *Watcher) Poll() (Batch, error) {
	v := w.view
	if v.dropped.Load() {
		return Batch{}, ErrDropped
	}
	// In this order: what matches up to now was pending before it was swapped out.
	now := v.cache.Revision()
	pending := w.pending.Swap(0)
	if v.generation.Load() != w.generation {
		return Batch{}, fmt.Errorf("the history was lost: %w", ErrExpired)
	}
	if !w.more {
		if pending == 0 {
			w.seen = max(w.seen, now)
			if cap(w.events) > smallBatch {
				w.events = nil
			}
			return Batch{Revision: w.seen}, nil
		}
		w.cursor = max(w.cursor, pending-1)
	}
	head := v.history.head.Load()
	dir := v.history.dir.Load()
	if w.cursor < dir.first {
		return Batch{}, fmt.Errorf("fell behind: %w", ErrExpired)
	}
	clear(w.events)
	w.events = w.events[:0]
	for w.cursor < head {
		i := dir.segment(w.cursor)
		s := dir.segments[i]
		records := s.records[w.cursor-s.first : min(uint64(len(s.records)), head-s.first)]
		for n := range records {
			r := &records[n]
			if len(w.events) == maxBatch {
				w.more = true
				w.seen = max(w.seen, r.revision-1)
				return Batch{Events: w.events, Revision: w.seen}, nil
			}
			if r.revision > w.after {
				w.look(r)
				w.seen = max(w.seen, r.revision-1)
			}
			w.cursor++
		}
	}
	w.more = false
	w.seen = max(w.seen, now)
	if head > dir.first {
		if last := dir.at(head - 1); last.revision > w.seen {
			w.seen = last.revision
		}
	}
	return Batch{Events: w.events, Revision: w.seen}, nil
}

// smallBatch is how many events an idle watcher keeps room for.
const smallBatch = 4

// look adds the record's event if there is one for this watcher.
func (w *Watcher) look(r *record) {
	was := r.prev != nil && w.matcher.match(r.prev)
	is := r.next != nil && w.matcher.match(r.next)
	switch {
	case is && was:
		w.events = append(w.events, Event{Modified, r.next, &r.shared[Modified]})
	case is:
		w.events = append(w.events, Event{Added, r.next, &r.shared[Added]})
	case was:
		w.events = append(w.events, Event{Deleted, r.last(&w.view.collection), &r.shared[Deleted]})
	}
}

// last returns the last state of the object, made once for all watchers.
func (r *record) last(c *Collection) *Version {
	if v := r.gone.Load(); v != nil {
		return v
	}
	v := c.last(r.prev, r.revision)
	if r.gone.CompareAndSwap(nil, v) {
		return v
	}
	return r.gone.Load()
}

// signal makes Next look.
func (w *Watcher) signal() {
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

// Close takes the watcher off. It may be called more than once.
func (w *Watcher) Close() {
	if w.closed.CompareAndSwap(false, true) {
		w.view.wakers.remove(w)
	}
}
