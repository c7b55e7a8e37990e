package server

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	internalv1alpha1 "k8s.io/api/apiserverinternal/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/utils/ptr"
)

func storageVersionConfig(t *testing.T, endpoint string) Config {
	config := DefaultConfig()
	config.EtcdServers = []string{endpoint}
	config.FeatureGates = []string{"StorageVersionAPI=true"}
	if err := config.RuntimeConfig.Set("internal.apiserver.k8s.io/v1alpha1=true"); err != nil {
		t.Fatal(err)
	}
	return config
}

func (r *running) storageVersions() map[string]*internalv1alpha1.StorageVersion {
	r.t.Helper()
	list, err := r.InternalV1alpha1().StorageVersions().List(r.t.Context(), metav1.ListOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	all := map[string]*internalv1alpha1.StorageVersion{}
	for i := range list.Items {
		all[list.Items[i].Name] = &list.Items[i]
	}
	return all
}

// TestStorageVersions has two servers on one etcd say how they store each resource that discovery tells of.
func TestStorageVersions(t *testing.T) {
	endpoint, _ := startEtcd(t, t.TempDir())
	config := storageVersionConfig(t, endpoint)
	called := func(name string) func(*Server) { return func(s *Server) { s.identity.Hostname = name } }
	one := startServer(t, config, called("one"))
	id := one.server.identity.Name()

	all := one.storageVersions()
	encodings := map[string]string{
		"core.pods": "v1", "apps.deployments": "apps/v1", "autoscaling.horizontalpodautoscalers": "autoscaling/v2",
		"core.events": "v1", "events.k8s.io.events": "v1", "certificates.k8s.io.clustertrustbundles": "certificates.k8s.io/v1beta1",
		"apiextensions.k8s.io.customresourcedefinitions": "apiextensions.k8s.io/v1beta1", "internal.apiserver.k8s.io.storageversions": "internal.apiserver.k8s.io/v1alpha1",
	}
	for name, encoding := range encodings {
		v := all[name]
		if v == nil || len(v.Status.StorageVersions) != 1 || v.Status.StorageVersions[0].EncodingVersion != encoding || v.Status.StorageVersions[0].APIServerID != id {
			t.Errorf("%s is %+v, want %s of %s", name, v, encoding, id)
		}
	}
	if hpa := all["autoscaling.horizontalpodautoscalers"].Status.StorageVersions[0]; fmt.Sprint(hpa.ServedVersions, hpa.DecodableVersions) != "[autoscaling/v2 autoscaling/v1] [autoscaling/v1 autoscaling/v2]" {
		t.Errorf("autoscalers are served and read in %v, %v", hpa.ServedVersions, hpa.DecodableVersions)
	}
	_, lists, err := one.Discovery().ServerGroupsAndResources()
	if err != nil && !discovery.IsGroupDiscoveryFailedError(err) {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for _, list := range lists {
		gv, _ := schema.ParseGroupVersion(list.GroupVersion)
		for _, r := range list.APIResources {
			stored := slices.Contains(r.Verbs, "update") || slices.Contains(r.Verbs, "patch")
			if name := cmp.Or(gv.Group, "core") + "." + r.Name; stored && !strings.Contains(r.Name, "/") {
				told[name] = true
				if v := all[name]; v == nil || !slices.Contains(v.Status.StorageVersions[0].ServedVersions, list.GroupVersion) {
					t.Errorf("of %s in %s is said %+v", r.Name, list.GroupVersion, v)
				}
			}
		}
	}
	for name, v := range all {
		if !told[name] {
			t.Errorf("%s is not in discovery", name)
		}
		if _, err := one.InternalV1alpha1().StorageVersions().UpdateStatus(t.Context(), v, metav1.UpdateOptions{}); err != nil { // checked as a client's would be
			t.Errorf("%s is not valid: %v", name, err)
		}
	}

	// Another server adds what it does; what has not changed is not written.
	pods := all["core.pods"]
	two := startServer(t, config, called("two"))
	both := two.storageVersions()
	if len(both) != len(all) {
		t.Errorf("there are %d, with one server there were %d", len(both), len(all))
	}
	for name, v := range both {
		if s := v.Status; len(s.StorageVersions) != 2 || ptr.Deref(s.CommonEncodingVersion, "") != s.StorageVersions[0].EncodingVersion || len(s.Conditions) != 1 || s.Conditions[0].Status != internalv1alpha1.ConditionTrue {
			t.Errorf("%s: %+v", name, v.Status)
		}
	}
	if !both["core.pods"].Status.Conditions[0].LastTransitionTime.Equal(&pods.Status.Conditions[0].LastTransitionTime) {
		t.Error("the condition changed without a change")
	}
	old := both["core.pods"].DeepCopy() // an older server of the second's name said something else
	at := slices.IndexFunc(old.Status.StorageVersions, func(v internalv1alpha1.ServerStorageVersion) bool { return v.APIServerID == two.server.identity.Name() })
	old.Status.StorageVersions[at].EncodingVersion, old.Status.StorageVersions[at].DecodableVersions = "v0", []string{"v0", "v1"}
	old.Status.CommonEncodingVersion = nil
	two.stop()
	if _, err := one.InternalV1alpha1().StorageVersions().UpdateStatus(t.Context(), old, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	startServer(t, config, called("two"))
	for name, v := range one.storageVersions() {
		if ptr.Deref(v.Status.CommonEncodingVersion, "") == "" || name != "core.pods" && v.ResourceVersion != both[name].ResourceVersion {
			t.Errorf("%s after a restart: %s, was %s: %+v", name, v.ResourceVersion, both[name].ResourceVersion, v.Status)
		}
	}
	if _, err := one.RbacV1().ClusterRoles().Get(t.Context(), "system:controller:storage-version-garbage-collector", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}

// Without the gate, or the API, there are none, and nobody has rights for them.
func TestNoStorageVersions(t *testing.T) {
	config := DefaultConfig()
	check := func() {
		t.Helper()
		s := startServer(t, config)
		defer s.stop()
		if s.server.publishesVersions() || s.server.published.Load() {
			t.Error("storage versions are published")
		}
		_, err := s.InternalV1alpha1().StorageVersions().List(t.Context(), metav1.ListOptions{})
		_, none := s.RbacV1().ClusterRoles().Get(t.Context(), "system:controller:storage-version-garbage-collector", metav1.GetOptions{})
		if !apierrors.IsNotFound(err) || !apierrors.IsNotFound(none) {
			t.Errorf("a list: %v; the role: %v", err, none)
		}
	}
	check()
	config.FeatureGates = []string{"StorageVersionAPI=true"}
	check()
}

// Nobody writes before it is known in which version.
func TestWritesWaitForStorageVersions(t *testing.T) {
	endpoint, _ := startEtcd(t, t.TempDir())
	s := startServer(t, storageVersionConfig(t, endpoint)).server
	passed := errors.New("passed")
	front := s.afterPublishing(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(passed) }))
	send := func(method string) (code int) {
		defer func() {
			if recover() == passed {
				code = http.StatusOK
			}
		}()
		w := httptest.NewRecorder()
		front.ServeHTTP(w, httptest.NewRequest(method, "/api/v1/namespaces/a/pods", nil))
		if w.Header().Get("Retry-After") != "1" || !strings.Contains(w.Body.String(), `"reason":"ServiceUnavailable"`) {
			t.Errorf("%s is answered %s", method, w.Body)
		}
		return w.Code
	}
	for _, published := range []bool{true, false} {
		s.published.Store(published)
		for _, method := range []string{"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"} {
			want := http.StatusOK
			if !published && !slices.Contains([]string{"GET", "HEAD", "OPTIONS"}, method) {
				want = http.StatusServiceUnavailable
			}
			if got := send(method); got != want {
				t.Errorf("%s with storage versions published %v: %d", method, published, got)
			}
		}
	}
}
