package discovery

import (
	"compress/gzip"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apidiscovery "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

var update = flag.Bool("update", false, "write the golden files")

// builtIn are the default groups of kube-apiserver 1.37.
func builtIn(t *testing.T) []Group {
	t.Helper()
	content, err := os.ReadFile("testdata/groups.json")
	if err != nil {
		t.Fatal(err)
	}
	var groups []Group
	if err := json.Unmarshal(content, &groups); err != nil {
		t.Fatal(err)
	}
	return groups
}

// small is a catalogue with one of everything, out of order.
func small() []Group {
	scale := Subresource{Name: "scale", Group: "autoscaling", Version: "v1", Kind: "Scale", Verbs: []string{"get", "patch", "update"}}
	return []Group{
		{Name: "zoo.example.com", Custom: true, Versions: []Version{
			{Name: "v1beta1", Resources: []Resource{{Name: "animals", Singular: "animal", Kind: "Animal", Verbs: []string{"get"}}}},
			{Name: "v2", Resources: []Resource{{Name: "animals", Singular: "animal", Kind: "Animal", Verbs: []string{"get"}}}},
		}},
		{Name: "apps", Versions: []Version{{Name: "v1", Resources: []Resource{
			{Name: "replicasets", Singular: "replicaset", Kind: "ReplicaSet", Namespaced: true, Verbs: []string{"create", "get"}, StorageVersionHash: "P1RzHs8/mWQ="},
			{Name: "deployments", Singular: "deployment", Kind: "Deployment", Namespaced: true, Verbs: []string{"create", "get"},
				ShortNames: []string{"deploy"}, Categories: []string{"all"}, Subresources: []Subresource{scale}},
		}}}},
		{Name: "metrics.k8s.io", Priority: 100, Versions: []Version{{Name: "v1beta1", Remote: true, Stale: true}}},
		{Name: "", Versions: []Version{{Name: "v1", Resources: []Resource{{Name: "nodes", Singular: "node", Kind: "Node", Verbs: []string{"get"}, ShortNames: []string{"no"}}}}}},
		{Name: "empty.example.com"},
	}
}

func get(h http.Handler, path string, headers ...string) *http.Response {
	r := httptest.NewRequest("GET", path, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func content(t *testing.T, w *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const aggregatedJSON = typeJSON + aggregatedParameters

func TestGolden(t *testing.T) {
	d := Build(small(), Options{ServerAddress: "10.0.0.1:6443"})
	for _, c := range []struct{ name, path, accept string }{
		{"api", "/api", ""}, {"apis", "/apis/", ""}, {"core", "/api/v1", ""}, {"apps", "/apis/apps/v1", ""}, {"zoo", "/apis/zoo.example.com", ""},
		{"zoo-yaml", "/apis/zoo.example.com/v2/", typeYAML}, {"aggregated-api", "/api", aggregatedJSON}, {"aggregated-apis", "/apis", aggregatedJSON},
		{"remote-version", "/apis/metrics.k8s.io/v1beta1", ""}, {"unknown-version", "/apis/apps/v9", ""}, {"unknown-group", "/apis/nope", ""},
		{"unknown-custom-version", "/apis/zoo.example.com/v9", ""}, {"not-acceptable", "/api/v1", "text/html"}, {"not-acceptable-yaml", "/apis/apps", typeYAML + ";as=Table"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := get(d, c.path, "Accept", c.accept, "User-Agent", "curl/8")
			got := fmt.Sprintf("%s\nContent-Type: %s\n\n%s", w.Status, w.Header.Get("Content-Type"), content(t, w))
			file := filepath.Join("testdata", "golden", c.name+".txt")
			if *update {
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestAggregatedConditions(t *testing.T) {
	d := Build(builtIn(t), Options{})
	first := get(d, "/apis", "Accept", aggregatedJSON)
	etag := first.Header.Get("Etag")
	if len(etag) != 130 || first.Header.Get("Vary") != "Accept" || first.Header.Get("Cache-Control") != "public" {
		t.Errorf("headers of aggregated discovery: %v", first.Header)
	}
	if again := get(Build(builtIn(t), Options{}), "/apis", "Accept", aggregatedJSON, "If-None-Match", etag); again.StatusCode != 304 || content(t, again) != "" {
		t.Errorf("with the ETag: status %d", again.StatusCode)
	}
	if other := get(d, "/apis", "Accept", aggregatedJSON, "If-None-Match", `"0"`); other.StatusCode != 200 {
		t.Errorf("with another ETag: status %d", other.StatusCode)
	}
	if profiled := get(d, "/apis", "Accept", aggregatedJSON+";profile=nopeer").Header.Get("Content-Type"); profiled != aggregatedJSON+";profile=nopeer" {
		t.Errorf("with a profile: %s", profiled)
	}
}

func TestProtobuf(t *testing.T) {
	d := Build(builtIn(t), Options{})
	decode := func(path, accept string, into interface{ Unmarshal([]byte) error }) {
		t.Helper()
		w := get(d, path, "Accept", accept)
		if got := w.Header.Get("Content-Type"); got != accept {
			t.Errorf("%s: content type %s", path, got)
		}
		raw, ok := strings.CutPrefix(content(t, w), "k8s\x00")
		if !ok {
			t.Fatalf("%s: no protobuf envelope", path)
		}
		var u runtime.Unknown
		if err := u.Unmarshal([]byte(raw)); err != nil {
			t.Fatal(err)
		}
		if err := into.Unmarshal(u.Raw); err != nil {
			t.Fatal(err)
		}
	}
	var list metav1.APIResourceList
	decode("/apis/apps/v1", typeProtobuf, &list)
	if len(list.APIResources) == 0 || list.GroupVersion != "apps/v1" {
		t.Errorf("resources of apps/v1: %v", list)
	}
	var groups apidiscovery.APIGroupDiscoveryList
	decode("/apis", typeProtobuf+aggregatedParameters, &groups)
	if len(groups.Items) < 20 || groups.Items[0].Name != "apiregistration.k8s.io" {
		t.Errorf("aggregated discovery has %d groups", len(groups.Items))
	}
}

func TestServiceRange(t *testing.T) {
	d := Build(small(), Options{ServerAddress: "1.2.3.4:6443", ServiceAddress: "10.96.0.1:443", ServiceRange: netip.MustParsePrefix("10.96.0.0/12")})
	for client, want := range map[string]int{"10.96.3.4:1000": 2, "[::ffff:10.96.3.4]:1000": 2, "192.0.2.1:1000": 1, "nonsense": 1} {
		r := httptest.NewRequest("GET", "/api", nil)
		r.RemoteAddr = client
		w := httptest.NewRecorder()
		d.ServeHTTP(w, r)
		var got metav1.APIVersions
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if len(got.ServerAddressByClientCIDRs) != want {
			t.Errorf("client %s is told %v, want %d addresses", client, got.ServerAddressByClientCIDRs, want)
		}
	}
}

func TestGzip(t *testing.T) {
	groups := small()
	for i := range 800 {
		groups = append(groups, widgets(fmt.Sprintf("g%d.example.com", i)))
	}
	d := Build(groups, Options{})
	plain, packed := get(d, "/apis", "Accept", aggregatedJSON), get(d, "/apis", "Accept", aggregatedJSON, "Accept-Encoding", "gzip")
	if packed.Header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("not compressed: %v", packed.Header)
	}
	z, err := gzip.NewReader(packed.Body)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if want := content(t, plain); string(b) != want {
		t.Errorf("compressed and plain differ: %d and %d bytes", len(b), len(want))
	}
	if small := get(d, "/apis/apps", "Accept-Encoding", "gzip"); small.Header.Get("Content-Encoding") != "" {
		t.Errorf("a small answer is compressed")
	}
}
