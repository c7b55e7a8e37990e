package authn

import (
	"crypto/sha256"
	"sync"
	"time"
)

const (
	// tokenMemory is how long the answer about a token is remembered.
	tokenMemory = 10 * time.Second
	// maxTokens bounds how many answers are remembered.
	maxTokens = 8192
)

// tokenCache remembers successful answers. It keeps hashes of tokens, not tokens.
type tokenCache struct {
	now func() time.Time
	mu  *struct {
		sync.RWMutex
		known map[tokenHash]remembered
	}
}

type tokenHash [sha256.Size]byte

type remembered struct {
	*Verified
	until time.Time
}

func newTokenCache(now func() time.Time) tokenCache {
	c := tokenCache{now: now, mu: &struct {
		sync.RWMutex
		known map[tokenHash]remembered
	}{known: map[tokenHash]remembered{}}}
	return c
}

// tokenKey is the key of a token that is used with some audiences.
func tokenKey(token string, audiences []string) tokenHash {
	var buffer [2048]byte // most tokens fit, so that nothing is allocated
	data := append(buffer[:0], token...)
	for _, a := range audiences {
		data = append(data, 0)
		data = append(data, a...)
	}
	return sha256.Sum256(data)
}

func (c tokenCache) get(key tokenHash) *Verified {
	c.mu.RLock()
	r, ok := c.mu.known[key]
	c.mu.RUnlock()
	if !ok || !c.now().Before(r.until) {
		return nil
	}
	return r.Verified
}

func (c tokenCache) put(key tokenHash, v *Verified) {
	now := c.now()
	until := now.Add(tokenMemory)
	if !v.Expires.IsZero() && v.Expires.Before(until) {
		until = v.Expires
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.mu.known) >= maxTokens {
		for k, r := range c.mu.known {
			if !now.Before(r.until) {
				delete(c.mu.known, k)
			}
		}
		if len(c.mu.known) >= maxTokens {
			clear(c.mu.known)
		}
	}
	c.mu.known[key] = remembered{v, until}
}

func (c tokenCache) forget(key tokenHash) {
	c.mu.Lock()
	delete(c.mu.known, key)
	c.mu.Unlock()
}
