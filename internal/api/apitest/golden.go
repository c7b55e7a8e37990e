// Package apitest runs the golden archives of kinds: requests in, what becomes of them out.
//
// An archive testdata/<kind>.txtar holds, for each case, a file <case>.yaml with the posted object and a file <case>.out with what
// the kind makes of it: the object after defaulting and preparation, or the errors, then warnings and the table row. A
// file <case>.old.yaml makes the case an update. The .out file of a kind that is not stored holds its answer. `go test -update`
// writes the .out files.
//
// Does not know: metadata rules, storage, admission.
package apitest

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/user"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the expected results of golden archives")

// created and now are the times of all golden cases.
var (
	created = metav1.NewTime(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	now     = created.Add(90 * time.Second)
)

// Golden runs the archives in testdata for the kinds that they hold.
func Golden(t *testing.T, definitions ...*kind.Definition) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden archives in testdata (%v)", err)
	}
	catalog := kind.NewCatalog(definitions...)
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txtar"), func(t *testing.T) { archive(t, catalog, f) })
	}
}

func archive(t *testing.T, catalog *kind.Catalog, path string) {
	a, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, f := range a.Files {
		files[f.Name] = f.Data
	}
	result := &txtar.Archive{Comment: a.Comment}
	for _, f := range a.Files {
		name, request := strings.CutSuffix(f.Name, ".yaml")
		if strings.HasSuffix(f.Name, ".out") {
			continue
		}
		result.Files = append(result.Files, f)
		if !request || strings.HasSuffix(name, ".old") {
			continue
		}
		got, err := run(catalog, f.Data, files[name+".old.yaml"])
		if err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
		result.Files = append(result.Files, txtar.File{Name: name + ".out", Data: []byte(got)})
		if want := string(files[name+".out"]); !*update && got != want {
			t.Errorf("%s: (-want +got)\n%s", name, cmp.Diff(want, got))
		}
	}
	if *update {
		if err := os.WriteFile(path, txtar.Format(result), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// run is what becomes of a request, as text. One of another version than the hub's is answered in that version.
func run(catalog *kind.Catalog, body, before []byte) (string, error) {
	ctx := context.Background()
	asked, obj, err := decode(catalog, body)
	if err != nil {
		return "", err
	}
	if asked.Virtual != nil {
		return answer(asked, obj), nil
	}
	d := asked.Hub()
	rules := d // those that it is held to, as in the engine
	if asked.Validate != nil {
		rules = asked
	}
	var errs field.ErrorList
	var warnings []string
	if before == nil {
		if d.PrepareCreate != nil {
			d.PrepareCreate(ctx, obj)
		}
		if rules.Validate != nil {
			errs = rules.Validate(ctx, obj)
		}
		if d.Warnings != nil && len(errs) == 0 {
			warnings = d.Warnings(ctx, obj, nil)
		}
	} else {
		_, old, err := decode(catalog, before)
		if err != nil {
			return "", err
		}
		if d.PrepareUpdate != nil {
			d.PrepareUpdate(ctx, obj, object.Copy(old))
		}
		if d.Generation != nil && d.Generation(obj, old) {
			obj.SetGeneration(old.GetGeneration() + 1)
		}
		switch {
		case rules.ValidateUpdate != nil:
			errs = rules.ValidateUpdate(ctx, obj, old)
		case rules.Validate != nil:
			errs = rules.Validate(ctx, obj)
		}
		if d.Warnings != nil && len(errs) == 0 {
			warnings = d.Warnings(ctx, obj, old)
		}
		obj.SetGeneration(old.GetGeneration()) // is the engine's business
	}
	var b strings.Builder
	for _, e := range errs {
		fmt.Fprintf(&b, "error: %s: %s\n", e.Type, e.Error())
	}
	if len(errs) > 0 {
		return b.String(), nil
	}
	for _, w := range warnings {
		fmt.Fprintf(&b, "warning: %s\n", w)
	}
	shown := obj
	if asked.Convert != nil {
		if shown, err = asked.Convert.FromHub(obj); err != nil {
			return "", err
		}
		shown.GetObjectKind().SetGroupVersionKind(asked.GroupVersionKind())
	}
	return b.String() + row(d, obj) + text(shown), nil
}

// answer is what a kind that is not stored answers to somebody called jane.
func answer(d *kind.Definition, obj object.Object) string {
	ctx := user.With(context.Background(), &user.Info{Name: "jane", Groups: []string{"system:authenticated"}})
	shown, err := d.Virtual(ctx, obj.GetNamespace(), obj)
	if err != nil {
		return fmt.Sprintf("error: %s: %v\n", apierrors.ReasonForError(err), err)
	}
	return text(shown)
}

// decode reads an object and defaults it. A definition with a hub is converted to it.
func decode(catalog *kind.Catalog, body []byte) (*kind.Definition, object.Object, error) {
	var meta metav1.TypeMeta
	err := yaml.Unmarshal(body, &meta)
	if err != nil {
		return nil, nil, err
	}
	d := catalog.Kind(meta.GroupVersionKind())
	if d == nil {
		return nil, nil, fmt.Errorf("no kind %s among the definitions", meta.GroupVersionKind())
	}
	obj := d.New()
	if err := yaml.UnmarshalStrict(body, obj); err != nil {
		return nil, nil, err
	}
	obj.SetCreationTimestamp(created)
	if d.Default != nil {
		d.Default(obj)
	}
	if d.Convert == nil {
		return d, obj, nil
	}
	if obj, err = d.Convert.ToHub(obj); err != nil {
		return nil, nil, err
	}
	if hub := d.Hub(); hub.Default != nil {
		hub.Default(obj)
	}
	return d, obj, nil
}

func row(d *kind.Definition, obj object.Object) string {
	var cells []string
	for _, c := range d.Columns.All() {
		cell := c.Of(obj)
		if dated, ok := cell.(kind.Dated); ok {
			cell = dated.At(now)
		}
		cells = append(cells, fmt.Sprintf("%v", cell))
	}
	return "row: " + strings.Join(cells, " | ") + "\n"
}

// text is the object as YAML, without what all objects have and without moments of the test's run.
func text(obj object.Object) string {
	out, err := yaml.Marshal(obj)
	if err != nil {
		return err.Error()
	}
	var lines []string
	for _, l := range strings.Split(string(out), "\n") {
		if strings.Contains(l, "creationTimestamp:") {
			continue
		}
		if key, _, found := strings.Cut(l, "TransitionTime: \"2"); found {
			l = key + "TransitionTime: <now>"
		}
		lines = append(lines, l)
	}
	return strings.Join(lines, "\n")
}
