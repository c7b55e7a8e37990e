package certificates

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// Bounds on pod certificates (KEP-4317).
const (
	defaultPodCertificateSeconds = 86400
	minPodCertificateSeconds     = 3600
	maxPodCertificateSeconds     = 91 * 86400
	maxKubernetesSeconds         = 86400 // of signers under kubernetes.io
	maxUID                       = 128
	maxStubRequest               = 10 << 10
	maxCertificateChain          = 64 << 10
)

// PodCertificateRequest asks a signer for the certificate of a pod, on behalf of the node that runs it.
func podCertificateRequest() *kind.Definition {
	doc := certificatesv1.PodCertificateRequestSpec{}.SwaggerDoc()
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "PodCertificateRequest", Plural: "podcertificaterequests",
		Scope: kind.Namespaced, Verbs: kind.Standard, MustMatch: true,
		Stored: kind.Stored{Version: "v1beta1"}, // which has all the fields of v1
		New:    kind.Of[certificatesv1.PodCertificateRequest](),
		Default: kind.Default(func(r *certificatesv1.PodCertificateRequest) {
			if r.Spec.MaxExpirationSeconds == nil {
				r.Spec.MaxExpirationSeconds = ptr.To[int32](defaultPodCertificateSeconds)
			}
		}),
		PrepareCreate: kind.Prepare(func(r *certificatesv1.PodCertificateRequest) { r.Status = certificatesv1.PodCertificateRequestStatus{} }),
		PrepareUpdate: kind.PrepareUpdate(func(r, old *certificatesv1.PodCertificateRequest) { r.Status = old.Status }),
		Validate:      kind.Validate(validatePodRequest),
		ValidateUpdate: kind.ValidateUpdate(func(r, old *certificatesv1.PodCertificateRequest) field.ErrorList {
			if object.Equal(&r.Spec, &old.Spec) {
				return nil
			}
			return field.ErrorList{field.Invalid(field.NewPath("spec"), check.GoNames(r.Spec), check.TextImmutable)}
		}),
		Fields:        []kind.Field{{Label: "spec.signerName"}, {Label: "spec.podName"}, {Label: "spec.nodeName"}},
		FieldsUnknown: labelNotSupported,
		Columns: kind.Columns{
			{Name: "PodName", Description: doc["podName"], Of: kind.Cell(func(r *certificatesv1.PodCertificateRequest) any { return r.Spec.PodName })},
			{Name: "ServiceAccountName", Description: doc["serviceAccountName"], Of: kind.Cell(func(r *certificatesv1.PodCertificateRequest) any { return r.Spec.ServiceAccountName })},
			{Name: "NodeName", Description: doc["nodeName"], Of: kind.Cell(func(r *certificatesv1.PodCertificateRequest) any { return string(r.Spec.NodeName) })},
			{Name: "SignerName", Description: doc["signerName"], Of: kind.Cell(func(r *certificatesv1.PodCertificateRequest) any { return r.Spec.SignerName })},
			{Name: "State", Description: "Is the request Pending, Issued, Denied, or Failed?", Of: kind.Cell(func(r *certificatesv1.PodCertificateRequest) any {
				return show.Or(decision(&r.Status), "Pending")
			})},
			{Name: "UnverifiedUserAnnotations", Description: doc["unverifiedUserAnnotations"], Of: kind.Cell(func(r *certificatesv1.PodCertificateRequest) any {
				return show.Labels(r.Spec.UnverifiedUserAnnotations)
			})},
		},
		ColumnFields: []string{
			"spec.podName", "spec.serviceAccountName", "spec.nodeName", "spec.signerName", "spec.unverifiedUserAnnotations",
			"status.conditions.type",
		},
		Subresources: map[string]*kind.Subresource{
			"status": kind.StatusOnly(func(r, old *certificatesv1.PodCertificateRequest) { r.Spec = old.Spec }, validatePodRequestStatus),
		},
	}
}

// decision is the condition that ends a request; "" while none has.
func decision(s *certificatesv1.PodCertificateRequestStatus) string {
	for _, c := range s.Conditions {
		switch c.Type {
		case certificatesv1.PodCertificateRequestConditionTypeIssued, certificatesv1.PodCertificateRequestConditionTypeDenied, certificatesv1.PodCertificateRequestConditionTypeFailed:
			return c.Type
		}
	}
	return ""
}

