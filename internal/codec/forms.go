package codec

import (
	"bytes"
	"encoding/json"
	"sync"
	"weak"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/storage/watchcache"
)

// maxForms bounds the bytes of what is derived from stored versions and kept beside them.
const maxForms = 64 << 20

// forms keeps what was derived from stored versions (JSON, metadata as JSON, table cells), the oldest
// dropped first. It hangs on its version, so that a hit takes no lock and no look-up.
var forms = formCache{limit: maxForms}

// form is what was derived from a version, as far as it was asked for. It is immutable; another piece
// makes another form.
type form struct {
	definition *kind.Definition
	json       []byte // list item
	metaEnd    int    // of its first member, the metadata, in json; 0: not known
	shared     bool   // json is the version's blob: a custom resource that its schema leaves as it is
	metadata   []byte // metadata alone, JSON, where it is dear to make
	row        *row
	note       *note // of the cache that keeps it
}

// note is what the cache knows of a kept form. It does not hold the version, which goes with its forms when the
// watch cache lets go of it.
type note struct {
	version weak.Pointer[watchcache.Version]
	size    int
}

// row is a table row up to its object, as JSON, with gaps for the cells that depend on the time of the request.
type row struct {
	text []byte
	gaps []gap
}

type gap struct {
	at   int // in the text
	cell kind.Dated
}

// gapSize and formSize are about what a gap with its cell and a form without its contents cost in memory, for the bound.
const (
	gapSize  = 96
	formSize = 224
)

// admittedOf: of so many forms that lists make when there is no room, one is kept.
const admittedOf = 16

func (f *form) size() int {
	n := formSize + len(f.metadata)
	if !f.shared {
		n += len(f.json)
	}
	if f.row != nil {
		n += len(f.row.text) + gapSize*len(f.row.gaps)
	}
	return n
}

type formCache struct {
	limit int
	mu    struct {
		sync.Mutex
		order []*note // in the order in which their forms were made
		first int     // of order that still counts
		size  int

		refused uint // by admits
	}
}

// underived is the form of which nothing was made yet.
var underived form

// load returns what was derived from an item's version.
func (c *formCache) load(i *Item) *form {
	if f, ok := i.Version.Derived.Load().(*form); ok && f.definition == i.Definition {
		return f
	}
	return &underived
}

// jsonOf returns the JSON form of an item that is a stored version.
func (c *formCache) jsonOf(i *Item) ([]byte, error) {
	if f := c.load(i); f.json != nil {
		return f.json, nil
	}
	text, metaEnd, err := i.storedJSON()
	if err != nil {
		return nil, err
	}
	return c.keepJSON(i, text, metaEnd), nil
}

// keepJSON keeps the JSON of an item, and returns what it keeps.
func (c *formCache) keepJSON(i *Item, text []byte, metaEnd int) []byte {
	shared := i.tree() && bytes.Equal(text, i.Version.Blob)
	if shared {
		text = i.Version.Blob
	}
	c.keep(i, func(f *form) { f.json, f.metaEnd, f.shared = text, metaEnd, shared })
	return text
}

// metadataOf returns the metadata of an item that is a stored version, as JSON.
func (c *formCache) metadataOf(i *Item) ([]byte, error) {
	if f := c.load(i); f.metadata != nil {
		return f.metadata, nil
	}
	p, err := i.Metadata("v1")
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(&p.ObjectMeta)
	if err != nil {
		return nil, err
	}
	c.keep(i, func(f *form) { f.metadata = text })
	return text, nil
}

// rowOf returns the cells of an item that is a stored version.
func (c *formCache) rowOf(i *Item, columns kind.Columns) (*row, error) {
	if f := c.load(i); f.row != nil {
		return f.row, nil
	}
	obj, err := i.shown()
	if err != nil {
		return nil, err
	}
	r, err := makeRow(i.Definition, columns, obj)
	if err != nil {
		return nil, err
	}
	c.keep(i, func(f *form) { f.row = r })
	return r, nil
}

// admits reports whether something of a size is to be kept that was made for a list. What pushes out nothing is. A list goes
// through everything in one order, and when that is more than there is room for, each list would push out what the next one
// begins with: so only some of it is kept then, and stays for a while.
func (c *formCache) admits(size int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.size+size+formSize <= c.limit {
		return true
	}
	c.mu.refused++
	return c.mu.refused%admittedOf == 0
}

// keep adds to the form of an item's version.
func (c *formCache) keep(i *Item, add func(f *form)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := *c.load(i)
	f.definition = i.Definition
	add(&f)
	if old, ok := i.Version.Derived.Load().(*form); ok {
		f.note = old.note
	} else {
		f.note = &note{version: weak.Make(i.Version)}
		c.mu.order = append(c.mu.order, f.note)
	}
	c.mu.size += f.size() - f.note.size
	f.note.size = f.size()
	i.Version.Derived.Store(&f)
	for c.mu.size > c.limit && c.mu.first < len(c.mu.order) {
		oldest := c.mu.order[c.mu.first]
		c.mu.order[c.mu.first] = nil
		c.mu.first++
		c.mu.size -= oldest.size
		if gone := oldest.version.Value(); gone != nil {
			gone.Derived.Store(nil)
		}
	}
	if c.mu.first > len(c.mu.order)/2 && c.mu.first > 1024 {
		c.mu.order = append([]*note(nil), c.mu.order[c.mu.first:]...)
		c.mu.first = 0
	}
}
