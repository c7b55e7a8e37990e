package stream

import (
	"crypto/tls"
	"net"
	"net/http"
	"time"
)

// Bounds of reaching a backend.
const (
	dialTimeout      = 10 * time.Second
	handshakeTimeout = 10 * time.Second
	idleTimeout      = 90 * time.Second
	maxIdle          = 8 // idle connections kept for each backend
	bufferSize       = 4 << 10
)

// NewTransport makes a transport that speaks HTTP/1.1 only, as upgrades need,
// with TLS as config says (nil for the system's). Keep one for each set of
// credentials: it keeps connections.
func NewTransport(config *tls.Config) *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	return &http.Transport{
		DialContext:         dialer.DialContext,
		TLSClientConfig:     config,
		TLSHandshakeTimeout: handshakeTimeout,
		TLSNextProto:        map[string]func(string, *tls.Conn) http.RoundTripper{}, // no HTTP/2
		IdleConnTimeout:     idleTimeout,
		MaxIdleConnsPerHost: maxIdle,
		DisableCompression:  true, // bytes pass through as they are
		ReadBufferSize:      bufferSize,
		WriteBufferSize:     bufferSize,
	}
}
