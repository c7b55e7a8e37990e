package authn

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/user"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
)

const (
	// deletedGrace is how long tokens of an object that is being deleted still work.
	deletedGrace = 60 * time.Second
	// clockLeeway is by how much clocks may differ.
	clockLeeway = time.Minute
	// maxTokenBytes bounds what is looked at as a token.
	maxTokenBytes = 64 << 10
)

var (
	serviceAccounts = schema.GroupResource{Resource: "serviceaccounts"}
	pods            = schema.GroupResource{Resource: "pods"}
	secrets         = schema.GroupResource{Resource: "secrets"}
	nodes           = schema.GroupResource{Resource: "nodes"}
)

// ServiceAccounts tells whether the objects that tokens are bound to are there. It
// is asked on each use of a token, so it should not decode objects; it must not be behind the moment of the
// question by more than the time an issued token takes to come back.
type ServiceAccounts interface {
	// Bound answers the uid and deletion time (zero: not being deleted) of a service account,
	// pod, secret or node; a NotFound API error if there is none.
	Bound(ctx context.Context, resource schema.GroupResource, namespace, name string) (uid string, deleted time.Time, err error)
}

// FromReader looks bound objects up in a reader; each use of a token decodes an
// object or two.
func FromReader(r kind.Reader) ServiceAccounts { return readerAccounts{r} }

type readerAccounts struct{ kind.Reader }

func (r readerAccounts) Bound(ctx context.Context, resource schema.GroupResource, namespace, name string) (string, time.Time, error) {
	obj, err := r.Get(ctx, resource, namespace, name)
	if err != nil {
		return "", time.Time{}, err
	}
	var deleted time.Time
	if t := obj.GetDeletionTimestamp(); t != nil {
		deleted = t.Time
	}
	return string(obj.GetUID()), deleted, nil
}

// ServiceAccountTokens verifies the tokens that [Issuer] makes.
type ServiceAccountTokens struct {
	Issuers []string // accepted in `iss` (--service-account-issuer)
	Keys    []PublicKey
	// Accounts answers whether what a token is bound to is still there; nil: not looked up
	// (--service-account-lookup=false).
	Accounts ServiceAccounts
	Now      func() time.Time
}

// Token implements TokenMethod.
func (s *ServiceAccountTokens) Token(ctx context.Context, token string, audiences []string) (*Verified, error) {
	if !slices.Contains(s.Issuers, issuerOf(token)) {
		return nil, nil
	}
	var c claims
	if err := verify(token, s.Keys, &c); err != nil {
		return nil, err
	}
	if err := s.inTime(&c.Claims); err != nil {
		return nil, err
	}
	if c.Kubernetes == nil || c.Kubernetes.Namespace == "" || c.Kubernetes.ServiceAccount.Name == "" {
		return nil, errors.New("service account token claims could not be validated due to unexpected private claim")
	}
	if namespace, name, ok := subjectOf(c.Subject); !ok || namespace != c.Kubernetes.Namespace || name != c.Kubernetes.ServiceAccount.Name {
		return nil, errors.New("service account token subject does not match its claims")
	}
	have := []string(c.Audience)
	if len(have) == 0 {
		// Tokens of old servers carry no audience: they are for the API.
		have = s.Issuers
	}
	fit := intersect(have, audiences)
	if len(fit) == 0 && len(audiences) > 0 {
		return nil, audienceError(have, audiences)
	}
	v := &Verified{User: c.user(), Audiences: fit}
	if c.Expiry != nil {
		v.Expires = c.Expiry.Time()
	}
	if s.Accounts != nil {
		k := c.Kubernetes
		v.Still = func(ctx context.Context) error { return s.bound(ctx, k) }
		if err := v.Still(ctx); err != nil {
			return nil, err
		}
	}
	if v.Audiences == nil {
		v.Audiences = []string{}
	}
	return v, nil
}

func (s *ServiceAccountTokens) inTime(c *jwt.Claims) error {
	err := c.ValidateWithLeeway(jwt.Expected{Time: s.now()}, clockLeeway)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jwt.ErrNotValidYet):
		return errors.New("service account token is not valid yet")
	case errors.Is(err, jwt.ErrExpired):
		return errors.New("service account token has expired")
	case errors.Is(err, jwt.ErrIssuedInTheFuture):
		return errors.New("service account token is issued in the future")
	}
	return errors.New("service account token claims could not be validated")
}

func (s *ServiceAccountTokens) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// bound reports whether all that a token is bound to is there and is the same.
func (s *ServiceAccountTokens) bound(ctx context.Context, k *kubernetesClaims) error {
	if k.Secret != nil {
		if err := s.there(ctx, secrets, k.Namespace, k.Secret); err != nil {
			return err
		}
	}
	if err := s.there(ctx, serviceAccounts, k.Namespace, &k.ServiceAccount); err != nil {
		return err
	}
	switch {
	case k.Pod != nil:
		return s.there(ctx, pods, k.Namespace, k.Pod)
	case k.Node != nil:
		return s.there(ctx, nodes, "", k.Node)
	}
	return nil
}

