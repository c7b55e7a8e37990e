//go:build containers

package serve

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	clientexec "k8s.io/client-go/util/exec"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"k8s.io/streaming/pkg/httpstream"

	"github.com/timonel/timonel/internal/node/containerd"
	"github.com/timonel/timonel/internal/proxy"
	"github.com/timonel/timonel/internal/proxy/stream/streamtest"
)

const demoImage = "timonel.dev/demo:v1"

// buildDemo makes the demo image as `make` does.
func buildDemo(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run := func(where string, args ...string) {
		t.Helper()
		cmd := exec.Command("go", args...)
		cmd.Dir, cmd.Env = where, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %v: %v\n%s", args, err, out)
		}
	}
	run(root, "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "demo"), "./demo")
	run(filepath.Join(root, "tools"), "run", "./demoimage", "-program", filepath.Join(dir, "demo"), "-out", filepath.Join(dir, "demo.tar"))
	return filepath.Join(dir, "demo.tar")
}

// machine is a node with one pod, and an API server's proxy in front of it.
type machine struct {
	t       *testing.T
	runtime runtimeapi.RuntimeServiceClient
	logs    string
	sandbox string
	ip      string
	config  *runtimeapi.PodSandboxConfig
	ids     map[string]Container
	front   *httptest.Server
	rest    *rest.Config
}

func (m *machine) Find(pod PodRef, container string, _ bool) (Container, error) {
	c, ok := m.ids[container]
	if !ok {
		return c, NotFound("container %q not found", container)
	}
	status, err := m.runtime.ContainerStatus(context.Background(), &runtimeapi.ContainerStatusRequest{ContainerId: c.ID})
	if err != nil {
		return c, err
	}
	c.Running = status.Status.State == runtimeapi.ContainerState_CONTAINER_RUNNING
	c.LogPath = status.Status.LogPath
	return c, nil
}
func (m *machine) Sandbox(PodRef) (string, error) { return m.sandbox, nil }
func (m *machine) Pods() *corev1.PodList          { return &corev1.PodList{} }

// run starts a container of the demo image with a command for it.
func (m *machine) run(name string, tty bool, args ...string) {
	m.t.Helper()
	created, err := m.runtime.CreateContainer(m.t.Context(), &runtimeapi.CreateContainerRequest{
		PodSandboxId: m.sandbox, SandboxConfig: m.config,
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: name}, Image: &runtimeapi.ImageSpec{Image: demoImage},
			Args: args, LogPath: name + ".log", Stdin: true, StdinOnce: true, Tty: tty,
			Envs:   []*runtimeapi.KeyValue{{Key: "POD_NAME", Value: []byte("web")}, {Key: "NODE_NAME", Value: []byte("n1")}},
			Linux:  &runtimeapi.LinuxContainerConfig{Resources: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20}},
			Labels: map[string]string{labelPod: "web", labelNamespace: "shop", labelContainer: name},
		},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	if _, err := m.runtime.StartContainer(m.t.Context(), &runtimeapi.StartContainerRequest{ContainerId: created.ContainerId}); err != nil {
		m.t.Fatal(err)
	}
	ended := make(chan struct{})
	m.ids[name] = Container{ID: created.ContainerId, SandboxID: m.sandbox, TTY: tty, Ended: ended}
	go func() {
		defer close(ended)
		for { // the agent hears of it; this test asks
			status, err := m.runtime.ContainerStatus(context.Background(), &runtimeapi.ContainerStatusRequest{ContainerId: created.ContainerId})
			if err != nil || status.Status.State == runtimeapi.ContainerState_CONTAINER_EXITED {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
}

// lookup makes the machine the cluster's only node.
type lookup struct{ node corev1.Node }

func (l *lookup) Node(context.Context, string) (*corev1.Node, error) { return &l.node, nil }
func (l *lookup) EndpointSlices(context.Context, string, string) ([]*discoveryv1.EndpointSlice, error) {
	return nil, nil
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	if hint := containerd.Hint(); hint != "" {
		t.Skip(hint)
	}
	root, err := os.MkdirTemp("/tmp", "serve-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(root); err != nil {
			t.Error(err)
		}
	})
	r, err := containerd.Start(t.Context(), containerd.Config{
		Root: root, Bridge: "tmlserve0", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.251.8.0/24")},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.RemoveAll(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := r.Import(t.Context(), buildDemo(t)); err != nil {
		t.Fatal(err)
	}
	conn, err := containerd.Dial(r.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })

	m := &machine{t: t, runtime: runtimeapi.NewRuntimeServiceClient(conn), logs: filepath.Join(root, "logs"), ids: map[string]Container{}}
	m.config = &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: "web", Namespace: "shop", Uid: "uid"},
		Hostname: "web", LogDirectory: m.logs, Linux: &runtimeapi.LinuxPodSandboxConfig{},
	}
	sandbox, err := m.runtime.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: m.config})
	if err != nil {
		t.Fatal(err)
	}
	m.sandbox = sandbox.PodSandboxId
	status, err := m.runtime.PodSandboxStatus(t.Context(), &runtimeapi.PodSandboxStatusRequest{PodSandboxId: m.sandbox})
	if err != nil {
		t.Fatal(err)
	}
	m.ip = status.Status.Network.Ip
	m.serve()
	return m
}

