package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	appslisters "k8s.io/client-go/listers/apps/v1"
)

// deployer moves pods from the old templates of a Deployment to its present one, by scaling one ReplicaSet for each
// template (docs: "Deployments").
//
// One sync makes one step: it looks at the ReplicaSets as they are, changes sizes as far as the strategy allows, and writes the status.
// The next step comes when a ReplicaSet's status changes.
type deployer struct {
	*part
	deployments appslisters.DeploymentLister
	sets        appslisters.ReplicaSetLister
}

var deploymentKind = appsv1.SchemeGroupVersion.WithKind("Deployment")

func (c *Controllers) addDeployments() {
	deployments, sets := c.informers.Apps().V1().Deployments(), c.informers.Apps().V1().ReplicaSets()
	p := c.add("deployment", "deployment-controller")
	p.tells("deployment-controller")
	d := &deployer{part: p, deployments: deployments.Lister(), sets: sets.Lister()}
	follow(p, deployments.Informer(), func(d *appsv1.Deployment) { p.queue.Add(keyOf(d)) })
	tell := func(set *appsv1.ReplicaSet) bool {
		ref := metav1.GetControllerOfNoCopy(set)
		if ref == nil {
			return false
		}
		if ref.Kind == deploymentKind.Kind && sameGroup(ref, deploymentKind) {
			p.queue.Add(set.Namespace + "/" + ref.Name)
		}
		return true
	}
	followChanges(p, sets.Informer(), func(old, set *appsv1.ReplicaSet) {
		if old != nil {
			tell(old)
		}
		if tell(set) || set.DeletionTimestamp != nil {
			return
		}
		all, _ := d.deployments.Deployments(set.Namespace).List(labels.Everything()) // a lister of an informer does not fail
		for _, one := range all {
			if selects(one.Spec.Selector, set.Labels) {
				p.queue.Add(keyOf(one))
			}
		}
	}, func(set *appsv1.ReplicaSet) { tell(set) })
	// A deployment that recreates waits for the last old pod to go.
	followChanges(p, c.podIndex().informer, func(old, pod *corev1.Pod) {
		if old != nil && finished(pod) && !finished(old) {
			d.podGone(pod)
		}
	}, d.podGone)
	p.work(5, d.sync)
}

func (d *deployer) podGone(pod *corev1.Pod) {
	ref := metav1.GetControllerOfNoCopy(pod)
	if ref == nil || ref.Kind != replicaSetKind.Kind {
		return
	}
	set, err := d.sets.ReplicaSets(pod.Namespace).Get(ref.Name)
	if err != nil {
		return
	}
	if ref = metav1.GetControllerOfNoCopy(set); ref == nil || ref.Kind != deploymentKind.Kind {
		return
	}
	if one, err := d.deployments.Deployments(pod.Namespace).Get(ref.Name); err == nil && one.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		d.queue.Add(keyOf(one))
	}
}

// rollout is one step of one deployment.
type rollout struct {
	*deployer
	d      *appsv1.Deployment // our copy; its annotations and the conditions that come on the way are changed in place
	sets   []*appsv1.ReplicaSet
	fresh  *appsv1.ReplicaSet // of the present template; nil if there is none yet
	olds   []*appsv1.ReplicaSet
	now    time.Time
	before appsv1.DeploymentStatus
}

func (d *deployer) sync(ctx context.Context, key string) error {
	namespace, name := splitKey(key)
	shared, err := d.deployments.Deployments(namespace).Get(name)
	if err != nil {
		return nil //nolint:nilerr // gone
	}
	dep := shared.DeepCopy()
	selector, err := metav1.LabelSelectorAsSelector(dep.Spec.Selector)
	if err != nil || selector.Empty() {
		d.events.warn(dep, "SelectingAll", "This deployment is selecting all pods. A non-empty selector is required.")
		return nil //nolint:nilerr // nothing can be done until it is changed
	}
	all, err := d.sets.ReplicaSets(namespace).List(labels.Everything())
	if err != nil {
		return err
	}
	var owned, orphans []*appsv1.ReplicaSet
	for _, set := range all {
		if ref := metav1.GetControllerOfNoCopy(set); ref == nil {
			orphans = append(orphans, set)
		} else if ref.UID == dep.UID {
			owned = append(owned, set)
		}
	}
	o := &owner{meta: dep, kind: deploymentKind, selector: selector, live: func(ctx context.Context) (metav1.Object, error) {
		return d.client.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
	}}
	sets, err := claim(ctx, o, owned, orphans, func(ctx context.Context, set *appsv1.ReplicaSet, body []byte) error {
		_, err := d.client.AppsV1().ReplicaSets(namespace).Patch(ctx, set.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{})
		return err
	})
	if err != nil {
		return fmt.Errorf("claim ReplicaSets of Deployment %s: %w", key, err)
	}
	slices.SortFunc(sets, olderFirst)
	r := &rollout{deployer: d, d: dep, sets: sets, now: time.Now(), before: *shared.Status.DeepCopy()}
	r.fresh = r.withTemplate()
	r.olds = slices.DeleteFunc(slices.Clone(sets), func(s *appsv1.ReplicaSet) bool { return s == r.fresh })
	return r.step(ctx)
}

