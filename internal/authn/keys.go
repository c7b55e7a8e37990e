package authn

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	jose "github.com/go-jose/go-jose/v4"
)

// PublicKey verifies service account tokens.
type PublicKey struct {
	ID        string // the `kid` of tokens signed with its private key
	Key       crypto.PublicKey
	Algorithm jose.SignatureAlgorithm
}

// NewPublicKey describes a public RSA or ECDSA key. Its ID is the base64url form of the SHA-256 of
// its DER form (PKIX).
func NewPublicKey(key crypto.PublicKey) (PublicKey, error) {
	p := PublicKey{Key: key}
	switch k := key.(type) {
	case *rsa.PublicKey:
		p.Algorithm = jose.RS256
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			p.Algorithm = jose.ES256
		case elliptic.P384():
			p.Algorithm = jose.ES384
		case elliptic.P521():
			p.Algorithm = jose.ES512
		default:
			return p, fmt.Errorf("unsupported elliptic curve %s", k.Curve.Params().Name)
		}
	default:
		return p, fmt.Errorf("unsupported public key type %T, must be RSA or ECDSA", key)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return p, fmt.Errorf("encode public key: %w", err)
	}
	sum := sha256.Sum256(der)
	p.ID = base64.RawURLEncoding.EncodeToString(sum[:])
	return p, nil
}

// ParsePublicKeys reads all public keys of a PEM file (--service-account-key-file): public keys, certificates,
// or private keys, whose public half is taken.
func ParsePublicKeys(data []byte) ([]PublicKey, error) {
	var keys []PublicKey
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		key, err := publicKeyOf(block)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", strings.ToLower(block.Type), err)
		}
		if key == nil {
			continue
		}
		public, err := NewPublicKey(key)
		if err != nil {
			return nil, err
		}
		keys = append(keys, public)
	}
	if len(keys) == 0 {
		return nil, errors.New("data does not contain any valid RSA or ECDSA public keys")
	}
	return keys, nil
}

func publicKeyOf(block *pem.Block) (crypto.PublicKey, error) {
	var private any
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		return x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		if key, err := x509.ParsePKCS1PublicKey(block.Bytes); err == nil {
			return key, nil
		}
		return x509.ParsePKIXPublicKey(block.Bytes)
	case "CERTIFICATE":
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return cert.PublicKey, nil
	case "EC PRIVATE KEY":
		private, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		private, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "PRIVATE KEY":
		private, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T cannot sign", private)
	}
	return signer.Public(), nil
}

// DiscoveryDocument is the content of /.well-known/openid-configuration for an
// issuer (OpenID Connect Discovery 1.0). externalHost is host:port for the default place of the
// keys; jwksURI replaces that place if not empty. The document is served only when the issuer is an https URL: otherwise an error.
func DiscoveryDocument(issuer, externalHost, jwksURI string, keys []PublicKey) ([]byte, error) {
	u, err := url.Parse(issuer)
	if err != nil || u.Scheme != "https" {
		return nil, fmt.Errorf("issuer URL must use https scheme, got: %q", issuer)
	}
	if u.RawQuery != "" {
		return nil, fmt.Errorf("issuer URL may not include a query, got: %q", issuer)
	}
	if u.Fragment != "" {
		return nil, fmt.Errorf("issuer URL may not include a fragment, got: %q", issuer)
	}
	if jwksURI == "" {
		jwksURI = (&url.URL{Scheme: "https", Host: externalHost, Path: "/openid/v1/jwks"}).String()
	}
	var algorithms []string
	for _, key := range keys {
		if !slices.Contains(algorithms, string(key.Algorithm)) {
			algorithms = append(algorithms, string(key.Algorithm))
		}
	}
	return json.Marshal(struct {
		Issuer        string   `json:"issuer"`
		JWKSURI       string   `json:"jwks_uri"`
		ResponseTypes []string `json:"response_types_supported"`
		SubjectTypes  []string `json:"subject_types_supported"`
		Algorithms    []string `json:"id_token_signing_alg_values_supported"`
	}{issuer, jwksURI, []string{"id_token"}, []string{"public"}, algorithms})
}

// KeySetDocument is the content of /openid/v1/jwks (RFC 7517).
func KeySetDocument(keys []PublicKey) ([]byte, error) {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, key := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: key.Key, KeyID: key.ID, Algorithm: string(key.Algorithm), Use: "sig"})
	}
	return json.Marshal(set)
}
