// Package apitest runs the golden archives of kinds: requests in, what becomes of them out.
//
// An archive testdata/<kind>.txtar holds, for each case, a file <case>.yaml with the posted object and a file <case>.out with what
// the kind makes of it: the object after defaulting and preparation, or the errors, then warnings and the table row. A
// file <case>.old.yaml makes the case an update. The .out file of a kind that is not stored holds its answer.
//
// A file <case>.on.yaml makes the case one of a subresource, of the object in it: a job (Eviction) or a Scale. A file <case>.there.yaml has
// what else there is. The .out file holds the answer, and what became of the objects.
//
// `go test -update` writes the .out files.
//
// Does not know: metadata rules, storage, admission.
package apitest

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/user"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
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

// started is when the test's run began.
var started = time.Now().Truncate(time.Second)

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
		if !request || slices.Contains([]string{".old", ".on", ".there"}, filepath.Ext(name)) {
			continue
		}
		c := golden{
			catalog: catalog, body: f.Data,
			old: files[name+".old.yaml"], on: files[name+".on.yaml"], there: files[name+".there.yaml"],
		}
		got, err := c.run()
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

// golden is a case of an archive: a request, and what there is before it.
type golden struct {
	catalog              *kind.Catalog
	body, old, on, there []byte
}

// run is what becomes of the request, as text.
func (c *golden) run() (string, error) {
	if c.on != nil {
		return c.through()
	}
	asked, obj, err := c.decode(c.body)
	switch {
	case err != nil:
		return "", err
	case asked.Virtual != nil:
		return answer(asked, obj), nil
	case asked.Job != nil:
		return c.job(asked.Job, kind.JobCall{Namespace: obj.GetNamespace(), Body: obj})
	case c.old == nil:
		return made(asked, obj)
	}
	_, old, err := c.decode(c.old)
	if err != nil {
		return "", err
	}
	return updated(asked, obj, old)
}

// through is what becomes of a request to a subresource.
func (c *golden) through() (string, error) {
	asked, on, err := c.decode(c.on)
	if err != nil {
		return "", err
	}
	var meta metav1.TypeMeta
	if err := yaml.Unmarshal(c.body, &meta); err != nil {
		return "", err
	}
	for _, sub := range asked.Subresources {
		switch {
		case sub.Kind != meta.GroupVersionKind():
		case sub.Job != nil:
			body := sub.New()
			if err := yaml.UnmarshalStrict(c.body, body); err != nil {
				return "", err
			}
			return c.job(sub.Job, kind.JobCall{Namespace: on.GetNamespace(), Name: on.GetName(), Body: body})
		case sub.Scale != nil:
			return c.scaled(asked, sub.Scale, on)
		}
	}
	return "", fmt.Errorf("no subresource of a %s is a %s", asked.Kind, meta.GroupVersionKind())
}

// made is what becomes of a new object. One of another version than the hub's is answered in that version.
func made(asked *kind.Definition, obj object.Object) (string, error) {
	ctx := context.Background()
	d, rules := asked.Hub(), rulesOf(asked)
	if d.PrepareCreate != nil {
		d.PrepareCreate(ctx, obj)
	}
	var errs field.ErrorList
	var warnings []string
	if rules.Validate != nil {
		errs = rules.Validate(ctx, obj)
	}
	if d.Warnings != nil && len(errs) == 0 {
		warnings = d.Warnings(ctx, obj, nil)
	}
	return outcome(asked, obj, errs, warnings)
}

// updated is what becomes of an object that replaces an old one.
func updated(asked *kind.Definition, obj, old object.Object) (string, error) {
	ctx := context.Background()
	d, rules := asked.Hub(), rulesOf(asked)
	if d.PrepareUpdate != nil {
		d.PrepareUpdate(ctx, obj, object.Copy(old))
	}
	if d.Generation != nil && d.Generation(obj, old) {
		obj.SetGeneration(old.GetGeneration() + 1)
	}
	var errs field.ErrorList
	var warnings []string
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
	return outcome(asked, obj, errs, warnings)
}

// rulesOf is the definition whose rules an object is held to, as in the engine.
func rulesOf(asked *kind.Definition) *kind.Definition {
	if asked.Validate != nil {
		return asked
	}
	return asked.Hub()
}

