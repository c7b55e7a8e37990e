// Package etcd implements storage.Store on etcd: Embedded runs the real etcd
// server inside this process, Dial connects to an external cluster. Both speak
// etcd's own requests, so everything above the small backend interface is
// common: transactions and their conflicts, pages, leases, compaction, errors.
//
// Promises: those of package storage. A write is acknowledged after etcd has
// fsynced it to its log (by a quorum, in an external cluster).
// Does not know: what keys and values mean.
//
// Start reading here; then embedded.go or dial.go.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/timonel/timonel/internal/storage"
)

// Store is a storage.Store on etcd.
type Store struct {
	backend backend
	leases  leases
	stop    context.CancelFunc // of the compactor
	stopped chan struct{}      // closed when the compactor has returned
}

var _ storage.Store = (*Store)(nil)

// backend is the part that differs between a server in this process and one
// at the other end of a connection. Its errors are already those of package
// storage.
type backend interface {
	// read is linearizable when at is 0.
	read(ctx context.Context, r readRequest) (readResult, error)
	txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error)
	grant(ctx context.Context, ttlSeconds int64) (leaseID int64, err error)
	renew(ctx context.Context, leaseID int64) error
	revoke(ctx context.Context, leaseID int64) error
	watch(ctx context.Context, key, end []byte, after storage.Revision, deliver func(storage.Batch) error) error
	progress(ctx context.Context) error
	now(ctx context.Context) (storage.Revision, error)
	compact(ctx context.Context, at storage.Revision) error
	size(ctx context.Context) (bytes int64, err error) // of the database file
	close() error
}

type readRequest struct {
	key, end []byte // end nil: one key
	at       storage.Revision
	limit    int64
}

type readResult struct {
	kvs      []*mvccpb.KeyValue
	revision storage.Revision // of the store
	count    int64            // keys in the whole range
}

// maxTxnKeys bounds the keys of one transaction; etcd's default is 128
// operations in each branch.
const maxTxnKeys = 128

func newStore(b backend, compaction, leaseReuse time.Duration) *Store {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Store{backend: b, stop: cancel, stopped: make(chan struct{})}
	s.leases.grant, s.leases.reuse = b.grant, leaseReuse
	go func() {
		defer close(s.stopped)
		(&compactor{backend: b, every: compaction}).run(ctx)
	}()
	return s
}

func (s *Store) Get(ctx context.Context, key string) (storage.Entry, error) {
	r, err := s.backend.read(ctx, readRequest{key: []byte(key)})
	if err != nil {
		return storage.Entry{}, fmt.Errorf("get %s: %w", key, err)
	}
	if len(r.kvs) == 0 {
		return storage.Entry{}, fmt.Errorf("get %s: %w", key, storage.ErrNotFound)
	}
	return entry(r.kvs[0]), nil
}

func (s *Store) List(ctx context.Context, prefix string, opts storage.ListOptions) (storage.Page, error) {
	r := readRequest{key: []byte(prefix), end: prefixEnd(prefix), at: opts.At, limit: int64(opts.Limit)}
	if opts.After >= prefix && opts.After != "" {
		r.key = append([]byte(opts.After), 0)
	}
	if slices.Compare(r.key, r.end) >= 0 { // After is behind the last possible key
		now, err := s.Now(ctx)
		if err != nil {
			return storage.Page{}, err
		}
		if opts.At != 0 {
			now = opts.At
		}
		return storage.Page{Revision: now}, nil
	}
	res, err := s.backend.read(ctx, r)
	if err != nil {
		return storage.Page{}, fmt.Errorf("list %s: %w", prefix, err)
	}
	page := storage.Page{Entries: make([]storage.Entry, len(res.kvs)), Revision: res.revision}
	if opts.At != 0 {
		page.Revision = opts.At
	}
	for i, kv := range res.kvs {
		page.Entries[i] = entry(kv)
	}
	page.Remaining = res.count - int64(len(res.kvs))
	page.More = page.Remaining > 0
	return page, nil
}

