package controller

import (
	"context"
	"slices"
	"time"

	"github.com/timonel/timonel/internal/api/apiserverinternal"
	internalv1alpha1 "k8s.io/api/apiserverinternal/v1alpha1"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
)

// serverLease is the label of the Leases that show which API servers there are (KEP-1965).
const serverLease = "apiserver.kubernetes.io/identity"

// addStorageVersions takes out of StorageVersions what API servers that are gone said, and removes those of which nobody says
// anything any more (KEP-2339). A server is gone when its identity Lease is, or has run out.
func (c *Controllers) addStorageVersions() {
	p := c.add("storage versions", "storage-version-garbage-collector")
	versions := c.informers.Internal().V1alpha1().StorageVersions()
	// Of all Leases only those of servers: nodes have many, and renew them all the time.
	servers := informers.NewSharedInformerFactoryWithOptions(c.client, 0, informers.WithTransform(lean), informers.WithNamespace(metav1.NamespaceSystem),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = serverLease }))
	leases := servers.Coordination().V1().Leases()
	c.starts = append(c.starts, func(ctx context.Context) { servers.Start(ctx.Done()) })

	follow(p, versions.Informer(), func(v *internalv1alpha1.StorageVersion) { p.queue.Add(v.Name) })
	followChanges(p, leases.Informer(), func(_, _ *coordinationv1.Lease) {}, func(*coordinationv1.Lease) {
		all, _ := versions.Lister().List(labels.Everything()) // a list from memory does not fail
		for _, v := range all {
			p.queue.Add(v.Name)
		}
	})
	p.work(1, func(ctx context.Context, name string) error {
		v, err := versions.Lister().Get(name)
		if err != nil {
			return nil //nolint:nilerr // gone
		}
		left := v.DeepCopy()
		left.Status.StorageVersions = nil
		var next time.Time // when the first Lease runs out unless it is renewed
		for _, of := range v.Status.StorageVersions {
			lease, err := leases.Lister().Leases(metav1.NamespaceSystem).Get(of.APIServerID)
			if err != nil || leaseEnd(lease).Before(time.Now()) { // as far as we have heard: ask before it is given up
				lease, err = p.client.CoordinationV1().Leases(metav1.NamespaceSystem).Get(ctx, of.APIServerID, metav1.GetOptions{})
				if apierrors.IsNotFound(err) || err == nil && leaseEnd(lease).Before(time.Now()) {
					continue
				} else if err != nil {
					return err
				}
			}
			if end := leaseEnd(lease); next.IsZero() || end.Before(next) {
				next = end
			}
			left.Status.StorageVersions = append(left.Status.StorageVersions, of)
		}
		if !next.IsZero() {
			p.queue.AddAfter(name, until(time.Now(), next))
		}
		switch {
		case len(left.Status.StorageVersions) == 0:
			preconditions := &metav1.Preconditions{UID: &v.UID, ResourceVersion: &v.ResourceVersion}
			return ignore(p.client.InternalV1alpha1().StorageVersions().Delete(ctx, name, metav1.DeleteOptions{Preconditions: preconditions}), apierrors.IsNotFound, apierrors.IsConflict)
		case slices.EqualFunc(left.Status.StorageVersions, v.Status.StorageVersions, func(a, b internalv1alpha1.ServerStorageVersion) bool { return a.APIServerID == b.APIServerID }):
			return nil
		}
		apiserverinternal.Agree(&left.Status, metav1.Now())
		_, err = p.client.InternalV1alpha1().StorageVersions().UpdateStatus(ctx, left, metav1.UpdateOptions{})
		return ignore(err, apierrors.IsNotFound, apierrors.IsConflict) // its news is on its way
	})
}

// leaseEnd is when a Lease runs out.
func leaseEnd(l *coordinationv1.Lease) time.Time {
	at := l.CreationTimestamp.Time
	if l.Spec.RenewTime != nil {
		at = l.Spec.RenewTime.Time
	}
	if l.Spec.LeaseDurationSeconds == nil {
		return at
	}
	return at.Add(time.Duration(*l.Spec.LeaseDurationSeconds) * time.Second)
}
