package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// cluster is a fake API with those habits of the real one that controllers depend on: uids, versions, generated names,
// generations, and objects that stay while they have finalizers.
type cluster struct {
	*testing.T
	client *fake.Clientset
	all    *Controllers
	ctx    context.Context
}

// started is when the controllers work at the latest.
const started = time.Second

// run runs controllers in a bubble of fake time until the test's body ends.
func run(t *testing.T, add func(c *Controllers), body func(c *cluster), objects ...runtime.Object) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		habits(client)
		all := assemble(client, nil, nil, Config{Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
		add(all)
		ctx, cancel := context.WithCancel(t.Context())
		c := &cluster{T: t, client: client, all: all, ctx: ctx}
		for _, o := range objects {
			if err := client.Tracker().Add(o); err != nil {
				t.Fatal(err)
			}
		}
		var done sync.WaitGroup
		done.Go(func() {
			if err := all.Run(ctx); err != nil && ctx.Err() == nil {
				t.Errorf("run: %v", err)
			}
		})
		time.Sleep(started) // the informers are asked ten times a second whether they have their lists
		synctest.Wait()
		body(c)
		cancel()
		done.Wait()
	})
}

// settle waits until nothing happens any more without time going on.
func (c *cluster) settle() { synctest.Wait() }

// deaf makes the informer of a resource hear nothing after its first list, as one does whose watch is held up.
func deaf(c *Controllers, resource string) {
	c.client.(*fake.Clientset).PrependWatchReactor(resource, func(clienttesting.Action) (bool, watch.Interface, error) { return true, watch.NewFake(), nil })
}

// late makes the informer of a resource hear of everything a second after the one before.
func late(c *Controllers, resource string) {
	client := c.client.(*fake.Clientset)
	client.PrependWatchReactor(resource, func(a clienttesting.Action) (bool, watch.Interface, error) {
		w, err := client.Tracker().Watch(a.GetResource(), a.GetNamespace())
		return true, watch.Filter(w, func(e watch.Event) (watch.Event, bool) {
			time.Sleep(time.Second)
			return e, true
		}), err
	})
}

func habits(client *fake.Clientset) {
	var mu sync.Mutex
	n := 0
	next := func() int {
		mu.Lock()
		defer mu.Unlock()
		n++
		return n
	}
	client.PrependReactor("create", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if a.GetSubresource() != "" {
			return false, nil, nil
		}
		m, err := meta.Accessor(a.(clienttesting.CreateAction).GetObject())
		if err != nil {
			return false, nil, nil
		}
		i := next()
		if m.GetName() == "" {
			m.SetName(fmt.Sprintf("%s%05d", m.GetGenerateName(), i))
		}
		if m.GetUID() == "" {
			m.SetUID(types.UID(fmt.Sprintf("uid-%d", i)))
		}
		m.SetResourceVersion(strconv.Itoa(i))
		m.SetCreationTimestamp(metav1.Now())
		m.SetGeneration(1)
		return false, nil, nil
	})
	client.PrependReactor("delete", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		obj, err := client.Tracker().Get(a.GetResource(), a.GetNamespace(), a.(clienttesting.DeleteAction).GetName())
		if err != nil {
			return true, nil, err
		}
		m, err := meta.Accessor(obj)
		if err != nil {
			return true, nil, err
		}
		m.SetResourceVersion(strconv.Itoa(next())) // a deletion is a version too
		return false, nil, client.Tracker().Update(a.GetResource(), obj, a.GetNamespace())
	})
	client.PrependReactor("update", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		obj := a.(clienttesting.UpdateAction).GetObject()
		m, err := meta.Accessor(obj)
		if err != nil {
			return false, nil, nil
		}
		have, err := client.Tracker().Get(a.GetResource(), a.GetNamespace(), m.GetName())
		if err != nil {
			return true, nil, err
		}
		was, _ := meta.Accessor(have)
		if m.GetResourceVersion() != was.GetResourceVersion() && m.GetResourceVersion() != "" {
			return true, nil, conflict(a.GetResource(), m.GetName())
		}
		m.SetResourceVersion(strconv.Itoa(next()))
		keep := "Status" // a write of the object leaves its status, and a write of the status the rest
		if a.GetSubresource() == "status" {
			keep = "Spec"
		}
		if field := reflect.ValueOf(obj).Elem().FieldByName(keep); field.IsValid() {
			field.Set(reflect.ValueOf(have.DeepCopyObject()).Elem().FieldByName(keep))
		}
		if a.GetSubresource() == "" {
			m.SetGeneration(was.GetGeneration() + 1)
		}
		return false, nil, nil
	})
}

