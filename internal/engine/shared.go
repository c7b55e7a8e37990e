package engine

import (
	"context"
	"hash/maphash"
	"sync/atomic"

	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage/watchcache"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Shared is like Reader, but what it answers is decoded once for all who ask: nobody may change it. It is for small objects that many
// requests look at, as each write looks at its namespace.
func (e *Engine) Shared() kind.Reader { return shared{reader: reader{e}, decoded: new(shelf)} }

type shared struct {
	reader
	decoded *shelf
}

func (s shared) Get(ctx context.Context, resource schema.GroupResource, namespace, name string) (object.Object, error) {
	d, err := s.kept(ctx, resource)
	if err != nil {
		return nil, err
	}
	if v, ok := s.e.object(d, namespace, name); ok {
		return s.decoded.object(d, v)
	}
	return s.reader.Get(ctx, resource, namespace, name)
}

func (s shared) List(ctx context.Context, resource schema.GroupResource, namespace string) ([]object.Object, error) {
	return s.list(ctx, resource, namespace, s.decoded.object)
}

// shelf keeps some decoded objects, each with the version that it was decoded from, so that it is never older than that. One that is lost
// is decoded anew.
type shelf struct {
	slots [256]atomic.Pointer[shelved]
}

type shelved struct {
	definition *kind.Definition
	version    *watchcache.Version
	object     object.Object
}

// maxShelved bounds the bytes of a version that is kept decoded.
const maxShelved = 8 << 10

var shelfSeed = maphash.MakeSeed()

func (s *shelf) object(d *kind.Definition, v *watchcache.Version) (object.Object, error) {
	slot := &s.slots[maphash.String(shelfSeed, string(v.UID))%uint64(len(s.slots))]
	if there := slot.Load(); there != nil && there.version == v && there.definition == d {
		return there.object, nil
	}
	obj, err := codec.DecodeVersion(d, v)
	if err == nil && len(v.Blob) <= maxShelved {
		slot.Store(&shelved{d, v, obj})
	}
	return obj, err
}
