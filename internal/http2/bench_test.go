package http2

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// BenchmarkGet is a request of kubectl and an answer of 6 KB, without TLS: what this package does itself.
func BenchmarkGet(b *testing.B) {
	body := bytes.Repeat([]byte("x"), 6<<10)
	client, server := pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s := &Server{MaxStreams: 100, Window: 256 << 10, MaxHeaderBytes: 1 << 20}
		s.Serve(context.Background(), server, nil, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			h := w.Header()
			h["Content-Type"], h["Content-Length"], h["Audit-Id"] = []string{"application/json"}, []string{"6144"}, []string{"c4cbd5d9-9ca5-4a5d-a8f2-4d4e5c5f6c3c"}
			_, _ = w.Write(body)
		}))
	}()
	p := &peer{TB: b, Conn: client, Framer: http2.NewFramer(client, client)}
	p.pack = hpack.NewEncoder(&p.block)
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.SetReuseFrames()
	p.open()
	p.check(p.WriteWindowUpdate(0, 1<<30))
	b.ReportAllocs()
	id := uint32(1)
	frame := make([]byte, 16<<10)
	for b.Loop() {
		p.ask(id, true, ":method", "GET", ":scheme", "https", ":authority", "localhost:6443", ":path", "/api/v1/namespaces/default/pods/web-0",
			"accept", "application/json", "user-agent", "kubectl/v1.37.2 (linux/amd64)", "authorization", "Bearer token", "accept-encoding", "gzip")
		for end := false; !end; {
			_, err := io.ReadFull(client, frame[:headBytes])
			p.check(err)
			h := parseHead(frame)
			_, err = io.ReadFull(client, frame[:h.length])
			p.check(err)
			end = h.has(flagEndStream)
		}
		id += 2
		if id%1000 == 1 {
			p.check(p.WriteWindowUpdate(0, 500*6144))
		}
	}
	_ = client.Close()
	<-done
}

// BenchmarkServers compares with the standard library, over TLS, with its client.
func BenchmarkServers(b *testing.B) {
	for _, size := range []int{6 << 10, 1 << 20} {
		body := bytes.Repeat([]byte("x"), size)
		handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", fmt.Sprint(size))
			for rest := body; len(rest) > 0; {
				n := min(len(rest), 64<<10)
				_, _ = w.Write(rest[:n])
				rest = rest[n:]
			}
		})
		get := func(b *testing.B, url string, client *http.Client) {
			b.SetBytes(int64(size))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					answer, err := client.Get(url)
					if err != nil {
						b.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, answer.Body)
					_ = answer.Body.Close()
				}
			})
		}
		b.Run(fmt.Sprintf("ours/%d", size), func(b *testing.B) {
			front, client := serve(b, handler)
			get(b, front.URL, client)
		})
		b.Run(fmt.Sprintf("standard/%d", size), func(b *testing.B) {
			front := httptest.NewUnstartedServer(handler)
			front.TLS = &tls.Config{}
			front.EnableHTTP2 = true
			front.StartTLS()
			defer front.Close()
			get(b, front.URL, front.Client())
		})
	}
}
