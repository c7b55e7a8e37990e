package http2

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2/hpack"
)

// conn is one connection.
//
// One goroutine reads it, and runs the rules of the protocol. Each request has a goroutine of its own, which runs its handler. Any of them
// may write: see send.go.
type conn struct {
	server  *Server
	net     net.Conn
	below   *gathered // what TLS writes to; nil: unknown
	handler http.Handler
	base    context.Context
	tls     *tls.ConnectionState
	remote  string
	max     int64 // bytes of all bodies that may be on their way

	// Of the goroutine that reads:
	in      *bufio.Reader
	payload []byte // of the frame at hand
	decoder *hpack.Decoder
	fields  fields
	ready   []*stream // requests to start once what has arrived was read

	faults atomic.Int32 // frames that only make work, since the last answer

	mu struct {
		sync.Mutex
		streams map[uint32]*stream // whose two sides are not both closed
		last    uint32             // the newest that the client opened
		running int                // handlers
		taken   int64              // bytes of bodies that came and were not given back to the client
		credit  int64              // those of them that are no longer held
		begun   bool               // the client's SETTINGS came
		leaving bool               // the client was told to open no more streams
		idle    *time.Timer        // runs while there are no streams

		out
	}
}

const (
	prefaceTimeout = 10 * time.Second
	// lastWords is how long a connection that ends is kept for the client to read why: closed at once, it would be reset, and what
	// the client has not read yet be lost.
	lastWords = 250 * time.Millisecond
	// maxFaults bounds frames that make work and ask for nothing, one after the other without an answer between them: pings, settings, resets
	// of what just began, empty frames (CVE-2019-9512, 9515, 9518, CVE-2023-44487).
	maxFaults = 10_000
	// maxReady bounds the requests that are read before the first of them starts.
	maxReady = 16
	// keptPayload is how much memory for frames a connection keeps.
	keptPayload = 8 << 10
)

func newConn(s *Server, nc net.Conn, handler http.Handler) *conn {
	c := &conn{server: s, net: nc, handler: handler, remote: nc.RemoteAddr().String(), in: bufio.NewReaderSize(nc, 4<<10)}
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok {
		c.below, _ = t.NetConn().(*gathered)
	}
	c.max = int64(s.Window) * int64(s.MaxStreams)
	if c.max > mostWindow {
		c.max = mostWindow
	}
	c.decoder = hpack.NewDecoder(4<<10, c.fields.add)
	c.decoder.SetMaxStringLength(s.MaxHeaderBytes)
	c.mu.streams = map[uint32]*stream{}
	c.mu.idle = time.AfterFunc(prefaceTimeout, c.idled)
	c.mu.out.init(&c.mu.Mutex)

	settings := appendSetting(nil, settingMaxStreams, uint32(s.MaxStreams))
	settings = appendSetting(settings, settingWindow, uint32(s.Window))
	settings = appendSetting(settings, settingMaxFrame, uint32(c.frameLimit()))
	settings = appendSetting(settings, settingHeaderList, uint32(s.MaxHeaderBytes))
	c.mu.pending = append(appendHead(c.mu.next(), len(settings), frameSettings, 0, 0), settings...)
	if more := c.max - firstWindow; more > 0 {
		c.mu.pending = appendWindow(c.mu.next(), 0, int(more))
	}
	return c
}

// frameLimit is the largest frame that we take.
func (c *conn) frameLimit() int { return min(max(c.server.Window, leastFrame), mostFrame) }

// serve reads until the connection ends.
func (c *conn) serve() {
	err := c.open()
	for err == nil {
		if err = c.step(); err == nil {
			continue
		}
		if e, ok := errors.AsType[streamError](err); ok {
			c.refuse(e)
			err = c.fault()
		}
	}
	c.start() // what was asked before the end still runs, and learns of it by its context
	c.end(err)
}

func (c *conn) open() error {
	c.mu.Lock()
	c.send(nil)
	c.mu.Unlock()
	var begin [len(preface)]byte
	if _, err := io.ReadFull(c.in, begin[:]); err != nil {
		return err
	}
	if !bytes.Equal(begin[:], []byte(preface)) {
		return connError{protocolError, "no preface"}
	}
	return nil
}

// rest is called when the connection may have no streams any more (c.mu is held).
func (c *conn) rest() {
	switch {
	case len(c.mu.streams) > 0:
	case c.mu.leaving:
		c.mu.idle.Reset(0)
	case c.mu.begun && c.server.IdleTimeout > 0:
		c.mu.idle.Reset(c.server.IdleTimeout)
	case c.mu.begun:
		c.mu.idle.Stop()
	}
}

