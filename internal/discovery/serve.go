package discovery

import (
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/munnerz/goautoneg"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/version"
	"sigs.k8s.io/yaml"
)

const (
	typeJSON     = "application/json"
	typeYAML     = "application/yaml"
	typeProtobuf = "application/vnd.kubernetes.protobuf"

	aggregatedParameters = ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

	minGzip = 128 << 10 // smaller answers are not compressed
)

// ServeHTTP answers /api, /apis and the paths under them that name no resource,
// with or without a slash at the end. Of those it does not have, it answers as
// the API does: unknown versions of a known group with a Status, unknown groups
// with plain text.
func (d *Documents) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	root, rest, deeper := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/"), "/"), "/")
	group, name, hasVersion := strings.Cut(rest, "/")
	switch {
	case root == "api" && !deeper:
		d.serve(w, r, d.apiFor(r), d.aggregatedAPI)
	case root == "apis" && !deeper:
		d.serve(w, r, d.apis, d.aggregatedAPIs)
	case root == "api" && !hasVersion && d.versions[""][rest] != nil:
		d.serve(w, r, d.versions[""][rest], nil)
	case root == "api" && !hasVersion:
		writeStatus(w, r, http.StatusNotFound, metav1.StatusReasonNotFound, "the server could not find the requested resource", true)
	case root == "apis" && !hasVersion && d.groups[group] != nil:
		d.serve(w, r, d.groups[group], nil)
	case root == "apis" && hasVersion && d.versions[group][name] != nil:
		d.serve(w, r, d.versions[group][name], nil)
	case root == "apis" && hasVersion && d.groups[group] != nil && !d.custom[group] && !strings.Contains(name, "/"):
		writeStatus(w, r, http.StatusNotFound, metav1.StatusReasonNotFound, "the server could not find the requested resource", true)
	default:
		http.NotFound(w, r)
	}
}

// apiFor chooses what /api says to the client's address.
func (d *Documents) apiFor(r *http.Request) *document {
	if d.service != nil {
		if client, err := netip.ParseAddrPort(r.RemoteAddr); err == nil && d.options.ServiceRange.Contains(client.Addr().Unmap()) {
			return d.service
		}
	}
	return d.api
}

func (d *Documents) serve(w http.ResponseWriter, r *http.Request, plain, aggregated *document) {
	if r.Method != http.MethodGet {
		methodNotAllowed(w, r)
		return
	}
	c, ok := negotiate(r, aggregated != nil)
	if aggregated != nil {
		w.Header().Add("Vary", "Accept")
	}
	switch {
	case !c.known:
		notAcceptable(w, r, typeJSON, typeYAML, typeProtobuf)
	case !ok:
		writeStatus(w, r, http.StatusNotAcceptable, metav1.StatusReasonNotAcceptable,
			"only the following media types are accepted: "+strings.Join([]string{typeJSON, typeYAML, typeProtobuf}, ", "), false)
	case c.aggregated:
		h := w.Header()
		h.Set("Etag", aggregated.etag())
		h.Set("Cache-Control", "public")
		if matches(r.Header.Get("If-None-Match"), aggregated.etag()) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		aggregated.write(w, r, c.media, c.media+aggregatedParameters+c.profile)
	default:
		plain.write(w, r, c.media, c.media)
	}
}

func matches(header, etag string) bool {
	for part := range strings.SplitSeq(header, ",") {
		if part = strings.TrimPrefix(strings.TrimSpace(part), "W/"); part == etag || part == "*" {
			return true
		}
	}
	return false
}

// choice is the form a client wants.
type choice struct {
	media      string
	known      bool   // some media type of the header is one of the API's
	aggregated bool   // its parameters ask for the aggregated form
	profile    string // ";profile=…", which the answer repeats
}

// negotiate reads the Accept header; ok is false when the API's media types
// come only with parameters that nothing here fits.
func negotiate(r *http.Request, aggregated bool) (c choice, ok bool) {
	accept := r.Header.Get("Accept")
	if accept == "" {
		accept = "*/*"
	}
	for _, clause := range goautoneg.ParseAccept(accept) {
		media := mediaType(clause)
		if media == "" {
			continue
		}
		c.known, c.media = true, media
		switch p := clause.Params; {
		case p["as"] == "":
			return c, true
		case aggregated && p["as"] == "APIGroupDiscoveryList" && p["g"] == "apidiscovery.k8s.io" && p["v"] == "v2":
			c.aggregated = true
			if p["profile"] == "nopeer" { // there are no peers: the same answer
				c.profile = ";profile=nopeer"
			}
			return c, true
		}
	}
	return c, false
}

func mediaType(clause goautoneg.Accept) string {
	switch t := clause.Type + "/" + clause.SubType; t {
	case typeJSON, typeYAML, typeProtobuf:
		return t
	case "*/*", "application/*":
		return typeJSON
	}
	return ""
}

