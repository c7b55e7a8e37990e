package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/timonel/timonel/internal/admission"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/patch"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/storagetest"
	"github.com/timonel/timonel/internal/storage/watchcache"
	"github.com/timonel/timonel/internal/user"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// kinds are what the engine of a test serves: a type with status and scale, one that dies with grace, one
// that reserves another, and a tree.
type kinds struct {
	deployments, pods, claims, volumes, widgets *kind.Definition

	mu     sync.Mutex
	chosen int // how often a volume was chosen
}

func newKinds() *kinds {
	k := &kinds{}
	replicas := func(o *appsv1.Deployment) int32 {
		if o.Spec.Replicas == nil {
			return 1
		}
		return *o.Spec.Replicas
	}
	k.deployments = &kind.Definition{
		Group: "apps", Version: "v1", Kind: "Deployment", Plural: "deployments", Scope: kind.Namespaced, Verbs: kind.Standard, New: kind.Of[appsv1.Deployment](),
		PrepareCreate: kind.Prepare(func(o *appsv1.Deployment) { o.Status = appsv1.DeploymentStatus{} }),
		PrepareUpdate: kind.PrepareUpdate(func(o, old *appsv1.Deployment) { o.Status = old.Status }),
		Generation: kind.Changed(func(o, old *appsv1.Deployment) bool {
			return !equality.Semantic.DeepEqual(o.Spec, old.Spec)
		}),
		Validate: kind.Validate(func(o *appsv1.Deployment) (errs field.ErrorList) {
			if replicas(o) < 0 {
				errs = append(errs, field.Invalid(field.NewPath("spec", "replicas"), replicas(o), "must not be negative"))
			}
			return errs
		}),
		Fields: []kind.Field{{Label: "spec.paused"}},
		Subresources: map[string]*kind.Subresource{
			"status": kind.Status(func(o, old *appsv1.Deployment) { o.Spec = old.Spec }, nil),
			"scale": {Verbs: kind.ReadWrite, Scale: &kind.Scale{
				Get: func(o object.Object) (int32, int32, string, error) {
					d := o.(*appsv1.Deployment)
					return replicas(d), d.Status.Replicas, "app=x", nil
				},
				Set:          func(o object.Object, n int32) error { o.(*appsv1.Deployment).Spec.Replicas = &n; return nil },
				ReplicasPath: []string{"spec", "replicas"},
			}},
		},
	}
	k.pods = &kind.Definition{
		Version: "v1", Kind: "Pod", Plural: "pods", Scope: kind.Namespaced, Verbs: kind.Standard, New: kind.Of[corev1.Pod](), ReturnsDeleted: true,
		Subresources: map[string]*kind.Subresource{
			"resize": {Verbs: kind.ReadWrite, View: &kind.View{OwnsOnly: []string{"spec.containers.*.resources"}}},
		},
		Grace: func(_ object.Object, o *metav1.DeleteOptions) (int64, bool) {
			if o.GracePeriodSeconds == nil {
				return 30, true
			}
			return *o.GracePeriodSeconds, *o.GracePeriodSeconds > 0
		},
	}
	k.volumes = &kind.Definition{
		Version: "v1", Kind: "PersistentVolume", Plural: "persistentvolumes", Scope: kind.Cluster, Verbs: kind.Standard, New: kind.Of[corev1.PersistentVolume](),
	}
	k.claims = &kind.Definition{
		Version: "v1", Kind: "ConfigMap", Plural: "configmaps", Scope: kind.Namespaced, Verbs: kind.Standard, New: kind.Of[corev1.ConfigMap](), CreateOnPut: true,
		Reserve: func(_ context.Context, _ kind.Reader, obj, old object.Object, _ bool) ([]kind.Companion, error) {
			name := func(o object.Object) string { return o.(*corev1.ConfigMap).Data["volume"] }
			var all []kind.Companion
			if old != nil && name(old) != "" && obj == nil {
				v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name(old)}}
				all = append(all, kind.Companion{Definition: k.volumes, Object: v, Remove: true})
			}
			if obj == nil || old != nil || obj.(*corev1.ConfigMap).Data == nil {
				return all, nil
			}
			m := obj.(*corev1.ConfigMap)
			if next, choose := m.Data["choose"]; choose {
				n, _ := strconv.Atoi(next)
				k.mu.Lock()
				k.chosen++
				n += k.chosen - 1
				k.mu.Unlock()
				m.Data["volume"] = fmt.Sprint("v", n)
			}
			c := kind.Companion{Definition: k.volumes, Object: &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: m.Data["volume"]}}}
			if _, choose := m.Data["choose"]; !choose {
				c.Taken = func() error { return apierrors.NewBadRequest("volume " + m.Data["volume"] + " is taken") }
			}
			return append(all, c), nil
		},
	}
	k.widgets = &kind.Definition{
		Group: "example.com", Version: "v1", Kind: "Widget", AnyFinalizer: true, Plural: "widgets", Scope: kind.Namespaced, Verbs: kind.Standard, Stored: kind.Stored{Prefix: "example.com/widgets", Encoding: kind.JSON},
		New:    func() object.Object { return &unstructured.Unstructured{Object: map[string]any{}} },
		Prune:  func(object.Object, bool) ([]string, error) { return nil, nil },
		Schema: func(string) (*patch.Schema, bool) { return patch.Schemaless(), true },
	}
	return k
}

// store is a store in memory whose watch can be held back, as a slow network would.
type store struct {
	*storagetest.Memory
	commits atomic.Int64
	before  func(storage.Txn) error // asked before each commit
	mu      sync.Mutex
	gate    chan struct{} // closed: deliver; nil too
}

