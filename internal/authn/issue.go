package authn

import (
	"context"
	"crypto"
	"fmt"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	// minExpiration and maxExpiration bound spec.expirationSeconds of a TokenRequest.
	minExpiration = 10 * 60
	maxExpiration = 1 << 32
	// defaultExpiration is used when a TokenRequest gives none.
	defaultExpiration = 60 * 60
	// warnOnlyExpiration is what the ServiceAccount admission plug-in asks for. Old clients never re-read their
	// token, so such a request gets a token that lasts a year and is reported when it is used after this time.
	warnOnlyExpiration = 60*60 + 7
	extendedExpiration = 365 * 24 * time.Hour
)

// Issuer makes service account tokens.
type Issuer struct {
	URL       string   // `iss`, the first of --service-account-issuer
	Audiences []string // of tokens that are asked for without any: those of the API
	// Extend lengthens tokens that pods ask for in the usual way
	// (--service-account-extend-token-expiration).
	Extend bool
	// MaxExpiration bounds the time asked for (--service-account-max-token-expiration); 0: no bound.
	MaxExpiration time.Duration
	Now           func() time.Time

	signer jose.Signer
}

// NewIssuer returns an issuer that signs with the key, RSA or ECDSA.
func NewIssuer(url string, key crypto.Signer) (*Issuer, error) {
	public, err := NewPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("service account signing key: %w", err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: public.Algorithm, Key: jose.JSONWebKey{Key: key, KeyID: public.ID}}, nil)
	if err != nil {
		return nil, fmt.Errorf("service account signing key: %w", err)
	}
	return &Issuer{URL: url, signer: signer}, nil
}

// TokenSpec is what a token is to say.
type TokenSpec struct {
	Namespace, Name string // of the service account
	UID             types.UID
	Audiences       []string
	Lifetime        time.Duration
	WarnAfter       time.Duration // 0: never

	// What the token is bound to besides the service account. Node goes with Pod when the pod runs on it.
	Pod, Secret, Node *Bound
}

// Bound is an object that a token is bound to.
type Bound struct {
	Name string
	UID  types.UID // of a node that is only known by name: empty
}

// IssueToken signs a token. id is its `jti`.
func (i *Issuer) IssueToken(spec TokenSpec) (token, id string, err error) {
	now := time.Now()
	if i.Now != nil {
		now = i.Now()
	}
	id = uuid.NewString()
	c := claims{
		Claims: jwt.Claims{
			Issuer: i.URL, Subject: "system:serviceaccount:" + spec.Namespace + ":" + spec.Name, ID: id,
			Expiry: jwt.NewNumericDate(now.Add(spec.Lifetime)), NotBefore: jwt.NewNumericDate(now), IssuedAt: jwt.NewNumericDate(now),
		},
		Audience: spec.Audiences,
		Kubernetes: &kubernetesClaims{
			Namespace:      spec.Namespace,
			ServiceAccount: reference{spec.Name, string(spec.UID)},
			Pod:            spec.Pod.claim(), Secret: spec.Secret.claim(), Node: spec.Node.claim(),
		},
	}
	if spec.WarnAfter != 0 {
		c.Kubernetes.WarnAfter = jwt.NewNumericDate(now.Add(spec.WarnAfter))
	}
	token, err = jwt.Signed(i.signer).Claims(c).Serialize()
	if err != nil {
		return "", "", fmt.Errorf("sign token of service account %s/%s: %w", spec.Namespace, spec.Name, err)
	}
	return token, id, nil
}

func (b *Bound) claim() *reference {
	if b == nil {
		return nil
	}
	return &reference{b.Name, string(b.UID)}
}

// IssuedCredential is the audit annotation that names a token that was issued, by its jti.
const IssuedCredential = "authentication.kubernetes.io/issued-credential-id"

// TokenOptions are what [TokenJob] cannot know by itself. Both functions may be nil.
type TokenOptions struct {
	// Warn adds a Warning header to the answer of the request in ctx.
	Warn func(ctx context.Context, text string)
	// Annotate adds to the audit record of the request in ctx.
	Annotate func(ctx context.Context, key, value string)
}

// TokenJob is the subresource serviceaccounts/token: it answers a TokenRequest with a
// token (KEP-1205).
func TokenJob(issuer *Issuer, options TokenOptions) kind.Job {
	return func(ctx context.Context, call kind.JobCall) (object.Object, error) {
		request, ok := call.Body.(*authenticationv1.TokenRequest)
		if !ok {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("the body is a %T, not a TokenRequest", call.Body))
		}
		request = object.Copy(request)
		return issuer.answer(ctx, call, request, options)
	}
}

// DefaultTokenRequest fills what a client left out of a TokenRequest.
func DefaultTokenRequest(r *authenticationv1.TokenRequest) {
	if r.Spec.ExpirationSeconds == nil {
		seconds := int64(defaultExpiration)
		r.Spec.ExpirationSeconds = &seconds
	}
}

