// Package serve is the node's own HTTPS server, on port 10250: what the API
// server, metrics collectors and operators ask a kubelet for. Container logs,
// exec, attach and port-forward, the list of pods, health, metrics.
//
// Promises: nobody is anonymous. A client shows a certificate that the client
// CA signed, or a token that the API server knows, and the API server decides
// what it may do, with the resources that kubelets use: nodes with the
// subresources proxy, pods, healthz, configz, metrics, stats, log. Log lines
// come whole and in order over rotations, and following them polls nothing.
//
// Does not know: why a container runs, or how its log is written. It asks the
// agent through Containers and the runtime through CRI; the runtime's streaming
// server does the work of exec, and its bytes pass through.
//
// Not served, and answered with 404: the node's own log files (/logs),
// checkpoints, profiling, and /stats/summary, whose heirs are /metrics/resource
// and CRI statistics.
//
// Start reading at Server.routes.
package serve

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/timonel/timonel/internal/proxy/stream"
)

// Port is where kubelets listen.
const Port = 10250

// Bounds of the server.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 90 * time.Second
	maxHeader     = 64 << 10
	drainTimeout  = 5 * time.Second // for short requests when the server ends
)

// Containers is what the server needs to know of the agent's pods. The methods
// are called by several goroutines at once.
type Containers interface {
	// Find returns a container of a pod: the newest, or with previous the one
	// before it. It finds ended containers while their log is kept.
	//
	// Errors that errors.Is(err, ErrNotFound) mean that the pod or the container
	// does not exist; any other is about its state, as in `container "web" in pod
	// "shop" is waiting to start: ImagePullBackOff`. Both texts reach the user.
	Find(pod PodRef, container string, previous bool) (Container, error)
	// Sandbox returns the CRI id of the running sandbox of a pod, for port-forward.
	// Errors as for Find.
	Sandbox(pod PodRef) (string, error)
	// Pods lists the pods that the agent runs, with their current status. The
	// caller does not change it.
	Pods() *corev1.PodList
}

// PodRef names a pod. UID is empty when any pod of that name will do.
type PodRef struct {
	Namespace, Name string
	UID             types.UID
}

// Container is one container as the runtime knows it.
type Container struct {
	ID        string // CRI id; empty for a container that is gone but for its log
	SandboxID string
	LogPath   string // absolute, in CRI log format
	TTY       bool   // whether it was made with a terminal
	Running   bool
	// Ended is closed when the container has ended, or nil for one that had
	// ended already. Following its log ends then.
	Ended <-chan struct{}
}

// ErrNotFound says that a pod or container does not exist.
var ErrNotFound = errors.New("not found")

// NotFound makes an error that is ErrNotFound and reads as given.
func NotFound(format string, args ...any) error { return notFound{fmt.Errorf(format, args...)} }

type notFound struct{ error }

func (n notFound) Is(target error) bool { return target == ErrNotFound }
func (n notFound) Unwrap() error        { return n.error }

// Config is what a server needs. All but Log are required, except as noted.
type Config struct {
	NodeName   string
	Containers Containers
	Runtime    runtimeapi.RuntimeServiceClient
	// ClientCA returns the authorities whose client certificates are believed. It
	// is asked at every connection, so that it may change; nil believes none.
	ClientCA func() *x509.CertPool
	// ReviewToken asks the API server whose a bearer token is: the Create method
	// of TokenReviews. Nil believes no token.
	ReviewToken func(context.Context, *authenticationv1.TokenReview) (*authenticationv1.TokenReview, error)
	// ReviewAccess asks the API server what someone may do: the Create method of
	// SubjectAccessReviews.
	ReviewAccess func(context.Context, *authorizationv1.SubjectAccessReview) (*authorizationv1.SubjectAccessReview, error)
	// TLS holds the serving certificate. Needed by Serve only.
	TLS *tls.Config
	// Version is what /metrics tells of the program, "v1.37.2" for instance.
	Version string
	// Log hears of clients that were refused and of broken connections. Default: nobody.
	Log *slog.Logger
}

