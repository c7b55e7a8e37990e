package codec

import (
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Media is a representation of API objects.
type Media uint8

const (
	JSONMedia Media = iota
	YAMLMedia
	ProtobufMedia
	CBORMedia
)

// Content types (Kubernetes API concepts, "Alternate representations of resources").
const (
	typeJSON          = "application/json"
	typeYAML          = "application/yaml"
	typeProtobuf      = "application/vnd.kubernetes.protobuf"
	typeProtobufWatch = "application/vnd.kubernetes.protobuf;stream=watch"
	typeCBOR          = "application/cbor"
	typeCBORWatch     = "application/cbor-seq"
)

func (m Media) String() string { return [...]string{typeJSON, typeYAML, typeProtobuf, typeCBOR}[m] }

// View is what of an object is shown.
type View uint8

const (
	Whole      View = iota
	AsTable         // meta.k8s.io Table
	AsMetadata      // meta.k8s.io PartialObjectMetadata, or its list
)

// Format is how a client wants its answer.
type Format struct {
	Media       Media
	View        View
	ViewVersion string // of meta.k8s.io, for a view: "v1" or "v1beta1"
	Pretty      bool
	// IncludeObject is what a table row carries: "None", "Metadata" or "Object".
	IncludeObject string
}

// ContentType is the header of an answer in this format.
func (f Format) ContentType(stream bool) string {
	switch {
	case stream && f.Media == ProtobufMedia:
		return typeProtobufWatch
	case stream && f.Media == CBORMedia:
		return typeCBORWatch
	}
	return f.Media.String()
}

// acceptClause is one media range of an Accept header.
type acceptClause struct {
	mediaType string
	params    map[string]string
	q         float64
}

// maxAccepts bounds the Accept headers that are remembered, and maxAccept their length: clients have one or two each.
const (
	maxAccepts = 256
	maxAccept  = 512
)

var accepts struct {
	read  sync.Map // header → []acceptClause, not to be changed
	count atomic.Int32
}

// acceptOf is parseAccept with a memory.
func acceptOf(header string) []acceptClause {
	if known, ok := accepts.read.Load(header); ok {
		return known.([]acceptClause)
	}
	clauses := parseAccept(header)
	if len(header) <= maxAccept && accepts.count.Load() < maxAccepts && accepts.count.Add(1) <= maxAccepts {
		accepts.read.Store(strings.Clone(header), clauses)
	}
	return clauses
}

// parseAccept reads an Accept header (RFC 9110, section 12.5.1), best first. Ranges
// that do not parse are left out.
func parseAccept(header string) []acceptClause {
	var clauses []acceptClause
	for part := range strings.SplitSeq(header, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		clause := acceptClause{q: 1}
		if !strings.Contains(part, ";") {
			clause.mediaType = part
		} else {
			var err error
			if clause.mediaType, clause.params, err = mime.ParseMediaType(part); err != nil {
				continue
			}
			// mime folds the case of the type; the reference compares it as it was sent.
			clause.mediaType = strings.TrimSpace(part[:strings.IndexByte(part, ';')])
			if q, err := strconv.ParseFloat(clause.params["q"], 64); err == nil {
				clause.q = q
			}
		}
		at := len(clauses)
		for at > 0 && clauses[at-1].q < clause.q {
			at--
		}
		clauses = append(clauses, acceptClause{})
		copy(clauses[at+1:], clauses[at:])
		clauses[at] = clause
	}
	return clauses
}

// Offer is what an endpoint can answer with.
type Offer struct {
	Views    bool // Table and PartialObjectMetadata
	Protobuf bool // of the whole object; metadata views always have it
	CBOR     bool
	Watch    bool // the answer is a stream of events
	ListVerb bool // the endpoint can be watched too: named in the 406 text
}

// mediaTypes lists the media types of objects, as the answers to those who want another one do.
func mediaTypes(protobuf, cbor bool) []string {
	types := []string{typeJSON, typeYAML}
	if protobuf {
		types = append(types, typeProtobuf)
	}
	if cbor {
		types = append(types, typeCBOR)
	}
	return types
}

// streamTypes lists the media types of watches.
func (o Offer) streamTypes() []string {
	types := []string{typeJSON + ";stream=watch"}
	if o.Protobuf {
		types = append(types, typeProtobufWatch)
	}
	if o.CBOR {
		types = append(types, typeCBORWatch)
	}
	return types
}

// ErrNotAcceptable is the answer when nothing fits, with the text of the
// reference's router.
func notAcceptable(offer Offer) error {
	types := mediaTypes(offer.Protobuf, offer.CBOR)
	if offer.ListVerb {
		types = append(types, offer.streamTypes()...)
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
		Message: "406: Not Acceptable\n\nAvailable representations: " + strings.Join(types, ", "),
		Details: &metav1.StatusDetails{},
	}}
}

