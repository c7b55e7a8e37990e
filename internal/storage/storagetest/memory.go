package storagetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/timonel/timonel/internal/storage"
)

// Memory is a storage.Store in memory, for tests: it keeps the promises of the
// contract except to be durable, starts at once and lives in synctest bubbles. It
// remembers everything until Compact. Faults can be injected.
type Memory struct {
	mu       sync.Mutex
	closed   bool
	revision storage.Revision
	floor    storage.Revision // compacted up to, not including, here
	log      []storage.Change // all changes, in order
	current  map[string]storage.Entry
	moved    chan struct{} // closed and replaced when there is something new for watches
	asked    int           // calls of Progress
	breaks   int           // calls of Break

	fault func(op string) error
}

// NewMemory returns an empty store at revision 1.
func NewMemory() *Memory {
	return &Memory{revision: 1, current: make(map[string]storage.Entry), moved: make(chan struct{})}
}

var _ storage.Store = (*Memory)(nil)

var errClosed = errors.New("store is closed")

// Fault makes calls fail: f is asked before each, with the name of the method.
func (m *Memory) Fault(f func(op string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = f
}

// Break ends all running watches with an error, as a lost connection would.
func (m *Memory) Break() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.breaks++
	m.signal()
}

// Compact forgets the history before the revision.
func (m *Memory) Compact(at storage.Revision) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.floor = max(m.floor, at)
	m.signal()
}

func (m *Memory) signal() {
	close(m.moved)
	m.moved = make(chan struct{})
}

func (m *Memory) begin(ctx context.Context, op string) error {
	if m.closed {
		return errClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.fault != nil {
		return m.fault(op)
	}
	return nil
}

// at returns the entries as of the revision, by key.
func (m *Memory) at(rev storage.Revision) map[string]storage.Entry {
	if rev == m.revision {
		return m.current
	}
	entries := make(map[string]storage.Entry)
	for _, c := range m.log {
		if c.Modified > rev {
			break
		}
		if c.Deleted {
			delete(entries, c.Key)
		} else {
			entries[c.Key] = c.Entry
		}
	}
	return entries
}

func (m *Memory) Get(ctx context.Context, key string) (storage.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, "Get"); err != nil {
		return storage.Entry{}, err
	}
	e, ok := m.current[key]
	if !ok {
		return storage.Entry{}, storage.ErrNotFound
	}
	return e, nil
}

func (m *Memory) List(ctx context.Context, prefix string, opts storage.ListOptions) (storage.Page, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, "List"); err != nil {
		return storage.Page{}, err
	}
	page := storage.Page{Revision: m.revision}
	if opts.At != 0 {
		switch {
		case opts.At > m.revision:
			return storage.Page{}, storage.ErrFuture
		case opts.At < m.floor:
			return storage.Page{}, storage.ErrCompacted
		}
		page.Revision = opts.At
	}
	for _, e := range m.at(page.Revision) {
		if strings.HasPrefix(e.Key, prefix) && e.Key > opts.After {
			page.Entries = append(page.Entries, e)
		}
	}
	slices.SortFunc(page.Entries, func(a, b storage.Entry) int { return strings.Compare(a.Key, b.Key) })
	if opts.Limit > 0 && len(page.Entries) > opts.Limit {
		page.More, page.Remaining = true, int64(len(page.Entries)-opts.Limit)
		page.Entries = page.Entries[:opts.Limit]
	}
	return page, nil
}

