package api

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/timonel/timonel/internal/kind"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// TestEveryKindHasAnArchive: of each kind that is sent to the server there is a golden case, also of those that only a subresource takes.
func TestEveryKindHasAnArchive(t *testing.T) {
	archived := map[schema.GroupKind]bool{}
	files, err := filepath.Glob("*/testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		a, err := txtar.ParseFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range a.Files {
			var meta metav1.TypeMeta
			if name, request := strings.CutSuffix(f.Name, ".yaml"); !request || filepath.Ext(name) != "" {
				continue
			} else if err := yaml.Unmarshal(f.Data, &meta); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			archived[meta.GroupVersionKind().GroupKind()] = true
		}
	}
	wanted := map[schema.GroupKind]bool{}
	for _, d := range kind.NewCatalog(Groups(testOptions())...).All() {
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
	for k := range wanted {
		if !archived[k] {
			t.Errorf("%s has no archive", k)
		}
	}
}
