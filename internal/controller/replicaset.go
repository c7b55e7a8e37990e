package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

type runtimeObject = runtime.Object

// replicator keeps as many pods as a ReplicaSet or a ReplicationController asks for (docs: "ReplicaSet"). A
// ReplicationController is handled as the ReplicaSet with the same meaning.
type replicator struct {
	*part
	kind  schema.GroupVersionKind
	x     *expectations
	get   func(namespace, name string) (*appsv1.ReplicaSet, runtime.Object) // nil: gone
	live  func(ctx context.Context, namespace, name string) (metav1.Object, error)
	write func(ctx context.Context, set *appsv1.ReplicaSet, status *appsv1.ReplicaSetStatus) error
}

var replicaSetKind = appsv1.SchemeGroupVersion.WithKind("ReplicaSet")

func (c *Controllers) addReplicaSets() {
	sets := c.informers.Apps().V1().ReplicaSets()
	p := c.add("replicaset", "replicaset-controller")
	p.tells("replicaset-controller")
	r := &replicator{
		part: p, kind: replicaSetKind, x: c.newExpectations(),
		get: func(namespace, name string) (*appsv1.ReplicaSet, runtime.Object) {
			set, err := sets.Lister().ReplicaSets(namespace).Get(name)
			if err != nil {
				return nil, nil
			}
			return set, set
		},
		live: func(ctx context.Context, namespace, name string) (metav1.Object, error) {
			return p.client.AppsV1().ReplicaSets(namespace).Get(ctx, name, metav1.GetOptions{})
		},
		write: func(ctx context.Context, set *appsv1.ReplicaSet, status *appsv1.ReplicaSetStatus) error {
			set = set.DeepCopy()
			set.Status = *status
			_, err := p.client.AppsV1().ReplicaSets(set.Namespace).UpdateStatus(ctx, set, metav1.UpdateOptions{})
			return err
		},
	}
	follow(p, sets.Informer(), func(set *appsv1.ReplicaSet) { p.queue.Add(keyOf(set)) })
	p.followPods(r.owns, func(pod *corev1.Pod) (keys []string) {
		all, _ := sets.Lister().ReplicaSets(pod.Namespace).List(labels.Everything()) // a lister of an informer does not fail
		for _, set := range all {
			if selects(set.Spec.Selector, pod.Labels) {
				keys = append(keys, keyOf(set))
			}
		}
		return keys
	})
	p.work(5, r.sync)
}

var replicationControllerKind = corev1.SchemeGroupVersion.WithKind("ReplicationController")

func (c *Controllers) addReplicationControllers() {
	all := c.informers.Core().V1().ReplicationControllers()
	p := c.add("replicationcontroller", "replication-controller")
	p.tells("replication-controller")
	r := &replicator{
		part: p, kind: replicationControllerKind, x: c.newExpectations(),
		get: func(namespace, name string) (*appsv1.ReplicaSet, runtime.Object) {
			rc, err := all.Lister().ReplicationControllers(namespace).Get(name)
			if err != nil || rc.Spec.Template == nil {
				return nil, nil
			}
			return asReplicaSet(rc), rc
		},
		live: func(ctx context.Context, namespace, name string) (metav1.Object, error) {
			return p.client.CoreV1().ReplicationControllers(namespace).Get(ctx, name, metav1.GetOptions{})
		},
		write: func(ctx context.Context, set *appsv1.ReplicaSet, status *appsv1.ReplicaSetStatus) error {
			rc, err := all.Lister().ReplicationControllers(set.Namespace).Get(set.Name)
			if err != nil {
				return gone(err)
			}
			rc = rc.DeepCopy()
			rc.ResourceVersion = set.ResourceVersion
			rc.Status = corev1.ReplicationControllerStatus{
				Replicas: status.Replicas, FullyLabeledReplicas: status.FullyLabeledReplicas, ReadyReplicas: status.ReadyReplicas,
				AvailableReplicas: status.AvailableReplicas, ObservedGeneration: status.ObservedGeneration,
			}
			for _, c := range status.Conditions {
				rc.Status.Conditions = append(rc.Status.Conditions, corev1.ReplicationControllerCondition{
					Type: corev1.ReplicationControllerConditionType(c.Type), Status: c.Status, LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
				})
			}
			_, err = p.client.CoreV1().ReplicationControllers(set.Namespace).UpdateStatus(ctx, rc, metav1.UpdateOptions{})
			return err
		},
	}
	follow(p, all.Informer(), func(rc *corev1.ReplicationController) { p.queue.Add(keyOf(rc)) })
	p.followPods(r.owns, func(pod *corev1.Pod) (keys []string) {
		list, _ := all.Lister().ReplicationControllers(pod.Namespace).List(labels.Everything()) // as above
		for _, rc := range list {
			if len(rc.Spec.Selector) > 0 && labels.SelectorFromSet(rc.Spec.Selector).Matches(labels.Set(pod.Labels)) {
				keys = append(keys, keyOf(rc))
			}
		}
		return keys
	})
	p.work(5, r.sync)
}

