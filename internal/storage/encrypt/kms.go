package encrypt

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	kmsapi "k8s.io/kms/apis/v2"
)

// plugin is a provider whose keys a KMS plug-in (k8s.io/kms/apis/v2) encrypts.
//
// The value is encrypted here, with keys of a seed that the plug-in encrypted, once; so writes never wait for it, and reads only for a
// seed that was not met before. Status is asked for about once a minute: it says whether the plug-in is well, and
// which key it uses. With a new key comes a new seed, and what the old one encrypted is stale.
//
// A plug-in that has not been well for some minutes must not be written with any more: its key may have been
// revoked.
type plugin struct {
	config kmsConfig
	name   string // prefix
	conn   *grpc.ClientConn
	client kmsapi.KeyManagementServiceClient

	writing atomic.Pointer[writeKey] // nil: there never was one
	seeds   seedCache
	quiet   atomic.Int64 // no decryption is tried before (unix ns): the plug-in has just not answered
	missed  atomic.Bool  // a value could not be read because a seed could not be decrypted

	polling sync.Mutex
	health  atomic.Pointer[error] // of the last poll; nil: none yet
}

// writeKey is what values are encrypted with.
type writeKey struct {
	seed        seed
	source      []byte // the seed, as the plug-in encrypted it
	keyID       string
	annotations map[string][]byte
	until       time.Time // it may be used
}

const (
	pollWell = time.Minute // between polls of a plug-in that is well

	// writeKeyLife is how long a key is used after the plug-in was last well.
	writeKeyLife = 3 * time.Minute

	// breather is how long decryption fails at once after the plug-in did not answer.
	breather = time.Second

	// reconnect bounds the wait between attempts to connect.
	reconnect = time.Second
)

func newPlugin(config kmsConfig) (*plugin, error) {
	target, err := dialTarget(config.Endpoint)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{
			BaseDelay: reconnect / 10, Multiplier: 2, Jitter: 0.2, MaxDelay: reconnect,
		}, MinConnectTimeout: config.Timeout.Duration}))
	if err != nil {
		return nil, fmt.Errorf("KMS provider %s: %w", config.Name, err)
	}
	return &plugin{config: config, name: prefix + "kms:v2:" + config.Name + ":", conn: conn, client: kmsapi.NewKeyManagementServiceClient(conn)}, nil
}

func (p *plugin) prefix() string { return p.name }

func (p *plugin) seal(_ context.Context, key string, value []byte) ([]byte, error) {
	w := p.writing.Load()
	switch {
	case w == nil:
		return nil, errors.Join(fmt.Errorf("KMS provider %s has no key to encrypt with", p.config.Name), p.Healthy())
	case time.Now().After(w.until):
		return nil, errors.Join(fmt.Errorf("KMS provider %s: the encryption key expired at %s", p.config.Name, w.until.Format(time.RFC3339)), p.Healthy())
	}
	data, err := w.seed.seal(key, value)
	if err != nil {
		return nil, err
	}
	e := envelope{data: data, keyID: w.keyID, source: w.source, annotations: w.annotations, sourceType: hkdfSeed}
	return e.append(make([]byte, 0, len(data)+len(w.keyID)+len(w.source)+64)), nil
}

func (p *plugin) open(ctx context.Context, key string, sealed []byte) ([]byte, error) {
	e, err := parseEnvelope(sealed)
	if err != nil {
		return nil, err
	}
	secret, err := p.decrypt(ctx, e)
	if err != nil {
		return nil, err
	}
	return e.openWith(secret, key)
}

func (p *plugin) stale(sealed []byte) bool {
	e, err := parseEnvelope(sealed)
	if err != nil {
		return true
	}
	w := p.writing.Load()
	return w != nil && (e.keyID != w.keyID || e.sourceType != hkdfSeed)
}

// decrypt returns what the source of an envelope was.
func (p *plugin) decrypt(ctx context.Context, e *envelope) ([]byte, error) {
	id := e.seedID()
	if secret := p.seeds.get(id); secret != nil {
		return secret, nil
	}
	if time.Now().UnixNano() < p.quiet.Load() {
		p.missed.Store(true)
		return nil, fmt.Errorf("failed to decrypt DEK: KMS provider %s does not answer", p.config.Name)
	}
	ctx, cancel := context.WithTimeout(ctx, p.config.Timeout.Duration)
	defer cancel()
	resp, err := p.client.Decrypt(ctx, &kmsapi.DecryptRequest{
		Ciphertext: e.source, Uid: uuid.NewString(), KeyId: e.keyID, Annotations: e.annotations,
	})
	if err != nil {
		p.missed.Store(true)
		if code := status.Code(err); code == codes.Unavailable || code == codes.DeadlineExceeded {
			p.quiet.Store(time.Now().Add(breather).UnixNano())
		}
		return nil, fmt.Errorf("failed to decrypt DEK, error: %w", err)
	}
	if len(resp.Plaintext) == 0 {
		return nil, errors.New("failed to decrypt DEK: the KMS provider answered nothing")
	}
	p.seeds.put(id, resp.Plaintext)
	return resp.Plaintext, nil
}

