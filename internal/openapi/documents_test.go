package openapi

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func get(t *testing.T, d *Documents, url string, headers ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest("GET", url, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	return w.Result()
}

func content(t *testing.T, w *http.Response) []byte {
	t.Helper()
	r := io.Reader(w.Body)
	if w.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		r = z
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("%s", err)
	}
	return b
}

// withCustom has a namespaced and a cluster-scoped custom resource, one of a builtin-like group.
func withCustom() *Documents {
	d := New(Config{Served: func(string, string) bool { return true }})
	d.Set("widgets.example.com", widget("example.com"))
	d.Set("engines.cars.k8s.io",
		CustomResource{Group: "cars.k8s.io", Version: "v1", Plural: "engines", Kind: "Engine", ListKind: "EngineList",
			Status: true, Scale: true, Selectable: []string{".spec.fuel"}, Fingerprint: "1"},
		CustomResource{Group: "cars.k8s.io", Version: "v2", Plural: "engines", Kind: "Engine", ListKind: "EngineList", Fingerprint: "1",
			Schema: func() ([]byte, error) {
				return []byte(`{"description":"An Engine.","type":"object","x-kubernetes-preserve-unknown-fields":true,"properties":{"a":{"type":"string"}}}`), nil
			}})
	return d
}

var allPaths = func() []string {
	paths := []string{"/openapi/v2"}
	for path := range builtIn().Documents {
		if path != "v2" {
			paths = append(paths, "/openapi/v3/"+path)
		}
	}
	return append(paths, "/openapi/v3/apis/example.com/v1", "/openapi/v3/apis/cars.k8s.io/v1", "/openapi/v3/apis/cars.k8s.io/v2")
}()

func TestEveryDocument(t *testing.T) {
	for name, d := range map[string]*Documents{"built-in": New(Config{}), "everything": withCustom()} {
		for _, path := range allPaths {
			if off := builtIn().Documents[strings.TrimPrefix(path, "/openapi/v3/")]; name == "built-in" &&
				(strings.Contains(path, "example.com") || strings.Contains(path, "cars") || off != nil && off.Part != nil) {
				continue
			}
			t.Run(name+path, func(t *testing.T) {
				plain := get(t, d, path)
				doc := content(t, plain)
				packed := get(t, d, path, "Accept-Encoding", "gzip")
				if !bytes.Equal(doc, content(t, packed)) {
					t.Errorf("gzip and identity differ")
				}
				if a, b := plain.Header.Get("Etag"), packed.Header.Get("Etag"); a != b || !regexp.MustCompile(`^"[0-9A-F]{128}"$`).MatchString(a) {
					t.Errorf("ETags %s and %s", a, b)
				}
				checkReferences(t, doc)
				checkOperations(t, doc)
				if !strings.Contains(path, "k8s.io") { // the conversion is slow; some are enough
					checkProtobuf(t, doc, path, d)
				}
			})
		}
	}
}

func checkReferences(t *testing.T, doc []byte) {
	t.Helper()
	var tree any
	if err := json.Unmarshal(doc, &tree); err != nil {
		t.Fatal(err)
	}
	if at := bytes.IndexByte(doc, '@'); at >= 0 && regexp.MustCompile(`@[a-z]+@`).Match(doc) {
		t.Errorf("a placeholder is left: %s", regexp.MustCompile(`.{30}@[a-z]+@.{30}`).Find(doc))
	}
	for _, m := range regexp.MustCompile(`"\$ref":"#/([^"]*)"`).FindAllSubmatch(doc, -1) {
		at := tree
		for part := range strings.SplitSeq(string(m[1]), "/") {
			at, _ = at.(map[string]any)[part]
		}
		if at == nil {
			t.Errorf("%s points nowhere", m[1])
		}
	}
}

func checkOperations(t *testing.T, doc []byte) {
	t.Helper()
	seen := map[string]bool{}
	for _, m := range regexp.MustCompile(`"operationId":"([^"]*)"`).FindAllSubmatch(doc, -1) {
		if id := string(m[1]); seen[id] {
			t.Errorf("operation id %s occurs twice", id)
		} else {
			seen[id] = true
		}
	}
	if len(seen) == 0 {
		t.Errorf("no operations")
	}
}

