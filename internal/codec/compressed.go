package codec

import (
	"bytes"
	"container/list"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"hash/maphash"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/timonel/timonel/internal/kind"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A compressed list is stitched together from pieces that were compressed before.
//
// Compressing 64 MB takes a quarter of a second; informers of many clients ask for the same list, in which little has
// changed. DEFLATE (RFC 1951) allows blocks that were made apart to follow one another if each ends on a byte,
// which a sync flush sees to, and none refers to bytes before its beginning; and the checksum of the
// whole follows from those of the parts. So:
//
//  1. The items are cut into runs, at places that depend on their keys: an object that comes, changes or goes makes one or
//     two runs new and leaves the others.
//  2. Each run is compressed once, on its own, and kept by a print of the versions in it, in a bounded cache. Who asks for one that
//     is being compressed waits for it.
//  3. The answer is a gzip header (RFC 1952), the head of the list, the runs, its tail, and the sum of all.
//
// Invariant: the stream inflates to what WriteList writes. A run is long enough that what compression gains from
// likeness is mostly within it: in pieces of 200 KB a list of 64 MB comes out as 1.8 MB, of 400 KB as 1.5. Refused: pieces
// for each item, which would keep best and gain nothing from likeness.

const (
	minRun    = 128 << 10 // bytes of stored versions after which a run may end
	maxRun    = 512 << 10
	runSpread = 4        // one in so many keys ends a run
	maxRuns   = 16 << 20 // bounds the bytes of kept runs
	runSize   = 256      // about what a kept run costs without its bytes
)

// piece is a part of the answer, compressed.
type piece struct {
	deflated []byte // whole blocks, ending on a byte
	sum      uint32 // CRC-32 of the plain text
	size     int64  // of the plain text
}

// run is the piece of some items of a list. It is made by whoever needs it first.
type run struct {
	id   fingerprint
	of   *kind.Definition // id speaks of it by its address, which must not become another's
	kept int              // bytes that count in the cache; the cache's

	once sync.Once
	piece
	err error
}

var errUnmade = errors.New("part of a list was not compressed")

// CanStitch reports whether WriteGzipList can write a list of items.
func (e *Encoder) CanStitch(items []Item, atLeast int) bool {
	if e.Format.View != Whole || e.Format.Media != JSONMedia || e.Format.Pretty {
		return false
	}
	size := 0
	for n := range items {
		if items[n].Version == nil || items[n].Object != nil || items[n].Version.Err != nil {
			return false
		}
		size += len(items[n].Version.Blob)
	}
	return size >= atLeast
}

// WriteGzipList writes what WriteList writes, compressed.
func (e *Encoder) WriteGzipList(w io.Writer, items []Item, meta metav1.ListMeta) error {
	head, tail, err := e.listEnds(meta)
	if err != nil {
		return err
	}
	out := stitcher{w: w}
	out.write(gzipHeader)
	out.piece(compress([]byte(head)))
	for first := 0; first < len(items); {
		end := endOfRun(items, first)
		r := runs.get(runID(items[first:end], first == 0), items[first].Definition)
		r.once.Do(func() {
			r.err = errUnmade // should it panic
			defer runs.made(r)
			r.err = r.compress(items[first:end], first == 0)
		})
		if r.err != nil {
			return r.err
		}
		out.piece(r.piece)
		first = end
	}
	out.piece(compress([]byte(tail + "\n")))
	return out.close()
}

// endOfRun returns where the run that begins at an item ends.
func endOfRun(items []Item, first int) int {
	size := 0
	for n := first; n < len(items); n++ {
		v := items[n].Version
		size += len(v.Blob)
		if size >= maxRun || size >= minRun && maphash.String(printSeeds[0], v.Key())%runSpread == 0 {
			return n + 1
		}
	}
	return len(items)
}

// runs are the runs that were asked for most recently.
var runs = runCache{limit: maxRuns}

type runCache struct {
	limit int
	mu    struct {
		sync.Mutex
		byID map[fingerprint]*list.Element
		used list.List // of *run, the latest first
		size int
	}
}

// compress makes the run of items; with leads, it is the first of its list, and no comma comes before.
func (r *run) compress(items []Item, leads bool) (err error) {
	plain := borrow()
	defer plain.release()
	for n := range items {
		if n > 0 || !leads {
			plain.b = append(plain.b, ',')
		}
		if plain.b, err = items[n].appendJSON(plain.b); err != nil {
			return err
		}
	}
	r.piece = compress(plain.b)
	return nil
}

// runID is a print of the versions of a run: what they are, as of when, and how they are shown.
func runID(items []Item, leads bool) fingerprint {
	var h [2]maphash.Hash
	var revision [9]byte
	if leads {
		revision[8] = 1
	}
	d := items[0].Definition
	for i := range h {
		h[i].SetSeed(printSeeds[i])
		_, _ = h[i].WriteString(d.APIVersion() + "/" + d.Kind)
		maphash.WriteComparable(&h[i], d)
	}
	for n := range items {
		v := items[n].Version
		binary.LittleEndian.PutUint64(revision[:], uint64(v.Revision))
		for i := range h {
			_, _ = h[i].Write(revision[:])
			_, _ = h[i].WriteString(v.Key())
		}
	}
	return fingerprint{h[0].Sum64(), h[1].Sum64()}
}

// get returns the run with a print, which may still have to be made.
func (c *runCache) get(id fingerprint, of *kind.Definition) *run {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := c.mu.byID[id]; at != nil {
		c.mu.used.MoveToFront(at)
		return at.Value.(*run)
	}
	if c.mu.byID == nil {
		c.mu.byID = map[fingerprint]*list.Element{}
	}
	r := &run{id: id, of: of}
	c.mu.byID[id] = c.mu.used.PushFront(r)
	c.weigh(r)
	return r
}

// made notes that a run was made, or failed to be.
func (c *runCache) made(r *run) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.mu.byID[r.id]
	switch {
	case at == nil || at.Value != r: // it was pushed out meanwhile
	case r.err != nil:
		c.drop(at)
	default:
		c.weigh(r)
	}
}

