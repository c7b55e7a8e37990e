package handover_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/timonel/timonel/internal/api"
	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/handover"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/storagetest"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func stored(t *testing.T, obj *corev1.ConfigMap) []byte {
	t.Helper()
	d := kind.NewCatalog(api.Groups(api.Options{})...).Hub(schema.GroupResource{Resource: "configmaps"})
	b, err := codec.EncodeStored(d, obj)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFindings(t *testing.T) {
	meta := metav1.ObjectMeta{Namespace: "a", Name: "b"}
	good := stored(t, &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{"k": "v"}})
	_, _, raw, err := codec.OpenEnvelope(stored(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "later"}}))
	if err != nil {
		t.Fatal(err)
	}
	unknownField := codec.Envelope("v1", "ConfigMap", append(raw, 0xfa, 0x01, 1, 'x')) // field 31
	ranges, err := (&corev1.RangeAllocation{Range: "30000-32767", Data: []byte{1}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	boat := []byte(`{"apiVersion":"fx.example.com/v1","kind":"Boat","metadata":{"name":"b"}}` + "\n")

	entries := map[string][]byte{
		"/registry/configmaps/a/b":                                        good,
		"/registry/configmaps/a/c":                                        good,
		"/registry/configmaps/a/cut":                                      good[:len(good)-5],
		"/registry/configmaps/a/text":                                     []byte("hello"),
		"/registry/configmaps/a/later":                                    unknownField,
		"/registry/configmaps/a/encrypted":                                []byte("k8s:enc:aescbc:v1:key1:\x01"),
		"/registry/secrets/a/b":                                           good,
		"/registry/ranges/servicenodeports":                               codec.Envelope("v1", "RangeAllocation", ranges),
		"/registry/unheard/of":                                            good,
		"/registry/fx.example.com/boats/b":                                boat,
		"/registry/fx.example.com/boats/c":                                boat,
		"/registry/fx.example.com/boats/d":                                []byte(`{"kind":"Boat","apiVersion":"fx.example.com/v1","metadata":{"name":"d"}}` + "\n"),
		"/registry/fx.example.com/ships/b":                                boat,
		"/registry/leases/elsewhere":                                      good,
		"/other/configmaps/a/b":                                           []byte("not under the prefix"),
		"/registry/apiextensions.k8s.io/customresourcedefinitions/broken": []byte("hello"),
	}
	entries["/registry/apiextensions.k8s.io/customresourcedefinitions/boats.fx.example.com"] = []byte(
		`{"kind":"CustomResourceDefinition","apiVersion":"apiextensions.k8s.io/v1beta1","metadata":{"name":"boats.fx.example.com"},"spec":{"group":"fx.example.com","version":"v1","names":{"plural":"boats","kind":"Boat"},"scope":"Cluster"}}`)
	want := map[string]error{
		"/registry/configmaps/a/c":                                        handover.ErrMisplaced,
		"/registry/configmaps/a/cut":                                      handover.ErrUndecodable,
		"/registry/configmaps/a/text":                                     handover.ErrUndecodable,
		"/registry/configmaps/a/later":                                    handover.ErrDifferent, // a field of a later version
		"/registry/configmaps/a/encrypted":                                handover.ErrEncrypted,
		"/registry/secrets/a/b":                                           handover.ErrMisplaced,
		"/registry/unheard/of":                                            handover.ErrUnknownResource,
		"/registry/fx.example.com/boats/c":                                handover.ErrMisplaced,
		"/registry/fx.example.com/boats/d":                                handover.ErrDifferent, // keys are not sorted
		"/registry/fx.example.com/ships/b":                                handover.ErrUnknownResource,
		"/registry/leases/elsewhere":                                      handover.ErrMisplaced,
		"/registry/apiextensions.k8s.io/customresourcedefinitions/broken": handover.ErrUndecodable,
		"/registry/apiextensions.k8s.io/customresourcedefinitions/boats.fx.example.com": handover.ErrDifferent, // without status
	}

	store := storagetest.NewMemory()
	for key, value := range entries {
		if _, err := store.Commit(t.Context(), storage.Txn{Then: []storage.Op{{Key: key, Value: value}}}); err != nil {
			t.Fatal(err)
		}
	}
	before, _ := store.Now(t.Context())
	missing := maps.Clone(want)
	sum, err := handover.Check(t.Context(), store, "/registry", api.Groups(api.Options{}), func(f handover.Finding) {
		if !errors.Is(f.Err, want[f.Key]) || want[f.Key] == nil {
			t.Errorf("%s: %v, want %v", f.Key, f.Err, want[f.Key])
		}
		delete(missing, f.Key)
	})
	if err != nil {
		t.Fatal(err)
	}
	for key, err := range missing {
		t.Errorf("%s is not reported, want %v", key, err)
	}
	if sum.Keys != len(entries)-1 || sum.Findings != len(want) || sum.Same != sum.Keys-sum.Findings {
		t.Errorf("summary %+v of %d entries, %d bad", sum, len(entries), len(want))
	}
	if now, _ := store.Now(t.Context()); now != before {
		t.Errorf("the check wrote: revision %d, was %d", now, before)
	}
}

// masked encrypts badly, and has lost the key of one value.
type masked struct{}

func (masked) ToStore(_ context.Context, _ string, value []byte) ([]byte, error) {
	return append([]byte("k8s:enc:masked:v1:a:"), value...), nil
}

func (masked) FromStore(_ context.Context, key string, stored []byte) ([]byte, error) {
	value, ok := bytes.CutPrefix(stored, []byte("k8s:enc:masked:v1:a:"))
	if !ok || strings.HasSuffix(key, "/lost") {
		return nil, errors.New("no key")
	}
	return value, nil
}

func (masked) Stale(string, []byte) bool { return false }
func (masked) Leaves(string) bool        { return false }

// TestEncrypted reads what is encrypted when the keys are at hand, and says where they are not.
func TestEncrypted(t *testing.T) {
	store := storage.Transform(storagetest.NewMemory(), masked{})
	for _, name := range []string{"fine", "lost"} {
		value := stored(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}})
		if _, err := store.Commit(t.Context(), storage.Txn{Then: []storage.Op{{Key: "/registry/configmaps/a/" + name, Value: value}}}); err != nil {
			t.Fatal(err)
		}
	}
	var found []handover.Finding
	sum, err := handover.Check(t.Context(), store, "/registry", api.Groups(api.Options{}), func(f handover.Finding) { found = append(found, f) })
	if err != nil || sum.Same != 1 || len(found) != 1 || found[0].Key != "/registry/configmaps/a/lost" ||
		!errors.Is(found[0].Err, handover.ErrEncrypted) || !strings.Contains(found[0].Err.Error(), "no key") {
		t.Errorf("found %+v, %+v, %v", found, sum, err)
	}
}
