package stream_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/timonel/timonel/internal/proxy/stream"
	"github.com/timonel/timonel/internal/proxy/stream/streamtest"
)

// front serves a backend through package stream, over TLS as an API server does.
func front(t *testing.T, kind stream.Kind, backend http.Handler) *rest.Config {
	t.Helper()
	back := httptest.NewServer(backend)
	t.Cleanup(back.Close)
	transport := stream.NewTransport(nil)
	t.Cleanup(transport.CloseIdleConnections)
	front := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		to, err := url.Parse(back.URL)
		if err != nil {
			t.Error(err)
		}
		to.Path, to.RawQuery = r.URL.Path, r.URL.RawQuery
		if err := stream.Serve(w, r, kind, stream.Backend{URL: to, Transport: transport}); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}))
	t.Cleanup(front.Close)
	return &rest.Config{Host: front.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
}

// executors are the two ways in which kubectl runs a command.
func executors(t *testing.T, config *rest.Config, query string) map[string]remotecommand.Executor {
	t.Helper()
	address, err := url.Parse(config.Host + "/exec?" + query)
	if err != nil {
		t.Fatal(err)
	}
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

func TestCommand(t *testing.T) {
	config := front(t, stream.Command, streamtest.Exec(func(s streamtest.Streams) int {
		data, err := io.ReadAll(s.Stdin)
		if err != nil {
			t.Errorf("read standard input: %v", err)
		}
		fmt.Fprintf(s.Stdout, "%d bytes", len(data))
		fmt.Fprint(s.Stderr, "a warning")
		return 3
	}))
	big := strings.Repeat("0123456789abcdef", 1<<16) // many messages
	for name, executor := range executors(t, config, "stdin=true&stdout=true&stderr=true") {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr streamtest.Buffer
			err := executor.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader(big), Stdout: &stdout, Stderr: &stderr})
			var status exec.CodeExitError
			if !errors.As(err, &status) || status.Code != 3 {
				t.Errorf("got error %v, want exit status 3", err)
			}
			if want := fmt.Sprintf("%d bytes", len(big)); stdout.String() != want || stderr.String() != "a warning" {
				t.Errorf("got output %q and errors %q, want %q and a warning", stdout.String(), stderr.String(), want)
			}
		})
	}
}

func TestCommandOutput(t *testing.T) {
	const lines = 200_000
	config := front(t, stream.Command, streamtest.Exec(func(s streamtest.Streams) int {
		if s.Stdin != nil || s.Stderr != nil {
			t.Error("streams that nobody asked for")
		}
		w := bufio.NewWriter(s.Stdout)
		for i := range lines {
			fmt.Fprintln(w, i)
		}
		w.Flush()
		return 0
	}))
	for name, executor := range executors(t, config, "stdout=true") {
		t.Run(name, func(t *testing.T) {
			var stdout streamtest.Buffer
			if err := executor.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: &stdout}); err != nil {
				t.Fatal(err)
			}
			got := stdout.String()
			if n := strings.Count(got, "\n"); n != lines || !strings.HasSuffix(got, fmt.Sprintf("\n%d\n", lines-1)) {
				t.Errorf("got %d lines, want %d", n, lines)
			}
		})
	}
}

// sizes is a terminal whose window changes once.
type sizes chan *remotecommand.TerminalSize

func (s sizes) Next() *remotecommand.TerminalSize { return <-s }

func TestTerminal(t *testing.T) {
	config := front(t, stream.Command, streamtest.Exec(func(s streamtest.Streams) int {
		decoder := json.NewDecoder(s.Resize)
		for range 2 {
			var size remotecommand.TerminalSize
			if err := decoder.Decode(&size); err != nil {
				t.Errorf("read a size: %v", err)
			}
			fmt.Fprintf(s.Stdout, "%dx%d ", size.Width, size.Height)
		}
		key := make([]byte, 1)
		io.ReadFull(s.Stdin, key)
		fmt.Fprintf(s.Stdout, "key %s", key)
		return 0
	}))
	for name, executor := range executors(t, config, "stdin=true&stdout=true&tty=true") {
		t.Run(name, func(t *testing.T) {
			window := make(sizes, 2)
			window <- &remotecommand.TerminalSize{Width: 80, Height: 24}
			window <- &remotecommand.TerminalSize{Width: 120, Height: 50}
			defer close(window)
			keys, press := io.Pipe() // a terminal that stays open
			defer press.Close()
			go press.Write([]byte("q"))
			var stdout streamtest.Buffer
			err := executor.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: keys, Stdout: &stdout, Tty: true, TerminalSizeQueue: window})
			if err != nil || stdout.String() != "80x24 120x50 key q" {
				t.Errorf("got %q and error %v", stdout.String(), err)
			}
		})
	}
}

// TestClientGone expects the command to learn that its client has left.
func TestClientGone(t *testing.T) {
	started, gone := make(chan struct{}, 1), make(chan struct{}, 1)
	config := front(t, stream.Command, streamtest.Exec(func(s streamtest.Streams) int {
		started <- struct{}{}
		<-s.Gone
		gone <- struct{}{}
		return 0
	}))
	for name, executor := range executors(t, config, "stdin=true&stdout=true") {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			idle, hold := io.Pipe()
			defer hold.Close()
			go func() {
				<-started
				cancel()
			}()
			if err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: idle, Stdout: io.Discard}); err == nil {
				t.Error("a cancelled command ended well")
			}
			<-gone
		})
	}
}

