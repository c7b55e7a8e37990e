package stream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/portforward"
	"k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// closeTimeout bounds saying goodbye to a client that does not listen.
const closeTimeout = 5 * time.Second

// upgrader answers WebSocket handshakes. Parity: the Origin header is not
// checked; the API server never did, and dashboards depend on it.
func upgrader(protocols ...string) *websocket.Upgrader {
	return &websocket.Upgrader{
		Subprotocols: protocols,
		CheckOrigin:  func(*http.Request) bool { return true },
		// The buffers that net/http made for the connection serve on.
	}
}

// Translate serves a command to a client of WebSocket subprotocol
// v5.channel.k8s.io over a backend that speaks SPDY with v4.channel.k8s.io.
//
// Both carry the same streams. On the WebSocket each message begins with the
// number of its stream, and {255, n} ends stream n, of which clients make use
// for standard input only. On SPDY each is a stream of its own with the type in
// a header. The outcome of the command, a Status in JSON, passes unread. It is
// sent last, when the output is complete; then the connection is closed.
func Translate(w http.ResponseWriter, r *http.Request, backend Backend) error {
	raw, answer, err := backend.dial(r, http.MethodPost, spdyHeader(backendProtocol))
	if err != nil {
		return err
	}
	if raw == nil {
		return relay(w, answer)
	}
	conn, err := spdy.NewClientConnection(stubConn{raw})
	if err != nil {
		raw.Close()
		return fmt.Errorf("speak SPDY with the backend: %w", err)
	}
	defer conn.Close()
	defer raw.Close() // the SPDY connection says goodbye before it ends, perhaps to nobody: do not wait for it

	streams, err := openStreams(conn, backend.URL.Query())
	if err != nil {
		return err
	}
	client, err := upgrader(commandProtocol).Upgrade(w, r, nil)
	if err != nil {
		return nil // Upgrade has answered
	}
	defer client.Close()

	t := &translation{client: client, streams: streams}
	stop := make(chan struct{})
	defer close(stop)
	go func() { // a client or a context that ends takes the backend with it
		select {
		case <-r.Context().Done():
		case <-t.receive():
		case <-stop:
			return
		}
		raw.Close()
		client.Close()
	}()
	t.send()
	return nil
}

// openStreams asks for the streams that the query names, in the order in which
// backends have always been asked.
func openStreams(conn httpstream.Connection, query url.Values) (map[byte]httpstream.Stream, error) {
	wants := func(name string) bool {
		value := query.Get(name)
		return value != "" && value != "0" && !strings.EqualFold(value, "false")
	}
	tty := wants("tty")
	streams := map[byte]httpstream.Stream{}
	for _, s := range []struct {
		number byte
		name   string
		wanted bool
	}{
		{remotecommand.StreamErr, corev1.StreamTypeError, true},
		{remotecommand.StreamStdIn, corev1.StreamTypeStdin, wants("stdin") || wants("input")},
		{remotecommand.StreamStdOut, corev1.StreamTypeStdout, wants("stdout") || wants("output")},
		{remotecommand.StreamStdErr, corev1.StreamTypeStderr, (wants("stderr") || wants("error")) && !tty},
		{remotecommand.StreamResize, corev1.StreamTypeResize, tty},
	} {
		if !s.wanted {
			continue
		}
		stream, err := conn.CreateStream(http.Header{corev1.StreamType: {s.name}})
		if err != nil {
			return nil, fmt.Errorf("open the %s stream of the backend: %w", s.name, err)
		}
		if s.number == remotecommand.StreamErr {
			stream.Close() // our half: it only tells us
		}
		streams[s.number] = stream
	}
	return streams, nil
}

// translation is one command under way.
type translation struct {
	client  *websocket.Conn
	streams map[byte]httpstream.Stream
	writing sync.Mutex // one message at a time
}

// receive hands the client's messages to the backend. The channel closes when
// the client has gone or broke the protocol.
func (t *translation) receive() <-chan struct{} {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		buffer := make([]byte, copyBuffer)
		inputs := map[byte]httpstream.Stream{ // nil where there is none, or nobody reads it any more
			remotecommand.StreamStdIn:  t.streams[remotecommand.StreamStdIn],
			remotecommand.StreamResize: t.streams[remotecommand.StreamResize],
		}
		for {
			kind, message, err := t.client.NextReader()
			if err != nil || kind != websocket.BinaryMessage {
				return
			}
			var number [2]byte
			if _, err := io.ReadFull(message, number[:1]); err != nil {
				continue // an empty message
			}
			if number[0] == remotecommand.StreamClose {
				if _, err := io.ReadFull(message, number[1:]); err != nil {
					return
				}
				if stream := inputs[number[1]]; stream != nil {
					stream.Close()
				}
				continue
			}
			to := io.Discard
			if stream := inputs[number[0]]; stream != nil {
				to = stream
			}
			if _, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{message}, buffer); err != nil {
				// The command does not read any more. What it writes still matters.
				delete(inputs, number[0])
			}
		}
	}()
	return gone
}

