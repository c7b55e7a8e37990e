// Package watchcache keeps every resource, with its recent history, in memory and
// serves gets, lists and watches of it at exact revisions.
//
// One watch on the store over the whole prefix feeds all resources in the order of revisions, so a
// single number, Cache.Revision, says how fresh everything is.
//
// Promises:
//   - A Snapshot shows exactly the objects at its revision. A Watch after that revision tells
//     every later change once, in order, without a gap, or ends with ErrExpired.
//   - After Wait(r), or after a read that showed r, nothing older than r is shown.
//   - After Fresh, everything is visible that was committed before it was called.
//   - A slow watcher delays nobody. Readers take no lock.
//   - A value that does not decode is kept and listed as an error; it blocks nothing.
//
// Does not know: kinds, HTTP, users. It decodes through the function it is given.
//
// Memory: the blobs, about 0.5 KB per object besides, and of the history what was
// replaced in the last 75 seconds.
//
// Locks: View.mu (who changes a view), then wakers.mu. Start reading at feed.go, then view.go.
package watchcache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/timonel/timonel/internal/storage"
)

var (
	ErrExpired = errors.New("revision is no longer in the watch cache") // API: 410
	ErrFuture  = errors.New("revision is not in the watch cache yet")   // API: 504, too large resource version
	ErrDropped = errors.New("resource is no longer served")
)

// Options are the cache's figures; zero values stand for the defaults.
type Options struct {
	History time.Duration // events younger than this are kept, within bounds; DefaultHistory
	Log     *slog.Logger  // slog.Default()
}

// DefaultHistory is 75 s: a client that lost its watch has a minute to come back.
const DefaultHistory = 75 * time.Second

// Cache is all resources under a prefix of a store.
type Cache struct {
	store   storage.Store
	prefix  string
	options Options
	local   bool // the store's Now costs nothing

	revision atomic.Int64
	views    atomic.Pointer[map[string]*View] // by the collection's prefix; replaced, never changed
	ready    chan struct{}
	waiters  waiters
	fresh    fresh

	mu struct {
		sync.Mutex
		running context.Context // of Run; nil before
		trimmer *time.Timer     // when something in a history gets too old; nil: never
		trims   map[*View]struct{}
	}
}

// New returns a cache of what the store has under the prefix, which ends with a slash. It touches nothing.
func New(store storage.Store, prefix string, options Options) *Cache {
	if options.History == 0 {
		options.History = DefaultHistory
	}
	if options.Log == nil {
		options.Log = slog.Default()
	}
	c := &Cache{store: store, prefix: prefix, options: options, ready: make(chan struct{})}
	c.views.Store(&map[string]*View{})
	c.waiters.progress = c.askProgress
	c.fresh.ask = store.Now
	if l, ok := store.(interface{ Local() bool }); ok {
		c.local = l.Local()
	}
	c.mu.trims = make(map[*View]struct{})
	return c
}

// Serve adds a resource. Before Run it is loaded with the others; later it is loaded
// at once, beside the feed, and then joins it. View.Ready tells when.
func (c *Cache) Serve(collection Collection) *View {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := *c.views.Load()
	if old[collection.Prefix] != nil {
		panic(fmt.Sprintf("watchcache: %s is served already", collection.Prefix))
	}
	v := newView(c, collection)
	views := maps.Clone(old)
	views[collection.Prefix] = v
	c.views.Store(&views)
	if ctx := c.mu.running; ctx != nil {
		go c.join(ctx, v)
	}
	return v
}

// Drop removes a resource; its watchers get ErrDropped.
func (c *Cache) Drop(prefix string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := *c.views.Load()
	v := old[prefix]
	if v == nil {
		return
	}
	views := maps.Clone(old)
	delete(views, prefix)
	c.views.Store(&views)
	delete(c.mu.trims, v)
	v.dropped.Store(true)
	v.wakers.wakeAll()
}

// Ready returns a channel that is closed when everything served before Run has been loaded.
func (c *Cache) Ready() <-chan struct{} { return c.ready }

// Revision returns the revision up to which everything is visible.
func (c *Cache) Revision() storage.Revision { return storage.Revision(c.revision.Load()) }

// advance makes the revision that of the cache, when all views have it.
func (c *Cache) advance(to storage.Revision) {
	if to <= c.Revision() {
		return
	}
	c.revision.Store(int64(to))
	c.waiters.reached(to)
}

// view returns the view that has the key, or nil.
func (c *Cache) view(views map[string]*View, key string) *View {
	for i := len(c.prefix); i < len(key); i++ {
		if key[i] == '/' {
			if v := views[key[:i+1]]; v != nil {
				return v
			}
		}
	}
	return nil
}

// trimLater sees to it that the view's history is trimmed when its oldest events are out of the window.
func (c *Cache) trimLater(v *View, now time.Time) {
	again := v.trimLocked(now)
	if again.IsZero() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trimAtLocked(v, again.Sub(now))
}

func (c *Cache) trimAtLocked(v *View, in time.Duration) {
	c.mu.trims[v] = struct{}{}
	if c.mu.trimmer == nil {
		c.mu.trimmer = time.AfterFunc(max(in, c.options.History/8), c.trim)
	}
}

// trim trims the histories that were noted. It runs only while there is something to forget.
func (c *Cache) trim() {
	c.mu.Lock()
	views := slices.Collect(maps.Keys(c.mu.trims))
	clear(c.mu.trims)
	c.mu.trimmer = nil
	c.mu.Unlock()

	now := time.Now()
	for _, v := range views {
		if again := v.trim(now); !again.IsZero() && !v.dropped.Load() {
			c.mu.Lock()
			c.trimAtLocked(v, again.Sub(now))
			c.mu.Unlock()
		}
	}
}
