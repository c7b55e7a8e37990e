package server

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/timonel/timonel/internal/authn"
	"github.com/timonel/timonel/internal/authz"
	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage/watchcache"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// feeds are what has been compiled from resources (authorizers, indexes) and is kept up to date by
// following them in the watch cache: each resource once, whatever the number of followers.
type feeds map[schema.GroupResource]*feed

type feed struct {
	definition *kind.Definition
	view       *watchcache.View
	into       []authz.Feed
	progress   watchcache.Progress
}

// addFeed has what is compiled follow resources, those that are served.
func (s *Server) addFeed(into authz.Feed, resources ...schema.GroupResource) abreast {
	var all abreast
	for _, r := range resources {
		d := s.Catalog.Catalog().Hub(r)
		if d == nil {
			continue
		}
		if s.feeds[r] == nil {
			s.feeds[r] = &feed{definition: d, view: s.Engine.View(d)}
		}
		s.feeds[r].into = append(s.feeds[r].into, into)
		all = append(all, s.feeds[r])
	}
	return all
}

// abreast are the feeds of something that is to know what clients may know.
type abreast []*feed

// wait returns when the feeds have begun, and have what clients may know. A question that had to wait too long gets the answer that there is.
func (a abreast) wait(ctx context.Context) {
	for _, f := range a {
		_ = f.progress.Abreast(ctx, f.view)
	}
}

// abreastRBAC decides by the roles and bindings that this server has answered.
type abreastRBAC struct {
	*authz.RBAC
	abreast
}

func (a abreastRBAC) Authorize(ctx context.Context, attributes *authz.Attributes) (authz.Decision, string, error) {
	a.wait(ctx)
	return a.RBAC.Authorize(ctx, attributes)
}

// abreastNode refuses nothing to a node because of a pod that the node has heard of sooner. Pods change all the time, so only
// refusals wait.
type abreastNode struct {
	*authz.Node
	abreast
}

func (a abreastNode) Authorize(ctx context.Context, attributes *authz.Attributes) (authz.Decision, string, error) {
	decision, reason, err := a.Node.Authorize(ctx, attributes)
	if _, isNode := attributes.User.Node(); !isNode || decision == authz.Allow {
		return decision, reason, err
	}
	a.wait(ctx)
	return a.Node.Authorize(ctx, attributes)
}

// abreastAccounts knows the service accounts that this server has answered.
type abreastAccounts struct {
	*authn.Index
	abreast
}

func (a abreastAccounts) Bound(ctx context.Context, resource schema.GroupResource, namespace, name string) (string, time.Time, error) {
	if resource == serviceAccountsResource {
		a.wait(ctx)
	}
	return a.Index.Bound(ctx, resource, namespace, name)
}

// lookedAt are the fields that feeds look at, of kinds with many objects: nothing else of them is decoded, and a change of anything else is none.
// TestFeedsSeeAll tells when one is missing.
var lookedAt = map[schema.GroupResource][]string{
	podsResource: {
		"metadata.name", "metadata.namespace", "metadata.uid", "metadata.deletionTimestamp", "metadata.annotations",
		"spec.nodeName", "spec.serviceAccountName", "spec.imagePullSecrets", "spec.volumes", "spec.resourceClaims",
		"spec.containers.env", "spec.containers.envFrom", "spec.initContainers.env", "spec.initContainers.envFrom", "spec.ephemeralContainers",
		"status.resourceClaimStatuses", "status.extendedResourceClaimStatus",
	},
	nodesResource: {"metadata.name", "metadata.namespace", "metadata.uid", "metadata.deletionTimestamp"},
}

// follower is a resource's way from the cache to its feed.
type follower struct {
	*feed
	part  *codec.Part                    // of its objects: what feeds look at
	known map[string]*watchcache.Version // what has been handed over, so that it can be taken back
	log   *slog.Logger
}

func newFollower(f *feed, log *slog.Logger) (*follower, error) {
	part, err := partFor(f.definition)
	return &follower{feed: f, part: part, log: log}, err
}

// partFor is the part of a kind's objects that feeds get.
func partFor(d *kind.Definition) (*codec.Part, error) {
	if paths := lookedAt[d.GroupResource()]; paths != nil {
		return codec.Only(d, paths...)
	}
	return codec.Without(d, "metadata.managedFields", "metadata.resourceVersion", "metadata.generation")
}

// load hands over what is there now, takes back what is no longer, and returns a watcher for what comes.
func (f *follower) load() (*watchcache.Watcher, error) {
	for {
		snapshot := f.view.Latest()
		gone := f.known
		f.known = make(map[string]*watchcache.Version, len(gone))
		for _, v := range snapshot.List(watchcache.Query{}).Versions {
			delete(gone, v.Key())
			f.see(v)
		}
		for _, v := range gone {
			if obj := f.decode(v); obj != nil {
				f.remove(obj)
			}
		}
		f.progress.Reach(snapshot.Revision())
		w, err := f.view.Watch(watchcache.Query{}, snapshot.Revision())
		if !errors.Is(err, watchcache.ErrExpired) {
			return w, err
		}
	}
}

func (f *follower) see(v *watchcache.Version) {
	before := f.known[v.Key()]
	f.known[v.Key()] = v
	if before != nil && f.part.Same(before, v) {
		return
	}
	if obj := f.decode(v); obj != nil {
		f.upsert(obj)
	}
}

// run follows the resource until ctx is done.
func (f *follower) run(ctx context.Context, w *watchcache.Watcher) error {
	for {
		batch, err := w.Next(ctx)
		switch {
		case err == nil:
			for _, e := range batch.Events {
				if e.Type != watchcache.Deleted {
					f.see(e.Version)
					continue
				}
				delete(f.known, e.Version.Key())
				if obj := f.decode(e.Version); obj != nil {
					f.remove(obj)
				}
			}
			f.progress.Reach(batch.Revision)
		case ctx.Err() != nil:
			w.Close()
			return nil
		default: // fell behind: begin again
			w.Close()
			if w, err = f.load(); err != nil {
				return err
			}
		}
	}
}

func (f *follower) upsert(obj object.Object) {
	for _, into := range f.into {
		into.Upsert(obj)
	}
}

func (f *follower) remove(obj object.Object) {
	for _, into := range f.into {
		into.Remove(obj)
	}
}

func (f *follower) decode(v *watchcache.Version) object.Object {
	obj, err := f.part.Decode(v)
	if err != nil {
		f.log.Error("an object does not decode; it grants nothing", "kind", f.definition.Kind, "namespace", v.Namespace, "name", v.Name, "error", err)
		return nil
	}
	return obj
}
