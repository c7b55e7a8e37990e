package controller

import (
	"context"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	appslisters "k8s.io/client-go/listers/apps/v1"
	policylisters "k8s.io/client-go/listers/policy/v1"
)

// evictionTimeout is when a pod that was evicted and still runs counts as not evicted.
const evictionTimeout = 2 * time.Minute

// disruption fills in how many pods of a budget may be evicted now (docs: "Specifying a Disruption Budget"). How many pods
// there should be is known of Deployments, ReplicaSets, StatefulSets and ReplicationControllers; of other owners their
// present pods count.
type disruption struct {
	*part
	budgets     policylisters.PodDisruptionBudgetLister
	sets        appslisters.ReplicaSetLister
	deployments appslisters.DeploymentLister
	stateful    appslisters.StatefulSetLister
	replicas    func(namespace, name string) (*int32, types.UID)
}

func (c *Controllers) addDisruption() {
	budgets, apps := c.informers.Policy().V1().PodDisruptionBudgets(), c.informers.Apps().V1()
	rcs := c.informers.Core().V1().ReplicationControllers()
	p := c.add("disruption", "disruption-controller")
	p.tells("controllermanager")
	d := &disruption{part: p, budgets: budgets.Lister(), sets: apps.ReplicaSets().Lister(), deployments: apps.Deployments().Lister(), stateful: apps.StatefulSets().Lister()}
	d.replicas = func(namespace, name string) (*int32, types.UID) {
		rc, err := rcs.Lister().ReplicationControllers(namespace).Get(name)
		if err != nil {
			return nil, ""
		}
		return rc.Spec.Replicas, rc.UID
	}
	p.wait(apps.ReplicaSets().Informer(), rcs.Informer())
	follow(p, budgets.Informer(), func(b *policyv1.PodDisruptionBudget) { p.queue.Add(keyOf(b)) })
	tell := func(namespace string, set map[string]string) {
		all, _ := d.budgets.PodDisruptionBudgets(namespace).List(labels.Everything()) // a lister of an informer does not fail
		for _, b := range all {
			if selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector); err == nil && selector.Matches(labels.Set(set)) {
				p.queue.Add(keyOf(b))
			}
		}
	}
	followChanges(p, c.podIndex().informer, func(old, pod *corev1.Pod) {
		if old != nil && !equality.Semantic.DeepEqual(old.Labels, pod.Labels) {
			tell(old.Namespace, old.Labels)
		}
		tell(pod.Namespace, pod.Labels)
	}, func(pod *corev1.Pod) { tell(pod.Namespace, pod.Labels) })
	followChanges(p, apps.Deployments().Informer(), func(old, o *appsv1.Deployment) {
		if old == nil || replicasOf(old.Spec.Replicas) != replicasOf(o.Spec.Replicas) {
			tell(o.Namespace, o.Spec.Template.Labels)
		}
	}, func(*appsv1.Deployment) {})
	followChanges(p, apps.StatefulSets().Informer(), func(old, o *appsv1.StatefulSet) {
		if old == nil || replicasOf(old.Spec.Replicas) != replicasOf(o.Spec.Replicas) {
			tell(o.Namespace, o.Spec.Template.Labels)
		}
	}, func(*appsv1.StatefulSet) {})
	p.work(1, d.sync)
}

