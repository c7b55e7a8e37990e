package serve

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/timonel/timonel/internal/proxy/stream/streamtest"
)

// agent has one pod, shop/web, with container main, which runs.
type agent struct {
	log   string
	ended chan struct{}
}

func (a *agent) Find(pod PodRef, container string, previous bool) (Container, error) {
	switch {
	case pod.Namespace != "shop" || pod.Name != "web":
		return Container{}, NotFound("pod %s/%s does not exist", pod.Namespace, pod.Name)
	case container == "late":
		return Container{}, fmt.Errorf(`container "late" in pod "web" is waiting to start: ContainerCreating`)
	case container != "main":
		return Container{}, NotFound("container %q not found in pod %q", container, pod.Name)
	case previous:
		return Container{}, fmt.Errorf(`previous terminated container "main" in pod "web" not found`)
	}
	return Container{ID: "c1", SandboxID: "s1", LogPath: a.log, Running: true, Ended: a.ended}, nil
}

func (a *agent) Sandbox(pod PodRef) (string, error) {
	if pod.Name != "web" {
		return "", NotFound("pod %s/%s does not exist", pod.Namespace, pod.Name)
	}
	return "s1", nil
}

func (a *agent) Pods() *corev1.PodList {
	return &corev1.PodList{Items: []corev1.Pod{{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
			Name: "main", ContainerID: "containerd://c1", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
		}}},
	}}}
}

// criRuntime answers with the address of a streaming server.
type criRuntime struct {
	runtimeapi.RuntimeServiceClient
	address string
	exec    atomic.Pointer[runtimeapi.ExecRequest]
}

func (c *criRuntime) Exec(_ context.Context, r *runtimeapi.ExecRequest, _ ...grpc.CallOption) (*runtimeapi.ExecResponse, error) {
	c.exec.Store(r)
	if len(r.Cmd) > 0 && r.Cmd[0] == "full" {
		return nil, status.Error(codes.ResourceExhausted, "maximum number of in-flight requests exceeded")
	}
	return &runtimeapi.ExecResponse{Url: c.address + "/exec/token"}, nil
}

func (c *criRuntime) Attach(_ context.Context, _ *runtimeapi.AttachRequest, _ ...grpc.CallOption) (*runtimeapi.AttachResponse, error) {
	return &runtimeapi.AttachResponse{Url: c.address + "/attach/token"}, nil
}

func (c *criRuntime) PortForward(_ context.Context, _ *runtimeapi.PortForwardRequest, _ ...grpc.CallOption) (*runtimeapi.PortForwardResponse, error) {
	return &runtimeapi.PortForwardResponse{Url: c.address + "/portforward/token"}, nil
}

func (c *criRuntime) ExecSync(_ context.Context, r *runtimeapi.ExecSyncRequest, _ ...grpc.CallOption) (*runtimeapi.ExecSyncResponse, error) {
	return &runtimeapi.ExecSyncResponse{Stdout: []byte(strings.Join(r.Cmd, ",")), ExitCode: int32(len(r.Cmd) - 1)}, nil
}

func (c *criRuntime) ListContainerStats(context.Context, *runtimeapi.ListContainerStatsRequest, ...grpc.CallOption) (*runtimeapi.ListContainerStatsResponse, error) {
	return &runtimeapi.ListContainerStatsResponse{Stats: []*runtimeapi.ContainerStats{{
		Attributes: &runtimeapi.ContainerAttributes{Id: "c1", Labels: map[string]string{
			labelPod: "web", labelNamespace: "shop", labelContainer: "main",
		}},
		Cpu:    &runtimeapi.CpuUsage{Timestamp: 1_700_000_000_000_000_000, UsageCoreNanoSeconds: &runtimeapi.UInt64Value{Value: 1_500_000_000}},
		Memory: &runtimeapi.MemoryUsage{Timestamp: 1_700_000_000_000_000_000, WorkingSetBytes: &runtimeapi.UInt64Value{Value: 4096}},
	}}}, nil
}

