package controller

import (
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// owned is an object as the graph knows it. Most objects have neither owners nor finalizers.
type owned struct {
	resource   schema.GroupVersionResource
	namespace  string
	name       string
	uid        types.UID
	owners     []metav1.OwnerReference
	finalizers []string
	deleting   bool
}

func (o *owned) has(finalizer string) bool { return slices.Contains(o.finalizers, finalizer) }

// waits: it is being deleted and something has to be done with its dependents first.
func (o *owned) waits() bool {
	return o.deleting && (o.has(metav1.FinalizerOrphanDependents) || o.has(metav1.FinalizerDeleteDependents))
}

// resourceStore takes what a reflector tells of one resource into the graph; it is a
// cache.ReflectorStore. Nothing is kept beside the graph.
type resourceStore struct {
	graph    *collector
	resource schema.GroupVersionResource
	uids     map[string]types.UID // by namespace/name; only the reflector's goroutine touches it
	listed   func()               // called after each full list
}

func (s *resourceStore) Add(obj any) error {
	m := obj.(*metav1.PartialObjectMetadata)
	key := keyOf(m)
	if old, ok := s.uids[key]; ok && old != m.UID { // deleted and made anew, with no word in between
		s.graph.forget(old)
	}
	s.uids[key] = m.UID
	s.graph.see(s.resource, m)
	return nil
}

func (s *resourceStore) Update(obj any) error { return s.Add(obj) }

func (s *resourceStore) Delete(obj any) error {
	m := obj.(*metav1.PartialObjectMetadata)
	key := keyOf(m)
	if uid, ok := s.uids[key]; ok {
		delete(s.uids, key)
		s.graph.forget(uid)
	}
	return nil
}

func (s *resourceStore) Replace(list []any, _ string) error {
	before := s.uids
	s.uids = make(map[string]types.UID, len(list))
	for _, obj := range list {
		m := obj.(*metav1.PartialObjectMetadata)
		s.uids[keyOf(m)] = m.UID
		s.graph.see(s.resource, m)
	}
	for key, uid := range before {
		if s.uids[key] != uid {
			s.graph.forget(uid)
		}
	}
	s.listed()
	return nil
}

func (s *resourceStore) Resync() error { return nil }

// drop forgets all of a resource that is no longer served.
func (s *resourceStore) drop() {
	for _, uid := range s.uids {
		s.graph.forget(uid)
	}
	s.uids = nil
}

// see takes an object's present state into the graph, and queues what has to be looked at because of it.
func (g *collector) see(resource schema.GroupVersionResource, m *metav1.PartialObjectMetadata) {
	o := &owned{
		resource: resource, namespace: m.Namespace, name: m.Name, uid: m.UID,
		owners: m.OwnerReferences, finalizers: m.Finalizers, deleting: m.DeletionTimestamp != nil,
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if old := g.mu.objects[o.uid]; old != nil {
		g.unlink(old)
		g.wakeOwners(old) // they may have waited for a reference that is no more
	}
	g.mu.objects[o.uid] = o
	for _, owner := range o.owners {
		if g.mu.dependents[owner.UID] == nil {
			g.mu.dependents[owner.UID] = map[types.UID]bool{}
		}
		g.mu.dependents[owner.UID][o.uid] = true
	}
	if g.mu.ready {
		g.consider(o)
	}
	if tellsOfKinds(resource) {
		g.lookAgain()
	}
}

func (g *collector) lookAgain() {
	g.look.AddAfter("soon", lookSoon)
	g.look.AddAfter("later", lookLater)
}

// consider queues an object if the graph gives a reason to look at it. Called with mu held.
func (g *collector) consider(o *owned) {
	if o.waits() {
		g.queue.Add(string(o.uid))
		if o.has(metav1.FinalizerDeleteDependents) {
			for dependent := range g.mu.dependents[o.uid] {
				g.queue.Add(string(dependent))
			}
		}
	}
	if o.deleting {
		return
	}
	for _, owner := range o.owners {
		known := g.mu.objects[owner.UID]
		// A name that does not fit the uid is a reference to something that is not there.
		if known == nil || known.name != owner.Name || known.namespace != "" && known.namespace != o.namespace || known.waits() && known.has(metav1.FinalizerDeleteDependents) {
			g.queue.Add(string(o.uid))
			return
		}
	}
}

// begin starts the work: before all resources were listed once, the graph lacks owners that are there.
func (g *collector) begin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.mu.ready {
		return
	}
	g.mu.ready = true
	for _, o := range g.mu.objects {
		g.consider(o)
	}
}

func (g *collector) unlink(o *owned) {
	for _, owner := range o.owners {
		delete(g.mu.dependents[owner.UID], o.uid)
		if len(g.mu.dependents[owner.UID]) == 0 {
			delete(g.mu.dependents, owner.UID)
		}
	}
}

func (g *collector) wakeOwners(o *owned) {
	for _, owner := range o.owners {
		if waiting := g.mu.objects[owner.UID]; g.mu.ready && waiting != nil && waiting.waits() {
			g.queue.Add(string(owner.UID))
		}
	}
}

// forget takes an object that is gone out of the graph; its dependents are looked at.
func (g *collector) forget(uid types.UID) {
	g.mu.Lock()
	o := g.mu.objects[uid]
	if o == nil {
		g.mu.Unlock()
		return
	}
	g.unlink(o)
	delete(g.mu.objects, uid)
	delete(g.mu.unresolved, uid)
	ready := g.mu.ready
	if ready {
		for dependent := range g.mu.dependents[uid] {
			g.queue.Add(string(dependent))
		}
		g.wakeOwners(o)
	}
	g.mu.Unlock()
	if tellsOfKinds(o.resource) {
		g.lookAgain()
	}
	for _, told := range g.told {
		told(o.resource, o.namespace, o.name)
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

// onDeletion makes told run when an object of any followed resource is gone. Before the collector is there, and without one,
// nothing is told.
func (c *Controllers) onDeletion(told func(resource schema.GroupVersionResource, namespace, name string)) {
	if c.graph != nil {
		c.graph.told = append(c.graph.told, told)
	}
}

// notServed recognizes that a resource is no longer there.
func notServed(err error) bool {
	return apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err)
}
