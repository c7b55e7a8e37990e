package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// stateful keeps the numbered pods of a StatefulSet, each with claims of its own (docs: "StatefulSets").
//
// One sync makes one step, in order unless the set is Parallel: the lowest pod that is missing or not available holds up those after it;
// then the highest that is too much goes; then the highest that is of an older template is replaced.
//
// Not here: claims are always kept (persistentVolumeClaimRetentionPolicy Delete has no effect), updates replace one
// pod at a time (no maxUnavailable).
type stateful struct {
	*part
	sets    appslisters.StatefulSetLister
	claims  corelisters.PersistentVolumeClaimLister
	history *history
	x       *expectations
}

var statefulSetKind = appsv1.SchemeGroupVersion.WithKind("StatefulSet")

func (c *Controllers) addStatefulSets() {
	sets, claims := c.informers.Apps().V1().StatefulSets(), c.informers.Core().V1().PersistentVolumeClaims()
	p := c.add("statefulset", "statefulset-controller")
	p.tells("statefulset-controller")
	s := &stateful{part: p, sets: sets.Lister(), claims: claims.Lister(), history: p.newHistory(), x: c.newExpectations()}
	follow(p, sets.Informer(), func(set *appsv1.StatefulSet) { p.queue.Add(keyOf(set)) })
	followChanges(p, claims.Informer(), func(_, _ *corev1.PersistentVolumeClaim) {}, func(claim *corev1.PersistentVolumeClaim) {
		all, _ := s.sets.StatefulSets(claim.Namespace).List(labels.Everything()) // a lister of an informer does not fail
		for _, set := range all {
			if slices.ContainsFunc(set.Spec.VolumeClaimTemplates, func(t corev1.PersistentVolumeClaim) bool {
				return strings.HasPrefix(claim.Name, t.Name+"-"+set.Name+"-")
			}) {
				p.queue.Add(keyOf(set)) // a pod may wait for it
			}
		}
	})
	p.followPods(func(namespace string, ref *metav1.OwnerReference) string {
		if ref.Kind != statefulSetKind.Kind || !sameGroup(ref, statefulSetKind) {
			return ""
		}
		return namespace + "/" + ref.Name
	}, func(pod *corev1.Pod) (keys []string) {
		all, _ := s.sets.StatefulSets(pod.Namespace).List(labels.Everything()) // as above
		for _, set := range all {
			if _, ours := ordinalOf(set, pod); ours && selects(set.Spec.Selector, pod.Labels) {
				keys = append(keys, keyOf(set))
			}
		}
		return keys
	})
	p.work(2, s.sync)
}

// ordinalOf is the number of a pod in its set, by its name.
func ordinalOf(set *appsv1.StatefulSet, pod *corev1.Pod) (int, bool) {
	text, ok := strings.CutPrefix(pod.Name, set.Name+"-")
	n, err := strconv.Atoi(text)
	return n, ok && err == nil && n >= 0
}

// setStep is one look at one set.
type setStep struct {
	*stateful
	set             *appsv1.StatefulSet
	key             string
	owner           *owner
	current, update *appsv1.ControllerRevision
	status          *appsv1.StatefulSetStatus
	now             time.Time
}

func (s *stateful) sync(ctx context.Context, key string) error {
	namespace, name := splitKey(key)
	set, err := s.sets.StatefulSets(namespace).Get(name)
	if err != nil {
		s.x.forget(key)
		s.history.forget(key)
		return nil //nolint:nilerr // gone
	}
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil || selector.Empty() || set.DeletionTimestamp != nil {
		return nil //nolint:nilerr // nothing can be done until it is changed
	}
	met := s.x.met(key)
	o := &owner{meta: set, kind: statefulSetKind, selector: selector, live: func(ctx context.Context) (metav1.Object, error) {
		return s.client.AppsV1().StatefulSets(namespace).Get(ctx, name, metav1.GetOptions{})
	}}
	revisions, err := s.history.of(ctx, o)
	if err != nil {
		return fmt.Errorf("claim revisions of StatefulSet %s: %w", key, err)
	}
	update, err := s.history.current(ctx, o, &set.Spec.Template, revisionHashLabel, set.Status.CollisionCount, revisions)
	if err != nil {
		return fmt.Errorf("write revision of StatefulSet %s: %w", key, err)
	}
	current := update
	for _, r := range revisions {
		if r.Name == set.Status.CurrentRevision {
			current = r
		}
	}
	pods, err := s.claimPods(ctx, o)
	if err != nil {
		return fmt.Errorf("claim pods of StatefulSet %s: %w", key, err)
	}
	step := &setStep{stateful: s, set: set, key: key, owner: o, current: current, update: update, now: time.Now()}
	step.count(pods)
	var failed error
	if met {
		failed = step.manage(ctx, pods)
	} else {
		s.queue.AddAfter(key, expectAgain)
	}
	if !equality.Semantic.DeepEqual(step.status, &set.Status) {
		next := set.DeepCopy()
		next.Status = *step.status
		_, err := s.client.AppsV1().StatefulSets(namespace).UpdateStatus(ctx, next, metav1.UpdateOptions{})
		failed = errors.Join(failed, gone(err))
	}
	if failed == nil {
		failed = s.history.trim(ctx, revisions, set.Spec.RevisionHistoryLimit, func(r *appsv1.ControllerRevision) bool {
			return r.Name == current.Name || r.Name == update.Name ||
				slices.ContainsFunc(pods, func(pod *corev1.Pod) bool { return pod.Labels[appsv1.ControllerRevisionHashLabelKey] == r.Name })
		})
	}
	return failed
}