// serve starts the node's server and the proxy of an API server.
func (m *machine) serve() {
	t := m.t
	ca := newAuthority(t)
	server := New(Config{
		NodeName: "n1", Containers: m, Runtime: m.runtime, ClientCA: func() *x509.CertPool { return ca.pool },
		ReviewAccess: func(_ context.Context, review *authorizationv1.SubjectAccessReview) (*authorizationv1.SubjectAccessReview, error) {
			review.Status.Allowed = review.Spec.User == "kube-apiserver-kubelet-client"
			return review, nil
		},
		TLS: &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "n1", nil, x509.ExtKeyUsageServerAuth)}},
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, listener) }()
	t.Cleanup(func() { stop(); <-done })

	l := &lookup{}
	host, port, _ := net.SplitHostPort(listener.Addr().String())
	number, _ := strconv.Atoi(port)
	l.node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: host}}
	l.node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(number)
	api := proxy.New(proxy.Config{Lookup: l, KubeletTLS: &tls.Config{
		RootCAs: ca.pool, Certificates: []tls.Certificate{ca.issue(t, "kube-apiserver-kubelet-client", nil, x509.ExtKeyUsageClientAuth)},
	}})
	t.Cleanup(api.Close)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: corev1.PodSpec{NodeName: "n1"}}
	for _, name := range []string{"main", "other", "terminal", "job"} {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: name})
	}
	pod.Status.PodIP = m.ip
	m.front = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var err error
		switch _, subresource, _ := strings.Cut(r.URL.Path, "/web/"); {
		case subresource == "exec":
			err = api.Exec(w, r, pod)
		case subresource == "attach":
			err = api.Attach(w, r, pod)
		case subresource == "portforward":
			err = api.PortForward(w, r, pod)
		case subresource == "log":
			err = api.Log(w, r, pod)
		case strings.HasPrefix(subresource, "proxy"):
			err = api.Pod(w, r, pod, proxy.Name{Name: "web", Port: "8080"}, strings.TrimPrefix(subresource, "proxy"))
		default:
			err = apierrors.NewNotFound(corev1.Resource("pods"), r.URL.Path)
		}
		var status apierrors.APIStatus
		if errors.As(err, &status) {
			http.Error(w, status.Status().Message, int(status.Status().Code))
		} else if err != nil {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
	}))
	t.Cleanup(m.front.Close)
	m.rest = &rest.Config{Host: m.front.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
}

func (m *machine) address(subresource string, query url.Values) *url.URL {
	u, err := url.Parse(m.front.URL + "/web/" + subresource + "?" + query.Encode())
	if err != nil {
		m.t.Fatal(err)
	}
	return u
}

type wish struct {
	stdin io.Reader
	tty   bool
	sizes remotecommand.TerminalSizeQueue
}

