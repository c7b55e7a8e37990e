package engine

import (
	"context"
	"errors"
	"strconv"

	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/watchcache"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Watch is a running watch: first what is there already, then every change.
type Watch struct {
	// Initial are the objects that the watch begins with, as ADDED events, at
	// revision InitialRevision. End asks for the bookmark behind them.
	Initial         []codec.Item
	InitialRevision storage.Revision
	End             bool

	Watcher *watchcache.Watcher
}

// Watch begins to follow a resource. When the start is no longer known the error is
// 410 Expired; the caller sends it as an event.
func (e *Engine) Watch(ctx context.Context, c *Call, options metav1.ListOptions) (*Watch, error) {
	query, err := e.query(c, options)
	if err != nil {
		return nil, err
	}
	query.Limit = 0
	at, err := strconv.ParseUint(orZero(options.ResourceVersion), 10, 63)
	if err != nil {
		return nil, plain("%v", field.Invalid(field.NewPath("resourceVersion"), options.ResourceVersion, err.Error()))
	}
	view, err := e.loaded(ctx, c.Definition)
	if err != nil {
		return nil, err
	}
	if view == nil {
		return nil, e.notFound(c.Definition, "")
	}
	initial := at == 0
	if options.SendInitialEvents != nil {
		initial = *options.SendInitialEvents
	}
	switch {
	case initial && (options.ResourceVersion == "0" || options.SendInitialEvents == nil && options.ResourceVersion == "0"):
		// whatever is at hand
	case initial || at == 0:
		if err := e.wait(ctx, options.ResourceVersion, storage.Revision(at)); err != nil {
			return nil, err
		}
	}
	w := &Watch{}
	from := storage.Revision(at)
	if initial || at == 0 {
		snapshot := view.Latest()
		from = snapshot.Revision()
		if initial {
			w.InitialRevision = from
			for _, v := range snapshot.List(query).Versions {
				w.Initial = append(w.Initial, codec.Item{Definition: c.Definition, Version: v})
			}
			w.End = options.AllowWatchBookmarks && options.SendInitialEvents != nil
		}
	}
	w.Watcher, err = view.Watch(query, from)
	if errors.Is(err, watchcache.ErrExpired) {
		return nil, apierrors.NewResourceExpired("too old resource version: " + err.Error())
	}
	if err != nil {
		return nil, e.storageError(err, c.Definition, "")
	}
	return w, nil
}

func orZero(text string) string {
	if text == "" {
		return "0"
	}
	return text
}