// fixture is a server with its clients.
type fixture struct {
	agent   *agent
	runtime *criRuntime
	url     string
	client  *http.Client // with a certificate of cluster-admin
	rest    *rest.Config // the same
	ca      authority
	reviews atomic.Int64 // questions that reached the API server
	allowed func(*authorizationv1.SubjectAccessReviewSpec) bool
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	commands := streamtest.Exec(func(s streamtest.Streams) int {
		data, _ := io.ReadAll(s.Stdin)
		fmt.Fprintf(s.Stdout, "got %s", data)
		return 7
	})
	ports := streamtest.Forward(func(port string, conn io.ReadWriteCloser) error {
		fmt.Fprintf(conn, "this is %s", port)
		return nil
	})
	streaming := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/portforward/") {
			ports.ServeHTTP(w, r)
			return
		}
		commands.ServeHTTP(w, r)
	}))
	t.Cleanup(streaming.Close)

	f := &fixture{
		agent:   &agent{log: filepath.Join(t.TempDir(), "0.log"), ended: make(chan struct{})},
		runtime: &criRuntime{address: streaming.URL},
		ca:      newAuthority(t),
		allowed: func(*authorizationv1.SubjectAccessReviewSpec) bool { return true },
	}
	serving := f.ca.issue(t, "node1", nil, x509.ExtKeyUsageServerAuth)
	server := New(Config{
		NodeName: "node1", Containers: f.agent, Runtime: f.runtime, ClientCA: func() *x509.CertPool { return f.ca.pool },
		ReviewToken: func(_ context.Context, review *authenticationv1.TokenReview) (*authenticationv1.TokenReview, error) {
			f.reviews.Add(1)
			switch review.Spec.Token {
			case "good":
				review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: "prometheus"}}
			case "broken":
				return nil, errors.New("the API server is away")
			}
			return review, nil
		},
		ReviewAccess: func(_ context.Context, review *authorizationv1.SubjectAccessReview) (*authorizationv1.SubjectAccessReview, error) {
			f.reviews.Add(1)
			review.Status.Allowed = f.allowed(&review.Spec)
			return review, nil
		},
		TLS: &tls.Config{Certificates: []tls.Certificate{serving}}, Version: "v1.37.2",
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, listener) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	f.url = "https://" + listener.Addr().String()
	f.client = f.as(t, "admin", "system:masters")
	certificate := f.ca.issue(t, "admin", []string{"system:masters"}, x509.ExtKeyUsageClientAuth)
	key, err := x509.MarshalECPrivateKey(certificate.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	f.rest = &rest.Config{Host: f.url, TLSClientConfig: rest.TLSClientConfig{
		Insecure: true, CertData: pemOf("CERTIFICATE", certificate.Certificate[0]), KeyData: pemOf("EC PRIVATE KEY", key),
	}}
	return f
}

// as is a client with a certificate.
func (f *fixture) as(t *testing.T, name string, groups ...string) *http.Client {
	t.Helper()
	certificate := f.ca.issue(t, name, groups, x509.ExtKeyUsageClientAuth)
	return f.with(t, &tls.Config{Certificates: []tls.Certificate{certificate}})
}

