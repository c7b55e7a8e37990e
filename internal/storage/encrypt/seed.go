package encrypt

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
)

// seed is a secret from which a key is derived for each value (KEP-3299, "extended nonce"). AES-GCM is safe for 2³² values
// with a key; a seed has no such bound, so one round trip to the plug-in lasts as long as its key does:
//
//	info = 32 random bytes
//	key  = HKDF-Expand-SHA256(seed, info), 32 bytes
//	what is stored = info, nonce (12 random bytes), AES-GCM(key, nonce, value, etcd key)
type seed []byte

const (
	seedSize = 32
	infoSize = 32
)

func newSeed() seed {
	s := make(seed, seedSize)
	rand.Read(s)
	return s
}

func (s seed) key(info []byte) ([]byte, error) {
	return hkdf.Expand(sha256.New, s, string(info), seedSize)
}

func (s seed) seal(key string, value []byte) ([]byte, error) {
	info := make([]byte, infoSize)
	rand.Read(info)
	secret, err := s.key(info)
	if err != nil {
		return nil, err
	}
	aead, err := gcm(secret)
	if err != nil {
		return nil, err
	}
	return sealGCM(aead, info, key, value), nil
}

func (s seed) open(key string, sealed []byte) ([]byte, error) {
	if len(sealed) < infoSize {
		return nil, errShort
	}
	secret, err := s.key(sealed[:infoSize])
	if err != nil {
		return nil, err
	}
	aead, err := gcm(secret)
	if err != nil {
		return nil, err
	}
	return openGCM(aead, key, sealed[infoSize:])
}

// openWith decrypts the data of an envelope with its decrypted source.
func (e *envelope) openWith(secret []byte, key string) ([]byte, error) {
	if e.sourceType == hkdfSeed {
		return seed(secret).open(key, e.data)
	}
	aead, err := gcm(secret)
	if err != nil {
		return nil, err
	}
	return openGCM(aead, key, e.data)
}
