package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"github.com/timonel/timonel/internal/http2"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"golang.org/x/sync/errgroup"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
)

// Limits of connections (kube-apiserver's).
const (
	readHeaderTimeout = 32 * time.Second
	idleTimeout       = 90 * time.Second
	maxHeaderBytes    = 1 << 20
	maxStreams        = 100       // requests at once on an HTTP/2 connection
	streamWindow      = 256 << 10 // bytes of a body that are on their way
	drainTimeout      = 10 * time.Second
	trimAfter         = 3 * time.Second // after the server is ready, and its first clients with it; what no client needs goes at once
)

// ErrPortInUse says that another process listens on the server's port.
var ErrPortInUse = errors.New("port is in use")

// Listen opens the server's port.
func (s *Server) Listen() (net.Listener, error) {
	address := netip.AddrPortFrom(s.bind, uint16(s.SecurePort))
	listener, err := net.Listen("tcp", address.String())
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: %w (is another API server running?)", address, ErrPortInUse)
	case err != nil:
		return nil, fmt.Errorf("listen: %w", err)
	}
	s.port = listener.Addr().(*net.TCPAddr).Port
	return listener, nil
}

// Run serves until ctx is done, then lets running requests finish. ready, if not nil, is called once when
// the server answers /readyz.
func (s *Server) Run(ctx context.Context, listener net.Listener, ready func()) error {
	group, ctx := errgroup.WithContext(ctx)
	stop, end := context.WithCancel(context.WithoutCancel(ctx)) // for what must outlive the last request
	defer end()
	background, inner := errgroup.WithContext(stop)
	background.Go(func() error { return s.cache.Run(inner) })
	if s.encryption != nil {
		background.Go(func() error { return s.runEncryption(inner) })
	}

	front := s.httpServer()
	group.Go(func() error {
		err := front.ServeTLS(http2.Gather(listener), "", "")
		if errors.Is(err, http.ErrServerClosed) {
			return nil
		}
		return fmt.Errorf("serve: %w", err)
	})
	group.Go(func() error {
		if err := s.start(ctx, inner, background); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		s.booted.Store(true)
		if ready != nil {
			ready()
		}
		trimFiles() // most of what a start touches, nothing else does
		defer giveBack(trimAfter, quietAfter, trim).end()
		if err := s.keep(ctx, inner); err != nil {
			return err
		}
		if err := s.leave(context.WithoutCancel(ctx)); err != nil {
			s.Log.Warn("the server's address stays in the endpoints for a while", "error", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		time.Sleep(s.ShutdownDelay)
		s.front.Drain()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		stopped := make(chan struct{})
		go func() {
			_ = front.Shutdown(drain) // what it could not end, Close ends
			close(stopped)
		}()
		select {
		case <-stopped:
		case <-s.front.Idle(): // connections that carry nothing need not be waited for
		}
		return front.Close()
	})
	err := group.Wait()
	end()
	if backgroundErr := background.Wait(); err == nil && !errors.Is(backgroundErr, context.Canceled) {
		err = backgroundErr
	}
	return err
}

// start waits for the cache, makes the bootstrap objects and fills the authorizers.
func (s *Server) start(ctx, stop context.Context, background *errgroup.Group) error {
	select {
	case <-s.cache.Ready():
	case <-stop.Done():
		return context.Cause(stop)
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.peers != nil {
		if err := s.peers.join(ctx); err != nil {
			return err
		}
	}
	if err := s.boot(ctx); err != nil {
		return err
	}
	if s.publishesVersions() {
		if err := s.publishVersions(ctx); err != nil {
			return err
		}
		s.published.Store(true)
	} else if s.gates.Enabled("StorageVersionAPI") {
		s.Log.Warn("storage versions are not published: internal.apiserver.k8s.io/v1alpha1 is not served (--runtime-config)")
	}
	if _, err := s.cache.Fresh(ctx); err != nil { // so that authorizers begin with what boot made
		return err
	}
	if err := s.serveCustomResources(ctx, stop, background); err != nil {
		return err
	}
	for resource, feed := range s.feeds {
		f, err := newFollower(feed, s.Log)
		if err != nil {
			return err
		}
		w, err := f.load()
		if err != nil {
			return fmt.Errorf("follow %s: %w", resource, err)
		}
		background.Go(func() error { return f.run(stop, w) })
	}
	background.Go(func() error { return s.keepReservations(stop) })
	if s.gates.Enabled("CoordinatedLeaderElection") {
		background.Go(func() error { s.coordinateElections(stop); return nil })
	}
	return nil
}

const (
	leaseRenewal     = 10 * time.Second // of the server's identity Lease (KEP-1965) and of its address
	bootstrapRenewal = time.Minute      // of namespaces and the server's own service, if somebody removed them
)

// keep renews what shows that the server is there, and sees to the endpoints of all servers, until ctx is done or
// what the server needs has failed.
func (s *Server) keep(ctx, needed context.Context) error {
	lease, boot := time.NewTicker(cmp.Or(s.pace, leaseRenewal)), time.NewTicker(bootstrapRenewal)
	defer lease.Stop()
	defer boot.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-needed.Done(): // the cache or a feed failed
			return context.Cause(needed)
		case <-lease.C:
			s.warn(ctx, s.renewIdentity(ctx), "the server's Lease is not renewed")
			if s.peers != nil {
				s.warn(ctx, s.peers.keep(ctx), "the server's address is not renewed")
				s.warn(ctx, s.reconcileServers(ctx), "the endpoints of the API servers are not kept")
			}
		case <-s.peers.changed():
			if s.peers.news() {
				s.warn(ctx, s.reconcileServers(ctx), "the endpoints of the API servers are not kept")
			}
		case <-boot.C:
			s.warn(ctx, s.boot(ctx), "bootstrap objects are not kept")
			if s.publishesVersions() {
				s.warn(ctx, s.publishVersions(ctx), "storage versions are not kept")
			}
		}
	}
}

// warn logs an error, unless it comes of the end.
func (s *Server) warn(ctx context.Context, err error, what string) {
	if err != nil && ctx.Err() == nil {
		s.Log.Warn(what, "error", err)
	}
}

func (s *Server) renewIdentity(ctx context.Context) error {
	want := s.identity.Lease(time.Now())
	_, err := s.Engine.Objects().Change(ctx, schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}, want.Namespace, want.Name,
		func(obj object.Object) error {
			obj.(*coordinationv1.Lease).Spec = want.Spec
			return nil
		}, kind.ChangeOptions{})
	return err
}

