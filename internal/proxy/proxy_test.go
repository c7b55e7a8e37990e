package proxy

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"

	"github.com/timonel/timonel/internal/proxy/stream/streamtest"
)

// cluster has one node, whose kubelet is a handler.
type cluster struct {
	node   corev1.Node
	slices []*discoveryv1.EndpointSlice
}

func (c *cluster) Node(_ context.Context, name string) (*corev1.Node, error) {
	if name != "n1" {
		return nil, apierrors.NewNotFound(corev1.Resource("nodes"), name)
	}
	return &c.node, nil
}

func (c *cluster) EndpointSlices(context.Context, string, string) ([]*discoveryv1.EndpointSlice, error) {
	return c.slices, nil
}

// newCluster starts a kubelet and a proxy that trusts it.
func newCluster(t *testing.T, kubelet http.Handler) (*Server, *cluster) {
	t.Helper()
	back := httptest.NewTLSServer(kubelet)
	t.Cleanup(back.Close)
	c := clusterWith(t, back)
	roots := x509.NewCertPool()
	roots.AddCert(back.Certificate())
	s := New(Config{Lookup: c, KubeletTLS: &tls.Config{RootCAs: roots, ServerName: "example.com"}})
	t.Cleanup(s.Close)
	return s, c
}

// clusterWith is a cluster whose only node has this kubelet.
func clusterWith(t *testing.T, kubelet *httptest.Server) *cluster {
	t.Helper()
	host, port, err := net.SplitHostPort(kubelet.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{}
	c.node.Name = "n1"
	c.node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: host}}
	c.node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(number)
	return c
}

// TestKubeletIsToldWhoWeAre: a kubelet that wants to know who asks sees our certificate, and one that we do not know gets nothing.
func TestKubeletIsToldWhoWeAre(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kube-apiserver-kubelet-client"}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(crand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	known := x509.NewCertPool()
	known.AddCert(ours)
	kubelet := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s, without credentials %t", r.TLS.PeerCertificates[0].Subject.CommonName, r.Header.Get("Authorization") == "")
	}))
	kubelet.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: known}
	kubelet.Config.ErrorLog = log.New(io.Discard, "", 0)
	kubelet.StartTLS()
	t.Cleanup(kubelet.Close)
	c := clusterWith(t, kubelet)
	trusted := x509.NewCertPool()
	trusted.AddCert(kubelet.Certificate())
	certificate := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	pod := &corev1.Pod{Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c"}}}}
	pod.Name, pod.Namespace = "web", "a"
	for _, one := range []struct {
		name   string
		config *tls.Config
		query  string
		code   int
		want   string
	}{
		{"known to each other", &tls.Config{RootCAs: trusted, ServerName: "example.com", Certificates: []tls.Certificate{certificate}}, "", 200, "hello kube-apiserver-kubelet-client, without credentials true"},
		{"without a certificate", &tls.Config{RootCAs: trusted, ServerName: "example.com"}, "", 500, "certificate required"},
		{"kubelet of somebody else", &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "example.com", Certificates: []tls.Certificate{certificate}}, "", 500, "certificate signed by unknown authority"},
		{"client does not mind", &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "example.com", Certificates: []tls.Certificate{certificate}}, "?insecureSkipTLSVerifyBackend=true", 200, "hello kube-apiserver-kubelet-client, without credentials true"},
	} {
		s := New(Config{Lookup: c, KubeletTLS: one.config})
		t.Cleanup(s.Close)
		server := front(t, func(w http.ResponseWriter, r *http.Request) error {
			r.Header.Set("Authorization", "Bearer secret")
			return s.Log(w, r, pod)
		})
		answer, body := get(t, server, "/log"+one.query)
		if answer.StatusCode != one.code || !strings.Contains(body, one.want) {
			t.Errorf("%s: %d %s", one.name, answer.StatusCode, body)
		}
	}
}

// front serves one subresource as the API server does.
func front(t *testing.T, handle func(w http.ResponseWriter, r *http.Request) error) *httptest.Server {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := handle(w, r)
		if err == nil {
			return
		}
		var api apierrors.APIStatus
		if !errors.As(err, &api) {
			t.Errorf("%v is not an API error", err)
			return
		}
		http.Error(w, api.Status().Message, int(api.Status().Code))
	}))
	t.Cleanup(server.Close)
	return server
}

