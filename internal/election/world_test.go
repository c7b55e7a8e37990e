package election

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/timonel/timonel/internal/admission"
	"github.com/timonel/timonel/internal/api/coordination"
	"github.com/timonel/timonel/internal/authz"
	"github.com/timonel/timonel/internal/engine"
	"github.com/timonel/timonel/internal/fairness"
	"github.com/timonel/timonel/internal/feature"
	"github.com/timonel/timonel/internal/httpapi"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/storage/storagetest"
	"github.com/timonel/timonel/internal/storage/watchcache"
	"github.com/timonel/timonel/internal/trace"
	"github.com/timonel/timonel/internal/user"
	coordinationv1 "k8s.io/api/coordination/v1"
	coordinationv1beta1 "k8s.io/api/coordination/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

const (
	namespace = "kube-system"
	leaseName = "component"
)

// world has API servers that share a store, and components that use client-go's leader election through them, with a clock of
// its own.
type world struct {
	*testing.T
	store  *storagetest.Memory
	client kubernetes.Interface // of the first server

	mu      sync.Mutex
	leading []string // now
	history []string // who led, one after the other
}

// live runs a world.
func live(t *testing.T, story func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, store: storagetest.NewMemory()}
		w.client, _ = w.server("first")
		story(w)
	})
}

// server starts an API server, whose coordinator stop ends.
func (w *world) server(name string) (client kubernetes.Interface, stop func()) {
	gates, err := feature.ParseGates([]string{"CoordinatedLeaderElection=true"})
	if err != nil {
		w.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	catalog := kind.NewLive(kind.NewCatalog(coordination.Definitions(gates)...))
	cache := watchcache.New(w.store, "/registry/", watchcache.Options{Log: quiet})
	e := engine.New(engine.Config{Catalog: catalog, Store: w.store, Cache: cache, Prefix: "/registry", Admission: &admission.Gate{}, Registered: scheme.Scheme.Recognizes})
	w.run(func(ctx context.Context) { _ = cache.Run(ctx) })
	<-cache.Ready()
	front := httpapi.New(httpapi.Config{
		Catalog: catalog, Engine: e, Authenticator: anybody{}, Authorizer: authz.AlwaysAllow{},
		Pacer: fairness.New(fairness.Limits{}), Ring: trace.NewRing(16), Log: quiet,
	})
	if client, err = kubernetes.NewForConfig(&rest.Config{Host: "http://server", Transport: direct{front}, QPS: -1}); err != nil {
		w.Fatal(err)
	}
	hub := catalog.Catalog().Hub
	c := &Coordinator{
		Objects: e.Objects(), Leases: e.View(hub(leases)), Candidates: e.View(hub(candidates)), Candidate: hub(candidates), Identity: name, Log: quiet,
	}
	return client, w.run(c.Run)
}

// run runs something until the end of the world, or until stop.
func (w *world) run(f func(ctx context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); f(ctx) }()
	stop = func() { cancel(); <-done }
	w.Cleanup(stop)
	return stop
}

// component starts an instance of a component, and returns what kills it.
func (w *world) component(name, binary, emulation string) (kill func()) {
	one, _, err := leaderelection.NewCandidate(w.client, namespace, name, leaseName, binary, emulation, coordinationv1.OldestEmulationVersion)
	if err != nil {
		w.Fatal(err)
	}
	stopCandidate := w.run(one.Run)
	stopElector := w.elector(name, true)
	return func() { stopCandidate(); stopElector() }
}

// elector competes for the Lease; one that lost it begins anew.
func (w *world) elector(name string, coordinated bool) (kill func()) {
	return w.run(func(ctx context.Context) {
		for ctx.Err() == nil {
			leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
				Lock: &resourcelock.LeaseLock{
					LeaseMeta: metav1.ObjectMeta{Namespace: namespace, Name: leaseName}, Client: w.client.CoordinationV1(),
					LockConfig: resourcelock.ResourceLockConfig{Identity: name},
				},
				LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second,
				Name: name, Coordinated: coordinated,
				Callbacks: leaderelection.LeaderCallbacks{
					OnStartedLeading: func(context.Context) { w.leads(name, true) },
					OnStoppedLeading: func() { w.leads(name, false) },
				},
			})
		}
	})
}

