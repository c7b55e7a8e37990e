package server

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/encrypt/kmstest"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	key1 = "{name: key1, secret: MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=}"
	key2 = "{name: key2, secret: MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=}"
)

// encryption writes a configuration of pairs of resources and providers, in flow style.
func encryption(t *testing.T, path string, lists ...string) {
	t.Helper()
	text := "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n"
	for i := 0; i < len(lists); i += 2 {
		text += fmt.Sprintf("- resources: [%s]\n  providers: [%s]\n", lists[i], lists[i+1])
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// stored reads what etcd holds at a key.
func stored(t *testing.T, store storage.Store, key string) string {
	t.Helper()
	e, err := store.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(e.Value)
}

func checkStored(t *testing.T, store storage.Store, key, prefix, hidden string) {
	t.Helper()
	if got := stored(t, store, key); !strings.HasPrefix(got, prefix) || hidden != "" && strings.Contains(got, hidden) {
		t.Errorf("%s is stored as %.60q, want %q and no %q", key, got, prefix, hidden)
	}
}

func (r *running) makeSecret(name, value string) *corev1.Secret {
	r.t.Helper()
	s, err := r.CoreV1().Secrets("default").Create(context.Background(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"l": name}}, StringData: map[string]string{"k": value}, Type: corev1.SecretTypeOpaque,
	}, metav1.CreateOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *running) checkSecret(name, value string) {
	r.t.Helper()
	s, err := r.CoreV1().Secrets("default").Get(context.Background(), name, metav1.GetOptions{})
	if err != nil || string(s.Data["k"]) != value {
		r.t.Errorf("secret %s: %q, %v, want %q", name, s.Data["k"], err, value)
	}
}

// replaceSecrets writes every secret back as it is: `kubectl get secrets -A -o json | kubectl replace -f -`.
func (r *running) replaceSecrets() {
	r.t.Helper()
	list, err := r.CoreV1().Secrets("").List(context.Background(), metav1.ListOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, s := range list.Items {
		if _, err := r.CoreV1().Secrets(s.Namespace).Update(context.Background(), &s, metav1.UpdateOptions{}); err != nil {
			r.t.Errorf("replace %s: %v", s.Name, err)
		}
	}
}

// TestEncryptionRotates encrypts what was plain, replaces the key, and takes encryption away again, with a
// restart for each, as the guide of kube-apiserver does.
func TestEncryptionRotates(t *testing.T) {
	endpoint, etcd := startEtcd(t, t.TempDir())
	path := filepath.Join(t.TempDir(), "encryption.yaml")
	config := DefaultConfig()
	config.EtcdServers, config.DataDir = []string{endpoint}, t.TempDir()
	const a, b = "/registry/secrets/default/a", "/registry/secrets/default/b"

	s := startServer(t, config)
	s.makeSecret("a", "hunter2")
	checkStored(t, etcd, a, "k8s\x00", "")
	s.stop()

	encryption(t, path, "secrets", "{aescbc: {keys: ["+key1+"]}}, {identity: {}}")
	config.EncryptionProviderConfig = path
	s = startServer(t, config)
	s.checkSecret("a", "hunter2")
	checkStored(t, etcd, a, "k8s\x00", "")
	s.makeSecret("b", "hunter3")
	checkStored(t, etcd, b, "k8s:enc:aescbc:v1:key1:", "hunter3")
	s.replaceSecrets()
	checkStored(t, etcd, a, "k8s:enc:aescbc:v1:key1:", "hunter2")
	before := stored(t, etcd, a)
	s.replaceSecrets()
	if stored(t, etcd, a) != before {
		t.Error("a secret is written again although its key is in use")
	}
	s.stop()

	encryption(t, path, "secrets", "{aesgcm: {keys: ["+key2+"]}}, {aescbc: {keys: ["+key1+"]}}")
	s = startServer(t, config)
	s.checkSecret("a", "hunter2")
	if _, err := s.CoreV1().Secrets("default").Patch(t.Context(), "a", "application/merge-patch+json", []byte(`{}`), metav1.PatchOptions{}); err != nil {
		t.Error(err)
	}
	checkStored(t, etcd, a, "k8s:enc:aesgcm:v1:key2:", "hunter2")
	checkStored(t, etcd, b, "k8s:enc:aescbc:v1:key1:", "hunter3")
	s.replaceSecrets()
	checkStored(t, etcd, b, "k8s:enc:aesgcm:v1:key2:", "hunter3")
	s.stop()

	encryption(t, path, "secrets", "{identity: {}}, {aesgcm: {keys: ["+key2+"]}}")
	s = startServer(t, config)
	s.replaceSecrets()
	checkStored(t, etcd, a, "k8s\x00", "")
	s.checkSecret("b", "hunter3")
}

// TestEncryptionOfEverything encrypts all resources, custom ones too.
func TestEncryptionOfEverything(t *testing.T) {
	endpoint, etcd := startEtcd(t, t.TempDir())
	config := DefaultConfig()
	config.EtcdServers = []string{endpoint}
	config.EncryptionProviderConfig = filepath.Join(t.TempDir(), "encryption.yaml")
	encryption(t, config.EncryptionProviderConfig, "events", "{identity: {}}", "'*.example.com'", "{secretbox: {keys: ["+key2+"]}}", "'*.*'", "{aesgcm: {keys: ["+key1+"]}}")
	s := startServer(t, config)
	s.makeSecret("a", "hunter2")
	crd := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": map[string]any{"name": "boats.example.com"},
		"spec": map[string]any{"group": "example.com", "scope": "Namespaced", "names": map[string]any{"plural": "boats", "singular": "boat", "kind": "Boat"},
			"versions": []any{map[string]any{"name": "v1", "served": true, "storage": true, "schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}},
	}}
	if _, err := s.dynamic.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}).Create(t.Context(), crd, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	boats := s.dynamic.Resource(schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "boats"}).Namespace("default")
	boat := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Boat", "metadata": map[string]any{"name": "b"}, "crew": "hunter4"}}
	eventually(t, func() error {
		_, err := boats.Create(t.Context(), boat, metav1.CreateOptions{})
		return err
	})
	got, err := boats.Get(t.Context(), "b", metav1.GetOptions{})
	if err != nil || got.Object["crew"] != "hunter4" {
		t.Errorf("the boat is %v, %v", got, err)
	}
	checkStored(t, etcd, "/registry/secrets/default/a", "k8s:enc:aesgcm:v1:key1:", "hunter2")
	checkStored(t, etcd, "/registry/example.com/boats/default/b", "k8s:enc:secretbox:v1:key2:", "hunter4")
	checkStored(t, etcd, "/registry/apiextensions.k8s.io/customresourcedefinitions/boats.example.com", "{", "")
	checkStored(t, etcd, "/registry/namespaces/default", "k8s:enc:aesgcm:v1:key1:", "")
}

// eventually tries until there is no error.
func eventually(t testing.TB, try func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// lostKey leaves a secret in an etcd that was encrypted with key1, and returns the configuration of a server that knows
// only key2.
func lostKey(t *testing.T, secret string) (Config, storage.Store) {
	t.Helper()
	endpoint, etcd := startEtcd(t, t.TempDir())
	config := DefaultConfig()
	config.EtcdServers, config.DataDir = []string{endpoint}, t.TempDir()
	config.EncryptionProviderConfig = filepath.Join(t.TempDir(), "encryption.yaml")
	encryption(t, config.EncryptionProviderConfig, "secrets", "{aesgcm: {keys: ["+key1+"]}}")
	s := startServer(t, config)
	s.makeSecret(secret, "hunter2")
	s.stop()
	encryption(t, config.EncryptionProviderConfig, "secrets", "{aesgcm: {keys: ["+key2+"]}}")
	return config, etcd
}

// TestEncryptionKeyMissing has a secret whose key is gone, beside others.
func TestEncryptionKeyMissing(t *testing.T) {
	config, etcd := lostKey(t, "lost")
	s := startServer(t, config)
	s.makeSecret("fine", "hunter3")
	s.checkSecret("fine", "hunter3")
	broken := func(err error) {
		t.Helper()
		if status := (apierrors.APIStatus)(nil); err == nil {
			t.Error("no error")
		} else if status, _ = err.(apierrors.APIStatus); status == nil || status.Status().Code != http.StatusInternalServerError || !strings.Contains(err.Error(), "/registry/secrets/default/lost") {
			t.Errorf("error %v", err)
		}
	}
	_, err := s.CoreV1().Secrets("default").Get(t.Context(), "lost", metav1.GetOptions{})
	broken(err)
	_, err = s.CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{})
	broken(err)
	if err == nil || strings.Contains(err.Error(), "fine") {
		t.Errorf("listing: %v", err)
	}
	if _, err := s.CoreV1().ConfigMaps("").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	if code, body := s.get("/readyz"); code != http.StatusOK {
		t.Errorf("readyz: %d %s", code, body)
	}
	checkStored(t, etcd, "/registry/secrets/default/lost", "k8s:enc:aesgcm:v1:key1:", "")
}

// TestEncryptionReloads changes the file under a running server: a key that was missing comes back, and a watcher of secrets
// begins anew.
func TestEncryptionReloads(t *testing.T) {
	config, etcd := lostKey(t, "a")
	path := config.EncryptionProviderConfig
	config.EncryptionProviderConfigReload = true
	s := startServer(t, config)
	if _, err := s.CoreV1().Secrets("default").Get(t.Context(), "a", metav1.GetOptions{}); err == nil {
		t.Fatal("read without the key")
	}
	now, err := s.CoreV1().Secrets("default").List(t.Context(), metav1.ListOptions{LabelSelector: "l=none"})
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.CoreV1().Secrets("default").Watch(t.Context(), metav1.ListOptions{LabelSelector: "l=a", ResourceVersion: now.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	encryption(t, path, "secrets", "{aesgcm: {keys: ["+key2+", "+key1+"]}}")
	eventually(t, func() error {
		_, err := s.CoreV1().Secrets("default").Get(t.Context(), "a", metav1.GetOptions{})
		return err
	})
	s.checkSecret("a", "hunter2")
	e := <-w.ResultChan()
	if status, ok := e.Object.(*metav1.Status); e.Type != watch.Error || !ok || status.Code != http.StatusGone {
		t.Errorf("watch: %+v", e)
	}
	s.replaceSecrets()
	checkStored(t, etcd, "/registry/secrets/default/a", "k8s:enc:aesgcm:v1:key2:", "hunter2")
	if _, text := s.get("/metrics"); !strings.Contains(text, `apiserver_encryption_config_controller_automatic_reloads_total{status="success"} 1`) {
		t.Error("the reload is not counted")
	}
}

// TestEncryptionWithKMS lets a plug-in, served over a Unix socket, protect the secrets of two servers, change its key, go
// away and come back.
func TestEncryptionWithKMS(t *testing.T) {
	endpoint, etcd := startEtcd(t, t.TempDir())
	socket := filepath.Join(t.TempDir(), "kms.sock")
	plugin, err := kmstest.Serve(socket, "kek-1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { plugin.Stop() })
	config := DefaultConfig()
	config.EtcdServers, config.EncryptionProviderConfig = []string{endpoint}, filepath.Join(t.TempDir(), "encryption.yaml")
	encryption(t, config.EncryptionProviderConfig, "secrets", "{kms: {apiVersion: v2, name: fake, endpoint: 'unix://"+socket+"'}}")
	one, two := startServer(t, config), startServer(t, config)
	one.makeSecret("a", "hunter2")
	two.makeSecret("b", "hunter3")
	for _, s := range []*running{one, two} {
		s.checkSecret("a", "hunter2")
		s.checkSecret("b", "hunter3")
		for _, path := range []string{"/healthz", "/livez", "/readyz"} {
			if code, body := s.get(path + "/kms-provider-0"); code != http.StatusOK {
				t.Errorf("%s: %d %s", path, code, body)
			}
		}
	}
	checkStored(t, etcd, "/registry/secrets/default/a", "k8s:enc:kms:v2:fake:", "hunter2")
	if plugin.Encrypted != 2 || plugin.Decrypted > 2 {
		t.Errorf("the plug-in encrypted %d and decrypted %d times for the seeds of two servers", plugin.Encrypted, plugin.Decrypted)
	}
	first := stored(t, etcd, "/registry/secrets/default/a")
	two.stop()

	// A new key: the next poll notices; here it is asked for by a restart.
	plugin.Change(func(p *kmstest.Plugin) { p.Key = "kek-2" })
	two = startServer(t, config)
	two.checkSecret("a", "hunter2")
	two.replaceSecrets()
	if again := stored(t, etcd, "/registry/secrets/default/a"); again == first || !strings.Contains(again, "kek-2") {
		t.Errorf("the secret is not encrypted with the new key: %.80q", again)
	}
	one.checkSecret("a", "hunter2")

	// Without the plug-in, a server starts, and secrets alone are not served.
	two.stop()
	plugin.Stop()
	two = startServer(t, config)
	if _, err := two.CoreV1().Secrets("default").Get(t.Context(), "a", metav1.GetOptions{}); !apierrors.IsInternalError(err) && apierrors.ReasonForError(err) != metav1.StatusReasonStoreReadError {
		t.Errorf("read without the plug-in: %v", err)
	}
	_, err = two.CoreV1().Secrets("default").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "c"}}, metav1.CreateOptions{})
	if !apierrors.IsInternalError(err) {
		t.Errorf("write without the plug-in: %v", err)
	}
	if _, err := two.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	if code, body := two.get("/readyz?verbose"); code == http.StatusOK || !strings.Contains(body, "[-]kms-provider-0 failed") {
		t.Errorf("readyz without the plug-in: %d %s", code, body)
	}
	if code, body := two.get("/readyz?exclude=kms-provider-0"); code != http.StatusOK {
		t.Errorf("readyz but for the plug-in: %d %s", code, body)
	}
	if err := plugin.Listen(socket); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		_, err := two.CoreV1().Secrets("default").Get(context.Background(), "a", metav1.GetOptions{})
		return err
	})
	two.makeSecret("c", "hunter4")
	if got := two.server.health.Names(); !slices.Contains(got, "/healthz/kms-provider-0") {
		t.Errorf("checks %q", got)
	}
}
