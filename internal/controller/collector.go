package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
)

// collector deletes what has lost its owner (docs: "Garbage Collection").
//
// It follows the metadata of every resource that can be deleted and keeps the graph of owners and
// dependents by uid. What the graph says is checked with the API server before anything is
// deleted: the graph may be behind, the server is not.
//
// Invariant: an object is deleted only if it has owner references and a live read showed that
// none of these owners exists (or all are being deleted in the foreground).
type collector struct {
	*Controllers
	metadata  metadata.Interface
	queue     *queue
	factory   metadatainformer.SharedInformerFactory
	resources map[schema.GroupVersionResource]bool // followed; only the run loop touches it

	mu struct {
		sync.Mutex
		objects    map[types.UID]*owned
		dependents map[types.UID]map[types.UID]bool // owner → dependents
		kinds      map[schema.GroupKind]mapping
	}
}

// owned is an object as the graph knows it.
type owned struct {
	resource   schema.GroupVersionResource
	namespace  string
	name       string
	uid        types.UID
	owners     []metav1.OwnerReference
	finalizers []string
	deleting   bool
}

// mapping is how the owner references of a kind are looked up.
type mapping struct {
	resource   schema.GroupVersionResource
	namespaced bool
}

func (c *Controllers) addCollector() {
	g := &collector{Controllers: c, metadata: c.metadataAs("generic-garbage-collector"), queue: c.newQueue("garbage collector"), resources: map[schema.GroupVersionResource]bool{}}
	g.mu.objects = map[types.UID]*owned{}
	g.mu.dependents = map[types.UID]map[types.UID]bool{}
	g.mu.kinds = map[schema.GroupKind]mapping{}
	g.factory = metadatainformer.NewSharedInformerFactory(g.metadata, 0)
	c.runs = append(c.runs, g.run)
	c.work(g.queue, 2, g.sync)
}

var customResourceDefinitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// run follows all resources, and looks for new ones when a custom resource definition changes.
func (g *collector) run(ctx context.Context) error {
	again := make(chan struct{}, 1)
	again <- struct{}{}
	defer g.factory.Shutdown()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again:
		}
		if err := g.discover(ctx, again); err != nil {
			g.Log.Warn("garbage collector: resources cannot be discovered", "error", err)
		}
	}
}

func (g *collector) discover(ctx context.Context, again chan struct{}) error {
	lists, err := g.discovery.ServerPreferredResources()
	for _, list := range discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list", "watch", "delete"}}, lists) {
		gv, parseErr := schema.ParseGroupVersion(list.GroupVersion)
		if parseErr != nil || gv.Group == "events.k8s.io" {
			continue
		}
		for _, r := range list.APIResources {
			resource := gv.WithResource(r.Name)
			if gv.Group == "" && r.Name == "events" { // never part of it
				continue
			}
			g.mu.Lock()
			g.mu.kinds[schema.GroupKind{Group: gv.Group, Kind: r.Kind}] = mapping{resource, r.Namespaced}
			g.mu.Unlock()
			if !g.resources[resource] {
				g.resources[resource] = true
				g.followResource(resource, again)
			}
		}
	}
	g.factory.Start(ctx.Done())
	return err
}

func (g *collector) followResource(resource schema.GroupVersionResource, again chan struct{}) {
	informer := g.factory.ForResource(resource).Informer()
	_ = informer.SetTransform(thin) // it was not started, so it takes a transform
	see := func(obj any) {
		if resource == customResourceDefinitions {
			select {
			case again <- struct{}{}:
			default:
			}
		}
		g.see(resource, obj.(*metav1.PartialObjectMetadata))
	}
	_, _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    see,
		UpdateFunc: func(_, obj any) { see(obj) },
		DeleteFunc: func(obj any) {
			if last, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = last.Obj
			}
			g.forget(obj.(*metav1.PartialObjectMetadata))
		},
	})
}

