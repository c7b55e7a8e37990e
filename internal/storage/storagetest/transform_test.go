package storagetest

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/timonel/timonel/internal/storage"
)

// reversed stores values backwards behind a mark.
type reversed struct{}

var mark = []byte("<-")

func (reversed) ToStore(_ context.Context, _ string, value []byte) ([]byte, error) {
	stored := bytes.Clone(mark)
	for i := range value {
		stored = append(stored, value[len(value)-1-i])
	}
	return stored, nil
}

func (r reversed) FromStore(ctx context.Context, key string, stored []byte) ([]byte, error) {
	rest, ok := bytes.CutPrefix(stored, mark)
	if !ok {
		return nil, errors.New("no mark")
	}
	back, err := r.ToStore(ctx, key, rest)
	return back[len(mark):], err
}

func TestTransformedKeepsThePromises(t *testing.T) {
	Run(t, func(*testing.T) storage.Store { return storage.Transform(NewMemory(), reversed{}) }, Options{})
}

func TestTransform(t *testing.T) {
	inner := NewMemory()
	s := storage.Transform(inner, reversed{})
	put(t, s, "/good", "abc")
	if got := string(get(t, inner, "/good").Value); got != "<-cba" {
		t.Errorf("stored %q", got)
	}
	put(t, inner, "/bad", "plain")
	if _, err := s.Get(t.Context(), "/bad"); err == nil {
		t.Error("a bad value was got")
	}
	page := list(t, s, "/", storage.ListOptions{})
	checkKeys(t, page, "/bad", "/good")
	if string(page.Entries[0].Value) != "plain" || string(page.Entries[1].Value) != "abc" {
		t.Errorf("listed %+v", page.Entries)
	}
}