func (s *setStep) span() (first, end int) {
	if s.set.Spec.Ordinals != nil {
		first = int(s.set.Spec.Ordinals.Start)
	}
	return first, first + int(replicasOf(s.set.Spec.Replicas))
}

// count fills in the status.
func (s *setStep) count(pods []*corev1.Pod) {
	st := s.set.Status.DeepCopy()
	st.Replicas, st.ReadyReplicas, st.AvailableReplicas, st.CurrentReplicas, st.UpdatedReplicas = 0, 0, 0, 0, 0
	st.ObservedGeneration, st.CurrentRevision, st.UpdateRevision = s.set.Generation, s.current.Name, s.update.Name
	if st.CollisionCount == nil {
		zero := int32(0)
		st.CollisionCount = &zero
	}
	for _, pod := range pods {
		if finished(pod) {
			continue
		}
		st.Replicas++
		if ready(pod) {
			st.ReadyReplicas++
			if ok, again := available(pod, s.set.Spec.MinReadySeconds, s.now); ok {
				st.AvailableReplicas++
			} else if again > 0 {
				s.queue.AddAfter(s.key, again)
			}
		}
		if pod.DeletionTimestamp != nil {
			continue
		}
		switch pod.Labels[appsv1.ControllerRevisionHashLabelKey] {
		case s.update.Name:
			st.UpdatedReplicas++
			if s.current == s.update || s.current.Name == s.update.Name {
				st.CurrentReplicas++
			}
		case s.current.Name:
			st.CurrentReplicas++
		}
	}
	want := replicasOf(s.set.Spec.Replicas)
	if s.set.Spec.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType && st.UpdatedReplicas == want && st.Replicas == want && st.ReadyReplicas == want {
		st.CurrentRevision, st.CurrentReplicas = st.UpdateRevision, st.UpdatedReplicas // the rollout is done
	}
	s.status = st
}

// manage makes one step towards what is wanted.
func (s *setStep) manage(ctx context.Context, pods []*corev1.Pod) error {
	first, end := s.span()
	inOrder := s.set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement
	byOrdinal := map[int]*corev1.Pod{}
	for _, pod := range pods {
		if n, ok := ordinalOf(s.set, pod); ok {
			byOrdinal[n] = pod
		}
	}
	var failed []error
	for n := first; n < end; n++ {
		pod := byOrdinal[n]
		switch {
		case pod == nil:
			failed = append(failed, s.create(ctx, n))
		case finished(pod) && pod.DeletionTimestamp == nil:
			s.events.normal(s.set, "RecreatingTerminatedPod", "StatefulSet %s is recreating terminated Pod %s", s.key, pod.Name)
			failed = append(failed, s.remove(ctx, pod))
		case pod.DeletionTimestamp == nil && pod.Status.Phase == corev1.PodPending: // it may wait for a claim that went missing
			failed = append(failed, s.createClaims(ctx, pod.Name))
		case pod.DeletionTimestamp == nil && s.healthy(pod):
			continue
		}
		if inOrder { // its events bring the next step
			return errors.Join(failed...)
		}
	}
	var extra []int
	for n, pod := range byOrdinal {
		if n < first || n >= end {
			extra = append(extra, n)
			if pod.DeletionTimestamp != nil && inOrder {
				return errors.Join(failed...)
			}
		}
	}
	slices.SortFunc(extra, func(a, b int) int { return cmp.Compare(b, a) })
	for _, n := range extra {
		if byOrdinal[n].DeletionTimestamp == nil {
			failed = append(failed, s.remove(ctx, byOrdinal[n]))
		}
		if inOrder {
			return errors.Join(failed...)
		}
	}
	if s.set.Spec.UpdateStrategy.Type == appsv1.OnDeleteStatefulSetStrategyType {
		return errors.Join(failed...)
	}
	for n := end - 1; n >= max(first, s.partition()); n-- {
		pod := byOrdinal[n]
		if pod == nil || pod.DeletionTimestamp != nil {
			break
		}
		if pod.Labels[appsv1.ControllerRevisionHashLabelKey] != s.update.Name {
			failed = append(failed, s.remove(ctx, pod))
			break
		}
		if !s.healthy(pod) {
			break
		}
	}
	return errors.Join(failed...)
}

