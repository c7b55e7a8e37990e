// Package election gives coordinated Leases their holders (KEP-4355, feature gate CoordinatedLeaderElection): it chooses among
// the LeaseCandidates that name a Lease, so that of several instances of a component the oldest one leads while a control plane
// is upgraded.
//
// Promises: of all servers that share a store one coordinates, the holder of a Lease of its own; a Lease is taken from its holder
// only when it was not renewed for as long as it lasts, by this server's clock; a candidate is elected only after it has answered a ping; a
// living holder is asked to give way (preferredHolder), and no more than that. It waits for news and for the ends of Leases, and does nothing
// between.
//
// Does not know: HTTP, users. Start reading at Coordinator.Run, then contest.step.
package election

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/storage/watchcache"
	coordinationv1 "k8s.io/api/coordination/v1"
	coordinationv1beta1 "k8s.io/api/coordination/v1beta1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

var (
	leases     = schema.GroupResource{Group: coordinationv1.GroupName, Resource: "leases"}
	candidates = schema.GroupResource{Group: coordinationv1.GroupName, Resource: "leasecandidates"}
)

// Coordinator elects the holders of coordinated Leases.
type Coordinator struct {
	Objects    kind.Objects
	Leases     *watchcache.View
	Candidates *watchcache.View
	Candidate  *kind.Definition // of coordination.k8s.io/v1beta1
	Identity   string           // of this run of this server
	Log        *slog.Logger
}

// Run coordinates whenever this server is the one that does, until ctx is done.
func (c *Coordinator) Run(ctx context.Context) {
	l := &lock{objects: c.Objects, identity: c.Identity, log: c.Log}
	l.run(ctx, c.coordinate)
}

// coordinate sees to each Lease that has candidates, in a contest of its own, until ctx is done.
func (c *Coordinator) coordinate(ctx context.Context) {
	c.Log.Info("coordinating leader elections", "identity", c.Identity)
	all := &contests{Coordinator: c, ctx: ctx, open: map[types.NamespacedName]*contest{}, over: make(chan types.NamespacedName)}
	defer all.running.Wait()
	for ctx.Err() == nil {
		w, err := c.Candidates.Watch(watchcache.Query{}, c.Candidates.Latest().Revision())
		switch {
		case errors.Is(err, watchcache.ErrExpired): // the view moved on in between
		case err != nil: // it is no longer served
			<-ctx.Done()
		default:
			all.follow(w)
			w.Close()
		}
	}
}

// contests are those that are open.
type contests struct {
	*Coordinator
	ctx     context.Context
	open    map[types.NamespacedName]*contest
	over    chan types.NamespacedName // of contests that have ended for want of candidates
	running sync.WaitGroup
}

// follow tells contests of changes of their candidates, and opens new ones, until the watcher falls behind or the time is up.
func (all *contests) follow(w *watchcache.Watcher) {
	for _, v := range all.Candidates.Latest().List(watchcache.Query{}).Versions {
		all.tell(v)
	}
	for {
		select {
		case <-all.ctx.Done():
			return
		case key := <-all.over:
			delete(all.open, key)
			for _, v := range all.Candidates.Latest().List(watchcache.Query{Namespace: key.Namespace}).Versions {
				all.tell(v) // one may have come in between
			}
			continue
		case <-w.Wake():
		}
		for {
			batch, err := w.Poll()
			if err != nil {
				return
			}
			if len(batch.Events) == 0 {
				break
			}
			for _, e := range batch.Events {
				all.tell(e.Version)
			}
		}
	}
}

// tell has the contest of a candidate look at it. The candidate may be gone: then there need not be a contest.
func (all *contests) tell(v *watchcache.Version) {
	obj, err := codec.DecodeVersion(all.Candidate, v)
	if err != nil {
		return // told to whoever asks for it by name
	}
	key := types.NamespacedName{Namespace: obj.GetNamespace(), Name: obj.(*coordinationv1beta1.LeaseCandidate).Spec.LeaseName}
	one := all.open[key]
	if one == nil {
		one = newContest(all.Coordinator, key)
		all.open[key] = one
		all.running.Go(func() {
			one.run(all.ctx)
			select {
			case all.over <- key:
			case <-all.ctx.Done():
			}
		})
	}
	one.wake()
}
