package codec

import "sync"

// buffer is memory that is used again: for what is written or compared and then forgotten.
type buffer struct{ b []byte }

// maxKeptBuffer bounds the buffers that are used again.
const maxKeptBuffer = 1 << 20

var buffers = sync.Pool{New: func() any { return &buffer{make([]byte, 0, 16<<10)} }}

// borrow returns an empty buffer, to be released.
func borrow() *buffer { return buffers.Get().(*buffer) }

func (b *buffer) release() {
	if cap(b.b) <= maxKeptBuffer {
		b.b = b.b[:0]
		buffers.Put(b)
	}
}
