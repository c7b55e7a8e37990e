package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
)

// collector deletes what has lost its owners (docs: "Garbage Collection").
//
// It follows the metadata of every resource that can be deleted, events excepted, and keeps the graph of owners and
// dependents by uid. What the graph says is checked with the API server before anything is
// deleted: the graph may be behind, the server is not.
//
// Invariant: an object is deleted only if it has owner references and, after a live read of the object itself, live reads showed
// that none of these owners exists (or all that do wait for their dependents to go); the deletion names the version read.
//
// An owner of a kind that is not served, or a namespaced owner of a cluster-scoped object, says nothing: its
// dependents stay.
type collector struct {
	*part
	metadata metadata.Interface
	told     []func(resource schema.GroupVersionResource, namespace, name string)
	look     *queue                                 // for new resources
	followed map[schema.GroupVersionResource]func() // how each is given up; only discover touches it
	absent   remembered[absentee]                   // owners, so that the many dependents of one cost one look-up
	orphaned remembered[types.UID]                  // owners that went without their dependents, some of which may not have been seen yet

	mu struct {
		sync.Mutex
		ready      bool // all resources were listed once
		objects    map[types.UID]*owned
		dependents map[types.UID]map[types.UID]bool // owner → dependents
		kinds      map[schema.GroupKind]mapping
		unresolved map[types.UID]bool // have an owner of a kind that is not served
	}
}

// mapping is how the owner references of a kind are looked up.
type mapping struct {
	resource   schema.GroupVersionResource
	namespaced bool
	followed   bool
}

const (
	// lookSoon is how soon after a custom resource or an aggregated API changed it is looked for new resources;
	// lookLater catches a discovery that was behind then.
	lookSoon  = 500 * time.Millisecond
	lookLater = 5 * time.Second
	// ownerUnseen is when an object is looked at again whose owner exists but is not in the graph yet.
	ownerUnseen = 5 * time.Second
	// collectWorkers is how many objects are looked at at a time.
	collectWorkers = 8
)

func (c *Controllers) addCollector() {
	p := c.add("garbage collector", "generic-garbage-collector")
	p.tells("garbage-collector-controller")
	g := &collector{part: p, metadata: c.metadataAs("generic-garbage-collector"), look: newQueue("garbage collector resources", c.Log), followed: map[schema.GroupVersionResource]func(){}}
	g.mu.objects = map[types.UID]*owned{}
	g.mu.dependents = map[types.UID]map[types.UID]bool{}
	g.mu.kinds = map[schema.GroupKind]mapping{}
	g.mu.unresolved = map[types.UID]bool{}
	c.graph = g
	p.work(collectWorkers, g.sync)
	p.runs = append(p.runs, func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, g.look.close)
		defer stop()
		g.look.Add("first")
		var reflectors sync.WaitGroup
		g.look.run(ctx, func(ctx context.Context, _ string) error { return g.discover(ctx, &reflectors) })
		reflectors.Wait()
		return nil
	})
}

// tellsOfKinds recognizes the resources that make other resources come and go.
func tellsOfKinds(r schema.GroupVersionResource) bool {
	return r.Group == "apiextensions.k8s.io" && r.Resource == "customresourcedefinitions" || r.Group == "apiregistration.k8s.io" && r.Resource == "apiservices"
}

// uncollected are resources that never take part.
func uncollected(r schema.GroupVersionResource) bool {
	return r.Resource == "events" && (r.Group == "" || r.Group == "events.k8s.io")
}

