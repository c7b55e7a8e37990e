package watchcache

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/types"

	"github.com/timonel/timonel/internal/storage"
)

// Collection is a resource as the cache sees it: a key prefix and functions.
type Collection struct {
	// Prefix of its keys, with trailing slash: "/registry/pods/". What follows it in a key is
	// the object's key: "namespace/name", or "name" if the resource is not namespaced.
	Prefix     string
	Namespaced bool

	Fields  []string // labels of the selectable fields, in the order of Version.Fields
	Indexed []bool   // which of them have an index; may be shorter than Fields

	// Describe makes what is kept of a stored value. It runs on several goroutines.
	Describe func(key string, value []byte, revision storage.Revision) Description

	// Restamp returns a copy of the blob that bears another revision: the last state of a deleted object.
	Restamp func(blob []byte, revision storage.Revision) []byte
}

// Description is what is kept of a stored value.
type Description struct {
	UID    types.UID
	Labels Labels
	Fields []string // values of Collection.Fields; missing ones count as ""
	Blob   []byte   // the object as clients get it; never changed afterwards
	Err    error    // the value does not decode: such an object is listed with its error

	Defaulted bool // see Version
	Outdated  bool // see Version
}

// Version is one immutable version of an object.
type Version struct {
	Namespace, Name string
	UID             types.UID
	Revision        storage.Revision // of the write that made it; of a last state: of the deletion
	Labels          Labels
	Fields          []string
	Blob            []byte
	Err             error

	// Defaulted says that the blob is known to be all that clients are shown: there is no default to add.
	Defaulted atomic.Bool

	// Outdated says that the value is stored in another form than it would be now: an older version, another encoding.
	Outdated bool

	// Derived is a place for other forms of the object, such as its JSON. Who
	// fills it also bounds it: the cache keeps versions for as long as they are current or
	// in the history.
	Derived Slot

	key string // Namespace/Name or Name

	// newest leads from all versions of an object, up to its deletion, to the newest. It does so before a state with that can be seen.
	newest *atomic.Pointer[Version]
}

// Key returns "namespace/name", or "name" if there is no namespace.
func (v *Version) Key() string { return v.key }

// Field returns the value of the i-th selectable field; "" if there is none.
func (v *Version) Field(i int) string {
	switch i {
	case NameField:
		return v.Name
	case NamespaceField:
		return v.Namespace
	}
	if i < len(v.Fields) {
		return v.Fields[i]
	}
	return ""
}

func (v *Version) compare(_, key string) int    { return strings.Compare(v.key, key) }
func (v *Version) position() (term, key string) { return "", v.key }
func (c *Collection) split(key string) (ns string) {
	if i := strings.IndexByte(key, '/'); i >= 0 && c.Namespaced {
		return key[:i]
	}
	return ""
}

// version describes what is stored at key, the part of the entry's key behind the prefix. prev, which may be nil, is
// the version before: what stayed the same shares its memory.
func (c *Collection) version(e *storage.Entry, key string, prev *Version) *Version {
	d := Description{Err: e.Err}
	if e.Err == nil {
		d = c.describe(e.Key, e.Value, e.Modified)
	}
	v := &Version{
		UID: d.UID, Revision: e.Modified, Labels: d.Labels, Fields: d.Fields, Blob: d.Blob, Err: d.Err,
	}
	v.Defaulted.Store(d.Defaulted)
	v.Outdated = d.Outdated
	if prev != nil {
		v.key, v.Namespace, v.Name = prev.key, prev.Namespace, prev.Name
		if prev.UID == v.UID {
			v.UID = prev.UID
		}
		if slices.Equal(prev.Fields, v.Fields) {
			v.Fields = prev.Fields
		}
		v.newest = prev.newest
		v.newest.Store(v)
		return v
	}
	v.newest = new(atomic.Pointer[Version])
	v.newest.Store(v)
	v.key = key
	v.Namespace = c.split(key)
	v.Name = key
	if v.Namespace != "" {
		v.Name = key[len(v.Namespace)+1:]
	}
	return v
}

// describe calls Describe. A value on which that panics must not stop the cache, now and after each
// restart: it is kept as one that does not decode.
func (c *Collection) describe(key string, value []byte, revision storage.Revision) (d Description) {
	defer func() {
		if p := recover(); p != nil {
			d = Description{Err: fmt.Errorf("describe %s: panic: %v", key, p)}
		}
	}()
	return c.Describe(key, value, revision)
}

// last returns the object's last state as of its deletion.
func (c *Collection) last(v *Version, revision storage.Revision) *Version {
	last := &Version{
		Namespace: v.Namespace, Name: v.Name, key: v.key, UID: v.UID, Revision: revision,
		Labels: v.Labels, Fields: v.Fields, Blob: v.Blob, Err: v.Err,
	}
	last.Defaulted.Store(v.Defaulted.Load())
	if v.Err == nil && c.Restamp != nil {
		last.Blob = c.Restamp(v.Blob, revision)
	}
	return last
}

// Slot holds something that is made of its neighbour on demand and shared by all
// who need it. The zero value is empty. Its methods may be called at any time.
type Slot struct {
	p atomic.Pointer[any]
}

// Load returns what is in the slot, or nil.
func (s *Slot) Load() any {
	if p := s.p.Load(); p != nil {
		return *p
	}
	return nil
}

// Offer puts value into the slot if it is empty, and returns what is in it then.
func (s *Slot) Offer(value any) any {
	for {
		if s.p.CompareAndSwap(nil, &value) {
			return value
		}
		if p := s.p.Load(); p != nil {
			return *p
		}
	}
}

// Store puts value into the slot; nil empties it.
func (s *Slot) Store(value any) {
	if value == nil {
		s.p.Store(nil)
		return
	}
	s.p.Store(&value)
}