// thin drops what the graph does not need.
func thin(obj any) (any, error) {
	if m, ok := obj.(*metav1.PartialObjectMetadata); ok {
		m.ManagedFields, m.Annotations, m.Labels = nil, nil, nil
	}
	return obj, nil
}

// see takes an object's present state into the graph.
func (g *collector) see(resource schema.GroupVersionResource, m *metav1.PartialObjectMetadata) {
	o := &owned{
		resource: resource, namespace: m.Namespace, name: m.Name, uid: m.UID,
		owners: m.OwnerReferences, finalizers: m.Finalizers, deleting: m.DeletionTimestamp != nil,
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if old := g.mu.objects[o.uid]; old != nil {
		g.unlink(old)
	}
	g.mu.objects[o.uid] = o
	for _, owner := range o.owners {
		if g.mu.dependents[owner.UID] == nil {
			g.mu.dependents[owner.UID] = map[types.UID]bool{}
		}
		g.mu.dependents[owner.UID][o.uid] = true
	}
	if o.wantsWork() {
		g.queue.Add(string(o.uid))
	}
	for _, owner := range o.owners {
		if known := g.mu.objects[owner.UID]; known == nil || known.deleting {
			g.queue.Add(string(o.uid))
			break
		}
	}
	if o.deleting { // dependents may have to go first
		for dependent := range g.mu.dependents[o.uid] {
			g.queue.Add(string(dependent))
		}
	}
}

// wantsWork: it is being deleted and waits for its dependents.
func (o *owned) wantsWork() bool {
	return o.deleting && (o.has(metav1.FinalizerOrphanDependents) || o.has(metav1.FinalizerDeleteDependents))
}

func (o *owned) has(finalizer string) bool { return slices.Contains(o.finalizers, finalizer) }

func (g *collector) unlink(o *owned) {
	for _, owner := range o.owners {
		delete(g.mu.dependents[owner.UID], o.uid)
		if len(g.mu.dependents[owner.UID]) == 0 {
			delete(g.mu.dependents, owner.UID)
		}
	}
}

// forget takes an object that is gone out of the graph; its dependents are looked at.
func (g *collector) forget(m *metav1.PartialObjectMetadata) {
	g.mu.Lock()
	defer g.mu.Unlock()
	o := g.mu.objects[m.UID]
	if o == nil {
		return
	}
	g.unlink(o)
	delete(g.mu.objects, m.UID)
	for dependent := range g.mu.dependents[m.UID] {
		g.queue.Add(string(dependent))
	}
	for _, owner := range o.owners { // an owner may have waited for this one
		if waiting := g.mu.objects[owner.UID]; waiting != nil && waiting.wantsWork() {
			g.queue.Add(string(owner.UID))
		}
	}
}

func (g *collector) get(uid types.UID) *owned {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.objects[uid]
}

func (g *collector) dependentsOf(uid types.UID) []*owned {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []*owned
	for dependent := range g.mu.dependents[uid] {
		if o := g.mu.objects[dependent]; o != nil {
			out = append(out, o)
		}
	}
	return out
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
	var gone, wait []types.UID
	solid := 0
	for _, owner := range o.owners {
		state, err := g.owner(ctx, o.namespace, owner)
		if err != nil {
			return err
		}
		switch state {
		case absent:
			gone = append(gone, owner.UID)
		case waiting:
			wait = append(wait, owner.UID)
		default:
			solid++
		}
	}
	switch {
	case len(gone)+len(wait) == 0:
		return nil
	case solid > 0:
		return g.dropOwners(ctx, o, append(gone, wait...))
	}
	policy := metav1.DeletePropagationBackground
	if len(wait) > 0 && len(g.dependentsOf(o.uid)) > 0 {
		policy = metav1.DeletePropagationForeground
	}
	return g.remove(ctx, o, policy)
}

// owner asks the API server about an owner.
func (g *collector) owner(ctx context.Context, namespace string, ref metav1.OwnerReference) (ownerState, error) {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return present, nil //nolint:nilerr // nothing can be said about it, so nothing is deleted
	}
	g.mu.Lock()
	m, known := g.mu.kinds[schema.GroupKind{Group: gv.Group, Kind: ref.Kind}]
	g.mu.Unlock()
	if !known {
		return present, nil
	}
	if !m.namespaced {
		namespace = ""
	} else if namespace == "" { // a cluster-scoped object cannot have a namespaced owner
		return present, nil
	}
	live, err := g.metadata.Resource(m.resource).Namespace(namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return absent, nil
	case err != nil:
		return present, fmt.Errorf("look up owner %s %s: %w", ref.Kind, ref.Name, err)
	case live.UID != ref.UID:
		return absent, nil
	case live.DeletionTimestamp != nil && slices.Contains(live.Finalizers, metav1.FinalizerDeleteDependents):
		return waiting, nil
	}
	return present, nil
}

