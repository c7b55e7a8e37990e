package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	appslisters "k8s.io/client-go/listers/apps/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// daemons keeps one pod of a DaemonSet on each node that it fits (docs: "DaemonSet"). Each pod is bound to its node by
// a node affinity that the scheduler follows. A surge of new pods beside old ones (maxSurge) is not done: it is taken for
// maxUnavailable 1.
type daemons struct {
	*part
	sets    appslisters.DaemonSetLister
	nodes   corelisters.NodeLister
	history *history
	x       *expectations
}

var daemonSetKind = appsv1.SchemeGroupVersion.WithKind("DaemonSet")

func (c *Controllers) addDaemonSets() {
	sets, nodes := c.informers.Apps().V1().DaemonSets(), c.informers.Core().V1().Nodes()
	p := c.add("daemonset", "daemon-set-controller")
	p.tells("daemonset-controller")
	d := &daemons{part: p, sets: sets.Lister(), nodes: nodes.Lister(), history: p.newHistory(), x: c.newExpectations()}
	follow(p, sets.Informer(), func(set *appsv1.DaemonSet) { p.queue.Add(keyOf(set)) })
	all := func() []*appsv1.DaemonSet {
		list, _ := d.sets.List(labels.Everything()) // a lister of an informer does not fail
		return list
	}
	followChanges(p, nodes.Informer(), func(old, node *corev1.Node) {
		if old != nil && equality.Semantic.DeepEqual(old.Labels, node.Labels) && equality.Semantic.DeepEqual(old.Spec, node.Spec) {
			return // heartbeats
		}
		for _, set := range all() {
			p.queue.Add(keyOf(set))
		}
	}, func(*corev1.Node) {
		for _, set := range all() {
			p.queue.Add(keyOf(set))
		}
	})
	p.followPods(func(namespace string, ref *metav1.OwnerReference) string {
		if ref.Kind != daemonSetKind.Kind || !sameGroup(ref, daemonSetKind) {
			return ""
		}
		return namespace + "/" + ref.Name
	}, func(pod *corev1.Pod) (keys []string) {
		for _, set := range all() {
			if set.Namespace == pod.Namespace && selects(set.Spec.Selector, pod.Labels) {
				keys = append(keys, keyOf(set))
			}
		}
		return keys
	})
	p.work(2, d.sync)
}

// daemonTolerations are what every daemon pod tolerates (docs: "DaemonSet", "Taints and tolerations").
func daemonTolerations(spec *corev1.PodSpec) []corev1.Toleration {
	exists := func(key string, effect corev1.TaintEffect) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: effect}
	}
	out := []corev1.Toleration{
		exists(corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute), exists(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute),
		exists(corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule), exists(corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule),
		exists(corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule), exists(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule),
	}
	if spec.HostNetwork {
		out = append(out, exists(corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule))
	}
	return out
}

// fits reports whether a daemon belongs on a node, and whether one that is there may stay.
func fits(set *appsv1.DaemonSet, node *corev1.Node) (run, stay bool) {
	spec := &set.Spec.Template.Spec
	if spec.NodeName != "" && spec.NodeName != node.Name || !nodeSelected(spec, node) {
		return false, false
	}
	tolerations := append(slices.Clone(spec.Tolerations), daemonTolerations(spec)...)
	run, stay = true, true
	for i := range node.Spec.Taints {
		taint := &node.Spec.Taints[i]
		if slices.ContainsFunc(tolerations, func(t corev1.Toleration) bool { return tolerates(&t, taint) }) {
			continue
		}
		switch taint.Effect {
		case corev1.TaintEffectNoExecute:
			return false, false
		case corev1.TaintEffectNoSchedule:
			run = false
		}
	}
	return run, stay
}

// nodeSelected reports whether the node selector and the required node affinity of a pod choose a node.
func nodeSelected(spec *corev1.PodSpec, node *corev1.Node) bool {
	if !labels.SelectorFromSet(spec.NodeSelector).Matches(labels.Set(node.Labels)) {
		return false
	}
	if spec.Affinity == nil || spec.Affinity.NodeAffinity == nil || spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return true
	}
	return slices.ContainsFunc(spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms, func(t corev1.NodeSelectorTerm) bool {
		return len(t.MatchExpressions)+len(t.MatchFields) > 0 && meets(t.MatchExpressions, node.Labels) && meets(t.MatchFields, map[string]string{metav1.ObjectNameField: node.Name})
	})
}