// send passes output to the client, then the outcome, then closes.
func (t *translation) send() {
	var output sync.WaitGroup
	for _, number := range []byte{remotecommand.StreamStdOut, remotecommand.StreamStdErr} {
		stream := t.streams[number]
		if stream == nil {
			continue
		}
		output.Go(func() {
			// One byte before the data for the number of the stream.
			buffer := make([]byte, 1+copyBuffer)
			buffer[0] = number
			for {
				n, err := stream.Read(buffer[1:])
				if n > 0 && t.write(buffer[:1+n]) != nil {
					io.Copy(io.Discard, stream) // let the backend finish
					return
				}
				if err != nil {
					return
				}
			}
		})
	}
	status, err := io.ReadAll(io.LimitReader(t.streams[remotecommand.StreamErr], maxStatus))
	output.Wait()
	if err != nil || len(bytes.TrimSpace(status)) == 0 {
		// v4 always ends with a status: the connection broke, do not let it look like success.
		status = failure(errors.Join(errors.New("the connection to the container was lost"), err))
	}
	if t.write(append([]byte{remotecommand.StreamErr}, status...)) == nil {
		t.client.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(closeTimeout))
	}
}

func (t *translation) write(message []byte) error {
	t.writing.Lock()
	defer t.writing.Unlock()
	return t.client.WriteMessage(websocket.BinaryMessage, message)
}

// failure is the outcome of a command that broke on the way.
func failure(err error) []byte {
	data, _ := json.Marshal(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure,
		Reason:   metav1.StatusReasonInternalError,
		Message:  err.Error(),
	})
	return data
}

// Unwrap serves port-forward to a client whose SPDY connection is wrapped in
// WebSocket messages, over a backend that takes it bare.
func Unwrap(w http.ResponseWriter, r *http.Request, backend Backend) error {
	var protocols []string // what the client wants to speak inside
	for _, protocol := range offered(r) {
		if inner, ok := strings.CutPrefix(protocol, portforward.WebsocketsSPDYTunnelingPrefix); ok {
			protocols = append(protocols, inner)
		}
	}
	if !slices.Contains(protocols, portforward.PortForwardV1Name) {
		return fmt.Errorf("unable to negotiate protocol: client supports %v, server accepts [%s]", offered(r), portsProtocol)
	}
	raw, answer, err := backend.dial(r, http.MethodPost, spdyHeader(portforward.PortForwardV1Name))
	if err != nil {
		return err
	}
	if raw == nil {
		return relay(w, answer)
	}
	defer raw.Close()
	client, err := upgrader(portsProtocol).Upgrade(w, r, nil)
	if err != nil {
		return nil // Upgrade has answered
	}
	join(r.Context(), &messages{conn: client}, raw)
	return nil
}

// messages reads and writes the binary messages of a WebSocket as one stream of bytes.
type messages struct {
	conn    *websocket.Conn
	current io.Reader // the message being read, or nil
}

func (m *messages) Read(p []byte) (int, error) {
	for {
		if m.current == nil {
			kind, next, err := m.conn.NextReader()
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, fmt.Errorf("a message of type %d where bytes were expected", kind)
			}
			m.current = next
		}
		n, err := m.current.Read(p)
		if err == io.EOF {
			m.current, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (m *messages) Write(p []byte) (int, error) {
	if err := m.conn.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (m *messages) Close() error {
	m.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(closeTimeout))
	return m.conn.Close()
}

// stubConn makes a net.Conn of a connection that an HTTP transport gave away.
// The SPDY library asks only for reading, writing and closing.
type stubConn struct{ io.ReadWriteCloser }

func (stubConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (stubConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (stubConn) SetDeadline(time.Time) error      { return nil }
func (stubConn) SetReadDeadline(time.Time) error  { return nil }
func (stubConn) SetWriteDeadline(time.Time) error { return nil }
