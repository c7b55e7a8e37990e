package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// nodeGrace is how long after its last sign of life a node counts as lost
// (--node-monitor-grace-period of kube-controller-manager 1.37).
const nodeGrace = 50 * time.Second

// nodeLate is how much later than it meant to the controller may judge a node: a node gives a sign of life as often. If it
// was held up for longer, so may have been what nodes said meanwhile, and it listens once more for that long.
const nodeLate = 10 * time.Second

// lostMessage is what kube-controller-manager writes into the conditions of a lost node.
const lostMessage = "Kubelet stopped posting node status."

// ttlAnnotation tells kubelets how long they may keep secrets and config maps; 0 for clusters of up to 100 nodes.
const ttlAnnotation = "node.alpha.kubernetes.io/ttl"

// nodeWatch taints nodes by their conditions and notices those that fall silent.
type nodeWatch struct {
	*part
	nodes corelisters.NodeLister
	pods  *podIndex

	mu    sync.Mutex
	signs map[string]sign
}

// sign is the last sign of life of a node. When it came is by our own clock: a node has the whole grace after a restart
// of the controllers, and its clock need not agree with ours.
type sign struct {
	lease, heartbeat time.Time
	at               time.Time
	judged           time.Time // when it is to be judged, unless it gives another; zero: it was
}

func (c *Controllers) addNodes() {
	nodes := c.informers.Core().V1().Nodes()
	p := c.add("node", "node-controller")
	p.tells("node-controller")
	w := &nodeWatch{part: p, nodes: nodes.Lister(), pods: c.podIndex(), signs: map[string]sign{}}
	p.wait(w.pods.informer)
	followChanges(p, nodes.Informer(), func(_, node *corev1.Node) {
		w.note(node.Name, nil, node)
		p.queue.Add(node.Name)
	}, func(node *corev1.Node) {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.signs, node.Name)
	})
	// Leases of nodes only: others are renewed often too.
	named := informers.NewSharedInformerFactoryWithOptions(c.client, 0, informers.WithTransform(lean), informers.WithNamespace(corev1.NamespaceNodeLease))
	c.starts = append(c.starts, func(ctx context.Context) { named.Start(ctx.Done()) })
	followChanges(p, named.Coordination().V1().Leases().Informer(), func(_, lease *coordinationv1.Lease) {
		w.note(lease.Name, lease, nil)
	}, func(*coordinationv1.Lease) {})
	p.work(1, w.sync)

	ttl := c.add("ttl", "ttl-controller")
	follow(ttl, nodes.Informer(), func(node *corev1.Node) {
		if _, ok := node.Annotations[ttlAnnotation]; !ok && node.DeletionTimestamp == nil {
			ttl.queue.Add(node.Name)
		}
	})
	ttl.work(1, func(ctx context.Context, name string) error {
		patch := []byte(`{"metadata":{"annotations":{"` + ttlAnnotation + `":"0"}}}`)
		_, err := ttl.client.CoreV1().Nodes().Patch(ctx, name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
		return gone(err)
	})
}

// note keeps when a node gave a sign of life that it had not given before.
func (w *nodeWatch) note(name string, lease *coordinationv1.Lease, node *corev1.Node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, known := w.signs[name]
	if !known {
		if node == nil { // a lease without node
			return
		}
		s.at = time.Now()
	}
	if lease != nil && lease.Spec.RenewTime != nil && !lease.Spec.RenewTime.Time.Equal(s.lease) {
		s.lease, s.at = lease.Spec.RenewTime.Time, time.Now()
	}
	if node != nil {
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && !c.LastHeartbeatTime.Time.Equal(s.heartbeat) {
				s.heartbeat, s.at = c.LastHeartbeatTime.Time, time.Now()
			}
		}
	}
	w.signs[name] = s
}

func (w *nodeWatch) sync(ctx context.Context, name string) error {
	node, err := w.nodes.Get(name)
	if err != nil {
		return nil //nolint:nilerr // gone
	}
	now := time.Now()
	if again, err := w.listen(ctx, name, now); err != nil {
		return err
	} else if again > 0 {
		w.queue.AddAfter(name, again)
	} else if updated, changed := lost(node, metav1.NewTime(now)); changed {
		if node, err = w.client.CoreV1().Nodes().UpdateStatus(ctx, updated, metav1.UpdateOptions{}); err != nil {
			return gone(err)
		}
		w.events.normal(node, "NodeNotReady", "Node %s status is now: NodeNotReady", name)
	}
	if taints := taintsFor(node, metav1.NewTime(now)); !sameTaints(taints, node.Spec.Taints) {
		node = node.DeepCopy()
		node.Spec.Taints = taints
		if _, err = w.client.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{}); err != nil {
			return gone(err)
		}
	}
	if i := slices.IndexFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == corev1.NodeReady }); i >= 0 && node.Status.Conditions[i].Status != corev1.ConditionTrue {
		return w.markNotReady(ctx, name)
	}
	return nil
}

// listen is how long a node has to be listened to before it is judged; 0: now. Before a node counts as lost the server is asked for its
// Lease: our informer may be behind.
func (w *nodeWatch) listen(ctx context.Context, name string, now time.Time) (time.Duration, error) {
	if again := w.await(name, now); again > 0 {
		return again, nil
	}
	leases, err := w.Controllers.client.CoordinationV1().Leases(corev1.NamespaceNodeLease).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String(),
	})
	if err != nil {
		return 0, fmt.Errorf("look up the Lease of node %s: %w", name, err)
	}
	for i := range leases.Items {
		if leases.Items[i].Name == name {
			w.note(name, &leases.Items[i], nil)
		}
	}
	return w.await(name, now), nil
}

