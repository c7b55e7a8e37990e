// Package http2 serves HTTP/2 (RFC 9113) over TLS to an http.Handler, in the place of the standard library's server.
//
// It exists for its write path. An answer is encoded once, straight into what the connection sends next; whoever finds nobody
// sending sends it, with all that other streams have added meanwhile, as one write of whole TLS records. The standard
// library hands each frame from goroutine to goroutine and cuts answers at its buffer of 4 KB.
//
// Promises: a handler sees what net/http promises it (body, context, flush, deadlines, trailers). Memory of a connection is bounded:
// by the windows for what comes in, by maxPending for what goes out. A client that breaks the protocol loses its stream or its
// connection, and no other. A write that returned has let go of its bytes.
// Does not know: HTTP/1, push, priorities, extended CONNECT; which of them a client asks for is refused or ignored as the RFC says.
// Locks: Server.mu, then conn.mu. Start reading at conn.go; receive.go and send.go
// are the two directions.
package http2

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// Server says how connections are served; zero values are not filled in, but for the optional ones.
type Server struct {
	MaxStreams     int           // requests at once on a connection
	Window         int           // bytes of a request's body that are held before the handler reads them; also the largest frame
	MaxHeaderBytes int           // of a request, counted as SETTINGS_MAX_HEADER_LIST_SIZE counts
	IdleTimeout    time.Duration // of a connection without a request; 0: none

	workers workers

	mu struct {
		sync.Mutex
		conns  map[*conn]struct{}
		ending bool
	}
}

// Attach makes front serve the connections on which TLS negotiated HTTP/2 through s, and end them when front is shut down. It changes
// front.TLSConfig, which must be there.
func (s *Server) Attach(front *http.Server) {
	front.TLSConfig.NextProtos = []string{"h2", "http/1.1"}
	front.TLSConfig.DynamicRecordSizingDisabled = true // answers fill their records from the first
	front.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){"h2": s.serveTLS}
	front.RegisterOnShutdown(s.Shutdown)
}

func (s *Server) serveTLS(_ *http.Server, nc *tls.Conn, handler http.Handler) {
	base := context.Background()
	if h, ok := handler.(interface{ BaseContext() context.Context }); ok {
		base = h.BaseContext()
	}
	state := nc.ConnectionState()
	s.Serve(base, nc, &state, handler)
}

// Serve serves one connection until it ends. state is what its requests show as TLS, or nil.
func (s *Server) Serve(base context.Context, nc net.Conn, state *tls.ConnectionState, handler http.Handler) {
	c := newConn(s, nc, handler)
	c.tls = state
	c.base = context.WithoutCancel(base) // its end is told to each stream, so that none registers with a parent
	s.mu.Lock()
	if s.mu.conns == nil {
		s.mu.conns = map[*conn]struct{}{}
	}
	s.mu.conns[c] = struct{}{}
	ending := s.mu.ending
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.mu.conns, c)
		s.mu.Unlock()
	}()
	if ending {
		c.shutdown()
	}
	c.serve()
}

// Shutdown asks the client of each connection to open no further stream; a connection closes after its last one. It does not wait.
func (s *Server) Shutdown() {
	s.mu.Lock()
	s.mu.ending = true
	s.workers.retire()
	conns := make([]*conn, 0, len(s.mu.conns))
	for c := range s.mu.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		go c.shutdown() // it writes, and the client may not read
	}
}

// workers are goroutines that have run a handler and wait for the next: their stacks have grown to what handlers need.
type workers struct {
	sync.Mutex
	idle    []chan *stream
	retired bool
}

// maxIdleWorkers bounds the goroutines that wait for work.
const maxIdleWorkers = 32

func (w *workers) run(s *stream) {
	w.Lock()
	n := len(w.idle)
	if n == 0 {
		w.Unlock()
		go w.work(s)
		return
	}
	next := w.idle[n-1]
	w.idle = w.idle[:n-1]
	w.Unlock()
	next <- s
}

func (w *workers) work(s *stream) {
	s.handle()
	next := make(chan *stream, 1)
	for w.wait(next) {
		s, more := <-next
		if !more {
			return
		}
		s.handle()
	}
}

// wait adds a worker to the idle ones, if there is room.
func (w *workers) wait(next chan *stream) bool {
	w.Lock()
	defer w.Unlock()
	if w.retired || len(w.idle) >= maxIdleWorkers {
		return false
	}
	w.idle = append(w.idle, next)
	return true
}

// retire ends the workers that are idle or will be.
func (w *workers) retire() {
	w.Lock()
	defer w.Unlock()
	w.retired = true
	for _, next := range w.idle {
		close(next)
	}
	w.idle = nil
}
