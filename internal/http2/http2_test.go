package http2

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// serve runs handler behind TLS, and returns a client that speaks HTTP/2 only.
func serve(t testing.TB, handler http.HandlerFunc) (*httptest.Server, *http.Client) {
	t.Helper()
	front := httptest.NewUnstartedServer(handler)
	front.TLS = &tls.Config{}
	front.Config.TLSConfig = front.TLS
	s := &Server{MaxStreams: 100, Window: 256 << 10, MaxHeaderBytes: 1 << 20, IdleTimeout: time.Minute}
	s.Attach(front.Config)
	front.StartTLS()
	t.Cleanup(front.Close)
	transport := front.Client().Transport.(*http.Transport)
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP2(true)
	return front, front.Client()
}

// What a handler sees of a request.
func TestRequest(t *testing.T) {
	front, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %v %s %d %q %v %v", r.Method, r.URL.Path, r.URL.Query().Get("q"), r.Header["X-Several"], r.Proto, r.ContentLength, b, err, r.TLS != nil && r.Host != "")
	})
	r, _ := http.NewRequest(http.MethodPut, front.URL+"/a%20b?q=1", strings.NewReader("body"))
	r.Header["X-Several"] = []string{"one", "two"}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(answer.Body)
	if want := `PUT /a b 1 [one two] HTTP/2.0 4 "body" <nil> true`; string(b) != want {
		t.Errorf("%s\nwant %s", b, want)
	}
	if answer.ContentLength != int64(len(b)) || answer.Header.Get("Date") == "" || !strings.HasPrefix(answer.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("%d %v", answer.ContentLength, answer.Header)
	}
}

// Bodies of all sizes go both ways, many at once.
func TestBodies(t *testing.T) {
	front, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("length") {
			w.Header().Set("Content-Length", r.Header.Get("Content-Length"))
		}
		_, _ = io.Copy(w, r.Body)
	})
	var group sync.WaitGroup
	for _, size := range []int{0, 1, 100, 4 << 10, 5 << 10, 16 << 10, 100_000, 300_000, 9 << 20} {
		for _, query := range []string{"", "?length"} {
			group.Go(func() {
				want := bytes.Repeat([]byte{byte('a' + size%20)}, size)
				answer, err := client.Post(front.URL+"/"+query, "text/plain", bytes.NewReader(want))
				if err != nil {
					t.Error(err)
					return
				}
				defer answer.Body.Close()
				if b, err := io.ReadAll(answer.Body); err != nil || !bytes.Equal(b, want) {
					t.Errorf("%d bytes became %d: %v", size, len(b), err)
				}
			})
		}
	}
	group.Wait()
}

// An answer is streamed piece by piece, and its handler learns that the client went away.
func TestStream(t *testing.T) {
	next, gone := make(chan string), make(chan error, 1)
	front, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusAccepted)
		flush := http.NewResponseController(w)
		for {
			_ = flush.Flush()
			select {
			case text := <-next:
				_, _ = io.WriteString(w, text)
			case <-r.Context().Done():
				_, err := io.WriteString(w, "to nobody")
				gone <- errors.Join(r.Context().Err(), err)
				return
			}
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	r, _ := http.NewRequestWithContext(ctx, http.MethodGet, front.URL, nil)
	answer, err := client.Do(r)
	if err != nil || answer.StatusCode != http.StatusAccepted {
		t.Fatal(answer, err)
	}
	for _, text := range []string{"one", "two", strings.Repeat("x", 40_000)} {
		next <- text
		b := make([]byte, len(text))
		if _, err := io.ReadFull(answer.Body, b); err != nil || string(b) != text {
			t.Fatalf("%q, %v", b, err)
		}
	}
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) || !errors.As(err, new(streamError)) {
		t.Errorf("the handler was told %v", err)
	}
}
