package http2

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"
)

// stream is a request and its answer.
type stream struct {
	c         *conn
	id        uint32
	request   *http.Request
	cancel    context.CancelFunc
	response  response
	oversized bool // the request's header was too large to be kept

	// What follows is under conn.mu.
	wake   sync.Cond // something of the following has changed
	err    error     // why it ended early
	window int64     // what the client takes of the answer
	sent   bool      // our side is ended

	received bool     // the client's side is ended
	chunks   [][]byte // of the body, not read yet
	declared int64    // Content-Length; -1: unknown
	got      int64    // bytes of the body that came
	room     int      // bytes of the body that may come
	credit   int      // bytes that were read and not given back to the client yet
	closed   bool     // nobody will read the body
	expects  bool     // the client waits for 100 (Continue)

	read, write deadline
}

// deadline is one that a handler has set.
type deadline struct {
	timer *time.Timer
	over  bool
}

var (
	aLongTimeAgo   = time.Unix(1, 0)
	errBodyClosed  = errors.New("http2: the body was closed")
	errHandlerOver = errors.New("http2: the handler has returned")
)

// newStream makes the stream of a request whose header was read. c.mu is held.
func (c *conn) newStream(h head) (*stream, error) {
	s := &stream{c: c, id: h.stream, window: c.mu.streamWindow, declared: -1, room: c.server.Window}
	s.wake.L = &c.mu.Mutex
	s.response.stream = s
	s.received = h.has(flagEndStream)
	ctx, cancel := context.WithCancel(c.base)
	r, err := c.fields.request(s)
	if c.fields.room < 0 {
		r, err = &http.Request{Method: http.MethodGet}, nil
		s.oversized = true
	}
	if err != nil {
		cancel()
		return nil, err
	}
	if s.received && s.declared > 0 {
		cancel()
		return nil, streamError{h.stream, protocolError, "a body was announced and does not come"}
	}
	s.cancel = cancel
	s.request = r.WithContext(ctx)
	return s, nil
}

// failed says why nothing more can be sent.
func (s *stream) failed() error {
	switch {
	case s.err != nil:
		return s.err
	case s.c.mu.err != nil:
		return s.c.mu.err
	case s.write.over:
		return os.ErrDeadlineExceeded
	}
	return nil
}

// close ends a stream, early if err is not nil.
func (s *stream) close(err error) {
	if s.err == nil {
		s.err = err
	}
	if s.c.mu.streams[s.id] == s {
		delete(s.c.mu.streams, s.id)
		s.c.rest()
	}
	s.drop()
	s.cancel()
	s.wake.Broadcast()
	s.c.mu.room.Broadcast()
}

// drop lets go of the body that was not read.
func (s *stream) drop() {
	s.closed = true
	n := 0
	for _, b := range s.chunks {
		n += len(b)
	}
	s.chunks = nil
	if n += s.credit; n > 0 {
		s.credit = 0
		s.c.giveBack(n)
	}
}

// take takes a piece of the body, which arrived in a frame with that head.
func (s *stream) take(b []byte, h head) error {
	if s.room -= h.length; s.room < 0 {
		s.c.giveBack(h.length)
		return streamError{s.id, flowControlError, "more DATA than the window of the stream has"}
	}
	s.got += int64(len(b))
	s.received = h.has(flagEndStream)
	if s.declared >= 0 && (s.got > s.declared || s.received && s.got != s.declared) {
		s.c.giveBack(h.length)
		return streamError{s.id, protocolError, "the body is not as long as announced"}
	}
	if s.closed {
		s.c.giveBack(h.length)
		return nil
	}
	if len(b) > 0 {
		s.chunks = append(s.chunks, b)
	}
	s.release(h.length - len(b)) // padding
	s.wake.Broadcast()
	return nil
}