// TestBackendGone expects the client to hear of a lost backend as a failure.
func TestBackendGone(t *testing.T) {
	lost := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Upgrade, take the streams, then vanish without a status.
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		streamtest.Exec(func(s streamtest.Streams) int {
			fmt.Fprint(s.Stdout, "half")
			panic(http.ErrAbortHandler)
		}).ServeHTTP(w, r.WithContext(ctx))
	})
	config := front(t, stream.Command, lost)
	executor := executors(t, config, "stdout=true")["WebSocket"]
	var stdout streamtest.Buffer
	err := executor.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: &stdout})
	if err == nil || !strings.Contains(err.Error(), "lost") {
		t.Errorf("got error %v, want one that says that the connection was lost", err)
	}
}

func TestRefusal(t *testing.T) {
	config := front(t, stream.Command, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "container not found (\"web\")", http.StatusNotFound)
	}))
	for name, executor := range executors(t, config, "stdout=true") {
		t.Run(name, func(t *testing.T) {
			err := executor.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: io.Discard})
			if err == nil || !strings.Contains(err.Error(), `container not found ("web")`) || !httpstream.IsUpgradeFailure(err) && name == "WebSocket" {
				t.Errorf("got error %v, want the backend's", err)
			}
		})
	}
}

func TestNoBackend(t *testing.T) {
	address, _ := url.Parse("http://127.0.0.1:1/exec")
	r := httptest.NewRequest("POST", "/exec", nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "SPDY/3.1")
	err := stream.Serve(httptest.NewRecorder(), r, stream.Command, stream.Backend{URL: address, Transport: stream.NewTransport(nil)})
	if err == nil || err.Error() != "error dialing backend: dial tcp 127.0.0.1:1: connect: connection refused" {
		t.Errorf("got %v", err)
	}
	r.Header.Del("Upgrade")
	r.Header.Del("Connection")
	err = stream.Serve(httptest.NewRecorder(), r, stream.Command, stream.Backend{URL: address})
	if !apierrors.IsBadRequest(err) || err.Error() != "Upgrade request required" {
		t.Errorf("got %v, want a 400", err)
	}
}

func TestPorts(t *testing.T) {
	config := front(t, stream.Ports, streamtest.Forward(func(port string, conn io.ReadWriteCloser) error {
		if port == "81" {
			return errors.New("nobody listens on 81")
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil {
			t.Errorf("read: %v", err)
		}
		fmt.Fprintf(conn, "port %s heard %s", port, line)
		return nil
	}))
	address, err := url.Parse(config.Host + "/portforward")
	if err != nil {
		t.Fatal(err)
	}
	transport, upgrade, err := spdy.RoundTripperFor(config)
	if err != nil {
		t.Fatal(err)
	}
	overWebSocket, err := portforward.NewSPDYOverWebsocketDialerForStreaming(address, config)
	if err != nil {
		t.Fatal(err)
	}
	for name, dial := range map[string]func(...string) (httpstream.Connection, string, error){
		"WebSocket": overWebSocket.Dial,
		"SPDY":      spdy.NewDialerForStreaming(upgrade, &http.Client{Transport: transport}, "POST", address).Dial,
	} {
		t.Run(name, func(t *testing.T) {
			conn, protocol, err := dial("portforward.k8s.io")
			if err != nil || protocol != "portforward.k8s.io" {
				t.Fatalf("negotiated %q, %v", protocol, err)
			}
			defer conn.Close()
			ask := func(port string) (answer, failure string) {
				header := http.Header{"Streamtype": {"error"}, "Port": {port}, "Requestid": {port}}
				errorStream, err := conn.CreateStream(header)
				if err != nil {
					t.Fatal(err)
				}
				errorStream.Close()
				header = http.Header{"Streamtype": {"data"}, "Port": {port}, "Requestid": {port}}
				data, err := conn.CreateStream(header)
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintln(data, "hello")
				data.Close()
				a, _ := io.ReadAll(data)
				f, _ := io.ReadAll(errorStream)
				return string(a), string(f)
			}
			if answer, failure := ask("80"); answer != "port 80 heard hello\n" || failure != "" {
				t.Errorf("80 answers %q, %q", answer, failure)
			}
			if _, failure := ask("81"); failure != "nobody listens on 81" {
				t.Errorf("81 fails with %q", failure)
			}
		})
	}
}

// TestOlderWebSocket passes a subprotocol through that the backend speaks itself,
// and keeps the caller's token to itself.
func TestOlderWebSocket(t *testing.T) {
	const token = "base64url.bearer.authorization.k8s.io.c2VjcmV0"
	config := front(t, stream.Command, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || strings.Contains(r.Header.Get("Sec-Websocket-Protocol"), token) {
			t.Errorf("the backend sees the token: %v", r.Header)
		}
		conn, err := (&websocket.Upgrader{Subprotocols: []string{"base64.channel.k8s.io"}}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		_, message, err := conn.ReadMessage()
		if err != nil {
			t.Errorf("read: %v", err)
		}
		conn.WriteMessage(websocket.TextMessage, append([]byte("1"), message[1:]...))
	}))
	dialer := websocket.Dialer{Subprotocols: []string{token, "base64.channel.k8s.io"}}
	transport, err := rest.TLSConfigFor(config)
	if err != nil {
		t.Fatal(err)
	}
	dialer.TLSClientConfig = transport
	conn, _, err := dialer.Dial("wss"+strings.TrimPrefix(config.Host, "https")+"/exec?stdin=1&stdout=1", http.Header{"Authorization": {"Bearer secret"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	hello := base64.StdEncoding.EncodeToString([]byte("hello"))
	conn.WriteMessage(websocket.TextMessage, []byte("0"+hello))
	_, message, err := conn.ReadMessage()
	if err != nil || string(message) != "1"+hello || conn.Subprotocol() != "base64.channel.k8s.io" {
		t.Errorf("got %q over %q, %v", message, conn.Subprotocol(), err)
	}
}