func get(t *testing.T, server *httptest.Server, path string) (*http.Response, string) {
	t.Helper()
	client := *server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	answer, err := client.Get(server.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer, strings.TrimSpace(string(body))
}

func TestLog(t *testing.T) {
	s, c := newCluster(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the kubelet sees the client's credentials")
		}
		switch r.URL.Query().Get("tailLines") {
		case "1":
			http.Error(w, `container "a" in pod "web" is waiting to start: ContainerCreating`, 400)
		case "2":
			http.Error(w, "gone", 404)
		case "3":
			http.Error(w, "broken", 500)
		default:
			w.Header().Set("Content-Type", "text/strange")
			fmt.Fprintf(w, "%s?%s", r.URL.Path, r.URL.RawQuery)
		}
	}))
	pod := podOf("n1", "a")
	server := front(t, func(w http.ResponseWriter, r *http.Request) error { return s.Log(w, r, pod) })
	check := func(query string, status int, body string) {
		t.Helper()
		if answer, text := get(t, server, "/log"+query); answer.StatusCode != status || text != body {
			t.Errorf("%s: got %d %q, want %d %q", query, answer.StatusCode, text, status, body)
		} else if kind := answer.Header.Get("Content-Type"); status == 200 && kind != "text/plain" {
			t.Errorf("%s: Content-Type %s", query, kind)
		}
	}
	check("", 200, "/containerLogs/shop/web/a?")
	check("?follow=true", 200, "/containerLogs/shop/web/a?follow=true")
	check("?tailLines=1", 400, `container "a" in pod "web" is waiting to start: ContainerCreating`)
	check("?tailLines=2", 404, "the server could not find the requested resource ( pods/log web)")
	check("?tailLines=3", 500, "Internal error occurred: broken")
	check("?tailLines=-1", 422, `PodLogOptions "web" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0`)

	// A kubelet whose certificate nobody vouches for is believed on request only.
	s.config.KubeletTLS = nil
	strict := New(s.config)
	t.Cleanup(strict.Close)
	server = front(t, func(w http.ResponseWriter, r *http.Request) error { return strict.Log(w, r, pod) })
	if answer, body := get(t, server, "/log"); answer.StatusCode != 500 || !strings.Contains(body, "certificate") {
		t.Errorf("an unknown kubelet: got %d %q", answer.StatusCode, body)
	}
	check("?insecureSkipTLSVerifyBackend=true", 200, "/containerLogs/shop/web/a?")

	pod.Spec.NodeName = ""
	check("", 204, "")
	pod.Spec.NodeName = "n2"
	check("", 404, `nodes "n2" not found`)
	pod.Spec.NodeName = "n1"
	c.node.Status.DaemonEndpoints.KubeletEndpoint.Port = 1
	check("", 500, `Get "https://127.0.0.1:1/containerLogs/shop/web/a": dial tcp 127.0.0.1:1: connect: connection refused`)
	c.node.Status.Addresses = nil
	check("", 500, "no preferred addresses found; known addresses: []")
}

// TestLogFollow sees lines as they come, and the kubelet sees the client go.
func TestLogFollow(t *testing.T) {
	next, gone := make(chan string), make(chan struct{})
	s, _ := newCluster(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).Flush()
		for {
			select {
			case line := <-next:
				fmt.Fprintln(w, line)
				http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				close(gone)
				return
			}
		}
	}))
	server := front(t, func(w http.ResponseWriter, r *http.Request) error { return s.Log(w, r, podOf("n1", "a")) })
	answer, err := server.Client().Get(server.URL + "/log?follow=true")
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(answer.Body)
	for _, line := range []string{"one", "two"} {
		next <- line
		if got, err := lines.ReadString('\n'); got != line+"\n" {
			t.Errorf("got %q, %v", got, err)
		}
	}
	answer.Body.Close()
	<-gone
}