func (s *store) Commit(ctx context.Context, txn storage.Txn) (storage.Revision, error) {
	if s.before != nil {
		if err := s.before(txn); err != nil {
			return 0, err
		}
	}
	revision, err := s.Memory.Commit(ctx, txn)
	if err == nil {
		s.commits.Add(1)
	}
	return revision, err
}

func (s *store) Watch(ctx context.Context, prefix string, after storage.Revision, deliver func(storage.Batch) error) error {
	return s.Memory.Watch(ctx, prefix, after, func(b storage.Batch) error {
		s.mu.Lock()
		gate := s.gate
		s.mu.Unlock()
		if gate != nil {
			<-gate
		}
		return deliver(b)
	})
}

// hold keeps what happens from the cache until release.
func (s *store) hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate = make(chan struct{})
}

func (s *store) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gate != nil {
		close(s.gate)
		s.gate = nil
	}
}

// world is an engine with its store, in a synctest bubble.
type world struct {
	*testing.T
	*kinds
	engine *Engine
	store  *store
}

func run(t *testing.T, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(newWorld(t, storagetest.NewMemory())) })
}

// newWorld is a server on a store, that other servers may share.
func newWorld(t *testing.T, m *storagetest.Memory) *world {
	k := newKinds()
	s := &store{Memory: m}
	cache := watchcache.New(s, "/registry/", watchcache.Options{Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	catalog := kind.NewLive(kind.NewCatalog(k.deployments, k.pods, k.claims, k.volumes, k.widgets))
	w := &world{T: t, kinds: k, store: s, engine: New(Config{
		Catalog: catalog, Store: s, Cache: cache, Prefix: "/registry", Admission: &admission.Gate{}, Registered: func(schema.GroupVersionKind) bool { return false },
	})}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := cache.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v", err)
		}
	}()
	t.Cleanup(func() { s.release(); cancel(); <-done })
	<-cache.Ready()
	return w
}

func (w *world) call(d *kind.Definition, name string) *Call {
	c := &Call{Definition: d, Namespace: "a", Name: name, User: &user.Info{Name: "test"}, Manager: "test"}
	if !d.Namespaced() {
		c.Namespace = ""
	}
	return c
}

func (w *world) sub(d *kind.Definition, name, sub string) *Call {
	c := w.call(d, name)
	c.Subresource, c.Sub = sub, d.Subresources[sub]
	return c
}

func body(text string) Body { return Body{Bytes: []byte(text)} }

func (w *world) tryCreate(d *kind.Definition, text string, dry ...string) (Result, error) {
	return w.engine.Create(context.Background(), w.call(d, ""), body(text), metav1.CreateOptions{DryRun: dry})
}

func (w *world) create(d *kind.Definition, text string) object.Object {
	w.Helper()
	return w.must(w.tryCreate(d, text))
}

func (w *world) must(r Result, err error) object.Object {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
	return r.Item.Object
}

func (w *world) update(c *Call, obj any, dry ...string) (Result, error) {
	w.Helper()
	b, err := json.Marshal(obj)
	if err != nil {
		w.Fatal(err)
	}
	return w.engine.Update(context.Background(), c, Body{Bytes: b}, metav1.UpdateOptions{DryRun: dry})
}

func (w *world) merge(c *Call, text string, dry ...string) (Result, error) {
	return w.engine.Patch(context.Background(), c, types.MergePatchType, []byte(text), metav1.PatchOptions{DryRun: dry})
}

func (w *world) apply(c *Call, manager, text string, force bool, dry ...string) (Result, error) {
	return w.engine.Patch(context.Background(), c, types.ApplyYAMLPatchType, []byte(text), metav1.PatchOptions{FieldManager: manager, Force: &force, DryRun: dry})
}

func (w *world) delete(c *Call, o metav1.DeleteOptions) (Result, error) {
	return w.engine.Delete(context.Background(), c, o)
}

// read is a consistent read.
func (w *world) read(d *kind.Definition, name string) (object.Object, error) {
	return w.readAt(d, name, "")
}

func (w *world) readAt(d *kind.Definition, name, resourceVersion string) (object.Object, error) {
	item, err := w.engine.Get(context.Background(), w.call(d, name), metav1.GetOptions{ResourceVersion: resourceVersion})
	if err != nil {
		return nil, err
	}
	return item.Decoded()
}

func (w *world) get(d *kind.Definition, name string) object.Object {
	w.Helper()
	obj, err := w.read(d, name)
	if err != nil {
		w.Fatal(err)
	}
	return obj
}

func (w *world) list(d *kind.Definition, o metav1.ListOptions) (names []string, page Page, err error) {
	c := w.call(d, "")
	page, err = w.engine.List(context.Background(), c, o)
	for _, item := range page.Items {
		names = append(names, item.Version.Name)
	}
	return names, page, err
}

// expect checks the reason of an error; "" is none at all.
func (w *world) expect(what string, err error, reason metav1.StatusReason) {
	w.Helper()
	got := apierrors.ReasonForError(err)
	if got != reason || (err == nil) != (reason == "") {
		w.Errorf("%s: %v (reason %q), want reason %q", what, err, got, reason)
	}
}

// quiet checks that f writes nothing.
func (w *world) quiet(what string, f func()) {
	w.Helper()
	before := w.store.commits.Load()
	if f(); w.store.commits.Load() != before {
		w.Errorf("%s wrote something", what)
	}
}
