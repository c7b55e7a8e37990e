package serve

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
)

// How long answers of the API server are believed, and how many.
const (
	tokenLifetime  = 2 * time.Minute
	allowLifetime  = 5 * time.Minute
	denyLifetime   = 30 * time.Second
	maxAnswers     = 1024
	maxToken       = 16 << 10 // bytes; longer ones are nobody's
	groupEveryone  = "system:authenticated"
	reviewDeadline = 10 * time.Second
)

// guard decides who a client is and what it may do.
type guard struct {
	node     string
	config   Config
	log      *slog.Logger
	now      func() time.Time
	tokens   *memory[[sha256.Size]byte, *user]
	accesses *memory[string, bool]
}

// user is who the client is, as the API server names it.
type user struct {
	name, uid string
	groups    []string
	extra     map[string]authorizationv1.ExtraValue
}

func newGuard(config Config) *guard {
	return &guard{
		node: config.NodeName, config: config, log: config.Log, now: time.Now,
		tokens:   newMemory[[sha256.Size]byte, *user](),
		accesses: newMemory[string, bool](),
	}
}

// allow lets a request pass when its client has access to one of the
// subresources of this node.
func (g *guard) allow(subresources []string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := g.identify(r)
		if err != nil {
			g.log.Warn("cannot tell who asks", "from", r.RemoteAddr, "err", err)
		}
		if who == nil {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		verb := verbs[r.Method]
		for _, subresource := range subresources {
			allowed, err := g.may(r.Context(), who, verb, subresource)
			if err != nil {
				g.log.Warn("cannot tell what a client may do", "user", who.name, "err", err)
				http.Error(w, fmt.Sprintf("Authorization error (user=%s, verb=%s, resource=nodes, subresource(s)=%v)", who.name, verb, subresources), http.StatusInternalServerError)
				return
			}
			if allowed {
				next.ServeHTTP(w, r)
				return
			}
		}
		http.Error(w, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource(s)=%v)", who.name, verb, subresources), http.StatusForbidden)
	})
}

// verbs maps methods to the verbs that access is granted for.
var verbs = map[string]string{
	http.MethodGet: "get", http.MethodHead: "get", http.MethodPost: "create",
	http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete",
}

// identify returns nil when the client proves nothing.
func (g *guard) identify(r *http.Request) (*user, error) {
	if who, err := g.byCertificate(r); who != nil || err != nil && r.Header.Get("Authorization") == "" {
		return who, err
	}
	kind, token, _ := strings.Cut(strings.TrimSpace(r.Header.Get("Authorization")), " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(kind, "Bearer") || token == "" || len(token) > maxToken {
		return nil, nil
	}
	return g.byToken(r.Context(), token)
}

func (g *guard) byCertificate(r *http.Request) (*user, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || g.config.ClientCA == nil {
		return nil, nil
	}
	roots := g.config.ClientCA()
	if roots == nil {
		return nil, nil
	}
	chain := r.TLS.PeerCertificates
	options := x509.VerifyOptions{
		Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: g.now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range chain[1:] {
		options.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(options); err != nil {
		return nil, fmt.Errorf("verify the client certificate of %q: %w", chain[0].Subject.CommonName, err)
	}
	subject := chain[0].Subject
	if subject.CommonName == "" {
		return nil, nil
	}
	return &user{name: subject.CommonName, groups: append(slices.Clone(subject.Organization), groupEveryone)}, nil
}

func (g *guard) byToken(ctx context.Context, token string) (*user, error) {
	if g.config.ReviewToken == nil {
		return nil, nil
	}
	return g.tokens.get(g.now(), sha256.Sum256([]byte(token)), func() (*user, time.Duration, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reviewDeadline)
		defer cancel()
		review, err := g.config.ReviewToken(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}})
		if err != nil {
			return nil, 0, fmt.Errorf("ask the API server whose token it is: %w", err)
		}
		if !review.Status.Authenticated {
			return nil, tokenLifetime, nil
		}
		who := &user{name: review.Status.User.Username, uid: review.Status.User.UID, groups: review.Status.User.Groups}
		for key, value := range review.Status.User.Extra {
			if who.extra == nil {
				who.extra = map[string]authorizationv1.ExtraValue{}
			}
			who.extra[key] = authorizationv1.ExtraValue(value)
		}
		return who, tokenLifetime, nil
	})
}

func (g *guard) may(ctx context.Context, who *user, verb, subresource string) (bool, error) {
	spec := authorizationv1.SubjectAccessReviewSpec{
		User: who.name, UID: who.uid, Groups: who.groups, Extra: who.extra,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: verb, Version: "v1", Resource: "nodes", Subresource: subresource, Name: g.node,
		},
	}
	return g.accesses.get(g.now(), spec.String(), func() (bool, time.Duration, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reviewDeadline)
		defer cancel()
		review, err := g.config.ReviewAccess(ctx, &authorizationv1.SubjectAccessReview{Spec: spec})
		if err != nil {
			return false, 0, fmt.Errorf("ask the API server what %s may do: %w", who.name, err)
		}
		if review.Status.Allowed {
			return true, allowLifetime, nil
		}
		return false, denyLifetime, nil
	})
}

// memory keeps answers for a while, at most maxAnswers of them. Clients that ask
// the same at once share one question.
type memory[K comparable, V any] struct {
	mu struct {
		sync.Mutex
		answers map[K]*remembered[V]
	}
}

type remembered[V any] struct {
	ready chan struct{} // closed when value is known
	value V
	err   error
	until time.Time
}

func newMemory[K comparable, V any]() *memory[K, V] {
	m := &memory[K, V]{}
	m.mu.answers = map[K]*remembered[V]{}
	return m
}

// get returns what ask answered before, or asks. Errors are not remembered.
func (m *memory[K, V]) get(now time.Time, key K, ask func() (V, time.Duration, error)) (V, error) {
	m.mu.Lock()
	if known, ok := m.mu.answers[key]; ok {
		select {
		case <-known.ready:
			if now.Before(known.until) {
				m.mu.Unlock()
				return known.value, nil
			}
		default: // someone is asking
			m.mu.Unlock()
			<-known.ready
			return known.value, known.err
		}
	}
	answer := &remembered[V]{ready: make(chan struct{})}
	if len(m.mu.answers) >= maxAnswers {
		m.forget(now)
	}
	m.mu.answers[key] = answer
	m.mu.Unlock()

	value, lifetime, err := ask()
	m.mu.Lock()
	answer.value, answer.err, answer.until = value, err, now.Add(lifetime)
	if err != nil && m.mu.answers[key] == answer {
		delete(m.mu.answers, key)
	}
	m.mu.Unlock()
	close(answer.ready)
	return value, err
}

// forget makes room: what is out of date, and when that is not enough, half of
// the rest, whichever the map's order brings.
func (m *memory[K, V]) forget(now time.Time) {
	for key, answer := range m.mu.answers {
		select {
		case <-answer.ready:
			if !now.Before(answer.until) {
				delete(m.mu.answers, key)
			}
		default:
		}
	}
	for key := range m.mu.answers {
		if len(m.mu.answers) <= maxAnswers/2 {
			return
		}
		delete(m.mu.answers, key)
	}
}
