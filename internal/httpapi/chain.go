// Package httpapi is the front door: every request passes the ten steps of
// [Server.ServeHTTP], written top to bottom, and its answer goes out in the form that the
// client asked for.
//
// Does not know: kinds by name, storage. Start reading at chain.go, then verbs.go.
package httpapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/timonel/timonel/internal/authz"
	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/engine"
	"github.com/timonel/timonel/internal/fairness"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/metrics"
	"github.com/timonel/timonel/internal/route"
	"github.com/timonel/timonel/internal/trace"
	"github.com/timonel/timonel/internal/user"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/uuid"
)

// Authenticator finds out who sends a request. A nil Info without error means
// that nobody vouches for the client.
type Authenticator interface {
	Authenticate(r *http.Request) (*user.Info, error)
}

// Connector passes the bytes of a connect verb (log, exec, proxy …) on to where they belong.
type Connector interface {
	Connect(w http.ResponseWriter, r *http.Request, request *route.Request) error
}

// Config is what a Server works with.
type Config struct {
	Catalog *kind.Live
	// Abreast returns when the catalogue has all kinds that clients may know; an error says that it takes longer. nil: it has.
	Abreast       func(ctx context.Context) error
	Engine        *engine.Engine
	Authenticator Authenticator
	// Impersonate returns whom a request of u acts as, by its Impersonate-* headers: u itself
	// without them. target is what the request wants.
	Impersonate func(ctx context.Context, h http.Header, u *user.Info, target *authz.Attributes) (*user.Info, error)
	Pacer       *fairness.Pacer
	Authorizer  authz.Authorizer
	Connector   Connector
	Ring        *trace.Ring       // of recent requests
	Metrics     *metrics.Requests // nil: requests are not counted
	// Paths serves what is not an API resource: discovery, OpenAPI, health, metrics.
	Paths          http.Handler
	RequestTimeout time.Duration // default 60 s
	// MinWatch is the shortest time after which a watch without timeoutSeconds is
	// ended; the longest is twice that. Default 30 min.
	MinWatch time.Duration
	CBOR     bool // bodies and answers may be CBOR (feature gate CBORServingAndStorage)
	Log      *slog.Logger
}

// Server answers HTTP requests.
type Server struct {
	Config
	draining atomic.Bool
	ending   context.Context // done when all watches shall end
	end      context.CancelFunc
	running  running
}

// New makes a server.
func New(c Config) *Server {
	if c.RequestTimeout == 0 {
		c.RequestTimeout = time.Minute
	}
	if c.MinWatch == 0 {
		c.MinWatch = 30 * time.Minute
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	s := &Server{Config: c}
	s.ending, s.end = context.WithCancel(context.Background())
	return s
}

// Drain ends all watches and turns new requests away; it is called once, before the listener
// closes.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.end()
}

// running counts the requests that are being served.
type running struct {
	sync.Mutex
	count int
	idle  chan struct{} // closed when there is none; nil: nobody waits
}

func (r *running) add(n int) {
	r.Lock()
	defer r.Unlock()
	if r.count += n; r.count == 0 && r.idle != nil {
		close(r.idle)
		r.idle = nil
	}
}

// Idle returns a channel that is closed when no request is being served.
func (s *Server) Idle() <-chan struct{} {
	s.running.Lock()
	defer s.running.Unlock()
	idle := make(chan struct{})
	if s.running.count == 0 {
		close(idle)
		return idle
	}
	if s.running.idle == nil {
		s.running.idle = idle
	}
	return s.running.idle
}

// exchange is one request on its way through the ten steps.
type exchange struct {
	*Server
	w       *writer
	own     writer // what w points to
	r       *http.Request
	ctx     context.Context
	request route.Request
	user    *user.Info
	record  *trace.Record
	done    func()             // counts it as no longer running
	cancel  context.CancelFunc // of ctx; nil: it ends with the connection
	passed  bool               // the request was handed to the Connector
	// Of the body: the answer does not wait for it; it is being read; it was read.
	unawaited, begun, read bool
}

// ServeHTTP is the life of a request. Decode, Change, Check and Commit happen inside the
// engine's verbs; reads fetch from the watch cache instead.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := s.accept(w, r)
	defer x.close()

	x.record.Enter(trace.Locate)
	if err := x.locate(); err != nil {
		x.fail(err)
		return
	}
	x.record.Enter(trace.Identify)
	if err := x.identify(); err != nil {
		x.fail(err)
		return
	}
	x.record.Enter(trace.Pace)
	leave, err := x.Pacer.Enter(x.request.Verb, x.request.LongRunning(), x.user)
	if err != nil {
		x.fail(err)
		return
	}
	defer leave()

	x.record.Enter(trace.Authorize)
	if err := x.authorize(); err != nil {
		x.fail(err)
		return
	}
	if err := x.dispatch(); err != nil {
		x.fail(err)
	}
}

