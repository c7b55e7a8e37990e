package api

import (
	_ "embed"
	"fmt"
	"strings"
	"testing"

	"github.com/timonel/timonel/internal/kind"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

//go:embed testdata/columns.txt
var columnsOfReference string

// The columns of every kind are those that the reference declares, in order, with types, formats and priorities.
func TestColumns(t *testing.T) {
	catalog := kind.NewCatalog(Groups(testOptions())...)
	seen := map[schema.GroupKind]bool{}
	for line := range strings.Lines(columnsOfReference) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		name, want, _ := strings.Cut(strings.TrimSpace(line), ": ")
		gv, k, _ := strings.Cut(name, " ")
		group, version, _ := strings.Cut(gv, "/")
		d := catalog.Kind(schema.GroupVersionKind{Group: strings.TrimPrefix(group, "core"), Version: version, Kind: k})
		if d == nil {
			t.Errorf("%s: there is no such kind", name)
			continue
		}
		seen[d.GroupKind()] = true
		var shown []string
		for _, c := range d.Columns.All().Definitions() {
			text := c.Name
			switch {
			case c.Format != "":
				text += " <" + c.Type + "/" + c.Format + ">"
			case c.Type != "string":
				text += " <" + c.Type + ">"
			}
			if c.Priority != 0 {
				text += fmt.Sprintf(" +%d", c.Priority)
			}
			if c.Description == "" && name != "node.k8s.io/v1 RuntimeClass" { // Parity: its handler has none; see table/kind-runtimeclass
				t.Errorf("%s: the column %s has no description", name, c.Name)
			}
			shown = append(shown, text)
		}
		if got := strings.Join(shown, ", "); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, want)
		}
	}
	for _, d := range catalog.All() {
		if d.Persistent() && d.Verbs.Has(kind.List) && !seen[d.GroupKind()] {
			t.Errorf("%s: the reference's columns are not known", d.GroupKind())
		}
	}
}
