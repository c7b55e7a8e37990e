package controller

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/dump"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/rand"
)

// Annotations of the ReplicaSets of a deployment.
const (
	revisionAnnotation        = "deployment.kubernetes.io/revision"
	revisionHistoryAnnotation = "deployment.kubernetes.io/revision-history"
	desiredAnnotation         = "deployment.kubernetes.io/desired-replicas"
	maxAnnotation             = "deployment.kubernetes.io/max-replicas"
	rollbackAnnotation        = "deprecated.deployment.rollback.to"
)

// notCopied are annotations of a deployment that are not for its ReplicaSets.
var notCopied = []string{corev1.LastAppliedConfigAnnotation, revisionAnnotation, revisionHistoryAnnotation, desiredAnnotation, maxAnnotation, rollbackAnnotation}

func intAnnotation(obj metav1.Object, name string) (int32, bool) {
	n, err := strconv.ParseInt(obj.GetAnnotations()[name], 10, 32)
	return int32(n), err == nil
}

func revisionOf(obj metav1.Object) int64 {
	n, err := strconv.ParseInt(obj.GetAnnotations()[revisionAnnotation], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// with is a copy of a map with one more entry.
func with(m map[string]string, key, value string) map[string]string {
	m = maps.Clone(m)
	if m == nil {
		m = map[string]string{}
	}
	m[key] = value
	return m
}

// annotate gives a ReplicaSet the annotations of its deployment, and a revision if that is newer.
func (r *rollout) annotate(set *appsv1.ReplicaSet, revision int64) (changed bool) {
	surge, _ := r.limits()
	want := replicasOf(r.d.Spec.Replicas)
	before := maps.Clone(set.Annotations)
	for name, value := range r.d.Annotations {
		if !slices.Contains(notCopied, name) {
			set.Annotations = with(set.Annotations, name, value)
		}
	}
	if old := revisionOf(set); old < revision {
		if old > 0 {
			history := set.Annotations[revisionHistoryAnnotation]
			set.Annotations = with(set.Annotations, revisionHistoryAnnotation, strings.TrimPrefix(history+","+strconv.FormatInt(old, 10), ","))
		}
		set.Annotations = with(set.Annotations, revisionAnnotation, strconv.FormatInt(revision, 10))
	}
	noteSize(set, want, want+surge)
	return !maps.Equal(before, set.Annotations)
}

// noteSize notes what the deployment wanted when a ReplicaSet was scaled last.
func noteSize(set *appsv1.ReplicaSet, desired, most int32) (changed bool) {
	for name, n := range map[string]int32{desiredAnnotation: desired, maxAnnotation: most} {
		if have, ok := intAnnotation(set, name); !ok || have != n {
			set.Annotations, changed = with(set.Annotations, name, strconv.Itoa(int(n))), true
		}
	}
	return changed
}

// templateHash names the ReplicaSet of a template.
func templateHash(template *corev1.PodTemplateSpec, collisions *int32) string {
	h := fnv.New32a()
	fmt.Fprint(h, dump.ForHash(*template))
	if collisions != nil {
		fmt.Fprint(h, *collisions)
	}
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
}

// limits are how many pods more than wanted there may be, and how many less available.
func (r *rollout) limits() (surge, unavailable int32) {
	rolling := r.d.Spec.Strategy.RollingUpdate
	if r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType || rolling == nil {
		return 0, 0
	}
	want := int(replicasOf(r.d.Spec.Replicas))
	resolve := func(v *intstr.IntOrString, up bool) int {
		if v == nil {
			return 0
		}
		n, err := intstr.GetScaledValueFromIntOrPercent(v, want, up)
		if err != nil { // validation does not let it through
			return 0
		}
		return n
	}
	more, less := resolve(rolling.MaxSurge, true), resolve(rolling.MaxUnavailable, false)
	if more == 0 && less == 0 { // it would never move
		less = 1
	}
	return int32(more), int32(min(less, want))
}

// spread distributes a changed size over the ReplicaSets in proportion to what they have, so that a rollout that is
// under way or paused keeps its balance (docs: "Proportional scaling").
func (r *rollout) spread(ctx context.Context) error {
	want := replicasOf(r.d.Spec.Replicas)
	if one := r.onlyOrNewest(); one != nil {
		return r.resize(ctx, one, want)
	}
	if r.fresh != nil && r.saturated() {
		for _, set := range slices.Clone(r.olds) {
			if replicasOf(set.Spec.Replicas) > 0 {
				if err := r.resize(ctx, set, 0); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return nil
	}
	surge, _ := r.limits()
	most := int32(0)
	if want > 0 {
		most = want + surge
	}
	activeSets := slices.DeleteFunc(slices.Clone(r.sets), func(s *appsv1.ReplicaSet) bool { return replicasOf(s.Spec.Replicas) == 0 })
	add := most - total(activeSets)
	// Larger ones first; of the same size the newer when it grows, the older when it shrinks.
	slices.SortStableFunc(activeSets, func(a, b *appsv1.ReplicaSet) int {
		if d := replicasOf(b.Spec.Replicas) - replicasOf(a.Spec.Replicas); d != 0 {
			return int(d)
		}
		if add > 0 {
			return olderFirst(b, a)
		}
		return olderFirst(a, b)
	})
	sizes, left := make([]int32, len(activeSets)), add
	for i, set := range activeSets {
		size := replicasOf(set.Spec.Replicas)
		share := r.share(set, most, left)
		sizes[i] = size + share
		left -= share
	}
	for i, set := range activeSets {
		if i == 0 {
			sizes[i] = max(0, sizes[i]+left)
		}
		if err := r.resize(ctx, set, sizes[i]); err != nil {
			return err
		}
	}
	return nil
}

// share is what a ReplicaSet gets of a changed size, not more than is left.
func (r *rollout) share(set *appsv1.ReplicaSet, most, left int32) int32 {
	size := replicasOf(set.Spec.Replicas)
	if size == 0 || left == 0 {
		return 0
	}
	share := -size
	if most > 0 {
		had, ok := intAnnotation(set, maxAnnotation)
		if !ok || had == 0 {
			had = max(r.d.Status.Replicas, 1)
		}
		share = int32(math.Round(float64(size)*float64(most)/float64(had))) - size
	}
	if left > 0 {
		return min(max(share, 0), left)
	}
	return max(min(share, 0), left)
}

// onlyOrNewest is the one ReplicaSet that has pods, or the newest if none has; nil if several have.
func (r *rollout) onlyOrNewest() *appsv1.ReplicaSet {
	var one *appsv1.ReplicaSet
	n := 0
	for _, set := range r.sets {
		if replicasOf(set.Spec.Replicas) > 0 {
			one = set
			n++
		}
	}
	switch {
	case n == 1:
		return one
	case n > 1 || len(r.sets) == 0:
		return nil
	case r.fresh != nil:
		return r.fresh
	}
	return r.sets[len(r.sets)-1]
}

// saturated reports whether the present template has all pods that the deployment wants.
func (r *rollout) saturated() bool {
	want := replicasOf(r.d.Spec.Replicas)
	desired, ok := intAnnotation(r.fresh, desiredAnnotation)
	return ok && replicasOf(r.fresh.Spec.Replicas) == want && desired == want && r.fresh.Status.AvailableReplicas == want
}
