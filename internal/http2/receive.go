package http2

import (
	"encoding/binary"
	"errors"
	"io"
)

// What each frame of a client does (RFC 9113, section 6), run by the goroutine that reads.

// stream returns the stream of a frame that belongs to one, or nil if it is closed.
func (c *conn) stream(h head) (*stream, error) {
	s := c.mu.streams[h.stream]
	if s == nil && (h.stream > c.mu.last || h.stream%2 == 0) {
		return nil, connError{protocolError, "a frame of a stream that nobody opened"}
	}
	return s, nil
}

// headers opens a stream, or ends a request with trailers.
func (c *conn) headers(h head, b []byte) error {
	if h.stream%2 == 0 {
		return connError{protocolError, "a client's streams have odd numbers"}
	}
	b, bad := unpad(h, b)
	if _, ok := errors.AsType[streamError](bad); bad != nil && !ok {
		return bad
	}
	// A block is decoded although its stream is refused, for the sake of those that follow.
	c.fields.reset(c.server.MaxHeaderBytes)
	if err := c.block(h, b); err != nil {
		return err
	}
	if bad == nil {
		bad = c.fields.err(h.stream)
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.mu.streams[h.stream]; s != nil {
		if bad != nil {
			return bad
		}
		return s.trailers(h, &c.fields)
	}
	if h.stream <= c.mu.last {
		return connError{streamClosed, "HEADERS of a closed stream"}
	}
	c.mu.last = h.stream
	switch {
	case bad != nil:
		return bad
	case c.mu.leaving:
		return nil // it was on its way; the client was told that it is not served
	case len(c.mu.streams) >= c.server.MaxStreams, c.mu.running >= 2*c.server.MaxStreams: // handlers outlive streams that were reset
		return streamError{h.stream, refusedStream, "too many streams"}
	}
	s, err := c.newStream(h)
	if err != nil {
		return err
	}
	c.mu.idle.Stop()
	c.mu.streams[h.stream] = s
	c.mu.running++
	c.ready = append(c.ready, s)
	return nil
}

// block decodes a header block, with the frames that continue it.
func (c *conn) block(h head, b []byte) error {
	for size := len(b); ; {
		if _, err := c.decoder.Write(b); err != nil {
			return connError{compressionError, err.Error()}
		}
		if h.has(flagEndHeaders) {
			break
		}
		if !c.atHand() {
			c.start()
		}
		next, err := c.head()
		if err != nil {
			return err
		}
		if next.kind != frameContinuation || next.stream != h.stream {
			return connError{protocolError, "a header block that is not continued"}
		}
		if next.length == 0 {
			if err := c.fault(); err != nil {
				return err
			}
		}
		if size += next.length; size > 2*c.server.MaxHeaderBytes {
			return connError{enhanceYourCalm, "a header block without end"}
		}
		if b, err = c.read(next); err != nil {
			return err
		}
		h.flags |= next.flags & flagEndHeaders
	}
	if err := c.decoder.Close(); err != nil {
		return connError{compressionError, err.Error()}
	}
	return nil
}

// data takes a piece of a request's body.
func (c *conn) data(h head) error {
	if h.stream == 0 {
		return connError{protocolError, "DATA without a stream"}
	}
	b := make([]byte, h.length) // the stream keeps it
	if _, err := io.ReadFull(c.in, b); err != nil {
		return err
	}
	b, err := unpad(h, b)
	if err != nil {
		return err
	}
	if len(b) == 0 && !h.has(flagEndStream) {
		if err := c.fault(); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.stream(h)
	if err != nil {
		return err
	}
	if c.mu.taken += int64(h.length); c.mu.taken > c.max {
		return connError{flowControlError, "more DATA than the window of the connection has"}
	}
	if s == nil || s.received {
		c.giveBack(h.length)
		return streamError{h.stream, streamClosed, "DATA after the end"}
	}
	return s.take(b, h)
}

func (c *conn) priority(h head, b []byte) error {
	switch {
	case h.stream == 0:
		return connError{protocolError, "PRIORITY without a stream"}
	case len(b) != 5:
		return streamError{h.stream, frameSizeError, "PRIORITY has 5 bytes"}
	case binary.BigEndian.Uint32(b)&mostStream == h.stream:
		return streamError{h.stream, protocolError, "a stream that depends on itself"}
	}
	return c.fault()
}

func (c *conn) resetByClient(h head, b []byte) error {
	if len(b) != 4 {
		return connError{frameSizeError, "RST_STREAM has 4 bytes"}
	}
	if h.stream == 0 {
		return connError{protocolError, "RST_STREAM without a stream"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.stream(h)
	if err != nil {
		return err
	}
	if s != nil {
		s.close(streamError{h.stream, code(binary.BigEndian.Uint32(b)), "the client went away"})
	}
	return c.fault()
}

func (c *conn) settings(h head, b []byte) error {
	switch {
	case h.stream != 0:
		return connError{protocolError, "SETTINGS of a stream"}
	case h.has(flagAck) && len(b) > 0:
		return connError{frameSizeError, "SETTINGS that say yes and more"}
	case h.has(flagAck):
		return c.fault()
	case len(b)%6 != 0:
		return connError{frameSizeError, "SETTINGS have 6 bytes each"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for ; len(b) > 0; b = b[6:] {
		if err := c.setting(binary.BigEndian.Uint16(b), binary.BigEndian.Uint32(b[2:])); err != nil {
			return err
		}
	}
	if !c.mu.begun {
		c.mu.begun = true
		c.rest()
	}
	c.mu.pending = appendHead(c.mu.next(), 0, frameSettings, flagAck, 0)
	c.send(nil)
	return c.fault()
}

func (c *conn) setting(id uint16, value uint32) error {
	switch id {
	case settingTableSize:
		c.mu.encoder.SetMaxDynamicTableSizeLimit(value)
		c.mu.encoder.SetMaxDynamicTableSize(min(value, 4<<10))
	case settingPush:
		if value > 1 {
			return connError{protocolError, "SETTINGS_ENABLE_PUSH is 0 or 1"}
		}
	case settingWindow:
		if value > mostWindow {
			return connError{flowControlError, "SETTINGS_INITIAL_WINDOW_SIZE is too large"}
		}
		more := int64(value) - c.mu.streamWindow
		c.mu.streamWindow = int64(value)
		for _, s := range c.mu.streams {
			if s.window += more; s.window > mostWindow {
				return connError{flowControlError, "the window of a stream is too large"}
			}
			s.wake.Broadcast()
		}
	case settingMaxFrame:
		if value < leastFrame || value > mostFrame {
			return connError{protocolError, "SETTINGS_MAX_FRAME_SIZE is out of bounds"}
		}
		c.mu.maxFrame = min(int(value), mostOurFrame)
	}
	return nil
}

func (c *conn) ping(h head, b []byte) error {
	if len(b) != 8 {
		return connError{frameSizeError, "PING has 8 bytes"}
	}
	if h.stream != 0 {
		return connError{protocolError, "PING of a stream"}
	}
	if !h.has(flagAck) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.mu.pending = append(appendHead(c.mu.next(), len(b), framePing, flagAck, 0), b...)
		c.send(nil)
	}
	return c.fault()
}

// goAwayByClient: a client that takes no pushes has nothing to say with it; it closes when it is done.
func (c *conn) goAwayByClient(h head) error {
	if h.stream != 0 {
		return connError{protocolError, "GOAWAY of a stream"}
	}
	return c.fault()
}

func (c *conn) windowUpdate(h head, b []byte) error {
	if len(b) != 4 {
		return connError{frameSizeError, "WINDOW_UPDATE has 4 bytes"}
	}
	n := int64(binary.BigEndian.Uint32(b) & mostStream)
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.stream == 0 {
		if n == 0 {
			return connError{protocolError, "a WINDOW_UPDATE of nothing"}
		}
		if c.mu.window += n; c.mu.window > mostWindow {
			return connError{flowControlError, "the window of the connection is too large"}
		}
		if c.mu.window-n <= 0 { // streams may wait for it
			for _, s := range c.mu.streams {
				s.wake.Broadcast()
			}
		}
		return nil
	}
	s, err := c.stream(h)
	if s == nil {
		return err
	}
	if n == 0 {
		return streamError{h.stream, protocolError, "a WINDOW_UPDATE of nothing"}
	}
	if s.window += n; s.window > mostWindow {
		return streamError{h.stream, flowControlError, "the window of the stream is too large"}
	}
	s.wake.Broadcast()
	return nil
}

// refuse resets a stream that broke the rules.
func (c *conn) refuse(e streamError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.mu.streams[e.stream]; s != nil {
		s.close(e)
	}
	c.mu.pending = appendReset(c.mu.next(), e.stream, e.code)
	c.send(nil)
}

// giveBack tells the client, now and then, that bytes of bodies are no longer held (c.mu is held).
func (c *conn) giveBack(n int) {
	c.mu.credit += int64(n)
	if c.mu.credit < c.max/4 {
		return
	}
	c.mu.pending = appendWindow(c.mu.next(), 0, int(c.mu.credit))
	c.mu.taken -= c.mu.credit
	c.mu.credit = 0
	c.send(nil)
}
