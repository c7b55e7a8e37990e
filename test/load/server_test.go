//go:build load

package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	token    = "load-token"
	podsPath = "/api/v1/namespaces/default/pods"
	mark     = "one-pod-of-many" // once in every pod
)

// server is bin/timonel apiserver, with a memory limit.
type server struct {
	url   string
	cmd   *exec.Cmd
	log   string
	bytes atomic.Int64 // of all lists

	mu      sync.Mutex
	clients map[int]*http.Client
}

func startServer(t *testing.T) *server {
	t.Helper()
	program, err := filepath.Abs("../../bin/timonel")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	tokens := filepath.Join(dir, "tokens.csv")
	if err := os.WriteFile(tokens, []byte(token+",load,load,\"system:masters\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	s := &server{url: "https://127.0.0.1:" + port, log: filepath.Join(dir, "log"), clients: map[int]*http.Client{}}
	out, err := os.Create(s.log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	s.cmd = exec.Command(program, "apiserver", "--data-dir", filepath.Join(dir, "data"), "--bind-address", "127.0.0.1", "--secure-port", port,
		"--token-auth-file", tokens, "--max-requests-inflight", "0", "--request-timeout", wait.String(), "--disable-admission-plugins", "ServiceAccount")
	s.cmd.Env = append(os.Environ(), fmt.Sprintf("GOMEMLIMIT=%dMiB", *limit))
	s.cmd.Stdout, s.cmd.Stderr = out, out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatalf("%v (make build makes it)", err)
	}
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if err = s.do(t.Context(), s.client(0), "GET", "/readyz", "", nil, nil); err == nil {
			return s
		}
		if time.Now().After(end) {
			t.Fatalf("the server is not ready: %v", err)
		}
	}
}

// alive says what became of the process.
func (s *server) alive() error {
	if err := s.cmd.Process.Signal(syscall.Signal(0)); err != nil {
		text, _ := os.ReadFile(s.log)
		return fmt.Errorf("the server is gone: %w\n%s", err, text[max(0, len(text)-4000):])
	}
	return nil
}

// status is a figure of /proc/PID/status, in bytes.
func (s *server) status(t *testing.T, field string) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(s.alive())
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n << 10
		}
	}
	t.Fatalf("no %s in /proc/%d/status", field, s.cmd.Process.Pid)
	return 0
}

func (s *server) memory(t *testing.T) string {
	return fmt.Sprintf("server: RSS %d MiB, of which files %d MiB", s.status(t, "VmRSS")>>20, s.status(t, "RssFile")>>20)
}

// peak is the most memory that the process had.
func (s *server) peak(t *testing.T) int64 { return s.status(t, "VmHWM") }

// client is the i-th client; each has connections of its own.
func (s *server) client(i int) *http.Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients[i] == nil {
		s.clients[i] = newClient()
	}
	return s.clients[i]
}

func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // the server made its own authority
		ForceAttemptHTTP2: true, DisableCompression: true,
	}}
}

func (s *server) request(ctx context.Context, client *http.Client, method, path, contentType string, body []byte) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, s.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	return resp, nil
}

func (s *server) do(ctx context.Context, client *http.Client, method, path, contentType string, body []byte, into io.Writer) error {
	resp, err := s.request(ctx, client, method, path, contentType, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if into == nil {
		into = io.Discard
	}
	_, err = io.Copy(into, resp.Body)
	return err
}

// revision is that of the pods now.
func (s *server) revision(t *testing.T) int64 {
	t.Helper()
	var list head
	s.decode(t, t.Context(), "GET", podsPath+"?limit=1", "", nil, &list)
	return list.revision(t)
}

// head is what the test wants to know of an object or a list.
type head struct {
	Metadata struct {
		ResourceVersion string `json:"resourceVersion"`
	} `json:"metadata"`
}

func (h *head) revision(t *testing.T) int64 {
	n, err := strconv.ParseInt(h.Metadata.ResourceVersion, 10, 64)
	if err != nil {
		t.Error(err)
	}
	return n
}

func (s *server) decode(t *testing.T, ctx context.Context, method, path, contentType string, body []byte, into any) {
	t.Helper()
	resp, err := s.request(ctx, s.client(0), method, path, contentType, body)
	if err != nil {
		if ctx.Err() == nil {
			t.Error(err)
		}
		return
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(bufio.NewReader(resp.Body)).Decode(into); err != nil && ctx.Err() == nil {
		t.Error(err)
	}
}

// label changes a pod and returns its revision, or 0 if ctx ended first.
func (s *server) label(t *testing.T, ctx context.Context, i int, value string) int64 {
	t.Helper()
	var changed head
	s.decode(t, ctx, "PATCH", podsPath+"/"+podName(i), "application/merge-patch+json", []byte(`{"metadata":{"labels":{"change":"`+value+`"}}}`), &changed)
	if ctx.Err() != nil {
		return 0
	}
	return changed.revision(t)
}

// change goes on changing pods, some hundred a second, as kubelets do.
func (s *server) change(t *testing.T, ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		s.label(t, ctx, n*7919%*pods, strconv.Itoa(n))
		time.Sleep(2 * time.Millisecond) // load, not synchronisation
	}
}

func podName(i int) string { return fmt.Sprintf("pod-%06d", i) }
func podOn(node int) int   { return node } // the first one there

// pod is about what a real one is: 6 KB of JSON once it is stored.
func pod(i int) []byte {
	var env []string
	for n := range 40 {
		env = append(env, fmt.Sprintf(`{"name":"SETTING_%02d","value":"some value that is as long as such values are, %d"}`, n, n))
	}
	return fmt.Appendf(nil, `{"metadata":{"name":%q,"labels":{"app":"load","part":"%d"},"annotations":{"load.timonel.dev/mark":%q}},"spec":{"nodeName":"node-%d",
		"containers":[{"name":"main","image":"example.com/load:v1","env":[%s],"resources":{"requests":{"cpu":"100m","memory":"64Mi"}}}]}}`,
		podName(i), i%100, mark, i%nodes, strings.Join(env, ","))
}
