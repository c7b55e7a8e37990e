package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
)

// Pair is a certificate and its key, in memory and in files. The service account
// key has no certificate, an authority kept elsewhere no key.
type Pair struct {
	Certificate *x509.Certificate
	Key         crypto.Signer

	CertPEM, KeyPEM   []byte
	CertFile, KeyFile string // of the service account key, CertFile is the public key
}

// TLS is the pair in the form that crypto/tls works with.
func (p *Pair) TLS() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{p.Certificate.Raw}, PrivateKey: p.Key, Leaf: p.Certificate}
}

// Pool is a pool of this certificate alone.
func (p *Pair) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(p.Certificate)
	return pool
}

// load reads a pair. It answers os.ErrNotExist if a part is absent, beside the part that is there.
func load(dir, file string) (*Pair, error) {
	p := &Pair{}
	p.CertFile, p.KeyFile = Paths(dir, file)
	var err error
	if p.CertPEM, err = os.ReadFile(p.CertFile); err != nil {
		return nil, fmt.Errorf("read certificate %s: %w", file, err)
	}
	block, _ := pem.Decode(p.CertPEM)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("read certificate %s: no PEM certificate in it", p.CertFile)
	}
	if p.Certificate, err = x509.ParseCertificate(block.Bytes); err != nil {
		return nil, fmt.Errorf("read certificate %s: %w", p.CertFile, err)
	}
	if p.KeyPEM, err = os.ReadFile(p.KeyFile); err != nil {
		return p, fmt.Errorf("read key %s: %w", file, err)
	}
	if p.Key, err = ParseKey(p.KeyPEM); err != nil {
		return nil, fmt.Errorf("read key %s: %w", p.KeyFile, err)
	}
	public, ok := p.Certificate.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(p.Key.Public()) {
		return nil, fmt.Errorf("read key %s: it is not the key of %s", p.KeyFile, p.CertFile)
	}
	return p, nil
}

// ParseKey reads a private key from PEM (PKCS #1, PKCS #8 or SEC 1).
func ParseKey(data []byte) (crypto.Signer, error) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil, errors.New("no PEM private key in it")
		}
		switch block.Type {
		case "EC PRIVATE KEY":
			return x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			return x509.ParsePKCS1PrivateKey(block.Bytes)
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, err
			}
			signer, ok := key.(crypto.Signer)
			if !ok {
				return nil, fmt.Errorf("a %T cannot sign", key)
			}
			return signer, nil
		}
	}
}

// newKey makes an ECDSA P-256 key and its PEM form.
func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generate key: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode key: %w", err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// make makes a key and a certificate from the template, signed by ca, or by itself when ca is nil,
// and writes both.
func (c *Config) make(file string, template *x509.Certificate, ca *Pair) (*Pair, error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, fmt.Errorf("make certificate %s: %w", file, err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make certificate %s: %w", file, err)
	}
	template.SerialNumber = serial.Add(serial, big.NewInt(1))
	parent, signer := template, crypto.Signer(key)
	if ca != nil {
		parent, signer = ca.Certificate, ca.Key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("sign certificate %s: %w", file, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("sign certificate %s: %w", file, err)
	}
	p := &Pair{Certificate: cert, Key: key, KeyPEM: keyPEM,
		CertPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	p.CertFile, p.KeyFile = Paths(c.Dir, file)
	// Invariant: a certificate on disk has its key. The old certificate goes before its
	// key is replaced, so that a crash in between leaves a missing pair, not a wrong one.
	if err := os.Remove(p.CertFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("replace certificate %s: %w", file, err)
	}
	if err := WriteFile(p.KeyFile, p.KeyPEM, 0o600); err != nil {
		return nil, err
	}
	if err := WriteFile(p.CertFile, p.CertPEM, 0o644); err != nil {
		return nil, err
	}
	return p, nil
}

// signingKey loads or makes a key without a certificate, with its public key beside it.
func (c *Config) signingKey(file string) (*Pair, error) {
	p := &Pair{CertFile: filepath.Join(c.Dir, file+".pub"), KeyFile: filepath.Join(c.Dir, file+".key")}
	var err error
	p.KeyPEM, err = os.ReadFile(p.KeyFile)
	switch {
	case err == nil:
		if p.Key, err = ParseKey(p.KeyPEM); err != nil {
			return nil, fmt.Errorf("read key %s: %w", p.KeyFile, err)
		}
	case errors.Is(err, os.ErrNotExist):
		if p.Key, p.KeyPEM, err = newKey(); err != nil {
			return nil, err
		}
		if err := WriteFile(p.KeyFile, p.KeyPEM, 0o600); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("read key %s: %w", p.KeyFile, err)
	}
	der, err := x509.MarshalPKIXPublicKey(p.Key.Public())
	if err != nil {
		return nil, fmt.Errorf("encode public key of %s: %w", p.KeyFile, err)
	}
	p.CertPEM = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	return p, writeChanged(p.CertFile, p.CertPEM, 0o644)
}

// writeChanged writes a file unless it holds the data already.
func writeChanged(path string, data []byte, mode os.FileMode) error {
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, data) {
		return nil
	}
	return WriteFile(path, data, mode)
}

// WriteFile replaces a file whole: readers see the old or the new content, also
// after a crash.
func WriteFile(path string, data []byte, mode os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