func checkProtobuf(t *testing.T, doc []byte, path string, d *Documents) {
	t.Helper()
	var got, want proto.Message
	var err error
	accept := "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"
	if path == "/openapi/v2" {
		accept = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
		got = &openapi_v2.Document{}
		want, err = openapi_v2.ParseDocument(doc)
	} else {
		got = &openapi_v3.Document{}
		want, err = openapi_v3.ParseDocument(doc)
	}
	if err != nil {
		t.Fatal(err)
	}
	w := get(t, d, path, "Accept", accept, "Accept-Encoding", "gzip")
	if want := strings.Replace(accept, "@", ".", 1); w.Header.Get("Content-Type") != want {
		t.Errorf("content type %s, want %s", w.Header.Get("Content-Type"), want)
	}
	if err := proto.Unmarshal(content(t, w), got); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, want) {
		t.Errorf("protobuf and JSON differ")
	}
}

func TestConditions(t *testing.T) {
	for _, d := range []*Documents{New(Config{}), withCustom()} {
		for _, path := range []string{"/openapi/v2", "/openapi/v3", "/openapi/v3/apis/apps/v1"} {
			first := get(t, d, path)
			etag := first.Header.Get("Etag")
			check := func(what string, w *http.Response, status int) {
				t.Helper()
				if w.StatusCode != status {
					t.Errorf("%s %s: status %d, want %d", path, what, w.StatusCode, status)
				}
			}
			check("again", get(t, d, path, "If-None-Match", etag), 304)
			check("again with gzip", get(t, d, path, "If-None-Match", etag, "Accept-Encoding", "gzip"), 304)
			check("with another tag", get(t, d, path, "If-None-Match", `"x"`), 200)
			check("again by time", get(t, d, path, "If-Modified-Since", first.Header.Get("Last-Modified")), 304)
			if path == "/openapi/v3" {
				continue
			}
			check("as YAML", get(t, d, path, "Accept", "application/yaml"), 406)
			check("as YAML or anything", get(t, d, path, "Accept", "application/yaml, */*;q=0.1"), 200)
			part := get(t, d, path, "Range", "bytes=2-9")
			check("in part", part, 206)
			if got, all := content(t, part), content(t, first); string(got) != string(all[2:10]) {
				t.Errorf("%s: bytes 2 to 9 are %q, want %q", path, got, all[2:10])
			}
		}
	}
}

func TestHash(t *testing.T) {
	d := withCustom()
	var index struct {
		Paths map[string]struct{ ServerRelativeURL string }
	}
	if err := json.Unmarshal(content(t, get(t, d, "/openapi/v3")), &index); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"api/v1", "apis/apps/v1", "apis/example.com/v1"} {
		url := index.Paths[path].ServerRelativeURL
		if !regexp.MustCompile(`^/openapi/v3/` + path + `\?hash=[0-9A-F]{128}$`).MatchString(url) {
			t.Fatalf("URL of %s in the index is %q", path, url)
		}
		right := get(t, d, url)
		if c, e := right.Header.Get("Cache-Control"), right.Header.Get("Expires"); right.StatusCode != 200 || c != "public, immutable" || e == "" {
			t.Errorf("%s: status %d, Cache-Control %q, Expires %q", url, right.StatusCode, c, e)
		}
		wrong := get(t, d, "/openapi/v3/"+path+"?hash=AB")
		if wrong.StatusCode != 301 || wrong.Header.Get("Location") != url {
			t.Errorf("%s with a wrong hash: status %d, location %s", path, wrong.StatusCode, wrong.Header.Get("Location"))
		}
		none := get(t, d, "/openapi/v3/"+path)
		if c := none.Header.Get("Cache-Control"); none.StatusCode != 200 || c != "no-cache, private" {
			t.Errorf("%s without hash: status %d, Cache-Control %q", path, none.StatusCode, c)
		}
	}
}