func (d *disruption) sync(ctx context.Context, key string) error {
	namespace, name := splitKey(key)
	b, err := d.budgets.PodDisruptionBudgets(namespace).Get(name)
	if err != nil {
		return nil //nolint:nilerr // gone
	}
	selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
	if err != nil {
		return nil //nolint:nilerr // nothing can be done until it is changed
	}
	pods, err := d.pods.lister.Pods(namespace).List(selector)
	if err != nil {
		return err
	}
	pods = slices.DeleteFunc(slices.Clone(pods), finished)
	if len(pods) == 0 {
		d.events.normal(b, "NoPods", "No matching pods found")
	}
	now := time.Now()
	status := b.Status.DeepCopy()
	status.ObservedGeneration = b.Generation
	// Evictions that the API server let happen, until their pods are seen to go.
	status.DisruptedPods = nil
	for pod, at := range b.Status.DisruptedPods {
		have := d.pods.get(namespace, pod)
		if have == nil || have.DeletionTimestamp != nil {
			continue
		}
		if until := at.Add(evictionTimeout); now.Before(until) {
			if status.DisruptedPods == nil {
				status.DisruptedPods = map[string]metav1.Time{}
			}
			status.DisruptedPods[pod] = at
			d.queue.AddAfter(key, until.Sub(now)+time.Second)
		}
	}
	status.ExpectedPods, status.DesiredHealthy = d.expect(b, pods)
	status.CurrentHealthy = 0
	for _, pod := range pods {
		if _, going := status.DisruptedPods[pod.Name]; !going && pod.DeletionTimestamp == nil && ready(pod) {
			status.CurrentHealthy++
		}
	}
	status.DisruptionsAllowed = max(0, status.CurrentHealthy-status.DesiredHealthy)
	if status.ExpectedPods <= 0 {
		status.DisruptionsAllowed = 0
	}
	c := metav1.Condition{Type: policyv1.DisruptionAllowedCondition, Status: metav1.ConditionTrue, Reason: policyv1.SufficientPodsReason, ObservedGeneration: b.Generation, LastTransitionTime: metav1.NewTime(now)}
	if status.DisruptionsAllowed == 0 {
		c.Status, c.Reason = metav1.ConditionFalse, policyv1.InsufficientPodsReason
	}
	i := slices.IndexFunc(status.Conditions, func(old metav1.Condition) bool { return old.Type == c.Type })
	if i >= 0 && status.Conditions[i].Status == c.Status {
		c.LastTransitionTime = status.Conditions[i].LastTransitionTime
	}
	status.Conditions = append(slices.DeleteFunc(slices.Clone(status.Conditions), func(old metav1.Condition) bool { return old.Type == c.Type }), c)
	if equality.Semantic.DeepEqual(status, &b.Status) {
		return nil
	}
	b = b.DeepCopy()
	b.Status = *status
	_, err = d.client.PolicyV1().PodDisruptionBudgets(namespace).UpdateStatus(ctx, b, metav1.UpdateOptions{})
	return gone(err)
}

// expect is how many pods there should be, and how many of them have to work.
func (d *disruption) expect(b *policyv1.PodDisruptionBudget, pods []*corev1.Pod) (expected, healthy int32) {
	expected = int32(len(pods))
	scaled := func(v *intstr.IntOrString) int32 {
		if v.Type == intstr.String { // a share of what the owners want
			expected = d.wanted(pods)
		}
		n, err := intstr.GetScaledValueFromIntOrPercent(v, int(expected), true)
		if err != nil { // validation does not let it through
			return 0
		}
		return int32(n)
	}
	switch {
	case b.Spec.MaxUnavailable != nil:
		expected = d.wanted(pods)
		return expected, max(0, expected-scaled(b.Spec.MaxUnavailable))
	case b.Spec.MinAvailable != nil:
		healthy = scaled(b.Spec.MinAvailable)
	}
	return expected, healthy
}

// wanted sums up what the owners of pods want, each owner once.
func (d *disruption) wanted(pods []*corev1.Pod) (n int32) {
	seen := map[types.UID]bool{}
	for _, pod := range pods {
		uid, want, ok := d.ownerOf(pod)
		switch {
		case !ok:
			n++
		case !seen[uid]:
			seen[uid] = true
			n += want
		}
	}
	return n
}

func (d *disruption) ownerOf(pod *corev1.Pod) (uid types.UID, want int32, ok bool) {
	ref := metav1.GetControllerOfNoCopy(pod)
	if ref == nil {
		return "", 0, false
	}
	switch ref.Kind {
	case "ReplicaSet":
		set, err := d.sets.ReplicaSets(pod.Namespace).Get(ref.Name)
		if err != nil || set.UID != ref.UID {
			return "", 0, false
		}
		if up := metav1.GetControllerOfNoCopy(set); up != nil && up.Kind == deploymentKind.Kind {
			if one, err := d.deployments.Deployments(pod.Namespace).Get(up.Name); err == nil && one.UID == up.UID {
				return one.UID, replicasOf(one.Spec.Replicas), true
			}
		}
		return set.UID, replicasOf(set.Spec.Replicas), true
	case "StatefulSet":
		if set, err := d.stateful.StatefulSets(pod.Namespace).Get(ref.Name); err == nil && set.UID == ref.UID {
			return set.UID, replicasOf(set.Spec.Replicas), true
		}
	case "ReplicationController":
		if n, uid := d.replicas(pod.Namespace, ref.Name); uid == ref.UID {
			return uid, replicasOf(n), true
		}
	}
	return "", 0, false
}