func (s *Server) httpServer() *http.Server {
	front := &http.Server{
		Handler: s.front,
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{s.Credentials.serving}, MinVersion: tls.VersionTLS12,
			ClientAuth: tls.RequestClientCert, // verified by authn, which knows several authorities
		},
		Protocols:         new(http.Protocols),
		ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: log.New(io.Discard, "", 0), // clients that break a handshake
	}
	front.Protocols.SetHTTP1(true)
	front.Protocols.SetHTTP2(true)
	if s.publishesVersions() {
		front.Handler = s.afterPublishing(front.Handler)
	}
	streams := &http2.Server{MaxStreams: maxStreams, Window: streamWindow, MaxHeaderBytes: maxHeaderBytes, IdleTimeout: idleTimeout}
	streams.Attach(front)
	return front
}

// Close releases the storage, after Run has returned.
func (s *Server) Close() error { return s.Store.Close() }

// Port is where the server listens, after Listen.
func (s *Server) Port() int { return s.port }

// URL is where local clients reach the server.
func (s *Server) URL() string {
	host := s.bind
	if host.IsUnspecified() {
		host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return "https://" + net.JoinHostPort(host.String(), strconv.Itoa(s.port))
}

// Loopback is a client configuration with all rights, for the server's own use and
// for programs that embed it.
func (s *Server) Loopback() *rest.Config {
	c := &rest.Config{Host: s.URL(), BearerToken: s.Credentials.loopbackToken, QPS: -1}
	if s.Credentials.set != nil {
		c.CAData = s.Credentials.set.CA.CertPEM
	} else {
		c.Insecure = true // the process talks to itself
	}
	return c
}
