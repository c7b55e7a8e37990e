package etcd

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A start on files that are not etcd's says so and leaves them alone.
func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, databaseFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("junk\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Embedded(t.Context(), EmbeddedConfig{Dir: dir})
	if !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v, want %v", err, ErrDamaged)
	}
	if err == nil {
		s.Close()
	}
	if text, _ := os.ReadFile(path); string(text) != "junk\n" {
		t.Errorf("the file is now %q", text)
	}
}
