package certificates

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/user"
	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	minExpirationSeconds = 600
	legacySigner         = "kubernetes.io/legacy-unknown"
)

// CertificateSigningRequest asks a signer for a certificate. One approves it through the subresource approval, the signer answers
// through status.
func certificateSigningRequest() *kind.Definition {
	doc := certificatesv1beta1.CertificateSigningRequestSpec{}.SwaggerDoc() // of the version that the columns come from
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "CertificateSigningRequest", Plural: "certificatesigningrequests", ShortNames: []string{"csr"},
		Scope: kind.Cluster, Verbs: kind.Standard,
		New:           kind.Of[certificatesv1.CertificateSigningRequest](),
		CheckName:     check.SegmentName,
		PrepareCreate: prepareRequest,
		PrepareUpdate: kind.PrepareUpdate(func(r, old *certificatesv1.CertificateSigningRequest) { r.Spec, r.Status = old.Spec, old.Status }),
		Validate:      kind.Validate(validateRequest),
		ValidateUpdate: kind.ValidateUpdate(func(r, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
			return validateRequestUpdate(r, old)
		}),
		Fields:        []kind.Field{{Label: "spec.signerName"}},
		FieldsUnknown: labelNotSupported,
		Columns: kind.Columns{
			kind.Age,
			{Name: "SignerName", Description: doc["signerName"], Of: kind.Cell(func(r *certificatesv1.CertificateSigningRequest) any { return r.Spec.SignerName })},
			{Name: "Requestor", Description: doc["request"], Of: kind.Cell(func(r *certificatesv1.CertificateSigningRequest) any { return r.Spec.Username })},
			{Name: "RequestedDuration", Description: doc["expirationSeconds"], Of: kind.Cell(func(r *certificatesv1.CertificateSigningRequest) any {
				if r.Spec.ExpirationSeconds == nil {
					return show.None
				}
				return duration.HumanDuration(time.Duration(*r.Spec.ExpirationSeconds) * time.Second)
			})},
			{Name: "Condition", Description: certificatesv1beta1.CertificateSigningRequestStatus{}.SwaggerDoc()["conditions"], Of: kind.Cell(requestState)},
		},
		ColumnFields: []string{"spec.signerName", "spec.username", "spec.expirationSeconds", "status.conditions.type", "status.certificate"},
		Subresources: map[string]*kind.Subresource{
			"status": {Verbs: kind.ReadWrite, View: &kind.View{
				Prepare: kind.PrepareUpdate(func(r, old *certificatesv1.CertificateSigningRequest) {
					r.Spec = old.Spec
					stampConditions(r, old)
				}),
				Validate: kind.ValidateUpdate(func(r, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
					return append(validateRequestUpdate(r, old, certificatesv1.CertificateFailed), checkCertificate(r, old)...)
				}),
				ResetFields: []string{"spec"},
			}},
			"approval": {Verbs: kind.ReadWrite, View: &kind.View{
				Prepare: kind.PrepareUpdate(func(r, old *certificatesv1.CertificateSigningRequest) {
					r.Spec = old.Spec
					r.Status.Certificate = old.Status.Certificate
					stampConditions(r, old)
				}),
				Validate: kind.ValidateUpdate(func(r, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
					return validateRequestUpdate(r, old, certificatesv1.CertificateApproved, certificatesv1.CertificateDenied)
				}),
				ResetFields: []string{"spec", "status.certificate"},
			}},
		},
	}
}

// prepareRequest writes into a request who makes it: the approver and the signer rely on that.
func prepareRequest(ctx context.Context, obj object.Object) {
	r := obj.(*certificatesv1.CertificateSigningRequest)
	r.Status = certificatesv1.CertificateSigningRequestStatus{}
	r.Spec.Username, r.Spec.UID, r.Spec.Groups, r.Spec.Extra = "", "", nil, nil
	u := user.From(ctx)
	if u == nil {
		return
	}
	r.Spec.Username, r.Spec.UID, r.Spec.Groups = u.Name, u.UID, slices.Clone(u.Groups)
	for key, values := range u.Extra {
		if r.Spec.Extra == nil {
			r.Spec.Extra = map[string]certificatesv1.ExtraValue{}
		}
		r.Spec.Extra[key] = slices.Clone(values)
	}
}

