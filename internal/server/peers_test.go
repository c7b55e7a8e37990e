package server

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/storage"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// checkServers waits until the endpoints of default/kubernetes are these addresses, in both forms.
func (r *running) checkServers(want ...string) {
	r.t.Helper()
	eventually(r.t, func() error { return r.servers(want...) })
}

// servers says what is wrong if the endpoints are others.
func (r *running) servers(want ...string) error {
	endpoints, err := r.CoreV1().Endpoints("default").Get(context.Background(), "kubernetes", metav1.GetOptions{})
	if err != nil {
		return err
	}
	var old, new []string
	for _, subset := range endpoints.Subsets {
		for _, a := range subset.Addresses {
			old = append(old, a.IP)
		}
	}
	slice, err := r.DiscoveryV1().EndpointSlices("default").Get(context.Background(), "kubernetes", metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, e := range slice.Endpoints {
		new = append(new, e.Addresses...)
	}
	if !slices.Equal(old, want) || !slices.Equal(new, want) {
		return fmt.Errorf("endpoints %q, endpoint slice %q, want %q", old, new, want)
	}
	return nil
}

// TestPeers has two servers on one etcd, and a third that dies.
func TestPeers(t *testing.T) {
	endpoint, etcd := startEtcd(t, t.TempDir())
	config := DefaultConfig()
	config.EtcdServers = []string{endpoint}
	start := func(address string) *running {
		config.AdvertiseAddress, config.DataDir = address, t.TempDir()
		return startServer(t, config)
	}
	one := start("10.1.1.2")
	one.checkServers("10.1.1.2")
	two := start("10.1.1.1")
	for _, s := range []*running{one, two} {
		s.checkServers("10.1.1.1", "10.1.1.2")
	}

	// What kube-apiserver keeps there: k8s\0, v1 Endpoints with one address, and a generation that grows as it is renewed.
	value, err := base64.StdEncoding.DecodeString("azhzAAoPCgJ2MRIJRW5kcG9pbnRzEiEKEAoAEgAaACIAKgAyADgBQgASDQoLCgcxLjIuMy40GgAaACIA")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := peerValue(netip.MustParseAddr("1.2.3.4")); err != nil || string(got) != string(value) {
		t.Errorf("a server keeps %q, %v", got, err)
	}
	// The third one lives until both have seen it, however long that takes.
	both := []*running{one, two}
	for len(both) > 0 {
		if _, err := etcd.Keep(t.Context(), "/registry/masterleases/10.1.1.3", value, 2*time.Second); err != nil {
			t.Fatal(err)
		}
		both = slices.DeleteFunc(both, func(s *running) bool { return s.servers("10.1.1.1", "10.1.1.2", "10.1.1.3") == nil })
	}
	for _, s := range []*running{one, two} {
		s.checkServers("10.1.1.1", "10.1.1.2") // the third one's lease ran out
	}

	// Servers put right what others change, and what is gone.
	if err := one.CoreV1().Endpoints("default").Delete(t.Context(), "kubernetes", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	one.checkServers("10.1.1.1", "10.1.1.2")

	keys := func() (all []string) {
		t.Helper()
		page, err := etcd.List(t.Context(), "/registry/masterleases/", storage.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Entries {
			all = append(all, strings.TrimPrefix(e.Key, "/registry/masterleases/"))
		}
		return all
	}
	one.stop()
	two.checkServers("10.1.1.1")
	if got := keys(); !slices.Equal(got, []string{"10.1.1.1"}) {
		t.Errorf("after one server ended: keys %q", got)
	}
	two.stop()
	if got := keys(); len(got) != 0 {
		t.Errorf("after both ended: keys %q", got)
	}
	e, err := etcd.Get(t.Context(), "/registry/services/endpoints/default/kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	endpoints := &kind.Definition{Version: "v1", Kind: "Endpoints", Plural: "endpoints", New: kind.Of[corev1.Endpoints]()}
	endpoints.Complete()
	obj, err := codec.DecodeStored(endpoints, e.Value, e.Modified)
	if err != nil || len(obj.(*corev1.Endpoints).Subsets) != 1 {
		t.Errorf("the last server left the endpoints as %v, %v", obj, err)
	}
}

// TestPeersWriteNothing: a server that is there stays there without a write to its key.
func TestPeersWriteNothing(t *testing.T) {
	endpoint, etcd := startEtcd(t, t.TempDir())
	config := DefaultConfig()
	config.EtcdServers, config.AdvertiseAddress = []string{endpoint}, "10.1.1.1"
	s := startServer(t, config)
	before, err := etcd.Get(t.Context(), "/registry/masterleases/10.1.1.1")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := s.server.peers.kept.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	after, err := etcd.Get(t.Context(), "/registry/masterleases/10.1.1.1")
	if err != nil || after.Modified != before.Modified {
		t.Errorf("the key was written at %d and %d, %v", before.Modified, after.Modified, err)
	}
	// Somebody deletes it: the next round puts it back.
	if _, err := etcd.Commit(t.Context(), storage.Txn{Then: []storage.Op{{Key: before.Key}}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := etcd.Get(t.Context(), before.Key)
		return err
	})
	s.checkServers("10.1.1.1")
}

func TestPeersOtherModes(t *testing.T) {
	endpoint, etcd := startEtcd(t, t.TempDir())
	config := DefaultConfig()
	config.EtcdServers = []string{endpoint}
	start := func(kind, address string) *running {
		config.EndpointReconcilerType, config.AdvertiseAddress, config.DataDir = kind, address, t.TempDir()
		return startServer(t, config)
	}
	config.APIServerCount = 2
	none := start(byNone, "10.1.1.9")
	if _, err := none.CoreV1().Endpoints("default").Get(t.Context(), "kubernetes", metav1.GetOptions{}); err == nil {
		t.Error("mode none made endpoints")
	}
	one := start(byCount, "10.1.1.1")
	one.checkServers("10.1.1.1")
	two := start(byCount, "10.1.1.2")
	two.checkServers("10.1.1.1", "10.1.1.2")
	two.stop()
	one.checkServers("10.1.1.1")
	page, err := etcd.List(t.Context(), "/registry/masterleases/", storage.ListOptions{})
	if err != nil || len(page.Entries) != 0 {
		t.Errorf("keys %v, %v", page.Entries, err)
	}
	config.EndpointReconcilerType = "x"
	if _, err := config.settle(); err == nil || !strings.Contains(err.Error(), "--endpoint-reconciler-type") {
		t.Errorf("mode x: %v", err)
	}
}

func TestCounted(t *testing.T) {
	check := func(have, own string, count int, want string) {
		t.Helper()
		var all []netip.Addr
		for text := range strings.FieldsSeq(have) {
			all = append(all, netip.MustParseAddr(text))
		}
		if got := fmt.Sprint(counted(all, netip.MustParseAddr(own), count)); got != "["+want+"]" {
			t.Errorf("%s beside %s, %d: %s, want %s", own, have, count, got, want)
		}
	}
	check("", "10.0.0.2", 1, "10.0.0.2")
	check("10.0.0.1", "10.0.0.2", 2, "10.0.0.1 10.0.0.2")
	check("10.0.0.1 10.0.0.3", "10.0.0.2", 2, "10.0.0.2 10.0.0.3")
	check("10.0.0.1 10.0.0.2", "10.0.0.3", 2, "10.0.0.1 10.0.0.3")
	check("10.0.0.1 10.0.0.2", "10.0.0.2", 3, "10.0.0.1 10.0.0.2")
}