// exec runs a command in both of kubectl's ways and expects the same of them.
func (m *machine) exec(container string, w func() wish, command ...string) (stdout, stderr string, code int) {
	m.t.Helper()
	type outcome struct {
		stdout, stderr string
		code           int
	}
	var last *outcome
	for _, overWebSocket := range []bool{false, true} {
		want := wish{}
		if w != nil {
			want = w()
		}
		q := url.Values{"container": {container}, "command": command, "stdout": {"true"}}
		if want.stdin != nil {
			q.Set("stdin", "true")
		}
		if want.tty {
			q.Set("tty", "true")
		} else {
			q.Set("stderr", "true")
		}
		var executor remotecommand.Executor
		var err error
		if overWebSocket {
			executor, err = remotecommand.NewWebSocketExecutor(m.rest, "GET", m.address("exec", q).String())
		} else {
			executor, err = remotecommand.NewSPDYExecutor(m.rest, "POST", m.address("exec", q))
		}
		if err != nil {
			m.t.Fatal(err)
		}
		var out, errs streamtest.Buffer
		options := remotecommand.StreamOptions{Stdin: want.stdin, Stdout: &out, Tty: want.tty, TerminalSizeQueue: want.sizes}
		if !want.tty {
			options.Stderr = &errs
		}
		err = executor.StreamWithContext(m.t.Context(), options)
		var ended clientexec.CodeExitError
		now := &outcome{out.String(), errs.String(), 0}
		switch {
		case errors.As(err, &ended):
			now.code = ended.Code
		case err != nil:
			m.t.Fatalf("exec %q (WebSocket %v): %v", command, overWebSocket, err)
		}
		if last != nil && *now != *last && !want.tty { // a terminal mixes what is typed with what is printed
			m.t.Errorf("exec %q: SPDY gives %+v, WebSocket %+v", command, *last, *now)
		}
		last = now
	}
	return last.stdout, last.stderr, last.code
}

func (m *machine) log(query string) *bufio.Reader {
	m.t.Helper()
	answer, err := m.front.Client().Get(m.front.URL + "/web/log?" + query)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { answer.Body.Close() })
	return bufio.NewReader(answer.Body)
}