// stampConditions fills in when conditions were written and when they changed.
func stampConditions(r, old *certificatesv1.CertificateSigningRequest) {
	now := metav1.Now()
	for i := range r.Status.Conditions {
		c := &r.Status.Conditions[i]
		if c.LastUpdateTime.IsZero() {
			c.LastUpdateTime = now
		}
		if !c.LastTransitionTime.IsZero() {
			continue
		}
		c.LastTransitionTime = now
		for _, was := range old.Status.Conditions {
			if was.Type == c.Type && was.Status == c.Status && !was.LastTransitionTime.IsZero() {
				c.LastTransitionTime = was.LastTransitionTime
			}
		}
	}
}

// requestState is what was decided, and what the signer did.
func requestState(r *certificatesv1.CertificateSigningRequest) any {
	state, failed := "Pending", false
	for _, c := range r.Status.Conditions {
		switch c.Type {
		case certificatesv1.CertificateApproved:
			if state != "Denied" {
				state = "Approved"
			}
		case certificatesv1.CertificateDenied:
			state = "Denied"
		case certificatesv1.CertificateFailed:
			failed = true
		}
	}
	if failed {
		state += ",Failed"
	}
	if len(r.Status.Certificate) > 0 {
		state += ",Issued"
	}
	return state
}

// keyUsages are those that a certificate can be asked for, in the order in which answers list them.
var keyUsages = []certificatesv1.KeyUsage{
	certificatesv1.UsageAny, certificatesv1.UsageCertSign, certificatesv1.UsageClientAuth, certificatesv1.UsageCodeSigning,
	certificatesv1.UsageContentCommitment, certificatesv1.UsageCRLSign, certificatesv1.UsageDataEncipherment, certificatesv1.UsageDecipherOnly,
	certificatesv1.UsageDigitalSignature, certificatesv1.UsageEmailProtection, certificatesv1.UsageEncipherOnly, certificatesv1.UsageIPsecEndSystem,
	certificatesv1.UsageIPsecTunnel, certificatesv1.UsageIPsecUser, certificatesv1.UsageKeyAgreement, certificatesv1.UsageKeyEncipherment,
	certificatesv1.UsageMicrosoftSGC, certificatesv1.UsageNetscapeSGC, certificatesv1.UsageOCSPSigning, certificatesv1.UsageSMIME,
	certificatesv1.UsageServerAuth, certificatesv1.UsageSigning, certificatesv1.UsageTimestamping,
}

func validateRequest(r *certificatesv1.CertificateSigningRequest) field.ErrorList {
	s, spec := &r.Spec, field.NewPath("spec")
	var errs field.ErrorList
	if _, err := parseRequest(s.Request); err != nil {
		errs = append(errs, field.Invalid(spec.Child("request"), s.Request, err.Error()))
	}
	usages := spec.Child("usages")
	if len(s.Usages) == 0 {
		errs = append(errs, field.Required(usages, ""))
	}
	for i, u := range s.Usages {
		errs = append(errs, check.OneOf(u, usages.Index(i), keyUsages...)...)
	}
	errs = append(errs, check.Once(s.Usages, func(u certificatesv1.KeyUsage) certificatesv1.KeyUsage { return u }, usages.Index)...)
	if s.SignerName == legacySigner {
		errs = append(errs, field.Invalid(spec.Child("signerName"), s.SignerName, "the legacy signerName is not allowed via this API version"))
	} else {
		errs = append(errs, checkSigner(s.SignerName, spec.Child("signerName"))...)
	}
	if n := s.ExpirationSeconds; n != nil && *n < minExpirationSeconds {
		errs = append(errs, field.Invalid(spec.Child("expirationSeconds"), *n, "may not specify a duration less than 600 seconds (10 minutes)"))
	}
	return append(errs, checkRequestConditions(r.Status.Conditions)...)
}

