package robust_test

import (
	"io"
	"net"
	"sync"
	"testing"
)

// link is the network between one server and etcd: it passes bytes, until it is cut or silent.
type link struct {
	listener net.Listener
	to       string
	gate     sync.RWMutex // held while the link is silent

	mu    sync.Mutex
	conns map[net.Conn]bool
}

// newLink returns a link to an address of etcd; its own address is a free port.
func newLink(t *testing.T, to string) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &link{listener: l, to: to, conns: map[net.Conn]bool{}}
	var accepting sync.WaitGroup
	accepting.Go(k.accept)
	t.Cleanup(func() {
		l.Close()
		accepting.Wait()
		k.cut()
	})
	return k
}

func (k *link) address() string { return k.listener.Addr().String() }

func (k *link) accept() {
	for {
		near, err := k.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", k.to)
		if err != nil { // etcd is away
			near.Close()
			continue
		}
		k.mu.Lock()
		k.conns[near], k.conns[far] = true, true
		k.mu.Unlock()
		go k.pass(near, far)
		go k.pass(far, near)
	}
}

// pass copies from one end to the other until one of them closes.
func (k *link) pass(from, to net.Conn) {
	defer func() {
		from.Close()
		to.Close()
		k.mu.Lock()
		delete(k.conns, from)
		k.mu.Unlock()
	}()
	_, _ = io.Copy(gated{to, &k.gate}, from) // it ends when the link is cut, which is no error here
}

// gated writes only while the gate is open.
type gated struct {
	net.Conn
	gate *sync.RWMutex
}

func (g gated) Write(p []byte) (int, error) {
	g.gate.RLock()
	defer g.gate.RUnlock()
	return g.Conn.Write(p)
}

// cut closes every connection, as a router that restarts does; new ones are accepted.
func (k *link) cut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for c := range k.conns {
		c.Close()
	}
}

// silence stops all bytes without closing anything, as a lost network does, until heard is called.
func (k *link) silence() (heard func()) {
	k.gate.Lock()
	return k.gate.Unlock
}
