package http2

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"
)

// response is an http.ResponseWriter. It is also an http.Flusher, and http.ResponseController can set its deadlines.
//
// An answer whose Content-Length its handler gave goes out as it is written. Another is held until it has maxHeld bytes, is flushed or ends,
// so that a short one gets its length.
type response struct {
	stream *stream
	header http.Header // the handler's
	status int         // 0: not given yet
	head   http.Header // as it was when the status was given
	held   []byte      // of the body
	length int64       // of the body, as announced; -1: unknown
	got    int64       // bytes that were written
	begun  bool        // the head is on its way (under conn.mu)
}

// maxHeld is how much of an answer of unknown length is held.
const maxHeld = 4 << 10

func (r *response) Header() http.Header {
	if r.header == nil {
		r.header = make(http.Header, 8)
	}
	return r.header
}

func (r *response) WriteHeader(code int) {
	switch {
	case code < 100 || code > 999:
		panic(fmt.Sprintf("invalid WriteHeader code %v", code))
	case r.status != 0:
		return
	case code < 200:
		r.inform(code)
		return
	}
	r.status, r.length = code, -1
	if text := r.header.Get("Content-Length"); text != "" {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 {
			r.length = n
		} else {
			r.header.Del("Content-Length")
		}
	}
	r.head = r.header
	if r.length < 0 && r.bodied() {
		r.head = r.header.Clone() // it is sent later
		return
	}
	mu := &r.stream.c.mu
	mu.Lock()
	defer mu.Unlock()
	r.begin(!r.bodied() || r.length == 0)
}

// inform sends an answer before the answer (RFC 9110, section 15.2).
func (r *response) inform(code int) {
	c := r.stream.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if code == http.StatusSwitchingProtocols || r.stream.failed() != nil { // HTTP/2 has no upgrade
		return
	}
	r.stream.expects = r.stream.expects && code != http.StatusContinue
	c.appendHeaders(r.stream.id, false, func(e *hpack.Encoder) {
		status(e, code)
		encode(e, r.header)
	})
	c.send(r.stream)
}

// bodied reports whether the answer has a body (RFC 9110, section 6.4.1).
func (r *response) bodied() bool {
	return r.status != http.StatusNoContent && r.status != http.StatusNotModified && r.stream.request.Method != http.MethodHead
}

func (r *response) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	if r.status == http.StatusNoContent || r.status == http.StatusNotModified {
		return 0, http.ErrBodyNotAllowed
	}
	if r.length >= 0 && r.got+int64(len(b)) > r.length {
		return 0, http.ErrContentLength
	}
	r.got += int64(len(b))
	if !r.bodied() {
		return len(b), nil
	}
	c := r.stream.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if !r.begun {
		if len(r.held)+len(b) <= maxHeld {
			r.held = append(r.held, b...)
			return len(b), r.stream.failed()
		}
		if err := r.release(b, false); err != nil {
			return 0, err
		}
	}
	last := r.got == r.length
	if err := c.body(r.stream, b, last); err != nil {
		return 0, err
	}
	if last {
		c.send(r.stream)
	}
	return len(b), nil
}

func (r *response) WriteString(s string) (int, error) { return r.Write([]byte(s)) }

// release sends the head and what is held; next is what comes after that. c.mu is held.
func (r *response) release(next []byte, end bool) error {
	if len(r.held) > 0 {
		next = r.held
	}
	if len(next) > 0 && r.head["Content-Type"] == nil && r.head.Get("Content-Encoding") == "" {
		r.announce("Content-Type", http.DetectContentType(next))
	}
	r.begin(end && len(r.held) == 0)
	held := r.held
	r.held = nil
	if len(held) == 0 {
		return r.stream.failed()
	}
	return r.stream.c.body(r.stream, held, end)
}

// announce sets a field of the head that is sent.
func (r *response) announce(key, value string) {
	if r.head == nil {
		r.head = http.Header{}
	}
	r.head[key] = []string{value}
}

// begin sends the head. c.mu is held.
func (r *response) begin(end bool) {
	s := r.stream
	r.begun = true
	if s.failed() != nil {
		return
	}
	s.c.faults.Store(0)
	end = end && r.head["Trailer"] == nil
	s.c.appendHeaders(s.id, end, func(e *hpack.Encoder) {
		status(e, r.status)
		encode(e, r.head)
		if r.head["Date"] == nil {
			_ = e.WriteField(hpack.HeaderField{Name: "date", Value: date.now()})
		}
	})
	if end {
		s.sent = true
	}
	r.head = nil
}

func (r *response) Flush() { _ = r.FlushError() }

// FlushError is what http.ResponseController calls.
func (r *response) FlushError() error {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	c := r.stream.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if !r.begun {
		if err := r.release(nil, false); err != nil {
			return err
		}
	}
	c.sendTogether(r.stream)
	return r.stream.failed()
}

// finish ends the answer, after the handler. c.mu is held; what is pending is sent by the caller.
func (r *response) finish() {
	s := r.stream
	if r.status == 0 {
		r.status, r.length, r.head = http.StatusOK, -1, r.header
	}
	trailers := r.trailers()
	if !r.begun {
		if r.bodied() && r.head["Content-Length"] == nil {
			r.announce("Content-Length", strconv.Itoa(len(r.held)))
		}
		if r.release(nil, trailers == nil) != nil {
			return
		}
	}
	switch {
	case s.sent || s.failed() != nil:
	case r.got < r.length && r.bodied(): // the stream will be reset
	case trailers != nil:
		s.sent = true
		s.c.appendHeaders(s.id, true, func(e *hpack.Encoder) { encode(e, trailers) })
	default:
		s.c.endStream(s)
	}
}

// trailers are the fields that the handler announced as such, or named with http.TrailerPrefix.
func (r *response) trailers() (t http.Header) {
	add := func(key string, values []string) {
		if key = http.CanonicalHeaderKey(key); len(values) > 0 && httpguts.ValidTrailerHeader(key) {
			if t == nil {
				t = http.Header{}
			}
			t[key] = values
		}
	}
	for _, names := range r.header["Trailer"] {
		for name := range strings.SplitSeq(names, ",") {
			name = http.CanonicalHeaderKey(strings.TrimSpace(name))
			add(name, r.header[name])
		}
	}
	for key, values := range r.header {
		if name, ok := strings.CutPrefix(key, http.TrailerPrefix); ok {
			add(name, values)
		}
	}
	return t
}

func (r *response) SetReadDeadline(at time.Time) error {
	r.stream.set(&r.stream.read, at)
	return nil
}

func (r *response) SetWriteDeadline(at time.Time) error {
	r.stream.set(&r.stream.write, at)
	return nil
}

// EnableFullDuplex: a handler may read the body while it answers, as always in HTTP/2.
func (r *response) EnableFullDuplex() error { return nil }

var (
	_ http.Flusher    = (*response)(nil)
	_ io.StringWriter = (*response)(nil)
)
