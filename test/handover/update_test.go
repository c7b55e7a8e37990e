package handover_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/timonel/timonel/internal/api"
	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/handover"
	"github.com/timonel/timonel/internal/storage"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/kubernetes/scheme"
)

// TestUpdate changes every recorded object through Timonel. What is stored then is what a stock server would read: the
// upstream types decode it, nothing is lost, and it comes out of decoding and encoding as it went in.
func TestUpdate(t *testing.T) {
	const label = "timonel-was-here"
	records, dir := registry(t), t.TempDir()
	inStore(t, dir, func(store storage.Store) { fill(t, store, records) })
	s := start(t, dir)
	changed := 0
	for _, a := range answers(t) {
		status, body := s.do("GET", a.Path, nil)
		if status != http.StatusOK {
			continue // TestServe tells
		}
		var obj map[string]any
		if err := json.Unmarshal(body, &obj); err != nil {
			t.Fatal(err)
		}
		metadata := obj["metadata"].(map[string]any)
		labels, _ := metadata["labels"].(map[string]any)
		if labels == nil {
			labels = map[string]any{}
			metadata["labels"] = labels
		}
		labels[label] = "yes"
		// Kept as text, so that raw values stay as they were.
		body, err := json.Marshal(obj)
		if err != nil {
			t.Fatal(err)
		}
		if status, answer := s.do("PUT", a.Path+"?fieldManager="+url.QueryEscape(manager(a.JSON)), spaced(body)); status != http.StatusOK {
			t.Errorf("PUT %s: %d %s", a.Path, status, answer)
			continue
		}
		changed++
	}
	s.stop()

	inStore(t, dir, func(store storage.Store) {
		page, err := store.List(t.Context(), "/registry/", storage.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, e := range page.Entries {
			if !strings.Contains(string(e.Value), label) {
				continue
			}
			found++
			if _, _, _, err := codec.OpenEnvelope(e.Value); err != nil {
				continue // JSON: Check reads it
			}
			obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(e.Value, nil, nil)
			if err != nil {
				t.Errorf("%s: client-go does not decode it: %v", e.Key, err)
				continue
			}
			accessor, err := meta.Accessor(obj)
			if err != nil || accessor.GetLabels()[label] != "yes" || accessor.GetResourceVersion() != "" {
				t.Errorf("%s: %v, labels %v, resourceVersion %q", e.Key, err, accessor.GetLabels(), accessor.GetResourceVersion())
			}
		}
		if found != changed || changed == 0 {
			t.Errorf("%d objects were changed, %d keys say so", changed, found)
		}
		_, err = handover.Check(t.Context(), store, "/registry", api.Groups(api.Options{}), func(f handover.Finding) {
			t.Errorf("%s: %v", f.Key, f.Err)
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
