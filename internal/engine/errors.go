package engine

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/watchcache"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// modified is the conflict that controllers retry on; clients know its text.
var errModified = errors.New("the object has been modified; please apply your changes to the latest version and try again")

// storageError turns what the store or the cache said into an API Status error: the one
// table between the two. d and name may be left out.
func (e *Engine) storageError(err error, d *kind.Definition, name string) error {
	var conflict *storage.ConflictError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &conflict) && d != nil:
		return apierrors.NewConflict(d.GroupResource(), name, errModified)
	case errors.Is(err, storage.ErrNotFound) && d != nil:
		return e.notFound(d, name)
	case errors.Is(err, storage.ErrCompacted):
		return apierrors.NewResourceExpired("The provided resource version is too old")
	case errors.Is(err, storage.ErrTransform):
		return apierrors.NewInternalError(err)
	case errors.Is(err, storage.ErrTooLarge):
		return plain("etcdserver: request is too large") // Parity: no 413, which is about the body of a request
	case errors.Is(err, storage.ErrFull):
		full := apierrors.NewInternalError(fmt.Errorf("etcdserver: mvcc: database space exceeded: %w", err))
		full.ErrStatus.Details.RetryAfterSeconds = retryAfter
		return full
	case errors.Is(err, storage.ErrBusy):
		return apierrors.NewTooManyRequests(err.Error(), retryAfter)
	case errors.Is(err, storage.ErrUnknown):
		return notNow(err, d, "write")
	case errors.Is(err, storage.ErrNoLeader):
		return notNow(err, d, "storage")
	case errors.Is(err, context.DeadlineExceeded):
		return late(err)
	}
	return err
}

// retryAfter is how many seconds clients should wait for what passes by itself.
const retryAfter = 1

// notNow is the answer while the storage cannot do what it should. What was to be written may have been.
func notNow(err error, d *kind.Definition, operation string) error {
	status := apierrors.NewServerTimeout(resourceOf(d), operation, retryAfter)
	if d == nil {
		status.ErrStatus.Message = fmt.Sprintf("The %s operation could not be completed at this time, please try again.", operation)
	}
	status.ErrStatus.Message += " (" + err.Error() + ")"
	return status
}

// late is the answer when a request's time is up; err is that of its context.
func late(err error) error {
	return apierrors.NewTimeoutError(fmt.Sprintf("request did not complete within requested timeout - %v", err), 0)
}

func resourceOf(d *kind.Definition) (r schema.GroupResource) {
	if d != nil {
		r.Group, r.Resource = d.Group, d.Plural
	}
	return r
}

// tooLargeVersion is the answer to a resourceVersion that does not exist yet;
// client-go knows its cause.
func tooLargeVersion(asked, now storage.Revision) error {
	err := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", asked, now), 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{
		Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version",
	}}
	return err
}

// unreadable is the answer about an object whose stored bytes do not decode.
func unreadable(key string, err error) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonStoreReadError,
		Message: fmt.Sprintf("%s: data from the storage is not transformable or not decodable: %v", key, err),
	}}
}

// Unreadable is the answer about a stored item that does not decode; err is what decoding said.
func (e *Engine) Unreadable(item codec.Item, err error) error {
	if item.Version == nil {
		return err
	}
	return unreadable(e.key(item.Definition, item.Version.Namespace, item.Version.Name), err)
}

// mostUnreadable bounds the keys that an answer about a list names.
const mostUnreadable = 100

// unreadableList is the answer to a list in which objects do not decode: about the first of them, with the keys of all as
// causes.
func (e *Engine) unreadableList(c *Call, versions []*watchcache.Version) error {
	var causes []metav1.StatusCause
	var first error
	for _, v := range versions {
		if v.Err == nil {
			continue
		}
		key := e.key(c.Definition, v.Namespace, v.Name)
		if first == nil {
			first = unreadable(key, v.Err)
		}
		if len(causes) == mostUnreadable {
			break
		}
		causes = append(causes, metav1.StatusCause{Type: metav1.CauseTypeUnexpectedServerResponse, Field: key, Message: v.Err.Error()})
	}
	status := first.(*apierrors.StatusError)
	status.ErrStatus.Details = &metav1.StatusDetails{Group: c.Definition.Group, Kind: c.Definition.Plural, Causes: causes}
	return status
}

// invalid is the 422 with all that is wrong with an object.
func invalid(d *kind.Definition, name string, errs field.ErrorList) error {
	return apierrors.NewInvalid(d.GroupKind(), name, errs)
}

// plain is a 500 without a reason, as the reference gives for errors that are not
// API errors.
func plain(format string, args ...any) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: fmt.Sprintf(format, args...),
	}}
}