func asReplicaSet(rc *corev1.ReplicationController) *appsv1.ReplicaSet {
	set := &appsv1.ReplicaSet{
		ObjectMeta: rc.ObjectMeta,
		Spec: appsv1.ReplicaSetSpec{
			Replicas: rc.Spec.Replicas, MinReadySeconds: rc.Spec.MinReadySeconds,
			Selector: &metav1.LabelSelector{MatchLabels: rc.Spec.Selector}, Template: *rc.Spec.Template,
		},
		Status: appsv1.ReplicaSetStatus{
			Replicas: rc.Status.Replicas, FullyLabeledReplicas: rc.Status.FullyLabeledReplicas, ReadyReplicas: rc.Status.ReadyReplicas,
			AvailableReplicas: rc.Status.AvailableReplicas, ObservedGeneration: rc.Status.ObservedGeneration,
		},
	}
	for _, c := range rc.Status.Conditions {
		set.Status.Conditions = append(set.Status.Conditions, appsv1.ReplicaSetCondition{
			Type: appsv1.ReplicaSetConditionType(c.Type), Status: c.Status, LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
		})
	}
	return set
}

// selects reports whether a selector that is neither empty nor broken matches.
func selects(s *metav1.LabelSelector, set map[string]string) bool {
	selector, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && !selector.Empty() && selector.Matches(labels.Set(set))
}

// owns is the key of a reference's object if it is of our kind and the one that is there.
func (r *replicator) owns(namespace string, ref *metav1.OwnerReference) string {
	if ref.Kind != r.kind.Kind || !sameGroup(ref, r.kind) {
		return ""
	}
	if set, _ := r.get(namespace, ref.Name); set == nil || set.UID != ref.UID {
		return ""
	}
	return namespace + "/" + ref.Name
}

func sameGroup(ref *metav1.OwnerReference, kind schema.GroupVersionKind) bool {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	return err == nil && gv.Group == kind.Group
}

func (r *replicator) sync(ctx context.Context, key string) error {
	namespace, name := splitKey(key)
	set, about := r.get(namespace, name)
	if set == nil {
		r.x.forget(key)
		return nil
	}
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil || selector.Empty() {
		return nil //nolint:nilerr // nothing can be done until it is changed
	}
	met := r.x.met(key)
	o := &owner{meta: set, kind: r.kind, selector: selector, live: func(ctx context.Context) (metav1.Object, error) { return r.live(ctx, namespace, name) }}
	all, err := r.claimPods(ctx, o)
	if err != nil {
		return fmt.Errorf("claim pods of %s %s: %w", r.kind.Kind, key, err)
	}
	pods := slices.DeleteFunc(slices.Clone(all), func(pod *corev1.Pod) bool { return !active(pod) })
	var failed error
	if !met {
		r.queue.AddAfter(key, expectAgain)
	} else if set.DeletionTimestamp == nil {
		failed = r.manage(ctx, key, set, about, o, pods)
	}
	status, again := r.status(set, all, pods, met, failed)
	if again > 0 {
		r.queue.AddAfter(key, again)
	}
	if !equality.Semantic.DeepEqual(&set.Status, status) {
		failed = errors.Join(failed, gone(r.write(ctx, set, status)))
	}
	return failed
}

