// Package handover_test proves "the same on disk": what a stock kube-apiserver 1.37 left in etcd is served as it
// served it, an update that changes nothing leaves the stored bytes as they are, and what Timonel writes
// a stock server can read.
//
// The recordings are not part of this repository: TIMONEL_SNAPSHOT names the directory that holds them, by default
// shared/etcd-snapshot beside the checkout; without it the tests are skipped. Start reading at serve_test.go.
package handover_test

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/timonel/timonel/internal/storage"
)

// record is a key as the stock server left it in etcd.
type record struct {
	Key   string `json:"key"`
	Value []byte `json:"value"`
}

// answer is what the stock server said to a GET of path.
type answer struct {
	Path string         `json:"path"`
	JSON map[string]any `json:"json"`
}

func registry(t *testing.T) []record { return recorded[record](t, "registry.jsonl.gz") }
func answers(t *testing.T) []answer  { return recorded[answer](t, "answers.jsonl.gz") }

func recorded[T any](t *testing.T, name string) (all []T) {
	t.Helper()
	dir := os.Getenv("TIMONEL_SNAPSHOT")
	if dir == "" {
		dir = "../../../shared/etcd-snapshot"
		if _, err := os.Stat(dir); err != nil {
			t.Skip("no recordings: set TIMONEL_SNAPSHOT")
		}
	}
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(text)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var one T
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, one)
	}
	if err := lines.Err(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return all
}

// fill puts records into a store.
func fill(t *testing.T, store storage.Store, records []record) {
	t.Helper()
	const together = 100
	for len(records) > 0 {
		n := min(len(records), together)
		var txn storage.Txn
		for _, r := range records[:n] {
			txn.Then = append(txn.Then, storage.Op{Key: r.Key, Value: r.Value})
		}
		if _, err := store.Commit(context.WithoutCancel(t.Context()), txn); err != nil {
			t.Fatal(err)
		}
		records = records[n:]
	}
}

// known are the keys or paths in a file of testdata that are expected to differ, each with its reason.
func known(t *testing.T, name string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, reason, _ := strings.Cut(line, " ")
		out[key] = strings.TrimSpace(reason)
	}
	return out
}
