package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/timonel/timonel/internal/storage"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
)

// dial begins a watch as a browser does.
func (f *front) dial(query string, header http.Header, protocols ...string) *websocket.Conn {
	f.Helper()
	server := httptest.NewServer(f.handler)
	f.Cleanup(server.Close)
	if header == nil {
		header = http.Header{}
	}
	header.Set("Authorization", "Bearer user")
	dialer := websocket.Dialer{Subprotocols: protocols}
	conn, answer, err := dialer.Dial("ws"+strings.TrimPrefix(server.URL, "http")+collection+"?watch=true"+query, header)
	if err != nil {
		f.Fatal(err)
	}
	if answer.Header.Get("Audit-Id") == "" {
		f.Errorf("the handshake has the header %v", answer.Header)
	}
	f.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	return conn
}

// told reads the next event, in JSON.
func told(t *testing.T, conn *websocket.Conn) (eventType, name string) {
	t.Helper()
	message, text, err := conn.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	var e struct {
		Type   string
		Object struct {
			Code     int
			Metadata metav1.ObjectMeta
		}
	}
	if err := json.Unmarshal(text, &e); err != nil || message != websocket.TextMessage {
		t.Fatalf("a message of type %d, %s: %v", message, text, err)
	}
	if e.Object.Code != 0 {
		return e.Type, fmt.Sprint(e.Object.Code)
	}
	return e.Type, e.Object.Metadata.Name
}

func expectEvent(t *testing.T, conn *websocket.Conn, want string) {
	t.Helper()
	eventType, name := told(t, conn)
	if got := strings.TrimSpace(eventType + " " + name); got != want {
		t.Fatalf("told %q, want %q", got, want)
	}
}

// idle waits until no request is served.
func (f *front) idle() {
	f.Helper()
	select {
	case <-f.server.Idle():
	case <-time.After(closePatience * 2):
		f.Fatal("the watch goes on")
	}
}

// Each event is a message, whether it was there or comes; the end of the watch is a goodbye.
func TestSocketTells(t *testing.T) {
	f := open(t, nil)
	f.create("x")
	f.create("y")
	conn := f.dial("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true", nil)
	expectEvent(t, conn, "ADDED x")
	expectEvent(t, conn, "ADDED y")
	expectEvent(t, conn, "BOOKMARK")
	f.create("z")
	expectEvent(t, conn, "ADDED z")
	if w := f.do("user", "DELETE", collection+"/x", ""); w.Code != 200 {
		t.Fatal(w.Body)
	}
	expectEvent(t, conn, "DELETED x")
	f.server.Drain()
	if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("it ended with %v", err)
	}
	f.idle()
	records := f.ring.Records()
	if last := records[len(records)-1]; last.Verb != "watch" || last.Status != http.StatusSwitchingProtocols || last.Bytes == 0 {
		t.Errorf("recorded as %+v", last)
	}
}

func TestSocketEndsInTime(t *testing.T) {
	f := open(t, nil)
	conn := f.dial("&timeoutSeconds=1", nil)
	start := time.Now()
	if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) || time.Since(start) < 500*time.Millisecond {
		t.Errorf("it ended with %v", err)
	}
}

// Events look the same under whatever subprotocol the client offers first.
func TestSocketProtocols(t *testing.T) {
	f := open(t, nil)
	f.create("x")
	for _, offered := range [][]string{{}, {"base64.binary.k8s.io"}, {"binary.k8s.io", "base64.binary.k8s.io"}, {"my.own"}} {
		conn := f.dial("", nil, offered...)
		if got, want := conn.Subprotocol(), append(offered, "")[0]; got != want {
			t.Errorf("of %v %q is spoken", offered, got)
		}
		expectEvent(t, conn, "ADDED x")
	}
}

func TestSocketTables(t *testing.T) {
	f := open(t, nil)
	f.create("x")
	conn := f.dial("", http.Header{"Accept": {"application/json;as=Table;v=v1;g=meta.k8s.io"}})
	for i, columns := range []bool{true, false} { // the first one says what the columns are
		_, text, err := conn.ReadMessage()
		if err != nil || !strings.Contains(string(text), `"kind":"Table"`) || strings.Contains(string(text), `"columnDefinitions":[{`) != columns {
			t.Errorf("told %s, %v", text, err)
		}
		f.create(fmt.Sprint("y", i))
	}
}

