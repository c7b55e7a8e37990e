// Package stream passes upgraded connections between a client and a backend:
// exec, attach and port-forward, and whatever a pod's own server upgrades to.
//
// Clients speak three dialects. SPDY/3.1 and the older WebSocket subprotocols
// are what backends speak too: Pass copies the bytes. WebSocket subprotocol
// v5.channel.k8s.io, kubectl's first choice, is translated to SPDY by
// Translate, since kubelets and container runtimes know only up to v4. And
// port-forward's SPDY/3.1+portforward.k8s.io is SPDY inside WebSocket messages,
// which Unwrap takes out of them. Serve chooses. A log is only read: Output sends
// it in messages.
//
// Promises: the client is upgraded only after the backend was, so that a
// refusal reaches it as an ordinary answer; both connections close when either
// does or the request's context ends; an idle stream costs no wake-ups, and one
// buffer for each direction.
//
// Does not know: pods, nodes, who asks. The address and the credentials of the
// backend come with Backend. Start reading at Serve.
package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/portforward"
	"k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// copyBuffer is how much one direction of a stream holds at a time: a WebSocket
// message of kubectl's.
const copyBuffer = 32 << 10

// maxStatus bounds the outcome of a command, a Status object in JSON.
const maxStatus = 64 << 10

// tokenProtocol begins the WebSocket subprotocol in which browsers hide a
// bearer token. It is not for backends.
const tokenProtocol = "base64url.bearer.authorization.k8s.io."

// Backend is the far end of a stream.
type Backend struct {
	// URL is where the request goes, complete with its query.
	URL *url.URL
	// Transport carries it. It must speak HTTP/1.1 and nothing newer: see
	// NewTransport.
	Transport http.RoundTripper
	// Header is sent in addition to the client's, credentials for instance.
	Header http.Header
}

// Kind says which streams a connection carries.
type Kind int

const (
	// Any is an upgrade whose protocol is the backend's business.
	Any Kind = iota
	// Command is exec or attach: the streams are in the query of Backend.URL.
	Command
	// Ports is port-forward.
	Ports
)

// Serve connects the client behind w and r with a backend. It returns an error
// while the client can still be answered, and nil once something was written,
// whatever happened then. The error is a 400 when the request is not an upgrade.
func Serve(w http.ResponseWriter, r *http.Request, kind Kind, backend Backend) error {
	switch {
	case !httpstream.IsUpgradeRequest(r):
		return apierrors.NewBadRequest("Upgrade request required")
	case kind == Command && wsstream.IsWebSocketRequestWithStreamCloseProtocol(r):
		return Translate(w, r, backend)
	case kind == Ports && wsstream.IsWebSocketRequestWithTunnelingProtocol(r):
		return Unwrap(w, r, backend)
	}
	return Pass(w, r, backend)
}

// Pass copies bytes both ways once the backend has accepted the client's own
// upgrade request.
func Pass(w http.ResponseWriter, r *http.Request, backend Backend) error {
	conn, answer, err := backend.dial(r, r.Method, clientHeader(r))
	if err != nil {
		return err
	}
	if conn == nil {
		return relay(w, answer)
	}
	defer conn.Close()

	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return fmt.Errorf("take over the client's connection: %w", err)
	}
	defer client.Close()
	answer.Body = nil // the connection itself
	if answer.Write(client) != nil {
		return nil
	}
	join(r.Context(), struct {
		io.Reader
		io.WriteCloser
	}{buffered.Reader, client}, conn)
	return nil
}

// dial sends an upgrade request to the backend. A refusal is not an error: then
// the connection is nil and answer is to be relayed.
func (b Backend) dial(r *http.Request, method string, header http.Header) (conn io.ReadWriteCloser, answer *http.Response, err error) {
	request := (&http.Request{
		Method: method, URL: b.URL, Host: b.URL.Host, Header: header, RemoteAddr: r.RemoteAddr,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(r.Context())
	utilnet.AppendForwardedForHeader(request)
	for name, values := range b.Header {
		header[name] = values
	}
	answer, err = b.Transport.RoundTrip(request)
	if err != nil {
		return nil, nil, fmt.Errorf("error dialing backend: %w", err)
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		if answer.StatusCode < 400 {
			answer.Body.Close()
			return nil, nil, fmt.Errorf("invalid upgrade response: status code %d", answer.StatusCode)
		}
		return nil, answer, nil
	}
	conn, ok := answer.Body.(io.ReadWriteCloser)
	if !ok {
		answer.Body.Close()
		return nil, nil, errors.New("the backend's connection cannot be written to")
	}
	return conn, answer, nil
}

// clientHeader is the client's header without what proved its identity to us.
func clientHeader(r *http.Request) http.Header {
	header := r.Header.Clone()
	header.Del("Authorization")
	if protocols := offered(r); len(protocols) > 0 {
		kept := slices.DeleteFunc(protocols, func(p string) bool { return strings.HasPrefix(p, tokenProtocol) })
		header.Del(wsstream.WebSocketProtocolHeader)
		if len(kept) > 0 {
			header.Set(wsstream.WebSocketProtocolHeader, strings.Join(kept, ", "))
		}
	}
	return header
}

// offered lists the WebSocket subprotocols of a request.
func offered(r *http.Request) []string {
	var all []string
	for _, line := range r.Header.Values(wsstream.WebSocketProtocolHeader) {
		for protocol := range strings.SplitSeq(line, ",") {
			if protocol = strings.TrimSpace(protocol); protocol != "" {
				all = append(all, protocol)
			}
		}
	}
	return all
}

// relay answers the client with the backend's refusal.
func relay(w http.ResponseWriter, answer *http.Response) error {
	defer answer.Body.Close()
	for name, values := range answer.Header {
		switch name {
		case "Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "Trailer":
		default:
			w.Header()[name] = values
		}
	}
	w.WriteHeader(answer.StatusCode)
	io.Copy(w, answer.Body) // the client may have gone; nothing to do about it
	return nil
}

// join copies between two connections until one of them or ctx ends, then
// closes both and waits for the copying to be over.
func join(ctx context.Context, a, b io.ReadWriteCloser) {
	var once sync.Once
	end := func() {
		once.Do(func() {
			a.Close()
			b.Close()
		})
	}
	defer context.AfterFunc(ctx, end)()
	var both sync.WaitGroup
	for _, way := range [][2]io.ReadWriteCloser{{a, b}, {b, a}} {
		both.Go(func() {
			defer end()
			// Without the optional interfaces that make io.Copy use buffers of its own.
			io.CopyBuffer(struct{ io.Writer }{way[1]}, struct{ io.Reader }{way[0]}, make([]byte, copyBuffer))
		})
	}
	both.Wait()
}

// spdyHeader is the header of an upgrade to SPDY with given stream protocols.
func spdyHeader(protocols ...string) http.Header {
	return http.Header{
		httpstream.HeaderConnection:      {httpstream.HeaderUpgrade},
		httpstream.HeaderUpgrade:         {"SPDY/3.1"},
		httpstream.HeaderProtocolVersion: protocols,
	}
}

// The names of protocols that the translations select.
const (
	commandProtocol = remotecommand.StreamProtocolV5Name
	backendProtocol = remotecommand.StreamProtocolV4Name
	portsProtocol   = portforward.WebsocketsSPDYTunnelingPortForwardV1
)
