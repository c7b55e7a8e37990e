package controller

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// podIndex finds pods by their controller and by their node. It is shared by all controllers.
type podIndex struct {
	informer cache.SharedIndexInformer
	lister   corelisters.PodLister
}

const (
	byController = "controller" // the uid of the controller, or orphans/<namespace>
	byNode       = "node"
	orphanPrefix = "orphans/"
)

// podIndex returns the one index over the shared informer of pods.
func (c *Controllers) podIndex() *podIndex {
	if c.pods != nil {
		return c.pods
	}
	pods := c.informers.Core().V1().Pods()
	c.pods = &podIndex{informer: pods.Informer(), lister: pods.Lister()}
	err := c.pods.informer.AddIndexers(cache.Indexers{
		byController: func(obj any) ([]string, error) {
			pod := obj.(*corev1.Pod)
			if ref := metav1.GetControllerOfNoCopy(pod); ref != nil {
				return []string{string(ref.UID)}, nil
			}
			return []string{orphanPrefix + pod.Namespace}, nil
		},
		byNode: func(obj any) ([]string, error) {
			if node := obj.(*corev1.Pod).Spec.NodeName; node != "" {
				return []string{node}, nil
			}
			return nil, nil
		},
	})
	if err != nil {
		panic(err) // the names are new and the informer has not started
	}
	return c.pods
}

func (x *podIndex) indexed(index, value string) []*corev1.Pod {
	objs, err := x.informer.GetIndexer().ByIndex(index, value)
	if err != nil {
		panic(err) // the index is there
	}
	pods := make([]*corev1.Pod, len(objs))
	for i := range objs {
		pods[i] = objs[i].(*corev1.Pod)
	}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return cmpNames(a, b) })
	return pods
}

func (x *podIndex) ownedBy(uid types.UID) []*corev1.Pod { return x.indexed(byController, string(uid)) }
func (x *podIndex) onNode(name string) []*corev1.Pod    { return x.indexed(byNode, name) }
func (x *podIndex) orphans(namespace string) []*corev1.Pod {
	return x.indexed(byController, orphanPrefix+namespace)
}

func (x *podIndex) get(namespace, name string) *corev1.Pod {
	pod, err := x.lister.Pods(namespace).Get(name)
	if err != nil {
		return nil
	}
	return pod
}

func cmpNames(a, b metav1.Object) int {
	if a.GetName() < b.GetName() {
		return -1
	} else if a.GetName() > b.GetName() {
		return 1
	}
	return 0
}

// finished reports whether a pod's containers have all ended for good.
func finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// active reports whether a pod runs or will.
func active(pod *corev1.Pod) bool { return !finished(pod) && pod.DeletionTimestamp == nil }

// readySince returns when a pod became ready; ok is false if it is not.
func readySince(pod *corev1.Pod) (since time.Time, ok bool) {
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == corev1.PodReady {
			return c.LastTransitionTime.Time, c.Status == corev1.ConditionTrue
		}
	}
	return time.Time{}, false
}

func ready(pod *corev1.Pod) bool {
	_, ok := readySince(pod)
	return ok
}

// available reports whether a pod has been ready for minReady seconds; if it is ready but not yet that long, again is
// how long it still takes.
func available(pod *corev1.Pod, minReady int32, now time.Time) (ok bool, again time.Duration) {
	since, isReady := readySince(pod)
	if !isReady {
		return false, 0
	}
	at := since.Add(time.Duration(minReady) * time.Second)
	if minReady == 0 || !since.IsZero() && !now.Before(at) {
		return true, 0
	}
	return false, until(now, at)
}
