package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// objectReader reads the ConfigMaps and Secrets a pod refers to. Errors are
// NotFound, errNotSynced, or what the API server answered.
type objectReader interface {
	configMap(namespace, name string) (*v1.ConfigMap, error)
	secret(namespace, name string) (*v1.Secret, error)
}

type objectKey struct {
	secret          bool
	namespace, name string
}

func (k objectKey) resource() schema.GroupResource {
	if k.secret {
		return v1.Resource("secret")
	}
	return v1.Resource("configmap")
}

// objectCache watches each ConfigMap and Secret that pods of this node refer
// to, one watch per object: the Node authorizer allows a node no more than
// that. A watch lives as long as some pod refers to the object; one of an
// immutable object ends with its first delivery.
type objectCache struct {
	client kubernetes.Interface
	ctx    context.Context

	mu struct {
		sync.Mutex
		entries map[objectKey]*objectEntry
		used    map[types.UID]map[objectKey]bool
	}
}

func newObjectCache(ctx context.Context, client kubernetes.Interface) *objectCache {
	c := &objectCache{client: client, ctx: ctx}
	c.mu.entries = map[objectKey]*objectEntry{}
	c.mu.used = map[types.UID]map[objectKey]bool{}
	return c
}

// refer declares all objects a pod refers to; wake is called, from any
// goroutine, whenever one of them was read or changed. An empty set releases.
func (c *objectCache) refer(uid types.UID, keys map[objectKey]bool, wake func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.mu.used[uid]
	for key := range before {
		if !keys[key] {
			entry := c.mu.entries[key]
			if entry.release(uid) {
				entry.cancel()
				delete(c.mu.entries, key)
			}
		}
	}
	for key := range keys {
		if before[key] {
			continue
		}
		entry := c.mu.entries[key]
		if entry == nil {
			entry = newObjectEntry(c.ctx, c.client, key)
			c.mu.entries[key] = entry
		}
		entry.retain(uid, wake)
	}
	if len(keys) == 0 {
		delete(c.mu.used, uid)
		return
	}
	c.mu.used[uid] = keys
}

func (c *objectCache) get(key objectKey) (runtime.Object, error) {
	c.mu.Lock()
	entry := c.mu.entries[key]
	c.mu.Unlock()
	if entry == nil {
		return nil, fmt.Errorf("%s %q is not referred to by any pod of this node", key.resource().Resource, key.name)
	}
	return entry.get()
}

func (c *objectCache) configMap(namespace, name string) (*v1.ConfigMap, error) {
	object, err := c.get(objectKey{false, namespace, name})
	if err != nil {
		return nil, err
	}
	return object.(*v1.ConfigMap), nil
}

func (c *objectCache) secret(namespace, name string) (*v1.Secret, error) {
	object, err := c.get(objectKey{true, namespace, name})
	if err != nil {
		return nil, err
	}
	return object.(*v1.Secret), nil
}

// isMissing tells an object that does not exist from one that was not read.
func isMissing(err error) bool { return apierrors.IsNotFound(err) }

// objectEntry is one watched object; it is the store of its reflector.
type objectEntry struct {
	key    objectKey
	cancel context.CancelFunc

	mu struct {
		sync.Mutex
		synced bool
		object runtime.Object // nil: does not exist
		err    error          // of the last list, while not synced
		wakes  map[types.UID]func()
	}
}

func newObjectEntry(ctx context.Context, client kubernetes.Interface, key objectKey) *objectEntry {
	ctx, cancel := context.WithCancel(ctx)
	e := &objectEntry{key: key, cancel: cancel}
	e.mu.wakes = map[types.UID]func(){}

	selector := fields.OneTermEqualSelector("metadata.name", key.name).String()
	source := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.FieldSelector = selector
			var list runtime.Object
			var err error
			if key.secret {
				list, err = client.CoreV1().Secrets(key.namespace).List(ctx, options)
			} else {
				list, err = client.CoreV1().ConfigMaps(key.namespace).List(ctx, options)
			}
			e.note(err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = selector
			var w watch.Interface
			var err error
			if key.secret {
				w, err = client.CoreV1().Secrets(key.namespace).Watch(ctx, options)
			} else {
				w, err = client.CoreV1().ConfigMaps(key.namespace).Watch(ctx, options)
			}
			e.note(err)
			return w, err
		},
	}
	var expected runtime.Object = &v1.ConfigMap{}
	if key.secret {
		expected = &v1.Secret{}
	}
	reflector := cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(source, client), expected, e, cache.ReflectorOptions{
		Name:            fmt.Sprintf("%s %s/%s", key.resource().Resource, key.namespace, key.name),
		MinWatchTimeout: objectWatchTimeout,
	})
	go reflector.RunWithContext(ctx)
	return e
}

