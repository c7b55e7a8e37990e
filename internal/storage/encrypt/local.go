package encrypt

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"

	"golang.org/x/crypto/nacl/secretbox"
)

// The providers whose keys are in the configuration. What comes from the store is not trusted: each
// refuses what it did not make, as far as its cipher can tell.

var (
	errShort   = errors.New("the stored data was shorter than the required size")
	errPadding = errors.New("the stored data has an invalid padding") // or was encrypted with another key
)

// aesGCM authenticates the value together with the etcd key, so a value cannot be passed off as that of another object.
type aesGCM struct {
	name string // prefix
	aead cipher.AEAD
}

func newAESGCM(prefix string, secret []byte) (*aesGCM, error) {
	aead, err := gcm(secret)
	return &aesGCM{prefix, aead}, err
}

func gcm(secret []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func (a *aesGCM) prefix() string    { return a.name }
func (a *aesGCM) stale([]byte) bool { return false }

func (a *aesGCM) seal(_ context.Context, key string, value []byte) ([]byte, error) {
	return sealGCM(a.aead, nil, key, value), nil
}

func (a *aesGCM) open(_ context.Context, key string, sealed []byte) ([]byte, error) {
	return openGCM(a.aead, key, sealed)
}

// sealGCM appends a random nonce and the encrypted value to head.
func sealGCM(aead cipher.AEAD, head []byte, key string, value []byte) []byte {
	at := len(head)
	b := make([]byte, at+aead.NonceSize(), at+aead.NonceSize()+len(value)+aead.Overhead())
	copy(b, head)
	rand.Read(b[at:]) // never fails
	return aead.Seal(b, b[at:], value, []byte(key))
}

func openGCM(aead cipher.AEAD, key string, sealed []byte) ([]byte, error) {
	n := aead.NonceSize()
	if len(sealed) < n {
		return nil, errShort
	}
	value, err := aead.Open(nil, sealed[:n], sealed[n:], []byte(key))
	if err == nil && value == nil {
		value = []byte{} // nil would read as a deletion
	}
	return value, err
}

// aesCBC does not authenticate: a wrong key shows in the padding, mostly, and in a value that is no object.
type aesCBC struct {
	name  string
	block cipher.Block
}

func newAESCBC(prefix string, secret []byte) (*aesCBC, error) {
	block, err := aes.NewCipher(secret)
	return &aesCBC{prefix, block}, err
}

func (a *aesCBC) prefix() string    { return a.name }
func (a *aesCBC) stale([]byte) bool { return false }

func (a *aesCBC) seal(_ context.Context, _ string, value []byte) ([]byte, error) {
	padding := aes.BlockSize - len(value)%aes.BlockSize // 1 to 16
	b := make([]byte, aes.BlockSize, aes.BlockSize+len(value)+padding)
	rand.Read(b)
	b = append(b, value...)
	b = append(b, bytes.Repeat([]byte{byte(padding)}, padding)...)
	cipher.NewCBCEncrypter(a.block, b[:aes.BlockSize]).CryptBlocks(b[aes.BlockSize:], b[aes.BlockSize:])
	return b, nil
}

func (a *aesCBC) open(_ context.Context, _ string, sealed []byte) ([]byte, error) {
	if len(sealed) < 2*aes.BlockSize || len(sealed)%aes.BlockSize != 0 {
		return nil, errShort
	}
	value := make([]byte, len(sealed)-aes.BlockSize)
	cipher.NewCBCDecrypter(a.block, sealed[:aes.BlockSize]).CryptBlocks(value, sealed[aes.BlockSize:])
	padding := int(value[len(value)-1])
	if padding == 0 || padding > aes.BlockSize {
		return nil, errPadding
	}
	rest := value[len(value)-padding:]
	if !bytes.Equal(rest, bytes.Repeat([]byte{byte(padding)}, padding)) {
		return nil, errPadding
	}
	return value[:len(value)-padding], nil
}

// secretBox is NaCl's secretbox. It does not authenticate the etcd key.
type secretBox struct {
	name   string
	secret [secretBoxKey]byte
}

const (
	secretBoxKey   = 32
	secretBoxNonce = 24
)

var errSecretBox = errors.New("cipher: message authentication failed")

func newSecretBox(prefix string, secret []byte) *secretBox {
	return &secretBox{prefix, [secretBoxKey]byte(secret)}
}

func (s *secretBox) prefix() string    { return s.name }
func (s *secretBox) stale([]byte) bool { return false }

func (s *secretBox) seal(_ context.Context, _ string, value []byte) ([]byte, error) {
	var nonce [secretBoxNonce]byte
	rand.Read(nonce[:])
	return secretbox.Seal(nonce[:], value, &nonce, &s.secret), nil
}

func (s *secretBox) open(_ context.Context, _ string, sealed []byte) ([]byte, error) {
	if len(sealed) < secretBoxNonce {
		return nil, errShort
	}
	value, ok := secretbox.Open([]byte{}, sealed[secretBoxNonce:], (*[secretBoxNonce]byte)(sealed), &s.secret)
	if !ok {
		return nil, errSecretBox
	}
	return value, nil
}