func (f *fixture) with(t *testing.T, config *tls.Config) *http.Client {
	config.InsecureSkipVerify = true
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func (f *fixture) get(t *testing.T, client *http.Client, path string, header http.Header) (int, string) {
	t.Helper()
	return f.send(t, client, "GET", path, header)
}

func (f *fixture) send(t *testing.T, client *http.Client, method, path string, header http.Header) (int, string) {
	t.Helper()
	request, err := http.NewRequest(method, f.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		request.Header = header
	}
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, strings.TrimSpace(string(body))
}

func TestWhoMayEnter(t *testing.T) {
	f := newFixture(t)
	f.allowed = func(spec *authorizationv1.SubjectAccessReviewSpec) bool {
		a := spec.ResourceAttributes
		if a.Resource != "nodes" || a.Name != "node1" || a.Version != "v1" || a.Group != "" {
			t.Errorf("asked about %+v", a)
		}
		return spec.User == "admin" || spec.User == "prometheus" && a.Verb == "get" && a.Subresource == "metrics"
	}
	bearer := func(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
	nobody := f.with(t, &tls.Config{})
	stranger := newAuthority(t)
	foreign := f.with(t, &tls.Config{Certificates: []tls.Certificate{stranger.issue(t, "admin", nil, x509.ExtKeyUsageClientAuth)}})
	notClient := f.with(t, &tls.Config{Certificates: []tls.Certificate{f.ca.issue(t, "admin", nil, x509.ExtKeyUsageServerAuth)}})

	check := func(name string, client *http.Client, path string, header http.Header, wantStatus int, wantBody string) {
		t.Helper()
		if status, body := f.get(t, client, path, header); status != wantStatus || !strings.Contains(body, wantBody) {
			t.Errorf("%s: %s answers %d %q, want %d %q", name, path, status, body, wantStatus, wantBody)
		}
	}
	check("admin", f.client, "/healthz", nil, 200, "ok")
	check("nobody", nobody, "/healthz", nil, 401, "Unauthorized")
	check("foreign certificate", foreign, "/healthz", nil, 401, "Unauthorized")
	check("foreign certificate and a good token", foreign, "/metrics", bearer("good"), 200, "kubelet_node_name")
	check("server certificate", notClient, "/healthz", nil, 401, "Unauthorized")
	check("good token", nobody, "/metrics", bearer("good"), 200, "kubelet_node_name")
	check("bad token", nobody, "/metrics", bearer("bad"), 401, "Unauthorized")
	check("unknown token", nobody, "/metrics", bearer("broken"), 401, "Unauthorized")
	check("token elsewhere", nobody, "/healthz", bearer("good"), 403, "Forbidden (user=prometheus, verb=get, resource=nodes, subresource(s)=[healthz proxy])")
	check("token on pods", nobody, "/containerLogs/shop/web/main", bearer("good"), 403, "subresource(s)=[proxy]")
	check("unknown path, stranger", nobody, "/nothing", nil, 401, "Unauthorized")
	check("unknown path", f.client, "/nothing", nil, 404, "not found")

	before := f.reviews.Load()
	check("again", nobody, "/metrics", bearer("good"), 200, "")
	check("again", nobody, "/metrics", bearer("bad"), 401, "")
	if now := f.reviews.Load(); now != before {
		t.Errorf("%d more questions, want none: answers are remembered", now-before)
	}
}

func TestMemory(t *testing.T) {
	m, asked, now := newMemory[int, int](), 0, time.Unix(0, 0)
	get := func(key int) {
		t.Helper()
		v, err := m.get(now, key, func() (int, time.Duration, error) { asked++; return key * 2, time.Minute, nil })
		if v != key*2 || err != nil {
			t.Errorf("%d gives %d, %v", key, v, err)
		}
	}
	for range 3 {
		get(1)
	}
	now = now.Add(time.Minute)
	get(1)
	if asked != 2 {
		t.Errorf("asked %d times, want once and once more after a minute", asked)
	}
	for key := range 3 * maxAnswers {
		get(key)
		if n := len(m.mu.answers); n > maxAnswers {
			t.Fatalf("%d answers kept, want at most %d", n, maxAnswers)
		}
	}
	if _, err := m.get(now, -1, func() (int, time.Duration, error) { return 0, 0, errors.New("away") }); err == nil {
		t.Error("an error was lost")
	}
	get(-1) // and not remembered
}

func TestLogs(t *testing.T) {
	f := newFixture(t)
	if err := os.WriteFile(f.agent.log, []byte("2026-01-02T03:04:05Z stdout F one\n2026-01-02T03:04:06Z stdout F two\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path   string
		status int
		body   string
	}{
		{"/shop/web/main", 200, "one\ntwo"},
		{"/shop/web/main?tailLines=1", 200, "two"},
		{"/shop/web/main?tailLines=1&timestamps=true", 200, "2026-01-02T03:04:06Z two"},
		{"/shop/web/main?sinceTime=2026-01-02T03:04:06Z", 200, "two"},
		{"/shop/web/main?limitBytes=2", 200, "on"},
		{"/shop/web/main?stream=Stderr", 200, ""},
		{"/shop/web/main?tailLines=x", 400, `strconv.ParseInt: parsing "x": invalid syntax`},
		{"/shop/web/main?tailLines=-1", 422, "tailLines: Invalid value: -1: must be greater than or equal to 0"},
		{"/shop/web/main?sinceSeconds=5&sinceTime=2026-01-02T03:04:06Z", 422, "at most one of"},
		{"/shop/web/main?previous=true", 400, `previous terminated container "main" in pod "web" not found`},
		{"/shop/web/late", 400, `container "late" in pod "web" is waiting to start: ContainerCreating`},
		{"/shop/web/other", 404, `container "other" not found in pod "web"`},
		{"/shop/api/main", 404, "pod shop/api does not exist"},
	} {
		status, body := f.get(t, f.client, "/containerLogs"+c.path, nil)
		if status != c.status || body != c.body && (status == 200 || !strings.Contains(body, c.body)) {
			t.Errorf("%s answers %d %q, want %d %q", c.path, status, body, c.status, c.body)
		}
	}
	if err := os.Remove(f.agent.log); err != nil {
		t.Fatal(err)
	}
	if status, _ := f.get(t, f.client, "/containerLogs/shop/web/main", nil); status != 404 {
		t.Errorf("a log that is gone answers %d, want 404", status)
	}
}

// TestFollowLogs reads lines as they come, until the container ends.
func TestFollowLogs(t *testing.T) {
	f := newFixture(t)
	log, err := os.Create(f.agent.log)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := f.client.Get(f.url + "/containerLogs/shop/web/main?follow=true")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	for i := range 3 {
		fmt.Fprintf(log, "2026-01-02T03:04:05Z stdout F %d\n", i)
		line := make([]byte, 2)
		if _, err := io.ReadFull(answer.Body, line); err != nil || string(line) != fmt.Sprintf("%d\n", i) {
			t.Fatalf("line %d is %q, %v", i, line, err)
		}
	}
	log.Close()
	close(f.agent.ended)
	if rest, err := io.ReadAll(answer.Body); err != nil || len(rest) > 0 {
		t.Errorf("then %q, %v; want the end", rest, err)
	}
}

func TestExec(t *testing.T) {
	f := newFixture(t)
	for _, path := range []string{"/exec/shop/web/main", "/exec/shop/web/some-uid/main", "/attach/shop/web/main"} {
		address, _ := url.Parse(f.url + path + "?command=echo&command=a+b&input=1&output=1")
		overSPDY, err := remotecommand.NewSPDYExecutor(f.rest, "POST", address)
		if err != nil {
			t.Fatal(err)
		}
		overWebSocket, err := remotecommand.NewWebSocketExecutor(f.rest, "GET", address.String())
		if err != nil {
			t.Fatal(err)
		}
		for _, executor := range []remotecommand.Executor{overSPDY, overWebSocket} {
			var out streamtest.Buffer
			err := executor.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("words"), Stdout: &out})
			var ended exec.CodeExitError
			if !errors.As(err, &ended) || ended.Code != 7 || out.String() != "got words" {
				t.Errorf("%s: got %q, %v", path, out.String(), err)
			}
		}
	}
	if r := f.runtime.exec.Load(); r.ContainerId != "c1" || strings.Join(r.Cmd, "|") != "echo|a b" || !r.Stdin || !r.Stdout || r.Stderr || r.Tty {
		t.Errorf("the runtime was asked for %v", r)
	}
	for path, want := range map[string]int{
		"/exec/shop/web/main":                          400, // no stream
		"/exec/shop/web/main?output=1&command=true":    400, // no upgrade
		"/exec/shop/web/other?output=1&command=true":   404,
		"/exec/shop/web/main?output=1&command=full":    429,
		"/portForward/shop/web?port=0":                 400,
		"/portForward/shop/api":                        404,
		"/attach/shop/api/main?output=1":               404,
		"/attach/shop/web/late?output=1":               500,
		"/exec/shop/web/main?output=false&input=false": 400,
	} {
		if status, body := f.send(t, f.client, "POST", path, nil); status != want {
			t.Errorf("%s answers %d %s, want %d", path, status, body, want)
		}
	}
}

func TestPortForward(t *testing.T) {
	f := newFixture(t)
	transport, upgrader, err := spdy.RoundTripperFor(f.rest)
	if err != nil {
		t.Fatal(err)
	}
	address, _ := url.Parse(f.url + "/portForward/shop/web")
	conn, _, err := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, "POST", address).Dial("portforward.k8s.io")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	header := http.Header{"Streamtype": {"error"}, "Port": {"8080"}, "Requestid": {"1"}}
	if _, err := conn.CreateStream(header); err != nil {
		t.Fatal(err)
	}
	header = http.Header{"Streamtype": {"data"}, "Port": {"8080"}, "Requestid": {"1"}}
	data, err := conn.CreateStream(header)
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(data); err != nil || string(answer) != "this is 8080" {
		t.Errorf("got %q, %v", answer, err)
	}
}

