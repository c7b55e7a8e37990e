package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
)

const (
	// maxDisrupted bounds the evictions that a budget's controller has not seen yet.
	maxDisrupted = 2000
	// maxEvictionTries is how often an eviction begins again after another write came between.
	maxEvictionTries = 20
	// evictionRetrySeconds is what a client should wait for a budget that is behind.
	evictionRetrySeconds = 10

	evictionRefused = "Cannot evict pod as it would violate the pod's disruption budget."
)

var budgetResource = schema.GroupResource{Group: policyv1.GroupName, Resource: "poddisruptionbudgets"}

// evictPod deletes a pod unless its disruption budget forbids that (Kubernetes documentation,
// "API-initiated Eviction").
func evictPod(ctx context.Context, call kind.JobCall) (object.Object, error) {
	e, ok := call.Body.(*policyv1.Eviction)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Eviction object: %T", call.Body))
	}
	if e.Name != "" && e.Name != call.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Eviction object")
	}
	options := metav1.DeleteOptions{}
	if e.DeleteOptions != nil {
		options = *e.DeleteOptions.DeepCopy()
	}
	if call.DryRun {
		options.DryRun = []string{metav1.DryRunAll}
	}
	call.DryRun = len(options.DryRun) > 0
	if call.Check != nil {
		if err := call.Check(ctx); err != nil {
			return nil, err
		}
	}
	var err error
	for range maxEvictionTries {
		if err = tryEvict(ctx, call, options); !apierrors.IsConflict(err) || options.Preconditions != nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return &kind.Done{}, nil
}

func tryEvict(ctx context.Context, call kind.JobCall, options metav1.DeleteOptions) error {
	obj, err := call.Objects.Get(ctx, podResource, call.Namespace, call.Name)
	if err != nil {
		return err
	}
	p := obj.(*corev1.Pod)
	remove := func(unchanged bool) error {
		options := *options.DeepCopy()
		if unchanged { // what was decided holds for this version of the pod only
			if options.Preconditions == nil {
				options.Preconditions = &metav1.Preconditions{}
			}
			if options.Preconditions.ResourceVersion == nil && options.Preconditions.UID == nil {
				options.Preconditions.ResourceVersion = &p.ResourceVersion
			}
		}
		if err := markEvicted(ctx, call, &options); err != nil {
			return err
		}
		return call.Objects.Delete(ctx, podResource, call.Namespace, call.Name, options)
	}
	if free := unbudgeted(p); free {
		return remove(p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodPending)
	}
	budgets, err := budgetsOf(ctx, call.Objects, p)
	switch {
	case err != nil:
		return err
	case len(budgets) == 0:
		return remove(false)
	case len(budgets) > 1:
		return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: 500,
			Message: "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."}}
	}
	budget := budgets[0]
	if !conditionTrue(p, corev1.PodReady) && sparesUnready(budget) {
		return remove(true)
	}
	_, err = call.Objects.Change(ctx, budgetResource, call.Namespace, budget.Name, func(obj object.Object) error {
		return spend(obj.(*policyv1.PodDisruptionBudget), p.Name)
	}, kind.ChangeOptions{Raw: true, DryRun: call.DryRun})
	if err != nil {
		return err
	}
	return remove(false)
}

// markEvicted says in the pod's status why it is going (KEP-3329), before it is deleted: who looks at a failed pod can tell. A precondition about the
// pod's version is then one about the version that says so.
func markEvicted(ctx context.Context, call kind.JobCall, options *metav1.DeleteOptions) error {
	if call.DryRun {
		return nil
	}
	marked, err := call.Objects.Change(ctx, podResource, call.Namespace, call.Name, func(obj object.Object) error {
		if p := options.Preconditions; p != nil {
			if p.UID != nil && *p.UID != obj.GetUID() || p.ResourceVersion != nil && *p.ResourceVersion != obj.GetResourceVersion() {
				return errUnmarked // the deletion will say what is wrong
			}
		}
		pod := obj.(*corev1.Pod)
		condition := corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: evictionReason, Message: "Eviction API: evicting",
			ObservedGeneration: pod.Generation, LastTransitionTime: metav1.Now(),
		}
		at := slices.IndexFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == condition.Type })
		switch {
		case at < 0:
			pod.Status.Conditions = append(pod.Status.Conditions, condition)
		case pod.Status.Conditions[at].Status != condition.Status || pod.Status.Conditions[at].Reason != condition.Reason:
			pod.Status.Conditions[at] = condition
		}
		return nil
	}, kind.ChangeOptions{Raw: true})
	switch {
	case errors.Is(err, errUnmarked):
		return nil
	case err != nil:
		return err
	}
	if p := options.Preconditions; p != nil && p.ResourceVersion != nil {
		version := marked.GetResourceVersion()
		p.ResourceVersion = &version
	}
	return nil
}