// What is off by default is in no document, and in all of them once it is served.
func TestServed(t *testing.T) {
	const path, model = "/openapi/v3/apis/coordination.k8s.io/v1beta1", "io.k8s.api.coordination.v1beta1.LeaseCandidate"
	check := func(name string, d *Documents, want bool) {
		t.Helper()
		status := map[bool]int{true: 200, false: 404}[want]
		if got := get(t, d, path).StatusCode; got != status {
			t.Errorf("%s: %s is answered %d, want %d", name, path, got, status)
		}
		for _, document := range []string{"/openapi/v3", "/openapi/v2"} {
			response := get(t, d, document)
			text, err := io.ReadAll(response.Body)
			if err != nil || !json.Valid(text) {
				t.Fatalf("%s: %s: %v", name, document, err)
			}
			if got := bytes.Contains(text, []byte("apis/coordination.k8s.io/v1beta1")); got != want {
				t.Errorf("%s: %s speaks of it: %v", name, document, got)
			}
			if got := bytes.Contains(text, []byte(model)); got != (want && document == "/openapi/v2") {
				t.Errorf("%s: %s has the model: %v", name, document, got)
			}
		}
	}
	byDefault := New(Config{})
	check("by default", byDefault, false)
	some := New(Config{Served: func(group, version string) bool {
		return !strings.Contains(version, "alpha") && group != "lifecycle.k8s.io"
	}})
	check("with beta versions", some, true)
	if got := get(t, some, "/openapi/v3/apis/lifecycle.k8s.io").StatusCode; got != 404 {
		t.Errorf("a group of which nothing is served is answered %d", got)
	}
	if a, b := get(t, byDefault, "/openapi/v2").Header.Get("Etag"), get(t, some, "/openapi/v2").Header.Get("Etag"); a == b {
		t.Error("different documents have the same ETag")
	}
	for _, accept := range []string{typeJSON, typeProtoV2} {
		plain, packed := get(t, some, "/openapi/v2", "Accept", accept), get(t, some, "/openapi/v2", "Accept", accept, "Accept-Encoding", "gzip")
		z, err := gzip.NewReader(packed.Body)
		if err != nil {
			t.Fatal(err)
		}
		want, err := io.ReadAll(plain.Body)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: compressed and plain differ: %d and %d bytes, %v", accept, len(got), len(want), err)
		}
	}
}

func TestSet(t *testing.T) {
	d := New(Config{Served: func(group, version string) bool { return group != "apps" || version == "" }})
	const path = "/openapi/v3/apis/example.com/v1"
	check := func(url string, status int) {
		t.Helper()
		if got := get(t, d, url).StatusCode; got != status {
			t.Errorf("%s: status %d, want %d", url, got, status)
		}
	}
	check(path, 404)
	check("/openapi/v3/apis/apps/v1", 404)
	check("/openapi/v3/apis/apps", 200)
	check("/openapi/v3/v2", 404)
	before := get(t, d, "/openapi/v2").Header.Get("Etag")
	d.Set("w", widget("example.com"))
	check(path, 200)
	first, v2 := get(t, d, path).Header.Get("Etag"), get(t, d, "/openapi/v2").Header.Get("Etag")
	changed := widget("example.com")
	changed.Status = true
	d.Set("w", changed)
	if second := get(t, d, path).Header.Get("Etag"); second == first || v2 == before {
		t.Errorf("ETags do not follow changes: v3 %.9s, %.9s, v2 %.9s, %.9s", first, second, before, v2)
	}
	d.Set("w")
	check(path, 404)
	if after := get(t, d, "/openapi/v2").Header.Get("Etag"); after != before {
		t.Errorf("v2 ETag without custom resources %.9s, before %.9s", after, before)
	}
	d.SetRemote(schema.GroupVersion{Group: "metrics.k8s.io", Version: "v1"}, Remote{Hash: "ABC", Handler: http.RedirectHandler("/there", http.StatusFound)})
	check("/openapi/v3/apis/metrics.k8s.io/v1", http.StatusFound)
	if index := content(t, get(t, d, "/openapi/v3")); !bytes.Contains(index, []byte("/openapi/v3/apis/metrics.k8s.io/v1?hash=ABC")) || bytes.Contains(index, []byte("apis/apps/v1")) {
		t.Errorf("index: %s", index)
	}
}

