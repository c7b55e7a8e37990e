package watchcache

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/timonel/timonel/internal/storage"
)

// View is one resource: its objects now and in the recent past, and the events that
// led from one to the other.
//
// An event becomes visible in three steps: the state has it, then watchers that
// look find it in the history, then watchers it concerns are woken. When
// all views are through with a revision, the cache's own revision moves.
type View struct {
	cache      *Cache
	collection Collection

	promised   atomic.Int64 // newest revision that somebody was told of
	current    atomic.Pointer[state]
	history    history
	wakers     wakers
	generation atomic.Uint64 // grows when the history is lost, which expires all watchers
	dropped    atomic.Bool
	ready      chan struct{} // closed when loaded for the first time

	mu struct { // held by who changes the view
		sync.Mutex
		epoch  uint64
		loaded bool
		skip   storage.Revision // changes up to here are already in the state
		buffer []storage.Change // that came before the view was loaded
		lost   bool             // some that came before the view was loaded were not kept
	}
	past  past
	usage labelUsage
}

func newView(c *Cache, collection Collection) *View {
	v := &View{cache: c, collection: collection, ready: make(chan struct{})}
	v.mu.epoch = 1
	v.current.Store(newState(&collection, nil, 0, nil, 1))
	v.history.reset(0)
	v.wakers.init(&v.collection)
	return v
}

// Collection returns what the view was made of.
func (v *View) Collection() *Collection { return &v.collection }

// Ready returns a channel that is closed when the view has been loaded.
func (v *View) Ready() <-chan struct{} { return v.ready }

// Dropped reports whether the resource is no longer served: the view shows what was there then, if it was loaded.
func (v *View) Dropped() bool { return v.dropped.Load() }

// Get returns the newest version of the object at the key, which is "namespace/name" or "name".
func (v *View) Get(key string) (*Version, bool) {
	version := v.current.Load().objects.get("", key)
	return version, version != nil
}

// Len returns how many objects there are now.
func (v *View) Len() int { return v.current.Load().objects.len() }

// Latest returns the view as it is now.
func (v *View) Latest() Snapshot {
	// In this order: the state then has everything up to the revision, and what it has beyond is whole.
	now := v.cache.Revision()
	s := v.current.Load()
	return Snapshot{view: v, state: s, revision: max(now, s.revision)}
}

// At returns the view exactly as it was at the revision: ErrExpired if that is
// out of the history, ErrFuture if the cache has not come to it yet.
func (v *View) At(revision storage.Revision) (Snapshot, error) {
	latest := v.Latest()
	if revision > latest.revision {
		return Snapshot{}, fmt.Errorf("%w: %d, current is %d", ErrFuture, revision, latest.revision)
	}
	if revision >= latest.state.revision {
		return Snapshot{view: v, state: latest.state, revision: revision}, nil
	}
	if s := v.past.get(revision); s != nil {
		return Snapshot{view: v, state: s, revision: revision}, nil
	}
	head := v.history.head.Load()
	dir := v.history.dir.Load()
	if revision < dir.floor {
		return Snapshot{}, ErrExpired
	}
	end := dir.after(revision, head)
	if end == head {
		// Nothing after the revision, and yet the state above is later: a reset came between.
		return Snapshot{}, ErrExpired
	}
	seg := dir.segments[dir.segment(end)]
	s := seg.base
	if end > seg.first {
		e := s.begin(&v.collection, ^uint64(0)) // an epoch of its own: it shares no node that may be changed
		for i := range end - seg.first {
			r := &seg.records[i]
			e.replace(r.prev, r.next)
			e.revision = r.revision
		}
		s = &e.state
	}
	v.past.put(revision, s)
	return Snapshot{view: v, state: s, revision: revision}, nil
}

// past remembers states that were made for an older revision: the pages of
// a list ask for the same one again and again.
type past struct {
	sync.Mutex
	next    int
	entries [pastStates]struct {
		revision storage.Revision
		state    *state
	}
}

const pastStates = 8

func (p *past) get(revision storage.Revision) *state {
	p.Lock()
	defer p.Unlock()
	for i := range p.entries {
		if e := &p.entries[i]; e.state != nil && e.revision == revision {
			return e.state
		}
	}
	return nil
}

