package authn

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/timonel/timonel/internal/user"
)

// RequestHeader says which front proxy may name users in headers
// (--requestheader-*; docs: "Authenticating Proxy").
type RequestHeader struct {
	CA            *x509.CertPool
	AllowedNames  []string // common names; none: any certificate of the authority
	UserHeaders   []string // the first that is not empty names the user, e.g. "X-Remote-User"
	UIDHeaders    []string
	GroupHeaders  []string // e.g. "X-Remote-Group"
	ExtraPrefixes []string // e.g. "X-Remote-Extra-"
}

type frontProxy struct {
	RequestHeader
	certificates *certificates
}

func newFrontProxy(config *RequestHeader, now func() time.Time) *frontProxy {
	f := &frontProxy{RequestHeader: *config, certificates: newCertificates(config.CA, now)}
	canonical := func(names []string) []string {
		out := make([]string, len(names))
		for i, name := range names {
			out[i] = http.CanonicalHeaderKey(strings.TrimSpace(name))
		}
		return out
	}
	f.UserHeaders, f.UIDHeaders = canonical(config.UserHeaders), canonical(config.UIDHeaders)
	f.GroupHeaders, f.ExtraPrefixes = canonical(config.GroupHeaders), canonical(config.ExtraPrefixes)
	return f
}

// authenticate returns the user whom a front proxy vouches for; nil without an error if
// the peer is no front proxy or names nobody.
func (f *frontProxy) authenticate(r *http.Request) (*user.Info, error) {
	userName := f.first(r.Header, f.UserHeaders)
	if userName == "" || len(r.TLS.PeerCertificates) == 0 {
		return nil, nil
	}
	id, err := f.certificates.verify(r.TLS.PeerCertificates)
	if errors.As(err, &x509.UnknownAuthorityError{}) {
		return nil, nil // a client like others, that may not name users
	}
	if err != nil {
		return nil, err
	}
	if id == nil {
		return nil, nil
	}
	name := id.leaf.Subject.CommonName
	if len(f.AllowedNames) > 0 && !slices.Contains(f.AllowedNames, name) {
		return nil, fmt.Errorf("x509: subject with cn=%s is not in the allowed list", name)
	}
	u := &user.Info{Name: userName, UID: f.first(r.Header, f.UIDHeaders)}
	for _, header := range f.GroupHeaders {
		u.Groups = append(u.Groups, r.Header[header]...)
	}
	for _, prefix := range f.ExtraPrefixes {
		for header, values := range r.Header {
			key, ok := cutPrefixFold(header, prefix)
			if !ok {
				continue
			}
			if u.Extra == nil {
				u.Extra = map[string][]string{}
			}
			key = extraKey(key)
			u.Extra[key] = append(u.Extra[key], values...)
		}
	}
	return authenticated(u), nil
}

func (f *frontProxy) first(h http.Header, names []string) string {
	for _, name := range names {
		if values := h[name]; len(values) > 0 && values[0] != "" {
			return values[0]
		}
	}
	return ""
}

// strip removes the headers in which a front proxy names users.
func (f *frontProxy) strip(h http.Header) {
	for _, names := range [][]string{f.UserHeaders, f.UIDHeaders, f.GroupHeaders} {
		for _, name := range names {
			delete(h, name)
		}
	}
	for _, prefix := range f.ExtraPrefixes {
		for header := range h {
			if _, ok := cutPrefixFold(header, prefix); ok {
				delete(h, header)
			}
		}
	}
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// extraKey is the key of an extra from the rest of its header's name: lower-case, percent-decoded if it can be.
func extraKey(name string) string {
	name = strings.ToLower(name)
	if decoded, err := url.PathUnescape(name); err == nil {
		return decoded
	}
	return name
}