func TestCustomDocuments(t *testing.T) {
	d := withCustom()
	check := func(path string, at, want string) {
		t.Helper()
		var v any
		if err := json.Unmarshal(content(t, get(t, d, path)), &v); err != nil {
			t.Fatal(err)
		}
		for part := range strings.SplitSeq(at, "|") {
			v, _ = v.(map[string]any)[part]
		}
		if got, _ := encode(v); string(got) != want {
			t.Errorf("%s %s:\n got %s\nwant %s", path, at, got, want)
		}
	}
	const example, cars = "/openapi/v3/apis/example.com/v1", "/openapi/v3/apis/cars.k8s.io/v1"
	check(example, "components|schemas|com.example.v1.Widget|properties|spec|properties|nul", `{"nullable":true,"type":"string"}`)
	check(example, "components|schemas|com.example.v1.Widget|properties|spec|properties|any", `{"anyOf":[{"type":"integer"},{"type":"string"}],"x-kubernetes-int-or-string":true}`)
	check(example, "components|schemas|com.example.v1.Widget|properties|metadata|allOf", `[{"$ref":"#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}]`)
	check(example, "components|schemas|com.example.v1.Widget|x-kubernetes-group-version-kind", `[{"group":"example.com","kind":"Widget","version":"v1"}]`)
	check(example, "paths|/apis/example.com/v1/namespaces/{namespace}/widgets|post|operationId", `"createExampleComV1NamespacedWidget"`)
	check(example, "paths|/apis/example.com/v1/namespaces/{namespace}/widgets/{name}/status", `null`)
	check(example, "components|schemas|io.k8s.api.autoscaling.v1.Scale", `null`)
	check(cars, "paths|/apis/cars.k8s.io/v1/engines/{name}/scale|get|operationId", `"readCarsV1EngineScale"`)
	check(cars, "paths|/apis/cars.k8s.io/v1/engines|post|description", `"create an Engine"`)
	check(cars, "components|schemas|io.k8s.cars.v1.Engine|x-kubernetes-selectable-fields", `[{"fieldPath":"spec.fuel"}]`)
	check("/openapi/v2", "definitions|com.example.v1.Widget|properties|spec|properties|nul", `{}`)
	check("/openapi/v2", "definitions|com.example.v1.Widget|properties|spec|properties|free", `{"x-kubernetes-preserve-unknown-fields":true}`)
	check("/openapi/v2", "definitions|com.example.v1.Widget|properties|spec|properties|color", `{"enum":["red","green"],"type":"string"}`)
	check("/openapi/v2", "definitions|io.k8s.cars.v2.Engine|properties|a", `null`)
	check("/openapi/v2", "definitions|io.k8s.cars.v2.Engine|type", `"object"`)
	check("/openapi/v2", "paths|/apis/cars.k8s.io/v1/engines/{name}/status|patch|consumes", `["application/json-patch+json","application/merge-patch+json","application/apply-patch+yaml"]`)
}

func TestSchemasOf(t *testing.T) {
	d := withCustom()
	for _, gvk := range []schema.GroupVersionKind{
		{Group: "", Version: "v1", Kind: "Pod"}, {Group: "apps", Version: "v1", Kind: "Deployment"}, {Group: "example.com", Version: "v1", Kind: "Widget"},
	} {
		s, err := d.SchemasOf(gvk.GroupVersion())
		if err != nil {
			t.Fatal(err)
		}
		if _, raw, found := s.Kind(gvk); !found || !bytes.Contains(raw, []byte(`"spec"`)) {
			t.Errorf("schema of %v: found %v, %.80s", gvk, found, raw)
		}
	}
	if _, err := d.SchemasOf(schema.GroupVersion{Group: "nope", Version: "v1"}); err == nil {
		t.Errorf("schemas of an unknown group version: no error")
	}
}

func TestAcceptsGzip(t *testing.T) {
	for header, want := range map[string]bool{
		"": false, "gzip": true, "deflate, gzip;q=1.0, *;q=0.5": true, "gzip; q=0": false, "identity": false, "*": true, "br": false, "gzip;q=x": false,
	} {
		r := &http.Request{Header: http.Header{"Accept-Encoding": {header}}}
		if got := acceptsGzip(r); got != want {
			t.Errorf("acceptsGzip(%q) = %v", header, got)
		}
	}
}