func (s *Store) Commit(ctx context.Context, txn storage.Txn) (storage.Revision, error) {
	if len(txn.If) > maxTxnKeys || len(txn.Then) > maxTxnKeys {
		return 0, fmt.Errorf("commit of %d keys, at most %d go together: %w", max(len(txn.If), len(txn.Then)), maxTxnKeys, storage.ErrTooLarge)
	}
	req, err := s.request(ctx, txn)
	if err != nil {
		return 0, err
	}
	resp, err := s.backend.txn(ctx, req)
	if errors.Is(err, errLeaseNotFound) { // it ran out between grant and use; nothing was written
		s.leases.forget()
		if req, err = s.request(ctx, txn); err == nil {
			resp, err = s.backend.txn(ctx, req)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("commit %s: %w", subject(txn), err)
	}
	if !resp.Succeeded {
		return 0, conflict(txn.If, resp)
	}
	return storage.Revision(resp.Header.Revision), nil
}

// request makes the etcd transaction: the conditions compare modification
// revisions; should one fail, the keys they are about are read instead.
func (s *Store) request(ctx context.Context, txn storage.Txn) (*pb.TxnRequest, error) {
	req := &pb.TxnRequest{
		Compare: make([]*pb.Compare, len(txn.If)),
		Success: make([]*pb.RequestOp, len(txn.Then)),
		Failure: make([]*pb.RequestOp, len(txn.If)),
	}
	for i, c := range txn.If {
		key := []byte(c.Key)
		req.Compare[i] = &pb.Compare{
			Key: key, Target: pb.Compare_MOD, Result: pb.Compare_EQUAL,
			TargetUnion: &pb.Compare_ModRevision{ModRevision: int64(c.Revision)},
		}
		req.Failure[i] = &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}
	}
	for i, op := range txn.Then {
		if op.Value == nil {
			req.Success[i] = &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
				RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(op.Key)},
			}}
			continue
		}
		put := &pb.PutRequest{Key: []byte(op.Key), Value: op.Value}
		if op.TTL > 0 {
			lease, err := s.leases.get(ctx, op.TTL)
			if err != nil {
				return nil, fmt.Errorf("lease of %v for %s: %w", op.TTL, op.Key, err)
			}
			put.Lease = lease
		}
		req.Success[i] = &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}}
	}
	return req, nil
}

// conflict finds the condition that failed in what the keys hold now.
func conflict(conditions []storage.Condition, resp *pb.TxnResponse) error {
	for i, c := range conditions {
		if i >= len(resp.Responses) {
			break
		}
		kvs := resp.Responses[i].GetResponseRange().GetKvs()
		switch {
		case len(kvs) == 0 && c.Revision != 0:
			return &storage.ConflictError{Key: c.Key}
		case len(kvs) > 0 && kvs[0].ModRevision != int64(c.Revision):
			current := entry(kvs[0])
			return &storage.ConflictError{Key: c.Key, Current: &current}
		}
	}
	return fmt.Errorf("transaction failed although its conditions hold: %w", storage.ErrUnknown)
}

func (s *Store) Watch(ctx context.Context, prefix string, after storage.Revision, deliver func(storage.Batch) error) error {
	err := s.backend.watch(ctx, []byte(prefix), prefixEnd(prefix), after, deliver)
	return fmt.Errorf("watch %s after revision %d: %w", prefix, after, err)
}

func (s *Store) Progress(ctx context.Context) error { return s.backend.progress(ctx) }

func (s *Store) Now(ctx context.Context) (storage.Revision, error) {
	now, err := s.backend.now(ctx)
	if err != nil {
		return 0, fmt.Errorf("read the newest revision: %w", err)
	}
	return now, nil
}

// Size returns how many bytes etcd's database file has, of the first endpoint.
func (s *Store) Size(ctx context.Context) (int64, error) { return s.backend.size(ctx) }

// Local says that Now costs nothing: the server is in this process.
func (s *Store) Local() bool {
	e, ok := s.backend.(*embedded)
	return ok && e.clients == nil
}

// Close stops compaction and, of an embedded store, the server; running calls fail.
func (s *Store) Close() error {
	s.stop()
	<-s.stopped
	return s.backend.close()
}

func entry(kv *mvccpb.KeyValue) storage.Entry {
	value := kv.Value
	if value == nil {
		value = []byte{} // nil would read as a deletion
	}
	return storage.Entry{
		Key: string(kv.Key), Value: value,
		Created: storage.Revision(kv.CreateRevision), Modified: storage.Revision(kv.ModRevision),
	}
}

// batch is one watch response as the contract has it.
func batch(events []*mvccpb.Event) storage.Batch {
	b := storage.Batch{Changes: make([]storage.Change, len(events))}
	for i, e := range events {
		c := &b.Changes[i]
		c.Entry = entry(e.Kv)
		if e.Type == mvccpb.Event_DELETE {
			c.Deleted, c.Value, c.Created = true, nil, 0
		}
	}
	if n := len(b.Changes); n > 0 {
		b.Revision = b.Changes[n-1].Modified
	}
	return b
}

// prefixEnd returns the first key behind all that begin with prefix, in etcd's
// notation: {0} for "no end".
func prefixEnd(prefix string) []byte {
	end := []byte(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return []byte{0}
}

func subject(txn storage.Txn) string {
	switch {
	case len(txn.Then) == 1:
		return txn.Then[0].Key
	case len(txn.Then) > 1:
		return fmt.Sprintf("%s and %d more", txn.Then[0].Key, len(txn.Then)-1)
	}
	return "nothing"
}