// In protobuf a message is a WatchEvent, without the length that separates them in a body.
func TestSocketProtobuf(t *testing.T) {
	f := open(t, nil)
	f.create("x")
	conn := f.dial("", http.Header{"Accept": {"application/vnd.kubernetes.protobuf"}})
	for _, want := range []string{"x", "after-x"} {
		message, raw, err := conn.ReadMessage()
		if err != nil || message != websocket.BinaryMessage {
			t.Fatalf("a message of type %d, %v", message, err)
		}
		var event metav1.WatchEvent
		if err := event.Unmarshal(raw); err != nil {
			t.Fatal(err)
		}
		var obj runtime.Object
		if obj, _, err = protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Decode(event.Object.Raw, nil, nil); err != nil {
			t.Fatal(err)
		}
		if event.Type != "ADDED" || obj.(*corev1.ConfigMap).Name != want {
			t.Errorf("told %s %v", event.Type, obj)
		}
		f.create("after-" + want)
	}
}

// An error before the watch begins is an ordinary answer; an expired start is told in the stream.
func TestSocketErrors(t *testing.T) {
	f := open(t, nil)
	upgrade := []string{"Connection: keep-alive, Upgrade", "Upgrade: websocket"}
	check := func(who, query string, code int, text string, more ...string) {
		t.Helper()
		w := f.do(who, "GET", collection+"?watch=true"+query, "", append(upgrade, more...)...)
		if w.Code != code || !strings.Contains(status(t, w).Message, text) {
			t.Errorf("%d %s, want %d and %s", w.Code, w.Body, code, text)
		}
	}
	check("wrong", "", 401, "Unauthorized")
	check("nobody", "", 403, "forbidden")
	check("user", "&resourceVersionMatch=NotOlderThan", 422, "resourceVersionMatch")
	check("user", "", 400, "unsupported version", "Sec-WebSocket-Version: 8")
	check("user", "", 400, "Sec-WebSocket-Key", "Sec-WebSocket-Version: 13")

	f.create("x")
	conn := f.dial("&resourceVersion=1", nil)
	expectEvent(t, conn, "ADDED x")
	var lost atomic.Bool
	f.store.Fault(func(op string) error {
		if op == "Watch" && lost.CompareAndSwap(false, true) {
			return storage.ErrCompacted
		}
		return nil
	})
	f.store.Break() // and the history begins anew
	for range 2 {   // in the middle, and at the start
		expectEvent(t, conn, "ERROR 410")
		if _, _, err := conn.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
			t.Errorf("it ended with %v", err)
		}
		conn = f.dial("&resourceVersion=1", nil)
	}
}

// A client that goes, says goodbye or breaks the protocol ends its watch; one that sends pings and small talk does not.
func TestSocketClients(t *testing.T) {
	f := open(t, nil)
	control := func(message int, data []byte) func(*websocket.Conn) error {
		return func(c *websocket.Conn) error { return c.WriteControl(message, data, time.Now().Add(time.Second)) }
	}
	for name, leave := range map[string]func(c *websocket.Conn) error{
		"cut":     func(c *websocket.Conn) error { return c.NetConn().Close() },
		"goodbye": control(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseGoingAway, "")),
		"nonsense": func(c *websocket.Conn) error {
			_, err := c.NetConn().Write([]byte("GET / HTTP/1.1\r\n\r\n"))
			return err
		},
		"flood": func(c *websocket.Conn) error { return c.WriteMessage(websocket.TextMessage, make([]byte, heardMost+1)) },
	} {
		t.Run(name, func(t *testing.T) {
			conn := f.dial("", nil)
			var pong string
			conn.SetPongHandler(func(data string) error { pong = data; return nil })
			if err := errors.Join(conn.WriteMessage(websocket.TextMessage, []byte("hello")), control(websocket.PingMessage, []byte("are you there"))(conn)); err != nil {
				t.Fatal(err)
			}
			for i := range 1000 {
				f.create(fmt.Sprint(name, i))
				if told(t, conn); pong != "" {
					break
				}
			}
			if pong != "are you there" {
				t.Errorf("the ping was answered with %q", pong)
			}
			if err := leave(conn); err != nil {
				t.Fatal(err)
			}
			f.idle()
		})
	}
}

// A client that does not read delays nobody, and does not keep the server from ending.
func TestSocketThatDoesNotRead(t *testing.T) {
	f := open(t, nil)
	slow, quick := f.dial("", nil), f.dial("", nil)
	text := strings.Repeat("x", 200_000)
	const n = 40 // more than sockets hold, all together
	for i := range n {
		if w := f.do("user", "POST", collection, fmt.Sprintf(`{"metadata":{"name":"m%d"},"data":{"k":"%s"}}`, i, text)); w.Code != 201 {
			t.Fatal(w.Body)
		}
	}
	for i := range n {
		expectEvent(t, quick, fmt.Sprint("ADDED m", i))
	}
	_ = slow.NetConn().(*net.TCPConn).SetLinger(0)
	_ = slow.NetConn().Close()
	_ = quick.Close()
	f.idle()
}
