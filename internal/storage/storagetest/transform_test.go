package storagetest

import (
	"bytes"
	"context"
	"errors"
	"strings"
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

func (reversed) Stale(_ string, stored []byte) bool { return !bytes.HasPrefix(stored, mark) }
func (reversed) Leaves(key string) bool             { return strings.HasPrefix(key, "/plain/") }

func TestTransformedKeepsThePromises(t *testing.T) {
	Run(t, func(*testing.T) storage.Store { return storage.Transform(NewMemory(), reversed{}) }, Options{FakeTime: true})
}

func TestTransform(t *testing.T) {
	inner := NewMemory()
	s := storage.Transform(inner, reversed{})
	put(t, s, "/good", "abc")
	if got := string(get(t, inner, "/good").Value); got != "<-cba" {
		t.Errorf("stored %q", got)
	}
	put(t, inner, "/bad", "plain")
	if _, err := s.Get(t.Context(), "/bad"); !errors.Is(err, storage.ErrTransform) {
		t.Errorf("a bad value was got: %v", err)
	}
	page := list(t, s, "/", storage.ListOptions{})
	checkKeys(t, page, "/bad", "/good")
	if string(page.Entries[0].Value) != "plain" || string(page.Entries[1].Value) != "abc" {
		t.Errorf("listed %+v", page.Entries)
	}
	if err := page.Entries[0].Err; !errors.Is(err, storage.ErrTransform) || page.Entries[1].Err != nil {
		t.Errorf("listed with errors %v and %v", err, page.Entries[1].Err)
	}
}

func TestStale(t *testing.T) {
	inner := NewMemory()
	s := storage.Transform(inner, reversed{})
	check := func(key string, at storage.Revision, want bool) {
		t.Helper()
		if got, err := s.Stale(t.Context(), key, at); err != nil || got != want {
			t.Errorf("%s at %d: stale %v, %v, want %v", key, at, got, err, want)
		}
	}
	good := put(t, s, "/good", "abc")
	bad := put(t, inner, "/bad", "plain")
	check("/good", good, false)
	check("/bad", bad, true)
	check("/bad", bad-1, false) // another value stands there by now
	check("/plain/any", put(t, inner, "/plain/any", "plain"), false)
	if _, err := s.Stale(t.Context(), "/none", 1); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("no key: %v", err)
	}
}