func meets(all []corev1.NodeSelectorRequirement, set map[string]string) bool {
	for _, r := range all {
		value, has := set[r.Key]
		ok := false
		switch r.Operator {
		case corev1.NodeSelectorOpIn:
			ok = has && slices.Contains(r.Values, value)
		case corev1.NodeSelectorOpNotIn:
			ok = !has || !slices.Contains(r.Values, value)
		case corev1.NodeSelectorOpExists:
			ok = has
		case corev1.NodeSelectorOpDoesNotExist:
			ok = !has
		case corev1.NodeSelectorOpGt, corev1.NodeSelectorOpLt:
			n, err := strconv.ParseInt(value, 10, 64)
			if err == nil && len(r.Values) == 1 {
				limit, err := strconv.ParseInt(r.Values[0], 10, 64)
				ok = err == nil && (r.Operator == corev1.NodeSelectorOpGt && n > limit || r.Operator == corev1.NodeSelectorOpLt && n < limit)
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

// nodeOf is the node that a daemon pod is on or meant for.
func nodeOf(pod *corev1.Pod) string {
	if pod.Spec.NodeName != "" || pod.Spec.Affinity == nil || pod.Spec.Affinity.NodeAffinity == nil || pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return pod.Spec.NodeName
	}
	for _, t := range pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for _, f := range t.MatchFields {
			if f.Key == metav1.ObjectNameField && f.Operator == corev1.NodeSelectorOpIn && len(f.Values) == 1 {
				return f.Values[0]
			}
		}
	}
	return ""
}

func (d *daemons) sync(ctx context.Context, key string) error {
	namespace, name := splitKey(key)
	set, err := d.sets.DaemonSets(namespace).Get(name)
	if err != nil {
		d.x.forget(key)
		d.history.forget(key)
		return nil //nolint:nilerr // gone
	}
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil || selector.Empty() {
		d.events.warn(set, "SelectingAll", "This daemon set is selecting all pods. A non-empty selector is required.")
		return nil //nolint:nilerr // nothing can be done until it is changed
	}
	if set.DeletionTimestamp != nil {
		return nil
	}
	met := d.x.met(key)
	o := &owner{meta: set, kind: daemonSetKind, selector: selector, live: func(ctx context.Context) (metav1.Object, error) {
		return d.client.AppsV1().DaemonSets(namespace).Get(ctx, name, metav1.GetOptions{})
	}}
	revisions, err := d.history.of(ctx, o)
	if err != nil {
		return fmt.Errorf("claim revisions of DaemonSet %s: %w", key, err)
	}
	current, err := d.history.current(ctx, o, &set.Spec.Template, appsv1.DefaultDaemonSetUniqueLabelKey, set.Status.CollisionCount, revisions)
	if err != nil {
		return fmt.Errorf("write revision of DaemonSet %s: %w", key, ignore(err, namespaceIsGoing))
	}
	pods, err := d.claimPods(ctx, o)
	if err != nil {
		return fmt.Errorf("claim pods of DaemonSet %s: %w", key, err)
	}
	nodes, err := d.nodes.List(labels.Everything())
	if err != nil {
		return err
	}
	byNode := map[string][]*corev1.Pod{}
	for _, pod := range pods {
		byNode[nodeOf(pod)] = append(byNode[nodeOf(pod)], pod)
	}
	hash := current.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]
	var failed error
	if met {
		failed = d.manage(ctx, key, set, o, hash, nodes, byNode)
		if failed == nil {
			failed = d.history.trim(ctx, revisions, set.Spec.RevisionHistoryLimit, func(r *appsv1.ControllerRevision) bool {
				return r.Name == current.Name || slices.ContainsFunc(pods, func(pod *corev1.Pod) bool {
					return pod.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] == r.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]
				})
			})
		}
	} else {
		d.queue.AddAfter(key, expectAgain)
	}
	status := d.status(key, set, hash, nodes, byNode)
	if equality.Semantic.DeepEqual(status, &set.Status) {
		return failed
	}
	set = set.DeepCopy()
	set.Status = *status
	_, err = d.client.AppsV1().DaemonSets(namespace).UpdateStatus(ctx, set, metav1.UpdateOptions{})
	return errors.Join(failed, gone(err))
}

