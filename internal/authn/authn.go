// Package authn finds out who a request comes from, issues service account
// tokens, and decides about impersonation.
//
// Promises: a request with credentials that are wrong is refused, never treated as
// anonymous; an identity is made once per connection or token and shared after that; a service
// account token stops working as soon as what it is bound to is gone.
//
// Does not know: what an identity may do (impersonation asks an authorizer), where objects are
// stored. Start reading at Authenticator.Authenticate.
package authn

import (
	"context"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"time"

	"github.com/timonel/timonel/internal/user"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
)

var (
	// ErrNoCredentials: the request carries nothing that identifies it, and anonymous
	// requests are off.
	ErrNoCredentials = errors.New("no credentials provided")
	// ErrInvalidToken: no method knows the bearer token.
	ErrInvalidToken = errors.New("invalid bearer token")
)

// CredentialID is the key of the extra that names the credential used, e.g.
// "JTI=<uuid>" or "X509SHA256=<hex>".
const CredentialID = "authentication.kubernetes.io/credential-id"

// Config is which methods there are. Absent ones are zero.
type Config struct {
	// Loopback is a secret that the server shares only with its own clients, as bearer
	// token: user system:apiserver, in group system:masters.
	Loopback string
	// ClientCA are the authorities of client certificates (--client-ca-file).
	ClientCA *x509.CertPool
	// RequestHeader trusts a front proxy (--requestheader-*).
	RequestHeader *RequestHeader
	// Tokens are the bearer token methods in the order in which they are asked.
	Tokens []TokenMethod
	// Audiences are what a token must be for to be used with this API
	// (--api-audiences; default the service account issuers).
	Audiences []string
	// Anonymous requests become system:anonymous; AnonymousPaths, if not empty, limits that to these paths
	// (AuthenticationConfiguration, anonymous.conditions).
	Anonymous      bool
	AnonymousPaths []string
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// TokenMethod knows one sort of bearer token.
type TokenMethod interface {
	// Token answers the identity of the token's bearer; nil without an error means that it is
	// not this method's sort of token. audiences are those of which at least one must fit; the
	// result's Audiences are those that did.
	Token(ctx context.Context, token string, audiences []string) (*Verified, error)
}

// Verified is a successful answer about a token.
type Verified struct {
	User      *user.Info // without the group system:authenticated
	Audiences []string
	// Expires is when the token itself ends; zero: it does not.
	Expires time.Time
	// Still reports, on each use of a remembered answer, whether it still holds. nil: it does
	// until it is forgotten.
	Still func(ctx context.Context) error
}

// Authenticator asks all methods, in kube-apiserver's order.
type Authenticator struct {
	config   Config
	clients  *certificates
	front    *frontProxy
	tokens   tokenCache
	loopback *user.Info
}

// New returns an authenticator with the given methods.
func New(config Config) *Authenticator {
	if config.Now == nil {
		config.Now = time.Now
	}
	a := &Authenticator{config: config, clients: newCertificates(config.ClientCA, config.Now), tokens: newTokenCache(config.Now)}
	if config.RequestHeader != nil {
		a.front = newFrontProxy(config.RequestHeader, config.Now)
	}
	if config.Loopback != "" {
		a.loopback = &user.Info{Name: user.APIServer, Groups: []string{user.SystemPrivileged, user.AllAuthenticated}}
	}
	return a
}

// SetClientCA replaces the authorities of client certificates (a reloaded file).
func (a *Authenticator) SetClientCA(pool *x509.CertPool) { a.clients.pool.Store(pool) }

// SetRequestHeaderCA replaces the authorities of front proxies.
func (a *Authenticator) SetRequestHeaderCA(pool *x509.CertPool) {
	if a.front != nil {
		a.front.certificates.pool.Store(pool)
	}
}

// Audiences are what tokens for this API are for.
func (a *Authenticator) Audiences() []string { return a.config.Audiences }

var anonymous = &user.Info{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}

// Authenticate returns who the request comes from. The credentials are taken off the
// request's headers when they were accepted. An error means 401; it tells what was wrong and is for logs, not
// for the client.
func (a *Authenticator) Authenticate(r *http.Request) (*user.Info, error) {
	token, source := bearer(r)
	if token != "" && a.isLoopback(token) {
		a.accepted(r, source)
		return a.loopback, nil
	}
	var failed []error
	if a.front != nil && r.TLS != nil {
		u, err := a.front.authenticate(r)
		if u != nil {
			a.accepted(r, source)
			return u, nil
		}
		failed = appendError(failed, err)
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		u, err := a.clients.identify(r.TLS.PeerCertificates)
		if u != nil {
			a.accepted(r, source)
			return u, nil
		}
		failed = appendError(failed, err)
	}
	if token != "" {
		v, err := a.token(r.Context(), token, a.config.Audiences)
		if v != nil {
			a.accepted(r, source)
			return v.User, nil
		}
		failed = appendError(failed, err)
	}
	if len(failed) > 0 {
		return nil, utilerrors.NewAggregate(failed)
	}
	if a.config.Anonymous && (len(a.config.AnonymousPaths) == 0 || slices.Contains(a.config.AnonymousPaths, r.URL.Path)) {
		return anonymous, nil
	}
	return nil, ErrNoCredentials
}

func appendError(failed []error, err error) []error {
	if err != nil {
		return append(failed, err)
	}
	return failed
}

// Review answers about a token as Authenticate would treat it, for the given audiences, or for those of this API
// if there are none. It is what TokenReview shows.
func (a *Authenticator) Review(ctx context.Context, token string, audiences []string) (*Verified, error) {
	if len(audiences) == 0 {
		audiences = a.config.Audiences
	}
	if a.isLoopback(token) {
		return &Verified{User: a.loopback, Audiences: intersect(a.config.Audiences, audiences)}, nil
	}
	v, err := a.token(ctx, token, audiences)
	if err != nil {
		// Parity: the loopback token is a method of its own, which did not know the token either.
		err = utilerrors.NewAggregate([]error{ErrInvalidToken, err})
	}
	return v, err
}

func (a *Authenticator) isLoopback(token string) bool {
	return a.loopback != nil && subtle.ConstantTimeCompare([]byte(token), []byte(a.config.Loopback)) == 1
}

// token asks the token methods, or the memory of what they said.
func (a *Authenticator) token(ctx context.Context, token string, audiences []string) (*Verified, error) {
	key := tokenKey(token, audiences)
	if v := a.tokens.get(key); v != nil {
		if v.Still == nil || v.Still(ctx) == nil {
			return v, nil
		}
		a.tokens.forget(key)
	}
	var failed []error
	for _, method := range a.config.Tokens {
		v, err := method.Token(ctx, token, audiences)
		if v == nil {
			failed = appendError(failed, err)
			continue
		}
		if v.Audiences == nil {
			// The method knows nothing of audiences: its tokens are for this API.
			if v.Audiences = intersect(a.config.Audiences, audiences); len(v.Audiences) == 0 && len(audiences) > 0 {
				continue
			}
		}
		v.User = authenticated(v.User)
		a.tokens.put(key, v)
		return v, nil
	}
	if len(failed) == 0 {
		return nil, ErrInvalidToken
	}
	return nil, utilerrors.NewAggregate(failed)
}

// authenticated returns the identity with the group of all who proved one.
func authenticated(u *user.Info) *user.Info {
	if u.InGroup(user.AllAuthenticated) || u.Name == user.Anonymous || u.InGroup(user.AllUnauthenticated) {
		return u
	}
	with := *u
	with.Groups = append(slices.Clone(u.Groups), user.AllAuthenticated)
	return &with
}

// intersect returns those of wanted that are in have, in the order of wanted.
func intersect(have, wanted []string) []string {
	var both []string
	for _, w := range wanted {
		if slices.Contains(have, w) {
			both = append(both, w)
		}
	}
	return both
}

// Where a bearer token was found.
type tokenSource uint8

const (
	inNothing tokenSource = iota
	inAuthorization
	inProtocol
)

// protocolPrefix begins the WebSocket subprotocol in which browsers, that cannot set headers,
// send a token (Kubernetes documentation, "WebSocket bearer token").
const protocolPrefix = "base64url.bearer.authorization.k8s.io."

const protocolHeader = "Sec-Websocket-Protocol"

// bearer returns the bearer token that the request carries.
func bearer(r *http.Request) (string, tokenSource) {
	if values := r.Header["Authorization"]; len(values) > 0 {
		if token := bearerToken(values[0]); token != "" {
			return token, inAuthorization
		}
	}
	if len(r.Header[protocolHeader]) > 0 && isWebSocket(r) {
		if token := protocolToken(r.Header[protocolHeader]); token != "" {
			return token, inProtocol
		}
	}
	return "", inNothing
}

// bearerToken returns the token of an Authorization header's value, or "" (RFC 6750, section 2.1).
func bearerToken(value string) string {
	scheme, rest, ok := strings.Cut(textproto.TrimString(value), " ")
	if !ok || !strings.EqualFold(scheme, "bearer") {
		return ""
	}
	token, _, _ := strings.Cut(rest, " ")
	return token
}

// accepted removes the credentials from the request: nothing behind this point may see or pass them on.
func (a *Authenticator) accepted(r *http.Request, source tokenSource) {
	delete(r.Header, "Authorization")
	if source == inProtocol {
		removeProtocolToken(r.Header)
	}
	if a.front != nil {
		a.front.strip(r.Header)
	}
}

// audienceError is what is said about a token for someone else.
func audienceError(have, wanted []string) error {
	return fmt.Errorf("token audiences %q is invalid for the target audiences %q", have, wanted)
}