// accept: the request is counted, gets an audit id and a record.
func (s *Server) accept(w http.ResponseWriter, r *http.Request) *exchange {
	s.running.add(1)
	x := &exchange{Server: s, own: writer{ResponseWriter: w}, r: r, record: &trace.Record{}}
	x.w = &x.own
	x.record.Begin(time.Now())
	x.record.Method, x.record.Path, x.record.Agent = r.Method, requestURI(r), r.UserAgent()
	x.record.AuditID = r.Header.Get("Audit-Id")
	if x.record.AuditID == "" {
		x.record.AuditID = string(uuid.NewUUID())
	}
	h := w.Header()
	h["Audit-Id"] = []string{x.record.AuditID}
	h["Cache-Control"] = noCache
	return x
}

// Of a body that nobody reads, this much is read after the answer, and this long is it waited for, so that the connection can serve
// the next request. net/http closes connections with more to come.
const (
	unreadMost     = 256 << 10
	unreadPatience = 5 * time.Second
)

// answersFirst: of HTTP/1, net/http would wait without an end for an announced body before it sends the answer. Who only
// passes bytes on sees to the body himself.
func (x *exchange) answersFirst() {
	if x.r.ProtoMajor == 1 && x.r.ContentLength != 0 && !x.passed {
		x.unawaited = http.NewResponseController(x.w).EnableFullDuplex() == nil
	}
}

// readRest reads what a client sends that nobody wanted, after the answer.
func (x *exchange) readRest() {
	if !x.unawaited || x.read || x.r.ContentLength > unreadMost && !x.begun {
		return
	}
	c := http.NewResponseController(x.w)
	_ = c.Flush()
	_ = c.SetReadDeadline(time.Now().Add(unreadPatience)) // the next request gets one of its own
	if x.begun {
		return // the answer said that the connection is closed
	}
	if _, err := io.CopyN(io.Discard, x.r.Body, unreadMost); !errors.Is(err, io.EOF) {
		panic(http.ErrAbortHandler) // what may come yet would be taken for the next request
	}
}

// requestURI is what the client asked for, path and query.
func requestURI(r *http.Request) string {
	if r.RequestURI != "" {
		return r.RequestURI
	}
	return r.URL.RequestURI()
}

var noCache = []string{"no-cache, private"} // the same for all, so that a request need not make it

// locate: the URL becomes a request; what has an end gets a deadline.
func (x *exchange) locate() error {
	var query url.Values
	if x.r.URL.RawQuery != "" {
		query = x.r.URL.Query()
	}
	unresolved := x.resolve(query)
	q := &x.request
	x.record.Verb, x.record.Group, x.record.Resource, x.record.Subresource = q.Verb, q.Group, q.Resource, q.Subresource
	x.record.Version, x.record.Served = q.Version, q.Problem == nil
	x.record.Namespace, x.record.Name, x.record.Long = q.Namespace, q.Name, q.LongRunning()
	if x.Metrics != nil {
		x.done = x.Metrics.Begin(x.record)
	}
	x.ctx = x.r.Context()
	return cmp.Or(unresolved, x.deadline())
}

// resolve finds out what the URL means. What is not there, or is custom, may have been defined a moment ago.
func (x *exchange) resolve(query url.Values) error {
	catalog := x.Catalog.Catalog()
	x.request = route.Locate(catalog, x.r.Method, x.r.URL.Path, query)
	if x.Abreast == nil || !x.mayBeNews() {
		return nil
	}
	if err := x.Abreast(x.r.Context()); err != nil && (!x.request.IsResource() || x.request.Problem != nil) {
		return apierrors.NewServiceUnavailable("the request has been made before all known HTTP paths have been installed, please try again")
	}
	if now := x.Catalog.Catalog(); now != catalog {
		x.request = route.Locate(now, x.r.Method, x.r.URL.Path, query)
	}
	return nil
}

// mayBeNews reports whether the answer depends on custom resources.
func (x *exchange) mayBeNews() bool {
	q := &x.request
	if q.IsResource() {
		return q.Problem != nil || codec.IsTree(q.Definition)
	}
	return q.Path == "/apis" || strings.HasPrefix(q.Path, "/apis/") || strings.HasPrefix(q.Path, "/openapi/")
}

func (x *exchange) identify() error {
	u, err := x.Authenticator.Authenticate(x.r)
	if err != nil || u == nil {
		return apierrors.NewUnauthorized("Unauthorized")
	}
	x.user = u
	x.record.User = u.Name
	if x.Impersonate == nil || !impersonates(x.r.Header) {
		return nil
	}
	target := x.attributes()
	if x.user, err = x.Impersonate(x.ctx, x.r.Header, u, &target); err != nil {
		return err
	}
	x.record.User = x.user.Name
	return nil
}