func (p *past) put(revision storage.Revision, s *state) {
	p.Lock()
	defer p.Unlock()
	p.entries[p.next].revision, p.entries[p.next].state = revision, s
	p.next = (p.next + 1) % pastStates
}

// forget drops the states before the floor.
func (p *past) forget(floor storage.Revision) {
	p.Lock()
	defer p.Unlock()
	for i := range p.entries {
		if e := &p.entries[i]; e.state != nil && e.revision < floor {
			e.state = nil
		}
	}
}

// maxBuffer bounds the changes that are kept while a view loads.
const maxBuffer = maxEvents

// apply makes changes, which are in order and whole revisions, visible.
func (v *View) apply(changes []storage.Change, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.mu.loaded {
		if len(v.mu.buffer)+len(changes) > maxBuffer {
			v.mu.buffer, v.mu.lost = nil, true
		} else {
			v.mu.buffer = append(v.mu.buffer, changes...)
		}
		return
	}
	v.applyLocked(changes, now)
}

func (v *View) applyLocked(changes []storage.Change, now time.Time) {
	v.mu.epoch++
	base := v.current.Load()
	e := base.begin(&v.collection, v.mu.epoch)
	first := v.history.head.Load()
	number := first
	for i := range changes {
		c := &changes[i]
		if c.Modified <= v.mu.skip {
			continue
		}
		key := c.Key[len(v.collection.Prefix):]
		prev := e.objects.get("", key)
		var next *Version
		if !c.Deleted {
			next = v.collection.version(&c.Entry, key, prev)
		} else if prev == nil {
			continue
		}
		v.history.append(v.baseFor(base, e, number, first), number, c.Modified, prev, next, now)
		e.replace(prev, next)
		e.revision = c.Modified
		number++
		e.next = number
	}
	if number == first {
		return
	}
	v.current.Store(&e.state)
	v.history.head.Store(number)
	v.wakers.wake(&v.history, first, number)
	v.cache.trimLater(v, now)
}

// baseFor returns the state before the event of the number. In the middle of an edit that is a
// copy, and the edit goes on in a new epoch so as to leave it alone.
func (v *View) baseFor(base *state, e *edit, number, first uint64) *state {
	if number == first {
		return base
	}
	if v.history.open(number) != nil {
		return nil // not needed: the event goes into a segment that there is
	}
	s := e.state
	s.fields = slices.Clone(s.fields)
	s.labels = slices.Clone(s.labels)
	v.mu.epoch++
	e.epoch = v.mu.epoch
	return &s
}

// trim forgets what is too old; see history.trim.
func (v *View) trim(now time.Time) (again time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.trimLocked(now)
}

func (v *View) trimLocked(now time.Time) (again time.Time) {
	before := v.history.dir.Load()
	again = v.history.trim(now, v.cache.options.History)
	if dir := v.history.dir.Load(); dir != before {
		v.past.forget(dir.floor)
	}
	return again
}

// install makes the versions, which are in order and as of the revision, the whole of the
// view, and expires what there was. It says false if changes that came meanwhile were lost.
// With first, it does nothing if the view has been loaded already.
func (v *View) install(versions []*Version, revision storage.Revision, first bool, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if first && v.mu.loaded {
		return true
	}
	if v.mu.lost {
		v.mu.lost = false
		return false
	}
	v.mu.epoch++
	old := v.current.Load()
	labels := make([]string, len(old.labels))
	for i := range old.labels {
		labels[i] = old.labels[i].label
	}
	s := newState(&v.collection, versions, revision, labels, v.mu.epoch)
	s.next = v.history.head.Load()
	v.replaceLocked(s, revision)
	v.mu.skip = revision
	if buffer := v.mu.buffer; len(buffer) > 0 {
		v.mu.buffer = nil
		v.applyLocked(buffer, now)
	}
	if !v.mu.loaded {
		v.mu.loaded = true
		close(v.ready)
	}
	return true
}

// replaceLocked makes a state current that no events lead to. Watchers expire.
func (v *View) replaceLocked(s *state, floor storage.Revision) {
	v.current.Store(s)
	v.history.reset(floor)
	v.past.forget(floor + 1)
	v.generation.Add(1)
	v.wakers.wakeAll()
}
