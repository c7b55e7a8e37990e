// Package proxy is the API server's side of everything that only passes
// through: container logs, exec, attach, port-forward, and requests to the HTTP
// servers of nodes, pods and services.
//
// Each method of Server answers one subresource for an object that the caller
// has read and authorized. It returns an error as long as nothing was written;
// the caller writes it, as with any other request. Afterwards it returns nil,
// however the stream ended.
//
// Promises: kubelets are told who asks by our client certificate only; the
// client's credentials go no further. Loopback and link-local addresses are not
// reached on behalf of clients, except those of kubelets. A connection ends
// when either side or the request's context does, and idle ones cost nothing.
//
// Does not know: storage, authorization, the chain around it. What it needs to
// look up comes through Lookup. Pure decisions (which container, which address,
// which endpoint) are in target.go: start there.
package proxy

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/timonel/timonel/internal/proxy/stream"
)

// KubeletPort is where kubelets listen unless their node says otherwise.
const KubeletPort = 10250

// Lookup is what the proxy reads beyond the object of a request. Errors reach
// the client: they should be API Status errors.
type Lookup interface {
	// Node returns a node by name.
	Node(ctx context.Context, name string) (*corev1.Node, error)
	// EndpointSlices returns the endpoint slices of a service.
	EndpointSlices(ctx context.Context, namespace, service string) ([]*discoveryv1.EndpointSlice, error)
}

// Config says how kubelets and pods are reached.
type Config struct {
	Lookup Lookup
	// KubeletTLS proves who we are to kubelets and says whose certificates are
	// believed of them. Nil uses neither and verifies with the system's roots.
	KubeletTLS *tls.Config
	// AddressTypes is the order in which a node's addresses are tried
	// (--kubelet-preferred-address-types). Default: that flag's.
	AddressTypes []corev1.NodeAddressType
	// KubeletTimeout bounds connecting to a kubelet (--kubelet-timeout). Default 5 s.
	KubeletTimeout time.Duration
	// SplitLogStreams lets clients ask for one stream of a log (feature
	// PodLogsQuerySplitStreams).
	SplitLogStreams bool
}

// Server passes requests on. Make it with New.
type Server struct {
	config  Config
	kubelet transports
	// insecureKubelet does not verify: for logs that the client asked for that way.
	insecureKubelet transports
	// others reaches pods, and servers on nodes that are not kubelets. Their
	// certificates are not verified: nobody could say by whom they should be signed.
	others transports
}

// transports are the connections to one kind of backend.
type transports struct {
	requests http.RoundTripper
	upgrades http.RoundTripper // HTTP/1.1 only
}

// defaultAddressTypes is the default of --kubelet-preferred-address-types.
var defaultAddressTypes = []corev1.NodeAddressType{
	corev1.NodeHostName, corev1.NodeInternalDNS, corev1.NodeInternalIP, corev1.NodeExternalDNS, corev1.NodeExternalIP,
}

const (
	defaultKubeletTimeout = 5 * time.Second
	podTimeout            = 30 * time.Second // to connect to a pod
	keepAlive             = 30 * time.Second
)

// New makes a proxy. It connects to nothing yet.
func New(config Config) *Server {
	if len(config.AddressTypes) == 0 {
		config.AddressTypes = defaultAddressTypes
	}
	if config.KubeletTimeout == 0 {
		config.KubeletTimeout = defaultKubeletTimeout
	}
	kubeletTLS := config.KubeletTLS
	if kubeletTLS == nil {
		kubeletTLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	insecure := kubeletTLS.Clone()
	insecure.InsecureSkipVerify = true
	insecure.RootCAs = nil
	toKubelet := &net.Dialer{Timeout: config.KubeletTimeout, KeepAlive: keepAlive}
	toOthers := &net.Dialer{Timeout: podTimeout, KeepAlive: keepAlive, Control: refuseOwn}
	return &Server{
		config:          config,
		kubelet:         newTransports(kubeletTLS, toKubelet),
		insecureKubelet: newTransports(insecure, toKubelet),
		others:          newTransports(&tls.Config{InsecureSkipVerify: true}, toOthers),
	}
}

func newTransports(config *tls.Config, dialer *net.Dialer) transports {
	upgrades := stream.NewTransport(config)
	upgrades.DialContext = dialer.DialContext
	requests := stream.NewTransport(config.Clone())
	requests.DialContext = dialer.DialContext
	return transports{requests: requests, upgrades: upgrades}
}

// Close lets go of idle connections.
func (s *Server) Close() {
	for _, t := range []transports{s.kubelet, s.insecureKubelet, s.others} {
		t.requests.(*http.Transport).CloseIdleConnections()
		t.upgrades.(*http.Transport).CloseIdleConnections()
	}
}

// errOwnAddress is the cause when a name or an object leads to ourselves.
var errOwnAddress = apierrors.NewBadRequest("address not allowed")

// refuseOwn runs before every connection to something that a user's object
// names, when its address is final.
func refuseOwn(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if !proxyable(to.Addr()) {
		return errOwnAddress
	}
	return nil
}

// proxyable reports whether users may reach an address through us: not what is
// on our own machine or only on its links.
func proxyable(a netip.Addr) bool {
	a = a.Unmap()
	return !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsLinkLocalMulticast() && !a.IsInterfaceLocalMulticast() && !a.IsUnspecified()
}
