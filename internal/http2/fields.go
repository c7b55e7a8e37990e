package http2

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"
)

// fields is a header block of a client (RFC 9113, section 8.2), as it is decoded.
type fields struct {
	list                            []hpack.HeaderField // the regular ones
	method, scheme, authority, path string
	seen                            [4]bool // of the four above
	pseudo                          bool    // any
	room                            int     // how much more it may have
	bad                             string  // what is wrong with it
}

func (f *fields) reset(room int) {
	clear(f.list)
	*f = fields{list: f.list[:0], room: room}
}

// add is called for each field.
func (f *fields) add(h hpack.HeaderField) {
	if f.room -= int(h.Size()); f.room < 0 || f.bad != "" {
		return // the block is decoded to its end, since later ones depend on it
	}
	if !httpguts.ValidHeaderFieldValue(h.Value) {
		f.bad = "a value that no field may have"
		return
	}
	if strings.HasPrefix(h.Name, ":") {
		f.addPseudo(h)
		return
	}
	switch h.Name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		f.bad = "a field of connections"
		return
	case "te":
		if h.Value != "trailers" {
			f.bad = "TE is trailers or nothing"
			return
		}
	}
	if _, known := canonical[h.Name]; !known && (!httpguts.ValidHeaderFieldName(h.Name) || strings.ToLower(h.Name) != h.Name) {
		f.bad = "a name that no field may have"
		return
	}
	f.list = append(f.list, h)
}

func (f *fields) addPseudo(h hpack.HeaderField) {
	if len(f.list) > 0 {
		f.bad = "a pseudo-header after others"
		return
	}
	f.pseudo = true
	for i, p := range []struct {
		name string
		into *string
	}{{":method", &f.method}, {":scheme", &f.scheme}, {":authority", &f.authority}, {":path", &f.path}} {
		if p.name != h.Name {
			continue
		}
		if f.seen[i] {
			f.bad = "a pseudo-header twice"
		}
		f.seen[i] = true
		*p.into = h.Value
		return
	}
	f.bad = "an unknown pseudo-header"
}

func (f *fields) err(stream uint32) error {
	if f.bad != "" {
		return streamError{stream, protocolError, f.bad}
	}
	return nil
}

// request makes the request that the fields describe.
func (f *fields) request(s *stream) (*http.Request, error) {
	wrong := func(why string) error { return streamError{s.id, protocolError, why} }
	var u *url.URL
	connect := f.method == http.MethodConnect
	switch {
	case connect && (f.authority == "" || f.seen[1] || f.seen[3]):
		return nil, wrong("CONNECT has an authority and nothing else")
	case connect:
		u = &url.URL{Host: f.authority}
	case f.method == "" || f.path == "" || f.scheme != "https" && f.scheme != "http":
		return nil, wrong("a pseudo-header is missing")
	case !httpguts.ValidHeaderFieldName(f.method): // a method is a token, as a name is
		return nil, wrong("a method that is none")
	case f.path[0] != '/' && (f.path != "*" || f.method != http.MethodOptions):
		return nil, wrong("a path that is none")
	default:
		var err error
		if u, err = url.ParseRequestURI(f.path); err != nil {
			return nil, wrong(err.Error())
		}
	}
	header := make(http.Header, len(f.list))
	values := make([]string, len(f.list))
	for i, h := range f.list {
		key, ok := canonical[h.Name]
		if !ok {
			key = http.CanonicalHeaderKey(h.Name)
		}
		switch have := header[key]; {
		case have == nil:
			values[i] = h.Value
			header[key] = values[i : i+1 : i+1]
		case key == "Cookie": // it may come in pieces (section 8.2.3)
			have[0] += "; " + h.Value
		default:
			header[key] = append(have, h.Value)
		}
	}
	r := &http.Request{
		Method: f.method, URL: u, RequestURI: f.path, Host: f.authority, Header: header,
		Proto: "HTTP/2.0", ProtoMajor: 2, RemoteAddr: s.c.remote, TLS: s.c.tls, Body: http.NoBody,
	}
	if connect {
		r.RequestURI = f.authority
	}
	if r.Host == "" {
		r.Host = header.Get("Host")
	}
	if r.Host != "" && !httpguts.ValidHostHeader(r.Host) {
		return nil, wrong("a host that is none")
	}
	delete(header, "Host")
	delete(header, "Trailer")
	if lengths := header["Content-Length"]; lengths != nil {
		n, err := strconv.ParseUint(lengths[0], 10, 63)
		if err != nil || len(lengths) > 1 {
			return nil, wrong("a Content-Length that is none")
		}
		s.declared = int64(n)
	}
	if !s.received {
		r.Body = requestBody{s}
		r.ContentLength = s.declared
	}
	if header["Expect"] != nil && httpguts.HeaderValuesContainsToken(header["Expect"], "100-continue") {
		s.expects = true
		delete(header, "Expect")
	}
	return r, nil
}

// status begins an answer's block.
func status(e *hpack.Encoder, code int) {
	text := "200"
	if code != http.StatusOK {
		text = strconv.Itoa(code)
	}
	_ = e.WriteField(hpack.HeaderField{Name: ":status", Value: text}) // a buffer does not fail
}

// encode writes the fields of an answer that HTTP/2 may carry.
func encode(e *hpack.Encoder, header http.Header) {
	for key, values := range header {
		name, ok := lower[key]
		if !ok {
			name = strings.ToLower(key)
			if !httpguts.ValidHeaderFieldName(name) { // also those with http.TrailerPrefix
				continue
			}
		}
		switch name {
		case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
			continue
		}
		for _, value := range values {
			if httpguts.ValidHeaderFieldValue(value) {
				_ = e.WriteField(hpack.HeaderField{Name: name, Value: value, Sensitive: once[name]}) // a buffer does not fail
			}
		}
	}
}

// once are fields whose value hardly comes a second time: they would only push others out of the table.
var once = map[string]bool{"audit-id": true, "content-length": true, "etag": true}

// canonical has the names that requests and answers of an API server have, in net/http's form; lower has the way back.
var canonical, lower = func() (map[string]string, map[string]string) {
	c, l := map[string]string{}, map[string]string{}
	for _, key := range []string{
		"Accept", "Accept-Encoding", "Accept-Language", "Audit-Id", "Authorization", "Cache-Control", "Content-Encoding", "Content-Length", "Content-Type",
		"Cookie", "Date", "Etag", "Expect", "Expires", "Host", "If-Modified-Since", "If-None-Match", "Impersonate-Group", "Impersonate-User",
		"Kubectl-Command", "Kubectl-Session", "Last-Modified", "Location", "Origin", "Range", "Referer", "Retry-After", "Te", "Trailer", "User-Agent", "Vary", "Via",
		"Warning", "Www-Authenticate", "X-Content-Type-Options", "X-Forwarded-For", "X-Kubernetes-Pf-Flowschema-Uid", "X-Kubernetes-Pf-Prioritylevel-Uid",
		"X-Remote-Group", "X-Remote-User",
	} {
		name := strings.ToLower(key)
		c[name], l[key] = key, name
	}
	return c, l
}()

// date is the Date field, made once a second.
var date clock

type clock struct{ last atomic.Pointer[second] }

type second struct {
	unix int64
	text string
}

func (c *clock) now() string {
	now := time.Now()
	if s := c.last.Load(); s != nil && s.unix == now.Unix() {
		return s.text
	}
	s := &second{now.Unix(), now.UTC().Format(http.TimeFormat)}
	c.last.Store(s)
	return s.text
}
