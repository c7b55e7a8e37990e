package watchcache

import (
	"cmp"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/timonel/timonel/internal/storage"
)

// state is a view at one revision: the objects and the indexes on them. A
// published state never changes; the next one is made of a copy by an edit,
// which shares all it does not touch.
type state struct {
	revision storage.Revision // of the last change in it
	next     uint64           // sequence number of the first event that is not in it
	objects  tree[*Version]
	fields   []tree[posting] // by the number of the field; empty if it has no index
	labels   []labelIndex    // few
}

// posting says that the object at key has the value in the field, or label, that
// the index is about. It does not point to a version: an index changes only when
// a value does. It points to where the newest version is found, see state.version.
type posting struct {
	value, key string
	newest     *atomic.Pointer[Version]
}

func (p posting) compare(value, key string) int {
	if c := strings.Compare(p.value, value); c != 0 {
		return c
	}
	return strings.Compare(p.key, key)
}

func (p posting) position() (term, key string) { return p.value, p.key }

// version returns the version of which a posting of the state speaks: the newest one, unless that came after the state. To look for
// the key in the tree would be a dozen reads of memory that is in no cache.
func (s *state) version(p posting) *Version {
	if v := p.newest.Load(); v.Revision <= s.revision {
		return v
	}
	return s.objects.get("", p.key)
}

// labelIndex is an index on the values of one label; objects without it are not in it.
type labelIndex struct {
	label    string
	postings tree[posting]
}

// edit makes the next state. Its epoch must be greater than that of every node that is shared with a published state.
type edit struct {
	state
	epoch   uint64
	indexed []bool
}

// begin returns an edit on a copy of the state.
func (s *state) begin(c *Collection, epoch uint64) *edit {
	e := &edit{state: *s, epoch: epoch, indexed: c.Indexed}
	e.fields = slices.Clone(s.fields)
	e.labels = slices.Clone(s.labels)
	return e
}

// replace makes next, which may be nil, take the place of prev, which may be nil.
func (e *edit) replace(prev, next *Version) {
	if next != nil {
		e.objects.set(next, e.epoch)
	} else {
		e.objects.remove("", prev.key, e.epoch)
	}
	for i := range e.fields {
		if !e.indexed[i] {
			continue
		}
		e.reindex(&e.fields[i], prev, next, func(v *Version) (string, bool) { return v.Field(i), true })
	}
	for i := range e.labels {
		e.reindex(&e.labels[i].postings, prev, next, labelValue(e.labels[i].label))
	}
}

func (e *edit) reindex(index *tree[posting], prev, next *Version, value func(*Version) (string, bool)) {
	var old, new string
	var was, is bool
	if prev != nil {
		old, was = value(prev)
	}
	if next != nil {
		new, is = value(next)
	}
	if was == is && old == new {
		return
	}
	if was {
		index.remove(old, prev.key, e.epoch)
	}
	if is {
		index.set(posting{new, next.key, next.newest}, e.epoch)
	}
}

// newState returns the state of the versions, which are in the order of their keys.
func newState(c *Collection, versions []*Version, revision storage.Revision, labels []string, epoch uint64) *state {
	s := &state{revision: revision, objects: grow(versions, epoch)}
	s.fields = make([]tree[posting], len(c.Indexed))
	for i, indexed := range c.Indexed {
		if indexed {
			s.fields[i] = indexOf(s.objects, epoch, func(v *Version) (string, bool) { return v.Field(i), true })
		}
	}
	for _, label := range labels {
		s.labels = append(s.labels, labelIndex{label, indexOf(s.objects, epoch, labelValue(label))})
	}
	return s
}

func indexOf(objects tree[*Version], epoch uint64, value func(*Version) (string, bool)) tree[posting] {
	postings := make([]posting, 0, objects.len())
	objects.ascend("", "", false, func(v *Version) bool {
		if value, ok := value(v); ok {
			postings = append(postings, posting{value, v.key, v.newest})
		}
		return true
	})
	slices.SortFunc(postings, func(a, b posting) int {
		return cmp.Or(strings.Compare(a.value, b.value), strings.Compare(a.key, b.key))
	})
	return grow(postings, epoch)
}
