// Package certificates holds the kinds of certificates.k8s.io: CertificateSigningRequest, ClusterTrustBundle and
// PodCertificateRequest, a file each.
//
// Promises: every function is pure, but for what they take from the request's user and the clock.
// Start reading at clustertrustbundle.go, then certificatesigningrequest.go.
package certificates

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/timonel/timonel/internal/kind"
	certificatesv1 "k8s.io/api/certificates/v1"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const group = certificatesv1.GroupName

// Definitions lists the kinds of the group in alphabetical order, as discovery does, the preferred version first.
func Definitions() []*kind.Definition {
	bundle, request := clusterTrustBundle(), podCertificateRequest()
	return []*kind.Definition{
		certificateSigningRequest(), bundle, request,
		bundle.Renamed("v1beta1", kind.Of[certificatesv1beta1.ClusterTrustBundle]()),
		request.Renamed("v1beta1", kind.Of[certificatesv1beta1.PodCertificateRequest]()), // pkixPublicKey and proofOfPossession are no longer used
	}
}

func labelNotSupported(label string) string { return "field label not supported: " + label }

// maxSignerName is the longest signer name: two DNS subdomains and what joins them, and 63 characters for a path.
const maxSignerName = 571

// checkSigner wants the name of a signer, "example.com/signer-name".
func checkSigner(name string, at *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	domain, rest, ok := strings.Cut(name, "/")
	if !ok || strings.Contains(rest, "/") {
		return field.ErrorList{field.Invalid(at, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")}
	}
	var errs field.ErrorList
	if len(domain) > validation.DNS1123SubdomainMaxLength {
		errs = append(errs, field.TooLong(at, domain, validation.DNS1123SubdomainMaxLength))
	}
	errs = append(errs, checkLabels(domain, validation.IsDNS1123Label, at)...)
	if !strings.Contains(domain, ".") {
		errs = append(errs, field.Invalid(at, domain, "should be a domain with at least two segments separated by dots"))
	}
	errs = append(errs, checkLabels(rest, validation.IsDNS1123Subdomain, at)...)
	if len(name) > maxSignerName {
		errs = append(errs, field.TooLong(at, name, maxSignerName))
	}
	return errs
}

// checkLabels reports what is wrong with the first bad part of a dotted name.
func checkLabels(name string, form func(string) []string, at *field.Path) field.ErrorList {
	for label := range strings.SplitSeq(name, ".") {
		var errs field.ErrorList
		for _, m := range form(label) {
			errs = append(errs, field.Invalid(at, name, fmt.Sprintf("validating label %q: %s", label, m)))
		}
		if len(errs) > 0 {
			return errs
		}
	}
	return nil
}

// parseRequest reads the one PEM block of a certificate signing request (RFC 2986, RFC 7468).
func parseRequest(text []byte) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" {
		return nil, errors.New("PEM block type must be CERTIFICATE REQUEST")
	}
	return x509.ParseCertificateRequest(block.Bytes)
}

// certificatesOf reads PEM blocks, all of which must be certificates without headers.
func certificatesOf(text []byte) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return list, nil
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("only CERTIFICATE PEM blocks are allowed, found %q", block.Type)
		}
		if len(block.Headers) > 0 {
			return nil, errors.New("no PEM block headers are permitted")
		}
		parsed, err := x509.ParseCertificates(block.Bytes)
		if err != nil {
			return nil, err
		}
		if len(parsed) == 0 {
			return nil, errors.New("found CERTIFICATE PEM block containing 0 certificates")
		}
		list = append(list, parsed...)
	}
}
