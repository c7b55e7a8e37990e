package stream

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/gorilla/websocket"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// WebSocket subprotocols that carry bytes to the client: as they are, which is also what is meant without any, or in base64.
const (
	plainOutput   = "binary.k8s.io"
	encodedOutput = "base64.binary.k8s.io"
)

// heardMost bounds a message of a client that has nothing to say.
const heardMost = 4 << 10

// Output sends what it reads to a client in messages of a WebSocket, after an empty one that says that it begins, and closes the
// reader when the client is gone.
func Output(w http.ResponseWriter, r *http.Request, from io.ReadCloser) error {
	known := []string{plainOutput, encodedOutput}
	if protocols := offered(r); len(protocols) > 0 && !slices.ContainsFunc(protocols, func(p string) bool { return slices.Contains(known, p) }) {
		return apierrors.NewBadRequest(fmt.Sprintf("unable to negotiate protocol: client supports %v, server accepts %v", protocols, known))
	}
	client, err := upgrader(known...).Upgrade(w, r, nil)
	if err != nil {
		return nil // Upgrade has answered
	}
	gone := make(chan struct{})
	defer func() {
		client.Close()
		<-gone
	}()
	client.SetReadLimit(heardMost)
	go func() {
		defer close(gone)
		defer from.Close()
		for {
			_, message, err := client.NextReader()
			if err != nil {
				return
			}
			io.Copy(io.Discard, message)
		}
	}()

	send := func(piece []byte) error { return client.WriteMessage(websocket.BinaryMessage, piece) }
	if client.Subprotocol() == encodedOutput {
		send = func(piece []byte) error {
			return client.WriteMessage(websocket.TextMessage, base64.StdEncoding.AppendEncode(nil, piece))
		}
	}
	if send(nil) != nil {
		return nil
	}
	buffer := make([]byte, copyBuffer)
	for {
		n, err := from.Read(buffer)
		if n > 0 && send(buffer[:n]) != nil {
			return nil
		}
		if err != nil {
			client.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(closeTimeout))
			return nil
		}
	}
}
