package api

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// archived is an object in a golden archive.
type archived struct {
	kind   schema.GroupVersionKind
	text   []byte
	ofCase bool // it is what a case sends
	valid  bool // it is stored, or was before
}

func archives(t *testing.T) (all []archived) {
	t.Helper()
	files, err := filepath.Glob("*/testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no archives (%v)", err)
	}
	for _, path := range files {
		a, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		refused := map[string]bool{}
		for _, f := range a.Files {
			if name, ok := strings.CutSuffix(f.Name, ".out"); ok {
				refused[name] = bytes.HasPrefix(f.Data, []byte("error:"))
			}
		}
		for _, f := range a.Files {
			name, ok := strings.CutSuffix(f.Name, ".yaml")
			if !ok {
				continue
			}
			role := filepath.Ext(name)
			for _, text := range bytes.Split(f.Data, []byte("\n---\n")) {
				var meta metav1.TypeMeta
				if err := yaml.Unmarshal(text, &meta); err != nil {
					t.Fatalf("%s: %s: %v", path, name, err)
				}
				all = append(all, archived{
					kind: meta.GroupVersionKind(), text: text, ofCase: role == "", valid: role == ".old" || role == "" && !refused[name],
				})
			}
		}
	}
	return all
}

// examples are the valid objects of the archives, by kind.
func examples(t *testing.T) map[schema.GroupVersionKind][][]byte {
	known := map[schema.GroupVersionKind][][]byte{}
	for _, a := range archives(t) {
		if a.valid {
			known[a.kind] = append(known[a.kind], a.text)
		}
	}
	return known
}

// TestEveryKindHasAnArchive: of each kind that is sent to the server there is a golden case, also of those that only a subresource takes.
func TestEveryKindHasAnArchive(t *testing.T) {
	wanted := map[schema.GroupKind]bool{}
	options := testOptions()
	options.Core.TokenJob = func(context.Context, kind.JobCall) (object.Object, error) { return nil, nil }
	for _, d := range kind.NewCatalog(Groups(options)...).All() {
		if d.VirtualList != nil {
			continue // nobody sends one
		}
		wanted[d.GroupKind()] = true
		for _, sub := range d.Subresources {
			if !sub.Kind.Empty() && !sub.Connect {
				wanted[sub.Kind.GroupKind()] = true
			}
		}
	}
	for _, a := range archives(t) {
		if a.ofCase {
			delete(wanted, a.kind.GroupKind())
		}
	}
	for k := range wanted {
		t.Errorf("%s has no archive", k)
	}
}