// trailers end a request. What they say is not passed on.
func (s *stream) trailers(h head, f *fields) error {
	switch {
	case s.received:
		return streamError{s.id, streamClosed, "HEADERS after the end"}
	case !h.has(flagEndStream):
		return streamError{s.id, protocolError, "trailers that are not the end"}
	case f.pseudo:
		return streamError{s.id, protocolError, "pseudo-headers in trailers"}
	case s.declared >= 0 && s.got != s.declared:
		return streamError{s.id, protocolError, "the body is not as long as announced"}
	}
	s.received = true
	s.wake.Broadcast()
	return nil
}

// release counts bytes that are no longer held, and tells the client of them when they are many and more are to come.
func (s *stream) release(n int) {
	if s.credit += n; s.credit < s.c.server.Window/2 && !s.received {
		return
	}
	if !s.received {
		s.c.mu.pending = appendWindow(s.c.mu.next(), s.id, s.credit)
		s.room += s.credit
		s.c.send(nil)
	}
	n, s.credit = s.credit, 0
	s.c.giveBack(n)
}

// requestBody is the body of a request, to its handler.
type requestBody struct{ s *stream }

func (b requestBody) Read(p []byte) (int, error) {
	s, mu := b.s, &b.s.c.mu
	mu.Lock()
	defer mu.Unlock()
	if s.expects {
		s.expects = false
		if !s.response.begun && s.failed() == nil {
			s.c.appendHeaders(s.id, false, func(e *hpack.Encoder) { status(e, http.StatusContinue) })
			s.c.send(nil)
		}
	}
	for {
		switch {
		case s.err != nil:
			return 0, s.err
		case s.closed:
			return 0, errBodyClosed
		case s.read.over:
			return 0, os.ErrDeadlineExceeded
		case len(s.chunks) > 0:
			n := copy(p, s.chunks[0])
			if s.chunks[0] = s.chunks[0][n:]; len(s.chunks[0]) == 0 {
				s.chunks[0] = nil
				s.chunks = s.chunks[1:]
			}
			s.release(n)
			return n, nil
		case s.received:
			return 0, io.EOF
		case len(p) == 0:
			return 0, nil
		}
		s.wake.Wait()
	}
}

func (b requestBody) Close() error {
	b.s.c.mu.Lock()
	defer b.s.c.mu.Unlock()
	b.s.drop()
	return nil
}

// set changes a deadline. The zero time is none.
func (s *stream) set(d *deadline, at time.Time) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.over = false
	over := func() {
		d.over = true
		s.wake.Broadcast()
		s.c.mu.room.Broadcast()
		if d == &s.write {
			s.c.hurry(s)
		}
	}
	switch left := time.Until(at); {
	case at.IsZero():
	case left <= 0:
		over()
	default:
		var timer *time.Timer
		timer = time.AfterFunc(left, func() {
			s.c.mu.Lock()
			defer s.c.mu.Unlock()
			if d.timer == timer {
				over()
			}
		})
		d.timer = timer
	}
}

// handle runs the handler of the request, and ends the stream.
func (s *stream) handle() {
	defer s.end()
	if s.oversized {
		http.Error(&s.response, "the header of the request is too large", http.StatusRequestHeaderFieldsTooLarge)
		return
	}
	s.c.handler.ServeHTTP(&s.response, s.request)
}

func (s *stream) end() {
	failure := recover()
	if failure != nil && failure != http.ErrAbortHandler { //nolint:errorlint // it is a sentinel, compared as net/http does
		log.Printf("http2: panic serving %s: %v\n%s", s.c.remote, failure, debug.Stack())
	}
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.running--
	if failure == nil {
		s.response.finish()
	}
	switch early := s.err != nil || c.mu.err != nil; {
	case early:
	case failure != nil || !s.sent: // what was promised is not kept
		c.mu.pending = appendReset(c.mu.next(), s.id, internalError)
	case !s.received:
		c.mu.pending = appendReset(c.mu.next(), s.id, noError) // the client need not send the rest
	}
	for _, d := range []*deadline{&s.read, &s.write} {
		if d.timer != nil {
			d.timer.Stop()
		}
	}
	s.close(errHandlerOver)
	c.send(s)
}
