package http2

import (
	"bytes"
	"runtime"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"
)

// out is what a connection sends. Frames are appended to pending by whoever has them, under conn.mu; the first to find that nobody is
// sending sends what there is, without the lock, and goes on while others have added to it. So one write takes along the frames of all streams
// that had some, and a frame never waits for a goroutine to wake.
//
// Invariant: an HPACK block is encoded in the moment it is appended, since each depends on those before it.
type out struct {
	pending []byte  // nil: none
	memory  *[]byte // what it began with, to be given back
	sending bool
	hurried bool      // what is being sent has a deadline: somebody's time was over while he sent
	sender  *stream   // whose handler is sending; nil: the reader, or nobody
	err     error     // why nothing can be sent any more
	room    sync.Cond // pending was taken, a stream was closed, or nothing can be sent any more

	// The last frame of pending, if it is DATA: it can be lengthened and be made the last of its stream.
	newest   *stream
	newestAt int

	window       int64 // of the connection
	streamWindow int64 // of new streams
	maxFrame     int
	encoder      *hpack.Encoder
	block        bytes.Buffer
}

const (
	// sendAt is how much a stream appends before it is sent.
	sendAt = 64 << 10
	// maxPending is how much is appended at most before streams wait.
	maxPending = 128 << 10
	// lastMoment is how long a client may take for what is being sent to it when the time of a request is over. After it the
	// connection ends, since a TLS record cannot be taken back.
	lastMoment = 10 * time.Second
	// record is what a TLS record carries at most.
	record = 16 << 10
	// mostOurFrame bounds a DATA frame, so that no stream keeps others waiting.
	mostOurFrame = 64 << 10
)

// buffers is memory for what is pending: a connection that has nothing to send holds none.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 8<<10); return &b }}

func (o *out) init(mu *sync.Mutex) {
	o.room.L = mu
	o.window, o.streamWindow, o.maxFrame = firstWindow, firstWindow, leastFrame
	o.encoder = hpack.NewEncoder(&o.block)
}

// next returns pending, for another frame to be appended.
func (o *out) next() []byte {
	if o.pending == nil {
		o.memory = buffers.Get().(*[]byte)
		o.pending = *o.memory
	}
	o.newest = nil
	return o.pending
}

// send sends what is pending, or leaves it to the one who is sending; s is whose handler calls, or nil. It is called with c.mu held and lets go of it
// while it sends.
func (c *conn) send(s *stream) {
	if c.mu.sending {
		return
	}
	c.mu.sending, c.mu.sender = true, s
	for len(c.mu.pending) > 0 && c.mu.err == nil {
		b, memory := c.mu.pending, c.mu.memory
		c.mu.pending, c.mu.memory, c.mu.newest = nil, nil, nil
		c.mu.Unlock()
		err := c.write(b)
		if cap(b) <= 2*maxPending {
			*memory = b[:0]
			buffers.Put(memory)
		}
		c.mu.Lock()
		if c.mu.hurried {
			c.mu.hurried = false
			_ = c.net.SetWriteDeadline(time.Time{})
		}
		if err != nil && c.mu.err == nil {
			c.mu.err = err
			_ = c.net.SetReadDeadline(aLongTimeAgo) // the reader ends the streams
		}
		c.mu.room.Broadcast()
	}
	c.mu.sending, c.mu.sender = false, nil
}

// sendTogether is send for streams that often have something at the same time, as watches of one resource do: those that are about to
// append are let go first, and all of it leaves in one record.
func (c *conn) sendTogether(s *stream) {
	if c.mu.sending {
		return
	}
	if len(c.mu.streams) > 1 {
		c.mu.sending = true // others leave it to us
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
		c.mu.sending = false
	}
	c.send(s)
}

// hurry gives a handler whose time is over, and who is sending to a client that may not read, a last moment. c.mu is held.
func (c *conn) hurry(s *stream) {
	if c.mu.sender == s {
		c.mu.hurried = true
		_ = c.net.SetWriteDeadline(time.Now().Add(lastMoment))
	}
}

func (c *conn) write(b []byte) error {
	if c.below != nil && len(b) > record {
		return c.below.together(func() (int, error) { return c.net.Write(b) })
	}
	_, err := c.net.Write(b)
	return err
}

// body appends b as DATA of s, as windows and room allow, and with end ends the stream. c.mu is held, but not while it waits.
func (c *conn) body(s *stream, b []byte, end bool) error {
	for len(b) > 0 {
		if err := s.failed(); err != nil {
			return err
		}
		n := int(min(int64(len(b)), s.window, c.mu.window))
		switch {
		case n <= 0:
			c.send(s)
			if min(s.window, c.mu.window) <= 0 && s.failed() == nil {
				s.wake.Wait()
			}
		case len(c.mu.pending) >= sendAt && !c.mu.sending:
			c.send(s)
		case len(c.mu.pending) >= maxPending:
			c.mu.room.Wait()
		default:
			n = c.extend(s, b[:n])
			b = b[n:]
			s.window -= int64(n)
			c.mu.window -= int64(n)
		}
	}
	if end {
		c.endStream(s)
	}
	return s.failed()
}

// extend appends a piece of b to the newest frame, if that is of s, or as a new one, and returns its length.
func (c *conn) extend(s *stream, b []byte) int {
	if c.mu.newest == s {
		if at := c.mu.newestAt; len(c.mu.pending)-at-headBytes < c.mu.maxFrame {
			had := len(c.mu.pending) - at - headBytes
			n := min(len(b), c.mu.maxFrame-had)
			c.mu.pending = append(c.mu.pending, b[:n]...)
			putLength(c.mu.pending[at:], had+n)
			return n
		}
	}
	n := min(len(b), c.mu.maxFrame)
	c.mu.pending = appendHead(c.mu.next(), n, frameData, 0, s.id)
	c.mu.newest, c.mu.newestAt = s, len(c.mu.pending)-headBytes
	c.mu.pending = append(c.mu.pending, b[:n]...)
	return n
}

// endStream ends our side of a stream, with its newest frame if that can still say so.
func (c *conn) endStream(s *stream) {
	s.sent = true
	if c.mu.newest == s {
		c.mu.pending[c.mu.newestAt+4] |= flagEndStream
		return
	}
	c.mu.pending = appendHead(c.mu.next(), 0, frameData, flagEndStream, s.id)
}

// appendHeaders appends a header block that write encodes.
func (c *conn) appendHeaders(id uint32, end bool, write func(e *hpack.Encoder)) {
	c.mu.block.Reset()
	write(c.mu.encoder)
	block := c.mu.block.Bytes()
	kind, flags := uint8(frameHeaders), uint8(0)
	if end {
		flags = flagEndStream
	}
	for {
		n := min(len(block), c.mu.maxFrame)
		if n == len(block) {
			flags |= flagEndHeaders
		}
		c.mu.pending = append(appendHead(c.mu.next(), n, kind, flags, id), block[:n]...)
		if block = block[n:]; len(block) == 0 {
			return
		}
		kind, flags = frameContinuation, 0
	}
}
