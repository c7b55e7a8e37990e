package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/timonel/timonel/internal/storage"
)

// Leases are shared: a lease of its own for each object would cost etcd far more
// than the object. One lease serves all objects of the same TTL that are
// written within a short time of each other, so an object lives for its TTL
// and up to that time longer.
const (
	DefaultLeaseReuse = 60 * time.Second // one lease is handed out for so long …
	leaseReuseShare   = 0.05             // … or this share of the TTL, if that is less
	leaseObjects      = 1000             // or until so many objects hang on it
	leaseTTLs         = 64               // different TTLs remembered at once
)

type leases struct {
	grant func(ctx context.Context, ttlSeconds int64) (int64, error)
	reuse time.Duration // 0: DefaultLeaseReuse

	mu     sync.Mutex // also held while granting: others who come then want the same lease
	shared map[time.Duration]*sharedLease
}

type sharedLease struct {
	id      int64
	until   time.Time // handed out before
	objects int
}

// get returns a lease that outlives ttl.
func (l *leases) get(ctx context.Context, ttl time.Duration) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.shared[ttl]; s != nil && s.objects < leaseObjects && time.Now().Before(s.until) {
		s.objects++
		return s.id, nil
	}
	reuse := min(cmp.Or(l.reuse, DefaultLeaseReuse), time.Duration(float64(ttl)*leaseReuseShare))
	id, err := l.grant(ctx, int64((ttl+reuse+time.Second-1)/time.Second))
	if err != nil {
		return 0, err
	}
	if l.shared == nil || len(l.shared) >= leaseTTLs {
		l.shared = make(map[time.Duration]*sharedLease)
	}
	l.shared[ttl] = &sharedLease{id: id, until: time.Now().Add(reuse), objects: 1}
	return id, nil
}

// kept is a key with a lease of its own.
type kept struct {
	backend backend
	lease   int64
}

// Keep is storage.Store's.
func (s *Store) Keep(ctx context.Context, key string, value []byte, ttl time.Duration) (storage.Kept, error) {
	id, err := s.backend.grant(ctx, int64((ttl+time.Second-1)/time.Second))
	if err != nil {
		return nil, fmt.Errorf("lease of %v for %s: %w", ttl, key, err)
	}
	_, err = s.backend.txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{
		Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: value, Lease: id}},
	}}})
	if err != nil { // the lease runs out by itself
		return nil, fmt.Errorf("keep %s: %w", key, err)
	}
	return &kept{s.backend, id}, nil
}

func (k *kept) Renew(ctx context.Context) error {
	err := k.backend.renew(ctx, k.lease)
	if errors.Is(err, errLeaseNotFound) {
		return storage.ErrNotFound
	}
	return err
}

// Release revokes the lease, which removes the key unless that has another one by now.
func (k *kept) Release(ctx context.Context) error {
	err := k.backend.revoke(ctx, k.lease)
	if errors.Is(err, errLeaseNotFound) {
		return nil
	}
	return err
}

// forget makes the next call of get ask for a new lease.
func (l *leases) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shared = nil
}