// TestLogOverWebSocket: a browser gets a log in messages, an error as an ordinary answer, and when it goes the kubelet hears of it.
func TestLogOverWebSocket(t *testing.T) {
	next, gone := make(chan string), make(chan struct{}, 8)
	s, _ := newCluster(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("tailLines") == "1" {
			http.Error(w, "waiting to start", 400)
			return
		}
		http.NewResponseController(w).Flush()
		defer func() { gone <- struct{}{} }()
		for {
			select {
			case line := <-next:
				if line == "" {
					return
				}
				fmt.Fprint(w, line)
				http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}))
	server := front(t, func(w http.ResponseWriter, r *http.Request) error { return s.Log(w, r, podOf("n1", "a")) })
	dial := func(query string, protocols ...string) (*websocket.Conn, *http.Response, error) {
		dialer := websocket.Dialer{Subprotocols: protocols, TLSClientConfig: server.Client().Transport.(*http.Transport).TLSClientConfig}
		return dialer.Dial("wss"+strings.TrimPrefix(server.URL, "https")+"/log?follow=true"+query, nil)
	}
	for _, one := range []struct {
		protocols []string
		chosen    string
		message   int
		text      string
	}{
		{nil, "", websocket.BinaryMessage, "one"},
		{[]string{"binary.k8s.io"}, "binary.k8s.io", websocket.BinaryMessage, "one"},
		{[]string{"mine", "base64.binary.k8s.io"}, "base64.binary.k8s.io", websocket.TextMessage, "b25l"},
	} {
		conn, _, err := dial("", one.protocols...)
		if err != nil {
			t.Fatal(err)
		}
		if conn.Subprotocol() != one.chosen {
			t.Errorf("of %v %q is spoken", one.protocols, conn.Subprotocol())
		}
		for _, want := range []string{"", one.text} {
			if message, text, err := conn.ReadMessage(); err != nil || message != one.message || string(text) != want {
				t.Errorf("%v: got %d %q, %v, want %q", one.protocols, message, text, err, want)
			}
			if want == "" {
				next <- "one"
			}
		}
		if one.chosen == "" { // the container ends
			next <- ""
			if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
				t.Errorf("it ended with %v", err)
			}
		}
		conn.Close()
		<-gone
	}
	for query, want := range map[string]string{"": "unable to negotiate protocol", "&tailLines=1": "waiting to start"} {
		_, answer, err := dial(query, "mine")
		if err == nil || answer == nil || answer.StatusCode != 400 {
			t.Fatalf("%q: %v, %v", query, answer, err)
		}
		if text, _ := io.ReadAll(answer.Body); !strings.Contains(string(text), want) {
			t.Errorf("%q: got %s, want %s", query, text, want)
		}
	}
}

func TestExec(t *testing.T) {
	var asked string
	commands := streamtest.Exec(func(io_ streamtest.Streams) int {
		io.Copy(io_.Stdout, io_.Stdin)
		return 5
	})
	s, c := newCluster(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.Path + "?" + r.URL.RawQuery
		commands.ServeHTTP(w, r)
	}))
	pod := podOf("n1", "a")
	server := front(t, func(w http.ResponseWriter, r *http.Request) error { return s.Exec(w, r, pod) })
	config := &rest.Config{Host: server.URL, BearerToken: "secret", TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	address, _ := url.Parse(server.URL + "/exec?command=cat&stdin=true&stdout=true")
	executors := func() map[string]remotecommand.Executor {
		overSPDY, err := remotecommand.NewSPDYExecutor(config, "POST", address)
		if err != nil {
			t.Fatal(err)
		}
		overWebSocket, err := remotecommand.NewWebSocketExecutor(config, "GET", address.String())
		if err != nil {
			t.Fatal(err)
		}
		return map[string]remotecommand.Executor{"SPDY": overSPDY, "WebSocket": overWebSocket}
	}
	for name, executor := range executors() {
		var out streamtest.Buffer
		err := executor.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out})
		var ended exec.CodeExitError
		if !errors.As(err, &ended) || ended.Code != 5 || out.String() != "hello" || asked != "/exec/shop/web/a?command=cat&input=1&output=1" {
			t.Errorf("%s: got %q, %v after asking %s", name, out.String(), err, asked)
		}
	}
	c.node.Status.DaemonEndpoints.KubeletEndpoint.Port = 1
	for name, executor := range executors() {
		err := executor.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: io.Discard})
		if err == nil || !strings.Contains(err.Error(), "error dialing backend: dial tcp 127.0.0.1:1: connect: connection refused") {
			t.Errorf("%s without a kubelet: %v", name, err)
		}
	}
	if answer, body := get(t, server, "/exec?command=cat&stdout=true"); answer.StatusCode != 400 || body != "Upgrade request required" {
		t.Errorf("without an upgrade: %d %s", answer.StatusCode, body)
	}
}

