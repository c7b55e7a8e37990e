package httpapi

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/engine"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	listvalidation "k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// queryReader reads query parameters and keeps the first thing that is wrong with them.
type queryReader struct {
	url.Values
	err error
}

func (q *queryReader) fail(err error) {
	if q.err == nil {
		q.err = apierrors.NewBadRequest(err.Error())
	}
}

func (q *queryReader) number(name string) *int64 {
	text := q.Get(name)
	if text == "" {
		return nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		q.fail(err)
		return nil
	}
	return &n
}

// flag is a boolean; anything but false and 0 counts as true, as the API has it.
func (q *queryReader) flag(name string) *bool {
	values, given := q.Values[name]
	if !given {
		return nil
	}
	on := len(values) == 0 || values[0] != "false" && values[0] != "0"
	return &on
}

func (q *queryReader) on(name string) bool {
	b := q.flag(name)
	return b != nil && *b
}

// getOptions reads the options of get.
func (x *exchange) getOptions() (o metav1.GetOptions, err error) {
	q := queryReader{Values: x.request.Query}
	if q.on("export") {
		return o, apierrors.NewBadRequest("the export parameter, deprecated since v1.14, is no longer supported")
	}
	o.ResourceVersion = q.Get("resourceVersion")
	return o, nil
}

// listOptions reads and checks the options of list, watch and deletecollection.
func (x *exchange) listOptions() (metav1.ListOptions, error) {
	q := queryReader{Values: x.request.Query}
	o := metav1.ListOptions{
		LabelSelector:        q.Get("labelSelector"),
		FieldSelector:        q.Get("fieldSelector"),
		Watch:                x.request.Verb == "watch",
		AllowWatchBookmarks:  q.on("allowWatchBookmarks"),
		ResourceVersion:      q.Get("resourceVersion"),
		ResourceVersionMatch: metav1.ResourceVersionMatch(q.Get("resourceVersionMatch")),
		Continue:             q.Get("continue"),
		SendInitialEvents:    q.flag("sendInitialEvents"),
		TimeoutSeconds:       q.number("timeoutSeconds"),
	}
	if limit := q.number("limit"); limit != nil {
		o.Limit = *limit
	}
	if q.err != nil {
		return o, q.err
	}
	return o, x.checkList(&o)
}

func (x *exchange) checkList(o *metav1.ListOptions) error {
	internal := internalversion.ListOptions{
		Watch: o.Watch, AllowWatchBookmarks: o.AllowWatchBookmarks, ResourceVersion: o.ResourceVersion,
		ResourceVersionMatch: o.ResourceVersionMatch, Continue: o.Continue, Limit: o.Limit,
		SendInitialEvents: o.SendInitialEvents, TimeoutSeconds: o.TimeoutSeconds,
	}
	if errs := listvalidation.ValidateListOptions(&internal, true); len(errs) > 0 {
		return apierrors.NewInvalid(metav1.SchemeGroupVersion.WithKind("ListOptions").GroupKind(), "", errs)
	}
	if x.request.Name != "" && o.FieldSelector == "" && x.request.OldWatch {
		o.FieldSelector = fields.OneTermEqualSelector("metadata.name", x.request.Name).String()
	}
	if o.FieldSelector != "" {
		if _, err := fields.ParseSelector(o.FieldSelector); err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
	}
	if o.LabelSelector != "" {
		if _, err := labels.Parse(o.LabelSelector); err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
	}
	return nil
}

func (x *exchange) createOptions() (o metav1.CreateOptions, err error) {
	q := x.request.Query
	o = metav1.CreateOptions{DryRun: q["dryRun"], FieldManager: q.Get("fieldManager"), FieldValidation: q.Get("fieldValidation")}
	return o, invalidOptions("CreateOptions", validation.ValidateCreateOptions(&o))
}

func (x *exchange) updateOptions() (o metav1.UpdateOptions, err error) {
	q := x.request.Query
	o = metav1.UpdateOptions{DryRun: q["dryRun"], FieldManager: q.Get("fieldManager"), FieldValidation: q.Get("fieldValidation")}
	return o, invalidOptions("UpdateOptions", validation.ValidateUpdateOptions(&o))
}