func replicasOf(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

// manage makes or deletes pods.
func (r *replicator) manage(ctx context.Context, key string, set *appsv1.ReplicaSet, about runtime.Object, o *owner, pods []*corev1.Pod) error {
	missing := int(replicasOf(set.Spec.Replicas)) - len(pods)
	if missing > 0 {
		_, err := slowStart(min(missing, burst), func(int) error {
			return r.createPod(ctx, about, key, podFrom(&set.Spec.Template, o), r.x)
		})
		return ignore(err, namespaceIsGoing)
	}
	tooMany := r.victims(set, pods)[:min(-missing, burst)]
	_, err := slowStart(len(tooMany), func(i int) error { return r.deletePod(ctx, about, key, tooMany[i], r.x) })
	return err
}

// victims sorts pods by how little is lost with them (docs: "ReplicaSet", "Scaling a ReplicaSet").
func (r *replicator) victims(set *appsv1.ReplicaSet, pods []*corev1.Pod) []*corev1.Pod {
	if len(pods) == 0 {
		return nil
	}
	now := time.Now()
	related := map[string]int{} // pods of the same controller, by node: where many are, one goes first
	for _, pod := range pods {
		if ready(pod) || pod.Spec.NodeName != "" {
			related[pod.Spec.NodeName]++
		}
	}
	phase := map[corev1.PodPhase]int{corev1.PodPending: 0, corev1.PodUnknown: 1, corev1.PodRunning: 2}
	sorted := slices.Clone(pods)
	slices.SortStableFunc(sorted, func(a, b *corev1.Pod) int {
		return cmp.Or(
			before(a.Spec.NodeName == "", b.Spec.NodeName == ""),
			cmp.Compare(phase[a.Status.Phase], phase[b.Status.Phase]),
			before(!ready(a), !ready(b)),
			cmp.Compare(deletionCost(a), deletionCost(b)),
			cmp.Compare(related[b.Spec.NodeName], related[a.Spec.NodeName]),
			readyTimes(a, b, now),
			cmp.Compare(restarts(b), restarts(a)),
			cmp.Compare(ageRank(a.CreationTimestamp.Time, now), ageRank(b.CreationTimestamp.Time, now)),
		)
	})
	return sorted
}

func before(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func deletionCost(pod *corev1.Pod) int {
	n, err := strconv.ParseInt(pod.Annotations[corev1.PodDeletionCost], 10, 32)
	if err != nil {
		return 0
	}
	return int(n)
}

func restarts(pod *corev1.Pod) (most int32) {
	for i := range pod.Status.ContainerStatuses {
		most = max(most, pod.Status.ContainerStatuses[i].RestartCount)
	}
	return most
}

func readyTimes(a, b *corev1.Pod, now time.Time) int {
	at, aok := readySince(a)
	bt, bok := readySince(b)
	if !aok || !bok {
		return 0
	}
	return cmp.Compare(ageRank(at, now), ageRank(bt, now))
}

// ageRank is the magnitude of an age, so that pods of about the same age count as equal; younger is less.
func ageRank(t, now time.Time) int {
	age := now.Sub(t)
	if t.IsZero() || age <= 0 {
		return 0
	}
	return int(math.Log2(float64(age)))
}

// status counts the pods. again is when a pod becomes available by the mere passing of time.
func (r *replicator) status(set *appsv1.ReplicaSet, all, pods []*corev1.Pod, met bool, failed error) (status *appsv1.ReplicaSetStatus, again time.Duration) {
	status = set.Status.DeepCopy()
	status.Replicas, status.ReadyReplicas, status.AvailableReplicas, status.FullyLabeledReplicas = int32(len(pods)), 0, 0, 0
	status.ObservedGeneration = set.Generation
	template := labels.SelectorFromSet(set.Spec.Template.Labels)
	now := time.Now()
	for _, pod := range pods {
		if template.Matches(labels.Set(pod.Labels)) {
			status.FullyLabeledReplicas++
		}
		if !ready(pod) {
			continue
		}
		status.ReadyReplicas++
		ok, wait := available(pod, set.Spec.MinReadySeconds, now)
		if ok {
			status.AvailableReplicas++
		} else if wait > 0 && (again == 0 || wait < again) {
			again = wait
		}
	}
	if r.kind == replicaSetKind {
		terminating := int32(0)
		for _, pod := range all {
			if pod.DeletionTimestamp != nil && !finished(pod) {
				terminating++
			}
		}
		status.TerminatingReplicas = &terminating
	}
	i := slices.IndexFunc(status.Conditions, func(c appsv1.ReplicaSetCondition) bool { return c.Type == appsv1.ReplicaSetReplicaFailure })
	switch {
	case failed != nil && i < 0:
		reason := "FailedCreate"
		if int(replicasOf(set.Spec.Replicas)) < len(pods) {
			reason = "FailedDelete"
		}
		status.Conditions = append(status.Conditions, appsv1.ReplicaSetCondition{
			Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now), Reason: reason, Message: failed.Error(),
		})
	case met && failed == nil && i >= 0:
		status.Conditions = slices.Delete(status.Conditions, i, i+1)
	}
	return status, again
}
