package election

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage/watchcache"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

const (
	term         = 15 * time.Second // of an elected holder, until it renews the Lease for as long as it likes
	ballotTime   = 5 * time.Second  // for candidates to answer
	ballotPause  = 10 * time.Second // after a ballot that nobody answered
	retryPause   = time.Second      // after an error
	lapsesAfter  = 30 * time.Minute // a candidate that does not renew itself, every five minutes, no longer counts
	removedAfter = 2 * time.Hour    // and is removed
)

// The mark of Leases that were given to their holders (KEP-4355).
const (
	electedBy   = "coordination.k8s.io/elected-by"
	coordinator = "leader-election-controller"
)

// contest is about one Lease and those who would hold it.
type contest struct {
	*Coordinator
	key    types.NamespacedName
	woken  chan struct{} // has one element when candidates changed
	holder sign

	// Of a ballot: the renewals that candidates had shown when they were asked, by name, and until when their
	// answers are waited for. nil: there is none.
	asked map[string]time.Time
	until time.Time
	// Who was asked and did not answer does not count until he renews himself: what he had shown, by name.
	silent map[string]time.Time
	rest   time.Time // of a Lease whose candidates are all silent: until when
}

func newContest(c *Coordinator, key types.NamespacedName) *contest {
	return &contest{Coordinator: c, key: key, woken: make(chan struct{}, 1), silent: map[string]time.Time{}}
}

// wake makes the contest look at its candidates.
func (c *contest) wake() {
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

// run sees to the Lease until it has no candidates, or ctx is done.
func (c *contest) run(ctx context.Context) {
	for ctx.Err() == nil {
		w, err := c.Leases.Watch(watchcache.Query{Namespace: c.key.Namespace, Name: c.key.Name}, c.Leases.Latest().Revision())
		switch {
		case errors.Is(err, watchcache.ErrExpired): // the view moved on in between
			continue
		case err != nil:
			return
		}
		over := c.follow(ctx, w)
		w.Close()
		if over {
			return
		}
	}
}

// follow takes a step whenever something changed, or it is time to. It reports whether the contest is over; if not, the watcher
// fell behind.
func (c *contest) follow(ctx context.Context, w *watchcache.Watcher) (over bool) {
	alarm := time.NewTimer(0)
	defer alarm.Stop()
	for {
		select {
		case <-ctx.Done():
			return true
		case <-alarm.C:
		case <-c.woken:
		case <-w.Wake():
			for more := true; more; {
				batch, err := w.Poll()
				if err != nil {
					return false
				}
				more = len(batch.Events) > 0
			}
		}
		next, err := c.step(ctx, time.Now())
		switch {
		case errors.Is(err, errNoCandidates):
			return true
		case err != nil:
			if ctx.Err() == nil && !errors.Is(err, errMoved) {
				c.Log.Warn("a leader election is held up", "lease", c.key, "error", err)
			}
			next = retryPause
		}
		alarm.Reset(next)
	}
}

var errNoCandidates = errors.New("there are no candidates")

// step does what is to be done now, and returns after what time there is more to do unless something changes.
func (c *contest) step(ctx context.Context, now time.Time) (again time.Duration, err error) {
	all, err := c.candidates(ctx)
	if err != nil {
		return 0, err
	}
	if len(all) == 0 {
		return 0, errNoCandidates
	}
	again, err = c.remove(ctx, all, now)
	if err != nil {
		return 0, err
	}
	present := without(all, func(one *candidate) bool { return c.absent(one, now) })
	lease, err := c.lease(ctx)
	if err != nil {
		return 0, err
	}
	c.holder.see(lease, now)
	taken := c.holder.alive(lease, now)
	if taken {
		again = min(again, c.holder.end(lease).Sub(now))
	}
	best := oldest(present)
	switch {
	case strategyOf(present) != coordinationv1.OldestEmulationVersion: // nobody is there, they disagree, or somebody else coordinates
		c.asked = nil
		if !taken && len(c.silent) > 0 {
			return min(again, c.again(now)), nil
		}
		return again, nil
	case taken && ptr.Deref(lease.Spec.Strategy, "") != coordinationv1.OldestEmulationVersion: // its holder knows nothing of us
		c.asked = nil
		return again, nil
	case taken && (best == nil || best.Name == holderOf(lease)):
		c.asked = nil
		return again, c.prefer(ctx, lease, nil)
	case taken && ptr.Deref(lease.Spec.PreferredHolder, "") == best.Name:
		c.asked = nil
		return again, nil // it knows
	}
	incumbent := ""
	if taken {
		incumbent = holderOf(lease)
	}
	elected, wait, err := c.ballot(ctx, present, incumbent, now)
	switch {
	case err != nil:
		return 0, err
	case elected == nil:
		return min(again, wait), nil
	case !taken:
		return term, c.elect(ctx, lease, elected, now)
	case elected.Name == incumbent: // the better one did not answer
		return again, nil
	}
	return again, c.prefer(ctx, lease, &elected.Name)
}

// candidates are those of the Lease.
func (c *contest) candidates(ctx context.Context) (all []*candidate, err error) {
	list, err := c.Objects.List(ctx, candidates, c.key.Namespace)
	if err != nil {
		return nil, fmt.Errorf("list candidates: %w", err)
	}
	for _, obj := range list {
		if one := obj.(*candidate); one.Spec.LeaseName == c.key.Name {
			all = append(all, one)
		}
	}
	return all, nil
}

// lease is the Lease; nil if there is none.
func (c *contest) lease(ctx context.Context) (*coordinationv1.Lease, error) {
	obj, err := c.Objects.Get(ctx, leases, c.key.Namespace, c.key.Name)
	if apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read the Lease: %w", err)
	}
	return obj.(*coordinationv1.Lease), nil
}

