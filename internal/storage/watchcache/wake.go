package watchcache

import (
	"sync"
)

// wakers finds the watchers that an event concerns without asking each one. A
// watcher stands in one place: under the most selective demand that its query
// makes. An event wakes what stands under the values of the object before and after it.
//
// Watchers whose demand is not all of their query are asked whether the event
// matches before they are woken: that is cheaper than to wake them for nothing.
type wakers struct {
	mu      sync.RWMutex
	indexed []bool
	count   int

	byName      map[string]*stand            // by key
	byField     []map[string]*stand          // by the value of an indexed field
	byLabel     map[string]map[string]*stand // by label and value
	byNamespace map[string]*stand
	all         stand
}

// stand is a set of watchers; each one knows its place in it.
type stand struct{ watchers []*Watcher }

func (s *stand) add(w *Watcher) {
	w.place = len(s.watchers)
	s.watchers = append(s.watchers, w)
}

func (s *stand) remove(w *Watcher) {
	last := len(s.watchers) - 1
	moved := s.watchers[last]
	s.watchers[w.place] = moved
	moved.place = w.place
	s.watchers[last] = nil
	s.watchers = s.watchers[:last]
}

func (k *wakers) init(c *Collection) { k.indexed = c.Indexed }

// demand is where a watcher stands.
type demand struct {
	kind  demandKind
	field int
	label string
	value string // key, field's or label's value, namespace
}

type demandKind int

const (
	demandAll demandKind = iota
	demandName
	demandField
	demandLabel
	demandNamespace
)

// demandOf chooses the place of a query; whole says that the query demands nothing more.
func (k *wakers) demandOf(q *Query, m *matcher, c *Collection) (d demand, whole bool) {
	if key, ok := q.point(c); ok {
		return demand{kind: demandName, value: key}, m.selector == nil && len(m.fields) == 0
	}
	for _, f := range m.fields {
		if !f.NotEqual && f.Index >= 0 && f.Index < len(k.indexed) && k.indexed[f.Index] {
			return demand{kind: demandField, field: f.Index, value: f.Value},
				m.selector == nil && len(m.fields) == 1 && m.namespace == "" && m.name == ""
		}
	}
	for i := range m.requirements {
		r := &m.requirements[i]
		if values, ok := wanted(r); ok && len(values) == 1 {
			return demand{kind: demandLabel, label: r.Key(), value: values[0]},
				len(m.requirements) == 1 && len(m.fields) == 0 && m.namespace == "" && m.name == ""
		}
	}
	if m.namespace != "" {
		return demand{kind: demandNamespace, value: m.namespace}, m.all()
	}
	return demand{}, m.all()
}

// at returns the stand of the demand; with make, one is made if there is none.
func (k *wakers) at(d demand, create bool) *stand {
	find := func(m *map[string]*stand) *stand {
		s := (*m)[d.value]
		if s == nil && create {
			if *m == nil {
				*m = make(map[string]*stand)
			}
			s = new(stand)
			(*m)[d.value] = s
		}
		return s
	}
	switch d.kind {
	case demandName:
		return find(&k.byName)
	case demandNamespace:
		return find(&k.byNamespace)
	case demandField:
		if k.byField == nil {
			k.byField = make([]map[string]*stand, len(k.indexed))
		}
		return find(&k.byField[d.field])
	case demandLabel:
		m := k.byLabel[d.label]
		s := find(&m)
		if create {
			if k.byLabel == nil {
				k.byLabel = make(map[string]map[string]*stand)
			}
			k.byLabel[d.label] = m
		}
		return s
	}
	return &k.all
}

func (k *wakers) add(w *Watcher) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.at(w.demand, true).add(w)
	k.count++
}

func (k *wakers) remove(w *Watcher) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.at(w.demand, true)
	s.remove(w)
	k.count--
	if len(s.watchers) > 0 {
		return
	}
	switch d := w.demand; d.kind {
	case demandName:
		delete(k.byName, d.value)
	case demandNamespace:
		delete(k.byNamespace, d.value)
	case demandField:
		delete(k.byField[d.field], d.value)
	case demandLabel:
		delete(k.byLabel[d.label], d.value)
		if len(k.byLabel[d.label]) == 0 {
			delete(k.byLabel, d.label)
		}
	}
}

// wake wakes whom the events from first up to, not including, end concern.
func (k *wakers) wake(h *history, first, end uint64) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.count == 0 {
		return
	}
	dir := h.dir.Load()
	for number := max(first, dir.first); number < end; number++ {
		k.wakeFor(dir.at(number), number)
	}
}

func (k *wakers) wakeFor(r *record, number uint64) {
	either := r.next
	if either == nil {
		either = r.prev
	}
	k.all.wake(r, number)
	if len(k.byName) > 0 {
		k.byName[either.key].wake(r, number)
	}
	if len(k.byNamespace) > 0 {
		k.byNamespace[either.Namespace].wake(r, number)
	}
	for i, stands := range k.byField {
		if len(stands) == 0 {
			continue
		}
		value := either.Field(i)
		stands[value].wake(r, number)
		if r.prev != nil && r.next != nil {
			if old := r.prev.Field(i); old != value {
				stands[old].wake(r, number)
			}
		}
	}
	for label, stands := range k.byLabel {
		value, ok := either.Labels.Lookup(label)
		if ok {
			stands[value].wake(r, number)
		}
		if r.prev != nil && r.next != nil && r.prev.Labels != r.next.Labels {
			if old, was := r.prev.Labels.Lookup(label); was && !(ok && old == value) {
				stands[old].wake(r, number)
			}
		}
	}
}

func (s *stand) wake(r *record, number uint64) {
	if s == nil {
		return
	}
	for _, w := range s.watchers {
		if w.pending.Load() != 0 {
			continue // it is awake already, or about to
		}
		if !w.whole && !(r.next != nil && w.matcher.match(r.next)) && !(r.prev != nil && w.matcher.match(r.prev)) {
			continue
		}
		if w.pending.CompareAndSwap(0, number+1) {
			w.signal()
		}
	}
}

// wakeAll wakes all watchers, to be told that they have expired.
func (k *wakers) wakeAll() {
	k.mu.RLock()
	defer k.mu.RUnlock()
	k.all.signal()
	for _, s := range k.byName {
		s.signal()
	}
	for _, s := range k.byNamespace {
		s.signal()
	}
	for _, stands := range k.byField {
		for _, s := range stands {
			s.signal()
		}
	}
	for _, stands := range k.byLabel {
		for _, s := range stands {
			s.signal()
		}
	}
}

func (s *stand) signal() {
	for _, w := range s.watchers {
		w.signal()
	}
}
