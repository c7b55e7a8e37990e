package httpapi

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/fairness"
)

// raw sends text over a connection of its own to a real HTTP/1.1 server.
func (f *front) raw(text string) net.Conn {
	f.Helper()
	server := httptest.NewServer(f.handler)
	f.Cleanup(server.Close)
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = conn.Close() })
	if _, err := conn.Write([]byte(text)); err != nil {
		f.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(unreadPatience * 4 / 5))
	return conn
}

// The answer does not wait for a body that nobody reads, and never comes.
func TestBodyThatNeverComes(t *testing.T) {
	f := open(t, nil)
	for _, one := range []struct {
		request, who string
		code         int
	}{
		{"GET /version", "user", 200}, {"GET " + collection, "user", 200}, {"GET " + collection, "nobody", 403},
		{"POST " + collection, "wrong", 401}, {"PUT " + collection, "user", 405}, {"POST " + collection + "?dryRun=x", "user", 422},
	} {
		conn := f.raw(one.request + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + one.who + "\r\nContent-Length: 10\r\n\r\n")
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%s: %v", one.request, err)
		} else if answer.StatusCode != one.code {
			t.Errorf("%s: %s", one.request, answer.Status)
		}
		_ = conn.Close()
	}
}

// A body that nobody reads does not end a connection either, if it comes.
func TestBodyThatNobodyReads(t *testing.T) {
	f := open(t, nil)
	conn := f.raw(strings.Repeat("GET /version HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer user\r\nContent-Length: 2\r\n\r\n{}", 3))
	in := bufio.NewReader(conn)
	for i := range 3 {
		answer, err := http.ReadResponse(in, nil)
		if err != nil || answer.StatusCode != 200 {
			t.Fatalf("answer %d: %v %v", i, answer, err)
		}
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			t.Fatal(err)
		}
	}
}

// A body that does not come in time ends its connection.
func TestBodyThatStalls(t *testing.T) {
	f := open(t, nil)
	for _, length := range []string{"Content-Length: 99", "Transfer-Encoding: chunked"} {
		conn := f.raw("POST " + collection + "?timeout=100ms HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer user\r\nContent-Type: application/json\r\n" + length + "\r\n\r\n")
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || answer.StatusCode != 504 || !answer.Close {
			t.Errorf("%s: %v %v", length, answer, err)
		}
	}
}

// What comes too late is not taken for another request.
func TestBodyThatComesInPart(t *testing.T) {
	f := open(t, nil)
	for _, length := range []string{"Content-Length: 99", "Transfer-Encoding: chunked"} {
		t.Run(length, func(t *testing.T) {
			t.Parallel()
			conn := f.raw("GET " + collection + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer user\r\n" + length + "\r\n\r\n")
			in := bufio.NewReader(conn)
			if answer, err := http.ReadResponse(in, nil); err != nil || answer.StatusCode != 200 {
				t.Fatalf("%v %v", answer, err)
			} else if _, err := io.Copy(io.Discard, answer.Body); err != nil {
				t.Fatal(err)
			}
			_, _ = conn.Write([]byte("0")) // the beginning of it, which is not the beginning of a request
			_ = conn.SetReadDeadline(time.Now().Add(3 * unreadPatience))
			if b, err := in.ReadByte(); !errors.Is(err, io.EOF) {
				t.Errorf("the connection goes on with %q, %v", b, err)
			}
		})
	}
}

// limits is a connection of HTTP/1.1 that tells which limits it was given. Its client reads nothing: a write waits for its deadline.
type limits struct {
	*httptest.ResponseRecorder
	mu     sync.Mutex
	read   time.Time
	duplex bool
	cut    chan struct{}
}

func (l *limits) SetReadDeadline(at time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.read = at
	return nil
}

func (l *limits) EnableFullDuplex() error { l.duplex = true; return nil }

func (l *limits) SetWriteDeadline(time.Time) error {
	close(l.cut)
	return nil
}

func (l *limits) Write(b []byte) (int, error) {
	if len(b) <= smallWrite {
		return l.ResponseRecorder.Write(b)
	}
	<-l.cut
	return 0, os.ErrDeadlineExceeded
}

func (f *front) limited(method, target, body string) *limits {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer user")
	l := &limits{ResponseRecorder: httptest.NewRecorder(), cut: make(chan struct{})}
	func() {
		defer func() { _ = recover() }() // http.ErrAbortHandler, which ends the connection
		f.handler.ServeHTTP(l, r)
	}()
	return l
}

// After the answer a connection waits a while for a body that was announced; what was read needs no waiting for.
func TestWaitingForABodyEnds(t *testing.T) {
	f := open(t, nil)
	before := time.Now()
	if l := f.limited("GET", "/version", "{}"); !l.duplex || l.read.Before(before.Add(unreadPatience)) || l.read.After(time.Now().Add(unreadPatience)) {
		t.Errorf("unread: duplex %t, reading ends at %v", l.duplex, l.read)
	}
	if l := f.limited("POST", collection, `{"metadata":{"name":"x"}}`); l.Code != 201 || !l.read.IsZero() {
		t.Errorf("read: %d, reading ends at %v", l.Code, l.read)
	}
	if l := f.limited("GET", "/version", ""); l.duplex || !l.read.IsZero() {
		t.Errorf("none: duplex %t, reading ends at %v", l.duplex, l.read)
	}
}

// A client that does not read its answer keeps its seat no longer than the request may take.
func TestReaderThatDoesNotRead(t *testing.T) {
	f := open(t, func(c *Config) {
		c.RequestTimeout = 200 * time.Millisecond
		c.Pacer = fairness.New(fairness.Limits{Reading: 1, Writing: 1})
	})
	for i := range 3 {
		f.do("user", "POST", collection, fmt.Sprintf(`{"metadata":{"name":"x%d"},"data":{"k":"%s"}}`, i, strings.Repeat("x", 100_000)))
	}
	began := time.Now()
	for _, path := range []string{collection, collection + "/x1"} {
		f.limited("GET", path, "")
	}
	if took := time.Since(began); took < 400*time.Millisecond || took > 20*time.Second {
		t.Errorf("two answers that nobody reads took %v", took)
	}
	if w := f.do("user", "GET", collection, ""); w.Code != 200 {
		t.Errorf("then: %d %s", w.Code, w.Body)
	}
}