func checkRequestConditions(conditions []certificatesv1.CertificateSigningRequestCondition) field.ErrorList {
	path := field.NewPath("status", "conditions")
	var errs field.ErrorList
	seen := map[certificatesv1.RequestConditionType]bool{}
	for i, c := range conditions {
		at := path.Index(i)
		if c.Type == "" {
			errs = append(errs, field.Required(at.Child("type"), ""))
		}
		status := at.Child("status")
		switch {
		case c.Status == "":
			errs = append(errs, field.Required(status, ""))
		case decides(c.Type):
			errs = append(errs, check.OneOf(c.Status, status, corev1.ConditionTrue)...)
		default:
			errs = append(errs, check.OneOf(c.Status, status, corev1.ConditionFalse, corev1.ConditionTrue, corev1.ConditionUnknown)...)
		}
		if seen[c.Type] {
			errs = append(errs, field.Duplicate(at.Child("type"), c.Type))
		}
		seen[c.Type] = true
	}
	if seen[certificatesv1.CertificateApproved] && seen[certificatesv1.CertificateDenied] {
		const approved, denied = `conditions[{"type": "Approved"}]`, `conditions[{"type": "Denied"}]`
		errs = append(errs, field.Invalid(path, "{"+approved+", "+denied+"}", fmt.Sprintf("must specify at most one of: `%s`, `%s`", approved, denied)))
	}
	return errs
}

// decides reports whether a condition is a decision, which stands once it is there.
func decides(t certificatesv1.RequestConditionType) bool {
	return t == certificatesv1.CertificateApproved || t == certificatesv1.CertificateDenied || t == certificatesv1.CertificateFailed
}

// validateRequestUpdate checks the conditions; only those of the types in mayAdd may be new.
func validateRequestUpdate(r, old *certificatesv1.CertificateSigningRequest, mayAdd ...certificatesv1.RequestConditionType) field.ErrorList {
	path := field.NewPath("status", "conditions")
	has := func(r *certificatesv1.CertificateSigningRequest, t certificatesv1.RequestConditionType) bool {
		return slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool { return c.Type == t })
	}
	var errs field.ErrorList
	for _, t := range []certificatesv1.RequestConditionType{certificatesv1.CertificateApproved, certificatesv1.CertificateDenied, certificatesv1.CertificateFailed} {
		switch now, was := has(r, t), has(old, t); {
		case was && !now:
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("updates may not remove a condition of type %q", t)))
		case now && !was && !slices.Contains(mayAdd, t):
			errs = append(errs, field.Forbidden(path, fmt.Sprintf("updates may not add a condition of type %q", t)))
		}
	}
	return append(errs, checkRequestConditions(r.Status.Conditions)...)
}

// hidden stands for certificates in answers.
const hidden = "<certificate data>"

func checkCertificate(r, old *certificatesv1.CertificateSigningRequest) field.ErrorList {
	path := field.NewPath("status", "certificate")
	now, was := r.Status.Certificate, old.Status.Certificate
	if bytes.Equal(now, was) {
		return nil
	}
	switch {
	case len(was) > 0 && len(now) == 0:
		return field.ErrorList{field.Forbidden(path, "updates may not clear existing certificate content")}
	case len(was) > 0:
		return field.ErrorList{field.Forbidden(path, "updates may not modify existing certificate content")}
	}
	list, err := certificatesOf(now)
	switch {
	case err != nil:
		return field.ErrorList{field.Invalid(path, hidden, err.Error())}
	case len(list) == 0 && strings.TrimSpace(string(now)) != "":
		return field.ErrorList{field.Invalid(path, hidden, "must contain at least one CERTIFICATE PEM block")}
	}
	return nil
}
