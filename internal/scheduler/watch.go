package scheduler

import (
	"context"
	"fmt"
	"maps"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	coreinformers "k8s.io/client-go/informers/core/v1"
	informer "k8s.io/client-go/tools/cache"
)

// watches brings the cluster's changes to the cache first, then to the queue.
type watches struct {
	s          *Scheduler
	pods       informer.SharedIndexInformer
	nodes      informer.SharedIndexInformer
	namespaces informer.SharedIndexInformer
	volumes    *volumes
	synced     []informer.DoneChecker

	ctx   context.Context // of Run, for watches that begin later
	group *sync.WaitGroup
}

// listers is what plugins may look up beside nodes and pods.
type listers struct {
	// namespaceLabels is empty for a namespace not known.
	namespaceLabels func(name string) labels.Set
	volumes         *volumes
}

// unfinishedPods leaves out pods that occupy nothing any more.
const unfinishedPods = "status.phase!=" + string(v1.PodSucceeded) + ",status.phase!=" + string(v1.PodFailed)

func newWatches(s *Scheduler) *watches {
	all := metav1.NamespaceAll
	w := &watches{
		s: s,
		pods: coreinformers.NewFilteredPodInformer(s.client, all, 0, informer.Indexers{}, func(o *metav1.ListOptions) {
			o.FieldSelector = unfinishedPods
		}),
		nodes:      coreinformers.NewNodeInformer(s.client, 0, informer.Indexers{}),
		namespaces: coreinformers.NewNamespaceInformer(s.client, 0, informer.Indexers{}),
	}
	w.volumes = newVolumes(s.client, w)
	return w
}

func (w *watches) listers() listers {
	return listers{
		volumes: w.volumes,
		namespaceLabels: func(name string) labels.Set {
			obj, ok, err := w.namespaces.GetStore().GetByKey(name)
			if !ok || err != nil {
				return nil
			}
			return obj.(*v1.Namespace).Labels
		},
	}
}

// start begins to watch.
func (w *watches) start(ctx context.Context, group *sync.WaitGroup) error {
	w.ctx, w.group = ctx, group
	for _, x := range []struct {
		name    string
		watch   informer.SharedIndexInformer
		handler informer.ResourceEventHandler
	}{
		{"nodes", w.nodes, typed(w.nodeAdded, w.nodeUpdated, w.nodeDeleted)},
		{"pods", w.pods, typed(w.podAdded, w.podUpdated, w.podDeleted)},
		{"namespaces", w.namespaces, typed(w.namespaceAdded, w.namespaceUpdated, func(*v1.Namespace) {})},
	} {
		checker, err := w.run(x.name, x.watch, x.handler)
		if err != nil {
			return err
		}
		w.synced = append(w.synced, checker)
	}
	return nil
}

// run begins one watch; the checker is done once handler has seen what there
// was.
func (w *watches) run(name string, watch informer.SharedIndexInformer, handler informer.ResourceEventHandler) (informer.DoneChecker, error) {
	if err := watch.SetTransform(slim); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := watch.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *informer.Reflector, err error) {
		w.s.log.Warn("watching", "resource", name, "err", err)
	}); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	registration, err := watch.AddEventHandler(handler)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	w.group.Go(func() { watch.RunWithContext(w.ctx) })
	return registration.HasSyncedChecker(), nil
}

// wait blocks until the cache has what there was at the start; false if ctx ended.
func (w *watches) wait(ctx context.Context) bool {
	return informer.WaitFor(ctx, "", w.synced...)
}

// slim drops, before an object is kept, what nobody here reads: of a typical
// pod two thirds.
func slim(obj any) (any, error) {
	if pod, ok := obj.(*v1.Pod); ok {
		return slimPod(pod), nil
	}
	if m, err := meta.Accessor(obj); err == nil {
		m.SetManagedFields(nil)
	}
	return obj, nil
}

func slimPod(pod *v1.Pod) *v1.Pod {
	c := *pod
	c.ManagedFields, c.Annotations = nil, nil
	c.Spec.Containers = slimContainers(pod.Spec.Containers)
	c.Spec.InitContainers = slimContainers(pod.Spec.InitContainers)
	c.Spec.EphemeralContainers = nil
	c.Spec.Volumes = nil
	for i := range pod.Spec.Volumes {
		v := pod.Spec.Volumes[i]
		if claim, _ := claimOf(pod, &v); claim != "" || isExclusiveDisk(v) || v.Image != nil {
			c.Spec.Volumes = append(c.Spec.Volumes, v)
		}
	}
	c.Status.ContainerStatuses = slimStatuses(pod.Status.ContainerStatuses)
	c.Status.InitContainerStatuses = slimStatuses(pod.Status.InitContainerStatuses)
	c.Status.EphemeralContainerStatuses = nil
	return &c
}