// evictionReason is the reason of the condition DisruptionTarget of a pod that is evicted.
const evictionReason = "EvictionByEvictionAPI"

var errUnmarked = errors.New("the pod is another one")

// unbudgeted reports whether a pod can go without asking: nobody relies on it.
func unbudgeted(p *corev1.Pod) bool {
	switch p.Status.Phase {
	case corev1.PodSucceeded, corev1.PodFailed, corev1.PodPending:
		return true
	}
	return p.DeletionTimestamp != nil
}

func budgetsOf(ctx context.Context, r kind.Reader, p *corev1.Pod) ([]*policyv1.PodDisruptionBudget, error) {
	all, err := r.List(ctx, budgetResource, p.Namespace)
	if err != nil {
		return nil, err
	}
	var mine []*policyv1.PodDisruptionBudget
	for _, obj := range all {
		b := obj.(*policyv1.PodDisruptionBudget)
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err == nil && selector.Matches(labels.Set(p.Labels)) {
			mine = append(mine, b)
		}
	}
	return mine, nil
}

// sparesUnready reports whether a budget lets pods go that are not ready anyway (KEP-3017).
func sparesUnready(b *policyv1.PodDisruptionBudget) bool {
	if ptr.Deref(b.Spec.UnhealthyPodEvictionPolicy, policyv1.IfHealthyBudget) == policyv1.AlwaysAllow {
		return true
	}
	return b.Status.CurrentHealthy >= b.Status.DesiredHealthy && b.Status.DesiredHealthy > 0
}

// spend takes one disruption from a budget and notes the pod, until the budget's controller sees it gone.
func spend(b *policyv1.PodDisruptionBudget, pod string) error {
	switch s := &b.Status; {
	case s.ObservedGeneration < b.Generation:
		return evictLater(evictionRetrySeconds, fmt.Sprintf("The disruption budget %s is still being processed by the server.", b.Name))
	case s.DisruptionsAllowed < 0:
		return apierrors.NewForbidden(budgetResource, b.Name, fmt.Errorf("pdb disruptions allowed is negative"))
	case len(s.DisruptedPods) > maxDisrupted:
		return apierrors.NewForbidden(budgetResource, b.Name, fmt.Errorf("DisruptedPods map too big - too many evictions not confirmed by PDB controller"))
	case s.DisruptionsAllowed == 0:
		if why := syncFailure(b); why != "" {
			return evictLater(evictionRetrySeconds, why)
		}
		return evictLater(0, fmt.Sprintf("The disruption budget %s needs %d healthy pods and has %d currently", b.Name, s.DesiredHealthy, s.CurrentHealthy))
	}
	b.Status.DisruptionsAllowed--
	if b.Status.DisruptionsAllowed == 0 {
		for i := range b.Status.Conditions {
			c := &b.Status.Conditions[i]
			if c.Type == policyv1.DisruptionAllowedCondition {
				c.Status, c.Reason, c.LastTransitionTime = metav1.ConditionFalse, policyv1.InsufficientPodsReason, metav1.Now()
			}
		}
	}
	if b.Status.DisruptedPods == nil {
		b.Status.DisruptedPods = map[string]metav1.Time{}
	}
	b.Status.DisruptedPods[pod] = metav1.Time{Time: time.Now()}
	return nil
}

// syncFailure says why a budget's controller cannot tell how many disruptions are allowed; "" if it can.
func syncFailure(b *policyv1.PodDisruptionBudget) string {
	for _, c := range b.Status.Conditions {
		if c.Type == policyv1.DisruptionAllowedCondition && c.Status == metav1.ConditionFalse && c.Reason == policyv1.SyncFailedReason {
			return fmt.Sprintf("The disruption budget %s cannot be computed: %s", b.Name, c.Message)
		}
	}
	return ""
}

func evictLater(seconds int, why string) error {
	err := apierrors.NewTooManyRequests(evictionRefused, seconds)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: why})
	return err
}