// Server answers for one node. Make it with New.
type Server struct {
	config    Config
	guard     *guard
	counters  *counters
	transport http.RoundTripper // to the runtime's streaming server
	handler   http.Handler
}

// New makes a server that does not listen yet.
func New(config Config) *Server {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		config:    config,
		guard:     newGuard(config),
		counters:  newCounters(),
		transport: stream.NewTransport(nil),
	}
	s.handler = s.routes()
	return s
}

// ServeHTTP answers one request. r.TLS carries the client's certificate.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// routes lists everything that is served, with the subresource of nodes that a
// client needs access to. Where two are named, either is enough.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, handler func(http.ResponseWriter, *http.Request) error, subresources ...string) {
		mux.Handle(pattern, s.counters.count(pattern, s.guard.allow(subresources, s.answer(handler))))
	}
	const pod, container = "/{namespace}/{pod}", "/{namespace}/{pod}/{container}"
	const podUID, containerUID = "/{namespace}/{pod}/{uid}", "/{namespace}/{pod}/{uid}/{container}"

	handle("GET /containerLogs"+container, s.logs, "proxy")
	for _, method := range []string{"GET", "POST"} {
		for _, at := range []string{container, containerUID} {
			handle(method+" /exec"+at, s.exec, "proxy")
			handle(method+" /attach"+at, s.attach, "proxy")
		}
		for _, at := range []string{pod, podUID} {
			handle(method+" /portForward"+at, s.portForward, "proxy")
		}
	}
	handle("POST /run"+container, s.run, "proxy")
	handle("POST /run"+containerUID, s.run, "proxy")
	handle("GET /pods", s.pods, "pods", "proxy")
	handle("GET /runningpods/", s.pods, "pods", "proxy")
	handle("GET /healthz", s.healthz, "healthz", "proxy")
	handle("GET /healthz/ping", s.healthz, "healthz", "proxy")
	handle("GET /healthz/log", s.healthz, "healthz", "proxy")
	handle("GET /healthz/syncloop", s.healthz, "healthz", "proxy")
	handle("GET /metrics", s.metrics, "metrics")
	handle("GET /metrics/resource", s.resourceMetrics, "metrics")
	// Strangers learn nothing, not even what does not exist.
	handle("/", func(w http.ResponseWriter, r *http.Request) error {
		http.NotFound(w, r)
		return nil
	}, "proxy")
	return mux
}

// refusal is an error with its HTTP status.
type refusal struct {
	status int
	error
}

func (r refusal) Unwrap() error { return r.error }

func refuse(status int, format string, args ...any) error {
	return refusal{status, fmt.Errorf(format, args...)}
}

// answer turns a handler's error into the plain text that kubelets answer with.
func (s *Server) answer(handler func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := handler(w, r)
		if err == nil {
			return
		}
		status := http.StatusInternalServerError
		var known refusal
		switch {
		case errors.As(err, &known):
			status = known.status
		case errors.Is(err, ErrNotFound):
			status = http.StatusNotFound
		}
		http.Error(w, err.Error(), status)
	})
}

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Write([]byte("ok"))
	return nil
}

// Serve listens until ctx ends, then lets short requests finish and cuts streams.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	if s.config.TLS == nil {
		return errors.New("serve the node's API: no TLS configuration")
	}
	config := s.config.TLS.Clone()
	config.ClientAuth = tls.RequestClientCert // the guard verifies it, against authorities that may change
	config.NextProtos = []string{"h2", "http/1.1"}
	if config.MinVersion == 0 {
		config.MinVersion = tls.VersionTLS12
	}
	streams, cut := context.WithCancel(context.Background())
	defer cut()
	server := &http.Server{
		Handler:           s,
		TLSConfig:         config,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return streams },
		ErrorLog:          slog.NewLogLogger(s.config.Log.Handler(), slog.LevelDebug),
	}
	done := make(chan error, 1)
	go func() { done <- server.ServeTLS(listener, "", "") }()
	select {
	case err := <-done:
		return fmt.Errorf("serve the node's API at %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	cut()
	limit, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if err := server.Shutdown(limit); err != nil {
		server.Close()
	}
	<-done
	return nil
}
