package node

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// slow is an API server with one Lease, that takes its time for every answer.
type slow struct {
	takes   atomic.Int64 // a time.Duration
	lease   coordinationv1.Lease
	renewed atomic.Pointer[time.Time]
}

// RoundTrip implements http.RoundTripper.
func (s *slow) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case <-time.After(time.Duration(s.takes.Load())):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if r.Method == http.MethodPut {
		if err := json.NewDecoder(r.Body).Decode(&s.lease); err != nil {
			return nil, err
		}
		now := time.Now()
		s.renewed.Store(&now)
	}
	body, err := json.Marshal(s.lease)
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body)), Request: r}, err
}

// TestLeaseOnASlowServer: a server that takes longer for an answer than usual, and once far too long, still hears of the
// node before the node counts as lost.
func TestLeaseOnASlowServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &slow{lease: coordinationv1.Lease{
			TypeMeta: metav1.TypeMeta{APIVersion: "coordination.k8s.io/v1", Kind: "Lease"}, ObjectMeta: metav1.ObjectMeta{Name: "node-a", Namespace: "kube-node-lease", ResourceVersion: "1"},
		}}
		answersIn := func(d time.Duration) { server.takes.Store(int64(d)) }
		answersIn(6 * time.Second)
		config := &rest.Config{Host: "http://server", QPS: -1, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}
		client, err := kubernetes.NewForConfigAndClient(config, &http.Client{Transport: server})
		if err != nil {
			t.Fatal(err)
		}
		a := New(client, Config{NodeName: "node-a"})
		a.log, a.health = slog.New(slog.DiscardHandler), newHealth(a)
		ctx, cancel := context.WithCancel(t.Context())
		go a.renewLease(ctx)
		check := func() {
			t.Helper()
			if last := server.renewed.Load(); last == nil || time.Since(*last) > leaseDuration {
				t.Errorf("at %v it was last heard of at %v", time.Now(), last)
			}
		}
		for range 10 {
			time.Sleep(leasePeriod)
			answersIn(30 * time.Second)
			time.Sleep(leasePeriod)
			answersIn(6 * time.Second)
			time.Sleep(leaseDuration - leasePeriod)
			check()
		}
		cancel()
		synctest.Wait()
	})
}