func TestRun(t *testing.T) {
	f := newFixture(t)
	if status, body := f.send(t, f.client, "POST", "/run/shop/web/main?cmd=ls", nil); status != 200 || body != "ls" {
		t.Errorf("got %d %q", status, body)
	}
	if status, body := f.send(t, f.client, "POST", "/run/shop/web/main?cmd=ls+-l", nil); status != 500 || !strings.Contains(body, "exited with 1") {
		t.Errorf("a failing command gives %d %q", status, body)
	}
	if status, _ := f.send(t, f.client, "POST", "/run/shop/web/main", nil); status != 400 {
		t.Errorf("no command gives %d", status)
	}
}

func TestPodsAndMetrics(t *testing.T) {
	f := newFixture(t)
	status, body := f.get(t, f.client, "/pods", nil)
	var list corev1.PodList
	if err := json.Unmarshal([]byte(body), &list); status != 200 || err != nil || list.Kind != "PodList" || len(list.Items) != 1 {
		t.Errorf("pods: %d %s, %v", status, body, err)
	}
	_, body = f.get(t, f.client, "/metrics", nil)
	for _, want := range []string{
		`kubelet_node_name{node="node1"} 1`, "kubelet_running_pods 1", `kubelet_running_containers{container_state="running"} 1`,
		`kubelet_http_requests_total{method="GET",path="pods",server_type="readwrite"} 1`,
	} {
		if !strings.Contains(body, want+"\n") {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
	_, body = f.get(t, f.client, "/metrics/resource", nil)
	for _, want := range []string{
		`container_cpu_usage_seconds_total{container="main",namespace="shop",pod="web"} 1.5 1700000000000`,
		`container_memory_working_set_bytes{container="main",namespace="shop",pod="web"} 4096 1700000000000`,
		`pod_memory_working_set_bytes{namespace="shop",pod="web"} 4096 1700000000000`,
		"node_cpu_usage_seconds_total ", "node_memory_working_set_bytes ", "resource_scrape_error 0",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
}

// authority signs certificates for the test.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pool        *x509.CertPool
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(certificate)
	return authority{certificate, key, pool}
}

func (a authority) issue(t *testing.T, name string, groups []string, usage x509.ExtKeyUsage) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name, Organization: groups},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