func slimContainers(containers []v1.Container) []v1.Container {
	out := make([]v1.Container, len(containers))
	for i := range containers {
		c := &containers[i]
		out[i] = v1.Container{Name: c.Name, Image: c.Image, Ports: c.Ports, Resources: c.Resources, RestartPolicy: c.RestartPolicy}
	}
	return out
}

func slimStatuses(statuses []v1.ContainerStatus) []v1.ContainerStatus {
	var out []v1.ContainerStatus
	for i := range statuses {
		if s := &statuses[i]; s.Resources != nil || s.AllocatedResources != nil {
			out = append(out, v1.ContainerStatus{Name: s.Name, Resources: s.Resources, AllocatedResources: s.AllocatedResources})
		}
	}
	return out
}

// typed is a handler of T. A deletion that the watch missed comes with the
// last state known.
func typed[T any](added func(T), updated func(old, now T), deleted func(T)) informer.ResourceEventHandler {
	return informer.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { added(obj.(T)) },
		UpdateFunc: func(old, now any) { updated(old.(T), now.(T)) },
		DeleteFunc: func(obj any) {
			if lost, ok := obj.(informer.DeletedFinalStateUnknown); ok {
				obj = lost.Obj
			}
			if t, ok := obj.(T); ok {
				deleted(t)
			}
		},
	}
}

func (w *watches) nodeAdded(node *v1.Node) {
	w.s.cache.setNode(node)
	w.s.queue.happened(Event{Kind: NodeAdded, Node: node})
}

func (w *watches) nodeUpdated(old, now *v1.Node) {
	if old.UID != now.UID {
		w.nodeDeleted(old)
		w.nodeAdded(now)
		return
	}
	changed := nodeChanged(old, now)
	if !changed && !imagesChanged(old, now) {
		return // a heartbeat
	}
	w.s.cache.setNode(now)
	if changed {
		w.s.queue.happened(Event{Kind: NodeUpdated, OldNode: old, Node: now})
	}
}

func (w *watches) nodeDeleted(node *v1.Node) {
	w.s.cache.removeNode(node.Name)
	w.s.queue.happened(Event{Kind: NodeDeleted, OldNode: node})
}

// A pod is, to the scheduler, on a node, or waiting for it, or neither: another
// scheduler's, gated, going, or finished.

func onNode(pod *v1.Pod) bool { return pod.Spec.NodeName != "" && !finished(pod) }

func finished(pod *v1.Pod) bool {
	return pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed
}

func (w *watches) waiting(pod *v1.Pod) bool {
	return pod.Spec.NodeName == "" && pod.Spec.SchedulerName == w.s.name && len(pod.Spec.SchedulingGates) == 0 &&
		pod.DeletionTimestamp == nil && !finished(pod)
}

func (w *watches) podAdded(pod *v1.Pod) {
	switch {
	case onNode(pod):
		w.s.cache.setPod(newPodInfo(pod))
		w.s.queue.remove(idOf(pod)) // assumed, or assigned by others
		w.s.nominated.remove(idOf(pod))
		w.s.queue.happened(Event{Kind: PodAssigned, Pod: pod})
	case w.waiting(pod):
		if pod.Status.NominatedNodeName != "" {
			w.s.nominated.set(newPodInfo(pod))
		}
		w.s.queue.add(pod)
	}
}

func (w *watches) podUpdated(old, now *v1.Pod) {
	if old.UID != now.UID {
		w.podDeleted(old)
		w.podAdded(now)
		return
	}
	switch {
	case onNode(now) && onNode(old):
		w.s.cache.setPod(newPodInfo(now))
		if old.DeletionTimestamp == nil != (now.DeletionTimestamp == nil) || !maps.Equal(old.Labels, now.Labels) || resourcesChanged(old, now) {
			w.s.queue.happened(Event{Kind: PodUpdated, OldPod: old, Pod: now})
		}
	case onNode(now):
		w.podAdded(now)
	case w.waiting(now):
		if old.Status.NominatedNodeName != now.Status.NominatedNodeName {
			w.s.nominated.set(newPodInfo(now))
		}
		w.s.queue.add(now)
	default:
		w.podDeleted(now)
	}
}

// podDeleted also serves pods that finished or are no longer ours.
func (w *watches) podDeleted(pod *v1.Pod) {
	id := idOf(pod)
	w.s.queue.remove(id)
	w.s.nominated.remove(id)
	if w.s.cache.removePod(id) {
		w.s.queue.happened(Event{Kind: PodRemoved, OldPod: pod})
	}
}

// resourcesChanged reports whether pod may occupy another amount than before.
func resourcesChanged(old, now *v1.Pod) bool {
	return !podRequests(old, false).minus(podRequests(now, false)).isZero()
}

func (w *watches) namespaceAdded(ns *v1.Namespace) {
	w.s.queue.happened(Event{Kind: NamespaceChanged})
}

func (w *watches) namespaceUpdated(old, now *v1.Namespace) {
	if !maps.Equal(old.Labels, now.Labels) {
		w.s.queue.happened(Event{Kind: NamespaceChanged})
	}
}