func olderFirst(a, b *appsv1.ReplicaSet) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmpNames(a, b))
}

// withTemplate is the oldest ReplicaSet of the present template.
func (r *rollout) withTemplate() *appsv1.ReplicaSet {
	for _, set := range r.sets {
		if sameTemplate(&set.Spec.Template, &r.d.Spec.Template) {
			return set
		}
	}
	return nil
}

// sameTemplate compares without the label that tells the ReplicaSets of a deployment apart.
func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	a, b = a.DeepCopy(), b.DeepCopy()
	delete(a.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	delete(b.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	return equality.Semantic.DeepEqual(a, b)
}

func (r *rollout) step(ctx context.Context) error {
	if r.d.DeletionTimestamp != nil {
		return r.writeStatus(ctx, r.status())
	}
	r.notePause()
	if r.d.Spec.Paused || r.sizeChanged() {
		if err := r.spread(ctx); err != nil {
			return err
		}
		if r.d.Spec.Paused {
			if err := r.tidy(ctx); err != nil {
				return err
			}
		}
		return r.writeStatus(ctx, r.status())
	}
	var err error
	if r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		err = r.recreate(ctx)
	} else {
		err = r.roll(ctx)
	}
	if err != nil {
		var collided *collision
		if errors.As(err, &collided) { // the next attempt takes another name
			count := int32(1)
			if r.d.Status.CollisionCount != nil {
				count += *r.d.Status.CollisionCount
			}
			r.d.Status.CollisionCount = &count
		}
		// What was learned on the way is told, also if the step failed.
		return errors.Join(err, r.writeStatus(ctx, r.status()))
	}
	if r.complete(&r.d.Status) {
		if err := r.tidy(ctx); err != nil {
			return err
		}
	}
	return r.writeStatus(ctx, r.progress())
}

// sizeChanged reports whether the deployment was scaled since the ReplicaSets were.
func (r *rollout) sizeChanged() bool {
	if r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return false // it sets the size anyway, in one step
	}
	for _, set := range r.sets {
		if replicasOf(set.Spec.Replicas) == 0 {
			continue
		}
		if desired, ok := intAnnotation(set, desiredAnnotation); ok && desired != replicasOf(r.d.Spec.Replicas) {
			return true
		}
	}
	return false
}

// roll is the strategy RollingUpdate.
func (r *rollout) roll(ctx context.Context) error {
	if err := r.makeFresh(ctx); err != nil || r.fresh == nil {
		return err
	}
	want := replicasOf(r.d.Spec.Replicas)
	size := replicasOf(r.fresh.Spec.Replicas)
	switch {
	case size > want:
		return r.resize(ctx, r.fresh, want)
	case size < want:
		if grown := r.freshSize(size); grown != size {
			return r.resize(ctx, r.fresh, grown)
		}
	}
	return r.shrinkOlds(ctx)
}

// freshSize is how large the ReplicaSet of the present template may be now.
func (r *rollout) freshSize(size int32) int32 {
	want := replicasOf(r.d.Spec.Replicas)
	if r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return want
	}
	surge, _ := r.limits()
	room := want + surge - total(r.sets)
	if room <= 0 {
		return size
	}
	return size + min(room, want-size)
}

