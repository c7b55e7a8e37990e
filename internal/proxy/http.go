package proxy

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilproxy "k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/timonel/timonel/internal/proxy/stream"
)

// Pod answers pods/proxy. path is what follows "proxy" in the URL: empty or
// beginning with a slash, decoded.
func (s *Server) Pod(w http.ResponseWriter, r *http.Request, pod *corev1.Pod, name Name, path string) error {
	to, err := PodLocation(pod, name)
	if err != nil {
		return err
	}
	return s.pass(w, r, to, path, s.others)
}

// Service answers services/proxy.
func (s *Server) Service(w http.ResponseWriter, r *http.Request, service *corev1.Service, name Name, path string) error {
	slices, err := s.config.Lookup.EndpointSlices(r.Context(), service.Namespace, service.Name)
	if err != nil {
		return err
	}
	to, err := ServiceLocation(service, slices, name)
	if err != nil {
		return err
	}
	return s.pass(w, r, to, path, s.others)
}

// Node answers nodes/proxy: the kubelet, or with another port a server of the
// node that takes anyone.
func (s *Server) Node(w http.ResponseWriter, r *http.Request, node *corev1.Node, name Name, path string) error {
	address, err := KubeletAddress(node, s.config.AddressTypes)
	if err != nil {
		return plain(err)
	}
	_, kubeletPort, _ := strings.Cut(address[strings.LastIndexByte(address, ']')+1:], ":")
	if name.Port == "" || name.Port == kubeletPort {
		return s.pass(w, r, &url.URL{Scheme: "https", Host: address}, path, s.kubelet)
	}
	host, err := nodeHost(node, s.config.AddressTypes)
	if err != nil {
		return plain(err)
	}
	return s.pass(w, r, location(name.Scheme, host, name.Port), path, s.others)
}

// pass sends a request on and its answer back. Links and redirects in it are
// rewritten to lead through us again, and X-Forwarded-* tell the backend how it
// was reached.
func (s *Server) pass(w http.ResponseWriter, r *http.Request, to *url.URL, path string, by transports) error {
	if path != "" && path[0] != '/' {
		path = "/" + path
	}
	to.Path = path
	request := r.Clone(r.Context())
	request.Header.Del("Authorization")
	if httpstream.IsUpgradeRequest(r) {
		to.RawQuery = r.URL.RawQuery
		return asStatus(stream.Serve(w, request, stream.Any, stream.Backend{URL: to, Transport: by.upgrades}))
	}
	var failure failed
	utilproxy.NewUpgradeAwareHandler(to, by.requests, true, false, &failure).ServeHTTP(w, request)
	return failure.err
}

// failed keeps the error of a request that was not answered.
type failed struct{ err error }

func (f *failed) Error(_ http.ResponseWriter, _ *http.Request, err error) {
	var own *apierrors.StatusError
	if errors.As(err, &own) {
		f.err = own
		return
	}
	f.err = plain(err)
}
