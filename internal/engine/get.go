package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/watchcache"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// freshnessWait is how long a read waits for the cache to reach the revision that
// it must show.
const freshnessWait = 3 * time.Second

// Get returns the newest object, or with a resourceVersion one at least as new
// ("0": as it is at hand).
func (e *Engine) Get(ctx context.Context, c *Call, options metav1.GetOptions) (codec.Item, error) {
	item := codec.Item{Definition: c.Definition}
	if c.Definition.VirtualList != nil {
		objects, err := c.Definition.VirtualList(ctx)
		if err != nil {
			return item, err
		}
		for _, item.Object = range objects {
			if item.Object.GetName() == c.Name {
				return item, nil
			}
		}
		return item, e.notFound(c.Definition, c.Name)
	}
	at, err := codec.ParseRevision(options.ResourceVersion)
	if err != nil {
		return item, fmt.Errorf("%w", field.Invalid(field.NewPath("resourceVersion"), options.ResourceVersion, err.Error()))
	}
	view, err := e.loaded(ctx, c.Definition)
	if err != nil {
		return item, err
	}
	if view == nil {
		return item, e.notFound(c.Definition, c.Name)
	}
	if err := e.wait(ctx, options.ResourceVersion, storage.Revision(at)); err != nil {
		return item, err
	}
	v, ok := view.Get(object.Key(c.Namespace, c.Name))
	if !ok {
		return item, e.notFound(c.Definition, c.Name)
	}
	if v.Err != nil {
		return item, unreadable(e.key(c.Definition, c.Namespace, c.Name), v.Err)
	}
	item.Version = v
	c.sawRevision(v.Revision)
	return item, nil
}

// wait makes sure that the cache shows what a read with this resourceVersion
// must see.
func (e *Engine) wait(ctx context.Context, text string, at storage.Revision) error {
	if text == "0" || text == "" && e.Cache.IsFresh(ctx) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, freshnessWait)
	defer cancel()
	if text == "" {
		if _, err := e.Cache.Fresh(ctx); err != nil {
			return e.storageError(err, nil, "")
		}
		return nil
	}
	if at <= e.Cache.Revision() {
		return nil
	}
	if err := e.Cache.Wait(ctx, at); err != nil {
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, storage.ErrFuture) {
			return tooLargeVersion(at, e.Cache.Revision())
		}
		return e.storageError(err, nil, "")
	}
	return nil
}

// loaded waits until the objects of a kind that has just been defined, or changed, have been read from the store, and returns their
// view; nil if the kind is gone. Nothing may be said of them before, least of all that they are not there.
func (e *Engine) loaded(ctx context.Context, d *kind.Definition) (*watchcache.View, error) {
	for began := time.Now(); ; {
		view := e.view(d)
		if view == nil {
			return nil, nil
		}
		if !view.Dropped() {
			select {
			case <-view.Ready():
				return view, nil
			default:
			}
		}
		if time.Since(began) > freshnessWait {
			return nil, late(context.DeadlineExceeded)
		}
		select {
		case <-time.After(loadedAgain):
		case <-ctx.Done():
			return nil, late(ctx.Err())
		}
	}
}

// loadedAgain is when it is looked again whether a view is loaded, or another has taken its place.
const loadedAgain = 2 * time.Millisecond

// keep makes sure that the cache shows what this server has answered about a kind. It asks nobody, and seldom waits: for the moment that
// a change needs to come back from the store.
func (e *Engine) keep(ctx context.Context, view *watchcache.View) error {
	promised := view.Promised()
	if promised <= e.Cache.Revision() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, freshnessWait)
	defer cancel()
	return e.storageError(e.Cache.Wait(ctx, promised), nil, "")
}

// commit makes a transaction about an object of a kind. Whoever learns of it can rely on keep.
func (e *Engine) commit(ctx context.Context, d *kind.Definition, txn storage.Txn) (storage.Revision, error) {
	revision, err := e.Store.Commit(ctx, txn)
	if view := e.view(d); err == nil && view != nil {
		view.Promise(revision)
	}
	return revision, err
}

// current returns the object as it is now in the hub's form, and the version that it was read
// from: for a write. NotFound if there is none.
func (e *Engine) current(ctx context.Context, d *kind.Definition, namespace, name string, fresh bool) (object.Object, *watchcache.Version, error) {
	view := e.view(d)
	if fresh {
		var err error
		if view, err = e.loaded(ctx, d); err != nil {
			return nil, nil, err
		}
		if err := e.wait(ctx, "", 0); err != nil {
			return nil, nil, err
		}
	}
	if view == nil {
		return nil, nil, e.notFound(d, name)
	}
	v, ok := view.Get(object.Key(namespace, name))
	if !ok {
		return nil, nil, e.notFound(d, name)
	}
	obj, err := codec.DecodeVersion(d.Hub(), v)
	if err != nil {
		return nil, nil, unreadable(e.key(d, namespace, name), err)
	}
	return obj, v, nil
}

func (e *Engine) notFound(d *kind.Definition, name string) error {
	return apierrors.NewNotFound(d.GroupResource(), name)
}

func (c *Call) sawRevision(r storage.Revision) {
	if c.Trace != nil {
		c.Trace.Revision = int64(r)
	}
}

// Fresh returns when the cache shows everything that was committed before the call.
func (e *Engine) Fresh(ctx context.Context) error { return e.wait(ctx, "", 0) }
