package certificates

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxTrustBundle is the most that the trust anchors of a bundle may take, in bytes.
const maxTrustBundle = 1 << 20

// ClusterTrustBundle publishes trust anchors to all pods (KEP-3257).
func clusterTrustBundle() *kind.Definition {
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "ClusterTrustBundle", Plural: "clustertrustbundles",
		Scope: kind.Cluster, Verbs: kind.Standard, MustMatch: true,
		Stored:    kind.Stored{Version: "v1beta1"}, // whose fields are the same
		New:       kind.Of[certificatesv1.ClusterTrustBundle](),
		CheckName: func(string, bool) []string { return nil }, // depends on the signer: see validateBundle
		Validate: kind.Validate(func(b *certificatesv1.ClusterTrustBundle) field.ErrorList {
			return append(check.Each(field.NewPath("metadata", "name"), b.Name, checkBundleName(b.Name, b.Spec.SignerName)), validateBundle(b, nil)...)
		}),
		ValidateUpdate: kind.ValidateUpdate(func(b, old *certificatesv1.ClusterTrustBundle) field.ErrorList {
			return append(validateBundle(b, old), check.Immutable(b.Spec.SignerName, old.Spec.SignerName, field.NewPath("spec", "signerName"))...)
		}),
		Fields:        []kind.Field{{Label: "spec.signerName"}},
		FieldsUnknown: labelNotSupported,
		Columns: kind.Columns{
			{Name: "SignerName", Description: certificatesv1.ClusterTrustBundleSpec{}.SwaggerDoc()["signerName"], Of: kind.Cell(func(b *certificatesv1.ClusterTrustBundle) any {
				return show.Or(b.Spec.SignerName, show.None)
			})},
		},
		ColumnFields: []string{"spec.signerName"},
	}
}

// checkBundleName wants the name of a signer's bundle to begin with the signer's name.
func checkBundleName(name, signer string) []string {
	if name == "" {
		return nil
	}
	if signer == "" {
		if strings.Contains(name, ":") {
			return []string{`ClusterTrustBundle without signer name must not have ":" in its name`}
		}
		return check.Subdomain(name)
	}
	prefix := strings.ReplaceAll(signer, "/", ":") + ":"
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return []string{fmt.Sprintf("ClusterTrustBundle for signerName %s must be named with prefix %s", signer, prefix)}
	}
	return check.Subdomain(rest)
}

// validateBundle checks a bundle; old is the one that it replaces, whose certificates are not read again.
func validateBundle(b, old *certificatesv1.ClusterTrustBundle) field.ErrorList {
	var errs field.ErrorList
	if b.Spec.SignerName != "" {
		errs = append(errs, checkSigner(b.Spec.SignerName, field.NewPath("spec", "signerName"))...)
	}
	path := field.NewPath("spec", "trustBundle")
	if len(b.Spec.TrustBundle) > maxTrustBundle {
		return append(errs, field.TooLong(path, "", maxTrustBundle))
	}
	if old != nil && b.Spec.TrustBundle == old.Spec.TrustBundle {
		return errs
	}
	return append(errs, checkAnchors(b.Spec.TrustBundle, path)...)
}

// checkAnchors wants PEM blocks that are certificates of authorities, each once.
func checkAnchors(text string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	say := func(format string, args ...any) {
		errs = append(errs, field.Invalid(path, "<value omitted>", fmt.Sprintf(format, args...)))
	}
	rest := []byte(text)
	first := map[string]int{}
	n := 0
	for ; ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			say("entry %d has bad block type: %v", n, block.Type)
			continue
		}
		if len(block.Headers) > 0 {
			say("entry %d has PEM block headers", n)
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil:
			say("entry %d does not parse as X.509: %v", n, err)
			continue
		case !certificate.IsCA:
			say("entry %d does not have the CA bit set", n)
			continue
		case !certificate.BasicConstraintsValid:
			say("entry %d has no valid basic constraints", n)
			continue
		}
		if earlier, twice := first[string(block.Bytes)]; twice {
			say("duplicate trust anchor (indices [%d %d])", earlier, n)
		}
		first[string(block.Bytes)] = n
	}
	if n == 0 {
		say("at least one trust anchor must be provided")
	}
	return errs
}
