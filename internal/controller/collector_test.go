package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
)

func conflict(r schema.GroupVersionResource, name string) error {
	return apierrors.NewConflict(r.GroupResource(), name, errors.New("changed"))
}

// The store is a metadata client as far as the collector uses one.
type storeResource struct {
	metadata.Getter
	s         *store
	r         schema.GroupVersionResource
	namespace string
}

type storeClient struct{ s *store }

func (c storeClient) Resource(r schema.GroupVersionResource) metadata.Getter {
	return &storeResource{s: c.s, r: r}
}

func (c *storeResource) Namespace(ns string) metadata.ResourceInterface {
	return &storeResource{s: c.s, r: c.r, namespace: ns}
}

func (c *storeResource) find(name string) (*metav1.PartialObjectMetadata, error) {
	if m := c.s.objects[c.s.key(c.r, c.namespace, name)]; m != nil {
		return m, nil
	}
	return nil, apierrors.NewNotFound(c.r.GroupResource(), name)
}

func (c *storeResource) Get(_ context.Context, name string, _ metav1.GetOptions, _ ...string) (*metav1.PartialObjectMetadata, error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.s.refuse != nil {
		if err := c.s.refuse(name); err != nil {
			return nil, err
		}
	}
	m, err := c.find(name)
	return m.DeepCopy(), err
}

func (c *storeResource) Delete(_ context.Context, name string, o metav1.DeleteOptions, _ ...string) error {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	m, err := c.find(name)
	if err != nil {
		return err
	}
	if *o.Preconditions.UID != m.UID || *o.Preconditions.ResourceVersion != m.ResourceVersion {
		return conflict(c.r, name)
	}
	if c.s.check != nil {
		c.s.check(c.s, m)
	}
	c.s.remove(c.r, m, *o.PropagationPolicy)
	return nil
}

func (c *storeResource) Patch(_ context.Context, name string, _ types.PatchType, body []byte, _ metav1.PatchOptions, _ ...string) (*metav1.PartialObjectMetadata, error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	m, err := c.find(name)
	if err != nil {
		return nil, err
	}
	return c.s.patch(c.r, m, body)
}

// newStore is a store with a collector over it that works when drain says so.
func newStore(t *testing.T) *store {
	log := slog.New(slog.DiscardHandler)
	all := &Controllers{Config: Config{Log: log}}
	g := &collector{part: &part{Controllers: all, name: "gc", queue: newQueue("gc", log)}, look: newQueue("look", log)}
	g.mu.objects, g.mu.dependents, g.mu.unresolved = map[types.UID]*owned{}, map[types.UID]map[types.UID]bool{}, map[types.UID]bool{}
	g.mu.kinds = map[schema.GroupKind]mapping{{Group: "t", Kind: "Widget"}: {widgets, true, true}, {Group: "t", Kind: "Global"}: {globals, false, true}}
	s := &store{objects: map[string]*metav1.PartialObjectMetadata{}, graph: g}
	g.metadata = storeClient{s}
	t.Cleanup(g.queue.close)
	return s
}

// drain works until the queue is empty; it fails if that takes too many steps.
func (s *store) drain(t *testing.T) {
	t.Helper()
	s.graph.begin()
	for range 10000 {
		s.graph.queue.mu.Lock()
		empty := len(s.graph.queue.mu.order) == 0
		s.graph.queue.mu.Unlock()
		if empty {
			return
		}
		key, _ := s.graph.queue.get()
		err := s.graph.sync(context.Background(), key)
		s.graph.queue.done(key)
		if apierrors.IsConflict(err) {
			s.graph.queue.Add(key)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the collector does not come to an end")
}

// thing describes an object: kind/namespace/name, owners, and whether its references block.
type thing struct {
	kind, namespace, name string
	owners                []metav1.OwnerReference
}

func uidOf(kind, namespace, name string) types.UID {
	return types.UID(kind + ":" + namespace + ":" + name)
}

func ref(kind, namespace, name string, block bool) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: "t/v1", Kind: kind, Name: name, UID: uidOf(kind, namespace, name), BlockOwnerDeletion: &block}
}

func (s *store) add(all ...thing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range all {
		s.put(resourceOf(o.kind), &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
			Namespace: o.namespace, Name: o.name, UID: uidOf(o.kind, o.namespace, o.name), OwnerReferences: o.owners,
		}})
	}
}

func (s *store) user(kind, namespace, name string, policy metav1.DeletionPropagation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.objects[s.key(resourceOf(kind), namespace, name)]; m != nil {
		s.remove(resourceOf(kind), m, policy)
	}
}

