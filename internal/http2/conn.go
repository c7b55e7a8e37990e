package http2

import (
	"bufio"
	"context"
	"crypto/tls"
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
	c.max = min(int64(s.Window)*int64(s.MaxStreams), mostWindow)
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
	if string(begin[:]) != preface {
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
	c.mu.idle.Stop() // the end of the last stream may have set it
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
