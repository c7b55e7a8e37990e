package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
)

// A namespace whose contents are still going, pods in their grace period or objects with finalizers, is looked at
// again when an object in it goes, and in any case after a while that grows.
const (
	drainSoon  = 100 * time.Millisecond
	drainFirst = time.Second
	drainMost  = time.Minute
)

// addNamespaces empties namespaces that end and then lets them go.
func (c *Controllers) addNamespaces() {
	namespaces := c.informers.Core().V1().Namespaces()
	p := c.add("namespace", "namespace-controller")
	d := &drainer{part: p, metadata: c.metadataAs("namespace-controller")}
	follow(p, namespaces.Informer(), func(ns *corev1.Namespace) {
		if ns.DeletionTimestamp != nil {
			p.queue.Add(ns.Name)
		}
	})
	c.onDeletion(func(_ schema.GroupVersionResource, namespace, _ string) {
		if ns, err := namespaces.Lister().Get(namespace); err == nil && ns.DeletionTimestamp != nil {
			p.queue.AddAfter(ns.Name, drainSoon)
		}
	})
	p.work(5, func(ctx context.Context, name string) error {
		ns, err := p.client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil || ns.DeletionTimestamp == nil || !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
			return err
		}
		left, err := d.drain(ctx, ns)
		if err != nil {
			return err
		}
		if left {
			p.queue.AddGrowing(name, drainFirst, drainMost)
			return nil
		}
		ns.Spec.Finalizers = slices.DeleteFunc(ns.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
		_, err = p.client.CoreV1().Namespaces().Finalize(ctx, ns, metav1.UpdateOptions{})
		return gone(err)
	})
}

// drainer empties namespaces.
type drainer struct {
	*part
	metadata metadata.Interface
}

// drain deletes everything in a namespace and reports whether something is left. What remains is
// told in the namespace's conditions.
func (c *drainer) drain(ctx context.Context, ns *corev1.Namespace) (left bool, err error) {
	r := remains{content: map[string]int{}, finalizers: map[string]int{}}
	resources, discoveryErr := c.namespaced()
	r.discovery = discoveryErr
	// Pods go first and alone (KEP-5080): what they need, network policies or secrets, must not go before them.
	isPods := func(r schema.GroupVersionResource) bool { return r.Group == "" && r.Resource == "pods" }
	for _, now := range [][]schema.GroupVersionResource{
		slices.DeleteFunc(slices.Clone(resources), func(r schema.GroupVersionResource) bool { return !isPods(r) }),
		slices.DeleteFunc(slices.Clone(resources), isPods),
	} {
		for _, resource := range now {
			if err := c.drainResource(ctx, ns.Name, resource, &r); err != nil {
				r.failed = append(r.failed, fmt.Errorf("%s: %w", resource.String(), err))
			}
		}
		if len(r.content) > 0 || len(r.failed) > 0 {
			break
		}
	}
	updated := ns.DeepCopy()
	updated.Status.Conditions = r.conditions(ns.Status.Conditions, metav1.Now())
	if !sameConditions(ns.Status.Conditions, updated.Status.Conditions) {
		current, err := c.client.CoreV1().Namespaces().UpdateStatus(ctx, updated, metav1.UpdateOptions{})
		if err != nil {
			return true, gone(err)
		}
		*ns = *current
	}
	if discoveryErr != nil || len(r.failed) > 0 {
		return true, errors.Join(append(r.failed, discoveryErr)...)
	}
	return len(r.content) > 0, nil
}

// namespaced lists the resources that can be listed and deleted in a namespace.
func (c *drainer) namespaced() ([]schema.GroupVersionResource, error) {
	lists, err := c.discovery.ServerPreferredNamespacedResources() // also with an error: of the groups that could be discovered
	var out []schema.GroupVersionResource
	deletable := discovery.SupportsAllVerbs{Verbs: []string{"list", "delete"}}
	for _, list := range discovery.FilteredBy(deletable, lists) {
		gv, parseErr := schema.ParseGroupVersion(list.GroupVersion)
		if parseErr != nil {
			return nil, parseErr
		}
		for _, r := range list.APIResources {
			if gv.Group == "events.k8s.io" { // the same objects as core events
				continue
			}
			out = append(out, gv.WithResource(r.Name))
		}
	}
	return out, err
}

