package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/timonel/timonel/internal/admission"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/pager"
)

// counter fills in what the quotas of a namespace allow and what is used of it (docs: "Resource Quotas").
//
// Admission adds to status.used what requests take. The counter counts anew when a quota's limits change, when something that is limited is deleted
// or ends, and, once requests have been quiet, to give back what was charged for objects that were never written. A count reads the quota first and
// writes only if it is still that version, so a charge in between is not lost.
type counter struct {
	*part
	metadata metadata.Interface
	quotas   corelisters.ResourceQuotaLister
}

const (
	// recountSoon gathers deletions that come together.
	recountSoon = 200 * time.Millisecond
	// recountQuiet is how long after a charge it is counted whether the object was written.
	recountQuiet = 10 * time.Second
	// countPage is how many objects are read at a time.
	countPage = 500
)

func (c *Controllers) addQuotas() {
	quotas := c.informers.Core().V1().ResourceQuotas()
	p := c.add("quota", "resourcequota-controller")
	q := &counter{part: p, metadata: c.metadataAs("resourcequota-controller"), quotas: quotas.Lister()}
	followChanges(p, quotas.Informer(), func(old, quota *corev1.ResourceQuota) {
		if !equality.Semantic.DeepEqual(quota.Spec.Hard, quota.Status.Hard) {
			p.queue.Add(keyOf(quota))
		} else if old == nil || !equality.Semantic.DeepEqual(old.Status.Used, quota.Status.Used) {
			p.queue.AddAfter(keyOf(quota), recountQuiet)
		}
	}, func(*corev1.ResourceQuota) {})
	c.onDeletion(func(resource schema.GroupVersionResource, namespace, _ string) {
		q.replenish(resource.GroupResource(), namespace)
	})
	followChanges(p, c.podIndex().informer, func(old, pod *corev1.Pod) {
		if old != nil && (finished(pod) != finished(old) || (pod.DeletionTimestamp == nil) != (old.DeletionTimestamp == nil)) {
			q.replenish(schema.GroupResource{Resource: "pods"}, pod.Namespace)
		}
	}, func(*corev1.Pod) {})
	p.work(2, q.sync)
}

// replenish queues the quotas of a namespace that limit a resource.
func (q *counter) replenish(resource schema.GroupResource, namespace string) {
	if namespace == "" {
		return
	}
	all, _ := q.quotas.ResourceQuotas(namespace).List(labels.Everything()) // a lister of an informer does not fail
	for _, quota := range all {
		for name := range quota.Status.Hard {
			if r, ok := limited(name); !ok || r == resource {
				q.queue.AddAfter(keyOf(quota), recountSoon)
				break
			}
		}
	}
}

// limited is the resource whose objects a limit counts or measures; ok is false if it is not known.
func limited(name corev1.ResourceName) (r schema.GroupResource, ok bool) {
	s := string(name)
	if counted, is := strings.CutPrefix(s, "count/"); is {
		return schema.ParseGroupResource(counted), true
	}
	switch name {
	case corev1.ResourceServicesLoadBalancers, corev1.ResourceServicesNodePorts, corev1.ResourceServices:
		return schema.GroupResource{Resource: "services"}, true
	case corev1.ResourceRequestsStorage, corev1.ResourcePersistentVolumeClaims:
		return schema.GroupResource{Resource: "persistentvolumeclaims"}, true
	case corev1.ResourceConfigMaps, corev1.ResourceSecrets, corev1.ResourceReplicationControllers, corev1.ResourceQuotas:
		return schema.GroupResource{Resource: s}, true
	}
	switch {
	case strings.Contains(s, ".storageclass.storage.k8s.io/"), strings.Contains(s, ".volumeattributesclass.storage.k8s.io/"):
		return schema.GroupResource{Resource: "persistentvolumeclaims"}, true
	case strings.HasSuffix(s, ".deviceclass.resource.k8s.io/devices"):
		return schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceclaims"}, true
	}
	return schema.GroupResource{Resource: "pods"}, true // cpu, memory, requests.…, limits.…, extended resources
}