// discover follows the resources that are served and gives up those that are not any more.
func (g *collector) discover(ctx context.Context, reflectors *sync.WaitGroup) error {
	lists, err := g.discovery.ServerPreferredResources()
	if len(lists) == 0 {
		return fmt.Errorf("discover resources: %w", cmpErr(err, errors.New("the server has none")))
	}
	kinds := map[schema.GroupKind]mapping{}
	served := map[schema.GroupVersionResource]bool{}
	can := discovery.SupportsAllVerbs{Verbs: []string{"list", "watch", "delete"}}
	for _, list := range lists {
		gv, parseErr := schema.ParseGroupVersion(list.GroupVersion)
		if parseErr != nil {
			continue
		}
		for i := range list.APIResources {
			r := &list.APIResources[i]
			resource := gv.WithResource(r.Name)
			if !slices.Contains(r.Verbs, "get") {
				continue
			}
			follow := can.Match(list.GroupVersion, r) && !uncollected(resource)
			kinds[schema.GroupKind{Group: gv.Group, Kind: r.Kind}] = mapping{resource, r.Namespaced, follow}
			if follow {
				served[resource] = true
			}
		}
	}
	g.mu.Lock()
	if err != nil { // some groups could not be asked: what is known of them stays
		for kind, m := range g.mu.kinds {
			if _, ok := kinds[kind]; !ok {
				kinds[kind] = m
				served[m.resource] = served[m.resource] || m.followed
			}
		}
	}
	grown := false
	for kind := range kinds {
		if _, ok := g.mu.kinds[kind]; !ok {
			grown = true
		}
	}
	g.mu.kinds = kinds
	if grown {
		for uid := range g.mu.unresolved {
			g.queue.Add(string(uid))
		}
		clear(g.mu.unresolved)
	}
	g.mu.Unlock()
	for resource, stop := range g.followed {
		if !served[resource] {
			stop()
			delete(g.followed, resource)
		}
	}
	first := len(g.followed) == 0
	var listed sync.WaitGroup
	for resource := range served {
		if g.followed[resource] == nil {
			g.followed[resource] = g.followResource(ctx, resource, reflectors, &listed)
		}
	}
	if first {
		reflectors.Go(func() {
			all := make(chan struct{})
			go func() { listed.Wait(); close(all) }()
			select {
			case <-all:
				g.begin()
			case <-ctx.Done():
			}
		})
	}
	if err != nil {
		return fmt.Errorf("discover resources: %w", err) // tried again, ever less often
	}
	return nil
}

func cmpErr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// followResource starts a reflector into the graph. listed is done once the first list is in, or the resource is given up.
func (g *collector) followResource(ctx context.Context, resource schema.GroupVersionResource, reflectors, listed *sync.WaitGroup) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	listed.Add(1)
	var once sync.Once
	done := func() { once.Do(listed.Done) }
	store := &resourceStore{graph: g, resource: resource, uids: map[string]types.UID{}, listed: done}
	client := g.metadata.Resource(resource)
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return client.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return client.Watch(ctx, o)
		},
	}
	r := cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(lw, g.metadata), &metav1.PartialObjectMetadata{}, store, cache.ReflectorOptions{Name: "garbage collector " + resource.String()})
	reflectors.Go(func() {
		defer done()
		r.RunWithContext(ctx)
		if context.Cause(ctx) != nil && g.given(resource) {
			store.drop()
		}
	})
	return cancel
}

// given reports whether a resource was given up, rather than everything ended.
func (g *collector) given(resource schema.GroupVersionResource) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range g.mu.kinds {
		if m.resource == resource {
			return false
		}
	}
	return true
}

func (g *collector) sync(ctx context.Context, key string) error {
	o := g.get(types.UID(key))
	switch {
	case o == nil:
		return nil
	case o.deleting && o.has(metav1.FinalizerOrphanDependents):
		return g.orphan(ctx, o)
	case o.deleting && o.has(metav1.FinalizerDeleteDependents):
		return g.deleteDependents(ctx, o)
	case len(o.owners) > 0 && !o.deleting:
		return g.collect(ctx, o)
	}
	return nil
}

// ownerState is what a live read says of an owner.
type ownerState uint8

const (
	present ownerState = iota
	absent
	waiting // it is being deleted in the foreground and waits for its dependents
)

