package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"sync"
	"testing"

	"github.com/timonel/timonel/internal/admission"
	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/engine"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/storage/storagetest"
	"github.com/timonel/timonel/internal/storage/watchcache"
	"github.com/timonel/timonel/internal/user"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// newEngine is a server without its front, on a store that others may share.
func newEngine(t *testing.T, store *storagetest.Memory) *engine.Engine {
	t.Helper()
	cache := watchcache.New(store, "/registry/", watchcache.Options{Log: slog.New(slog.DiscardHandler)})
	e := engine.New(engine.Config{
		Catalog: kind.NewLive(kind.NewCatalog(Groups(testOptions())...)), Store: store, Cache: cache, Prefix: "/registry", Admission: &admission.Gate{},
		Registered: func(schema.GroupVersionKind) bool { return false },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- cache.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v", err)
		}
	})
	<-cache.Ready()
	return e
}

// allocatedPorts reads the node ports that are marked in the store.
func allocatedPorts(t *testing.T, store *storagetest.Memory) map[int]bool {
	t.Helper()
	e, err := store.Get(context.Background(), "/registry/ranges/servicenodeports")
	if err != nil {
		t.Fatal(err)
	}
	apiVersion, kindName, raw, err := codec.OpenEnvelope(e.Value)
	var a corev1.RangeAllocation
	if err != nil || a.Unmarshal(raw) != nil || apiVersion != "v1" || kindName != "RangeAllocation" || a.Name != "" || a.UID != "" || a.Range != "30000-32767" {
		t.Fatalf("%s %s %v, %v", apiVersion, kindName, a, err)
	}
	ports := map[int]bool{}
	bits := new(big.Int).SetBytes(a.Data)
	for i := range bits.BitLen() {
		if bits.Bit(i) == 1 {
			ports[30000+i] = true
		}
	}
	return ports
}

// Two servers on one store make, change and delete Services at once: no port or address is given twice, and none is lost.
func TestServicesOfTwoServers(t *testing.T) {
	store := storagetest.NewMemory()
	engines := []*engine.Engine{newEngine(t, store), newEngine(t, store)}
	const clients, rounds = 4, 12
	var wg sync.WaitGroup
	for c := range clients {
		e := engines[c%len(engines)]
		wg.Go(func() {
			ctx := context.Background()
			d := e.Catalog.Catalog().Hub(schema.GroupResource{Resource: "services"})
			call := func(name string) *engine.Call {
				return &engine.Call{Definition: d, Namespace: "n", Name: name, User: &user.Info{Name: "u"}, Manager: "m"}
			}
			for i := range rounds {
				name := fmt.Sprintf("s-%d-%d", c, i)
				text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Service","metadata":{"name":%q},"spec":{"type":"NodePort","ports":[
					{"name":"a","port":53,"protocol":"UDP"},{"name":"b","port":53},{"name":"c","port":80}]}}`, name)
				if _, err := e.Create(ctx, call(""), engine.Body{Bytes: []byte(text)}, metav1.CreateOptions{}); err != nil {
					t.Errorf("create %s: %v", name, err)
					continue
				}
				switch i % 3 {
				case 1:
					if _, err := e.Delete(ctx, call(name), metav1.DeleteOptions{}); err != nil {
						t.Errorf("delete %s: %v", name, err)
					}
				case 2: // without node ports
					patch := []byte(`{"spec":{"type":"ClusterIP"}}`)
					if _, err := e.Patch(ctx, call(name), "application/merge-patch+json", patch, metav1.PatchOptions{}); err != nil {
						t.Errorf("change %s: %v", name, err)
					}
				}
			}
		})
	}
	wg.Wait()
	ctx := context.Background()
	if err := engines[0].Fresh(ctx); err != nil {
		t.Fatal(err)
	}
	reader := engines[0].Reader()
	services, _ := reader.List(ctx, schema.GroupResource{Resource: "services"}, "")
	owner, addresses := map[int]string{}, map[string]string{}
	for _, obj := range services {
		s := obj.(*corev1.Service)
		if other := addresses[s.Spec.ClusterIP]; other != "" {
			t.Errorf("%s and %s have the address %s", s.Name, other, s.Spec.ClusterIP)
		}
		addresses[s.Spec.ClusterIP] = s.Name
		for _, p := range s.Spec.Ports {
			if other := owner[int(p.NodePort)]; p.NodePort != 0 && other != "" && other != s.Name {
				t.Errorf("%s and %s have the port %d", s.Name, other, p.NodePort)
			}
			if p.NodePort != 0 {
				owner[int(p.NodePort)] = s.Name
			}
		}
	}
	if want := clients * rounds * 2 / 3; len(services) != want || len(owner) != want {
		t.Errorf("%d Services, %d ports; want %d, and two each of half of them", len(services), len(owner), want)
	}
	marked := allocatedPorts(t, store)
	if len(marked) != len(owner) {
		t.Errorf("%d ports are marked, %d in use", len(marked), len(owner))
	}
	for port := range owner {
		if !marked[port] {
			t.Errorf("port %d of %s is not marked", port, owner[port])
		}
	}
	if ips, _ := reader.List(ctx, schema.GroupResource{Group: "networking.k8s.io", Resource: "ipaddresses"}, ""); len(ips) != len(services) {
		t.Errorf("%d addresses are reserved for %d Services", len(ips), len(services))
	}
}