func (q *counter) sync(ctx context.Context, key string) error {
	namespace, name := splitKey(key)
	quota, err := q.quotas.ResourceQuotas(namespace).Get(name)
	if err != nil {
		return nil //nolint:nilerr // gone
	}
	used := corev1.ResourceList{}
	var failed []error
	wanted := map[schema.GroupResource][]corev1.ResourceName{}
	for limit := range quota.Spec.Hard {
		r, _ := limited(limit)
		wanted[r] = append(wanted[r], limit)
	}
	for r, limits := range wanted {
		sums, err := q.count(ctx, quota, r)
		if err != nil {
			failed = append(failed, fmt.Errorf("count %s in %s: %w", r, namespace, err))
			for _, limit := range limits { // what was known stays, admission adds to it
				if amount, ok := quota.Status.Used[limit]; ok {
					used[limit] = amount
				}
			}
			continue
		}
		for _, limit := range limits {
			used[limit] = sums[limit] // zero if there is nothing
		}
	}
	status := corev1.ResourceQuotaStatus{Hard: quota.Spec.Hard.DeepCopy(), Used: used}
	if !equality.Semantic.DeepEqual(status, quota.Status) {
		quota = quota.DeepCopy()
		quota.Status = status
		if _, err := q.client.CoreV1().ResourceQuotas(namespace).UpdateStatus(ctx, quota, metav1.UpdateOptions{}); err != nil {
			failed = append(failed, gone(err))
		}
	}
	return errors.Join(failed...)
}

// count sums up what the objects of a resource take that the quota's scopes cover. Pods, services and claims
// are read whole, other objects are only counted.
func (q *counter) count(ctx context.Context, quota *corev1.ResourceQuota, r schema.GroupResource) (corev1.ResourceList, error) {
	var list pager.ListPageFunc
	core := q.client.CoreV1()
	switch {
	case r == schema.GroupResource{Resource: "pods"}:
		list = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return core.Pods(quota.Namespace).List(ctx, o)
		}
	case r == schema.GroupResource{Resource: "services"}:
		list = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return core.Services(quota.Namespace).List(ctx, o)
		}
	case r == schema.GroupResource{Resource: "persistentvolumeclaims"}:
		list = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return core.PersistentVolumeClaims(quota.Namespace).List(ctx, o)
		}
	case r == schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceclaims"}:
		list = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return q.client.ResourceV1().ResourceClaims(quota.Namespace).List(ctx, o)
		}
	default:
		resource, err := q.served(r)
		if err != nil {
			return nil, err
		}
		if resource.Empty() { // nothing of a kind that is not served
			return nil, nil
		}
		list = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return q.metadata.Resource(resource).Namespace(quota.Namespace).List(ctx, o)
		}
	}
	sums := corev1.ResourceList{}
	pages := pager.New(list)
	pages.PageSize = countPage
	err := pages.EachListItem(ctx, metav1.ListOptions{}, func(o runtime.Object) error {
		obj, ok := o.(object.Object)
		if !ok {
			return fmt.Errorf("got a %T", o)
		}
		if !admission.QuotaCovers(quota, r, obj) {
			return nil
		}
		for name, amount := range admission.QuotaUsage(r, obj) {
			sum := sums[name]
			sum.Add(amount)
			sums[name] = sum
		}
		return nil
	})
	return sums, err
}

// served is the version that a resource is read at; empty if there is none.
func (q *counter) served(r schema.GroupResource) (schema.GroupVersionResource, error) {
	lists, err := q.discovery.ServerPreferredNamespacedResources()
	for _, list := range lists {
		gv, parseErr := schema.ParseGroupVersion(list.GroupVersion)
		if parseErr != nil || gv.Group != r.Group {
			continue
		}
		for i := range list.APIResources {
			if list.APIResources[i].Name == r.Resource {
				return gv.WithResource(r.Resource), nil
			}
		}
	}
	return schema.GroupVersionResource{}, err
}
