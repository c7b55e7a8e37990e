package storage

import (
	"context"
	"fmt"
)

// Transformer changes values on their way into a store and back, as encryption does.
type Transformer interface {
	// ToStore returns what is stored for the value at key.
	ToStore(ctx context.Context, key string, value []byte) ([]byte, error)

	// FromStore returns the value that was stored at key.
	FromStore(ctx context.Context, key string, stored []byte) ([]byte, error)
}

// Transform returns a store that keeps its values in s, transformed. A value that does
// not transform back fails a Get, and comes as it is stored from List, Watch and
// ConflictError: one bad value must not hide the others.
func Transform(s Store, t Transformer) Store { return &transformed{Store: s, t: t} }

type transformed struct {
	Store
	t Transformer
}

func (s *transformed) Get(ctx context.Context, key string) (Entry, error) {
	e, err := s.Store.Get(ctx, key)
	if err != nil {
		return e, err
	}
	if e.Value, err = s.t.FromStore(ctx, key, e.Value); err != nil {
		return Entry{}, fmt.Errorf("transform %s: %w", key, err)
	}
	return e, nil
}

func (s *transformed) List(ctx context.Context, prefix string, opts ListOptions) (Page, error) {
	page, err := s.Store.List(ctx, prefix, opts)
	for i := range page.Entries {
		s.from(ctx, &page.Entries[i])
	}
	return page, err
}

func (s *transformed) Commit(ctx context.Context, txn Txn) (Revision, error) {
	ops := make([]Op, len(txn.Then))
	for i, op := range txn.Then {
		if op.Value != nil {
			var err error
			if op.Value, err = s.t.ToStore(ctx, op.Key, op.Value); err != nil {
				return 0, fmt.Errorf("transform %s: %w", op.Key, err)
			}
		}
		ops[i] = op
	}
	rev, err := s.Store.Commit(ctx, Txn{If: txn.If, Then: ops})
	if conflict, ok := err.(*ConflictError); ok && conflict.Current != nil {
		s.from(ctx, conflict.Current)
	}
	return rev, err
}

func (s *transformed) Watch(ctx context.Context, prefix string, after Revision, deliver func(Batch) error) error {
	return s.Store.Watch(ctx, prefix, after, func(b Batch) error {
		for i := range b.Changes {
			if c := &b.Changes[i]; !c.Deleted {
				s.from(ctx, &c.Entry)
			}
		}
		return deliver(b)
	})
}

func (s *transformed) from(ctx context.Context, e *Entry) {
	if value, err := s.t.FromStore(ctx, e.Key, e.Value); err == nil {
		e.Value = value
	}
}

// Local says whether Now of the store beneath costs nothing.
func (s *transformed) Local() bool {
	l, ok := s.Store.(interface{ Local() bool })
	return ok && l.Local()
}