func (i *Issuer) answer(ctx context.Context, call kind.JobCall, request *authenticationv1.TokenRequest, options TokenOptions) (object.Object, error) {
	account, err := call.Objects.Get(ctx, serviceAccounts, call.Namespace, call.Name)
	if err != nil {
		return nil, err
	}
	DefaultTokenRequest(request)
	if len(request.Spec.Audiences) == 0 {
		request.Spec.Audiences = i.Audiences
	}
	if err := validateTokenRequest(request, call); err != nil {
		return nil, err
	}
	if uid := request.UID; uid != "" && uid != account.GetUID() {
		return nil, apierrors.NewConflict(serviceAccounts, call.Name,
			fmt.Errorf("the UID in the token request (%s) does not match the UID of the service account (%s)", uid, account.GetUID()))
	}
	request.Name, request.Namespace, request.UID = account.GetName(), account.GetNamespace(), account.GetUID()
	request.CreationTimestamp = metav1.NewTime(i.now().Truncate(time.Second))
	spec := TokenSpec{Namespace: account.GetNamespace(), Name: account.GetName(), UID: account.GetUID(), Audiences: request.Spec.Audiences}
	if err := bind(ctx, call, account.GetName(), request.Spec.BoundObjectRef, &spec); err != nil {
		return nil, err
	}
	if call.Check != nil {
		if err := call.Check(ctx); err != nil {
			return nil, err
		}
	}
	i.setLifetime(ctx, request, &spec, options)
	token, id, err := i.IssueToken(spec)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	request.Status = authenticationv1.TokenRequestStatus{
		Token:               token,
		ExpirationTimestamp: metav1.NewTime(i.now().Add(spec.Lifetime).Truncate(time.Second)),
	}
	if spec.WarnAfter != 0 {
		// The client is to come back as if the token ended when asked.
		request.Status.ExpirationTimestamp = metav1.NewTime(i.now().Add(spec.WarnAfter).Truncate(time.Second))
	}
	if options.Annotate != nil {
		options.Annotate(ctx, IssuedCredential, "JTI="+id)
	}
	return request, nil
}

func (i *Issuer) now() time.Time {
	if i.Now != nil {
		return i.Now()
	}
	return time.Now()
}

// setLifetime decides how long the token lasts, at most MaxExpiration.
func (i *Issuer) setLifetime(ctx context.Context, request *authenticationv1.TokenRequest, spec *TokenSpec, options TokenOptions) {
	bound := int64(i.MaxExpiration / time.Second)
	if bound > 0 && *request.Spec.ExpirationSeconds > bound {
		if options.Warn != nil {
			options.Warn(ctx, fmt.Sprintf("requested expiration of %d seconds shortened to %d seconds", *request.Spec.ExpirationSeconds, bound))
		}
		request.Spec.ExpirationSeconds = &bound
	}
	spec.Lifetime = time.Duration(*request.Spec.ExpirationSeconds) * time.Second
	if !i.Extend || spec.Pod == nil || *request.Spec.ExpirationSeconds != warnOnlyExpiration || !i.forAPI(request.Spec.Audiences) {
		return
	}
	spec.WarnAfter, spec.Lifetime = spec.Lifetime, extendedExpiration
	if i.MaxExpiration > 0 && spec.Lifetime > i.MaxExpiration {
		spec.Lifetime = i.MaxExpiration
	}
}

// forAPI reports whether all audiences are those of the API.
func (i *Issuer) forAPI(audiences []string) bool {
	return len(intersect(i.Audiences, audiences)) == len(audiences)
}

func validateTokenRequest(request *authenticationv1.TokenRequest, call kind.JobCall) error {
	var errs field.ErrorList
	path := field.NewPath("spec", "expirationSeconds")
	switch seconds := *request.Spec.ExpirationSeconds; {
	case seconds < minExpiration:
		errs = append(errs, field.Invalid(path, seconds, "may not specify a duration less than 10 minutes"))
	case seconds > maxExpiration:
		errs = append(errs, field.Invalid(path, seconds, "may not specify a duration larger than 2^32 seconds"))
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(schema.GroupKind{Group: authenticationv1.GroupName, Kind: "TokenRequest"}, "", errs)
	}
	if request.Name != "" && request.Name != call.Name {
		return apierrors.NewBadRequest("the name of the object (" + request.Name + ") does not match the name on the URL (" + call.Name + ")")
	}
	if request.Namespace != "" && request.Namespace != call.Namespace {
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	return nil
}

// bind reads what the token is to be bound to.
func bind(ctx context.Context, call kind.JobCall, account string, ref *authenticationv1.BoundObjectReference, spec *TokenSpec) error {
	if ref == nil {
		return nil
	}
	gvk := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)
	var resource schema.GroupResource
	namespace := call.Namespace
	switch gvk {
	case corev1.SchemeGroupVersion.WithKind("Pod"):
		resource = pods
	case corev1.SchemeGroupVersion.WithKind("Secret"):
		resource = secrets
	case corev1.SchemeGroupVersion.WithKind("Node"):
		resource, namespace = nodes, ""
	default:
		return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token to object of type %s", gvk.String()))
	}
	obj, err := call.Objects.Get(ctx, resource, namespace, ref.Name)
	if err != nil {
		return err
	}
	bound := &Bound{obj.GetName(), obj.GetUID()}
	switch o := obj.(type) {
	case *corev1.Pod:
		if o.Spec.ServiceAccountName != account {
			return apierrors.NewBadRequest(fmt.Sprintf("cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", account))
		}
		spec.Pod = bound
		if o.Spec.NodeName != "" {
			spec.Node = nodeOf(ctx, call.Objects, o.Spec.NodeName)
		}
	case *corev1.Secret:
		spec.Secret = bound
	default:
		spec.Node = bound
	}
	if ref.UID != "" && ref.UID != obj.GetUID() {
		return apierrors.NewConflict(resource, ref.Name,
			fmt.Errorf("the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID))
	}
	return nil
}

// nodeOf is the node of a pod; its uid is left out when the node is not there.
func nodeOf(ctx context.Context, objects kind.Reader, name string) *Bound {
	node, err := objects.Get(ctx, nodes, "", name)
	if err != nil {
		return &Bound{Name: name}
	}
	return &Bound{name, node.GetUID()}
}
