package server

import (
	"net/http"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
)

// TestCBOR creates, reads, lists, applies and watches in CBOR (KEP-4222), which is refused while its gate is off.
func TestCBOR(t *testing.T) {
	const maps = "/api/v1/namespaces/default/configmaps"
	body := func(apply string) string {
		b, err := direct.Marshal(map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a"}, "data": map[string]any{"k": apply}})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	header := func(content, accept string) http.Header {
		return http.Header{"Content-Type": {content}, "Accept": {accept}}
	}

	off := startServer(t, DefaultConfig())
	if status, _, _ := off.send("POST", maps, header("application/cbor", "application/json"), body("v")); status != http.StatusUnsupportedMediaType {
		t.Errorf("a body of CBOR with the gate off: %d", status)
	}
	if status, _, _ := off.send("GET", maps, header("", "application/cbor"), ""); status != http.StatusNotAcceptable {
		t.Errorf("CBOR asked for with the gate off: %d", status)
	}

	config := DefaultConfig()
	config.FeatureGates = []string{"CBORServingAndStorage=true"}
	s := startServer(t, config)
	check := func(method, path, content, contentType string, code int, want func(map[string]any) bool) {
		t.Helper()
		status, h, answer := s.send(method, path, header(contentType, "application/cbor"), content)
		var got map[string]any
		if status != code || h.Get("Content-Type") != "application/cbor" {
			t.Fatalf("%s %s: %d %s %q", method, path, status, h.Get("Content-Type"), answer)
		}
		if err := direct.Unmarshal([]byte(answer), &got); err != nil || !want(got) {
			t.Errorf("%s %s: %v, %v", method, path, err, got)
		}
	}
	data := func(obj map[string]any) any { return obj["data"].(map[string]any)["k"] }
	check("POST", maps, body("v"), "application/cbor", http.StatusCreated, func(o map[string]any) bool { return data(o) == "v" })
	check("GET", maps+"/a", "", "", http.StatusOK, func(o map[string]any) bool { return o["kind"] == "ConfigMap" && data(o) == "v" })
	check("PATCH", maps+"/a?fieldManager=me&force=true", body("w"), "application/apply-patch+cbor", http.StatusOK, func(o map[string]any) bool { return data(o) == "w" })
	check("GET", maps+"?fieldSelector=metadata.name%3Da", "", "", http.StatusOK, func(l map[string]any) bool {
		items, _ := l["items"].([]any)
		return l["kind"] == "ConfigMapList" && len(items) == 1 && data(items[0].(map[string]any)) == "w"
	})
	check("GET", maps+"/none", "", "", http.StatusNotFound, func(o map[string]any) bool { return o["kind"] == "Status" && o["reason"] == "NotFound" })

	status, h, events := s.send("GET", maps+"?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Da", header("", "application/cbor-seq"), "")
	if status != http.StatusOK || h.Get("Content-Type") != "application/cbor-seq" || !strings.Contains(events, "ADDED") {
		t.Errorf("watch: %d %s %q", status, h.Get("Content-Type"), events)
	}
}
