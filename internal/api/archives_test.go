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

// archived is an object in a golden archive: that of a case, or one that there is beside it.
type archived struct {
	kind   schema.GroupVersionKind
	ofCase bool
	text   []byte
}

func archives(t *testing.T) (all []archived) {
	t.Helper()
	files, err := filepath.Glob("*/testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		a, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range a.Files {
			name, ok := strings.CutSuffix(f.Name, ".yaml")
			if !ok {
				continue
			}
			for _, text := range bytes.Split(f.Data, []byte("\n---\n")) {
				var meta metav1.TypeMeta
				if err := yaml.Unmarshal(text, &meta); err != nil {
					t.Fatalf("%s: %s: %v", path, name, err)
				}
				all = append(all, archived{meta.GroupVersionKind(), filepath.Ext(name) == "", text})
			}
		}
	}
	return all
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
