package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/etcd"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// running is a server that a test talks to.
type running struct {
	kubernetes.Interface
	t       testing.TB
	server  *Server
	dynamic dynamic.Interface
	http    *http.Client
	stop    func()
}

// startServer runs a server on a free port of 127.0.0.1, with its data in config.DataDir or a new directory. What is to be
// changed in it is changed before it runs.
func startServer(t testing.TB, config Config, change ...func(*Server)) *running {
	t.Helper()
	config.BindAddress, config.SecurePort, config.EtcdUnsafeNoFsync = "127.0.0.1", 0, true
	if config.AdvertiseAddress == "" {
		config.AdvertiseAddress = "127.0.0.1"
	}
	if config.DataDir == "" {
		config.DataDir = t.TempDir()
	}
	config.Log = slog.New(slog.DiscardHandler)
	if _, waits := t.(*testing.T); waits { // a benchmark measures the usual pace
		config.pace = 50 * time.Millisecond
	}
	s, err := Open(t.Context(), config, NodeIdentity{})
	if err != nil {
		t.Fatal(err)
	}
	for _, do := range change {
		do(s)
	}
	listener, err := s.Listen()
	if err != nil {
		t.Fatal(err)
	}
	r := &running{t: t, server: s}
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- s.Run(ctx, listener, func() { close(ready) }) }()
	r.stop = func() {
		if cancel == nil {
			return
		}
		cancel()
		cancel = nil
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	t.Cleanup(func() { r.stop() })
	select {
	case <-ready:
	case err := <-done:
		done <- err
		t.Fatalf("run: %v", err)
	}
	if r.Interface, err = kubernetes.NewForConfig(s.Loopback()); err != nil {
		t.Fatal(err)
	}
	if r.dynamic, err = dynamic.NewForConfig(s.Loopback()); err != nil {
		t.Fatal(err)
	}
	if r.http, err = rest.HTTPClientFor(s.Loopback()); err != nil {
		t.Fatal(err)
	}
	return r
}

// get returns the answer to a GET of a path.
func (r *running) get(path string) (status int, body string) {
	r.t.Helper()
	status, _, body = r.send("GET", path, nil, "")
	return status, body
}

// post returns the answer to a POST of JSON.
func (r *running) post(path, body string) (status int, answer string) {
	r.t.Helper()
	status, _, answer = r.send("POST", path, http.Header{"Content-Type": {"application/json"}}, body)
	return status, answer
}

// send returns the answer to a request that is sent once: clients of client-go would try again.
func (r *running) send(method, path string, header http.Header, body string) (status int, answered http.Header, answer string) {
	r.t.Helper()
	q, err := http.NewRequestWithContext(r.t.Context(), method, r.server.URL()+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for name, values := range header {
		q.Header[name] = values
	}
	resp, err := r.http.Do(q)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

// startEtcd runs an etcd for several servers, and returns its endpoint and a store on it.
func startEtcd(t *testing.T, dir string) (endpoint string, store storage.Store) {
	t.Helper()
	endpoint = "unix://" + filepath.Join(t.TempDir(), "etcd.sock")
	s, err := etcd.Embedded(t.Context(), etcd.EmbeddedConfig{Dir: dir, Listen: []string{endpoint}, Compaction: -1, NoFsync: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return endpoint, s
}