// collect deletes an object all of whose owners are gone, and drops references to those that are
// gone when others remain.
func (g *collector) collect(ctx context.Context, o *owned) error {
	live, err := g.metadata.Resource(o.resource).Namespace(o.namespace).Get(ctx, o.name, metav1.GetOptions{})
	if err != nil || live.UID != o.uid || live.DeletionTimestamp != nil {
		return ignore(err, notServed)
	}
	var gone, wait, left []types.UID
	solid := 0
	for _, owner := range live.OwnerReferences {
		state, err := g.owner(ctx, live, owner)
		if err != nil {
			return err
		}
		switch state {
		case absent:
			gone = append(gone, owner.UID)
			if g.orphaned.has(owner.UID) {
				left = append(left, owner.UID)
			}
		case waiting:
			wait = append(wait, owner.UID)
		default:
			solid++
		}
	}
	switch {
	case len(gone)+len(wait) == 0:
		return nil
	case len(left) > 0: // then it is looked at again
		return g.dropOwners(ctx, o, left)
	case solid > 0:
		return g.dropOwners(ctx, o, append(gone, wait...))
	}
	policy := metav1.DeletePropagationBackground
	dependents := g.dependentsOf(o.uid)
	switch {
	case len(wait) > 0 && len(dependents) > 0:
		policy = metav1.DeletePropagationForeground
		// A circle of owners that all wait would never end; one of them must not block.
		if slices.ContainsFunc(dependents, func(d *owned) bool { return d.deleting && d.has(metav1.FinalizerDeleteDependents) }) {
			if live, err = g.unblock(ctx, o.resource, live); err != nil || live == nil {
				return err
			}
		}
	case slices.Contains(live.Finalizers, metav1.FinalizerOrphanDependents):
		policy = metav1.DeletePropagationOrphan
	case slices.Contains(live.Finalizers, metav1.FinalizerDeleteDependents):
		policy = metav1.DeletePropagationForeground
	}
	err = g.metadata.Resource(o.resource).Namespace(o.namespace).Delete(ctx, o.name, metav1.DeleteOptions{
		PropagationPolicy: &policy, Preconditions: &metav1.Preconditions{UID: &live.UID, ResourceVersion: &live.ResourceVersion},
	})
	if err == nil {
		g.Log.Info("collected", "resource", o.resource.Resource, "namespace", o.namespace, "name", o.name)
	}
	return ignore(err, apierrors.IsNotFound) // a conflict: it is looked at again
}

// owner asks the API server about an owner of an object.
func (g *collector) owner(ctx context.Context, of *metav1.PartialObjectMetadata, ref metav1.OwnerReference) (ownerState, error) {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return present, nil //nolint:nilerr // nothing can be said about it, so nothing is deleted
	}
	g.mu.Lock()
	m, known := g.mu.kinds[schema.GroupKind{Group: gv.Group, Kind: ref.Kind}]
	if !known {
		g.mu.unresolved[of.UID] = true
	}
	seen := g.mu.objects[ref.UID]
	g.mu.Unlock()
	namespace := of.Namespace
	switch {
	case !known:
		return present, nil
	case !m.namespaced:
		namespace = ""
	case namespace == "": // a cluster-scoped object cannot have a namespaced owner
		g.events.warn(of, "OwnerRefInvalidNamespace", "ownerRef %s does not exist in namespace %q", describe(ref), "")
		return present, nil
	}
	who := absentee{ref.UID, schema.GroupKind{Group: gv.Group, Kind: ref.Kind}, namespace, ref.Name}
	if g.absent.has(who) {
		return absent, nil
	}
	live, err := g.metadata.Resource(m.resource).Namespace(namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	switch {
	case isAbsent(err, ref.Name), err == nil && live.UID != ref.UID:
		if m.namespaced && seen != nil && seen.namespace != namespace {
			g.events.warn(of, "OwnerRefInvalidNamespace", "ownerRef %s does not exist in namespace %q", describe(ref), namespace)
		}
		g.absent.add(who)
		return absent, nil
	case err != nil:
		return present, fmt.Errorf("look up owner %s %s: %w", ref.Kind, ref.Name, err)
	case live.DeletionTimestamp != nil && slices.Contains(live.Finalizers, metav1.FinalizerDeleteDependents):
		return waiting, nil
	}
	if seen == nil && m.followed {
		g.queue.AddAfter(string(of.UID), ownerUnseen)
	}
	return present, nil
}

// isAbsent recognizes that there is no object of that name. A server that does not know the resource (yet) says nothing about it.
func isAbsent(err error, name string) bool {
	var status apierrors.APIStatus
	return apierrors.IsNotFound(err) && !apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse) &&
		errors.As(err, &status) && status.Status().Details != nil && status.Status().Details.Name == name
}

func describe(ref metav1.OwnerReference) string {
	return fmt.Sprintf("[%s/%s, name: %s, uid: %s]", ref.APIVersion, ref.Kind, ref.Name, ref.UID)
}