func validatePodRequest(r *certificatesv1.PodCertificateRequest) field.ErrorList {
	s, spec := &r.Spec, field.NewPath("spec")
	errs := checkSigner(s.SignerName, spec.Child("signerName"))
	name := func(value, name string) {
		errs = append(errs, check.Each(spec.Child(name), value, check.Subdomain(value))...)
	}
	uid := func(value, name string) {
		switch {
		case value == "":
			errs = append(errs, field.Invalid(spec.Child(name), value, "must not be empty"))
		case len(value) > maxUID:
			errs = append(errs, field.TooLong(spec.Child(name), value, maxUID))
		}
	}
	name(s.PodName, "podName")
	uid(string(s.PodUID), "podUID")
	name(s.ServiceAccountName, "serviceAccountName")
	uid(string(s.ServiceAccountUID), "serviceAccountUID")
	name(string(s.NodeName), "nodeName")
	uid(string(s.NodeUID), "nodeUID")
	errs = append(errs, checkLifetime(s, spec.Child("maxExpirationSeconds"))...)
	errs = append(errs, checkStub(s.StubPKCS10Request, spec)...)
	annotations := spec.Child("unverifiedUserAnnotations")
	errs = append(errs, apivalidation.ValidateAnnotations(s.UnverifiedUserAnnotations, annotations)...)
	for _, key := range check.Sorted(s.UnverifiedUserAnnotations) {
		if !strings.Contains(key, "/") {
			errs = append(errs, field.Invalid(annotations, key, "must be a domain-prefixed key (such as \"acme.io/foo\")"))
		}
	}
	return errs
}

func checkLifetime(s *certificatesv1.PodCertificateRequestSpec, path *field.Path) field.ErrorList {
	if s.MaxExpirationSeconds == nil {
		return field.ErrorList{field.Required(path, "must be set")}
	}
	limit := int32(maxPodCertificateSeconds)
	if strings.HasPrefix(s.SignerName, "kubernetes.io/") {
		limit = maxKubernetesSeconds
	}
	if n := *s.MaxExpirationSeconds; n < minPodCertificateSeconds || n > limit {
		return field.ErrorList{field.Invalid(path, n, fmt.Sprintf("must be in the range [%d, %d]", minPodCertificateSeconds, limit))}
	}
	return nil
}

// checkStub wants a request that proves to have the private key, of a kind of key that is good enough.
func checkStub(der []byte, spec *field.Path) field.ErrorList {
	path := spec.Child("stubPKCS10Request")
	say := func(text string) field.ErrorList { return field.ErrorList{field.Invalid(path, der, text)} }
	switch {
	case len(der) == 0:
		return field.ErrorList{field.Invalid(spec, field.OmitValueType{}, "exactly one of (stubPKCS10Request) or (pkixPublicKey, proofOfPossession) must be set")}
	case len(der) > maxStubRequest:
		return field.ErrorList{field.TooLong(path, "", maxStubRequest)}
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return say("must be a valid PKCS#10 certificate signing request: " + err.Error())
	}
	if err := request.CheckSignature(); err != nil {
		return say("signature could not be verified: " + err.Error())
	}
	switch key := request.PublicKey.(type) {
	case ed25519.PublicKey:
		return nil
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() || key.Curve == elliptic.P384() || key.Curve == elliptic.P521() {
			return nil
		}
		return say("elliptic public keys must use curve P256, P384 or P521")
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits == 3072 || bits == 4096 {
			return nil
		}
		return say("RSA keys must have modulus size 3072 or 4096")
	}
	return say("unknown public key type; supported types are Ed25519, ECDSA, and RSA")
}