func (c *drainer) drainResource(ctx context.Context, namespace string, resource schema.GroupVersionResource, r *remains) error {
	client := c.metadata.Resource(resource).Namespace(namespace)
	list, err := client.List(ctx, metav1.ListOptions{})
	if err != nil {
		return ignore(err, apierrors.IsNotFound, apierrors.IsMethodNotSupported)
	}
	if len(list.Items) == 0 {
		return nil
	}
	background := metav1.DeletePropagationBackground
	err = client.DeleteCollection(ctx, metav1.DeleteOptions{PropagationPolicy: &background}, metav1.ListOptions{})
	if apierrors.IsMethodNotSupported(err) {
		for i := range list.Items {
			if err := client.Delete(ctx, list.Items[i].Name, metav1.DeleteOptions{PropagationPolicy: &background}); err != nil && !apierrors.IsNotFound(err) {
				return err
			}
		}
	} else if err != nil {
		return err
	}
	if list, err = client.List(ctx, metav1.ListOptions{}); err != nil {
		return err
	}
	if n := len(list.Items); n > 0 {
		r.content[resource.Resource+"."+resource.Group] += n // Parity: "pods." for the core group
	}
	for i := range list.Items {
		for _, f := range list.Items[i].Finalizers {
			r.finalizers[f]++
		}
	}
	return nil
}

// remains is what keeps a namespace from going.
type remains struct {
	discovery  error
	failed     []error
	content    map[string]int // objects by resource
	finalizers map[string]int // objects by finalizer
}

// conditions are those of a namespace that ends, as kube-controller-manager words them.
func (r *remains) conditions(have []corev1.NamespaceCondition, now metav1.Time) []corev1.NamespaceCondition {
	var deletion, discovered error
	if n := len(r.failed); n > 0 {
		deletion = fmt.Errorf("Failed to delete all resource types, %d remaining: %w", n, errors.Join(r.failed...)) //nolint:staticcheck // a message for people
	}
	if r.discovery != nil {
		discovered = fmt.Errorf("Discovery failed for some groups, %d failing: %w", failedGroups(r.discovery), r.discovery) //nolint:staticcheck // as above
	}
	set := []corev1.NamespaceCondition{
		problem(corev1.NamespaceDeletionDiscoveryFailure, discovered, "DiscoveryFailed", "ResourcesDiscovered", "All resources successfully discovered"),
		{Type: corev1.NamespaceDeletionGVParsingFailure, Status: corev1.ConditionFalse, Reason: "ParsedGroupVersions", Message: "All legacy kube types successfully parsed"},
		problem(corev1.NamespaceDeletionContentFailure, deletion, "ContentDeletionFailed", "ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
		counted(corev1.NamespaceContentRemaining, r.content, "SomeResourcesRemain", "Some resources are remaining: ", "%s has %d resource instances", "ContentRemoved", "All content successfully removed"),
		counted(corev1.NamespaceFinalizersRemaining, r.finalizers, "SomeFinalizersRemain", "Some content in the namespace has finalizers remaining: ", "%s in %d resource instances", "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
	}
	for i := range set {
		set[i].LastTransitionTime = now
		for _, old := range have {
			if old.Type == set[i].Type && old.Status == set[i].Status {
				set[i].LastTransitionTime = old.LastTransitionTime
			}
		}
	}
	return set
}

// failedGroups counts the groups that discovery failed for.
func failedGroups(err error) int {
	var failed *discovery.ErrGroupDiscoveryFailed
	if errors.As(err, &failed) {
		return len(failed.Groups)
	}
	return 1
}

func problem(t corev1.NamespaceConditionType, err error, bad, good, text string) corev1.NamespaceCondition {
	if err != nil {
		return corev1.NamespaceCondition{Type: t, Status: corev1.ConditionTrue, Reason: bad, Message: err.Error()}
	}
	return corev1.NamespaceCondition{Type: t, Status: corev1.ConditionFalse, Reason: good, Message: text}
}

func counted(t corev1.NamespaceConditionType, counts map[string]int, bad, prefix, format, good, text string) corev1.NamespaceCondition {
	if len(counts) == 0 {
		return corev1.NamespaceCondition{Type: t, Status: corev1.ConditionFalse, Reason: good, Message: text}
	}
	var parts []string
	for what, n := range counts {
		parts = append(parts, fmt.Sprintf(format, what, n))
	}
	slices.Sort(parts)
	return corev1.NamespaceCondition{Type: t, Status: corev1.ConditionTrue, Reason: bad, Message: prefix + strings.Join(parts, ", ")}
}

func sameConditions(a, b []corev1.NamespaceCondition) bool {
	return slices.EqualFunc(a, b, func(x, y corev1.NamespaceCondition) bool {
		return x.Type == y.Type && x.Status == y.Status && x.Reason == y.Reason && x.Message == y.Message
	})
}
