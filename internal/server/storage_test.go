package server

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/timonel/timonel/internal/storage"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestStoredAsJSON changes --storage-media-type: what is there is read, and written in the new form when it is next written.
func TestStoredAsJSON(t *testing.T) {
	endpoint, etcd := startEtcd(t, t.TempDir())
	config := DefaultConfig()
	config.EtcdServers, config.DataDir = []string{endpoint}, t.TempDir()
	const a, b = "/registry/secrets/default/a", "/registry/secrets/default/b"
	s := startServer(t, config)
	s.makeSecret("a", "hunter2")
	s.stop()

	config.StorageMediaType = mediaJSON
	s = startServer(t, config)
	s.makeSecret("b", "hunter3")
	s.checkSecret("a", "hunter2")
	s.checkSecret("b", "hunter3")
	checkStored(t, etcd, b, `{"kind":"Secret","apiVersion":"v1","metadata":{"name":"b","namespace":"default","uid":"`, "")
	checkStored(t, etcd, a, "k8s\x00", "")
	s.replaceSecrets()
	checkStored(t, etcd, a, `{"kind":"Secret","apiVersion":"v1","metadata":{"name":"a"`, "")
	before := stored(t, etcd, a)
	s.replaceSecrets()
	if stored(t, etcd, a) != before {
		t.Error("written again")
	}
	s.stop()

	config.StorageMediaType = mediaProtobuf
	s = startServer(t, config)
	s.checkSecret("a", "hunter2")
	s.replaceSecrets()
	checkStored(t, etcd, b, "k8s\x00", "")
}

// TestStoreMetrics counts when asked.
func TestStoreMetrics(t *testing.T) {
	config := DefaultConfig()
	s := startServer(t, config)
	s.makeSecret("a", "v")
	s.get("/api/v1/secrets") // a consistent read: what is counted is as new
	_, text := s.get("/metrics")
	for _, want := range []string{`apiserver_resource_objects{group="",resource="secrets"} 1`, `apiserver_resource_objects{group="apps",resource="deployments"} 0`, `apiserver_storage_size_bytes{storage_cluster_id="etcd-0"} `} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	s.stop()
	config.EtcdCountMetric, config.EtcdSizeMetric = 0, 0
	s = startServer(t, config)
	if _, text := s.get("/metrics"); strings.Contains(text, "apiserver_resource_objects") || strings.Contains(text, "apiserver_storage_size_bytes") {
		t.Error("metrics that were turned off are there")
	}
}

// ailing is a store that, while it is ill, does not tell its revision and takes nothing more.
type ailing struct {
	storage.Store
	ill atomic.Bool
}

func (a *ailing) Now(ctx context.Context) (storage.Revision, error) {
	if !a.ill.Load() {
		return a.Store.Now(ctx)
	}
	<-ctx.Done()
	return 0, ctx.Err()
}

func (a *ailing) Commit(ctx context.Context, txn storage.Txn) (storage.Revision, error) {
	if a.ill.Load() {
		return 0, storage.ErrFull
	}
	return a.Store.Commit(ctx, txn)
}

// TestEtcdHealth: checks of etcd give up in time, and name themselves.
func TestEtcdHealth(t *testing.T) {
	config := DefaultConfig()
	config.EtcdHealthTimeout, config.EtcdReadyTimeout = 1, 1
	store := &ailing{}
	s := startServer(t, config, func(s *Server) { store.Store, s.Store = s.Store, store })
	for _, path := range []string{"/healthz/etcd", "/livez/etcd", "/readyz/etcd", "/readyz/etcd-readiness"} {
		if code, body := s.get(path); code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	store.ill.Store(true)
	defer store.ill.Store(false)
	for _, path := range []string{"/healthz/etcd", "/livez/etcd", "/readyz/etcd", "/readyz/etcd-readiness"} {
		if code, body := s.get(path); code != http.StatusInternalServerError || !strings.Contains(body, context.DeadlineExceeded.Error()) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}

// TestFullEtcd is told to clients in etcd's words, as something that may pass.
func TestFullEtcd(t *testing.T) {
	store := &ailing{}
	s := startServer(t, DefaultConfig(), func(s *Server) { store.Store, s.Engine.Store = s.Engine.Store, store })
	store.ill.Store(true)
	defer store.ill.Store(false)
	code, body := s.post("/api/v1/namespaces/default/configmaps", `{"metadata":{"name":"a"}}`)
	if code != http.StatusInternalServerError || !strings.Contains(body, "etcdserver: mvcc: database space exceeded") || !strings.Contains(body, `"retryAfterSeconds":1`) {
		t.Errorf("%d %s", code, body)
	}
	if _, err := s.CoreV1().ConfigMaps("").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("reading meanwhile: %v", err)
	}
	store.ill.Store(false)
	if code, body := s.post("/api/v1/namespaces/default/configmaps", `{"metadata":{"name":"a"}}`); code != http.StatusCreated {
		t.Errorf("afterwards: %d %s", code, body)
	}
}
