package watchcache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/timonel/timonel/internal/storage"
)

// Reread reads values again that did not transform back (storage.ErrTransform): what it takes to read them may
// be at hand by now. Watchers of a resource in which that succeeds expire, because a version that they had as an error, or not
// at all, is now an object. It costs a look at each object, and reads only resources with such values.
func (c *Cache) Reread(ctx context.Context) error {
	for _, v := range *c.views.Load() {
		if v.untransformed() {
			if err := v.reread(ctx); err != nil {
				return fmt.Errorf("read %s again: %w", v.collection.Prefix, err)
			}
		}
	}
	return nil
}

// untransformed reports whether there is a value that did not transform back.
func (v *View) untransformed() (found bool) {
	v.current.Load().objects.ascend("", "", false, func(o *Version) bool {
		found = errors.Is(o.Err, storage.ErrTransform)
		return !found
	})
	return found
}

// reread lists what is stored and puts right what did not transform back.
func (v *View) reread(ctx context.Context) error {
	var candidates []storage.Entry
	_, err := v.cache.list(ctx, v.collection.Prefix, func(entries []storage.Entry) {
		for _, e := range entries {
			if o, ok := v.Get(strings.TrimPrefix(e.Key, v.collection.Prefix)); ok && errors.Is(o.Err, storage.ErrTransform) && e.Err == nil {
				candidates = append(candidates, e)
			}
		}
	})
	if err != nil {
		return err
	}
	v.readable(candidates)
	return nil
}

// readable puts entries in the place of versions that were made of the same writes and did not transform back.
func (v *View) readable(entries []storage.Entry) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.epoch++
	e := v.current.Load().begin(&v.collection, v.mu.epoch)
	changed := false
	for i := range entries {
		key := strings.TrimPrefix(entries[i].Key, v.collection.Prefix)
		prev := e.objects.get("", key)
		if prev == nil || prev.Revision != entries[i].Modified || !errors.Is(prev.Err, storage.ErrTransform) {
			continue // it was written meanwhile, and the feed brought it or will
		}
		e.replace(prev, v.collection.version(&entries[i], key, prev))
		changed = true
	}
	if !changed {
		return
	}
	v.replaceLocked(&e.state, max(e.revision, v.cache.Revision()))
	v.cache.trimLater(v, time.Now())
}
