package server

import (
	"context"
	"fmt"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/utils/ptr"
)

// TestElection has two servers on one etcd, and two instances of a component with client-go's leader election.
func TestElection(t *testing.T) {
	endpoint, _ := startEtcd(t, t.TempDir())
	config := DefaultConfig()
	config.EtcdServers = []string{endpoint}
	config.FeatureGates = []string{"CoordinatedLeaderElection=true"}
	if err := config.RuntimeConfig.Set("coordination.k8s.io/v1beta1=true"); err != nil {
		t.Fatal(err)
	}
	one, two := startServer(t, config), startServer(t, config)
	leads := make(chan string)
	component := func(s *running, name, version string) {
		candidate, _, err := leaderelection.NewCandidate(s, "kube-system", name, "component", version, version, coordinationv1.OldestEmulationVersion)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{}, 2)
		t.Cleanup(func() { cancel(); <-ended; <-ended })
		go func() { candidate.Run(ctx); ended <- struct{}{} }()
		go func() {
			for ctx.Err() == nil {
				leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
					Lock: &resourcelock.LeaseLock{
						LeaseMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "component"}, Client: s.CoordinationV1(),
						LockConfig: resourcelock.ResourceLockConfig{Identity: name},
					},
					LeaseDuration: 2 * time.Second, RenewDeadline: time.Second, RetryPeriod: 200 * time.Millisecond,
					Coordinated: true, ReleaseOnCancel: true,
					Callbacks: leaderelection.LeaderCallbacks{
						OnStartedLeading: func(ctx context.Context) {
							select {
							case leads <- name:
							case <-ctx.Done():
							}
						},
						OnStoppedLeading: func() {},
					},
				})
			}
			ended <- struct{}{}
		}()
	}
	before := ""
	expect := func(want string) {
		t.Helper()
		for limit := time.After(time.Minute); ; {
			select {
			case got := <-leads:
				if got == want {
					before = want
					return
				} else if got != before { // on a busy machine a leader may be late to renew, and is elected again
					t.Errorf("%s leads, want %s", got, want)
				}
			case <-limit:
				t.Fatalf("%s does not lead", want)
			}
		}
	}
	component(one, "new", "1.37.0")
	expect("new")
	component(two, "old", "1.36.0")
	expect("old")
	lease, err := two.CoordinationV1().Leases("kube-system").Get(t.Context(), "component", metav1.GetOptions{})
	if err != nil || ptr.Deref(lease.Spec.HolderIdentity, "") != "old" {
		t.Errorf("the Lease is %v, %v", lease, err)
	}
	eventually(t, func() error {
		lock, err := one.CoordinationV1().Leases("kube-system").Get(t.Context(), "leader-election-controller", metav1.GetOptions{})
		if err == nil && ptr.Deref(lock.Spec.HolderIdentity, "") == "" {
			err = fmt.Errorf("nobody coordinates: %v", lock.Spec)
		}
		return err
	})
}

// Without the gate, or the API, nobody coordinates.
func TestNoElection(t *testing.T) {
	config := DefaultConfig()
	check := func() {
		t.Helper()
		s := startServer(t, config)
		defer s.stop()
		time.Sleep(time.Second)
		if l, err := s.CoordinationV1().Leases("kube-system").Get(t.Context(), "leader-election-controller", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the Lease of the coordinator: %v, %v", l, err)
		}
	}
	check()
	config.FeatureGates = []string{"CoordinatedLeaderElection=true"}
	check()
}
