package httpapi

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/engine"
	"github.com/timonel/timonel/internal/route"
	"github.com/timonel/timonel/internal/trace"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// negotiate chooses the format of the answer.
func (x *exchange) negotiate(offer codec.Offer) (codec.Format, error) {
	d := x.request.Definition
	offer.Protobuf, offer.CBOR = !codec.IsTree(d), x.CBOR
	offer.ListVerb = x.request.Sub == nil && (x.request.Verb == "list" || x.request.Verb == "watch")
	f, err := codec.Negotiate(x.r.Header.Get("Accept"), offer)
	if err != nil {
		return f, err
	}
	f.Pretty = f.Pretty || x.pretty()
	if f.View == codec.AsTable {
		f.IncludeObject = x.request.Query.Get("includeObject")
		switch f.IncludeObject {
		case "", "None", "Metadata", "Object":
		default:
			return f, apierrors.NewBadRequest("Unable to convert to Table as requested: includeObject: Invalid value: \"" + f.IncludeObject + "\": must be 'Metadata', 'Object', 'None', or empty")
		}
	}
	return f, nil
}

// pretty: people with a browser or curl get indented answers unless they say otherwise.
func (x *exchange) pretty() bool {
	if text := x.request.Query.Get("pretty"); text != "" {
		on, _ := strconv.ParseBool(text) // what is no boolean means no
		return on
	}
	agent := x.r.UserAgent()
	return strings.HasPrefix(agent, "curl") || strings.HasPrefix(agent, "Wget") || strings.HasPrefix(agent, "Mozilla/5.0")
}

// send writes an encoded answer.
func (x *exchange) send(status int, contentType string, b []byte) {
	h := x.w.Header()
	h["Content-Type"] = headerOf(contentType)
	if len(b) >= minGzip && acceptsGzip(x.r.Header.Get("Accept-Encoding")) {
		out := &body{w: x.w, status: status, compress: true}
		_, _ = out.Write(b) // a client that went away is not our error
		_ = out.Close()
		return
	}
	h["Content-Length"] = []string{strconv.Itoa(len(b))}
	x.w.WriteHeader(status)
	_, _ = x.w.Write(b)
}

// headerOf is the value of a Content-Type header; the usual ones are made once.
func headerOf(contentType string) []string {
	for _, known := range contentTypes {
		if known[0] == contentType {
			return known
		}
	}
	return []string{contentType}
}

var contentTypes = func() (known [][]string) {
	for _, m := range []codec.Media{codec.JSONMedia, codec.ProtobufMedia, codec.YAMLMedia} {
		known = append(known, []string{codec.Format{Media: m}.ContentType(false)})
	}
	return known
}()

// sendItem answers with one object.
func (x *exchange) sendItem(status int, item codec.Item, f codec.Format) error {
	x.record.Enter(trace.Answer)
	e := codec.Encoder{Definition: item.Definition, Format: f}
	out := chunks.Get().(*[]byte)
	b, err := e.AppendObject((*out)[:0], item)
	if err != nil {
		return err
	}
	x.send(status, f.ContentType(false), b)
	*out = b
	reuse(out)
	return nil
}

// sendValue answers with a value that is not stored.
func (x *exchange) sendValue(status int, v runtime.Object, gvk schema.GroupVersionKind, f codec.Format) error {
	x.record.Enter(trace.Answer)
	b, err := codec.Encode(v, gvk, f)
	if err != nil {
		return err
	}
	x.send(status, f.ContentType(false), b)
	return nil
}

// sendList answers with a list.
func (x *exchange) sendList(page engine.Page, f codec.Format) error {
	x.record.Enter(trace.Answer)
	e := codec.Encoder{Definition: x.request.Definition, Format: f}
	x.w.Header().Set("Content-Type", f.ContentType(false))
	out := &body{w: x.w, status: http.StatusOK, compress: acceptsGzip(x.r.Header.Get("Accept-Encoding"))}
	write := e.WriteList
	if out.compress && e.CanStitch(page.Items, minGzip) {
		out.compressed()
		write = e.WriteGzipList
	}
	if err := write(out, page.Items, page.Meta); err != nil {
		if x.w.wrote() { // the answer is half out: the connection must show that it broke
			x.Log.Debug("list was cut short", "path", x.r.URL.Path, "error", err)
			panic(http.ErrAbortHandler)
		}
		return err
	}
	return out.Close()
}

