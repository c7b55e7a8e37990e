package server

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/timonel/timonel/internal/authn"
	"github.com/timonel/timonel/internal/pki"
)

// credentials are the server's certificates and keys, from the files that flags name
// or from first boot's directory.
type credentials struct {
	set *pki.Set // nil without a data directory

	serving       tls.Certificate
	clientCA      *x509.CertPool
	clientCAPEM   []byte
	frontCA       *x509.CertPool
	frontCAPEM    []byte
	kubelet       *tls.Certificate // the server as a client of nodes
	kubeletCA     *x509.CertPool   // nil: nodes' certificates are not verified
	signer        crypto.Signer
	verifiers     []authn.PublicKey
	loopbackToken string
}

// firstServiceIPs are the addresses of service default/kubernetes.
func firstServiceIPs(ranges []netip.Prefix) []netip.Addr {
	var ips []netip.Addr
	for _, r := range ranges {
		ips = append(ips, r.Addr().Next())
	}
	return ips
}

func (s *settled) credentials(node NodeIdentity) (*credentials, error) {
	c := &credentials{}
	token := make([]byte, 24)
	_, _ = rand.Read(token) // never fails
	c.loopbackToken = hex.EncodeToString(token)
	if s.DataDir != "" {
		set, err := pki.Ensure(pki.Config{
			Dir: filepath.Join(s.DataDir, "pki"), Hostname: hostname(), Addresses: []netip.Addr{s.advertise, s.bind},
			ServiceIP: firstServiceIPs(s.serviceRanges), Names: names(s.ExternalHostname),
			NodeName: node.Name, NodeAddresses: node.Addresses,
		})
		if err != nil {
			return nil, fmt.Errorf("prepare certificates: %w", err)
		}
		c.fromSet(set)
	}
	return c, c.fromFiles(s)
}

func names(name string) []string {
	if name == "" {
		return nil
	}
	return []string{name}
}

func (c *credentials) fromSet(set *pki.Set) {
	c.set = set
	c.serving = set.APIServer.TLS()
	c.clientCA, c.clientCAPEM = set.CA.Pool(), set.CA.CertPEM
	c.frontCA, c.frontCAPEM = set.FrontProxyCA.Pool(), set.FrontProxyCA.CertPEM
	kubelet := set.KubeletClient.TLS()
	c.kubelet, c.kubeletCA = &kubelet, set.CA.Pool()
	c.signer = set.ServiceAccount.Key
}

// fromFiles replaces what flags name files for.
func (c *credentials) fromFiles(s *settled) error {
	var err error
	if s.TLSCertFile != "" {
		if c.serving, err = tls.LoadX509KeyPair(s.TLSCertFile, s.TLSKeyFile); err != nil {
			return fmt.Errorf("read serving certificate: %w", err)
		}
	}
	if s.ClientCAFile != "" {
		if c.clientCA, c.clientCAPEM, err = readPool(s.ClientCAFile); err != nil {
			return err
		}
	}
	if s.RequestHeaderClientCAFile != "" {
		if c.frontCA, c.frontCAPEM, err = readPool(s.RequestHeaderClientCAFile); err != nil {
			return err
		}
	}
	if s.KubeletClientCertificate != "" {
		pair, err := tls.LoadX509KeyPair(s.KubeletClientCertificate, s.KubeletClientKey)
		if err != nil {
			return fmt.Errorf("read kubelet client certificate: %w", err)
		}
		c.kubelet, c.kubeletCA = &pair, nil
	}
	if s.KubeletCAFile != "" {
		if c.kubeletCA, _, err = readPool(s.KubeletCAFile); err != nil {
			return err
		}
	}
	return c.tokenKeys(s)
}

// tokenKeys reads the keys of service account tokens. What signs also verifies.
func (c *credentials) tokenKeys(s *settled) error {
	if s.ServiceAccountSigningKeyFile != "" {
		b, err := os.ReadFile(s.ServiceAccountSigningKeyFile)
		if err != nil {
			return fmt.Errorf("read service account signing key: %w", err)
		}
		if c.signer, err = pki.ParseKey(b); err != nil {
			return fmt.Errorf("read service account signing key %s: %w", s.ServiceAccountSigningKeyFile, err)
		}
	}
	for _, file := range s.ServiceAccountKeyFiles {
		b, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read service account key: %w", err)
		}
		keys, err := authn.ParsePublicKeys(b)
		if err != nil {
			return fmt.Errorf("read service account key %s: %w", file, err)
		}
		c.verifiers = append(c.verifiers, keys...)
	}
	if len(s.ServiceAccountKeyFiles) == 0 && c.signer != nil {
		key, err := authn.NewPublicKey(c.signer.Public())
		if err != nil {
			return err
		}
		c.verifiers = append(c.verifiers, key)
	}
	return nil
}

func readPool(file string) (*x509.CertPool, []byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, fmt.Errorf("read certificate authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, nil, fmt.Errorf("read certificate authority %s: no certificate in it", file)
	}
	return pool, b, nil
}
