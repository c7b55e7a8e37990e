package node

import (
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// leaseDuration is how long the cluster believes in a silent node.
	leaseDuration = 40 * time.Second
	// leasePeriod is how often the Lease is renewed: the only write of an idle
	// node besides the status every reportPeriod.
	leasePeriod = leaseDuration / 4
	// leaseRetryMax bounds the pause after a failed renewal.
	leaseRetryMax = 7 * time.Second
)

// renewLease says that the node is alive, by its Lease in kube-node-lease
// (KEP-589).
func (a *Agent) renewLease(ctx context.Context) {
	var lease *coordinationv1.Lease
	pause := 200 * time.Millisecond
	for {
		next := leasePeriod
		renewed, err := a.renewOnce(ctx, lease)
		if err == nil {
			lease, pause = renewed, 200*time.Millisecond
		} else {
			if ctx.Err() == nil {
				a.log.Warn("lease not renewed; will retry", "err", err)
			}
			if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
				lease = nil // read it anew
			}
			next, pause = pause, min(2*pause, leaseRetryMax)
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// renewOnce renews the Lease; without one in hand it is read, or made. Each
// call has its own time: on a server that is slow two need longer than one.
func (a *Agent) renewOnce(ctx context.Context, lease *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	leases := a.client.CoordinationV1().Leases(v1.NamespaceNodeLease)
	call := func(do func(ctx context.Context) (*coordinationv1.Lease, error)) (*coordinationv1.Lease, error) {
		ctx, cancel := context.WithTimeout(ctx, leasePeriod)
		defer cancel()
		return do(ctx)
	}
	if lease == nil {
		have, err := call(func(ctx context.Context) (*coordinationv1.Lease, error) {
			return leases.Get(ctx, a.cfg.NodeName, metav1.GetOptions{})
		})
		if apierrors.IsNotFound(err) {
			fresh := a.leaseFor(&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: a.cfg.NodeName, Namespace: v1.NamespaceNodeLease}})
			return call(func(ctx context.Context) (*coordinationv1.Lease, error) {
				return leases.Create(ctx, fresh, metav1.CreateOptions{})
			})
		}
		if err != nil {
			return nil, err
		}
		lease = have
	}
	return call(func(ctx context.Context) (*coordinationv1.Lease, error) {
		return leases.Update(ctx, a.leaseFor(lease), metav1.UpdateOptions{})
	})
}

// leaseFor is the Lease renewed now. It belongs to the Node, once that is
// known.
func (a *Agent) leaseFor(have *coordinationv1.Lease) *coordinationv1.Lease {
	lease := have.DeepCopy()
	holder, seconds, now := a.cfg.NodeName, int32(leaseDuration/time.Second), metav1.NewMicroTime(time.Now())
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds, lease.Spec.RenewTime = &holder, &seconds, &now
	if len(lease.OwnerReferences) == 0 {
		a.health.mu.Lock()
		node := a.health.mu.node
		a.health.mu.Unlock()
		if node != nil && node.UID != "" {
			lease.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}
		}
	}
	return lease
}