// sendResult answers a write.
func (x *exchange) sendResult(result engine.Result, f codec.Format) error {
	status := http.StatusOK
	switch {
	case result.Created:
		status = http.StatusCreated
	case result.Accepted:
		status = http.StatusAccepted
	}
	switch {
	case result.Status != nil:
		return x.sendValue(status, result.Status, statusKind, codec.Format{Media: f.Media, Pretty: f.Pretty})
	case result.Value != nil:
		return x.sendValue(status, result.Value, result.Value.GetObjectKind().GroupVersionKind(), codec.Format{Media: f.Media, Pretty: f.Pretty})
	}
	return x.sendItem(status, result.Item, f)
}

// statusKind: a Status travels as v1, whatever it is about.
var statusKind = schema.GroupVersionKind{Version: "v1", Kind: "Status"}

// fail answers with an error, as a Status in the client's format.
func (x *exchange) fail(err error) {
	x.record.Enter(trace.Answer)
	if x.w.wrote() {
		x.Log.Debug("request failed after its answer began", "path", x.r.URL.Path, "error", err)
		return
	}
	if x.answersFirst(); x.unawaited && x.begun && !x.read { // where the next request begins is not known
		x.w.Header().Set("Connection", "close")
	}
	if errors.Is(err, route.ErrNoPage) {
		NotFound(x.w)
		return
	}
	status := StatusOf(err)
	f, negotiationErr := codec.Negotiate(x.r.Header.Get("Accept"), codec.Offer{Protobuf: true, CBOR: x.CBOR, Views: true})
	if negotiationErr != nil {
		f = codec.Format{}
	}
	f.View, f.Pretty = codec.Whole, f.Pretty || x.pretty()
	if status.Details != nil && status.Details.RetryAfterSeconds > 0 {
		x.w.Header().Set("Retry-After", strconv.Itoa(int(status.Details.RetryAfterSeconds)))
	}
	b, encodeErr := codec.Encode(status, statusKind, f)
	if encodeErr != nil {
		http.Error(x.w, status.Message, int(status.Code))
		return
	}
	x.send(int(status.Code), f.ContentType(false), b)
}

// StatusOf is the Status that tells an error to a client. Errors that are not API errors
// become a 500 without a reason.
func StatusOf(err error) *metav1.Status {
	var api apierrors.APIStatus
	if errors.As(err, &api) {
		status := api.Status()
		status.Kind, status.APIVersion = "Status", "v1"
		if status.Status == "" {
			status.Status = metav1.StatusFailure
		}
		if status.Code == 0 {
			status.Code = http.StatusInternalServerError
		}
		return &status
	}
	return &metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: err.Error()}
}

// NotFound is the plain 404 for paths that belong to nothing.
func NotFound(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusNotFound)
	_, _ = w.Write([]byte("404 page not found\n"))
}

// MethodNotAllowed answers 405 for a path that exists.
func MethodNotAllowed(w http.ResponseWriter) { sendStatus(w, route.MethodNotAllowed()) }

// NoResource answers 404 for a path below the API that names no resource.
func NoResource(w http.ResponseWriter) { sendStatus(w, route.NoResource()) }

// Unavailable answers 503: the client may come again after a while.
func Unavailable(w http.ResponseWriter, message string, after time.Duration) {
	w.Header().Set("Retry-After", strconv.Itoa(int(after/time.Second)))
	sendStatus(w, apierrors.NewServiceUnavailable(message))
}

// NotAcceptable answers 406.
func NotAcceptable(w http.ResponseWriter, message string) {
	sendStatus(w, codec.NotAcceptable(message))
}

// sendStatus answers an error as JSON.
func sendStatus(w http.ResponseWriter, err error) {
	status := StatusOf(err)
	b, _ := json.Marshal(status) // a Status always encodes
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(status.Code))
	_, _ = w.Write(append(b, '\n'))
}
