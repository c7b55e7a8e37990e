package watchcache

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/timonel/timonel/internal/storage"
)

// history is a view's recent events, the ring that watchers read. It has one
// writer; readers take no lock: they see the events before head, which the
// writer moves after it has written them.
//
// Events are numbered; the number of an event is its place in the history for
// good. They are kept in segments. Each segment also keeps the state before its first event, so
// any state in the history is at most one segment of replay away.
type history struct {
	head atomic.Uint64 // number of the next event
	dir  atomic.Pointer[directory]

	size  int   // events kept
	bytes int64 // of the versions that were replaced, about
}

// directory lists the segments. It is replaced, never changed.
type directory struct {
	first    uint64           // number of the oldest event kept
	floor    storage.Revision // every event after this revision is kept
	segments []*segment
}

type segment struct {
	first   uint64
	base    *state    // before the first event
	last    time.Time // of the newest event; the writer's
	bytes   int64     // the writer's
	records []record  // made at full length; those before head are written
}

// record is an event as it is kept: what it replaced and what it made.
type record struct {
	revision   storage.Revision
	prev, next *Version // nil: there was, or is, none
	gone       atomic.Pointer[Version]
	shared     [3]Slot // by EventType
}

const (
	minEvents      = 100       // kept however old they are
	maxEvents      = 102_400   // kept at most, however young
	maxEventsBytes = 256 << 20 // kept at most, of versions that were replaced
	minSegment     = 8
	slowSegment    = 256      // and no longer while few events are kept: a segment is forgotten as a whole
	maxSegment     = 2048     // bounds what is replayed for a state in the middle
	heavySegment   = 32 << 20 // bytes of replaced versions, after which a segment ends early
)

// segmentSize is how many events the next segment holds. The states before segments share little of their trees when much happens
// between them, so a long history, of a busy resource, has few of them.
func (h *history) segmentSize() int {
	return max(min(max(h.size, minSegment), slowSegment), min(h.size/8, maxSegment))
}

// reset forgets everything up to the revision.
func (h *history) reset(floor storage.Revision) {
	h.size, h.bytes = 0, 0
	h.dir.Store(&directory{first: h.head.Load(), floor: floor})
}

// append adds an event without showing it to readers; base is the state before it.
func (h *history) append(base *state, number uint64, revision storage.Revision, prev, next *Version, now time.Time) {
	s := h.open(number)
	if s == nil {
		s = h.begin(base, number)
	}
	r := &s.records[number-s.first]
	r.revision, r.prev, r.next = revision, prev, next
	h.size++
	if prev != nil {
		s.bytes += int64(len(prev.Blob))
		h.bytes += int64(len(prev.Blob))
	}
	s.last = now
}

// open returns the segment that has room for the event of the number; nil if it begins a new one.
func (h *history) open(number uint64) *segment {
	segments := h.dir.Load().segments
	if len(segments) == 0 {
		return nil
	}
	s := segments[len(segments)-1]
	if number-s.first == uint64(len(s.records)) || s.bytes > heavySegment {
		return nil
	}
	return s
}

// begin adds a segment. The one before it ends here.
func (h *history) begin(base *state, number uint64) *segment {
	dir := h.dir.Load()
	segments := slices.Clone(dir.segments)
	if n := len(segments); n > 0 {
		s := segments[n-1]
		segments[n-1] = &segment{first: s.first, base: s.base, last: s.last, bytes: s.bytes, records: s.records[:number-s.first]}
	}
	s := &segment{first: number, base: base, records: make([]record, h.segmentSize())}
	h.dir.Store(&directory{first: dir.first, floor: dir.floor, segments: append(segments, s)})
	return s
}

// trim forgets the oldest segments that are out of the window, or too many. It returns when
// there will be more to forget, if nothing else happens; zero if never.
func (h *history) trim(now time.Time, window time.Duration) (again time.Time) {
	dir := h.dir.Load()
	drop := 0
	for drop < len(dir.segments)-1 { // the last one is being written
		s := dir.segments[drop]
		left := h.size - len(s.records)
		if left < minEvents {
			break
		}
		if now.Sub(s.last) < window && h.size <= maxEvents && h.bytes <= maxEventsBytes {
			again = s.last.Add(window)
			break
		}
		h.size, h.bytes = left, h.bytes-s.bytes
		drop++
	}
	if drop > 0 {
		gone := dir.segments[drop-1]
		h.dir.Store(&directory{
			first:    dir.segments[drop].first,
			floor:    gone.records[len(gone.records)-1].revision,
			segments: slices.Clone(dir.segments[drop:]),
		})
	}
	return again
}

// at returns the record of the number, which must be before head and not before d.first.
func (d *directory) at(number uint64) *record {
	s := d.segments[d.segment(number)]
	return &s.records[number-s.first]
}

// segment returns the index of the segment that has the number.
func (d *directory) segment(number uint64) int {
	i, ok := slices.BinarySearchFunc(d.segments, number, func(s *segment, number uint64) int {
		switch {
		case s.first < number:
			return -1
		case s.first > number:
			return 1
		}
		return 0
	})
	if ok {
		return i
	}
	return i - 1
}

// after returns the number of the first event after the revision, head if there is none.
// The revision must not be before the floor.
func (d *directory) after(revision storage.Revision, head uint64) uint64 {
	lo, hi := d.first, head
	for lo < hi {
		mid := lo + (hi-lo)/2
		if d.at(mid).revision <= revision {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}
