package watchcache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/timonel/timonel/internal/storage"
)

const (
	loadPage   = 2000 // entries asked for at once when loading
	retryFirst = 50 * time.Millisecond
	retryMost  = 5 * time.Second
)

// Run loads everything and then follows the store until ctx ends, whose error it returns.
// Whatever else goes wrong is retried: a lost watch continues where it was; when the store has
// compacted that away, everything is loaded anew, and watchers expire.
func (c *Cache) Run(ctx context.Context) error {
	c.mu.Lock()
	if c.mu.running != nil {
		c.mu.Unlock()
		return errors.New("watchcache: Run was called before")
	}
	c.mu.running = ctx
	views := *c.views.Load()
	c.mu.Unlock()

	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.mu.trimmer != nil {
			c.mu.trimmer.Stop()
		}
	}()

	retry := retryFirst
	for loaded := false; ctx.Err() == nil; {
		var err error
		if !loaded {
			err = c.load(ctx, views)
			loaded = err == nil
		}
		if loaded {
			started := time.Now()
			err = c.store.Watch(ctx, c.prefix, c.Revision(), func(b storage.Batch) error {
				c.feed(b)
				return nil
			})
			if errors.Is(err, storage.ErrCompacted) {
				loaded, views = false, *c.views.Load() // watchers expire
			}
			if time.Since(started) > retryMost {
				retry = retryFirst
			}
		}
		if ctx.Err() != nil {
			break
		}
		c.options.Log.Warn("watch cache: retrying", "in", retry, "err", err)
		if !pause(ctx, retry) {
			break
		}
		retry = min(2*retry, retryMost)
	}
	return ctx.Err()
}

// pause waits about as long, and says false if ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d/2 + rand.N(d/2+1)):
		return true
	}
}

// load fills the views with what the store has now.
func (c *Cache) load(ctx context.Context, views map[string]*View) error {
	versions := make(map[*View][]*Version, len(views))
	revision, err := c.list(ctx, c.prefix, func(entries []storage.Entry) {
		for len(entries) > 0 {
			// A run of entries of one view is described together.
			v := c.view(views, entries[0].Key)
			n := 1
			for n < len(entries) && (v == nil || strings.HasPrefix(entries[n].Key, v.collection.Prefix)) && c.view(views, entries[n].Key) == v {
				n++
			}
			if v != nil {
				versions[v] = append(versions[v], v.describe(entries[:n])...)
			}
			entries = entries[n:]
		}
	})
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	now := time.Now()
	for _, v := range views {
		for !v.install(versions[v], revision, false, now) {
			// It was about to join by itself and lost changes; those are older than the list.
		}
	}
	c.advance(revision)
	select {
	case <-c.ready:
	default:
		close(c.ready)
	}
	return nil
}

// list calls do with the entries under the prefix, page by page, all as of the
// revision that it returns. The cache's own revision is not after it.
func (c *Cache) list(ctx context.Context, prefix string, do func([]storage.Entry)) (storage.Revision, error) {
	opts := storage.ListOptions{Limit: loadPage}
	for {
		page, err := c.store.List(ctx, prefix, opts)
		if err != nil {
			return 0, err
		}
		do(page.Entries)
		if !page.More {
			return page.Revision, nil
		}
		opts.At = page.Revision
		opts.After = page.Entries[len(page.Entries)-1].Key
	}
}

// describe makes versions of entries, on all processors if there are many.
func (v *View) describe(entries []storage.Entry) []*Version {
	versions := make([]*Version, len(entries))
	do := func(from, to int) {
		for i := from; i < to; i++ {
			e := &entries[i]
			versions[i] = v.collection.version(e, e.Key[len(v.collection.Prefix):], nil)
		}
	}
	const worthwhile = 64
	parts := min(runtime.GOMAXPROCS(0), len(entries)/worthwhile)
	if parts < 2 {
		do(0, len(entries))
		return versions
	}
	var wg sync.WaitGroup
	for p := range parts {
		wg.Go(func() { do(len(entries)*p/parts, len(entries)*(p+1)/parts) })
	}
	wg.Wait()
	return versions
}

// feed makes a batch of the store's changes visible.
func (c *Cache) feed(b storage.Batch) {
	if len(b.Changes) > 0 {
		views := *c.views.Load()
		now := time.Now()
		// Views come in the order of their first change; a view gets all its changes at once.
		var order []*View
		var one *View
		single := true
		for i := range b.Changes {
			v := c.view(views, b.Changes[i].Key)
			if i == 0 {
				one = v
			} else if v != one {
				single = false
				break
			}
		}
		if single {
			if one != nil {
				one.apply(b.Changes, now)
			}
		} else {
			parts := make(map[*View][]storage.Change)
			for _, change := range b.Changes {
				v := c.view(views, change.Key)
				if v == nil {
					continue
				}
				if parts[v] == nil {
					order = append(order, v)
				}
				parts[v] = append(parts[v], change)
			}
			for _, v := range order {
				v.apply(parts[v], now)
			}
		}
	}
	c.advance(b.Revision)
}

// join loads a view that came after Run began. Changes that the feed brings meanwhile wait in the view.
func (c *Cache) join(ctx context.Context, v *View) {
	for retry := retryFirst; ctx.Err() == nil && !v.dropped.Load(); retry = min(2*retry, retryMost) {
		var versions []*Version
		revision, err := c.list(ctx, v.collection.Prefix, func(entries []storage.Entry) {
			versions = append(versions, v.describe(entries)...)
		})
		if err == nil {
			if v.install(versions, revision, true, time.Now()) {
				return
			}
			err = errors.New("too much changed meanwhile")
		}
		if ctx.Err() != nil {
			return
		}
		c.options.Log.Warn("watch cache: retrying to load", "prefix", v.collection.Prefix, "in", retry, "err", err)
		if !pause(ctx, retry) {
			return
		}
	}
}