// manage makes pods where one belongs, deletes where none does, and replaces those of older templates.
func (d *daemons) manage(ctx context.Context, key string, set *appsv1.DaemonSet, o *owner, hash string, nodes []*corev1.Node, byNode map[string][]*corev1.Pod) error {
	var missing []string
	var doomed []*corev1.Pod
	known := map[string]bool{}
	wanted, unavailable := 0, 0
	now := time.Now()
	var old []*corev1.Pod // working, of an older template
	for _, node := range nodes {
		known[node.Name] = true
		run, stay := fits(set, node)
		pods := byNode[node.Name]
		alive := slices.DeleteFunc(slices.Clone(pods), func(pod *corev1.Pod) bool { return !active(pod) })
		if run {
			wanted++
		}
		if !stay {
			doomed = append(doomed, alive...)
			continue
		}
		for _, pod := range pods {
			if pod.Status.Phase == corev1.PodFailed && pod.DeletionTimestamp == nil {
				d.events.warn(set, "FailedDaemonPod", "Found failed daemon pod %s on node %s, will try to kill it", keyOf(pod), node.Name)
				doomed = append(doomed, pod)
			}
		}
		switch {
		case len(alive) == 0 && run:
			unavailable++
			if len(pods) == 0 { // else one is on its way out, and its end comes as an event
				missing = append(missing, node.Name)
			}
			continue
		case len(alive) == 0:
			continue
		}
		slices.SortFunc(alive, func(a, b *corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
		doomed = append(doomed, alive[1:]...)
		pod := alive[0]
		ok, _ := available(pod, set.Spec.MinReadySeconds, now)
		switch fresh := pod.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] == hash; {
		case fresh && !ok:
			unavailable++
		case !fresh && ok:
			old = append(old, pod)
		case !fresh: // it does not work anyway
			unavailable++
			if set.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
				doomed = append(doomed, pod)
			}
		}
	}
	for node, pods := range byNode {
		if node != "" && !known[node] { // the node is gone
			for _, pod := range pods {
				if active(pod) && pod.Spec.NodeName == "" {
					doomed = append(doomed, pod)
				}
			}
		}
	}
	if set.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		room := maxUnavailableOf(set, wanted) - unavailable
		doomed = append(doomed, old[:max(0, min(room, len(old)))]...)
	}
	doomed = doomed[:min(len(doomed), burst)]
	_, errDelete := slowStart(len(doomed), func(i int) error { return d.deletePod(ctx, set, key, doomed[i], d.x) })
	missing = missing[:min(len(missing), burst)]
	_, errCreate := slowStart(len(missing), func(i int) error {
		pod := podFrom(&set.Spec.Template, o)
		generation := set.Annotations[appsv1.DeprecatedTemplateGeneration]
		if generation == "" {
			generation = strconv.FormatInt(set.Generation, 10)
		}
		pod.Labels = with(with(pod.Labels, appsv1.DefaultDaemonSetUniqueLabelKey, hash), "pod-template-generation", generation)
		for _, t := range daemonTolerations(&pod.Spec) {
			if !slices.ContainsFunc(pod.Spec.Tolerations, func(have corev1.Toleration) bool { return have.Key == t.Key && have.Effect == t.Effect }) {
				pod.Spec.Tolerations = append(pod.Spec.Tolerations, t)
			}
		}
		aim(&pod.Spec, missing[i])
		return d.createPod(ctx, set, key, pod, d.x)
	})
	return errors.Join(errDelete, ignore(errCreate, namespaceIsGoing))
}

// aim makes the scheduler put a pod onto a node.
func aim(spec *corev1.PodSpec, node string) {
	byName := []corev1.NodeSelectorRequirement{{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}}
	if spec.Affinity == nil {
		spec.Affinity = &corev1.Affinity{}
	}
	if spec.Affinity.NodeAffinity == nil {
		spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	// What the template requires was checked; the node's name stands for it.
	spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: byName}}}
}

func maxUnavailableOf(set *appsv1.DaemonSet, wanted int) int {
	rolling := set.Spec.UpdateStrategy.RollingUpdate
	if rolling == nil || rolling.MaxUnavailable == nil {
		return 1
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(rolling.MaxUnavailable, wanted, true)
	if err != nil {
		return 1
	}
	return max(1, n)
}

func (d *daemons) status(key string, set *appsv1.DaemonSet, hash string, nodes []*corev1.Node, byNode map[string][]*corev1.Pod) *appsv1.DaemonSetStatus {
	s := &appsv1.DaemonSetStatus{ObservedGeneration: set.Generation, CollisionCount: set.Status.CollisionCount, Conditions: set.Status.Conditions}
	now := time.Now()
	for _, node := range nodes {
		run, _ := fits(set, node)
		pods := slices.DeleteFunc(slices.Clone(byNode[node.Name]), func(pod *corev1.Pod) bool { return !active(pod) })
		if !run {
			if len(pods) > 0 {
				s.NumberMisscheduled++
			}
			continue
		}
		s.DesiredNumberScheduled++
		if len(pods) == 0 {
			continue
		}
		s.CurrentNumberScheduled++
		slices.SortFunc(pods, func(a, b *corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
		pod := pods[0]
		if ready(pod) {
			s.NumberReady++
			if ok, again := available(pod, set.Spec.MinReadySeconds, now); ok {
				s.NumberAvailable++
			} else if again > 0 {
				d.queue.AddAfter(key, again)
			}
		}
		if pod.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] == hash {
			s.UpdatedNumberScheduled++
		}
	}
	s.NumberUnavailable = s.DesiredNumberScheduled - s.NumberAvailable
	return s
}