func (g *collector) remove(ctx context.Context, o *owned, policy metav1.DeletionPropagation) error {
	err := g.metadata.Resource(o.resource).Namespace(o.namespace).Delete(ctx, o.name, metav1.DeleteOptions{
		PropagationPolicy: &policy, Preconditions: &metav1.Preconditions{UID: &o.uid},
	})
	if err == nil {
		g.Log.Info("collected", "resource", o.resource.Resource, "namespace", o.namespace, "name", o.name)
	}
	return ignore(err, apierrors.IsNotFound, apierrors.IsConflict)
}

// dropOwners removes owner references by a patch that fails if the object is another one.
func (g *collector) dropOwners(ctx context.Context, o *owned, uids []types.UID) error {
	live, err := g.metadata.Resource(o.resource).Namespace(o.namespace).Get(ctx, o.name, metav1.GetOptions{})
	if err != nil || live.UID != o.uid {
		return ignore(err, apierrors.IsNotFound)
	}
	kept := slices.DeleteFunc(slices.Clone(live.OwnerReferences), func(r metav1.OwnerReference) bool { return slices.Contains(uids, r.UID) })
	if len(kept) == len(live.OwnerReferences) {
		return nil
	}
	return g.patchMetadata(ctx, live, o.resource, map[string]any{"ownerReferences": kept})
}

func (g *collector) patchMetadata(ctx context.Context, live *metav1.PartialObjectMetadata, resource schema.GroupVersionResource, changes map[string]any) error {
	changes["uid"], changes["resourceVersion"] = live.UID, live.ResourceVersion
	body, err := json.Marshal(map[string]any{"metadata": changes})
	if err != nil {
		return err
	}
	_, err = g.metadata.Resource(resource).Namespace(live.Namespace).Patch(ctx, live.Name, types.MergePatchType, body, metav1.PatchOptions{})
	return ignore(err, apierrors.IsNotFound)
}

// orphan takes the owner's references off its dependents and lets it go.
func (g *collector) orphan(ctx context.Context, o *owned) error {
	var failed []string
	for _, dependent := range g.dependentsOf(o.uid) {
		if err := g.dropOwners(ctx, dependent, []types.UID{o.uid}); err != nil {
			failed = append(failed, err.Error())
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("orphan dependents of %s: %s", o.name, strings.Join(failed, "; "))
	}
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
	if blocked { // forget() brings it back
		return nil
	}
	return g.dropFinalizer(ctx, o, metav1.FinalizerDeleteDependents)
}

func (g *collector) dropFinalizer(ctx context.Context, o *owned, finalizer string) error {
	live, err := g.metadata.Resource(o.resource).Namespace(o.namespace).Get(ctx, o.name, metav1.GetOptions{})
	if err != nil || live.UID != o.uid || !slices.Contains(live.Finalizers, finalizer) {
		return ignore(err, apierrors.IsNotFound)
	}
	kept := slices.DeleteFunc(slices.Clone(live.Finalizers), func(f string) bool { return f == finalizer })
	return g.patchMetadata(ctx, live, o.resource, map[string]any{"finalizers": kept})
}