// weigh counts what a run takes, and drops others to make room.
func (c *runCache) weigh(r *run) {
	c.mu.size -= r.kept
	r.kept = len(r.deflated) + runSize
	c.mu.size += r.kept
	for c.mu.size > c.limit {
		c.drop(c.mu.used.Back())
	}
}

func (c *runCache) drop(at *list.Element) {
	r := c.mu.used.Remove(at).(*run)
	c.mu.size -= r.kept
	delete(c.mu.byID, r.id)
}

// deflaters compress with level 3: of texts that are so alike it makes half of what level 1 makes, in no more time.
var deflaters = sync.Pool{New: func() any {
	f, _ := flate.NewWriter(nil, 3) // the level is valid
	return f
}}

// compress makes a piece of a text.
func compress(plain []byte) piece {
	var b bytes.Buffer
	f := deflaters.Get().(*flate.Writer)
	f.Reset(&b)
	_, _ = f.Write(plain) // into memory
	_ = f.Flush()
	deflaters.Put(f)
	return piece{deflated: bytes.Clone(b.Bytes()), sum: crc32.ChecksumIEEE(plain), size: int64(len(plain))}
}

// gzipHeader says: DEFLATE, no name, no time, fastest, unknown system (RFC 1952, section 2.3).
var gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255}

// lastBlock is an empty block that is marked as the last one.
var lastBlock = []byte{0x03, 0x00}

// stitcher writes a gzip stream.
type stitcher struct {
	w    io.Writer
	sum  uint32
	size int64
	err  error
}

func (s *stitcher) write(b []byte) {
	if s.err == nil {
		_, s.err = s.w.Write(b)
	}
}

func (s *stitcher) piece(p piece) {
	s.write(p.deflated)
	s.sum = joinSums(s.sum, p.sum, p.size)
	s.size += p.size
}

func (s *stitcher) close() error {
	s.write(lastBlock)
	s.write(binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, s.sum), uint32(s.size)))
	return s.err
}

// joinSums returns the CRC-32 of two texts, one behind the other, from that of each and the length of the second: the first
// moves up by as many bits as the second has, which is a multiplication by x to that power in the
// polynomials modulo that of the CRC. Bit 31 is the coefficient of x⁰.
func joinSums(first, second uint32, size int64) uint32 {
	power := uint32(1) << 31 // x⁰
	for bit := 0; size > 0; bit++ {
		if size&1 != 0 {
			power = multiply(byteSquares[bit], power)
		}
		size >>= 1
	}
	return multiply(power, first) ^ second
}

// byteSquares holds x to the power of 8·2ⁿ at n.
var byteSquares = func() (table [63]uint32) {
	table[0] = 1 << 23 // x⁸
	for n := 1; n < len(table); n++ {
		table[n] = multiply(table[n-1], table[n-1])
	}
	return table
}()

// multiply multiplies two polynomials modulo that of the CRC.
func multiply(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 {
		if a&(1<<31) != 0 {
			product ^= b
		}
		carry := b & 1
		b >>= 1
		if carry != 0 {
			b ^= crc32.IEEE
		}
	}
	return product
}