// shrinkOlds scales old ReplicaSets down as far as enough pods stay available: first the pods that do not work anyway.
func (r *rollout) shrinkOlds(ctx context.Context) error {
	if total(r.olds) == 0 {
		return nil
	}
	_, unavailable := r.limits()
	least := replicasOf(r.d.Spec.Replicas) - unavailable
	freshMissing := replicasOf(r.fresh.Spec.Replicas) - r.fresh.Status.AvailableReplicas
	spare := total(r.sets) - least - freshMissing
	if spare <= 0 {
		return nil
	}
	for i, set := range r.olds {
		size := replicasOf(set.Spec.Replicas)
		if broken := min(spare, size-set.Status.AvailableReplicas); size > 0 && broken > 0 {
			if err := r.resize(ctx, set, size-broken); err != nil {
				return err
			}
			spare -= broken
			set = r.replaced(set)
			r.olds[i] = set
		}
	}
	working := int32(0)
	for _, set := range r.sets { // a status may be from before its set was made smaller
		working += min(set.Status.AvailableReplicas, replicasOf(set.Spec.Replicas))
	}
	surplus := min(working-least, spare)
	for _, set := range r.olds {
		size := replicasOf(set.Spec.Replicas)
		if less := min(size, surplus); size > 0 && less > 0 {
			if err := r.resize(ctx, set, size-less); err != nil {
				return err
			}
			surplus -= less
		}
	}
	return nil
}

// replaced is a ReplicaSet as it is after resize.
func (r *rollout) replaced(set *appsv1.ReplicaSet) *appsv1.ReplicaSet {
	for _, s := range r.sets {
		if s.UID == set.UID {
			return s
		}
	}
	return set
}

// recreate is the strategy Recreate: all old pods go before the first new one comes.
func (r *rollout) recreate(ctx context.Context) error {
	shrunk := false
	for _, set := range slices.Clone(r.olds) {
		if replicasOf(set.Spec.Replicas) > 0 {
			if err := r.resize(ctx, set, 0); err != nil {
				return err
			}
			shrunk = true
		}
	}
	if shrunk {
		return nil
	}
	for _, set := range r.olds {
		if slices.ContainsFunc(r.pods.ownedBy(set.UID), func(pod *corev1.Pod) bool { return !finished(pod) }) {
			return nil
		}
	}
	if err := r.makeFresh(ctx); err != nil || r.fresh == nil {
		return err
	}
	return r.resize(ctx, r.fresh, replicasOf(r.d.Spec.Replicas))
}

// makeFresh sees to it that there is a ReplicaSet of the present template, with the newest revision. There is none
// afterwards if the namespace ends.
func (r *rollout) makeFresh(ctx context.Context) error {
	var newest int64
	for _, set := range r.olds {
		newest = max(newest, revisionOf(set))
	}
	if r.fresh != nil {
		set := r.fresh.DeepCopy()
		changed := r.annotate(set, newest+1)
		if set.Spec.MinReadySeconds != r.d.Spec.MinReadySeconds {
			set.Spec.MinReadySeconds, changed = r.d.Spec.MinReadySeconds, true
		}
		if changed {
			if err := r.update(ctx, set); err != nil {
				return err
			}
		}
		if r.d.Spec.ProgressDeadlineSeconds != nil && r.condition(appsv1.DeploymentProgressing) == nil {
			r.setCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue, "FoundNewReplicaSet", fmt.Sprintf("Found new replica set %q", r.fresh.Name))
		}
		return r.takeRevision(ctx)
	}
	hash := templateHash(&r.d.Spec.Template, r.d.Status.CollisionCount)
	template := r.d.Spec.Template.DeepCopy()
	template.Labels = with(template.Labels, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	selector := r.d.Spec.Selector.DeepCopy()
	selector.MatchLabels = with(selector.MatchLabels, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	set := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Name: r.d.Name + "-" + hash, Namespace: r.d.Namespace, Labels: template.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(r.d, deploymentKind)},
		},
		Spec: appsv1.ReplicaSetSpec{MinReadySeconds: r.d.Spec.MinReadySeconds, Selector: selector, Template: *template},
	}
	size := r.freshSize(0)
	set.Spec.Replicas = &size
	r.annotate(set, newest+1)
	made, err := r.client.AppsV1().ReplicaSets(r.d.Namespace).Create(ctx, set, metav1.CreateOptions{})
	switch {
	case apierrors.IsAlreadyExists(err):
		have, getErr := r.client.AppsV1().ReplicaSets(r.d.Namespace).Get(ctx, set.Name, metav1.GetOptions{})
		if getErr != nil {
			return getErr
		}
		if ref := metav1.GetControllerOf(have); ref == nil || ref.UID != r.d.UID || !sameTemplate(&have.Spec.Template, &r.d.Spec.Template) {
			return &collision{err}
		}
		made = have // made before, and the informer does not know yet
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil
	case err != nil:
		text := fmt.Sprintf("Failed to create new replica set %q: %v", set.Name, err)
		if r.d.Spec.ProgressDeadlineSeconds != nil {
			r.setCondition(appsv1.DeploymentProgressing, corev1.ConditionFalse, "ReplicaSetCreateError", text)
		}
		r.events.warn(r.d, "ReplicaSetCreateError", "%s", text)
		return err
	default:
		if size > 0 {
			r.events.normal(r.d, "ScalingReplicaSet", "Scaled up replica set %s from 0 to %d", made.Name, size)
		}
		if r.d.Spec.ProgressDeadlineSeconds != nil {
			r.setCondition(appsv1.DeploymentProgressing, corev1.ConditionTrue, "NewReplicaSetCreated", fmt.Sprintf("Created new replica set %q", made.Name))
		}
	}
	r.fresh = made
	r.sets = append(r.sets, made)
	return r.takeRevision(ctx)
}

