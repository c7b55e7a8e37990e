// Package storage is the contract between the server and the store that holds
// its data: keys, bytes and revisions. It does not know kinds, HTTP or users.
//
// Every implementation promises, and storagetest checks:
//
//   - Durable: once Commit returns without error, the change survives a crash of
//     this process and of the machine.
//   - Atomic: a transaction is applied whole or not at all, at one revision that
//     is greater than that of every earlier transaction.
//   - Linearizable: Get, List without At, and Now reflect every Commit that
//     returned before they were called, through whichever server.
//   - Ordered: Watch delivers every change after the given revision exactly once,
//     in revision order, without gaps; all changes of one revision in one batch.
//     When it cannot (the history was compacted), it ends with ErrCompacted.
//   - An error of Commit other than ErrConflict and the permanent ones below
//     leaves the outcome open: the change may or may not have been made.
//
// The implementation for etcd is in storage/etcd; start reading there at
// store.go.
package storage

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Revision is a point in the store's history. Revisions grow by one with each
// transaction that writes. 0 stands for "none" or "newest", as documented.
type Revision int64

// Entry is a stored value.
type Entry struct {
	Key      string
	Value    []byte   // never changed after it was handed out
	Created  Revision // of the transaction that created the key
	Modified Revision // of the transaction that wrote this value

	// Err says why Value is not what was put, but what the store holds: it does not transform back. See Transform.
	Err error
}

// ListOptions choose a page of a list.
type ListOptions struct {
	At    Revision // read exactly as of this revision; 0: newest
	After string   // only keys greater than this one
	Limit int      // at most so many entries; 0: all
}

// Page is an answer of List.
type Page struct {
	Entries   []Entry
	Revision  Revision // the revision of the store that the page shows
	More      bool     // there are further entries
	Remaining int64    // how many further entries
}

// Condition is a demand on a key: that it was last modified at Revision, or,
// when Revision is 0, that it does not exist.
type Condition struct {
	Key      string
	Revision Revision
}

// Op is one write of a transaction: a put, or a delete when Value is nil.
type Op struct {
	Key   string
	Value []byte
	TTL   time.Duration // the key vanishes about so long after; 0: never
}

// Txn is a set of writes made together if all conditions hold.
type Txn struct {
	If   []Condition
	Then []Op
}

// Change is one key's change as Watch tells it.
type Change struct {
	Entry   // for a deletion Value is nil and Modified is the revision of the deletion
	Deleted bool
}

// Batch is all changes of one or several whole revisions, in order. A batch
// without changes says only that there was nothing to tell up to Revision.
type Batch struct {
	Changes  []Change
	Revision Revision // everything up to here has been delivered
}

// Store is a linearizable, watchable key-value store with a history.
type Store interface {
	// Get returns the newest entry at key. ErrNotFound if there is none.
	Get(ctx context.Context, key string) (Entry, error)

	// List returns the entries whose keys begin with prefix, in key order.
	// ErrCompacted if opts.At is no longer, ErrFuture if it is not yet known.
	List(ctx context.Context, prefix string, opts ListOptions) (Page, error)

	// Commit makes the writes if all conditions hold and returns their
	// revision; else *ConflictError (errors.Is ErrConflict).
	Commit(ctx context.Context, txn Txn) (Revision, error)

	// Keep puts a value at key that vanishes, like one with a TTL, about ttl after it was last renewed.
	Keep(ctx context.Context, key string, value []byte, ttl time.Duration) (Kept, error)

	// Watch calls deliver, from one goroutine, with all changes under prefix
	// after the given revision until ctx ends, deliver fails or the watch breaks.
	// It always returns a non-nil error. The caller resumes after the revision of the
	// last batch. Quiet stores deliver empty batches when asked by Progress.
	Watch(ctx context.Context, prefix string, after Revision, deliver func(Batch) error) error

	// Progress asks every running Watch to deliver an empty batch as soon as it has
	// delivered everything up to the present. It does not wait.
	Progress(ctx context.Context) error

	// Now returns the store's newest revision (linearizable).
	Now(ctx context.Context) (Revision, error)

	// Close releases connections. Running calls fail.
	Close() error
}

// Kept is a key that somebody keeps from vanishing. Others may write and delete it like any key.
type Kept interface {
	// Renew gives the key its full TTL again. It writes nothing, so nobody is told. ErrNotFound: it came too
	// late, the key is gone.
	Renew(ctx context.Context) error

	// Release removes the key at once, unless somebody else put it meanwhile.
	Release(ctx context.Context) error
}

var (
	ErrNotFound  = errors.New("key not found")
	ErrConflict  = errors.New("condition does not hold")
	ErrCompacted = errors.New("revision has been compacted")
	ErrFuture    = errors.New("revision is in the future")
	ErrTooLarge  = errors.New("request is too large for the store")
	ErrFull      = errors.New("store is out of space")       // retriable once an operator made room
	ErrNoLeader  = errors.New("store has no leader")         // retriable, as everything that passes by itself
	ErrBusy      = errors.New("store is overloaded")         // retriable
	ErrUnknown   = errors.New("outcome of write is unknown") // e.g. a timeout after the request was sent

	// ErrTransform: a value could not be transformed, as when its encryption key is not at hand. Nothing was written.
	ErrTransform = errors.New("value cannot be transformed")
)

// ConflictError says which condition failed and what stands there instead, so
// that a retry need not read again.
type ConflictError struct {
	Key     string
	Current *Entry // nil: the key does not exist
}

func (e *ConflictError) Error() string {
	if e.Current == nil {
		return fmt.Sprintf("%v: %s does not exist", ErrConflict, e.Key)
	}
	return fmt.Sprintf("%v: %s is at revision %d", ErrConflict, e.Key, e.Current.Modified)
}

func (e *ConflictError) Is(target error) bool { return target == ErrConflict }
