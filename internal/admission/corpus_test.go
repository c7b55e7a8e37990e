//go:build corpus

package admission_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/timonel/timonel/internal/admission"
	"github.com/timonel/timonel/internal/api"
	"github.com/timonel/timonel/internal/authz"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/user"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// The corpus holds what a kube-apiserver answered. This test sends its creates and merge patches through defaulting,
// preparation and the plug-ins, and compares who is refused, with which message, and the fields that a
// case asks for. Steps about anything else, or kinds that are not there, are skipped.
//
//	TIMONEL_CORPUS=.../corpus/cases go test -tags corpus -run Corpus ./internal/admission
func TestCorpus(t *testing.T) {
	dir := os.Getenv("TIMONEL_CORPUS")
	if dir == "" {
		t.Fatal("TIMONEL_CORPUS must name the directory with the cases of the corpus")
	}
	files, err := filepath.Glob(filepath.Join(dir, "admission", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range files {
		if filepath.Base(file) == "warnings.yaml" || filepath.Base(file) == "node-restriction.yaml" {
			continue // about kinds and users
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var c struct{ Steps []step }
			text = []byte(strings.NewReplacer("${ns}", "ns1", "${run}", "run1").Replace(string(text)))
			if err := yaml.Unmarshal(text, &c); err != nil {
				t.Fatal(err)
			}
			w := newWorld(t)
			done := 0
			for _, s := range c.Steps {
				if w.run(t, &s) {
					done++
				} else if s.Method == http.MethodPost && s.Expect.Status == http.StatusCreated && w.unserved(&s) {
					t.Skipf("after %d of %d steps: %s is not served yet", done, len(c.Steps), s.Path)
				}
			}
			t.Logf("%d of %d steps", done, len(c.Steps))
		})
	}
}

type step struct {
	Name, Method, Path string
	Headers            map[string]string
	Body               map[string]any
	Only               []string
	Expect             struct {
		Status  int
		Headers map[string]string
		Body    map[string]any
	}
}

// world is a server that has kinds and plug-ins, but no storage and no validation.
type world struct {
	catalog *kind.Catalog
	objects map[string]object.Object
	chain   admission.Chain
}

func newWorld(t *testing.T) *world {
	w := &world{catalog: kind.NewCatalog(api.Groups(api.Options{})...), objects: map[string]object.Object{}}
	for _, name := range []string{"system-node-critical", "system-cluster-critical"} {
		w.seed(t, "scheduling.k8s.io", "priorityclasses", "", name, fmt.Sprintf(`{"value": %d}`, map[bool]int{true: 2000001000, false: 2000000000}[name == "system-node-critical"]))
	}
	w.seed(t, "", "namespaces", "", "ns1", "{}")
	w.seed(t, "", "serviceaccounts", "ns1", "default", "{}")
	shared := &lender{world: w, lent: map[object.Object]object.Object{}}
	t.Cleanup(func() { shared.unchanged(t) })
	all := admission.Builtin(w, admission.BuiltinOptions{Shared: shared, Objects: w, Authorizer: authz.AlwaysAllow{}, Fresh: func(context.Context) error { return nil }})
	var err error
	if w.chain, err = admission.Select(all, nil, nil); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) seed(t *testing.T, group, plural, namespace, name, text string) {
	d := w.catalog.Locate(group, "v1", plural)
	if d == nil {
		return
	}
	obj := d.New()
	if err := json.Unmarshal([]byte(text), obj); err != nil {
		t.Fatal(err)
	}
	obj.SetNamespace(namespace)
	obj.SetName(name)
	if d.Default != nil {
		d.Default(obj)
	}
	w.objects[w.key(d.GroupResource(), namespace, name)] = obj
}

func (w *world) key(r schema.GroupResource, namespace, name string) string {
	return r.String() + "|" + object.Key(namespace, name)
}

func (w *world) Get(_ context.Context, r schema.GroupResource, namespace, name string) (object.Object, error) {
	if o := w.objects[w.key(r, namespace, name)]; o != nil {
		return object.Copy(o), nil
	}
	return nil, apierrors.NewNotFound(r, name)
}

// lender reads objects without copying them, and remembers how they were.
type lender struct {
	*world
	lent map[object.Object]object.Object
}

func (l *lender) lend(o object.Object) object.Object {
	if l.lent[o] == nil {
		l.lent[o] = object.Copy(o)
	}
	return o
}

func (l *lender) Get(ctx context.Context, r schema.GroupResource, namespace, name string) (object.Object, error) {
	if o := l.objects[l.key(r, namespace, name)]; o != nil {
		return l.lend(o), nil
	}
	return l.world.Get(ctx, r, namespace, name)
}

func (l *lender) List(ctx context.Context, r schema.GroupResource, namespace string) ([]object.Object, error) {
	all, err := l.world.List(ctx, r, namespace)
	for i, o := range all {
		all[i] = l.lend(l.objects[l.key(r, o.GetNamespace(), o.GetName())])
	}
	return all, err
}

// unchanged checks that no plug-in changed what it was lent.
func (l *lender) unchanged(t *testing.T) {
	for now, was := range l.lent {
		if n, ok := now.(*corev1.Namespace); ok && n.Status.Phase == corev1.NamespaceTerminating {
			continue // by remove
		}
		if !reflect.DeepEqual(now, was) {
			t.Errorf("a plug-in changed what is shared: %s %s", reflect.TypeOf(now), now.GetName())
		}
	}
}

func (w *world) List(_ context.Context, r schema.GroupResource, namespace string) ([]object.Object, error) {
	var found []object.Object
	for k, o := range w.objects {
		if strings.HasPrefix(k, r.String()+"|") && (namespace == "" || o.GetNamespace() == namespace) {
			found = append(found, object.Copy(o))
		}
	}
	slices.SortFunc(found, func(a, b object.Object) int { return strings.Compare(a.GetName(), b.GetName()) })
	return found, nil
}

func (w *world) Change(ctx context.Context, r schema.GroupResource, namespace, name string, change func(object.Object) error, o kind.ChangeOptions) (object.Object, error) {
	obj, err := w.Get(ctx, r, namespace, name)
	if err == nil {
		err = change(obj)
	}
	if err == nil && !o.DryRun {
		w.objects[w.key(r, namespace, name)] = obj
	}
	return obj, err
}

func (w *world) Create(context.Context, schema.GroupResource, object.Object) (object.Object, error) {
	return nil, errors.New("not in this test")
}

func (w *world) Delete(context.Context, schema.GroupResource, string, string, metav1.DeleteOptions) error {
	return errors.New("not in this test")
}

var path = regexp.MustCompile(`^/(?:api|apis/([^/]+))/([^/]+)(?:/namespaces/([^/?]+))?(?:/([a-z]+))?(?:/([^/?]+))?(?:/([^/?]+))?(\?.*)?$`)

// unserved reports whether the step is about a kind that is not there.
func (w *world) unserved(s *step) bool {
	m := path.FindStringSubmatch(s.Path)
	return m != nil && w.catalog.Locate(m[1], m[2], m[4]) == nil && m[4] != ""
}

// run does a step if it can.
func (w *world) run(t *testing.T, s *step) bool {
	m := path.FindStringSubmatch(s.Path)
	if m == nil || s.Expect.Status == http.StatusNotFound {
		return false
	}
	group, version, namespace, plural, name, sub, query := m[1], m[2], m[3], m[4], m[5], m[6], m[7]
	if plural == "" {
		namespace, plural, name = "", "namespaces", namespace
	}
	d := w.catalog.Locate(group, version, plural)
	if d == nil || d.Virtual != nil {
		return false
	}
	r := &admission.Request{Definition: d, Subresource: sub, Namespace: namespace, Name: name, DryRun: strings.Contains(query, "dryRun"), User: &user.Info{Name: "admin"}}
	body, _ := json.Marshal(s.Body)
	switch {
	case s.Method == "DELETE" && name != "":
		old := w.objects[w.key(d.GroupResource(), namespace, name)]
		if old == nil {
			return false
		}
		r.Operation, r.Old = admission.Delete, old
	case s.Method == "POST" && name == "":
		r.Operation, r.Object = admission.Create, d.New()
		if err := json.Unmarshal(body, r.Object); err != nil {
			t.Fatal(err)
		}
		r.Name = r.Object.GetName()
	case s.Method == "PATCH" && strings.Contains(s.Headers["Content-Type"], "merge-patch"):
		if r.Old = w.objects[w.key(d.GroupResource(), namespace, name)]; r.Old == nil {
			return false
		}
		was, _ := json.Marshal(r.Old)
		now, err := jsonpatch.MergePatch(was, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Operation, r.Object = admission.Update, d.New()
		if err := json.Unmarshal(now, r.Object); err != nil {
			t.Fatal(err)
		}
	default:
		return false
	}
	if r.Object != nil {
		r.Object.SetNamespace(namespace)
		if d.Default != nil {
			d.Default(r.Object)
		}
	}
	err := w.chain.Change(t.Context(), r)
	if err == nil && r.Operation == admission.Create && d.PrepareCreate != nil {
		d.PrepareCreate(t.Context(), r.Object)
	}
	if err == nil {
		err = w.chain.Check(t.Context(), r)
	}
	w.compare(t, s, r, err)
	if err == nil && !r.DryRun {
		if r.Operation == admission.Delete {
			w.remove(r)
		} else {
			w.objects[w.key(d.GroupResource(), namespace, r.Name)] = r.Object
		}
	}
	return true
}

// remove deletes an object; a namespace goes in two steps.
func (w *world) remove(r *admission.Request) {
	if n, ok := r.Old.(*corev1.Namespace); ok {
		n.Status.Phase = corev1.NamespaceTerminating
		return
	}
	delete(w.objects, w.key(r.Definition.GroupResource(), r.Namespace, r.Name))
}

func (w *world) compare(t *testing.T, s *step, r *admission.Request, err error) {
	var status apierrors.APIStatus
	switch want := s.Expect.Body["message"]; {
	case err != nil && !errors.As(err, &status):
		t.Errorf("%s: %v", s.Name, err)
	case s.Expect.Status == http.StatusForbidden || err != nil:
		if err == nil {
			t.Errorf("%s: admitted", s.Name)
		} else if got := status.Status(); int(got.Code) != s.Expect.Status || want != nil && got.Message != want {
			t.Errorf("%s: got %d %s\nwant %d %v", s.Name, got.Code, got.Message, s.Expect.Status, want)
		}
	case s.Only != nil:
		text, _ := json.Marshal(r.Object)
		var tree any
		_ = json.Unmarshal(text, &tree)
		for _, p := range s.Only {
			if !strings.HasPrefix(p, "spec") && !strings.HasPrefix(p, "metadata.annotations") || strings.HasSuffix(p, "securityContext") {
				continue // no plug-in's doing
			}
			got, want := generated(pick(tree, strings.Split(p, "."))), s.Expect.Body[p]
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %s: got %v\nwant %v", s.Name, p, got, want)
			}
		}
	}
	if s.Expect.Status < 300 {
		var lines []string
		for _, text := range r.Warnings() {
			lines = append(lines, fmt.Sprintf("299 - %q", text))
		}
		want := s.Expect.Headers["Warning"]
		if got := strings.Join(lines, " | "); strings.Contains(want, "PodSecurity") && got != want {
			t.Errorf("%s: warnings: got %s\nwant %s", s.Name, got, want)
		}
	}
}

var suffix = regexp.MustCompile(`^kube-api-access-[a-z0-9]{5}$`)

// generated writes generated names as the corpus does.
func generated(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for k := range x {
			x[k] = generated(x[k])
		}
	case []any:
		for i := range x {
			x[i] = generated(x[i])
		}
	case string:
		return suffix.ReplaceAllString(x, "kube-api-access-<gen>")
	}
	return v
}

// pick returns what is at a path; "*" stands for every index.
func pick(v any, path []string) any {
	if len(path) == 0 {
		return v
	}
	switch x := v.(type) {
	case map[string]any:
		return pick(x[path[0]], path[1:])
	case []any:
		found := []any{}
		for _, item := range x {
			found = append(found, pick(item, path[1:]))
		}
		return found
	}
	if path[0] == "*" {
		return []any{}
	}
	return nil
}