// impersonates reports whether there are impersonation headers at all.
func impersonates(h http.Header) bool {
	for name := range h {
		if strings.HasPrefix(name, "Impersonate-") {
			return true
		}
	}
	return false
}

func (x *exchange) authorize() error {
	if x.draining.Load() && !x.request.LongRunning() && x.request.IsResource() {
		return apierrors.NewServiceUnavailable("the server is shutting down")
	}
	a := x.attributes()
	allowed, reason := x.may(&a)
	if allowed {
		return nil
	}
	x.w.Header().Set("X-Content-Type-Options", "nosniff")
	return authz.Forbidden(&a, reason)
}

// may asks whether something is allowed, and if not, why.
func (x *exchange) may(a *authz.Attributes) (allowed bool, reason string) {
	decision, reason, err := x.Authorizer.Authorize(x.ctx, a)
	if err != nil && reason == "" {
		reason = err.Error()
	}
	return decision == authz.Allow, reason
}

func (x *exchange) attributes() authz.Attributes {
	q := &x.request
	a := authz.Attributes{
		User: x.user, Verb: q.Verb, Group: q.Group, Version: q.Version, Resource: q.Resource, Subresource: q.Subresource,
		Namespace: q.Namespace, Name: q.Name, Path: q.Path,
	}
	if q.Verb == "list" || q.Verb == "watch" || q.Verb == "deletecollection" {
		if text := q.Query.Get("fieldSelector"); text != "" {
			if selector, err := fields.ParseSelector(text); err == nil {
				a.Fields = selector.Requirements()
			}
		}
		if text := q.Query.Get("labelSelector"); text != "" {
			if selector, err := labels.Parse(text); err == nil {
				a.Labels, _ = selector.Requirements()
			}
		}
	}
	return a
}

// dispatch hands the request to what it asks for.
func (x *exchange) dispatch() error {
	connects := x.request.Problem == nil && x.request.Sub != nil && x.request.Sub.Connect
	if !connects {
		x.answersFirst()
	}
	if !x.request.IsResource() {
		x.record.Enter(trace.Answer)
		x.Paths.ServeHTTP(x.w, x.r.WithContext(user.With(x.ctx, x.user)))
		return nil
	}
	if x.request.Problem != nil {
		return x.request.Problem
	}
	if d := x.request.Definition; d.Deprecated != "" {
		x.w.warn(d.Deprecated)
	}
	if connects {
		x.passed = true
		x.record.Enter(trace.Answer)
		return x.Connector.Connect(x.w, x.r.WithContext(user.With(x.ctx, x.user)), &x.request)
	}
	if x.ctx.Err() != nil {
		return late()
	}
	return x.serve()
}

// deadline bounds a request that has an end: by the server's limit and the client's timeout.
func (x *exchange) deadline() error {
	if x.request.LongRunning() {
		return nil
	}
	limit := x.RequestTimeout
	if text := x.request.Query.Get("timeout"); text != "" {
		asked, err := time.ParseDuration(text)
		if err != nil {
			return apierrors.NewBadRequest(fmt.Sprintf("invalid timeout specified in the request URL - %v", err))
		}
		if asked > 0 && asked < limit {
			limit = asked
		}
	}
	x.ctx, x.cancel = context.WithTimeout(x.ctx, limit)
	x.w.until = x.ctx
	return nil
}

// late is the answer when the time is up before there is another.
func late() error {
	return apierrors.NewTimeoutError("request did not complete within the allotted timeout", 0)
}

// close: the panic fence, and the record is published.
func (x *exchange) close() {
	if p := recover(); p != nil {
		if p == http.ErrAbortHandler { //nolint:errorlint // the sentinel is panicked with as it is
			x.finish()
			panic(p)
		}
		x.Log.Error("panic while serving a request", "method", x.r.Method, "path", x.r.URL.Path, "user", x.record.User, "panic", p, "stack", string(debug.Stack()))
		if !x.w.wrote() {
			x.fail(&apierrors.StatusError{ErrStatus: metav1.Status{
				Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError,
				Message: fmt.Sprintf("This request caused apiserver to panic. Look in the logs for details: %v", x.record.AuditID),
			}})
		}
	}
	x.finish()
}

func (x *exchange) finish() {
	if x.w.release != nil {
		x.w.release()
	}
	if x.cancel != nil {
		x.cancel()
	}
	x.record.End()
	x.record.Status, x.record.Bytes = x.w.status, x.w.bytes
	if x.done != nil {
		x.done()
		x.Metrics.Done(x.record)
	}
	x.Ring.Add(x.record)
	x.running.add(-1)
	x.readRest()
}