// TestHTTP passes requests to a pod's own server, which stands in for nodes and
// services too: only the way to the address differs.
func TestHTTP(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		case "/page":
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, `<a href="/other">x</a>`)
		case "/ws":
			conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
			if err != nil {
				return
			}
			defer conn.Close()
			_, message, _ := conn.ReadMessage()
			conn.WriteMessage(websocket.TextMessage, append([]byte("heard "), message...))
		default:
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s?%s auth=%q via=%s %s", r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Get("Authorization"), r.Header.Get("X-Forwarded-Uri"), body)
		}
	}))
	t.Cleanup(backend.Close)
	s := New(Config{})
	t.Cleanup(s.Close)
	const prefix = "/api/v1/namespaces/shop/pods/web/proxy"
	handle := func(w http.ResponseWriter, r *http.Request) error {
		to, err := url.Parse(backend.URL)
		if err != nil {
			return err
		}
		return s.pass(w, r, to, strings.TrimPrefix(r.URL.Path, prefix), s.kubelet) // the transport that may reach this test's server
	}
	server := front(t, handle)
	check := func(path string, status int, want string) {
		t.Helper()
		answer, body := get(t, server, prefix+path)
		if location := answer.Header.Get("Location"); location != "" {
			body = location
		}
		if answer.StatusCode != status || strings.ReplaceAll(body, server.URL, "") != want {
			t.Errorf("%s: got %d %s, want %d %s", path, answer.StatusCode, body, status, want)
		}
	}
	check("/a/b?c=d", 200, `GET /a/b?c=d auth="" via=`+prefix+`/a/b`)
	check("", 301, prefix+"/")
	check("/", 200, `GET /? auth="" via=`+prefix+`/`)
	check("/redirect", 302, prefix+"/elsewhere")
	check("/page", 200, `<a href="`+prefix+`/other">x</a>`)

	request, _ := http.NewRequest("POST", server.URL+prefix+"/x", strings.NewReader("the body"))
	request.Header.Set("Authorization", "Bearer secret")
	answer, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, _ := io.ReadAll(answer.Body); !strings.HasPrefix(string(body), `POST /x? auth=""`) || !strings.HasSuffix(string(body), "the body") {
		t.Errorf("got %s", body)
	}

	dialer := websocket.Dialer{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	conn, _, err := dialer.Dial("wss"+strings.TrimPrefix(server.URL, "https")+prefix+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.WriteMessage(websocket.TextMessage, []byte("hello"))
	if _, message, err := conn.ReadMessage(); string(message) != "heard hello" {
		t.Errorf("got %q, %v", message, err)
	}

	backend.Close()
	check("/a", 503, "error trying to reach service: dial tcp "+backend.Listener.Addr().String()+": connect: connection refused")
}

// TestOwnAddress does not reach itself on behalf of users, whatever leads there.
func TestOwnAddress(t *testing.T) {
	s, c := newCluster(t, http.NotFoundHandler())
	c.node.Status.Addresses[0] = corev1.NodeAddress{Type: corev1.NodeHostName, Address: "localhost"}
	server := front(t, func(w http.ResponseWriter, r *http.Request) error {
		return s.Node(w, r, &c.node, Name{Name: "n1", Port: "22"}, "/")
	})
	if answer, body := get(t, server, "/"); answer.StatusCode < 400 || !strings.Contains(body, "address not allowed") {
		t.Errorf("got %d %s", answer.StatusCode, body)
	}
	server = front(t, func(w http.ResponseWriter, r *http.Request) error {
		return s.Node(w, r, &c.node, Name{Name: "n1"}, "/pods")
	})
	if answer, body := get(t, server, "/"); answer.StatusCode != 404 {
		t.Errorf("the kubelet itself: got %d %s", answer.StatusCode, body)
	}
}
