package storage

import (
	"context"
	"fmt"
	"time"
)

// Transformer changes values on their way into a store and back, as encryption does.
type Transformer interface {
	// ToStore returns what is stored for the value at key.
	ToStore(ctx context.Context, key string, value []byte) ([]byte, error)

	// FromStore returns the value that was stored at key.
	FromStore(ctx context.Context, key string, stored []byte) ([]byte, error)

	// Stale reports whether what is stored at key was transformed in another way than ToStore
	// would transform it now, as with a key that is being replaced.
	Stale(key string, stored []byte) bool

	// Leaves reports whether nothing is transformed at key, so that what is stored there is never stale.
	Leaves(key string) bool
}

// Transformed is a store that keeps its values in another one, transformed.
type Transformed struct {
	Store
	t Transformer
}

// Transform returns a store that keeps its values in s, transformed. A value that does
// not transform back fails a Get with ErrTransform, and comes as it is stored, with Entry.Err, from List, Watch and
// ConflictError: one bad value must not hide the others.
func Transform(s Store, t Transformer) *Transformed { return &Transformed{Store: s, t: t} }

func (s *Transformed) Get(ctx context.Context, key string) (Entry, error) {
	e, err := s.Store.Get(ctx, key)
	if err != nil {
		return e, err
	}
	if s.from(ctx, &e); e.Err != nil {
		return Entry{}, e.Err
	}
	return e, nil
}

func (s *Transformed) List(ctx context.Context, prefix string, opts ListOptions) (Page, error) {
	page, err := s.Store.List(ctx, prefix, opts)
	for i := range page.Entries {
		s.from(ctx, &page.Entries[i])
	}
	return page, err
}

func (s *Transformed) Commit(ctx context.Context, txn Txn) (Revision, error) {
	ops := make([]Op, len(txn.Then))
	for i, op := range txn.Then {
		if op.Value != nil {
			var err error
			if op.Value, err = s.t.ToStore(ctx, op.Key, op.Value); err != nil {
				return 0, fmt.Errorf("%w to storage: %s: %w", ErrTransform, op.Key, err)
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

func (s *Transformed) Keep(ctx context.Context, key string, value []byte, ttl time.Duration) (Kept, error) {
	stored, err := s.t.ToStore(ctx, key, value)
	if err != nil {
		return nil, fmt.Errorf("%w to storage: %s: %w", ErrTransform, key, err)
	}
	return s.Store.Keep(ctx, key, stored, ttl)
}

func (s *Transformed) Watch(ctx context.Context, prefix string, after Revision, deliver func(Batch) error) error {
	return s.Store.Watch(ctx, prefix, after, func(b Batch) error {
		for i := range b.Changes {
			if c := &b.Changes[i]; !c.Deleted {
				s.from(ctx, &c.Entry)
			}
		}
		return deliver(b)
	})
}

// Stale reports whether the value at key, if it is still that of the revision, is stored in another way than a Commit
// would store it now: writing it again, unchanged, brings it up to date.
func (s *Transformed) Stale(ctx context.Context, key string, at Revision) (bool, error) {
	if s.t.Leaves(key) {
		return false, nil
	}
	e, err := s.Store.Get(ctx, key)
	if err != nil {
		return false, err
	}
	return e.Modified == at && s.t.Stale(key, e.Value), nil
}

func (s *Transformed) from(ctx context.Context, e *Entry) {
	value, err := s.t.FromStore(ctx, e.Key, e.Value)
	if err != nil {
		e.Err = fmt.Errorf("%w from storage: %s: %w", ErrTransform, e.Key, err)
		return
	}
	e.Value = value
}

// Local says whether Now of the store beneath costs nothing.
func (s *Transformed) Local() bool {
	l, ok := s.Store.(interface{ Local() bool })
	return ok && l.Local()
}
