package crd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/openapi"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/watchcache"
	"golang.org/x/sync/errgroup"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Resource is where the definitions are.
var Resource = schema.GroupResource{Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions"}

// retry is how long a write that failed waits before it is tried again.
const retry = 5 * time.Second

// maxWriters bounds the statuses that are written at once.
const maxWriters = 8

// Config is what a Registry works with.
type Config struct {
	Live    *kind.Live
	Objects kind.Objects
	// View is a kind in the watch cache.
	View func(*kind.Definition) *watchcache.View
	// Publish tells the OpenAPI documents what a definition serves; nothing: no longer anything.
	Publish func(name string, served ...openapi.CustomResource)
	Log     *slog.Logger
	Now     func() time.Time // default time.Now
}

// Registry follows the CustomResourceDefinitions in the watch cache: it writes what their status says of
// names, puts the established ones into the catalogue, and removes all objects of those that are being deleted.
//
// The definitions known live in one goroutine, that of Run; what a definition serves follows from its stored status
// alone, so that servers that share a store serve the same.
type Registry struct {
	Config
	hub     *kind.Definition // of CustomResourceDefinition
	view    *watchcache.View
	known   map[string]*entry            // by name
	groups  map[string]map[string]*entry // known, by group and name
	noted   map[string]bool              // names whose entries changed since serve ran
	slim    *codec.Part                  // of hub: without schemas
	watcher *watchcache.Watcher
	failed  []string            // whose statuses could not be written
	served  watchcache.Progress // how far the catalogue is

	cleaning struct {
		sync.WaitGroup
		sync.Mutex
		uids map[types.UID]bool // another definition may have the name of one that is hardly gone
	}
}

// entry is a definition without its schemas.
type entry struct {
	definition *apiextensions.CustomResourceDefinition
	version    atomic.Pointer[watchcache.Version] // of definition, schemas included
	living     atomic.Pointer[watchcache.Version] // the last one that was not being deleted
	served     string                             // what of it is in the catalogue: "" or a fingerprint
	kinds      []*kind.Definition
}

// New makes a registry. The catalogue must have CustomResourceDefinition.
func New(c Config) (*Registry, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	hub := c.Live.Catalog().Hub(Resource)
	if hub == nil {
		return nil, fmt.Errorf("follow %s: there is no such kind", Resource)
	}
	slim, err := codec.Without(hub, "metadata.managedFields", "spec.versions.schema")
	if err != nil {
		return nil, err
	}
	r := &Registry{Config: c, hub: hub, view: c.View(hub), slim: slim, known: map[string]*entry{}, groups: map[string]map[string]*entry{}, noted: map[string]bool{}}
	r.cleaning.uids = map[types.UID]bool{}
	return r, nil
}

// Load serves what is defined already. It returns when the objects of all custom resources can be read.
func (r *Registry) Load(ctx context.Context) error {
	if err := r.reload(); err != nil {
		return err
	}
	for _, e := range r.known {
		if len(e.kinds) == 0 {
			continue
		}
		if view := r.View(e.kinds[0]); view != nil { // the versions share it
			select {
			case <-view.Ready():
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// Abreast returns when the catalogue has what clients may know of definitions; an error says that it takes longer.
func (r *Registry) Abreast(ctx context.Context) error { return r.served.Abreast(ctx, r.view) }

// reload begins anew with what is in the cache.
func (r *Registry) reload() error {
	for {
		snapshot := r.view.Latest()
		present := map[string]bool{}
		for _, v := range snapshot.List(watchcache.Query{}).Versions {
			present[v.Name] = true
			r.note(v)
		}
		for name := range r.known {
			if !present[name] {
				r.forget(name)
			}
		}
		r.serve(snapshot.Revision())
		w, err := r.view.Watch(watchcache.Query{}, snapshot.Revision())
		if errors.Is(err, watchcache.ErrExpired) {
			continue
		}
		r.watcher = w
		return err
	}
}

// Run follows the definitions until ctx is done. Load comes first.
func (r *Registry) Run(ctx context.Context) error {
	defer func() {
		r.watcher.Close()
		r.cleaning.Wait()
	}()
	r.settle(ctx, slices.Collect(maps.Keys(r.known)))
	for {
		batch, err := r.next(ctx)
		switch {
		case err == nil:
			names := make([]string, 0, len(batch.Events))
			for _, e := range batch.Events {
				names = append(names, e.Version.Name)
				if e.Type == watchcache.Deleted {
					r.forget(e.Version.Name)
				} else {
					r.note(e.Version)
				}
			}
			r.serve(batch.Revision)
			r.settle(ctx, names)
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, context.DeadlineExceeded):
			r.settle(ctx, r.failed)
		default: // fell behind
			r.watcher.Close()
			if err := r.reload(); err != nil {
				return fmt.Errorf("follow %s: %w", Resource, err)
			}
			r.settle(ctx, slices.Collect(maps.Keys(r.known)))
		}
	}
}

// next waits for events, no longer than retry when something is to be tried again.
func (r *Registry) next(ctx context.Context) (watchcache.Batch, error) {
	if len(r.failed) == 0 {
		return r.watcher.Next(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, retry)
	defer cancel()
	return r.watcher.Next(ctx)
}

// whole decodes a definition with its schemas.
func (r *Registry) whole(v *watchcache.Version) (*apiextensions.CustomResourceDefinition, error) {
	obj, err := codec.DecodeVersion(r.hub, v)
	if err != nil {
		return nil, err
	}
	return asDefinition(obj)
}

func asDefinition(obj object.Object) (*apiextensions.CustomResourceDefinition, error) {
	definition, ok := obj.(*apiextensions.CustomResourceDefinition)
	if !ok {
		return nil, fmt.Errorf("%T is no CustomResourceDefinition", obj)
	}
	return definition, nil
}

// note takes a definition over from the cache.
func (r *Registry) note(v *watchcache.Version) {
	var definition *apiextensions.CustomResourceDefinition
	obj, err := r.slim.Decode(v)
	if err == nil {
		definition, err = asDefinition(obj)
	}
	if err != nil {
		r.Log.Error("a CustomResourceDefinition does not decode; it is not served", "name", v.Name, "error", err)
		r.forget(v.Name)
		return
	}
	definition.Annotations = onlyApproval(definition.Annotations)
	e := r.known[v.Name]
	if e == nil {
		e = &entry{}
		r.known[v.Name] = e
		group := groupOf(v.Name)
		if r.groups[group] == nil {
			r.groups[group] = map[string]*entry{}
		}
		r.groups[group][v.Name] = e
	}
	e.definition = definition
	e.version.Store(v)
	if definition.DeletionTimestamp == nil {
		e.living.Store(v)
	}
	r.noted[v.Name] = true
}

// groupOf is the group of the definition with a name, which is that of its plural and group.
func groupOf(name string) string {
	_, group, _ := strings.Cut(name, ".")
	return group
}

func onlyApproval(annotations map[string]string) map[string]string {
	if text, has := annotations[approvedAnnotation]; has {
		return map[string]string{approvedAnnotation: text}
	}
	return nil
}

// forget takes a definition out; serve does the rest.
func (r *Registry) forget(name string) {
	if r.known[name] != nil {
		r.known[name].definition = nil
		r.noted[name] = true
	}
}

// fingerprint stands for all that a definition's kinds are made of.
func (e *entry) fingerprint() string {
	d := e.definition
	if d == nil || !isTrue(&d.Status, apiextensions.Established) {
		return ""
	}
	return fmt.Sprintf("%s/%d/%t/%v", d.UID, d.Generation, d.DeletionTimestamp != nil, d.Status.AcceptedNames)
}

// serve puts what is established into the catalogue, in one change, if anything changed. Then it is as the definitions were at
// the revision.
func (r *Registry) serve(at storage.Revision) {
	var change kind.Change
	for name := range r.noted {
		e := r.known[name]
		if now := e.fingerprint(); now != e.served {
			e.served = now
			change.Gone = append(change.Gone, e.kinds...)
			r.serveEntry(name, e)
			change.New = append(change.New, e.kinds...)
		}
		if e.definition == nil {
			delete(r.known, name)
			delete(r.groups[groupOf(name)], name)
		}
	}
	clear(r.noted)
	if len(change.Gone)+len(change.New) > 0 {
		r.Live.Change(change)
	}
	r.served.Reach(at)
}

// serveEntry makes the kinds of a definition anew.
func (r *Registry) serveEntry(name string, e *entry) {
	if e.kinds = nil; e.served == "" {
		r.Publish(name)
		return
	}
	load := func() (*apiextensions.CustomResourceDefinition, error) { return r.whole(e.version.Load()) }
	e.kinds = Definitions(e.definition, load)
	for _, d := range e.kinds {
		d.Premise = e.premise(d, name, e.definition.UID)
	}
	r.Publish(name, Published(e.definition, load)...)
}

// premise is that of new objects: their definition is not being deleted. Who deletes all objects of one that is relies on it.
func (e *entry) premise(d *kind.Definition, name string, uid types.UID) func() kind.Premise {
	if d.Terminating { // there are none
		return nil
	}
	judge := func(obj object.Object) error {
		switch {
		case obj.GetUID() != uid:
			return apierrors.NewNotFound(d.GroupResource(), "")
		case obj.GetDeletionTimestamp() != nil:
			return errTerminating(d)
		}
		return nil
	}
	return func() kind.Premise {
		return kind.Premise{Resource: Resource, Name: name, Version: codec.FormatRevision(e.living.Load().Revision), Judge: judge}
	}
}

// settle writes what follows from the definitions with these names: their own statuses, and those of others in
// their groups that wait for a name.
func (r *Registry) settle(ctx context.Context, names []string) {
	touched, groups := map[string]bool{}, map[string]bool{}
	for _, name := range names {
		touched[name], groups[groupOf(name)] = true, true
	}
	w := statusWriter{r: r, ctx: ctx}
	w.SetLimit(maxWriters)
	for group := range groups {
		r.settleGroup(group, touched, &w)
	}
	_ = w.Wait() // they log
	r.failed = w.failed.names
}

// settleGroup decides about the definitions of a group that are touched or wait for a name.
func (r *Registry) settleGroup(group string, touched map[string]bool, w *statusWriter) {
	all := make([]*apiextensions.CustomResourceDefinition, 0, len(r.groups[group]))
	for _, e := range r.groups[group] {
		all = append(all, e.definition)
	}
	slices.SortFunc(all, func(a, b *apiextensions.CustomResourceDefinition) int { return cmp.Compare(a.Name, b.Name) })
	for i, definition := range all {
		waiting := !isTrue(&definition.Status, apiextensions.NamesAccepted)
		if !touched[definition.Name] && !waiting {
			continue
		}
		if definition.DeletionTimestamp != nil {
			r.clean(w.ctx, definition)
			continue
		}
		want := decide(definition, all, r.Now())
		if equalStatus(&want, &definition.Status) {
			continue
		}
		decided := *definition // it becomes true when it comes back from the store
		decided.Status = want
		all[i] = &decided // the next of the group finds these names taken
		w.write(&decided)
	}
}

// statusWriter writes statuses, some at once.
type statusWriter struct {
	errgroup.Group
	r      *Registry
	ctx    context.Context
	failed struct {
		sync.Mutex
		names []string
	}
}

// write writes the status of a definition if that is still what it was decided of: what it has become is yet to come here.
func (w *statusWriter) write(decided *apiextensions.CustomResourceDefinition) {
	w.Go(func() error {
		err := w.r.change(w.ctx, decided.Name, func(d *apiextensions.CustomResourceDefinition) error {
			if d.UID != decided.UID || d.ResourceVersion != decided.ResourceVersion {
				return errChanged
			}
			d.Status = decided.Status
			return nil
		})
		if err != nil && !errors.Is(err, errChanged) && !apierrors.IsNotFound(err) && w.ctx.Err() == nil {
			w.r.Log.Error("the status of a CustomResourceDefinition is not written; trying again", "name", decided.Name, "in", retry, "error", err)
			w.failed.Lock()
			defer w.failed.Unlock()
			w.failed.names = append(w.failed.names, decided.Name)
		}
		return nil
	})
}

var errChanged = errors.New("the definition has changed")

var errGone = errors.New("the definition is another one now")

func gone(err error) bool { return errors.Is(err, errGone) || apierrors.IsNotFound(err) }

// change changes a definition's status.
func (r *Registry) change(ctx context.Context, name string, change func(*apiextensions.CustomResourceDefinition) error) error {
	_, err := r.Objects.Change(ctx, Resource, "", name, func(obj object.Object) error {
		return change(obj.(*apiextensions.CustomResourceDefinition))
	}, kind.ChangeOptions{Subresource: "status"})
	return err
}

// equalStatus compares what decide decides; times do not count.
func equalStatus(a, b *apiextensions.CustomResourceDefinitionStatus) bool {
	return reflect.DeepEqual(a.AcceptedNames, b.AcceptedNames) && slices.EqualFunc(a.Conditions, b.Conditions, sameCondition)
}