func (x *exchange) patchOptions(patchType types.PatchType) (o metav1.PatchOptions, err error) {
	q := queryReader{Values: x.request.Query}
	o = metav1.PatchOptions{DryRun: q.Values["dryRun"], FieldManager: q.Get("fieldManager"), FieldValidation: q.Get("fieldValidation"), Force: q.flag("force")}
	return o, invalidOptions("PatchOptions", validation.ValidatePatchOptions(&o, patchType))
}

func invalidOptions(kindName string, errs field.ErrorList) error {
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(metav1.SchemeGroupVersion.WithKind(kindName).GroupKind(), "", errs)
}

// deleteOptions reads the options of a deletion from its body, or else from the query.
func (x *exchange) deleteOptions() (*metav1.DeleteOptions, error) {
	b, err := x.readBody()
	if err != nil {
		return nil, err
	}
	o := &metav1.DeleteOptions{}
	if len(b) > 0 {
		media, err := codec.BodyMedia(x.r.Header.Get("Content-Type"), true, x.CBOR)
		if err != nil {
			return nil, err
		}
		if o, err = codec.DecodeDeleteOptions(b, media, x.Engine.Registered); err != nil {
			return nil, err
		}
	} else {
		q := queryReader{Values: x.request.Query}
		o.GracePeriodSeconds = q.number("gracePeriodSeconds")
		o.OrphanDependents = q.flag("orphanDependents")
		o.DryRun = q.Values["dryRun"]
		if text := q.Get("propagationPolicy"); text != "" {
			policy := metav1.DeletionPropagation(text)
			o.PropagationPolicy = &policy
		}
		o.IgnoreStoreReadErrorWithClusterBreakingPotential = q.flag("ignoreStoreReadErrorWithClusterBreakingPotential")
		if q.err != nil {
			return nil, q.err
		}
	}
	return o, invalidOptions("DeleteOptions", validation.ValidateDeleteOptions(o))
}

// maxRefused bounds what is read of a body that is too large, only so that the client, who sends before it
// listens, gets to see the answer.
const maxRefused = 32 << 20

// readBody reads the body of a request, up to its bound and the request's deadline.
func (x *exchange) readBody() ([]byte, error) {
	if x.r.Body == nil || x.r.Body == http.NoBody {
		return nil, nil
	}
	defer whenDone(x.ctx, func() { // a client that stalls holds nobody up
		_ = http.NewResponseController(x.w).SetReadDeadline(time.Now()) // not every connection can
	})()
	x.begun = true
	var b []byte
	var err error
	if n := x.r.ContentLength; n > 0 && n <= codec.MaxBody {
		b = make([]byte, n)
		_, err = io.ReadFull(x.r.Body, b)
	} else {
		b, err = io.ReadAll(io.LimitReader(x.r.Body, codec.MaxBody+1))
	}
	switch {
	case x.ctx.Err() != nil:
		return nil, late()
	case err != nil:
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the body could not be read: %v", err))
	case len(b) > codec.MaxBody:
		_, _ = io.CopyN(io.Discard, x.r.Body, maxRefused) // it is refused either way
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("limit is %d", codec.MaxBody))
	}
	x.read = true
	return b, nil
}

// body reads a body that holds an object.
func (x *exchange) body() (engine.Body, error) {
	d := x.request.Definition
	media, err := codec.BodyMedia(x.r.Header.Get("Content-Type"), !codec.IsTree(d), x.CBOR)
	if err != nil {
		return engine.Body{}, err
	}
	b, err := x.readBody()
	return engine.Body{Bytes: b, Media: media}, err
}

func strictness(fieldValidation string) codec.Strictness {
	switch fieldValidation {
	case metav1.FieldValidationStrict:
		return codec.Strict
	case metav1.FieldValidationIgnore:
		return codec.Ignore
	}
	return codec.Warn
}
