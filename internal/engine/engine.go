// Package engine does what a request asks for: the verbs of the Kubernetes API, a
// file each, over any kind.
//
// Promises: it knows a kind only through its kind.Definition; a write is one
// compare-and-swap transaction, made on the newest object or not at all; what it
// answered before it never takes back; reads come from the watch cache without
// decoding.
//
// Does not know: HTTP, kinds by name, who may do what. Start reading at Call, then
// create.go and update.go; get.go for reads.
package engine

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/timonel/timonel/internal/admission"
	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/watchcache"
	"github.com/timonel/timonel/internal/trace"
	"github.com/timonel/timonel/internal/user"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Config is what an Engine works with.
type Config struct {
	Catalog   *kind.Live
	Store     storage.Store
	Cache     *watchcache.Cache
	Prefix    string          // of all keys, e.g. "/registry"
	Admission *admission.Gate // its plug-ins may be set later, before the first write
	// Registered reports whether a kind is known beyond what is served; it decides the text of
	// some errors.
	Registered func(schema.GroupVersionKind) bool
	Now        func() time.Time // default time.Now
	// Stale reports whether what was stored at the revision, if it still is, should be stored again although it holds
	// the same: with the encryption key that is in use now. nil: never. It is asked about writes that change nothing.
	Stale func(ctx context.Context, key string, at storage.Revision) (bool, error)
}

// Engine serves all kinds of a catalogue.
type Engine struct {
	Config
	views     atomic.Pointer[map[string]*watchcache.View] // by stored prefix
	ownership sync.Map                                    // endpoint → *patch.Ownership
}

// New makes an engine and has the cache serve every kind of the catalogue, now and
// after each change.
func New(c Config) *Engine {
	if c.Now == nil {
		c.Now = time.Now
	}
	e := &Engine{Config: c}
	e.serve(c.Catalog.Catalog().Stored(), nil)
	c.Catalog.Follow(e.follow)
	return e
}

// follow has the cache serve what a catalogue has more than the one before, and no longer what it has less.
func (e *Engine) follow(c *kind.Catalog, change kind.Change) {
	served := func(d *kind.Definition) bool { return c.Hub(d.GroupResource()) != nil }
	unserved := func(d *kind.Definition) bool { return c.Resource(d.Resource()) != d }
	e.serve(kind.Hubs(slices.DeleteFunc(slices.Clone(change.New), unserved)), slices.DeleteFunc(kind.Hubs(change.Gone), served))
	e.ownership.Range(func(at, _ any) bool { // of custom resources that changed or are gone
		if slices.Contains(change.Gone, at.(endpoint).definition) {
			e.ownership.Delete(at)
		}
		return true
	})
}

// serve has the cache serve the resources of hubs, and no longer those that are gone.
func (e *Engine) serve(hubs, gone []*kind.Definition) {
	views := map[string]*watchcache.View{}
	if before := e.views.Load(); before != nil {
		views = maps.Clone(*before)
	}
	for _, d := range hubs {
		view := views[d.Stored.Prefix]
		if view != nil && d.Prune != nil && !sameFields(view.Collection(), d) {
			e.Cache.Drop(view.Collection().Prefix)
			view = nil
		}
		if view == nil {
			view = e.Cache.Serve(codec.Collection(d, e.Prefix))
		}
		views[d.Stored.Prefix] = view
	}
	for _, d := range gone {
		delete(views, d.Stored.Prefix)
	}
	e.views.Store(&views)
	for _, d := range gone {
		e.Cache.Drop(e.Prefix + "/" + d.Stored.Prefix + "/")
	}
}

// sameFields reports whether a resource is kept with the selectable fields of its definition.
func sameFields(c *watchcache.Collection, d *kind.Definition) bool {
	return slices.EqualFunc(c.Fields, d.Fields, func(path string, f kind.Field) bool { return path == f.Path })
}

// View returns the cached resource of a definition, for rooms that follow it.
func (e *Engine) View(d *kind.Definition) *watchcache.View { return e.view(d) }

// view is nil when the kind has just been taken out of the catalogue.
func (e *Engine) view(d *kind.Definition) *watchcache.View {
	return (*e.views.Load())[d.Hub().Stored.Prefix]
}

// object returns an object's newest version.
func (e *Engine) object(d *kind.Definition, namespace, name string) (*watchcache.Version, bool) {
	if view := e.view(d); view != nil {
		return view.Get(object.Key(namespace, name))
	}
	return nil, false
}

// key is where an object of a definition is stored.
func (e *Engine) key(d *kind.Definition, namespace, name string) string {
	return e.Prefix + "/" + d.Hub().Stored.Prefix + "/" + object.Key(namespace, name)
}

// Call is one request as the verbs see it.
type Call struct {
	Definition      *kind.Definition
	Subresource     string
	Sub             *kind.Subresource // nil for the resource itself
	Namespace, Name string
	User            *user.Info
	Manager         string // field manager of a write that names none
	Strictness      codec.Strictness
	Trace           *trace.Record // may be nil

	applies  bool // it is server-side apply
	warnings []string
	// MayCreate reports whether the caller may create what an update or apply did not find.
	MayCreate func(ctx context.Context) error
}

// managerOr is the field manager of a write that names one, or does not.
func (c *Call) managerOr(named string) string {
	if named != "" {
		return named
	}
	return c.Manager
}

// Warn adds a text to the Warning headers of the answer.
func (c *Call) Warn(texts ...string) { c.warnings = append(c.warnings, texts...) }

// Warnings returns the texts in order, each once.
func (c *Call) Warnings() []string {
	seen := make(map[string]bool, len(c.warnings))
	out := c.warnings[:0:0]
	for _, w := range c.warnings {
		if !seen[w] {
			seen[w] = true
			out = append(out, w)
		}
	}
	return out
}

// Body is what a client sent.
type Body struct {
	Bytes []byte
	Media codec.Media
}

// Result is the answer to a write: the object as it is now, or a Status.
type Result struct {
	Item     codec.Item // Item.Object is nil when Status or Value is set
	Status   *metav1.Status
	Value    object.Object // what a Job or a virtual kind answers
	Created  bool          // 201
	Accepted bool          // 202
}