// await is how long after now a node is to be judged by the signs that are known; 0: it is silent.
func (w *nodeWatch) await(name string, now time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, known := w.signs[name]
	if !known { // it has just been deleted
		return nodeGrace
	}
	if least := now.Add(nodeLate - nodeGrace); !s.judged.IsZero() && now.Sub(s.judged) > nodeLate && s.at.Before(least) {
		s.at = least // we were held up
	}
	again := time.Duration(0)
	if heard := s.at.Add(nodeGrace); now.Before(heard) {
		again, s.judged = until(now, heard), heard
	} else {
		s.judged = time.Time{}
	}
	w.signs[name] = s
	return again
}

// markNotReady takes the readiness of the pods of a node that cannot be ready, so that services leave them out.
func (w *nodeWatch) markNotReady(ctx context.Context, node string) error {
	var failed []error
	for _, pod := range w.pods.onNode(node) {
		i := slices.IndexFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady })
		if i < 0 || pod.Status.Conditions[i].Status != corev1.ConditionTrue {
			continue
		}
		pod = pod.DeepCopy()
		pod.Status.Conditions[i].Status = corev1.ConditionFalse
		pod.Status.Conditions[i].LastTransitionTime = metav1.Now()
		if _, err := w.client.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{}); err != nil {
			failed = append(failed, gone(err))
			continue
		}
		w.events.warn(pod, "NodeNotReady", "Node is not ready")
	}
	return errors.Join(failed...)
}

// lost sets the conditions that a node reports itself to Unknown.
func lost(node *corev1.Node, now metav1.Time) (updated *corev1.Node, changed bool) {
	updated = node.DeepCopy()
	for _, t := range []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		i := slices.IndexFunc(updated.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == t })
		if i < 0 {
			updated.Status.Conditions = append(updated.Status.Conditions, corev1.NodeCondition{
				Type: t, Status: corev1.ConditionUnknown, Reason: "NodeStatusNeverUpdated", Message: "Kubelet never posted node status.",
				LastHeartbeatTime: node.CreationTimestamp, LastTransitionTime: now,
			})
			changed = true
			continue
		}
		if c := &updated.Status.Conditions[i]; c.Status != corev1.ConditionUnknown {
			c.Status, c.Reason, c.Message, c.LastTransitionTime = corev1.ConditionUnknown, "NodeStatusUnknown", lostMessage, now
			changed = true
		}
	}
	return updated, changed
}

// conditionTaints are the taints that follow from conditions (docs: "Taint Nodes by Condition").
var conditionTaints = map[corev1.NodeConditionType]map[corev1.ConditionStatus]string{
	corev1.NodeReady:              {corev1.ConditionFalse: corev1.TaintNodeNotReady, corev1.ConditionUnknown: corev1.TaintNodeUnreachable},
	corev1.NodeMemoryPressure:     {corev1.ConditionTrue: corev1.TaintNodeMemoryPressure},
	corev1.NodeDiskPressure:       {corev1.ConditionTrue: corev1.TaintNodeDiskPressure},
	corev1.NodePIDPressure:        {corev1.ConditionTrue: corev1.TaintNodePIDPressure},
	corev1.NodeNetworkUnavailable: {corev1.ConditionTrue: corev1.TaintNodeNetworkUnavailable},
}

// ours are the keys that this controller alone manages.
var ours = []string{
	corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, corev1.TaintNodeMemoryPressure, corev1.TaintNodeDiskPressure,
	corev1.TaintNodePIDPressure, corev1.TaintNodeNetworkUnavailable, corev1.TaintNodeUnschedulable,
}

// taintsFor is the taints that a node should have: those of others, and ours by its conditions.
func taintsFor(node *corev1.Node, now metav1.Time) []corev1.Taint {
	var taints []corev1.Taint
	for _, t := range node.Spec.Taints {
		if !slices.Contains(ours, t.Key) {
			taints = append(taints, t)
		}
	}
	add := func(key string, effect corev1.TaintEffect) {
		for _, t := range node.Spec.Taints {
			if t.Key == key && t.Effect == effect {
				taints = append(taints, t)
				return
			}
		}
		t := corev1.Taint{Key: key, Effect: effect}
		if effect == corev1.TaintEffectNoExecute {
			t.TimeAdded = &now
		}
		taints = append(taints, t)
	}
	ready := false
	for _, c := range node.Status.Conditions {
		key := conditionTaints[c.Type][c.Status]
		ready = ready || c.Type == corev1.NodeReady
		if key == "" {
			continue
		}
		add(key, corev1.TaintEffectNoSchedule)
		if c.Type == corev1.NodeReady {
			add(key, corev1.TaintEffectNoExecute)
		}
	}
	if !ready { // it has not reported yet
		add(corev1.TaintNodeNotReady, corev1.TaintEffectNoSchedule)
	}
	if node.Spec.Unschedulable {
		add(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)
	}
	return taints
}

// sameTaints compares without order.
func sameTaints(a, b []corev1.Taint) bool {
	if len(a) != len(b) {
		return false
	}
	for _, t := range a {
		if !slices.ContainsFunc(b, func(o corev1.Taint) bool { return o.MatchTaint(&t) && o.Value == t.Value }) {
			return false
		}
	}
	return true
}
