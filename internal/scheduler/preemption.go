package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Preemption makes room for a pod by deleting pods of lower priority from one
// node ("Pod Priority and Preemption" in the Kubernetes docs). On each node
// where it may help, all such pods are taken away in thought; if the pod then
// fits, as many as possible are put back, the most important first. The node
// whose victims matter least is chosen, its victims deleted, and the pod
// nominated to it: others of no higher priority must leave it the room until
// it is tried again, which their going brings about.

// preemptionCandidates is how many nodes with victims are enough to choose from.
const preemptionCandidates = 100

// A candidate is a node with the pods that would have to go.
type candidate struct {
	node       string
	victims    []*PodInfo // most important first
	violations int        // of disruption budgets
}

// preempt tries to make room for pod. It returns the nomination to write to
// the pod's status, nil for no change, and for people what came of it.
func (s *Scheduler) preempt(ctx context.Context, pod *PodInfo, cluster *Cluster, why *misfit) (nomination *string, outcome string) {
	if why.nodes == 0 {
		return nil, ""
	}
	if reason := notEligible(pod, cluster, why); reason != "" {
		return nil, "preemption: not eligible due to " + reason + "."
	}
	none := ""
	candidates, statuses, err := s.candidates(ctx, pod, cluster, why)
	if err != nil {
		s.log.Warn("looking for pods to preempt", "pod", pod.String(), "err", err)
		return nil, "preemption: " + err.Error()
	}
	if len(candidates) == 0 {
		s.nominated.remove(idOf(pod.Pod))
		return &none, fmt.Sprintf("preemption: 0/%d nodes are available%s", why.nodes, histogram(statuses))
	}
	chosen := slices.MinFunc(candidates, leastHarm)
	if err := s.evict(ctx, pod, chosen); err != nil {
		s.log.Warn("preempting", "pod", pod.String(), "node", chosen.node, "err", err)
		return nil, "preemption: " + err.Error()
	}
	s.nominated.nominate(pod, chosen.node)
	return &chosen.node, ""
}

// notEligible says why pod may not preempt, "" if it may.
func notEligible(pod *PodInfo, cluster *Cluster, why *misfit) string {
	if p := pod.Spec.PreemptionPolicy; p != nil && *p == v1.PreemptNever {
		return "preemptionPolicy=Never"
	}
	name := pod.Status.NominatedNodeName
	node := cluster.node(name)
	if name == "" || node == nil {
		return ""
	}
	if status := why.status(name); status != nil && status.Final {
		return "" // the nominated node will not do any more
	}
	for _, p := range node.Pods {
		if p.DeletionTimestamp != nil && p.priority() < pod.priority() {
			return "a terminating pod on the nominated node"
		}
	}
	return ""
}

// candidates lists nodes where preemption helps, and why it does not on others.
func (s *Scheduler) candidates(ctx context.Context, pod *PodInfo, cluster *Cluster, why *misfit) ([]candidate, map[string]*Status, error) {
	var found []candidate
	var budgets []policyv1.PodDisruptionBudget
	haveBudgets := false
	statuses := make(map[string]*Status, len(cluster.Nodes))
	offset := rand.IntN(len(cluster.Nodes))
	for i := range cluster.Nodes {
		node := cluster.Nodes[(offset+i)%len(cluster.Nodes)]
		if status := why.status(node.Name); status == nil || status.Final {
			statuses[node.Name] = rejectedFinally("Preemption is not helpful for scheduling")
			continue
		}
		if len(found) >= preemptionCandidates {
			continue
		}
		lower := slices.Collect(func(yield func(*PodInfo) bool) {
			for _, p := range node.Pods {
				if p.priority() < pod.priority() && !yield(p) {
					return
				}
			}
		})
		if len(lower) == 0 {
			statuses[node.Name] = rejectedFinally("No preemption victims found for incoming pod")
			continue
		}
		if !haveBudgets { // asked for only now: most failures need none
			list, err := s.budgets(ctx)
			if err != nil {
				return nil, nil, err
			}
			budgets, haveBudgets = list, true
		}
		c, status, err := s.spare(pod, cluster, node, lower, budgets)
		switch {
		case err != nil:
			return nil, nil, err
		case status != nil:
			statuses[node.Name] = status
		default:
			found = append(found, c)
		}
	}
	return found, statuses, nil
}

func (s *Scheduler) budgets(ctx context.Context) ([]policyv1.PodDisruptionBudget, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	list, err := s.client.PolicyV1().PodDisruptionBudgets(metav1.NamespaceAll).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, fmt.Errorf("listing disruption budgets: %w", err)
	}
	return list.Items, nil
}

