package authn

import (
	"context"
	"sync"
	"time"

	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Index is the ServiceAccounts that a server uses: it remembers uid and deletion time of service accounts,
// pods and nodes, so that a token's use decodes nothing. It has the methods of authz.Feed and is kept up to
// date in the same way.
//
// What it has not heard of it looks up in the objects themselves: a token may be used before the news of its service account has
// come here. So news of a removal must come, news of a creation may be late.
type Index struct {
	behind ServiceAccounts
	mu     struct {
		sync.RWMutex
		known map[boundKey]boundState
	}
}

type boundKey struct{ resource, namespace, name string }

type boundState struct {
	uid     string
	deleted time.Time
}

// NewIndex returns an index that knows nothing yet; behind is asked about what it does not know.
func NewIndex(behind ServiceAccounts) *Index {
	i := &Index{behind: behind}
	i.mu.known = map[boundKey]boundState{}
	return i
}

// Bound implements ServiceAccounts.
func (i *Index) Bound(ctx context.Context, resource schema.GroupResource, namespace, name string) (string, time.Time, error) {
	i.mu.RLock()
	state, ok := i.mu.known[boundKey{resource.Resource, namespace, name}]
	i.mu.RUnlock()
	if ok {
		return state.uid, state.deleted, nil
	}
	return i.behind.Bound(ctx, resource, namespace, name)
}

// keyed returns the place and state of an object that the index keeps.
func keyed(obj object.Object) (boundKey, boundState, bool) {
	key := boundKey{namespace: obj.GetNamespace(), name: obj.GetName()}
	switch obj.(type) {
	case *corev1.ServiceAccount:
		key.resource = serviceAccounts.Resource
	case *corev1.Pod:
		key.resource = pods.Resource
	case *corev1.Node:
		key.resource = nodes.Resource
	default:
		return key, boundState{}, false
	}
	state := boundState{uid: string(obj.GetUID())}
	if t := obj.GetDeletionTimestamp(); t != nil {
		state.deleted = t.Time
	}
	return key, state, true
}

// Reset replaces all that is known by the objects.
func (i *Index) Reset(objects []object.Object) {
	known := make(map[boundKey]boundState, len(objects))
	for _, obj := range objects {
		if key, state, ok := keyed(obj); ok {
			known[key] = state
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.mu.known = known
}

// Upsert notes an object that was made or changed.
func (i *Index) Upsert(obj object.Object) {
	key, state, ok := keyed(obj)
	if !ok {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.mu.known[key] = state
}

// Remove notes an object that is gone.
func (i *Index) Remove(obj object.Object) {
	key, _, ok := keyed(obj)
	if !ok {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.mu.known, key)
}