// unblock lets an object's owners go before it.
func (g *collector) unblock(ctx context.Context, resource schema.GroupVersionResource, live *metav1.PartialObjectMetadata) (*metav1.PartialObjectMetadata, error) {
	refs := slices.Clone(live.OwnerReferences)
	no, changed := false, false
	for i := range refs {
		if refs[i].BlockOwnerDeletion != nil && *refs[i].BlockOwnerDeletion {
			refs[i].BlockOwnerDeletion, changed = &no, true
		}
	}
	if !changed {
		return live, nil
	}
	return g.patchMetadata(ctx, live, resource, map[string]any{"ownerReferences": refs})
}

// dropOwners removes owner references by a patch that fails if the object is another one or has changed.
func (g *collector) dropOwners(ctx context.Context, o *owned, uids []types.UID) error {
	live, err := g.metadata.Resource(o.resource).Namespace(o.namespace).Get(ctx, o.name, metav1.GetOptions{})
	if err != nil || live.UID != o.uid {
		return ignore(err, notServed)
	}
	kept := slices.DeleteFunc(slices.Clone(live.OwnerReferences), func(r metav1.OwnerReference) bool { return slices.Contains(uids, r.UID) })
	if len(kept) == len(live.OwnerReferences) {
		return nil
	}
	_, err = g.patchMetadata(ctx, live, o.resource, map[string]any{"ownerReferences": kept})
	return err
}

// patchMetadata changes the version of an object that was read. It returns nil if that is gone.
func (g *collector) patchMetadata(ctx context.Context, live *metav1.PartialObjectMetadata, resource schema.GroupVersionResource, changes map[string]any) (*metav1.PartialObjectMetadata, error) {
	changes["uid"], changes["resourceVersion"] = live.UID, live.ResourceVersion
	body, err := json.Marshal(map[string]any{"metadata": changes})
	if err != nil {
		return nil, err
	}
	live, err = g.metadata.Resource(resource).Namespace(live.Namespace).Patch(ctx, live.Name, types.MergePatchType, body, metav1.PatchOptions{})
	if err != nil {
		return nil, gone(err)
	}
	return live, nil
}

// orphan takes the owner's references off its dependents and lets it go.
func (g *collector) orphan(ctx context.Context, o *owned) error {
	var failed []error
	for _, dependent := range g.dependentsOf(o.uid) {
		failed = append(failed, g.dropOwners(ctx, dependent, []types.UID{o.uid}))
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("orphan dependents of %s: %w", o.name, err)
	}
	g.orphaned.add(o.uid)
	return g.dropFinalizer(ctx, o, metav1.FinalizerOrphanDependents)
}

// deleteDependents deletes the dependents first; the owner goes when none that blocks it is left.
func (g *collector) deleteDependents(ctx context.Context, o *owned) error {
	blocked := false
	for _, dependent := range g.dependentsOf(o.uid) {
		if !dependent.deleting {
			g.queue.Add(string(dependent.uid))
		}
		for _, ref := range dependent.owners {
			if ref.UID == o.uid && ref.BlockOwnerDeletion != nil && *ref.BlockOwnerDeletion {
				blocked = true
			}
		}
	}
	if blocked { // see and forget bring it back
		return nil
	}
	return g.dropFinalizer(ctx, o, metav1.FinalizerDeleteDependents)
}

func (g *collector) dropFinalizer(ctx context.Context, o *owned, finalizer string) error {
	live, err := g.metadata.Resource(o.resource).Namespace(o.namespace).Get(ctx, o.name, metav1.GetOptions{})
	if err != nil || live.UID != o.uid || !slices.Contains(live.Finalizers, finalizer) {
		return ignore(err, notServed)
	}
	kept := slices.DeleteFunc(slices.Clone(live.Finalizers), func(f string) bool { return f == finalizer })
	_, err = g.patchMetadata(ctx, live, o.resource, map[string]any{"finalizers": kept})
	return err
}

// absentee is an owner reference with all that a look-up depends on. An object that is gone never comes back with its uid.
type absentee struct {
	uid             types.UID
	kind            schema.GroupKind
	namespace, name string
}

// maxRemembered is how many are remembered; then it begins anew.
const maxRemembered = 500

type remembered[T comparable] struct {
	mu  sync.Mutex
	all map[T]bool
}

func (r *remembered[T]) has(one T) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all[one]
}

func (r *remembered[T]) add(one T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil || len(r.all) >= maxRemembered {
		r.all = map[T]bool{}
	}
	r.all[one] = true
}