// writes counts the writes of a resource since the last call of ClearActions.
func (c *cluster) writes(verb, resource string) (n int) {
	for _, a := range c.client.Actions() {
		if a.Matches(verb, resource) {
			n++
		}
	}
	return n
}

func must[T any](c testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		c.Helper()
		if err != nil {
			c.Fatal(err)
		}
		return v
	}
}

// store is a fake API of metadata for the collector: objects of three kinds, with what the real server does
// on deletion. It calls the graph as reflectors would, in the order of the changes.
type store struct {
	mu      sync.Mutex
	version int
	objects map[string]*metav1.PartialObjectMetadata // resource/namespace/name
	graph   *collector
	deleted []string
	check   func(s *store, m *metav1.PartialObjectMetadata) // before each deletion by the collector
	refuse  func(name string) error                         // what a Get answers instead; nil: as it is
}

var (
	widgets = schema.GroupVersionResource{Group: "t", Version: "v1", Resource: "widgets"}
	globals = schema.GroupVersionResource{Group: "t", Version: "v1", Resource: "globals"}
)

func resourceOf(kind string) schema.GroupVersionResource {
	if kind == "Global" {
		return globals
	}
	return widgets
}

func (s *store) key(r schema.GroupVersionResource, namespace, name string) string {
	return r.Resource + "/" + namespace + "/" + name
}

func (s *store) put(r schema.GroupVersionResource, m *metav1.PartialObjectMetadata) {
	s.version++
	m.ResourceVersion = strconv.Itoa(s.version)
	key := s.key(r, m.Namespace, m.Name)
	if m.DeletionTimestamp != nil && len(m.Finalizers) == 0 {
		delete(s.objects, key)
		s.deleted = append(s.deleted, key)
		s.graph.forget(m.UID)
		return
	}
	s.objects[key] = m
	s.graph.see(r, m.DeepCopy())
}

// remove is a deletion by a user or the collector.
func (s *store) remove(r schema.GroupVersionResource, m *metav1.PartialObjectMetadata, policy metav1.DeletionPropagation) {
	m = m.DeepCopy()
	now := metav1.Now()
	m.DeletionTimestamp = &now
	add := map[metav1.DeletionPropagation]string{metav1.DeletePropagationForeground: metav1.FinalizerDeleteDependents, metav1.DeletePropagationOrphan: metav1.FinalizerOrphanDependents}[policy]
	if add != "" && !slices.Contains(m.Finalizers, add) {
		m.Finalizers = append(m.Finalizers, add)
	}
	s.put(r, m)
}

func (s *store) names() []string { return slices.Sorted(maps.Keys(s.objects)) }

func (s *store) patch(r schema.GroupVersionResource, m *metav1.PartialObjectMetadata, body []byte) (*metav1.PartialObjectMetadata, error) {
	var change struct {
		Metadata struct {
			ResourceVersion string                   `json:"resourceVersion"`
			OwnerReferences *[]metav1.OwnerReference `json:"ownerReferences"`
			Finalizers      *[]string                `json:"finalizers"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(body, &change); err != nil {
		return nil, err
	}
	if change.Metadata.ResourceVersion != m.ResourceVersion {
		return nil, conflict(r, m.Name)
	}
	m = m.DeepCopy()
	if change.Metadata.OwnerReferences != nil {
		m.OwnerReferences = *change.Metadata.OwnerReferences
	}
	if change.Metadata.Finalizers != nil {
		m.Finalizers = *change.Metadata.Finalizers
	}
	s.put(r, m)
	return m.DeepCopy(), nil
}