func (m *Memory) Commit(ctx context.Context, txn storage.Txn) (storage.Revision, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, "Commit"); err != nil {
		return 0, err
	}
	for _, c := range txn.If {
		e, ok := m.current[c.Key]
		if !ok && c.Revision != 0 {
			return 0, &storage.ConflictError{Key: c.Key}
		}
		if ok && e.Modified != c.Revision {
			return 0, &storage.ConflictError{Key: c.Key, Current: &e}
		}
	}
	next := m.revision + 1
	wrote := false
	for _, op := range txn.Then {
		old, exists := m.current[op.Key]
		change := storage.Change{Entry: storage.Entry{Key: op.Key, Value: slices.Clone(op.Value), Created: next, Modified: next}}
		if op.Value == nil {
			if !exists {
				continue
			}
			change.Deleted, change.Created = true, 0
		} else if exists {
			change.Created = old.Created
		}
		m.log = append(m.log, change)
		if change.Deleted {
			delete(m.current, op.Key)
		} else {
			m.current[op.Key] = change.Entry
		}
		wrote = true
		if op.TTL > 0 && op.Value != nil {
			time.AfterFunc(op.TTL, func() {
				m.Commit(context.Background(), storage.Txn{
					If:   []storage.Condition{{Key: op.Key, Revision: next}},
					Then: []storage.Op{{Key: op.Key}},
				})
			})
		}
	}
	if wrote {
		m.revision = next
		m.signal()
	}
	return m.revision, nil
}

// kept is a key that vanishes when its timer fires.
type kept struct {
	m        *Memory
	key      string
	revision storage.Revision
	ttl      time.Duration
	timer    *time.Timer
}

func (m *Memory) Keep(ctx context.Context, key string, value []byte, ttl time.Duration) (storage.Kept, error) {
	revision, err := m.Commit(ctx, storage.Txn{Then: []storage.Op{{Key: key, Value: value}}})
	if err != nil {
		return nil, err
	}
	k := &kept{m: m, key: key, revision: revision, ttl: ttl}
	k.timer = time.AfterFunc(ttl, func() { _ = k.remove(context.Background()) })
	return k, nil
}

func (k *kept) Renew(context.Context) error {
	if !k.timer.Stop() {
		return storage.ErrNotFound
	}
	k.timer.Reset(k.ttl)
	return nil
}

func (k *kept) Release(ctx context.Context) error {
	k.timer.Stop()
	return k.remove(ctx)
}

func (k *kept) remove(ctx context.Context) error {
	_, err := k.m.Commit(ctx, storage.Txn{If: []storage.Condition{{Key: k.key, Revision: k.revision}}, Then: []storage.Op{{Key: k.key}}})
	if errors.Is(err, storage.ErrConflict) {
		return nil
	}
	return err
}

func (m *Memory) Watch(ctx context.Context, prefix string, after storage.Revision, deliver func(storage.Batch) error) error {
	m.mu.Lock()
	asked, breaks := m.asked, m.breaks
	err := m.begin(ctx, "Watch")
	m.mu.Unlock()
	if err != nil {
		return err
	}
	for {
		m.mu.Lock()
		var b storage.Batch
		switch {
		case m.closed:
			err = errClosed
		case m.breaks != breaks:
			err = errors.New("the watch broke")
		case after+1 < m.floor:
			err = storage.ErrCompacted
		case ctx.Err() != nil:
			err = ctx.Err()
		}
		from, _ := slices.BinarySearchFunc(m.log, after+1, func(c storage.Change, rev storage.Revision) int { return int(c.Modified - rev) })
		for _, c := range m.log[from:] {
			if strings.HasPrefix(c.Key, prefix) {
				b.Changes = append(b.Changes, c)
				b.Revision = c.Modified
			}
		}
		tell := len(b.Changes) > 0
		if m.asked != asked && m.revision > after {
			tell, b.Revision = true, m.revision
		}
		asked = m.asked
		moved := m.moved
		m.mu.Unlock()
		if err != nil {
			return fmt.Errorf("watch %s: %w", prefix, err)
		}
		if tell {
			if err := deliver(b); err != nil {
				return err
			}
			after = b.Revision
			continue
		}
		select {
		case <-moved:
		case <-ctx.Done():
		}
	}
}

func (m *Memory) Progress(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, "Progress"); err != nil {
		return err
	}
	m.asked++
	m.signal()
	return nil
}

func (m *Memory) Now(ctx context.Context) (storage.Revision, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, "Now"); err != nil {
		return 0, err
	}
	return m.revision, nil
}

func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.signal()
	return nil
}
