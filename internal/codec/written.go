package codec

import (
	"bytes"
	"fmt"
	"sync/atomic"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/watchcache"
)

// Written is an object as it is about to be stored, encoded once: the value, and what the watch cache will make of
// that when it comes back.
type Written struct {
	Value []byte

	definition *kind.Definition
	// message is the protobuf message that readers get, but for its resourceVersion. nil: it must be read back from Value.
	message   []byte
	defaulted bool // message has all defaults
}

// Write encodes an object of the hub definition d for the store.
func Write(d *kind.Definition, obj object.Object) (Written, error) {
	w := Written{definition: d}
	var defaulted bool
	var err error
	if w.Value, defaulted, err = encodeStored(d, obj); err != nil || IsTree(d) || d.Stored.Undefaulted {
		return w, err
	}
	if d.Stored.Encoding == kind.Protobuf {
		_, _, w.message, err = OpenEnvelope(w.Value)
		w.defaulted = d.Default == nil || defaulted
		return w, err
	}
	m, ok := obj.(message)
	if !ok {
		return w, fmt.Errorf("encode %s: %T has no protobuf form", d.Kind, obj)
	}
	if w.message, err = m.Marshal(); err != nil || d.Stored.TellsEmpty {
		return w, err
	}
	if w.defaulted = complete(d, obj, m, w.message); w.defaulted {
		expected.put(d, w.Value, w.message)
	}
	return w, nil
}

// Version is what was written, once it has a revision.
func (w *Written) Version(revision storage.Revision) (*watchcache.Version, error) {
	if w.message == nil {
		return stamp(w.definition, w.Value, revision)
	}
	blob, err := restamp(w.message, revision)
	v := &watchcache.Version{Revision: revision, Blob: blob}
	v.Defaulted.Store(w.defaulted)
	return v, err
}

// Same reports whether a version is what has been written, so that writing it again changes nothing.
func (w *Written) Same(v *watchcache.Version) (bool, error) {
	if w.message == nil {
		now, err := stamp(w.definition, w.Value, v.Revision)
		return err == nil && bytes.Equal(now.Blob, v.Blob), err
	}
	s, err := cutForStamp(w.message, v.Revision)
	return err == nil && s.equals(v.Blob), err
}

// expected are messages of values in JSON that this server wrote and will soon read in its watch: to decode them and encode the objects anew
// is most of what such a write costs. One that is lost is made anew.
var expected messages

type messages struct {
	slots [64]atomic.Pointer[expectation]
}

type expectation struct {
	definition *kind.Definition
	value      fingerprint
	message    []byte
}

// maxExpected bounds a message that is expected.
const maxExpected = 128 << 10

func (m *messages) slot(f fingerprint) *atomic.Pointer[expectation] {
	return &m.slots[f[0]%uint64(len(m.slots))]
}

func (m *messages) put(d *kind.Definition, value, message []byte) {
	if len(message) <= maxExpected {
		f := fingerprintOf(value)
		m.slot(f).Store(&expectation{d, f, message})
	}
}

// take returns the message of a value, once, or nil.
func (m *messages) take(d *kind.Definition, value []byte) []byte {
	f := fingerprintOf(value)
	slot := m.slot(f)
	if e := slot.Load(); e != nil && e.definition == d && e.value == f && slot.CompareAndSwap(e, nil) {
		return e.message
	}
	return nil
}

// stamp is a version made from a stored value.
func stamp(d *kind.Definition, value []byte, revision storage.Revision) (*watchcache.Version, error) {
	var blob []byte
	var form storedForm
	var err error
	if IsTree(d) {
		blob, err = restampTree(value, revision)
	} else if blob, form, err = storedMessage(d, value); err == nil {
		blob, err = restamp(blob, revision)
	}
	v := &watchcache.Version{Revision: revision, Blob: blob}
	v.Defaulted.Store(form.defaulted)
	return v, err
}