// encoding is a document's bytes, and their gzip form when they are many.
type encoding struct {
	plain, packed []byte
}

func newEncoding(content []byte, err error) (encoding, error) {
	if err != nil || len(content) < minGzip {
		return encoding{plain: content}, err
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(content); err != nil {
		return encoding{}, err
	}
	if err := z.Close(); err != nil {
		return encoding{}, err
	}
	return encoding{plain: content, packed: out.Bytes()}, nil
}

func (d *document) write(w http.ResponseWriter, r *http.Request, media, contentType string) {
	e, err := d.encoded[media]()
	if err != nil {
		http.Error(w, "encoding a discovery document: "+err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	content := e.plain
	switch {
	case media == typeJSON && pretty(r):
		var out bytes.Buffer
		if json.Indent(&out, content, "", "  ") == nil {
			content = out.Bytes()
		}
	case e.packed != nil:
		h.Add("Vary", "Accept-Encoding")
		if acceptsGzip(r.Header.Get("Accept-Encoding")) {
			h.Set("Content-Encoding", "gzip")
			content = e.packed
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(content)))
	w.WriteHeader(http.StatusOK)
	w.Write(content) // a client that went away is no concern of ours
}

func acceptsGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		coding, parameters, _ := strings.Cut(part, ";")
		if strings.TrimSpace(coding) == "gzip" && strings.ReplaceAll(parameters, " ", "") != "q=0" {
			return true
		}
	}
	return false
}

// pretty says whether JSON is indented: when asked for, else for browsers and
// HTTP tools of the command line.
func pretty(r *http.Request) bool {
	if asked := r.URL.Query().Get("pretty"); asked != "" {
		yes, _ := strconv.ParseBool(asked)
		return yes
	}
	agent := r.UserAgent()
	return strings.HasPrefix(agent, "curl") || strings.HasPrefix(agent, "Wget") || strings.HasPrefix(agent, "Mozilla/5.0")
}

func encodeJSON(m any) ([]byte, error) {
	b, err := json.Marshal(m)
	return append(b, '\n'), err
}

func encodeYAML(content []byte, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return yaml.JSONToYAML(content)
}

// encodeProtobuf wraps a message in the envelope of API protobuf.
func encodeProtobuf(m message) ([]byte, error) {
	raw, err := m.Marshal()
	if err != nil {
		return nil, err
	}
	apiVersion, kind := m.GetObjectKind().GroupVersionKind().ToAPIVersionAndKind()
	b, err := (&runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: apiVersion, Kind: kind}, Raw: raw}).Marshal()
	return append([]byte("k8s\x00"), b...), err
}

func etag(content func() ([]byte, error)) string {
	b, err := content()
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%q", fmt.Sprintf("%X", sha512.Sum512(b)))
}

func methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	writeStatus(w, r, http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed, "the server does not allow this method on the requested resource", true)
}

func notAcceptable(w http.ResponseWriter, r *http.Request, available ...string) {
	writeStatus(w, r, http.StatusNotAcceptable, metav1.StatusReasonNotAcceptable,
		"406: Not Acceptable\n\nAvailable representations: "+strings.Join(available, ", "), true)
}

// writeStatus answers with an error, in the client's format if it has one of the API's.
func writeStatus(w http.ResponseWriter, r *http.Request, code int32, reason metav1.StatusReason, text string, details bool) {
	status := &metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Message: text, Reason: reason, Code: code,
	}
	if details {
		status.Details = &metav1.StatusDetails{}
	}
	media := typeJSON
	for _, clause := range goautoneg.ParseAccept(r.Header.Get("Accept")) {
		if m := mediaType(clause); m != "" {
			media = m
			break
		}
	}
	content, err := encodeJSON(status)
	switch {
	case media == typeYAML:
		content, err = encodeYAML(content, err)
	case media == typeProtobuf:
		content, err = encodeProtobuf(status)
	}
	if err != nil {
		http.Error(w, text, int(code))
		return
	}
	w.Header().Set("Content-Type", media)
	w.WriteHeader(int(code))
	w.Write(content)
}

// VersionHandler answers /version: JSON, indented, whatever the client.
func VersionHandler(info version.Info) http.Handler {
	content, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		panic(err) // strings only
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			methodNotAllowed(w, r)
			return
		}
		clauses := goautoneg.ParseAccept(r.Header.Get("Accept"))
		isJSON := func(c goautoneg.Accept) bool { return mediaType(c) == typeJSON }
		if len(clauses) > 0 && !slices.ContainsFunc(clauses, isJSON) {
			notAcceptable(w, r, typeJSON)
			return
		}
		w.Header().Set("Content-Type", typeJSON)
		w.Write(content)
	})
}
