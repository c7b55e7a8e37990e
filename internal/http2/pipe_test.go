package http2

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipe is a connection in memory that buffers, as a socket does: peers may both write before they read.
func pipe() (client, server net.Conn) {
	a, b := newHalf(), newHalf()
	return &end{in: a, out: b}, &end{in: b, out: a}
}

// maxHalf is what a half holds before its writer waits.
const maxHalf = 64 << 10

type half struct {
	sync.Mutex
	sync.Cond
	b      []byte
	closed bool
}

func newHalf() *half {
	h := &half{}
	h.L = &h.Mutex
	return h
}

type end struct {
	in, out *half
	timers  sync.Map // *half to *time.Timer
	late    sync.Map // *half to whether its deadline is over
}

func (e *end) Read(p []byte) (int, error) {
	h := e.in
	h.Lock()
	defer h.Unlock()
	for len(h.b) == 0 {
		if late, _ := e.late.Load(h); late == true {
			return 0, os.ErrDeadlineExceeded
		}
		if h.closed {
			return 0, io.EOF
		}
		h.Wait()
	}
	n := copy(p, h.b)
	h.b = h.b[n:]
	h.Broadcast()
	return n, nil
}

func (e *end) Write(p []byte) (n int, err error) {
	h := e.out
	h.Lock()
	defer h.Unlock()
	for len(p) > 0 {
		if late, _ := e.late.Load(h); late == true {
			return n, os.ErrDeadlineExceeded
		}
		if h.closed {
			return n, io.ErrClosedPipe
		}
		if room := min(maxHalf-len(h.b), len(p)); room > 0 {
			h.b = append(h.b, p[:room]...)
			p, n = p[room:], n+room
			h.Broadcast()
			continue
		}
		h.Wait()
	}
	return n, nil
}

func (e *end) Close() error {
	for _, h := range []*half{e.in, e.out} {
		h.Lock()
		h.closed = true
		h.Broadcast()
		h.Unlock()
	}
	return nil
}

func (e *end) deadline(h *half, at time.Time) {
	h.Lock()
	defer h.Unlock()
	if timer, ok := e.timers.LoadAndDelete(h); ok {
		timer.(*time.Timer).Stop()
	}
	e.late.Delete(h)
	if !at.IsZero() {
		e.timers.Store(h, time.AfterFunc(time.Until(at), func() {
			e.late.Store(h, true)
			h.Lock()
			h.Broadcast()
			h.Unlock()
		}))
	}
}

func (e *end) SetDeadline(at time.Time) error {
	e.deadline(e.in, at)
	e.deadline(e.out, at)
	return nil
}
func (e *end) SetReadDeadline(at time.Time) error  { e.deadline(e.in, at); return nil }
func (e *end) SetWriteDeadline(at time.Time) error { e.deadline(e.out, at); return nil }
func (e *end) LocalAddr() net.Addr                 { return &net.TCPAddr{} }
func (e *end) RemoteAddr() net.Addr                { return &net.TCPAddr{} }