// renewal is a candidate's last sign of life, by its own clock.
func renewal(one *candidate) time.Time {
	if one.Spec.RenewTime == nil {
		return one.CreationTimestamp.Time
	}
	return one.Spec.RenewTime.Time
}

// absent reports whether a candidate does not count.
func (c *contest) absent(one *candidate, now time.Time) bool {
	shown, silent := c.silent[one.Name]
	return silent && renewal(one).Equal(shown) || now.Sub(renewal(one)) >= lapsesAfter || one.DeletionTimestamp != nil
}

// remove deletes candidates that nobody has renewed for long, and returns when the next one is due.
func (c *contest) remove(ctx context.Context, all []*candidate, now time.Time) (next time.Duration, err error) {
	next = removedAfter
	for _, one := range all {
		if left := removedAfter - now.Sub(renewal(one)); left > 0 {
			next = min(next, left)
			continue
		}
		err := c.Objects.Delete(ctx, candidates, one.Namespace, one.Name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &one.UID, ResourceVersion: &one.ResourceVersion},
		})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return 0, fmt.Errorf("remove candidate %s: %w", one.Name, err)
		}
	}
	return next, nil
}

// again gives those who were silent another chance, after a pause.
func (c *contest) again(now time.Time) (wait time.Duration) {
	if wait = c.rest.Sub(now); wait <= 0 {
		clear(c.silent)
		return 0
	}
	return wait
}

// ballot asks who is there and returns the best of those who answer; the incumbent has by renewing the Lease. It returns nil
// and how long to wait while there is no outcome.
func (c *contest) ballot(ctx context.Context, present []*candidate, incumbent string, now time.Time) (elected *candidate, wait time.Duration, err error) {
	if c.asked == nil {
		others := without(present, func(one *candidate) bool { return one.Name == incumbent })
		return nil, ballotTime, c.ask(ctx, others, now)
	}
	quiet := func(one *candidate) bool {
		shown, asked := c.asked[one.Name]
		return asked && renewal(one).Equal(shown)
	}
	answered := without(present, quiet)
	if left := c.until.Sub(now); len(answered) < len(present) && left > 0 {
		return nil, left, nil
	}
	clear(c.silent)
	for _, one := range present {
		if quiet(one) {
			c.silent[one.Name] = renewal(one)
		}
	}
	c.asked = nil
	if elected = oldest(answered); elected == nil {
		c.rest = now.Add(ballotPause)
	}
	return elected, 0, nil
}

// ask has candidates renew themselves.
func (c *contest) ask(ctx context.Context, all []*candidate, now time.Time) error {
	asked := make(map[string]time.Time, len(all))
	for _, one := range all {
		asked[one.Name] = renewal(one)
		_, err := c.Objects.Change(ctx, candidates, one.Namespace, one.Name, func(obj object.Object) error {
			spec := &obj.(*candidate).Spec
			ping := metav1.NewMicroTime(now)
			if spec.RenewTime != nil && !ping.After(spec.RenewTime.Time) { // its clock is ahead of ours, and it would see nothing to do
				ping = metav1.NewMicroTime(spec.RenewTime.Add(time.Microsecond))
			}
			spec.PingTime = &ping
			return nil
		}, kind.ChangeOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("ping candidate %s: %w", one.Name, err)
		}
	}
	c.asked, c.until = asked, now.Add(ballotTime)
	return nil
}

// elect gives the Lease to a candidate.
func (c *contest) elect(ctx context.Context, lease *coordinationv1.Lease, one *candidate, now time.Time) error {
	give := func(l *coordinationv1.Lease) {
		at := metav1.NewMicroTime(now)
		if l.Annotations == nil {
			l.Annotations = map[string]string{}
		}
		l.Annotations[electedBy] = coordinator
		if holderOf(l) != one.Name {
			l.Spec.LeaseTransitions = ptr.To(transitions(l))
			l.Spec.AcquireTime = &at
		}
		l.Spec.HolderIdentity, l.Spec.RenewTime = &one.Name, &at
		l.Spec.LeaseDurationSeconds = ptr.To(int32(term / time.Second))
		l.Spec.Strategy, l.Spec.PreferredHolder = ptr.To(coordinationv1.OldestEmulationVersion), nil
	}
	c.Log.Info("a leader is elected", "lease", c.key, "holder", one.Name)
	if lease != nil {
		return c.change(ctx, lease, give)
	}
	lease = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: c.key.Namespace, Name: c.key.Name}}
	give(lease)
	_, err := c.Objects.Create(ctx, leases, lease)
	if apierrors.IsAlreadyExists(err) {
		return errMoved
	}
	return err
}

// prefer asks the holder of the Lease to give way to another; nil: no longer.
func (c *contest) prefer(ctx context.Context, lease *coordinationv1.Lease, name *string) error {
	if ptr.Equal(lease.Spec.PreferredHolder, name) {
		return nil
	}
	return c.change(ctx, lease, func(l *coordinationv1.Lease) { l.Spec.PreferredHolder = name })
}

// change changes the Lease if it is still what was decided about.
func (c *contest) change(ctx context.Context, was *coordinationv1.Lease, change func(*coordinationv1.Lease)) error {
	_, err := c.Objects.Change(ctx, leases, was.Namespace, was.Name, func(obj object.Object) error {
		if obj.GetResourceVersion() != was.ResourceVersion {
			return errMoved
		}
		change(obj.(*coordinationv1.Lease))
		return nil
	}, kind.ChangeOptions{})
	if apierrors.IsNotFound(err) {
		return errMoved
	}
	return err
}