// Poll asks how the plug-in is, and makes a new seed when its key is another one.
func (p *plugin) Poll(ctx context.Context) error {
	p.polling.Lock()
	defer p.polling.Unlock()
	err := p.poll(ctx)
	if err != nil {
		err = fmt.Errorf("KMS provider %s: %w", p.config.Name, err)
	} else {
		p.quiet.Store(0) // it answers: what is read from now on is asked for
	}
	p.health.Store(&err)
	return err
}

func (p *plugin) poll(ctx context.Context) error {
	now := time.Now()
	call, cancel := context.WithTimeout(ctx, p.config.Timeout.Duration)
	defer cancel()
	answer, err := p.client.Status(call, &kmsapi.StatusRequest{})
	switch {
	case err != nil:
		return fmt.Errorf("status: %w", err)
	case answer.Version != "v2" && answer.Version != "v2beta1":
		return fmt.Errorf("expected KMSv2 API version v2, got %s", answer.Version)
	case answer.Healthz != "ok":
		return fmt.Errorf("got unexpected healthz status: %s", answer.Healthz)
	}
	if err := checkKeyID(answer.KeyId); err != nil {
		return fmt.Errorf("status: %w", err)
	}
	if w := p.writing.Load(); w != nil && w.keyID == answer.KeyId {
		next := *w
		next.until = now.Add(writeKeyLife)
		p.writing.Store(&next)
		return nil
	}
	return p.rotate(ctx, answer.KeyId, now)
}

// rotate makes a seed that the plug-in encrypts with its key.
func (p *plugin) rotate(ctx context.Context, keyID string, now time.Time) error {
	call, cancel := context.WithTimeout(ctx, p.config.Timeout.Duration)
	defer cancel()
	w := &writeKey{seed: newSeed(), until: now.Add(writeKeyLife)}
	answer, err := p.client.Encrypt(call, &kmsapi.EncryptRequest{Plaintext: w.seed, Uid: uuid.NewString()})
	if err != nil {
		return fmt.Errorf("failed to encrypt DEK, error: %w", err)
	}
	w.source, w.keyID, w.annotations = answer.Ciphertext, answer.KeyId, answer.Annotations
	if err := checkSource(w.keyID, w.source, w.annotations); err != nil {
		return fmt.Errorf("failed to encrypt DEK: %w", err)
	}
	if w.keyID != keyID {
		return fmt.Errorf("its status says that it uses the key %q, and it encrypted with %q", keyID, w.keyID)
	}
	p.seeds.put((&envelope{keyID: w.keyID, source: w.source, annotations: w.annotations, sourceType: hkdfSeed}).seedID(), w.seed)
	p.writing.Store(w)
	return nil
}

// run polls until ctx ends, and each ill while the plug-in is not well. readable is called when values may have become readable.
func (p *plugin) run(ctx context.Context, ill time.Duration, report func(error), readable func()) {
	for {
		every := pollWell
		if p.Healthy() != nil {
			every = ill
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(every - rand.N(every/10)):
		}
		if err := p.Poll(ctx); ctx.Err() != nil {
			return
		} else if err != nil {
			report(err)
		} else if p.missed.Swap(false) {
			readable()
		}
	}
}

var errNotAsked = errors.New("it was not asked for its status yet")

// Healthy says how the plug-in was when it was last asked.
func (p *plugin) Healthy() error {
	if err := p.health.Load(); err != nil {
		return *err
	}
	return errNotAsked
}

func (p *plugin) close() { p.conn.Close() }

// seedID is what a decrypted seed is kept under.
type seedID [sha256.Size]byte

// seedID covers all that the plug-in needs to decrypt the source.
func (e *envelope) seedID() seedID {
	h := sha256.New()
	part := func(b []byte) {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(b)))
		h.Write(size[:])
		h.Write(b)
	}
	part(e.source)
	part([]byte(e.keyID))
	part([]byte{byte(e.sourceType)})
	for _, name := range slices.Sorted(maps.Keys(e.annotations)) {
		part([]byte(name))
		part(e.annotations[name])
	}
	return seedID(h.Sum(nil))
}

// seedCache keeps decrypted seeds: the newest maxSeeds of them, for seedLife.
type seedCache struct {
	mu    sync.Mutex
	seeds map[seedID]cachedSeed
	order []seedID // as they came
}

type cachedSeed struct {
	secret []byte
	until  time.Time
}

const (
	maxSeeds = 1000
	seedLife = 24 * time.Hour
)

func (c *seedCache) get(id seedID) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.seeds[id]
	if !ok || time.Now().After(s.until) {
		return nil
	}
	return s.secret
}

func (c *seedCache) put(id seedID, secret []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seeds == nil {
		c.seeds = map[seedID]cachedSeed{}
	}
	if _, known := c.seeds[id]; !known {
		if len(c.order) == maxSeeds {
			delete(c.seeds, c.order[0])
			c.order = append(c.order[:0], c.order[1:]...)
		}
		c.order = append(c.order, id)
	}
	c.seeds[id] = cachedSeed{secret, time.Now().Add(seedLife)}
}
