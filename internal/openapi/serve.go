package openapi

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	openapi_v2 "github.com/google/gnostic-models/openapiv2"
	openapi_v3 "github.com/google/gnostic-models/openapiv3"
	"github.com/munnerz/goautoneg"
	"google.golang.org/protobuf/proto"
)

const (
	typeJSON    = "application/json"
	typeProtoV2 = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
	typeProtoV3 = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf"
)

// The media types a client may ask for, and which form they mean. The ones with
// @ came first; clients still send them, no answer has them.
var (
	offersV2 = map[string]string{
		typeJSON: typeJSON, typeProtoV2: typeProtoV2,
		"application/com.github.proto-openapi.spec.v2@v1.0+protobuf": typeProtoV2,
	}
	offersV3 = map[string]string{
		typeJSON: typeJSON, typeProtoV3: typeProtoV3,
		"application/com.github.proto-openapi.spec.v3@v1.0+protobuf": typeProtoV3,
	}
)

// ServeHTTP answers /openapi/v2, /openapi/v3 and what is under the latter.
func (d *Documents) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch path, isV3 := strings.CutPrefix(r.URL.Path, "/openapi/v3/"); {
	case isV3:
		d.serveV3(w, r, path)
	case r.URL.Path == "/openapi/v3":
		d.serveIndex(w, r)
	case r.URL.Path == "/openapi/v2":
		d.serveV2(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (d *Documents) serveV2(w http.ResponseWriter, r *http.Request) {
	form := negotiate(w, r, offersV2)
	if form == "" {
		return
	}
	c := d.catalogue()
	m, err := d.v2(c)
	if err != nil {
		fail(w, err)
		return
	}
	a := answer{contentType: form, etag: m.etag, modified: c.changed}
	s := m.json
	if form == typeProtoV2 {
		s = m.pb
	}
	if a.plain, a.packed = s.plain(), s.packed(); len(s.insertions) == 0 {
		if a.packed, err = s.form.packed(); err != nil {
			fail(w, err)
			return
		}
	}
	a.serve(w, r)
}

func (d *Documents) serveIndex(w http.ResponseWriter, r *http.Request) {
	content := d.index()
	// Parity: the index is JSON, served as text.
	a := answer{contentType: "text/plain; charset=utf-8", etag: hash(content), modified: d.catalogue().changed, plain: bytesBody(content)}
	a.serve(w, r)
}

func (d *Documents) serveV3(w http.ResponseWriter, r *http.Request, path string) {
	c := d.catalogue()
	doc, version := d.builtIn(path), c.versions[path]
	a := answer{modified: d.started}
	switch remote, isRemote := c.remote[path]; {
	case doc != nil:
		a.etag = doc.ETag
	case version != nil:
		a.etag, a.modified = version.etag(), c.changed
	case isRemote:
		remote.Handler.ServeHTTP(w, r)
		return
	default:
		w.WriteHeader(http.StatusNotFound)
		return
	}
	if a.contentType = negotiate(w, r, offersV3); a.contentType == "" {
		return
	}
	if hash := r.URL.Query().Get("hash"); hash != "" {
		if hash != a.etag {
			w.Header().Set("Etag", strconv.Quote(a.etag))
			http.Redirect(w, r, documentURL(path, a.etag), http.StatusMovedPermanently)
			return
		}
		a.immutable = true
	}
	if a.contentType == typeJSON && doc != nil {
		packed, err := doc.JSON.packed()
		if err != nil {
			fail(w, err)
			return
		}
		a.plain, a.packed = doc.JSON.plain(), packed
		a.serve(w, r)
		return
	}
	if unchanged(r, a.etag) { // spare the work
		a.plain = bytesBody(nil)
		a.serve(w, r)
		return
	}
	content, _, _, err := d.jsonV3(path)
	if err == nil && a.contentType == typeProtoV3 {
		content, err = d.protoV3(content)
	}
	if err != nil {
		fail(w, err)
		return
	}
	a.plain = bytesBody(content)
	a.serve(w, r)
}

func (d *Documents) protoV3(content []byte) ([]byte, error) {
	d.converting.Lock()
	defer d.converting.Unlock()
	doc, err := openapi_v3.ParseDocument(content)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(doc)
}

// protoV2 makes the fields of the message that a v2 document is which hold
// paths and definitions. Protobuf messages merge when they follow each other.
func protoV2(content []byte) ([]byte, error) {
	doc, err := openapi_v2.ParseDocument(content)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(&openapi_v2.Document{Paths: doc.Paths, Definitions: doc.Definitions})
}

// negotiate chooses the form to answer in, or answers 406 and returns "".
func negotiate(w http.ResponseWriter, r *http.Request, offers map[string]string) string {
	w.Header().Add("Vary", "Accept")
	accept := r.Header.Get("Accept")
	if accept == "" {
		accept = "*/*"
	}
	for _, clause := range goautoneg.ParseAccept(accept) {
		if form := offers[clause.Type+"/"+clause.SubType]; form != "" {
			return form
		}
		if clause.SubType == "*" && (clause.Type == "*" || clause.Type == "application") {
			return typeJSON
		}
	}
	w.WriteHeader(http.StatusNotAcceptable)
	return ""
}

func fail(w http.ResponseWriter, err error) {
	http.Error(w, "making the OpenAPI document: "+err.Error(), http.StatusInternalServerError)
}

// answer is a document to serve.
type answer struct {
	contentType string
	etag        string
	modified    time.Time
	immutable   bool // the URL names the content by its hash
	plain       body
	packed      body // gzip; none when its open is nil
}

// body is content of known size that is produced when it is read.
type body struct {
	size int64
	open func() (io.Reader, error)
}

func bytesBody(content []byte) body {
	return body{int64(len(content)), func() (io.Reader, error) { return bytes.NewReader(content), nil }}
}

// serve writes the answer, with conditions and ranges as http.ServeContent has them.
func (a *answer) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", a.contentType)
	h.Set("Etag", strconv.Quote(a.etag))
	if a.immutable {
		h.Set("Cache-Control", "public, immutable")
		h.Set("Expires", time.Now().UTC().AddDate(1, 0, 0).Format(http.TimeFormat))
	} else {
		h.Set("Cache-Control", "no-cache, private")
	}
	content := a.plain
	if a.packed.open != nil {
		h.Add("Vary", "Accept-Encoding")
		if acceptsGzip(r) {
			content = a.packed
			h.Set("Content-Encoding", "gzip")
			if r.Header.Get("Range") == "" {
				h.Set("Content-Length", strconv.FormatInt(content.size, 10))
			}
		}
	}
	http.ServeContent(w, r, "", a.modified, &reader{body: content})
}

// unchanged says whether the answer will be 304.
func unchanged(r *http.Request, etag string) bool {
	return (r.Method == http.MethodGet || r.Method == http.MethodHead) && strings.Contains(r.Header.Get("If-None-Match"), strconv.Quote(etag))
}

func acceptsGzip(r *http.Request) bool {
	for _, value := range r.Header["Accept-Encoding"] {
		for part := range strings.SplitSeq(value, ",") {
			coding, parameters, _ := strings.Cut(part, ";")
			if coding = strings.TrimSpace(coding); coding != "gzip" && coding != "*" {
				continue
			}
			q, given := strings.CutPrefix(strings.ReplaceAll(parameters, " ", ""), "q=")
			if weight, err := strconv.ParseFloat(q, 64); !given || err == nil && weight > 0 {
				return true
			}
		}
	}
	return false
}

// reader is a body as http.ServeContent wants it. Seeking backwards opens it again.
type reader struct {
	body
	at, done int64 // where the client is, and where the stream is
	stream   io.Reader
}

func (r *reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the start of a document")
	}
	r.at = offset
	return offset, nil
}

func (r *reader) Read(p []byte) (int, error) {
	if r.stream == nil || r.done > r.at {
		stream, err := r.open()
		if err != nil {
			return 0, err
		}
		r.stream, r.done = stream, 0
	}
	if r.done < r.at {
		n, err := io.CopyN(io.Discard, r.stream, r.at-r.done)
		if r.done += n; err != nil {
			return 0, err
		}
	}
	n, err := r.stream.Read(p)
	r.at, r.done = r.at+int64(n), r.done+int64(n)
	return n, err
}