func (s *ServiceAccountTokens) there(ctx context.Context, resource schema.GroupResource, namespace string, ref *reference) error {
	uid, deleted, err := s.Accounts.Bound(ctx, resource, namespace, ref.Name)
	switch {
	case apierrors.IsNotFound(err):
		return errors.New("service account token has been invalidated")
	case err != nil:
		return fmt.Errorf("look up %s %s of a service account token: %w", resource.Resource, ref.Name, err)
	case !deleted.IsZero() && deleted.Add(deletedGrace).Before(s.now()):
		return errors.New("service account token has been invalidated")
	case uid != ref.UID:
		if resource == serviceAccounts {
			return fmt.Errorf("service account UID (%s) does not match claim (%s)", uid, ref.UID)
		}
		return fmt.Errorf("%s UID (%s) does not match service account %s ref claim (%s)", strings.TrimSuffix(resource.Resource, "s"), uid, strings.TrimSuffix(resource.Resource, "s"), ref.UID)
	}
	return nil
}

// issuerOf returns the issuer that a token claims, without verifying anything; "" if it is no JWT.
func issuerOf(token string) string {
	if len(token) > maxTokenBytes {
		return ""
	}
	_, rest, ok := strings.Cut(token, ".")
	if !ok {
		return ""
	}
	payload, signature, ok := strings.Cut(rest, ".")
	if !ok || strings.Contains(signature, ".") {
		return ""
	}
	data, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return ""
	}
	var c struct {
		Issuer string `json:"iss"`
	}
	if json.Unmarshal(data, &c) != nil {
		return ""
	}
	return c.Issuer
}

// algorithms are those that service account tokens may be signed with.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512}

// verify checks a token's signature against the keys and reads its claims. The key that the token names is the
// only one tried if there is such a key.
func verify(token string, keys []PublicKey, into any) error {
	parsed, err := jwt.ParseSigned(token, algorithms)
	if err != nil {
		return err
	}
	if len(parsed.Headers) != 1 {
		return errors.New("a service account token must have one signature")
	}
	candidates := keys
	if id := parsed.Headers[0].KeyID; id != "" {
		if i := slices.IndexFunc(keys, func(k PublicKey) bool { return k.ID == id }); i >= 0 {
			candidates = keys[i : i+1]
		}
	}
	var failed []error
	for _, key := range candidates {
		if err := parsed.Claims(key.Key, into); err != nil {
			failed = append(failed, err)
			continue
		}
		return nil
	}
	if len(failed) == 0 {
		return errors.New("no keys found")
	}
	return utilerrors.NewAggregate(failed)
}

// LegacyTokens verifies tokens kept in Secrets of type
// kubernetes.io/service-account-token.
type LegacyTokens struct {
	Keys    []PublicKey
	Objects kind.Reader
	// Used is told which secret's token was used, so that the day can be written to it
	// (label kubernetes.io/legacy-token-last-used). It may be nil and must not block.
	Used func(secret *corev1.Secret)
}

// Labels of Secrets that hold a token.
const (
	LegacyTokenLastUsed = "kubernetes.io/legacy-token-last-used"
	legacyTokenInvalid  = "kubernetes.io/legacy-token-invalid-since"
)

// Token implements TokenMethod.
func (l *LegacyTokens) Token(ctx context.Context, token string, _ []string) (*Verified, error) {
	if issuerOf(token) != legacyIssuer {
		return nil, nil
	}
	var c legacyClaims
	if err := verify(token, l.Keys, &c); err != nil {
		return nil, err
	}
	if c.Namespace == "" || c.SecretName == "" || c.Name == "" || c.UID == "" {
		return nil, errors.New("service account token claims are incomplete")
	}
	if namespace, name, ok := subjectOf(c.Subject); !ok || namespace != c.Namespace || name != c.Name {
		return nil, errors.New("service account token subject does not match its claims")
	}
	still := func(ctx context.Context) error { return l.still(ctx, token, &c) }
	if err := still(ctx); err != nil {
		return nil, err
	}
	return &Verified{User: legacyUser(&c), Still: still}, nil
}

func legacyUser(c *legacyClaims) *user.Info { return serviceAccount(c.Namespace, c.Name, c.UID) }

func (l *LegacyTokens) still(ctx context.Context, token string, c *legacyClaims) error {
	if l.Objects == nil {
		return nil
	}
	obj, err := l.Objects.Get(ctx, secrets, c.Namespace, c.SecretName)
	if err != nil {
		return errors.New("service account token has been invalidated")
	}
	secret, ok := obj.(*corev1.Secret)
	if !ok || secret.DeletionTimestamp != nil || subtle.ConstantTimeCompare(secret.Data[corev1.ServiceAccountTokenKey], []byte(token)) != 1 {
		return errors.New("service account token has been invalidated")
	}
	if since, ok := secret.Labels[legacyTokenInvalid]; ok {
		return fmt.Errorf("the token in secret %s/%s for service account %s/%s has been marked invalid on %s. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '%s' label from the secret to temporarily allow use of this token", c.Namespace, c.SecretName, c.Namespace, c.Name, since, legacyTokenInvalid)
	}
	account, err := l.Objects.Get(ctx, serviceAccounts, c.Namespace, c.Name)
	if err != nil {
		return errors.New("service account token has been invalidated")
	}
	if account.GetDeletionTimestamp() != nil {
		return errors.New("service account token has been invalidated")
	}
	if string(account.GetUID()) != c.UID {
		return fmt.Errorf("service account UID (%s) does not match claim (%s)", account.GetUID(), c.UID)
	}
	if l.Used != nil {
		l.Used(secret)
	}
	return nil
}