func TestCollector(t *testing.T) {
	const ns, background, foreground, orphan = "a", metav1.DeletePropagationBackground, metav1.DeletePropagationForeground, metav1.DeletePropagationOrphan
	w := func(name string, owners ...metav1.OwnerReference) thing { return thing{"Widget", ns, name, owners} }
	own := func(name string) metav1.OwnerReference { return ref("Widget", ns, name, true) }
	loose := func(name string) metav1.OwnerReference { return ref("Widget", ns, name, false) }
	for _, test := range []struct {
		name   string
		have   []thing
		delete string // a Widget of ns; "" none
		policy metav1.DeletionPropagation
		left   []string
		order  []string // in which they went, if it matters
	}{
		{name: "nothing owned", have: []thing{w("x")}, left: []string{"widgets/a/x"}},
		{name: "owner is there", have: []thing{w("x"), w("y", own("x"))}, left: []string{"widgets/a/x", "widgets/a/y"}},
		{name: "owner never was", have: []thing{w("y", own("x"))}},
		{name: "owner is another of that name", have: []thing{w("x"), w("y", metav1.OwnerReference{APIVersion: "t/v1", Kind: "Widget", Name: "x", UID: "old"})}, left: []string{"widgets/a/x"}},
		{name: "background", have: []thing{w("x"), w("y", own("x")), w("z", own("y"))}, delete: "x", policy: background, order: []string{"x", "y", "z"}},
		{name: "foreground", have: []thing{w("x"), w("y", own("x")), w("z", own("y"))}, delete: "x", policy: foreground, order: []string{"z", "y", "x"}},
		{name: "foreground, nothing blocks", have: []thing{w("x"), w("y", loose("x"))}, delete: "x", policy: foreground, order: []string{"x", "y"}},
		{name: "foreground, another owner stays", have: []thing{w("x"), w("o"), w("y", own("x"), own("o"))}, delete: "x", policy: foreground, left: []string{"widgets/a/o", "widgets/a/y"}},
		{name: "foreground in a circle", have: []thing{w("x", own("y")), w("y", own("x"))}, delete: "x", policy: foreground},
		{name: "orphan", have: []thing{w("x"), w("y", own("x"))}, delete: "x", policy: orphan, left: []string{"widgets/a/y"}},
		{name: "one of two owners goes", have: []thing{w("x"), w("o"), w("y", own("x"), own("o"))}, delete: "x", policy: background, left: []string{"widgets/a/o", "widgets/a/y"}},
		{name: "cluster-scoped owner is there", have: []thing{{"Global", "", "g", nil}, w("y", ref("Global", "", "g", true))}, left: []string{"globals//g", "widgets/a/y"}},
		{name: "cluster-scoped owner is gone", have: []thing{w("y", ref("Global", "", "g", true))}},
		{name: "owner in another namespace", have: []thing{{"Widget", "b", "x", nil}, w("y", ref("Widget", "b", "x", true))}, left: []string{"widgets/b/x"}},
		{name: "namespaced owner of a cluster-scoped object", have: []thing{{"Global", "", "g", []metav1.OwnerReference{own("x")}}}, left: []string{"globals//g"}},
		{name: "owner of an unknown kind", have: []thing{w("y", metav1.OwnerReference{APIVersion: "no/v1", Kind: "Such", Name: "x", UID: "u"})}, left: []string{"widgets/a/y"}},
		{name: "unknown kind beside one that is gone", have: []thing{w("y", metav1.OwnerReference{APIVersion: "no/v1", Kind: "Such", Name: "x", UID: "u"}, own("x"))}, left: []string{"widgets/a/y"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newStore(t)
			s.add(test.have...)
			s.drain(t)
			if test.delete != "" {
				s.user("Widget", ns, test.delete, test.policy)
				s.drain(t)
			}
			if got := s.names(); !slices.Equal(got, test.left) {
				t.Errorf("left %v, want %v", got, test.left)
			}
			for i := range test.order {
				test.order[i] = "widgets/a/" + test.order[i]
			}
			if test.order != nil && !slices.Equal(s.deleted, test.order) {
				t.Errorf("went in the order %v, want %v", s.deleted, test.order)
			}
		})
	}
}

// A dependent that was adopted between the look and the deletion stays.
func TestCollectorRespectsAdoption(t *testing.T) {
	s := newStore(t)
	s.add(thing{"Widget", "a", "o", nil}, thing{"Widget", "a", "y", []metav1.OwnerReference{ref("Widget", "a", "gone", true)}})
	stale := s.graph.get(uidOf("Widget", "a", "y"))
	s.add(thing{"Widget", "a", "y", []metav1.OwnerReference{ref("Widget", "a", "o", true)}})
	if err := s.graph.collect(context.Background(), stale); err != nil {
		t.Fatal(err)
	}
	if len(s.deleted) > 0 {
		t.Errorf("deleted %v, which has an owner", s.deleted)
	}
}