func outcome(asked *kind.Definition, obj object.Object, errs field.ErrorList, warnings []string) (string, error) {
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
		var err error
		if shown, err = asked.Convert.FromHub(obj); err != nil {
			return "", err
		}
		shown.GetObjectKind().SetGroupVersionKind(asked.GroupVersionKind())
	}
	return b.String() + row(asked.Hub(), obj) + text(shown), nil
}

// scaled is what the object says of its scale, and what becomes of it with the replicas that are asked for.
func (c *golden) scaled(d *kind.Definition, scale *kind.Scale, old object.Object) (string, error) {
	var asked autoscalingv1.Scale
	if err := yaml.UnmarshalStrict(c.body, &asked); err != nil {
		return "", err
	}
	obj := object.Copy(old)
	if err := scale.Set(obj, asked.Spec.Replicas); err != nil {
		return "", err
	}
	spec, status, selector, err := scale.Get(obj)
	if err != nil {
		return fmt.Sprintf("error: %v\n", err), nil
	}
	shown := fmt.Sprintf("scale: %d wanted, %d there, selector %q\n", spec, status, selector)
	updated, err := updated(d, obj, old)
	return shown + updated, err
}

// job is the answer to what is posted for a job, and what it makes of the objects that there are.
func (c *golden) job(do kind.Job, call kind.JobCall) (string, error) {
	shelf, before := Shelf{}, Shelf{}
	for _, body := range append(bytes.Split(c.there, []byte("\n---\n")), c.on) {
		if len(body) == 0 {
			continue
		}
		d, obj, err := c.decode(body)
		if err != nil {
			return "", err
		}
		shelf.Put(d.GroupResource(), obj)
		before.Put(d.GroupResource(), object.Copy(obj))
	}
	call.Objects = shelf
	shown, err := do(context.Background(), call)
	var b strings.Builder
	switch done, _ := shown.(*kind.Done); {
	case err != nil:
		b.WriteString(refusal(err))
	case done != nil:
		fmt.Fprintln(&b, done.Status().Status)
	default:
		b.WriteString(text(shown))
	}
	for _, place := range slices.Sorted(maps.Keys(before)) {
		switch obj := shelf[place]; {
		case obj == nil:
			fmt.Fprintf(&b, "deleted: %s\n", place)
		case text(obj) != text(before[place]):
			fmt.Fprintf(&b, "changed: %s\n%s", place, text(obj))
		}
	}
	return b.String(), nil
}

// answer is what a kind that is not stored answers to somebody called jane.
func answer(d *kind.Definition, obj object.Object) string {
	ctx := user.With(context.Background(), &user.Info{Name: "jane", Groups: []string{"system:authenticated"}})
	shown, err := d.Virtual(ctx, obj.GetNamespace(), obj)
	if err != nil {
		return refusal(err)
	}
	return text(shown)
}

// refusal is an error of the API, with the causes that its message does not tell.
func refusal(err error) string {
	text := fmt.Sprintf("error: %s: %v\n", apierrors.ReasonForError(err), err)
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Details != nil {
		for _, cause := range status.Status().Details.Causes {
			if !strings.Contains(text, cause.Message) {
				text += fmt.Sprintf("cause: %s: %s\n", cause.Type, cause.Message)
			}
		}
	}
	return text
}

// decode reads an object and defaults it. A definition with a hub is converted to it.
func (c *golden) decode(body []byte) (*kind.Definition, object.Object, error) {
	var meta metav1.TypeMeta
	err := yaml.Unmarshal(body, &meta)
	if err != nil {
		return nil, nil, err
	}
	d := c.catalog.Kind(meta.GroupVersionKind())
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
		if !strings.Contains(l, "creationTimestamp:") {
			lines = append(lines, moment.ReplaceAllStringFunc(l, withoutNow))
		}
	}
	return strings.Join(lines, "\n")
}

var moment = regexp.MustCompile(`"\d{4}-\d\d-\d\dT[\d:.]+Z"`)

// withoutNow hides a moment of the test's run.
func withoutNow(quoted string) string {
	if t, err := time.Parse(time.RFC3339, strings.Trim(quoted, `"`)); err != nil || t.Before(started) || t.After(time.Now()) {
		return quoted
	}
	return "<now>"
}