func (s *setStep) partition() int {
	if r := s.set.Spec.UpdateStrategy.RollingUpdate; r != nil && r.Partition != nil {
		return int(*r.Partition)
	}
	return 0
}

// healthy reports whether a pod no longer holds up others.
func (s *setStep) healthy(pod *corev1.Pod) bool {
	ok, _ := available(pod, s.set.Spec.MinReadySeconds, s.now)
	return ok && pod.Status.Phase == corev1.PodRunning
}

func (s *setStep) remove(ctx context.Context, pod *corev1.Pod) error {
	err := s.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // another one has its name
		return nil
	}
	if err != nil {
		s.events.warn(s.set, "FailedDelete", "delete Pod %s in StatefulSet %s failed error: %v", pod.Name, s.set.Name, err)
		return err
	}
	s.x.deleted(s.key, pod)
	s.events.normal(s.set, "SuccessfulDelete", "delete Pod %s in StatefulSet %s successful", pod.Name, s.set.Name)
	return nil
}

// create makes the pod of an ordinal, after its claims.
func (s *setStep) create(ctx context.Context, n int) error {
	revision, template := s.update, &s.set.Spec.Template
	if s.set.Spec.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType && n < s.partition() && s.current.Name != s.update.Name {
		// Below the partition pods stay with the template that they had.
		old, err := templateFrom(s.current)
		if err != nil {
			return fmt.Errorf("read revision %s: %w", s.current.Name, err)
		}
		revision, template = s.current, old
	}
	pod := podFrom(template, s.owner)
	pod.GenerateName, pod.Name = "", s.set.Name+"-"+strconv.Itoa(n)
	pod.Labels = maps.Clone(pod.Labels)
	pod.Labels = with(pod.Labels, appsv1.StatefulSetPodNameLabel, pod.Name)
	pod.Labels[appsv1.ControllerRevisionHashLabelKey] = revision.Name
	pod.Labels[appsv1.PodIndexLabel] = strconv.Itoa(n)
	pod.Spec.Hostname, pod.Spec.Subdomain = pod.Name, s.set.Spec.ServiceName
	if err := s.createClaims(ctx, pod.Name); err != nil {
		return err
	}
	for i := range s.set.Spec.VolumeClaimTemplates {
		volume := s.set.Spec.VolumeClaimTemplates[i].Name
		pod.Spec.Volumes = slices.DeleteFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == volume })
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: volume, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: volume + "-" + pod.Name},
		}})
	}
	made, err := s.client.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil
	case err != nil:
		s.events.warn(s.set, "FailedCreate", "create Pod %s in StatefulSet %s failed error: %v", pod.Name, s.set.Name, err)
		return err
	}
	s.x.created(s.key, made)
	s.events.normal(s.set, "SuccessfulCreate", "create Pod %s in StatefulSet %s successful", pod.Name, s.set.Name)
	return nil
}

// createClaims makes those claims of a pod that are not there.
func (s *setStep) createClaims(ctx context.Context, pod string) error {
	for i := range s.set.Spec.VolumeClaimTemplates {
		claim := s.set.Spec.VolumeClaimTemplates[i].DeepCopy()
		claim.Name, claim.Namespace = claim.Name+"-"+pod, s.set.Namespace
		claim.Labels = maps.Clone(claim.Labels)
		for k, v := range s.set.Spec.Selector.MatchLabels {
			claim.Labels = with(claim.Labels, k, v)
		}
		if err := s.createClaim(ctx, claim, pod); err != nil {
			return err
		}
	}
	return nil
}

func (s *setStep) createClaim(ctx context.Context, claim *corev1.PersistentVolumeClaim, pod string) error {
	if have, err := s.claims.PersistentVolumeClaims(claim.Namespace).Get(claim.Name); err == nil {
		if have.DeletionTimestamp != nil {
			return fmt.Errorf("claim %s of pod %s is being deleted", claim.Name, pod)
		}
		return nil
	}
	_, err := s.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Create(ctx, claim, metav1.CreateOptions{})
	if err == nil {
		s.events.normal(s.set, "SuccessfulCreate", "create Claim %s Pod %s in StatefulSet %s success", claim.Name, pod, s.set.Name)
	}
	return ignore(err, apierrors.IsAlreadyExists)
}
