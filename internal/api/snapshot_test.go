//go:build corpus

package api

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/storage"
)

// TestSnapshot reads what a kube-apiserver stored: it must say what that server answered, and be written again as it was.
//
//	TIMONEL_SNAPSHOT=.../etcd-snapshot go test -tags corpus -run Snapshot ./internal/api
func TestSnapshot(t *testing.T) {
	dir := os.Getenv("TIMONEL_SNAPSHOT")
	if dir == "" {
		t.Fatal("TIMONEL_SNAPSHOT must name the directory with registry.jsonl.gz and answers.jsonl.gz")
	}
	catalog := kind.NewCatalog(Groups(testOptions())...)
	stored := catalog.Stored()
	slices.SortFunc(stored, func(a, b *kind.Definition) int { return len(b.Stored.Prefix) - len(a.Stored.Prefix) })
	answers := map[string]map[string]any{} // by uid
	lines(t, filepath.Join(dir, "answers.jsonl.gz"), func(line []byte) {
		var a struct{ JSON map[string]any }
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatal(err)
		}
		if meta, ok := a.JSON["metadata"].(map[string]any); ok {
			uid, _ := meta["uid"].(string)
			answers[uid] = a.JSON
		}
	})
	read, compared := 0, 0
	lines(t, filepath.Join(dir, "registry.jsonl.gz"), func(line []byte) {
		var e struct {
			Key         string
			Value       []byte
			ModRevision int64
		}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(stored, func(d *kind.Definition) bool { return strings.HasPrefix(e.Key, "/registry/"+d.Stored.Prefix+"/") })
		if i < 0 {
			return
		}
		d := stored[i]
		obj, err := codec.DecodeStored(d, e.Value, storage.Revision(e.ModRevision))
		if err != nil {
			t.Errorf("%s: %v", e.Key, err)
			return
		}
		read++
		written, err := codec.Write(d, obj)
		again := written.Value
		if err == nil {
			checkReadBack(t, d, e.Key, written)
		}
		switch {
		case err != nil:
			t.Errorf("%s: %v", e.Key, err)
		case d.Stored.Encoding == kind.JSON:
			if diff := cmp.Diff(tree(t, e.Value), tree(t, again)); diff != "" {
				t.Errorf("%s is stored otherwise (-was +is):\n%s", e.Key, diff)
			}
		case !bytes.Equal(again, e.Value) && !filledOnReading[d.Plural]:
			t.Errorf("%s is stored otherwise: %d bytes, were %d", e.Key, len(again), len(e.Value))
		}
		want := answers[string(obj.GetUID())]
		for _, served := range catalog.All() {
			if want == nil || served.Hub() != d || served.APIVersion() != want["apiVersion"] {
				continue
			}
			shown, err := codec.FromHub(served, obj)
			if err != nil {
				t.Errorf("%s: %v", e.Key, err)
				continue
			}
			codec.SetKind(shown, served.GroupVersionKind())
			text, err := json.Marshal(shown)
			if err != nil {
				t.Errorf("%s: %v", e.Key, err)
			}
			compared++
			if diff := cmp.Diff(want, tree(t, text)); diff != "" {
				t.Errorf("%s is shown otherwise (-want +got):\n%s", e.Key, diff)
			}
		}
	})
	t.Logf("%d read, %d compared with their answers, of %d", read, compared, len(answers))
}

// checkReadBack wants the version that a writer is shown to be the one that the watch cache makes of what was stored.
func checkReadBack(t *testing.T, d *kind.Definition, key string, written codec.Written) {
	t.Helper()
	shown, err := written.Version(77)
	kept := codec.Collection(d, "/registry").Describe(key, written.Value, 77)
	if err != nil || kept.Err != nil || !bytes.Equal(shown.Blob, kept.Blob) {
		t.Errorf("%s: the writer is shown another object than readers, %v %v", key, err, kept.Err)
	}
}

// filledOnReading names what that server stores with less than it shows: defaults it sets when it reads are not in the bytes.
var filledOnReading = map[string]bool{"jobs": true, "persistentvolumeclaims": true}

func tree(t *testing.T, text []byte) map[string]any {
	var v map[string]any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

func lines(t *testing.T, path string, f func([]byte)) {
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	s := bufio.NewScanner(unzipped)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		f(s.Bytes())
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
}
