package handover_test

import (
	"testing"

	"github.com/timonel/timonel/internal/api"
	"github.com/timonel/timonel/internal/handover"
	"github.com/timonel/timonel/internal/storage/storagetest"
)

// TestBytes decodes and encodes every value: the same bytes must come out. It covers every kind that a stock server serves by
// default: the order of fields, what is left out, what is empty but there.
func TestBytes(t *testing.T) {
	store := storagetest.NewMemory()
	fill(t, store, registry(t))
	later := known(t, "bytes.txt")
	sum, err := handover.Check(t.Context(), store, "/registry", api.Groups(api.Options{}), func(f handover.Finding) {
		if _, expected := later[f.Key]; !expected {
			t.Errorf("%s: %v", f.Key, f.Err)
		}
		delete(later, f.Key)
	})
	if err != nil {
		t.Fatal(err)
	}
	for key, reason := range later {
		t.Errorf("%s comes out the same now; take it out of testdata/bytes.txt (%s)", key, reason)
	}
	t.Logf("%d keys of %d resources, %d with findings", sum.Keys, sum.Resources, sum.Findings)
}
