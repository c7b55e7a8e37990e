package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/timonel/timonel/internal/api/core"
	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/storage/watchcache"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// leakWait is how long a reservation may be without its Service: kube-apiserver, which may share the store, reserves first and writes then (it
// looks for leaks three times, three minutes apart).
const leakWait = 9 * time.Minute

// keepReservations repairs the reservations of Services: all of them at start, afterwards those that are deleted by hand. It looks
// again only if there was something to give back, and does nothing otherwise.
func (s *Server) keepReservations(ctx context.Context) error {
	repair := &core.Repair{Objects: s.Engine.Objects(), NodePorts: core.PortRange{First: s.nodePorts[0], Last: s.nodePorts[1]}}
	d := s.Catalog.Catalog().Hub(schema.GroupResource{Group: networkingv1.GroupName, Resource: "ipaddresses"})
	if d == nil {
		return nil
	}
	var again *time.Timer
	sweep := func() {
		if again != nil {
			again.Stop()
		}
		s.warn(ctx, repair.Missing(ctx), "reservations of Services are not repaired")
		leaks, err := repair.Leaked(ctx)
		s.warn(ctx, err, "leaked reservations are not found")
		if leaks.Empty() {
			return
		}
		s.Log.Info("reservations without a Service", "ports", leaks.Ports, "addresses", leaks.Addresses)
		again = time.AfterFunc(leakWait, func() { s.warn(ctx, repair.Release(ctx, leaks), "leaked reservations are not given back") })
	}
	defer func() {
		if again != nil {
			again.Stop()
		}
	}()
	view := s.Engine.View(d)
	for ctx.Err() == nil {
		w, err := view.Watch(watchcache.Query{}, view.Latest().Revision())
		if errors.Is(err, watchcache.ErrExpired) {
			continue // the view moved on in between
		}
		if err != nil {
			return fmt.Errorf("follow the IPAddresses: %w", err)
		}
		sweep()
		for err == nil { // until it is done, or fell behind
			var batch watchcache.Batch
			batch, err = w.Next(ctx)
			for _, e := range batch.Events {
				if e.Type != watchcache.Deleted {
					continue
				}
				if gone, err := codec.DecodeVersion(d, e.Version); err == nil {
					s.warn(ctx, repair.Address(ctx, gone.(*networkingv1.IPAddress)), "an address is not reserved again")
				}
			}
		}
		w.Close()
	}
	return nil
}
