package etcd

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	servererrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/mvcc"

	"github.com/timonel/timonel/internal/storage"
)

// ErrLocked says that another process, or this one, already uses the data directory.
var ErrLocked = errors.New("data directory is in use by another etcd")

// errLeaseNotFound does not leave this package.
var errLeaseNotFound = errors.New("lease not found")

// meanings translates the errors of etcd's server and of its client.
var meanings = []struct{ is, means error }{
	{mvcc.ErrCompacted, storage.ErrCompacted},
	{mvcc.ErrFutureRev, storage.ErrFuture},
	{servererrors.ErrRequestTooLarge, storage.ErrTooLarge},
	{servererrors.ErrNoSpace, storage.ErrFull},
	{servererrors.ErrNoLeader, storage.ErrNoLeader},
	{servererrors.ErrNotLeader, storage.ErrNoLeader},
	{servererrors.ErrTooManyRequests, storage.ErrBusy}, // it cannot keep up with its log
	{lease.ErrLeaseNotFound, errLeaseNotFound},

	{rpctypes.ErrCompacted, storage.ErrCompacted},
	{rpctypes.ErrFutureRev, storage.ErrFuture},
	{rpctypes.ErrRequestTooLarge, storage.ErrTooLarge},
	{rpctypes.ErrNoSpace, storage.ErrFull},
	{rpctypes.ErrNoLeader, storage.ErrNoLeader},
	{rpctypes.ErrNotLeader, storage.ErrNoLeader},
	{rpctypes.ErrTooManyRequests, storage.ErrBusy},
	{rpctypes.ErrLeaseNotFound, errLeaseNotFound},
}

// refused translates an error by which etcd says that it did nothing; nil if err is none.
func refused(err error) error {
	known := rpctypes.Error(err) // a raw call's error is a gRPC status; rpctypes knows its text
	for _, m := range meanings {
		if errors.Is(known, m.is) {
			return fmt.Errorf("%w (%v)", m.means, err)
		}
	}
	if status.Code(err) == codes.ResourceExhausted { // gRPC's own limit on a message
		return fmt.Errorf("%w (%v)", storage.ErrTooLarge, err)
	}
	return nil
}

// passing are errors that leave the outcome of a write open, and that a read may simply be tried again after. From a
// server elsewhere they come with the code Unavailable.
var passing = []error{
	servererrors.ErrTimeout, servererrors.ErrTimeoutDueToLeaderFail, servererrors.ErrTimeoutDueToConnectionLost, servererrors.ErrTimeoutLeaderTransfer,
	servererrors.ErrTimeoutWaitAppliedIndex, servererrors.ErrLeaderChanged, servererrors.ErrStopped, servererrors.ErrUnhealthy,
}

// readError translates what a call without effect failed with.
func readError(err error) error {
	if err == nil {
		return nil
	}
	if r := refused(err); r != nil {
		return r
	}
	for _, p := range passing {
		if errors.Is(err, p) {
			return fmt.Errorf("%w (%v)", storage.ErrNoLeader, err)
		}
	}
	switch status.Code(err) {
	case codes.Canceled:
		return fmt.Errorf("%w (%v)", context.Canceled, err)
	case codes.DeadlineExceeded:
		return fmt.Errorf("%w (%v)", context.DeadlineExceeded, err)
	case codes.Unavailable:
		return fmt.Errorf("%w (%v)", storage.ErrNoLeader, err)
	}
	return err
}

// writeError translates what a write failed with. Unless etcd refused it, the
// request may have been carried out, or may yet be.
func writeError(err error) error {
	if err == nil {
		return nil
	}
	if r := refused(err); r != nil {
		return r
	}
	return fmt.Errorf("%w: %w", storage.ErrUnknown, readError(err))
}