// A dependent that is seen only after its owner went without its dependents stays too.
func TestCollectorOrphansWhatItSeesLate(t *testing.T) {
	s := newStore(t)
	s.add(thing{"Widget", "a", "o", nil}, thing{"Widget", "a", "x", []metav1.OwnerReference{ref("Widget", "a", "o", true)}})
	s.drain(t)
	s.user("Widget", "a", "o", metav1.DeletePropagationOrphan)
	s.drain(t)
	s.add(thing{"Widget", "a", "late", []metav1.OwnerReference{ref("Widget", "a", "o", true)}},
		thing{"Widget", "a", "both", []metav1.OwnerReference{ref("Widget", "a", "o", true), ref("Widget", "a", "never", true)}})
	s.drain(t)
	if got, want := s.names(), []string{"widgets/a/late", "widgets/a/x"}; !slices.Equal(got, want) {
		t.Errorf("left %v, want %v", got, want)
	}
}

// A server that does not know the owner's resource has not said that the owner is gone.
func TestCollectorMistrustsOtherNotFound(t *testing.T) {
	unknown := apierrors.NewNotFound(schema.GroupResource{}, "")
	page := apierrors.NewGenericServerResponse(404, "get", widgets.GroupResource(), "x", "404 page not found", 0, true)
	for _, answer := range []*apierrors.StatusError{unknown, page} {
		s := newStore(t)
		s.add(thing{"Widget", "a", "y", []metav1.OwnerReference{ref("Widget", "a", "x", true)}})
		y := s.graph.get(uidOf("Widget", "a", "y"))
		s.refuse = func(name string) error {
			if name == "x" {
				return answer
			}
			return nil
		}
		if err := s.graph.collect(context.Background(), y); err == nil || len(s.deleted) > 0 {
			t.Errorf("%v: %v, deleted %v", answer, err, s.deleted)
		}
		s.refuse = nil
		if err := s.graph.collect(context.Background(), y); err != nil || len(s.deleted) != 1 {
			t.Errorf("not found: %v, deleted %v", err, s.deleted)
		}
	}
}

// A kind that comes to be served makes its references count.
func TestCollectorLearnsKinds(t *testing.T) {
	s := newStore(t)
	s.add(thing{"Widget", "a", "y", []metav1.OwnerReference{{APIVersion: "late/v1", Kind: "Comer", Name: "x", UID: "u"}}})
	s.drain(t)
	if !s.graph.mu.unresolved[uidOf("Widget", "a", "y")] {
		t.Error("nobody remembers that the owner's kind is unknown")
	}
}

// Invariant: whatever happens in whatever order, what is deleted had owners, none of which stays; and in the end nothing is left whose
// owners are all gone.
func TestCollectorOnRandomGraphs(t *testing.T) {
	for seed := range uint64(300) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			s := newStore(t)
			s.check = func(s *store, m *metav1.PartialObjectMetadata) {
				if len(m.OwnerReferences) == 0 {
					t.Errorf("%s is collected and has no owners", m.Name)
				}
				for _, r := range m.OwnerReferences {
					o := s.objects[s.key(resourceOf(r.Kind), m.Namespace, r.Name)]
					if o != nil && o.UID == r.UID && o.DeletionTimestamp == nil {
						t.Errorf("%s is collected, and its owner %s lives", m.Name, r.Name)
					}
				}
			}
			const n = 12
			var all []thing
			for i := range n {
				o := thing{kind: "Widget", namespace: "a", name: fmt.Sprint("w", i)}
				for range rnd.IntN(3) {
					// Later ones too: owners may come after dependents, and in circles.
					if j := rnd.IntN(n + 2); j != i && !slices.ContainsFunc(o.owners, func(r metav1.OwnerReference) bool { return r.Name == fmt.Sprint("w", j) }) {
						o.owners = append(o.owners, ref("Widget", "a", fmt.Sprint("w", j), rnd.IntN(2) == 0))
					}
				}
				all = append(all, o)
			}
			s.add(all...)
			s.drain(t)
			policies := []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground, metav1.DeletePropagationOrphan}
			for range 5 {
				s.user("Widget", "a", fmt.Sprint("w", rnd.IntN(n)), policies[rnd.IntN(3)])
				if rnd.IntN(2) == 0 {
					s.drain(t)
				}
			}
			s.drain(t)
			for key, m := range s.objects {
				if m.DeletionTimestamp != nil {
					t.Errorf("%s waits for ever: %v", key, m.Finalizers)
				}
				alive := len(m.OwnerReferences) == 0
				for _, r := range m.OwnerReferences {
					o := s.objects[s.key(widgets, "a", r.Name)]
					alive = alive || o != nil && o.UID == r.UID
				}
				if !alive {
					t.Errorf("%s is left and has no owner any more", key)
				}
			}
		})
	}
}
