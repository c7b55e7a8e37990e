package http2

import (
	"net"
	"sync"
)

// Gather returns a listener for the connections below TLS. On them, an answer of several TLS records leaves with one system call instead
// of one for each.
func Gather(l net.Listener) net.Listener { return gatherer{l} }

type gatherer struct{ net.Listener }

func (g gatherer) Accept() (net.Conn, error) {
	nc, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &gathered{Conn: nc}, nil
}

// gathered is a connection whose writes are held for a while. TLS writes from two goroutines, since one that reads may have to answer.
type gathered struct {
	net.Conn
	mu struct {
		sync.Mutex
		held *[]byte // nil: what is written goes out
	}
}

// records is memory for what is held: the records of the most that a connection sends at once.
var records = sync.Pool{New: func() any { b := make([]byte, 0, maxPending+maxPending/16); return &b }}

// together runs write, and sends what it wrote as one.
func (g *gathered) together(write func() (int, error)) error {
	g.mu.Lock()
	g.mu.held = records.Get().(*[]byte)
	g.mu.Unlock()
	_, err := write()
	g.mu.Lock()
	defer g.mu.Unlock()
	held := g.mu.held
	g.mu.held = nil
	if err == nil {
		_, err = g.Conn.Write(*held)
	}
	*held = (*held)[:0]
	records.Put(held)
	return err
}

func (g *gathered) Write(b []byte) (int, error) {
	g.mu.Lock()
	if g.mu.held == nil {
		g.mu.Unlock()
		return g.Conn.Write(b)
	}
	defer g.mu.Unlock()
	*g.mu.held = append(*g.mu.held, b...)
	return len(b), nil
}