// collision: another template has the same hash.
type collision struct{ error }

func (c *collision) Unwrap() error { return c.error }

// takeRevision writes the revision of the fresh ReplicaSet into the deployment.
func (r *rollout) takeRevision(ctx context.Context) error {
	revision := r.fresh.Annotations[revisionAnnotation]
	if r.d.Annotations[revisionAnnotation] == revision {
		return nil
	}
	d := r.d.DeepCopy()
	d.Annotations = with(d.Annotations, revisionAnnotation, revision)
	updated, err := r.client.AppsV1().Deployments(d.Namespace).Update(ctx, d, metav1.UpdateOptions{})
	if err != nil {
		return err
	}
	updated.Status = r.d.Status // with the conditions of this step
	r.d = updated
	return nil
}

// update writes a ReplicaSet and puts the answer in its place.
func (r *rollout) update(ctx context.Context, set *appsv1.ReplicaSet) error {
	updated, err := r.client.AppsV1().ReplicaSets(set.Namespace).Update(ctx, set, metav1.UpdateOptions{})
	if err != nil {
		return err
	}
	for _, list := range [][]*appsv1.ReplicaSet{r.sets, r.olds} {
		for i := range list {
			if list[i].UID == updated.UID {
				list[i] = updated
			}
		}
	}
	if r.fresh != nil && r.fresh.UID == updated.UID {
		r.fresh = updated
	}
	return nil
}

// resize scales a ReplicaSet and tells of it.
func (r *rollout) resize(ctx context.Context, set *appsv1.ReplicaSet, size int32) error {
	old := replicasOf(set.Spec.Replicas)
	surge, _ := r.limits()
	want := replicasOf(r.d.Spec.Replicas)
	set = set.DeepCopy()
	set.Spec.Replicas = &size
	if noted := noteSize(set, want, want+surge); old == size && !noted {
		return nil
	}
	if err := r.update(ctx, set); err != nil {
		return err
	}
	if old != size {
		direction := "down"
		if size > old {
			direction = "up"
		}
		r.events.normal(r.d, "ScalingReplicaSet", "Scaled %s replica set %s from %d to %d", direction, set.Name, old, size)
	}
	return nil
}

func total(sets []*appsv1.ReplicaSet) (n int32) {
	for _, set := range sets {
		n += replicasOf(set.Spec.Replicas)
	}
	return n
}

// tidy deletes old ReplicaSets beyond the history limit.
func (r *rollout) tidy(ctx context.Context) error {
	if r.d.Spec.RevisionHistoryLimit == nil {
		return nil
	}
	var idle []*appsv1.ReplicaSet
	for _, set := range r.olds {
		if set.DeletionTimestamp == nil && set.Status.Replicas == 0 && replicasOf(set.Spec.Replicas) == 0 && set.Generation <= set.Status.ObservedGeneration {
			idle = append(idle, set)
		}
	}
	slices.SortStableFunc(idle, func(a, b *appsv1.ReplicaSet) int { return cmp.Compare(revisionOf(a), revisionOf(b)) })
	// Parity: the limit counts all old ReplicaSets that are alive, of which only idle ones can go.
	for _, set := range idle[:max(0, min(len(idle), len(r.olds)-int(*r.d.Spec.RevisionHistoryLimit)))] {
		if err := r.client.AppsV1().ReplicaSets(set.Namespace).Delete(ctx, set.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}