// TestDemoPod does everything that a person does with a first pod.
func TestDemoPod(t *testing.T) {
	m := newMachine(t)
	m.run("main", false)
	main := m.log("container=main&follow=true")
	if line, err := main.ReadString('\n'); !strings.Contains(line, "pod web listens on") {
		t.Fatalf("the log begins with %q, %v", line, err)
	}

	t.Run("exec", func(t *testing.T) {
		m := &machine{t: t, rest: m.rest, front: m.front}
		if out, errs, code := m.exec("main", nil, "/bin/sh", "-c", "echo out; echo err >&2; exit 3"); out != "out\n" || errs != "err\n" || code != 3 {
			t.Errorf("got %q, %q, %d", out, errs, code)
		}
		if out, _, _ := m.exec("main", nil, "env"); !strings.Contains(out, "POD_NAME=web\n") {
			t.Errorf("env prints %q", out)
		}
		if out, _, _ := m.exec("main", nil, "id"); out != "uid=65532 gid=65532 groups=65532\n" {
			t.Errorf("id prints %q", out)
		}
		big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		out, _, code := m.exec("main", func() wish { return wish{stdin: bytes.NewReader(big)} }, "cat")
		if out != string(big) || code != 0 {
			t.Errorf("cat of %d bytes gives %d, %d", len(big), len(out), code)
		}
	})
	t.Run("terminal", func(t *testing.T) {
		m := &machine{t: t, rest: m.rest, front: m.front}
		out, _, code := m.exec("main", func() wish {
			keys, press := io.Pipe() // a terminal does not end before the shell
			t.Cleanup(func() { press.Close() })
			go press.Write([]byte("echo hello\nexit 4\n"))
			return wish{stdin: keys, tty: true}
		}, "sh")
		if !strings.Contains(out, "hello\r\n") || code != 4 {
			t.Errorf("got %q, %d", out, code)
		}
	})
	t.Run("copy", func(t *testing.T) { // as kubectl cp does
		m := &machine{t: t, rest: m.rest, front: m.front}
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: 5})
		w.Write([]byte("hello"))
		w.Close()
		if _, errs, code := m.exec("main", func() wish { return wish{stdin: bytes.NewReader(archive.Bytes())} }, "tar", "-xmf", "-", "-C", "/tmp"); code != 0 {
			t.Fatalf("unpack: %d %s", code, errs)
		}
		out, errs, code := m.exec("main", nil, "tar", "cf", "-", "/tmp/file")
		if code != 0 {
			t.Fatalf("pack: %d %s", code, errs)
		}
		r := tar.NewReader(strings.NewReader(out))
		header, err := r.Next()
		if err != nil || header.Name != "tmp/file" {
			t.Fatalf("got %+v, %v", header, err)
		}
		if content, _ := io.ReadAll(r); string(content) != "hello" {
			t.Errorf("got %q", content)
		}
	})
	t.Run("forward", func(t *testing.T) {
		overWebSocket, err := portforward.NewSPDYOverWebsocketDialerForStreaming(m.address("portforward", nil), m.rest)
		if err != nil {
			t.Fatal(err)
		}
		transport, upgrader, err := spdy.RoundTripperFor(m.rest)
		if err != nil {
			t.Fatal(err)
		}
		overSPDY := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, "POST", m.address("portforward", nil))
		for name, dialer := range map[string]interface {
			Dial(...string) (httpstream.Connection, string, error)
		}{"WebSocket": overWebSocket, "SPDY": overSPDY} {
			conn, _, err := dialer.Dial("portforward.k8s.io")
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			header := http.Header{"Streamtype": {"error"}, "Port": {"8080"}, "Requestid": {"1"}}
			if _, err := conn.CreateStream(header); err != nil {
				t.Fatal(err)
			}
			header = http.Header{"Streamtype": {"data"}, "Port": {"8080"}, "Requestid": {"1"}}
			data, err := conn.CreateStream(header)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(data, "GET / HTTP/1.0\r\nHost: web\r\n\r\n")
			if page, err := io.ReadAll(data); !strings.Contains(string(page), "pod        web\n") {
				t.Errorf("%s: got %q, %v", name, page, err)
			}
			conn.Close()
		}
	})
	t.Run("proxy", func(t *testing.T) {
		answer, err := m.front.Client().Get(m.front.URL + "/web/proxy/healthz")
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if body, _ := io.ReadAll(answer.Body); string(body) != "ok\n" {
			t.Errorf("got %d %q", answer.StatusCode, body)
		}
	})
	t.Run("attach", func(t *testing.T) {
		m.run("other", false, "sh", "-c", "read line; echo heard $line; exit 2")
		q := url.Values{"container": {"other"}, "stdin": {"true"}, "stdout": {"true"}, "stderr": {"true"}}
		executor, err := remotecommand.NewWebSocketExecutor(m.rest, "GET", m.address("attach", q).String())
		if err != nil {
			t.Fatal(err)
		}
		var out streamtest.Buffer
		err = executor.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("words\n"), Stdout: &out, Stderr: io.Discard})
		if err != nil || out.String() != "heard words\n" {
			t.Errorf("got %q, %v", out.String(), err)
		}
	})
	t.Run("log to the end", func(t *testing.T) {
		m.run("job", false, "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done; echo done")
		if all, err := io.ReadAll(m.log("container=job&follow=true")); err != nil || string(all) != "1\n2\n3\ndone\n" {
			t.Errorf("got %q, %v", all, err)
		}
	})
	t.Run("metrics", func(t *testing.T) {
		// Read straight from the node, as metrics-server does, by way of the handler.
		server := New(Config{NodeName: "n1", Containers: m, Runtime: m.runtime})
		w := httptest.NewRecorder()
		if err := server.resourceMetrics(w, httptest.NewRequest("GET", "/metrics/resource", nil)); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(w.Body.String(), `container_memory_working_set_bytes{container="main",namespace="shop",pod="web"} `) {
			t.Errorf("got\n%s", w.Body)
		}
	})
	t.Run("stop", func(t *testing.T) {
		if _, err := m.runtime.StopContainer(t.Context(), &runtimeapi.StopContainerRequest{ContainerId: m.ids["main"].ID, Timeout: 10}); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(main)
		if err != nil || !strings.HasSuffix(string(rest), "stopped\n") {
			t.Errorf("the log ends with %q, %v", rest, err)
		}
	})
}
