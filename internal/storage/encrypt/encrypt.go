// Package encrypt keeps chosen resources encrypted in the store, as kube-apiserver does with
// --encryption-provider-config: the same file, the same bytes in etcd.
//
// A stored value is a prefix that names the provider and its key, and what the provider made of the value:
//
//	k8s:enc:aesgcm:v1:KEY:     nonce (12 bytes), AES-GCM of the value; the etcd key is authenticated too
//	k8s:enc:aescbc:v1:KEY:     IV (16 bytes), AES-CBC of the value, padded (PKCS #7)
//	k8s:enc:secretbox:v1:KEY:  nonce (24 bytes), XSalsa20-Poly1305 of the value
//	k8s:enc:kms:v2:NAME:       an EncryptedObject; see envelope.go and seed.go
//
// and no prefix at all for identity. The first provider of a resource writes, all read. A value that another
// than the first would write is stale: the next write brings it up to date, even one that changes nothing.
//
// Promises: a plug-in that is away fails the values that need it and nothing else, at once or within its
// timeout; keys that it decrypted are kept, a bounded number of them; a file that is wrong, when it is read again, changes nothing.
//
// Does not know: kinds. It is told which resource a key belongs to.
//
// Start reading at Transformer; then config.go, local.go, kms.go.
package encrypt

import (
	"context"
	"errors"
	"strings"
)

// prefix begins every encrypted value.
const prefix = "k8s:enc:"

// Resource names what is stored at a key: "" and "secrets".
type Resource struct{ Group, Name string }

// ParseResource reads a name as the configuration has it: "secrets", "deployments.apps".
func ParseResource(text string) Resource {
	name, group, _ := strings.Cut(text, ".")
	return Resource{Group: group, Name: name}
}

// Locate says which resource an etcd key belongs to. ByName: only a rule that names it applies, not "*.group" or "*.*".
type Locate func(key string) (r Resource, byName bool)

var (
	errNoPrefix = errors.New("no matching prefix found")
	errIdentity = errors.New("identity transformer tried to read encrypted data")
)

// provider is one way to store a value. Values that it made begin with its prefix, which
// the callers take off and put on. All its methods may be called at any time.
type provider interface {
	prefix() string
	seal(ctx context.Context, key string, value []byte) ([]byte, error)
	open(ctx context.Context, key string, sealed []byte) ([]byte, error)
	// stale reports whether a value that it made is not as it would make it now.
	stale(sealed []byte) bool
}

// identity stores values as they are.
type identity struct{}

func (identity) prefix() string                                                 { return "" }
func (identity) seal(_ context.Context, _ string, value []byte) ([]byte, error) { return value, nil }
func (identity) stale([]byte) bool                                              { return false }

func (identity) open(_ context.Context, _ string, sealed []byte) ([]byte, error) {
	if isEncrypted(sealed) {
		return nil, errIdentity
	}
	return sealed, nil
}

func isEncrypted(stored []byte) bool {
	return len(stored) >= len(prefix) && string(stored[:len(prefix)]) == prefix
}

// providers are those of a resource: the first writes.
type providers []provider

func (p providers) seal(ctx context.Context, key string, value []byte) ([]byte, error) {
	sealed, err := p[0].seal(ctx, key, value)
	if err != nil || p[0].prefix() == "" {
		return sealed, err
	}
	stored := make([]byte, 0, len(p[0].prefix())+len(sealed))
	return append(append(stored, p[0].prefix()...), sealed...), nil
}

// open asks those with the value's prefix, in order, until one can read it.
func (p providers) open(ctx context.Context, key string, stored []byte) ([]byte, error) {
	var errs []error
	for _, one := range p {
		if !hasPrefix(stored, one.prefix()) {
			continue
		}
		value, err := one.open(ctx, key, stored[len(one.prefix()):])
		if err == nil {
			return value, nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 0 {
		return nil, errNoPrefix
	}
	return nil, errors.Join(errs...)
}

// stale reports whether the first provider would store the value in another way. Not even the prefix
// of an identity that comes first says so much: everything has it.
func (p providers) stale(stored []byte) bool {
	first := p[0].prefix()
	if first == "" {
		return isEncrypted(stored)
	}
	return !hasPrefix(stored, first) || p[0].stale(stored[len(first):])
}

func hasPrefix(stored []byte, prefix string) bool {
	return len(stored) >= len(prefix) && string(stored[:len(prefix)]) == prefix
}
