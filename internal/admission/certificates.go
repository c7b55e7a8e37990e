package admission

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/timonel/timonel/internal/authz"
	"github.com/timonel/timonel/internal/user"
	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// mayFor reports whether the user is allowed a verb on a signer: by its name, or for its whole domain
// ("example.com/*"), as the documentation "Certificate Signing Requests" has it.
func (c *cluster) mayFor(ctx context.Context, r *Request, verb, signer string) bool {
	domain, _, _ := strings.Cut(signer, "/")
	for _, name := range []string{signer, domain + "/*"} {
		decision, _, _ := c.Authorizer.Authorize(ctx, &authz.Attributes{
			User: r.User, Verb: verb, Group: certificatesv1.GroupName, Version: "*", Resource: "signers", Name: name,
		})
		if decision == authz.Allow {
			return true
		}
	}
	return false
}

// signingRequest returns the request for a certificate that an update of the subresource is about, and
// what it was; nil for any other request.
func signingRequest(r *Request, subresource string) (now, old *certificatesv1.CertificateSigningRequest) {
	if r.Operation != Update || r.Subresource != subresource || r.Definition.Group != certificatesv1.GroupName || r.Definition.Plural != "certificatesigningrequests" {
		return nil, nil
	}
	now, isOne := r.Object.(*certificatesv1.CertificateSigningRequest)
	old, wasOne := r.Old.(*certificatesv1.CertificateSigningRequest)
	if !isOne || !wasOne {
		return nil, nil
	}
	return now, old
}

// certificateApproval lets only those approve a request who may approve for its signer.
func (c *cluster) certificateApproval() Plugin {
	return Plugin{Name: "CertificateApproval", Check: func(ctx context.Context, r *Request) error {
		now, _ := signingRequest(r, "approval")
		if now == nil || c.mayFor(ctx, r, "approve", now.Spec.SignerName) {
			return nil
		}
		return r.Forbidden("user not permitted to approve requests with signerName %q", now.Spec.SignerName)
	}}
}

// certificateSigning lets only those issue a certificate, or say that it failed, who may sign for the signer.
func (c *cluster) certificateSigning() Plugin {
	return Plugin{Name: "CertificateSigning", Check: func(ctx context.Context, r *Request) error {
		now, old := signingRequest(r, "status")
		if now == nil {
			return nil
		}
		if string(now.Status.Certificate) == string(old.Status.Certificate) && equality.Semantic.DeepEqual(now.Status.Conditions, old.Status.Conditions) {
			return nil
		}
		if c.mayFor(ctx, r, "sign", old.Spec.SignerName) {
			return nil
		}
		return r.Forbidden("user not permitted to sign requests with signerName %q", old.Spec.SignerName)
	}}
}

// certificateSubjectRestriction keeps certificates of the cluster's administrators from being issued through requests.
func certificateSubjectRestriction() Plugin {
	return Plugin{Name: "CertificateSubjectRestriction", Check: func(_ context.Context, r *Request) error {
		if r.Operation != Create || !r.Is(certificatesv1.GroupName, "certificatesigningrequests") {
			return nil
		}
		csr, ok := r.Object.(*certificatesv1.CertificateSigningRequest)
		if !ok || csr.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName {
			return nil
		}
		request, err := parseCSR(csr.Spec.Request)
		if err != nil {
			return r.Forbidden("failed to parse CSR: %w", err)
		}
		for _, group := range request.Subject.Organization {
			if group == user.SystemPrivileged {
				return r.Forbidden("use of %s signer with %s group is not allowed", csr.Spec.SignerName, group)
			}
		}
		return nil
	}}
}

func parseCSR(bytes []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(bytes)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse certificate request: %w", err)
	}
	return request, nil
}

// clusterTrustBundleAttest lets only those publish the trust anchors of a signer who may attest for it.
func (c *cluster) clusterTrustBundleAttest() Plugin {
	return Plugin{Name: "ClusterTrustBundleAttest", Check: func(ctx context.Context, r *Request) error {
		if r.Operation != Create && r.Operation != Update || !r.Is(certificatesv1.GroupName, "clustertrustbundles") {
			return nil
		}
		signer := bundleSigner(r.Object)
		if signer == "" {
			signer = bundleSigner(r.Old)
		}
		if signer == "" || c.mayFor(ctx, r, "attest", signer) {
			return nil
		}
		return r.Forbidden("user not permitted to attest for signerName %q", signer)
	}}
}

func bundleSigner(obj any) string {
	switch o := obj.(type) {
	case *certificatesv1.ClusterTrustBundle:
		return o.Spec.SignerName
	case *certificatesv1beta1.ClusterTrustBundle:
		return o.Spec.SignerName
	}
	return ""
}
