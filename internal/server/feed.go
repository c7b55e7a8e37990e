package server

import (
	"context"
	"errors"
	"log/slog"

	"github.com/timonel/timonel/internal/authz"
	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage/watchcache"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// feed keeps a picture of some resources up to date in something that has been compiled from them
// (an authorizer), by following them in the watch cache.
type feed struct {
	resource schema.GroupResource
	into     authz.Feed
}

// follower is a resource's way from the cache into a feed.
type follower struct {
	definition *kind.Definition
	view       *watchcache.View
	into       authz.Feed
	log        *slog.Logger
}

// load hands over what is there now and returns a watcher for what comes.
func (f *follower) load() (*watchcache.Watcher, error) {
	for {
		snapshot := f.view.Latest()
		for _, v := range snapshot.List(watchcache.Query{}).Versions {
			if obj := f.decode(v); obj != nil {
				f.into.Upsert(obj)
			}
		}
		w, err := f.view.Watch(watchcache.Query{}, snapshot.Revision())
		if !errors.Is(err, watchcache.ErrExpired) {
			return w, err
		}
	}
}

// run follows the resource until ctx is done.
func (f *follower) run(ctx context.Context, w *watchcache.Watcher) error {
	for {
		batch, err := w.Next(ctx)
		switch {
		case err == nil:
			for _, e := range batch.Events {
				obj := f.decode(e.Version)
				switch {
				case obj == nil:
				case e.Type == watchcache.Deleted:
					f.into.Remove(obj)
				default:
					f.into.Upsert(obj)
				}
			}
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

func (f *follower) decode(v *watchcache.Version) object.Object {
	obj, err := codec.DecodeVersion(f.definition, v)
	if err != nil {
		f.log.Error("an object does not decode; it grants nothing", "kind", f.definition.Kind, "namespace", v.Namespace, "name", v.Name, "error", err)
		return nil
	}
	return obj
}
