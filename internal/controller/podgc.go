package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
)

const (
	// maxFinished is how many ended pods are kept (--terminated-pod-gc-threshold).
	maxFinished = 12500
	// nodeQuarantine is how long a node must be gone before its pods are deleted: a node may be replaced.
	nodeQuarantine = 40 * time.Second
)

// podCollector deletes pods that nobody else does: those of nodes that are gone, those that are deleted but were never
// given to a node, those of a node that is out of service, and the oldest of too many that ended (docs: "Pod Lifecycle", "Pod garbage
// collection"). Keys are node names, pods (namespace/name), and keyFinished.
type podCollector struct {
	*part
	nodes corelisters.NodeLister
	limit int
	ended *endedPods
}

const keyFinished = "finished/"

func (c *Controllers) addPodCollector() {
	nodes := c.informers.Core().V1().Nodes()
	p := c.add("pod garbage collector", "pod-garbage-collector")
	g := &podCollector{part: p, nodes: nodes.Lister(), limit: maxFinished, ended: &endedPods{}}
	followChanges(p, nodes.Informer(), func(_, node *corev1.Node) {
		if outOfService(node) {
			p.queue.Add(node.Name)
		}
	}, func(node *corev1.Node) { p.queue.AddAfter(node.Name, nodeQuarantine) })
	followChanges(p, c.podIndex().informer, func(old, pod *corev1.Pod) {
		g.look(pod)
		if n := g.ended.change(old, pod); n > g.limit {
			p.queue.Add(keyFinished)
		}
	}, func(pod *corev1.Pod) { g.ended.change(pod, nil) })
	p.work(1, g.sync)
}

// look queues what a pod may need.
func (g *podCollector) look(pod *corev1.Pod) {
	if pod.DeletionTimestamp != nil && pod.Spec.NodeName == "" {
		g.queue.Add(keyOf(pod))
	}
	if pod.Spec.NodeName == "" {
		return
	}
	node, err := g.nodes.Get(pod.Spec.NodeName)
	switch {
	case err != nil: // unless the node comes meanwhile
		g.queue.AddAfter(pod.Spec.NodeName, nodeQuarantine)
	case pod.DeletionTimestamp != nil && outOfService(node):
		g.queue.Add(node.Name)
	}
}

// outOfService reports whether someone vouches that nothing runs on a node any more (docs: "Non-graceful node shutdown").
func outOfService(node *corev1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
			return false
		}
	}
	return slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
}

func (g *podCollector) sync(ctx context.Context, key string) error {
	if key == keyFinished {
		return g.trim(ctx)
	}
	if namespace, name := splitKey(key); namespace != "" {
		pod := g.pods.get(namespace, name)
		if pod == nil || pod.DeletionTimestamp == nil || pod.Spec.NodeName != "" {
			return nil
		}
		return g.end(ctx, pod, nil)
	}
	node, err := g.nodes.Get(key)
	if err == nil && !outOfService(node) {
		return nil
	}
	if err != nil {
		// The informer may be behind: the server decides.
		if _, err := g.client.CoreV1().Nodes().Get(ctx, key, metav1.GetOptions{}); err == nil || !apierrors.IsNotFound(err) {
			return err
		}
	}
	for _, pod := range g.pods.onNode(key) {
		var why *corev1.PodCondition
		switch {
		case node == nil:
			why = &corev1.PodCondition{Reason: "DeletionByPodGC", Message: "PodGC: node no longer exists"}
		case pod.DeletionTimestamp == nil || slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool { return t.Key == corev1.TaintNodeOutOfService }):
			continue
		}
		if err := g.end(ctx, pod, why); err != nil {
			return err
		}
	}
	return nil
}

// end deletes a pod at once. A pod that had not ended is failed first, so that its controller learns of it.
func (g *podCollector) end(ctx context.Context, pod *corev1.Pod, why *corev1.PodCondition) error {
	if !finished(pod) {
		status := map[string]any{"phase": corev1.PodFailed}
		if why != nil {
			why.Type, why.Status, why.LastTransitionTime, why.ObservedGeneration = corev1.DisruptionTarget, corev1.ConditionTrue, metav1.Now(), pod.Generation
			status["conditions"] = []*corev1.PodCondition{why}
		}
		body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": status})
		if err != nil {
			return err
		}
		if _, err := g.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status"); err != nil {
			return ignore(err, apierrors.IsNotFound)
		}
	}
	now := int64(0)
	err := g.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	if err == nil {
		g.Log.Info("pod ended", "namespace", pod.Namespace, "name", pod.Name, "node", pod.Spec.NodeName)
	}
	return ignore(err, apierrors.IsNotFound, apierrors.IsConflict)
}

// trim deletes the oldest of too many pods that ended.
func (g *podCollector) trim(ctx context.Context) error {
	all, err := g.pods.lister.List(labels.Everything())
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(slices.Clone(all), func(pod *corev1.Pod) bool { return !finished(pod) || pod.DeletionTimestamp != nil })
	slices.SortFunc(all, func(a, b *corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	for i := range max(0, len(all)-g.limit) {
		if err := g.end(ctx, all[i], nil); err != nil {
			return fmt.Errorf("delete pods that ended: %w", err)
		}
	}
	return nil
}