// idled ends a connection that carries nothing.
func (c *conn) idled() {
	c.mu.Lock()
	begun, leaving, busy := c.mu.begun, c.mu.leaving, len(c.mu.streams) > 0
	c.mu.Unlock()
	switch {
	case !begun:
		_ = c.net.Close() // the reader sees it
	case busy:
	case leaving:
		c.hangUp()
	default:
		c.shutdown()
	}
}

// shutdown tells the client to open no more streams, and ends the connection once there are none.
func (c *conn) shutdown() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.leaving {
		return
	}
	c.mu.leaving = true
	c.mu.pending = appendGoAway(c.mu.next(), c.mu.last, noError)
	c.send(nil)
	c.rest()
}

// hangUp says that nothing more will come, and leaves the client a moment to hang up as well.
func (c *conn) hangUp() {
	_ = c.net.SetDeadline(time.Now().Add(lastWords))
	if half, ok := c.net.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// end is the end of the connection, for the reason that err gives.
func (c *conn) end(err error) {
	c.mu.Lock()
	c.mu.leaving = true
	c.mu.idle.Stop()
	broken, ours := errors.AsType[connError](err)
	if ours {
		c.mu.pending = appendGoAway(c.mu.next(), c.mu.last, broken.code)
		_ = c.net.SetWriteDeadline(time.Now().Add(lastWords))
		c.send(nil)
	}
	if c.mu.err == nil {
		c.mu.err = err
	}
	for _, s := range c.mu.streams {
		s.close(err)
	}
	c.mu.Unlock()
	if ours {
		c.hangUp()
		_, _ = io.CopyN(io.Discard, c.net, int64(c.frameLimit())) // until it hangs up, or the time is over
	}
	_ = c.net.Close()
}

// step reads one frame and does what it says.
func (c *conn) step() error {
	if len(c.ready) > 0 && (len(c.ready) >= maxReady || !c.atHand()) {
		c.start()
	}
	h, err := c.head()
	if err != nil {
		return err
	}
	if !c.mu.begun && h.kind != frameSettings { // begun is changed by this goroutine only
		return connError{protocolError, "the first frame is not SETTINGS"}
	}
	if h.kind == frameData {
		return c.data(h)
	}
	b, err := c.read(h)
	if err != nil {
		return err
	}
	switch h.kind {
	case frameHeaders:
		return c.headers(h, b)
	case framePriority:
		return c.priority(h, b)
	case frameReset:
		return c.resetByClient(h, b)
	case frameSettings:
		return c.settings(h, b)
	case framePing:
		return c.ping(h, b)
	case frameGoAway:
		return c.goAwayByClient(h)
	case frameWindow:
		return c.windowUpdate(h, b)
	case frameContinuation:
		return connError{protocolError, "CONTINUATION without HEADERS"}
	case framePush:
		return connError{protocolError, "a client does not push"}
	}
	return c.fault() // of an extension that was not negotiated
}

// atHand reports whether the next frame has arrived.
func (c *conn) atHand() bool {
	n := c.in.Buffered()
	if n < headBytes {
		return false
	}
	b, _ := c.in.Peek(headBytes) // it is buffered
	return n >= headBytes+parseHead(b).length
}

func (c *conn) head() (head, error) {
	b, err := c.in.Peek(headBytes)
	if err != nil {
		return head{}, err
	}
	h := parseHead(b)
	_, _ = c.in.Discard(headBytes) // it is buffered
	if h.length > c.frameLimit() {
		return h, connError{frameSizeError, "a frame larger than the limit"}
	}
	return h, nil
}

// read returns the payload of a frame, to be used until the next one.
func (c *conn) read(h head) ([]byte, error) {
	b := c.payload
	if cap(b) < h.length {
		b = make([]byte, h.length)
		if h.length <= keptPayload {
			c.payload = b
		}
	}
	b = b[:h.length]
	_, err := io.ReadFull(c.in, b)
	return b, err
}

// fault counts a frame that makes work.
func (c *conn) fault() error {
	if c.faults.Add(1) > maxFaults {
		return connError{enhanceYourCalm, "too many frames that ask for nothing"}
	}
	return nil
}

// start runs the handlers of requests that were read.
func (c *conn) start() {
	for i, s := range c.ready {
		c.server.workers.run(s)
		c.ready[i] = nil
	}
	c.ready = c.ready[:0]
}

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
