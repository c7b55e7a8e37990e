package handover_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/timonel/timonel/internal/storage"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestUndecodable puts values into etcd that no server wrote whole: each is one error with its key, and everything else
// is served.
func TestUndecodable(t *testing.T) {
	records := registry(t)
	find := func(key string) []byte {
		for _, r := range records {
			if r.Key == key {
				return r.Value
			}
		}
		t.Fatalf("no %s in the recording", key)
		return nil
	}
	pod, configMap, crd := find("/registry/pods/fx-pod-affinity/x"), find("/registry/configmaps/fixture/applied"), find("/registry/apiextensions.k8s.io/customresourcedefinitions/boats.fx.example.com")
	deep := bytes.Clone(configMap)
	copy(deep[bytes.LastIndexByte(deep, 'k'):], "\xff\xff\xff\xff\xff\xff") // within the last field
	bad := map[string][]byte{
		"/registry/configmaps/broken/truncated": configMap[:len(configMap)-9],
		"/registry/configmaps/broken/text":      []byte("hello"),
		"/registry/configmaps/broken/empty":     {},
		"/registry/configmaps/broken/pod":       pod,
		"/registry/configmaps/broken/deep":      deep,
		"/registry/configmaps/broken/encrypted": []byte("k8s:enc:aescbc:v1:key1:\x01\x02\x03"),
		"/registry/configmaps/broken/json":      []byte(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":7}}`),
		"/registry/secrets/broken/truncated":    find("/registry/secrets/fx-metadata/x")[:40],
		// What the server itself reads as it starts.
		"/registry/namespaces/broken":                                                  []byte("hello"),
		"/registry/clusterroles/broken":                                                []byte("hello"),
		"/registry/serviceaccounts/broken/broken":                                      []byte("hello"),
		"/registry/minions/broken":                                                     []byte("hello"),
		"/registry/services/specs/broken/broken":                                       []byte("hello"),
		"/registry/apiregistration.k8s.io/apiservices/v1.broken":                       []byte("hello"),
		"/registry/apiextensions.k8s.io/customresourcedefinitions/broken":              crd[:len(crd)/2],
		"/registry/apiextensions.k8s.io/customresourcedefinitions/broken2.example.com": []byte(`{"kind":"CustomResourceDefinition","apiVersion":"apiextensions.k8s.io/v1beta1","metadata":{"name":"broken2.example.com"},"spec":{}}`),
		"/registry/fx.example.com/boats/fixture/broken":                                []byte("hello"),
		"/registry/configmaps/deep/deep":                                               deep,
	}
	foreign := map[string][]byte{ // keys that belong to no object
		"/registry/unheard/of":                []byte("hello"),
		"/registry/configmaps":                []byte("hello"),
		"/registry/configmaps/alone":          configMap,
		"/registry/configmaps/broken/more/so": configMap,
		"/registry/":                          []byte("hello"),
	}
	dir := t.TempDir()
	inStore(t, dir, func(store storage.Store) {
		fill(t, store, records)
		for _, entries := range []map[string][]byte{bad, foreign} {
			for key, value := range entries {
				if _, err := store.Commit(t.Context(), storage.Txn{Then: []storage.Op{{Key: key, Value: value}}}); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
	s := start(t, dir)

	unreadable := func(method, path string, keys ...string) {
		t.Helper()
		var body []byte
		if method == "PUT" {
			body = []byte(`{"metadata":{"name":"text"}}`)
		}
		code, answer := s.do(method, path, body)
		var got metav1.Status
		if err := json.Unmarshal(answer, &got); err != nil {
			t.Errorf("%s %s: %d %.200q: %v", method, path, code, answer, err)
			return
		}
		if got.Code != http.StatusInternalServerError || got.Reason != metav1.StatusReasonStoreReadError {
			t.Errorf("%s %s: %d %s %q, want 500 StorageReadError", method, path, got.Code, got.Reason, got.Message)
		}
		for _, key := range keys {
			told := strings.Contains(got.Message, key)
			if got.Details != nil {
				for _, c := range got.Details.Causes {
					told = told || strings.Contains(c.Message, key) || strings.Contains(c.Field, key)
				}
			}
			if !told {
				t.Errorf("%s %s does not name %s: %q", method, path, key, got.Message)
			}
		}
	}
	for _, name := range []string{"truncated", "text", "empty", "pod", "deep", "encrypted", "json"} {
		unreadable("GET", "/api/v1/namespaces/broken/configmaps/"+name, "/registry/configmaps/broken/"+name)
	}
	unreadable("GET", "/api/v1/namespaces/broken/secrets/truncated")
	unreadable("GET", "/api/v1/nodes/broken")
	unreadable("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/broken")
	unreadable("GET", "/apis/fx.example.com/v1/namespaces/fixture/boats/broken")
	unreadable("GET", "/api/v1/namespaces/broken/configmaps", "/registry/configmaps/broken/text", "/registry/configmaps/broken/truncated")
	unreadable("GET", "/api/v1/configmaps")
	unreadable("GET", "/api/v1/namespaces/deep/configmaps", "/registry/configmaps/deep/deep")
	unreadable("PUT", "/api/v1/namespaces/broken/configmaps/text")
	unreadable("DELETE", "/api/v1/namespaces/broken/configmaps/text")

	// A watch begins with what is there: it ends with the error when it comes to such an object.
	code, body := s.do("GET", "/api/v1/namespaces/broken/configmaps?watch=1&resourceVersion=0&timeoutSeconds=5", nil)
	if code != http.StatusOK || !bytes.Contains(body, []byte(`"type":"ERROR"`)) || !bytes.Contains(body, []byte(`"reason":"StorageReadError"`)) {
		t.Errorf("watch: %d %.300s", code, body)
	}

	served := func(path string) {
		t.Helper()
		if code, answer := s.do("GET", path, nil); code != http.StatusOK {
			t.Errorf("GET %s: %d %.200s", path, code, answer)
		}
	}
	served("/api/v1/namespaces/fixture/configmaps/applied")
	served("/api/v1/namespaces/fixture/configmaps")
	served("/api/v1/namespaces/fixture/configmaps?limit=1")
	served("/api/v1/pods")
	served("/apis/rbac.authorization.k8s.io/v1/clusterroles/admin")
	served("/apis/fx.example.com/v1/namespaces/fixture/boats/b0")
	served("/apis")
	served("/openapi/v2")

	code, body = s.do("GET", "/readyz", nil)
	if code != http.StatusOK {
		t.Errorf("GET /readyz: %d %s", code, body)
	}
	code, body = s.do("POST", "/api/v1/namespaces/fixture/configmaps", []byte(`{"metadata":{"name":"new"}}`))
	if code != http.StatusCreated {
		t.Errorf("create beside undecodable objects: %d %s", code, body)
	}
}