// notAcceptableView is the answer when the media type fits and the view does not.
func notAcceptableView(offer Offer) error {
	return NotAcceptable("only the following media types are accepted: " + strings.Join(mediaTypes(offer.Protobuf, offer.CBOR), ", "))
}

// NotAcceptable is a 406 Status with a message.
func NotAcceptable(message string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable, Message: message,
	}}
}

// Negotiate chooses the format of the answer from an Accept header.
func Negotiate(accept string, offer Offer) (Format, error) {
	clauses := acceptOf(accept)
	if len(clauses) == 0 {
		if strings.TrimSpace(accept) != "" {
			return Format{}, notAcceptable(offer)
		}
		return Format{}, nil
	}
	var refused error
	for _, c := range clauses {
		f, ok := mediaOf(c.mediaType, offer.CBOR)
		if offer.CBOR && offer.Watch && c.mediaType == typeCBORWatch {
			f, ok = Format{Media: CBORMedia}, true
		}
		if !ok {
			continue
		}
		if offer.Watch && f.Media == YAMLMedia {
			refused = notAcceptableStream(offer)
			continue
		}
		view, known := viewOf(c.params, offer.Views)
		if !known || view == AsTable && f.Media == ProtobufMedia {
			refused = notAcceptableView(offer)
			continue
		}
		if f.Media == ProtobufMedia && !offer.Protobuf && view == Whole {
			continue
		}
		f.View, f.ViewVersion = view, c.params["v"]
		f.Pretty = c.params["pretty"] == "1" || c.params["pretty"] == "true"
		return f, nil
	}
	if refused == nil {
		refused = notAcceptable(offer)
	}
	return Format{}, refused
}

func notAcceptableStream(offer Offer) error {
	return NotAcceptable("only the following media types are accepted: " + strings.Join(offer.streamTypes(), ", "))
}

func mediaOf(mediaType string, cbor bool) (Format, bool) {
	switch mediaType {
	case typeJSON, "*/*", "application/*":
		return Format{Media: JSONMedia}, true
	case typeYAML:
		return Format{Media: YAMLMedia}, true
	case typeProtobuf:
		return Format{Media: ProtobufMedia}, true
	case typeCBOR:
		return Format{Media: CBORMedia}, cbor
	}
	return Format{}, false
}

func viewOf(params map[string]string, views bool) (View, bool) {
	as := params["as"]
	if as == "" {
		return Whole, true
	}
	if !views || params["g"] != metav1.GroupName || params["v"] != "v1" && params["v"] != "v1beta1" {
		return Whole, false
	}
	switch as {
	case "Table":
		return AsTable, true
	case "PartialObjectMetadata", "PartialObjectMetadataList":
		return AsMetadata, true
	}
	return Whole, false
}

// CheckListView refuses the metadata view that does not fit: a list of a single
// object, or the other way round. goType is what the reference names the object in the text.
func CheckListView(accept string, list, cbor bool, goType string) error {
	for _, c := range acceptOf(accept) {
		if _, ok := mediaOf(c.mediaType, cbor); !ok {
			continue
		}
		switch as := c.params["as"]; {
		case as == "PartialObjectMetadataList" && !list:
			return NotAcceptable(fmt.Sprintf("you requested PartialObjectMetadataList, but the requested object is not a list (%s)", goType))
		case as == "PartialObjectMetadata" && list:
			return NotAcceptable(fmt.Sprintf("you requested PartialObjectMetadata, but the requested object is a list (%s)", goType))
		}
		return nil
	}
	return nil
}

// BodyMedia is the media type of a request body; no Content-Type means JSON.
func BodyMedia(contentType string, protobuf, cbor bool) (Media, error) {
	if contentType == "" {
		return JSONMedia, nil
	}
	mediaType, _, err := mime.ParseMediaType(contentType)
	if err == nil {
		switch mediaType {
		case typeJSON:
			return JSONMedia, nil
		case typeYAML:
			return YAMLMedia, nil
		case typeProtobuf:
			if protobuf {
				return ProtobufMedia, nil
			}
		case typeCBOR:
			if cbor {
				return CBORMedia, nil
			}
		}
	}
	return 0, &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
		Message: "the body of the request was in an unknown format - accepted media types include: " + strings.Join(mediaTypes(protobuf, cbor), ", "),
	}}
}
