package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// owner is the controller of objects: it owns those that refer to it, adopts those that its selector
// matches and that nobody owns, and releases its own that the selector no longer matches.
type owner struct {
	meta     metav1.Object
	kind     schema.GroupVersionKind
	selector labels.Selector
	// finalizer is put on what is adopted and taken off what is released; may be empty.
	finalizer string
	// live reads the owner from the server: only one that is there and stays may adopt.
	live func(ctx context.Context) (metav1.Object, error)
}

func (o *owner) ref() *metav1.OwnerReference { return metav1.NewControllerRef(o.meta, o.kind) }

// mayAdopt asks the server.
func (o *owner) mayAdopt(ctx context.Context) error {
	fresh, err := o.live(ctx)
	switch {
	case err != nil:
		return err
	case fresh.GetUID() != o.meta.GetUID():
		return fmt.Errorf("original %s %s/%s is gone: got uid %s, wanted %s", o.kind.Kind, o.meta.GetNamespace(), o.meta.GetName(), fresh.GetUID(), o.meta.GetUID())
	case fresh.GetDeletionTimestamp() != nil:
		return fmt.Errorf("%s %s/%s has just been deleted at %s", o.kind.Kind, o.meta.GetNamespace(), o.meta.GetName(), fresh.GetDeletionTimestamp())
	}
	return nil
}

// claim returns which of the objects are the owner's, after adopting and releasing by patch.
func claim[T metav1.Object](ctx context.Context, o *owner, owned, orphans []T, patch func(ctx context.Context, obj T, body []byte) error) ([]T, error) {
	var mine []T
	var failed []error
	for _, obj := range owned {
		switch {
		case o.selector.Matches(labels.Set(obj.GetLabels())):
			mine = append(mine, obj)
		case obj.GetDeletionTimestamp() == nil && o.meta.GetDeletionTimestamp() == nil:
			err := patch(ctx, obj, o.release(obj))
			// Invalid: it is another object of that name by now, which does not refer to us.
			failed = append(failed, ignore(err, apierrors.IsNotFound, apierrors.IsInvalid))
		}
	}
	var asked, may bool
	for _, obj := range orphans {
		if o.meta.GetDeletionTimestamp() != nil || obj.GetDeletionTimestamp() != nil || !o.selector.Matches(labels.Set(obj.GetLabels())) {
			continue
		}
		if !asked {
			err := o.mayAdopt(ctx)
			asked, may = true, err == nil
			failed = append(failed, gone(err))
		}
		if !may {
			break
		}
		err := patch(ctx, obj, o.adopt(obj))
		if err == nil {
			mine = append(mine, obj)
		}
		failed = append(failed, ignore(err, apierrors.IsNotFound))
	}
	return mine, errors.Join(failed...)
}

func (o *owner) adopt(obj metav1.Object) []byte {
	meta := map[string]any{"uid": obj.GetUID(), "ownerReferences": []any{o.ref()}}
	if o.finalizer != "" {
		meta["finalizers"] = []string{o.finalizer}
	}
	return metadataPatch(meta)
}

func (o *owner) release(obj metav1.Object) []byte {
	meta := map[string]any{"uid": obj.GetUID(), "ownerReferences": []any{map[string]any{"$patch": "delete", "uid": o.meta.GetUID()}}}
	if o.finalizer != "" {
		meta["$deleteFromPrimitiveList/finalizers"] = []string{o.finalizer}
	}
	return metadataPatch(meta)
}

func metadataPatch(meta map[string]any) []byte {
	body, err := json.Marshal(map[string]any{"metadata": meta})
	if err != nil {
		panic(err) // strings and references only
	}
	return body
}

// claimPods is claim for pods.
func (p *part) claimPods(ctx context.Context, o *owner) ([]*corev1.Pod, error) {
	return claim(ctx, o, p.pods.ownedBy(o.meta.GetUID()), p.pods.orphans(o.meta.GetNamespace()), func(ctx context.Context, pod *corev1.Pod, body []byte) error {
		_, err := p.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{})
		return err
	})
}

// followPods queues the controllers of pods. owns returns the key of a reference's object, "" if there is none; adopters
// the keys of those that may adopt an orphan.
func (p *part) followPods(owns func(namespace string, ref *metav1.OwnerReference) string, adopters func(pod *corev1.Pod) []string) {
	tell := func(pod *corev1.Pod) (owned bool) {
		ref := metav1.GetControllerOfNoCopy(pod)
		if ref == nil {
			return false
		}
		if key := owns(pod.Namespace, ref); key != "" {
			p.queue.Add(key)
		}
		return true
	}
	followChanges(p, p.podIndex().informer, func(old, pod *corev1.Pod) {
		if old != nil && old.ResourceVersion == pod.ResourceVersion && pod.ResourceVersion != "" {
			return
		}
		if old != nil {
			was, is := metav1.GetControllerOfNoCopy(old), metav1.GetControllerOfNoCopy(pod)
			if was != nil && (is == nil || was.UID != is.UID) {
				tell(old)
			}
		}
		if !tell(pod) && pod.DeletionTimestamp == nil && adopters != nil {
			for _, key := range adopters(pod) {
				p.queue.Add(key)
			}
		}
	}, func(pod *corev1.Pod) { tell(pod) })
}