// spare finds which of the pods lower on node have to go for pod to fit; a
// Status if it does not fit even without all of them.
func (s *Scheduler) spare(pod *PodInfo, cluster *Cluster, node *NodeInfo, lower []*PodInfo, budgets []policyv1.PodDisruptionBudget) (candidate, *Status, error) {
	fits := func(n *NodeInfo) (*Status, error) {
		tried := cluster.with(n)
		filters, misfit, err := s.prepare(pod, tried)
		if err != nil {
			return nil, err
		}
		if misfit != nil {
			return misfit.everywhere, nil
		}
		_, status, err := s.ask(pod, tried, filters, n)
		return status, err
	}
	n := node
	for _, p := range lower {
		n = n.withoutPod(idOf(p.Pod))
	}
	if status, err := fits(n); status != nil || err != nil {
		return candidate{}, status, err
	}
	slices.SortFunc(lower, moreImportant)
	protected, others := splitByBudgets(lower, budgets)
	c := candidate{node: node.Name}
	for i, p := range slices.Concat(protected, others) {
		with := n.withPod(p)
		status, err := fits(with)
		if err != nil {
			return candidate{}, nil, err
		}
		if status == nil {
			n = with
			continue
		}
		c.victims = append(c.victims, p)
		if i < len(protected) {
			c.violations++
		}
	}
	slices.SortFunc(c.victims, moreImportant)
	return c, nil, nil
}

// moreImportant orders pods: higher priority first, then longer running.
func moreImportant(a, b *PodInfo) int {
	if c := cmp.Compare(b.priority(), a.priority()); c != 0 {
		return c
	}
	return startTime(a).Compare(startTime(b))
}

func startTime(p *PodInfo) time.Time {
	if p.Status.StartTime != nil {
		return p.Status.StartTime.Time
	}
	return time.Now()
}

// splitByBudgets parts the pods whose eviction, in this order, would violate a
// disruption budget from the others.
func splitByBudgets(pods []*PodInfo, budgets []policyv1.PodDisruptionBudget) (protected, others []*PodInfo) {
	allowed := make([]int32, len(budgets))
	for i := range budgets {
		allowed[i] = budgets[i].Status.DisruptionsAllowed
	}
	for _, p := range pods {
		violates := false
		for i := range budgets {
			b := &budgets[i]
			if b.Namespace != p.Namespace || !budgetCovers(b, p.Pod) {
				continue
			}
			if _, counted := b.Status.DisruptedPods[p.Name]; counted {
				continue
			}
			if allowed[i]--; allowed[i] < 0 {
				violates = true
			}
		}
		if violates {
			protected = append(protected, p)
		} else {
			others = append(others, p)
		}
	}
	return protected, others
}

// budgetCovers: an empty selector covers the namespace (policy/v1), none nothing.
func budgetCovers(b *policyv1.PodDisruptionBudget, pod *v1.Pod) bool {
	if b.Spec.Selector == nil {
		return false
	}
	return selectorOf(b.Spec.Selector).Matches(labels.Set(pod.Labels))
}

// leastHarm orders candidates: fewest budget violations, least important first
// victim, least sum of priorities, fewest victims, then the first victim that
// started last.
func leastHarm(a, b candidate) int {
	if c := cmp.Compare(a.violations, b.violations); c != 0 {
		return c
	}
	if len(a.victims) == 0 || len(b.victims) == 0 {
		return cmp.Compare(len(a.victims), len(b.victims))
	}
	if c := cmp.Compare(a.victims[0].priority(), b.victims[0].priority()); c != 0 {
		return c
	}
	if c := cmp.Compare(prioritySum(a.victims), prioritySum(b.victims)); c != 0 {
		return c
	}
	if c := cmp.Compare(len(a.victims), len(b.victims)); c != 0 {
		return c
	}
	return startTime(b.victims[0]).Compare(startTime(a.victims[0]))
}

// prioritySum shifts priorities so that more victims never sum to less.
func prioritySum(pods []*PodInfo) int64 {
	var sum int64
	for _, p := range pods {
		sum += int64(p.priority()) + 1<<31
	}
	return sum
}

// evict deletes the victims, each marked first with why (KEP-3329), and takes
// back the nominations of less important pods to the node.
func (s *Scheduler) evict(ctx context.Context, pod *PodInfo, c candidate) error {
	for _, victim := range c.victims {
		if victim.DeletionTimestamp != nil {
			continue
		}
		if err := s.evictOne(ctx, pod, victim.Pod); err != nil {
			return err
		}
		s.events.preempted(victim.Pod, pod.Pod, c.node)
		s.log.Info("preempted", "victim", victim.String(), "for", pod.String(), "node", c.node)
	}
	for _, p := range s.nominated.lower(c.node, pod.priority()) {
		s.nominated.remove(idOf(p.Pod))
		if err := s.patchStatus(ctx, p.Pod, nominationPatch(p.Pod, "")); err != nil && !apierrors.IsNotFound(err) {
			s.log.Warn("taking back a nomination", "pod", p.String(), "err", err)
		}
		s.queue.happened(Event{Kind: PodRemoved, OldPod: p.Pod})
	}
	return nil
}

func (s *Scheduler) evictOne(ctx context.Context, pod *PodInfo, victim *v1.Pod) error {
	if patch := statusPatch(victim, v1.PodCondition{
		Type:               v1.DisruptionTarget,
		Status:             v1.ConditionTrue,
		Reason:             v1.PodReasonPreemptionByScheduler,
		Message:            fmt.Sprintf("%s: preempting to accommodate a higher priority pod", pod.Spec.SchedulerName),
		ObservedGeneration: victim.Generation,
	}, nil); patch != nil {
		if err := s.patchStatus(ctx, victim, patch); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	uid := victim.UID
	err := s.client.CoreV1().Pods(victim.Namespace).Delete(ctx, victim.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("deleting pod %s/%s: %w", victim.Namespace, victim.Name, err)
	}
	return nil
}
