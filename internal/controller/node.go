package controller

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	coordinationlisters "k8s.io/client-go/listers/coordination/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// nodeGrace is how long after its last sign of life a node counts as lost
// (--node-monitor-grace-period of kube-controller-manager 1.37).
const nodeGrace = 50 * time.Second

// lostMessage is what kube-controller-manager writes into the conditions of a lost node.
const lostMessage = "Kubelet stopped posting node status."

// nodeWatch taints nodes by their conditions and notices those that fall silent.
type nodeWatch struct {
	client kubernetes.Interface
	nodes  corelisters.NodeLister
	leases coordinationlisters.LeaseNamespaceLister
	queue  *queue
	now    func() time.Time
}

func (c *Controllers) addNodes() {
	nodes := c.informers.Core().V1().Nodes()
	leases := c.informers.Coordination().V1().Leases()
	w := &nodeWatch{
		client: c.as("node-controller"), nodes: nodes.Lister(), leases: leases.Lister().Leases(corev1.NamespaceNodeLease),
		queue: c.newQueue("node"), now: time.Now,
	}
	c.follow(nodes.Informer(), func(obj any) { w.queue.Add(obj.(*corev1.Node).Name) })
	c.synced = append(c.synced, leases.Informer().HasSynced)
	c.work(w.queue, 1, w.sync)
}

func (w *nodeWatch) sync(ctx context.Context, name string) error {
	node, err := w.nodes.Get(name)
	if err != nil {
		return nil //nolint:nilerr // gone
	}
	silent := w.now().Sub(w.lastSign(node))
	if silent < nodeGrace {
		w.queue.AddAfter(name, nodeGrace-silent)
	} else if updated, changed := lost(node, metav1.NewTime(w.now())); changed {
		if node, err = w.client.CoreV1().Nodes().UpdateStatus(ctx, updated, metav1.UpdateOptions{}); err != nil {
			return ignore(err, apierrors.IsNotFound)
		}
	}
	taints := taintsFor(node, metav1.NewTime(w.now()))
	if sameTaints(taints, node.Spec.Taints) {
		return nil
	}
	node = node.DeepCopy()
	node.Spec.Taints = taints
	_, err = w.client.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{})
	return ignore(err, apierrors.IsNotFound)
}

// lastSign is when the node was last heard of: by its Lease or its status.
func (w *nodeWatch) lastSign(node *corev1.Node) time.Time {
	last := node.CreationTimestamp.Time
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status != corev1.ConditionUnknown && c.LastHeartbeatTime.After(last) {
			last = c.LastHeartbeatTime.Time
		}
	}
	if lease, err := w.leases.Get(node.Name); err == nil && lease.Spec.RenewTime != nil && lease.Spec.RenewTime.After(last) {
		last = lease.Spec.RenewTime.Time
	}
	return last
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