// leads notes who leads. Whoever else leads now must not.
func (w *world) leads(name string, begins bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leading = slices.DeleteFunc(w.leading, func(other string) bool { return other == name })
	if !begins {
		return
	}
	if len(w.leading) > 0 {
		w.Errorf("%s leads, and %v", name, w.leading)
	}
	w.leading, w.history = append(w.leading, name), append(w.history, name)
}

// expect lets time pass and says who must have led until then, the last one still.
func (w *world) expect(wait time.Duration, history ...string) {
	w.Helper()
	time.Sleep(wait)
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.history, history) || len(history) > 0 && !slices.Equal(w.leading, history[len(history)-1:]) {
		w.Fatalf("after %s %v led and %v leads, want %v", wait, w.history, w.leading, history)
	}
}

func (w *world) lease() *coordinationv1.Lease {
	w.Helper()
	lease, err := w.client.CoordinationV1().Leases(namespace).Get(w.Context(), leaseName, metav1.GetOptions{})
	if err != nil {
		w.Fatal(err)
	}
	return lease
}

func (w *world) candidate(name string) *candidate {
	w.Helper()
	one, err := w.client.CoordinationV1beta1().LeaseCandidates(namespace).Get(w.Context(), name, metav1.GetOptions{})
	if err != nil {
		w.Fatal(err)
	}
	return one
}

// put creates a candidate behind which there is nobody.
func (w *world) put(name, version string, strategy coordinationv1.CoordinatedLeaseStrategy) {
	w.Helper()
	_, err := w.client.CoordinationV1beta1().LeaseCandidates(namespace).Create(w.Context(), &candidate{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: coordinationv1beta1.LeaseCandidateSpec{
			LeaseName: leaseName, BinaryVersion: version, EmulationVersion: version, Strategy: strategy, RenewTime: new(metav1.NowMicro()),
		},
	}, metav1.CreateOptions{})
	if err != nil {
		w.Fatal(err)
	}
}

type anybody struct{}

func (anybody) Authenticate(*http.Request) (*user.Info, error) {
	return &user.Info{Name: "component", Groups: []string{user.SystemPrivileged}}, nil
}

// latency of a request: without it all would happen at the same moment.
const latency = time.Millisecond

// direct carries requests to a handler in the same process, without a network: the clock of a bubble would stand still.
type direct struct{ http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	time.Sleep(latency)
	body, in := io.Pipe()
	a := &answer{header: http.Header{}, in: in, begun: make(chan struct{})}
	request := r.Clone(r.Context())
	request.Proto, request.ProtoMajor, request.ProtoMinor = "HTTP/2.0", 2, 0
	if request.Body == nil {
		request.Body = http.NoBody
	}
	go func() {
		d.ServeHTTP(a, request)
		a.WriteHeader(http.StatusOK)
		_ = in.Close()
	}()
	select {
	case <-a.begun:
	case <-r.Context().Done():
		_ = body.Close()
		return nil, r.Context().Err()
	}
	return &http.Response{
		Status: fmt.Sprint(a.status, " ", http.StatusText(a.status)), StatusCode: a.status, Proto: request.Proto, ProtoMajor: 2,
		Header: a.header, Body: body, ContentLength: -1, Request: r,
	}, nil
}

type answer struct {
	header http.Header
	in     *io.PipeWriter
	status int
	begun  chan struct{}
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
		close(a.begun)
	}
}

func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.in.Write(b)
}

func (a *answer) Flush() { a.WriteHeader(http.StatusOK) }
