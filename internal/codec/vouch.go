package codec

import (
	"bytes"
	"hash/maphash"
	"slices"
	"sync/atomic"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage/watchcache"
)

// An object from storage is shown with its defaults: a server of another version may have written it, before a field
// was known. To see whether one is missing the object must be made, which transcoding shall avoid. But nearly all
// versions were written by this server a moment ago, which had the object in its hands:
//
//  1. Before an object is stored, its defaults are applied once more. If that leaves its bytes as they are, they
//     are vouched for: their print is noted.
//  2. When the bytes come back, through the watch or to the writer, and their print is there, the version is
//     marked as Defaulted. All others get the mark when they were decoded once and nothing was missing.
//
// A lost print costs time, not correctness. Invariant: bytes that are vouched for show all that decoding and
// defaulting them would show. Refused: to compare at the first read, when there is no object in hand. Watchers read first as a
// rule, before the writer has its answer.

// prints are of the messages that were vouched for most recently.
type prints struct {
	slots [1024]atomic.Pointer[fingerprint]
}

// fingerprint tells bytes apart: two hashes with seeds that nobody else knows.
type fingerprint [2]uint64

var (
	printSeeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}
	vouched    prints
)

func fingerprintOf(raw []byte) fingerprint {
	return fingerprint{maphash.Bytes(printSeeds[0], raw), maphash.Bytes(printSeeds[1], raw)}
}

func (p *prints) add(raw []byte) {
	f := fingerprintOf(raw)
	p.slots[f[0]%uint64(len(p.slots))].Store(&f)
}

func (p *prints) has(raw []byte) bool {
	f := fingerprintOf(raw)
	there := p.slots[f[0]%uint64(len(p.slots))].Load()
	return there != nil && *there == f
}

// vouch notes that raw, the message of an object that is about to be stored, has its defaults, and reports whether it has. The object is
// then as it was.
func vouch(d *kind.Definition, obj object.Object, m message, raw []byte) bool {
	if d.Default == nil || d.Stored.Undefaulted || d.Stored.TellsEmpty || shapeFor(d) == nil || !complete(d, obj, m, raw) {
		return false
	}
	vouched.add(raw)
	return true
}

// complete reports whether an object, of which raw is the message, has its defaults. It is then as it was.
func complete(d *kind.Definition, obj object.Object, m message, raw []byte) bool {
	if d.Default == nil {
		return true
	}
	gvk := obj.GetObjectKind().GroupVersionKind()
	d.Default(obj)
	if sameMessage(m, raw) {
		return true
	}
	m.Reset()
	_ = m.Unmarshal(raw) // what was just encoded can be decoded
	SetKind(obj, gvk)
	return false
}

// hasDefaults reports whether an object that was decoded from a version and defaulted is what the version holds.
func hasDefaults(obj object.Object, v *watchcache.Version) bool {
	m, ok := obj.(message)
	return ok && sameMessage(m, v.Blob)
}

// sameMessage reports whether raw is what m encodes to.
func sameMessage(m message, raw []byte) bool {
	if m.Size() != len(raw) {
		return false
	}
	again := borrow()
	defer again.release()
	again.b = slices.Grow(again.b, len(raw))[:len(raw)]
	_, err := m.MarshalToSizedBuffer(again.b)
	return err == nil && bytes.Equal(again.b, raw)
}
