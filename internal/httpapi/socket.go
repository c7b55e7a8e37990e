package httpapi

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
	"github.com/timonel/timonel/internal/codec"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Bounds of a watch over a WebSocket.
const (
	heardMost       = 4 << 10          // of one message of the client, which has nothing to say
	messagePatience = 30 * time.Second // for a client to take a message
	closePatience   = 5 * time.Second  // for a client to say goodbye
)

// socket carries a watch over a WebSocket, as browsers want it (Kubernetes API concepts, "Efficient detection of changes").
// Each event is a message: of text when it is JSON, else of bytes, under whatever subprotocol the client offers first.
//
// Parity: base64.binary.k8s.io does not encode events, though it does other streams: dashboards offer it and parse JSON.
type socket struct {
	conn    *websocket.Conn
	message int           // the type of messages
	prefix  int           // what an event has in front that a message does without
	gone    chan struct{} // closed when the client is not heard any more
}

// lengthPrefix is what a protobuf event begins with: see [codec.Encoder.Event].
const lengthPrefix = 4

// upgrade makes the connection a WebSocket, and ends the exchange's context when the client is gone.
func (x *exchange) upgrade(f codec.Format) (*socket, error) {
	var refused error
	u := websocket.Upgrader{
		Subprotocols: websocket.Subprotocols(x.r),
		// Parity: dashboards are served from elsewhere, and what they may do their token says.
		CheckOrigin: func(*http.Request) bool { return true },
		Error: func(_ http.ResponseWriter, _ *http.Request, _ int, reason error) {
			refused = apierrors.NewBadRequest(reason.Error())
		},
	}
	conn, err := u.Upgrade(x.w, x.r, x.w.Header())
	if refused != nil {
		return nil, refused
	}
	if err != nil {
		return nil, err
	}
	s := &socket{conn: conn, message: websocket.TextMessage, gone: make(chan struct{})}
	switch f.Media {
	case codec.ProtobufMedia:
		s.message, s.prefix = websocket.BinaryMessage, lengthPrefix
	case codec.CBORMedia:
		s.message = websocket.BinaryMessage
	}
	x.ctx, x.cancel = context.WithCancel(x.ctx)
	conn.SetReadLimit(heardMost)
	go s.hear(x.cancel)
	return s, nil
}

// hear reads what the client sends: pings are answered, a goodbye or a breach of the protocol ends the watch, all else means nothing.
func (s *socket) hear(end func()) {
	defer close(s.gone)
	defer end()
	for {
		_, message, err := s.conn.NextReader()
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, message) // the error comes again
	}
}

// send sends one event.
func (s *socket) send(event []byte) error {
	_ = s.conn.SetWriteDeadline(time.Now().Add(messagePatience))
	return s.conn.WriteMessage(s.message, event[s.prefix:])
}

// close says goodbye, and waits for the client to do the same.
func (s *socket) close() {
	until := time.Now().Add(closePatience)
	_ = s.conn.SetReadDeadline(until)
	if s.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), until) == nil {
		<-s.gone
	}
	_ = s.conn.Close()
	<-s.gone
}