// validatePodRequestStatus wants that a request is decided once, and that an issued certificate is what was asked for.
func validatePodRequestStatus(r, old *certificatesv1.PodCertificateRequest) field.ErrorList {
	s, status := &r.Status, field.NewPath("status")
	conditions := status.Child("conditions")
	errs := metavalidation.ValidateConditions(s.Conditions, conditions)
	decided := 0
	for i, c := range s.Conditions {
		switch c.Type {
		case certificatesv1.PodCertificateRequestConditionTypeIssued, certificatesv1.PodCertificateRequestConditionTypeDenied, certificatesv1.PodCertificateRequestConditionTypeFailed:
			decided++
			errs = append(errs, check.OneOf(c.Status, conditions.Index(i).Child("status"), metav1.ConditionTrue)...)
		default:
			errs = append(errs, field.NotSupported(conditions.Index(i).Child("type"), c.Type, []string{
				certificatesv1.PodCertificateRequestConditionTypeIssued, certificatesv1.PodCertificateRequestConditionTypeDenied, certificatesv1.PodCertificateRequestConditionTypeFailed,
			}))
		}
	}
	if decided > 1 {
		errs = append(errs, field.Invalid(conditions, s.Conditions, `There may be at most one condition with type "Issued", "Denied", or "Failed"`))
	}
	if decision(&old.Status) != "" {
		if !equality.Semantic.DeepEqual(*s, old.Status) {
			errs = append(errs, field.Invalid(status, field.OmitValueType{}, "immutable after the request was issued, denied or failed"))
		}
		return errs
	}
	if decision(s) != certificatesv1.PodCertificateRequestConditionTypeIssued {
		for name, set := range map[string]bool{"certificateChain": s.CertificateChain != "", "notBefore": s.NotBefore != nil, "beginRefreshAt": s.BeginRefreshAt != nil, "notAfter": s.NotAfter != nil} {
			if set {
				errs = append(errs, field.Invalid(status.Child(name), field.OmitValueType{}, `can only be set when the "Issued" condition is`))
			}
		}
		return errs
	}
	return append(errs, checkIssued(r, status)...)
}

func checkIssued(r *certificatesv1.PodCertificateRequest, status *field.Path) field.ErrorList {
	s := &r.Status
	chain := status.Child("certificateChain")
	say := func(path *field.Path, value any, text string) field.ErrorList {
		return field.ErrorList{field.Invalid(path, value, text)}
	}
	if len(s.CertificateChain) > maxCertificateChain {
		return field.ErrorList{field.TooLong(chain, "", maxCertificateChain)}
	}
	list, err := certificatesOf([]byte(s.CertificateChain))
	switch {
	case err != nil:
		return say(chain, hidden, err.Error())
	case len(list) == 0:
		return say(chain, hidden, "must contain at least one CERTIFICATE PEM block")
	}
	leaf := list[0]
	if request, err := x509.ParseCertificateRequest(r.Spec.StubPKCS10Request); err == nil {
		if key, ok := request.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); ok && !key.Equal(leaf.PublicKey) {
			return say(chain, hidden, "leaf certificate was not issued to the requested public key")
		}
	}
	switch {
	case s.NotBefore == nil:
		return field.ErrorList{field.Required(status.Child("notBefore"), "must be present and consistent with the issued certificate")}
	case s.NotAfter == nil:
		return field.ErrorList{field.Required(status.Child("notAfter"), "must be present and consistent with the issued certificate")}
	case s.BeginRefreshAt == nil:
		return field.ErrorList{field.Required(status.Child("beginRefreshAt"), "must be present and in the range [notbefore+10min, notafter-10min]")}
	case !s.NotBefore.Time.Equal(leaf.NotBefore):
		return say(status.Child("notBefore"), s.NotBefore, "must be set to the NotBefore time encoded in the leaf certificate")
	case !s.NotAfter.Time.Equal(leaf.NotAfter):
		return say(status.Child("notAfter"), s.NotAfter, "must be set to the NotAfter time encoded in the leaf certificate")
	}
	const margin = 10 * time.Minute
	var errs field.ErrorList
	if at := s.BeginRefreshAt.Time; at.Before(leaf.NotBefore.Add(margin)) || at.After(leaf.NotAfter.Add(-margin)) {
		errs = append(errs, field.Invalid(status.Child("beginRefreshAt"), s.BeginRefreshAt, "must be in the range [notbefore+10min, notafter-10min]"))
	}
	lifetime := leaf.NotAfter.Sub(leaf.NotBefore)
	if lifetime < minPodCertificateSeconds*time.Second {
		errs = append(errs, field.Invalid(chain, hidden, "leaf certificate lifetime must be >= 1 hour"))
	}
	if longest := time.Duration(ptr.Deref(r.Spec.MaxExpirationSeconds, 0)) * time.Second; lifetime > longest {
		errs = append(errs, field.Invalid(chain, hidden, fmt.Sprintf("leaf certificate lifetime must be <= spec.maxExpirationSeconds (%s)", longest)))
	}
	return errs
}
