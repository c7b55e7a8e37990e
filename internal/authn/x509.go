package authn

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/timonel/timonel/internal/user"
)

// maxCertificates bounds how many verified client certificates are remembered.
const maxCertificates = 8192

// uidAttribute is the subject attribute that carries a user's UID (KEP-5018).
var uidAttribute = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57683, 2}

// certificates verifies client certificates and remembers the identities in them.
//
// A connection keeps one parsed certificate for all its requests, so the certificate's address is
// the key: the second request on a connection costs one look-up.
type certificates struct {
	pool  atomic.Pointer[x509.CertPool]
	now   func() time.Time
	known sync.Map // *x509.Certificate → *identity
	count atomic.Int64
}

// identity is a verified certificate.
type identity struct {
	user    *user.Info // nil: the certificate names nobody
	leaf    *x509.Certificate
	pool    *x509.CertPool // against which it was verified
	expires time.Time      // the earliest end in the chain
}

func newCertificates(pool *x509.CertPool, now func() time.Time) *certificates {
	c := &certificates{now: now}
	c.pool.Store(pool)
	return c
}

// identify returns the user that the peer's certificate names; nil without an error if
// client certificates are not accepted or it names nobody.
func (c *certificates) identify(chain []*x509.Certificate) (*user.Info, error) {
	id, err := c.verify(chain)
	if id == nil {
		return nil, err
	}
	return id.user, nil
}

// verify checks a peer's certificates against the authorities.
func (c *certificates) verify(chain []*x509.Certificate) (*identity, error) {
	pool := c.pool.Load()
	if pool == nil || len(chain) == 0 {
		return nil, nil
	}
	leaf := chain[0]
	if known, ok := c.known.Load(leaf); ok {
		if id := known.(*identity); id.pool == pool && c.now().Before(id.expires) {
			return id, nil
		}
		c.forget(leaf)
	}
	options := x509.VerifyOptions{
		Roots:       pool,
		CurrentTime: c.now(),
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if len(chain) > 1 {
		options.Intermediates = x509.NewCertPool()
		for _, intermediate := range chain[1:] {
			options.Intermediates.AddCert(intermediate)
		}
	}
	chains, err := leaf.Verify(options)
	if err != nil {
		return nil, fmt.Errorf("verifying certificate SN=%d, SKID=%X, AKID=%X failed: %w", leaf.SerialNumber, leaf.SubjectKeyId, leaf.AuthorityKeyId, err)
	}
	u, err := certificateUser(leaf)
	if err != nil {
		return nil, err
	}
	id := &identity{user: u, leaf: leaf, pool: pool, expires: leaf.NotAfter}
	for _, cert := range chains[0] {
		if cert.NotAfter.Before(id.expires) {
			id.expires = cert.NotAfter
		}
	}
	if c.count.Add(1) > maxCertificates {
		c.known.Clear()
		c.count.Store(1)
	}
	c.known.Store(leaf, id)
	return id, nil
}

func (c *certificates) forget(leaf *x509.Certificate) {
	if _, had := c.known.LoadAndDelete(leaf); had {
		c.count.Add(-1)
	}
}

// certificateUser is the identity in a certificate: the common name is the user, organizations are groups (docs:
// "Authenticating", X.509 client certificates). nil: no common name.
func certificateUser(leaf *x509.Certificate) (*user.Info, error) {
	if leaf.Subject.CommonName == "" {
		return nil, nil
	}
	uid, err := certificateUID(leaf)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(leaf.Raw)
	return authenticated(&user.Info{
		Name:   leaf.Subject.CommonName,
		UID:    uid,
		Groups: leaf.Subject.Organization,
		Extra:  map[string][]string{CredentialID: {"X509SHA256=" + hex.EncodeToString(sum[:])}},
	}), nil
}

func certificateUID(leaf *x509.Certificate) (string, error) {
	uid, found := "", false
	for _, name := range leaf.Subject.Names {
		if !name.Type.Equal(uidAttribute) {
			continue
		}
		value, ok := name.Value.(string)
		if !ok || strings.TrimSpace(value) == "" || found {
			return "", fmt.Errorf("certificate of %q: there must be one UID, a text that is not empty", leaf.Subject.CommonName)
		}
		uid, found = value, true
	}
	return uid, nil
}
