package election

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// The Lease of the server that coordinates. kube-apiserver has the same, so that one of all that share a store does.
const (
	lockNamespace = metav1.NamespaceSystem
	lockName      = "leader-election-controller"
)

const (
	lockTerm     = 15 * time.Second // without a renewal another server takes over
	lockRenewal  = 4 * time.Second
	lockPatience = 3 * time.Second // for one attempt
)

// lock is the right to coordinate, which one server has.
type lock struct {
	objects  kind.Objects
	identity string
	log      *slog.Logger
	watched  sign
}

// run leads whenever the lock is ours, until ctx is done.
func (l *lock) run(ctx context.Context, lead func(ctx context.Context)) {
	var leading sync.WaitGroup
	var stop context.CancelFunc // nil: we do not lead
	end := func() {
		if stop != nil {
			stop()
			leading.Wait()
			stop = nil
		}
	}
	next := time.NewTicker(lockRenewal)
	defer next.Stop()
	for renewed := time.Now(); ; {
		held, err := l.try(ctx)
		switch {
		case held:
			if renewed = time.Now(); stop == nil {
				var leader context.Context
				leader, stop = context.WithCancel(ctx)
				leading.Go(func() { lead(leader) })
			}
		case err == nil || time.Since(renewed)+lockRenewal+lockPatience >= lockTerm: // the next attempt may be too late
			end()
		}
		if err != nil && ctx.Err() == nil {
			l.log.Warn("the right to coordinate leader elections is not renewed", "error", err)
		}
		select {
		case <-next.C:
		case <-ctx.Done():
			ours := stop != nil
			if end(); ours {
				l.release(context.WithoutCancel(ctx))
			}
			return
		}
	}
}

// errMoved says that a Lease is no longer what was decided about.
var errMoved = errors.New("the Lease has changed")

// try takes or renews the lock, and reports whether it is ours.
func (l *lock) try(ctx context.Context) (held bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	obj, err := l.objects.Get(ctx, leases, lockNamespace, lockName)
	if apierrors.IsNotFound(err) {
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: lockNamespace, Name: lockName}}
		l.take(lease)
		_, err = l.objects.Create(ctx, leases, lease)
		if apierrors.IsAlreadyExists(err) {
			return false, nil
		}
		return err == nil, err
	} else if err != nil {
		return false, err
	}
	lease := obj.(*coordinationv1.Lease)
	l.watched.see(lease, time.Now())
	if holderOf(lease) != l.identity && l.watched.alive(lease, time.Now()) {
		return false, nil
	}
	_, err = l.objects.Change(ctx, leases, lockNamespace, lockName, func(obj object.Object) error {
		is := obj.(*coordinationv1.Lease)
		if is.ResourceVersion != lease.ResourceVersion && holderOf(is) != l.identity {
			return errMoved
		}
		l.take(is)
		return nil
	}, kind.ChangeOptions{})
	if errors.Is(err, errMoved) || apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// take makes a Lease ours, or renews it.
func (l *lock) take(lease *coordinationv1.Lease) {
	now := metav1.NowMicro()
	if s := &lease.Spec; holderOf(lease) != l.identity {
		s.AcquireTime = &now
		s.LeaseTransitions = ptr.To(transitions(lease))
		s.HolderIdentity = &l.identity
	}
	lease.Spec.LeaseDurationSeconds = ptr.To(int32(lockTerm / time.Second))
	lease.Spec.RenewTime = &now
}

// release gives the lock up, so that another server need not wait.
func (l *lock) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	_, err := l.objects.Change(ctx, leases, lockNamespace, lockName, func(obj object.Object) error {
		lease := obj.(*coordinationv1.Lease)
		if holderOf(lease) != l.identity {
			return errMoved
		}
		lease.Spec.HolderIdentity = ptr.To("")
		return nil
	}, kind.ChangeOptions{})
	if err != nil && !errors.Is(err, errMoved) {
		l.log.Warn("the right to coordinate leader elections is not given up, but runs out", "error", err)
	}
}

// holderOf is who holds a Lease; "" if nobody does.
func holderOf(lease *coordinationv1.Lease) string {
	if lease == nil {
		return ""
	}
	return ptr.Deref(lease.Spec.HolderIdentity, "")
}

// transitions is how often a Lease has changed hands when it does now.
func transitions(lease *coordinationv1.Lease) int32 {
	if lease.Spec.HolderIdentity == nil {
		return 0 // it is new
	}
	return ptr.Deref(lease.Spec.LeaseTransitions, 0) + 1
}

// sign is a holder's last sign of life, and when it was seen. Clocks of others are not compared with ours: a Lease lasts from the
// moment at which we saw its renewal.
type sign struct {
	holder string
	at     time.Time
	seen   time.Time
}

func (s *sign) see(lease *coordinationv1.Lease, now time.Time) {
	if lease == nil {
		*s = sign{}
		return
	}
	is := sign{holder: holderOf(lease), seen: now}
	if lease.Spec.RenewTime != nil {
		is.at = lease.Spec.RenewTime.Time
	}
	if s.seen.IsZero() || is.holder != s.holder || !is.at.Equal(s.at) {
		*s = is
	}
}

// end is until when a Lease that was seen lasts.
func (s *sign) end(lease *coordinationv1.Lease) time.Time {
	return s.seen.Add(time.Duration(ptr.Deref(lease.Spec.LeaseDurationSeconds, 0)) * time.Second)
}

// alive reports whether a Lease that was seen has a holder.
func (s *sign) alive(lease *coordinationv1.Lease, now time.Time) bool {
	return holderOf(lease) != "" && now.Before(s.end(lease))
}
