package codec

import (
	"sync"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/storage/watchcache"
)

// maxForms bounds the bytes of JSON forms that are kept beside stored versions.
const maxForms = 64 << 20

// jsonForms keeps the JSON forms of stored versions, the oldest dropped first. A form hangs
// on its version, so that a hit takes no lock and no look-up.
var jsonForms = formCache{limit: maxForms}

// form is one derived encoding of a version.
type form struct {
	definition *kind.Definition
	bytes      []byte
}

type formCache struct {
	limit int
	mu    struct {
		sync.Mutex
		order []*watchcache.Version // in the order in which their forms were made
		first int                   // of order that still counts
		size  int
	}
}

// of returns the JSON form of an item that is a stored version.
func (c *formCache) of(i *Item) ([]byte, error) {
	if f, ok := i.Version.Derived.Load().(*form); ok && f.definition == i.Definition {
		return f.bytes, nil
	}
	obj, err := i.Decoded()
	if err != nil {
		return nil, err
	}
	b, err := marshalItem(obj)
	if err != nil {
		return nil, err
	}
	c.keep(i.Version, &form{i.Definition, b})
	return b, nil
}

func (c *formCache) keep(v *watchcache.Version, f *form) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := v.Derived.Load().(*form); ok && old != nil {
		c.mu.size -= len(old.bytes)
	} else {
		c.mu.order = append(c.mu.order, v)
	}
	v.Derived.Store(f)
	c.mu.size += len(f.bytes)
	for c.mu.size > c.limit && c.mu.first < len(c.mu.order) {
		oldest := c.mu.order[c.mu.first]
		c.mu.order[c.mu.first] = nil
		c.mu.first++
		if old, ok := oldest.Derived.Load().(*form); ok && old != nil {
			c.mu.size -= len(old.bytes)
			oldest.Derived.Store(nil)
		}
	}
	if c.mu.first > len(c.mu.order)/2 && c.mu.first > 1024 {
		c.mu.order = append([]*watchcache.Version(nil), c.mu.order[c.mu.first:]...)
		c.mu.first = 0
	}
}
