package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/timonel/timonel/internal/api/core"
	"github.com/timonel/timonel/internal/bootstrap"
	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/watchcache"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// How the endpoints of service default/kubernetes are kept (--endpoint-reconciler-type).
const (
	byLease = "lease"        // they are the servers whose keys below masterleases/ are alive
	byCount = "master-count" // deprecated: up to --apiserver-count servers that once came
	byNone  = "none"         // somebody else keeps them
)

const (
	peerTTL      = 15 * time.Second // of a server that is gone; renewed every leaseRenewal
	renewTimeout = 5 * time.Second
)

// peers are the API servers that share an etcd, this one included, by the keys that they keep alive: those of kube-apiserver too.
// The keys come through the watch cache, so a change is seen when it happens, and nothing is asked for meanwhile.
type peers struct {
	store storage.Store
	key   string // our own
	own   netip.Addr
	view  *watchcache.View

	kept    storage.Kept // nil: not now
	watcher *watchcache.Watcher
}

// peerKeys is the collection of keys. What is in them says no more than their names.
func peerKeys(prefix string) watchcache.Collection {
	return watchcache.Collection{
		Prefix: prefix + "/" + core.MasterLeases + "/",
		Describe: func(_ string, value []byte, _ storage.Revision) watchcache.Description {
			return watchcache.Description{Blob: value}
		},
	}
}

func (s *Server) newPeers() *peers {
	keys := peerKeys(s.EtcdPrefix)
	return &peers{store: s.Store, key: keys.Prefix + s.advertise.String(), own: s.advertise, view: s.cache.Serve(keys)}
}

// addresses returns those of all live servers of our own family, in order.
func (p *peers) addresses() []netip.Addr {
	var all []netip.Addr
	for _, v := range p.view.Latest().List(watchcache.Query{}).Versions {
		if a, err := netip.ParseAddr(v.Name); err == nil && a.Is4() == p.own.Is4() {
			all = append(all, a)
		}
	}
	return sortedAddresses(all)
}

func sortedAddresses(all []netip.Addr) []netip.Addr {
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// join makes us one of the peers.
func (p *peers) join(ctx context.Context) error {
	p.follow()
	return p.keep(ctx)
}

// follow begins to watch the keys.
func (p *peers) follow() {
	// What the view shows now was never too old to go on from.
	p.watcher, _ = p.view.Watch(watchcache.Query{}, p.view.Latest().Revision())
}

// changed returns a channel that has an element when there may be news; nil, which never has, if nobody is followed.
func (p *peers) changed() <-chan struct{} {
	if p == nil || p.watcher == nil {
		return nil
	}
	return p.watcher.Wake()
}

// news reports whether keys came or went.
func (p *peers) news() (some bool) {
	for {
		b, err := p.watcher.Poll()
		if err != nil {
			p.watcher.Close()
			p.follow()
			return true
		}
		if len(b.Events) == 0 {
			return some
		}
		some = true
	}
}

// keep keeps our key alive, and puts it where it is missing: at first, after an outage that was longer than its TTL, or when
// somebody deleted it.
func (p *peers) keep(ctx context.Context) error {
	if p.watcher == nil {
		p.follow()
	}
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	if _, there := p.view.Get(p.own.String()); there && p.kept != nil {
		err := p.kept.Renew(ctx)
		if !errors.Is(err, storage.ErrNotFound) {
			return err
		}
	}
	value, err := peerValue(p.own)
	if err != nil {
		return err
	}
	kept, err := p.store.Keep(ctx, p.key, value, peerTTL)
	if err != nil {
		return fmt.Errorf("keep the server's address: %w", err)
	}
	p.kept = kept
	return nil
}

// release removes our key.
func (p *peers) release(ctx context.Context) error {
	if p.kept == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	return p.kept.Release(ctx)
}

// peerValue is what kube-apiserver stores at its key.
func peerValue(own netip.Addr) ([]byte, error) {
	lease := core.ServerLease(core.MasterLeases)
	lease.Complete()
	return codec.EncodeStored(lease, &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{Generation: 1},
		Subsets:    []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: own.String()}}}},
	})
}

// servers are the addresses that the endpoints shall have; none: they are left alone.
func (s *Server) servers(ctx context.Context) ([]netip.Addr, error) {
	switch s.EndpointReconcilerType {
	case byLease:
		return sortedAddresses(append(s.peers.addresses(), s.advertise)), nil // ours too if its key is on its way
	case byCount:
		have, err := s.endpoints(ctx)
		if err != nil {
			return nil, err
		}
		return counted(have, s.advertise, s.APIServerCount), nil
	}
	return nil, nil
}

// endpoints are the addresses that the endpoints have.
func (s *Server) endpoints(ctx context.Context) (all []netip.Addr, err error) {
	obj, err := s.Engine.Objects().Get(ctx, schema.GroupResource{Resource: "endpoints"}, metav1.NamespaceDefault, "kubernetes")
	if apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read the endpoints of the API servers: %w", err)
	}
	for _, subset := range obj.(*corev1.Endpoints).Subsets {
		for _, a := range subset.Addresses {
			if ip, err := netip.ParseAddr(a.IP); err == nil {
				all = append(all, ip)
			}
		}
	}
	return all, nil
}

// counted adds our address to those that are there. Of more than count those stay that follow ours, in a circle: as
// each server comes back, the ones that did not go.
func counted(have []netip.Addr, own netip.Addr, count int) []netip.Addr {
	all := sortedAddresses(append(slices.Clone(have), own))
	at := slices.Index(all, own)
	circle := append(slices.Clone(all[at:]), all[:at]...)
	return sortedAddresses(circle[:min(count, len(circle))])
}

func (s *Server) reconcileServers(ctx context.Context) error {
	servers, err := s.servers(ctx)
	if err != nil || len(servers) == 0 {
		return err
	}
	return bootstrap.ReconcileServers(ctx, s.Engine.Objects(), s.Catalog.Catalog(), servers, s.port)
}

// leave takes our address out of the endpoints, so that nobody is sent here any more. The last server leaves it there:
// an empty list would say less.
func (s *Server) leave(ctx context.Context) error {
	var others []netip.Addr
	switch s.EndpointReconcilerType {
	case byLease:
		if err := s.peers.release(ctx); err != nil {
			return err
		}
		others = s.peers.addresses()
	case byCount:
		have, err := s.endpoints(ctx)
		if err != nil {
			return err
		}
		others = have
	}
	others = slices.DeleteFunc(sortedAddresses(others), func(a netip.Addr) bool { return a == s.advertise })
	if len(others) == 0 {
		return nil
	}
	return bootstrap.ReconcileServers(ctx, s.Engine.Objects(), s.Catalog.Catalog(), others, s.port)
}
