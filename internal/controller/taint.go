package controller

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// evictor deletes pods from nodes with NoExecute taints that they do not tolerate, or no longer (docs: "Taints and
// Tolerations").
type evictor struct {
	*part
	nodes corelisters.NodeLister

	mu    sync.Mutex
	since map[types.UID]time.Time // pods that tolerate the present taints for a time: from when
}

func (c *Controllers) addTaintEviction() {
	nodes := c.informers.Core().V1().Nodes()
	// Parity: the controller has no role of its own; it acts with the node controller's.
	p := c.add("taint eviction", "node-controller")
	p.tells("taint-eviction-controller")
	e := &evictor{part: p, nodes: nodes.Lister(), since: map[types.UID]time.Time{}}
	pods := c.podIndex()
	followChanges(p, nodes.Informer(), func(old, node *corev1.Node) {
		if len(noExecute(node)) == 0 && (old == nil || len(noExecute(old)) == 0) {
			return
		}
		for _, pod := range pods.onNode(node.Name) {
			p.queue.Add(keyOf(pod))
		}
	}, func(*corev1.Node) {})
	followChanges(p, pods.informer, func(_, pod *corev1.Pod) {
		if node, err := e.nodes.Get(pod.Spec.NodeName); err == nil && len(noExecute(node)) > 0 {
			p.queue.Add(keyOf(pod))
		}
	}, func(pod *corev1.Pod) { e.forget(pod.UID) })
	p.work(2, e.sync)
}

func noExecute(node *corev1.Node) (taints []corev1.Taint) {
	for _, t := range node.Spec.Taints {
		if t.Effect == corev1.TaintEffectNoExecute {
			taints = append(taints, t)
		}
	}
	return taints
}

func (e *evictor) forget(uid types.UID) (was bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, was = e.since[uid]
	delete(e.since, uid)
	return was
}

func (e *evictor) sync(ctx context.Context, key string) error {
	namespace, name := splitKey(key)
	pod := e.pods.get(namespace, name)
	if pod == nil || pod.DeletionTimestamp != nil || pod.Spec.NodeName == "" {
		return nil
	}
	node, err := e.nodes.Get(pod.Spec.NodeName)
	if err != nil {
		return nil //nolint:nilerr // gone: its pods are the pod garbage collector's
	}
	taints := noExecute(node)
	if len(taints) == 0 {
		if e.forget(pod.UID) {
			e.events.normal(pod, "TaintManagerEviction", "Cancelling deletion of Pod %s", key)
		}
		return nil
	}
	stay, tolerated := toleratedFor(taints, pod.Spec.Tolerations)
	switch {
	case !tolerated:
		return e.evict(ctx, pod)
	case stay < 0: // for ever
		e.forget(pod.UID)
		return nil
	}
	now := time.Now()
	e.mu.Lock()
	since, known := e.since[pod.UID]
	if !known {
		since = now
		e.since[pod.UID] = since
	}
	e.mu.Unlock()
	if at := since.Add(stay); now.Before(at) {
		e.queue.AddAfter(key, until(now, at))
		return nil
	}
	return e.evict(ctx, pod)
}

// toleratedFor is how long taints are tolerated, together: the shortest time of the tolerations in use, negative for ever.
func toleratedFor(taints []corev1.Taint, tolerations []corev1.Toleration) (stay time.Duration, ok bool) {
	stay = -1
	for i := range taints {
		tolerated := false
		for j := range tolerations {
			if !tolerates(&tolerations[j], &taints[i]) {
				continue
			}
			tolerated = true
			if s := tolerations[j].TolerationSeconds; s != nil {
				if d := time.Duration(max(0, *s)) * time.Second; stay < 0 || d < stay {
					stay = d
				}
			}
			break // the first that fits counts
		}
		if !tolerated {
			return 0, false
		}
	}
	return stay, true
}

// tolerates reports whether a toleration is for a taint (docs: "Taints and Tolerations").
func tolerates(t *corev1.Toleration, taint *corev1.Taint) bool {
	if t.Effect != "" && t.Effect != taint.Effect || t.Key != "" && t.Key != taint.Key {
		return false
	}
	switch t.Operator {
	case "", corev1.TolerationOpEqual:
		return t.Value == taint.Value
	case corev1.TolerationOpExists:
		return true
	}
	return false
}

func (e *evictor) evict(ctx context.Context, pod *corev1.Pod) error {
	e.events.normal(pod, "TaintManagerEviction", "Marking for deletion Pod %s", keyOf(pod))
	why := corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "DeletionByTaintManager", Message: "Taint manager: deleting due to NoExecute taint",
		LastTransitionTime: metav1.Now(), ObservedGeneration: pod.Generation,
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": map[string]any{"conditions": []corev1.PodCondition{why}}})
	if err != nil {
		return err
	}
	if _, err := e.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status"); err != nil {
		return gone(err)
	}
	e.forget(pod.UID)
	err = e.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	return ignore(err, apierrors.IsNotFound, apierrors.IsConflict)
}