// podFrom makes a pod of a template.
func podFrom(template *corev1.PodTemplateSpec, o *owner) *corev1.Pod {
	t := template.DeepCopy()
	pod := &corev1.Pod{Spec: t.Spec, ObjectMeta: metav1.ObjectMeta{
		Namespace: o.meta.GetNamespace(), GenerateName: generateName(o.meta.GetName()),
		Labels: t.Labels, Annotations: t.Annotations, Finalizers: t.Finalizers, OwnerReferences: []metav1.OwnerReference{*o.ref()},
	}}
	if o.finalizer != "" {
		pod.Finalizers = append(pod.Finalizers, o.finalizer)
	}
	return pod
}

// maxGenerateName is what of a generated name can be given: 63 characters less five random ones.
const maxGenerateName = 58

func generateName(base string) string {
	if base += "-"; len(base) > maxGenerateName {
		base = base[:maxGenerateName]
	}
	return base
}

// createPod makes a pod and tells of it in the events of about.
func (p *part) createPod(ctx context.Context, about runtimeObject, key string, pod *corev1.Pod, x *expectations) error {
	made, err := p.client.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			p.events.warn(about, "FailedCreate", "Error creating: %v", err)
		}
		return err
	}
	x.created(key, made)
	p.events.normal(about, "SuccessfulCreate", "Created pod: %s", made.Name)
	return nil
}

// deletePod deletes a pod and tells of it in the events of about.
func (p *part) deletePod(ctx context.Context, about runtimeObject, key string, pod *corev1.Pod, x *expectations) error {
	err := p.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // another one has its name
		return nil
	}
	if err != nil {
		p.events.warn(about, "FailedDelete", "Error deleting: %v", err)
		return err
	}
	x.deleted(key, pod)
	p.events.normal(about, "SuccessfulDelete", "Deleted pod: %s", pod.Name)
	return nil
}

const (
	// burst is how many pods a controller makes or deletes in one go.
	burst = 500
	// atOnce is how many of them are under way at a time.
	atOnce = 16
)

// slowStart calls do n times, in batches that double, so that a reason to fail shows early. It returns how
// many calls succeeded.
func slowStart(n int, do func(i int) error) (int, error) {
	done := 0
	for batch := 1; done < n; batch *= 2 {
		size := min(batch, n-done)
		var group errgroup.Group
		group.SetLimit(atOnce)
		var mu sync.Mutex
		good := 0
		for i := range size {
			i += done
			group.Go(func() error {
				err := do(i)
				if err == nil {
					mu.Lock()
					good++
					mu.Unlock()
				}
				return err
			})
		}
		err := group.Wait()
		if err != nil {
			return done + good, err
		}
		done += size
	}
	return done, nil
}

// expectations is what controllers did that their informer has not told of yet. A controller that counts its
// pods before it knows of those it just made would make them again.
type expectations struct {
	pods *podIndex
	mu   sync.Mutex
	keys map[string]*expected
}

type expected struct {
	created  map[types.UID]createdPod
	deleted  map[types.UID]string // namespace/name
	released map[types.UID]string // likewise; those whose finalizer was taken off
	since    time.Time            // of created and deleted
}

type createdPod struct{ key, resourceVersion string }

// expectTimeout is when a controller acts on what it sees although it expected more.
const expectTimeout = 5 * time.Minute

// expectAgain is when it is looked again, should no event come first.
const expectAgain = 5 * time.Second

func (c *Controllers) newExpectations() *expectations {
	return &expectations{pods: c.podIndex(), keys: map[string]*expected{}}
}

func (x *expectations) of(key string) *expected {
	e := x.keys[key]
	if e == nil {
		e = &expected{created: map[types.UID]createdPod{}, deleted: map[types.UID]string{}, released: map[types.UID]string{}}
		x.keys[key] = e
	}
	if len(e.created)+len(e.deleted) == 0 {
		e.since = time.Now()
	}
	return e
}

func (x *expectations) created(key string, pod *corev1.Pod) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.of(key).created[pod.UID] = createdPod{keyOf(pod), pod.ResourceVersion}
}

func (x *expectations) deleted(key string, pod *corev1.Pod) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.of(key).deleted[pod.UID] = keyOf(pod)
}

func (x *expectations) released(key string, pod *corev1.Pod) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.of(key).released[pod.UID] = keyOf(pod)
}

// letGo reports whether the pod was released, although the informer may show it with its finalizer yet.
func (x *expectations) letGo(key string, pod *corev1.Pod) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.keys[key]
	return e != nil && e.released[pod.UID] != ""
}

// met reports whether the informer has told of all pods that were made and deleted for a key.
func (x *expectations) met(key string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.keys[key]
	if e == nil {
		return true
	}
	for uid, pod := range e.created {
		ns, name := splitKey(pod.key)
		if have := x.pods.get(ns, name); have != nil && have.UID == uid || told(x.pods.informer, pod.resourceVersion) { // the latter: it came and went
			delete(e.created, uid)
		}
	}
	for uid, pod := range e.deleted {
		ns, name := splitKey(pod)
		if have := x.pods.get(ns, name); have == nil || have.UID != uid || have.DeletionTimestamp != nil {
			delete(e.deleted, uid)
		}
	}
	for uid, pod := range e.released {
		ns, name := splitKey(pod)
		if have := x.pods.get(ns, name); have == nil || have.UID != uid || !tracked(have) {
			delete(e.released, uid)
		}
	}
	if len(e.created)+len(e.deleted) > 0 && time.Since(e.since) < expectTimeout {
		return false
	}
	clear(e.created)
	clear(e.deleted)
	if len(e.released) == 0 {
		delete(x.keys, key)
	}
	return true
}

// forget drops a key whose object is gone.
func (x *expectations) forget(key string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.keys, key)
}