// objectWatchTimeout is long: each pod holds several such watches.
const objectWatchTimeout = 30 * time.Minute

func (e *objectEntry) retain(uid types.UID, wake func()) {
	e.mu.Lock()
	e.mu.wakes[uid] = wake
	e.mu.Unlock()
}

// release forgets a pod and reports whether it was the last.
func (e *objectEntry) release(uid types.UID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.mu.wakes, uid)
	return len(e.mu.wakes) == 0
}

func (e *objectEntry) get() (runtime.Object, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.mu.object != nil:
		return e.mu.object, nil
	case e.mu.synced:
		return nil, apierrors.NewNotFound(e.key.resource(), e.key.name)
	case e.mu.err != nil:
		return nil, fmt.Errorf("read %s %s/%s: %w", e.key.resource().Resource, e.key.namespace, e.key.name, e.mu.err)
	}
	return nil, errNotSynced
}

func (e *objectEntry) set(synced bool, object runtime.Object, err error) {
	e.mu.Lock()
	e.mu.synced, e.mu.object, e.mu.err = synced, object, err
	wakes := make([]func(), 0, len(e.mu.wakes))
	for _, wake := range e.mu.wakes {
		wakes = append(wakes, wake)
	}
	e.mu.Unlock()
	for _, wake := range wakes {
		wake()
	}
	if immutable(object) {
		e.cancel()
	}
}

// note records why the object cannot be read; what was read before stays.
func (e *objectEntry) note(err error) {
	if err == nil {
		return
	}
	e.mu.Lock()
	synced := e.mu.synced
	e.mu.Unlock()
	if !synced {
		e.set(false, nil, err)
	}
}

func immutable(object runtime.Object) bool {
	switch o := object.(type) {
	case *v1.ConfigMap:
		return isTrue(o.Immutable)
	case *v1.Secret:
		return isTrue(o.Immutable)
	}
	return false
}

func (e *objectEntry) mine(object any) (runtime.Object, bool) {
	switch o := object.(type) {
	case *v1.ConfigMap:
		return o, o.Name == e.key.name && o.Namespace == e.key.namespace
	case *v1.Secret:
		return o, o.Name == e.key.name && o.Namespace == e.key.namespace
	}
	return nil, false
}

// Add, Update, Delete, Replace and Resync make the entry a cache.ReflectorStore.
func (e *objectEntry) Add(object any) error {
	if o, ok := e.mine(object); ok {
		e.set(true, o, nil)
	}
	return nil
}

func (e *objectEntry) Update(object any) error { return e.Add(object) }

func (e *objectEntry) Delete(object any) error {
	if _, ok := e.mine(object); ok {
		e.set(true, nil, nil)
	}
	return nil
}

func (e *objectEntry) Replace(list []any, _ string) error {
	for _, object := range list {
		if o, ok := e.mine(object); ok {
			e.set(true, o, nil)
			return nil
		}
	}
	e.set(true, nil, nil)
	return nil
}

func (e *objectEntry) Resync() error { return nil }

// objectsOf are the ConfigMaps and Secrets a pod refers to.
func objectsOf(pod *v1.Pod) map[objectKey]bool {
	keys := map[objectKey]bool{}
	configMap := func(name string) {
		if name != "" {
			keys[objectKey{false, pod.Namespace, name}] = true
		}
	}
	secret := func(name string) {
		if name != "" {
			keys[objectKey{true, pod.Namespace, name}] = true
		}
	}
	for _, ref := range pod.Spec.ImagePullSecrets {
		secret(ref.Name)
	}
	everyContainer(pod, func(_ kindOf, c *v1.Container) {
		for _, from := range c.EnvFrom {
			if from.ConfigMapRef != nil {
				configMap(from.ConfigMapRef.Name)
			}
			if from.SecretRef != nil {
				secret(from.SecretRef.Name)
			}
		}
		for _, env := range c.Env {
			if env.ValueFrom == nil {
				continue
			}
			if ref := env.ValueFrom.ConfigMapKeyRef; ref != nil {
				configMap(ref.Name)
			}
			if ref := env.ValueFrom.SecretKeyRef; ref != nil {
				secret(ref.Name)
			}
		}
	})
	for _, volume := range pod.Spec.Volumes {
		if source := volume.ConfigMap; source != nil {
			configMap(source.Name)
		}
		if source := volume.Secret; source != nil {
			secret(source.SecretName)
		}
		if volume.Projected == nil {
			continue
		}
		for _, source := range volume.Projected.Sources {
			if source.ConfigMap != nil {
				configMap(source.ConfigMap.Name)
			}
			if source.Secret != nil {
				secret(source.Secret.Name)
			}
		}
	}
	return keys
}
