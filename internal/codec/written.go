package codec

import (
	"bytes"
	"fmt"

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
	message []byte
}

// Write encodes an object of the hub definition d for the store.
func Write(d *kind.Definition, obj object.Object) (Written, error) {
	w := Written{definition: d}
	var err error
	if w.Value, err = EncodeStored(d, obj); err != nil || IsTree(d) || d.Stored.Undefaulted {
		return w, err
	}
	if d.Stored.Encoding == kind.Protobuf {
		_, _, w.message, err = OpenEnvelope(w.Value)
		return w, err
	}
	m, ok := obj.(message)
	if !ok {
		return w, fmt.Errorf("encode %s: %T has no protobuf form", d.Kind, obj)
	}
	w.message, err = m.Marshal()
	return w, err
}

// Version is what was written, once it has a revision.
func (w *Written) Version(revision storage.Revision) (*watchcache.Version, error) {
	if w.message == nil {
		return stamp(w.definition, w.Value, revision)
	}
	blob, err := restamp(w.message, revision)
	v := &watchcache.Version{Revision: revision, Blob: blob}
	v.Defaulted.Store(w.definition.Default == nil || vouched.has(w.message))
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
