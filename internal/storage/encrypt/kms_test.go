package encrypt

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kmsapi "k8s.io/kms/apis/v2"

	"github.com/timonel/timonel/internal/storage/encrypt/kmstest"
)

// connected is a plug-in's client over a real socket, with the plug-in.
func connected(t *testing.T) (*plugin, *kmstest.Plugin, string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "kms.sock")
	fake, err := kmstest.Serve(socket, "key-1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Stop)
	p, err := newPlugin(kmsConfig{APIVersion: "v2", Name: "fake", Endpoint: "unix://" + socket, Timeout: &metav1.Duration{Duration: time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p, fake, socket
}

// other is another server with the same plug-in.
func other(t *testing.T, p *plugin) *plugin {
	t.Helper()
	o, err := newPlugin(p.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.close)
	return o
}

func mustSeal(t *testing.T, p provider, value string) []byte {
	t.Helper()
	sealed, err := p.seal(t.Context(), secretPath, []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func checkOpens(t *testing.T, p provider, sealed []byte, want string) {
	t.Helper()
	got, err := p.open(t.Context(), secretPath, sealed)
	if err != nil || string(got) != want {
		t.Errorf("opens to %q, %v, want %q", got, err, want)
	}
}

func TestKMS(t *testing.T) {
	p, fake, _ := connected(t)
	if _, err := p.seal(t.Context(), secretPath, []byte("v")); err == nil {
		t.Error("sealed without a key")
	}
	if err := p.Poll(t.Context()); err != nil || p.Healthy() != nil {
		t.Fatalf("poll: %v, healthy: %v", err, p.Healthy())
	}
	first := mustSeal(t, p, "one")
	for range 10 {
		checkOpens(t, p, mustSeal(t, p, "more"), "more")
	}
	checkOpens(t, p, first, "one")
	if fake.Encrypted != 1 || fake.Decrypted != 0 {
		t.Errorf("the plug-in encrypted %d and decrypted %d times for one seed of its own", fake.Encrypted, fake.Decrypted)
	}
	if _, err := p.open(t.Context(), secretPath+"2", first); err == nil {
		t.Error("the value of another object opens")
	}

	// Another server asks for the seed once.
	o := other(t, p)
	if err := o.Poll(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		checkOpens(t, o, first, "one")
	}
	if fake.Decrypted != 1 || o.stale(first) {
		t.Errorf("decrypted %d times; stale: %v", fake.Decrypted, o.stale(first))
	}

	// A new key makes a new seed, and what is there stale.
	if err := p.Poll(t.Context()); err != nil || fake.Encrypted != 2 {
		t.Errorf("a poll with the same key: %v, %d seeds", err, fake.Encrypted)
	}
	fake.Change(func(f *kmstest.Plugin) { f.Key = "key-2" })
	if p.stale(first) {
		t.Error("stale before the plug-in was asked")
	}
	if err := p.Poll(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := mustSeal(t, p, "two")
	if !p.stale(first) || p.stale(second) {
		t.Errorf("stale: %v and %v", p.stale(first), p.stale(second))
	}
	checkOpens(t, p, first, "one")
	checkOpens(t, o, second, "two")
	e, err := parseEnvelope(second)
	if err != nil || e.keyID != "key-2" || e.sourceType != hkdfSeed || len(e.annotations) != 1 || !bytes.HasPrefix(e.source, []byte("key-2|")) {
		t.Errorf("stored %+v, %v", e, err)
	}
}

// TestKMSReadsKeys reads what servers before 1.29 wrote: the source is the key itself. It is stale.
func TestKMSReadsKeys(t *testing.T) {
	p, _, _ := connected(t)
	if err := p.Poll(t.Context()); err != nil {
		t.Fatal(err)
	}
	secret := unhex(t, secretKey)
	flipped := make([]byte, len(secret))
	for i := range secret {
		flipped[i] = ^secret[i]
	}
	e := envelope{data: unhex(t, sealedGCM), keyID: "key-1", source: append([]byte("key-1|"), flipped...), annotations: map[string][]byte{"a.example.com": nil}}
	checkOpens(t, p, e.append(nil), "k8s\x00value")
	if !p.stale(e.append(nil)) {
		t.Error("it is not stale")
	}
}

func TestKMSTrouble(t *testing.T) {
	p, fake, socket := connected(t)
	check := func(want string, change func(*kmstest.Plugin)) {
		t.Helper()
		fake.Change(change)
		err := p.Poll(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) || p.Healthy() == nil {
			t.Errorf("poll: %v, want %s", err, want)
		}
	}
	check("expected KMSv2 API version v2, got v1", func(f *kmstest.Plugin) { f.Version = "v1" })
	check("got unexpected healthz status: tired", func(f *kmstest.Plugin) { f.Version, f.Health = "v2beta1", "tired" })
	check("keyID is empty", func(f *kmstest.Plugin) { f.Health, f.Key = "ok", "" })
	check("keyID is 2000 bytes", func(f *kmstest.Plugin) { f.Key = strings.Repeat("k", 2000) })
	check("annotation key", func(f *kmstest.Plugin) { f.Key, f.Annotations = "key-1", map[string][]byte{"bad": nil} })
	check(`encrypted with "key-0"`, func(f *kmstest.Plugin) { f.Annotations, f.EncryptWith = nil, "key-0" })
	if p.writing.Load() != nil {
		t.Error("there is a key to write with")
	}
	fake.Change(func(f *kmstest.Plugin) { f.EncryptWith = "" })
	if err := p.Poll(t.Context()); err != nil {
		t.Fatal(err)
	}
	sealed := mustSeal(t, p, "v")

	// A key that is gone fails its values alone; the plug-in is asked again each time.
	o := other(t, p)
	fake.Change(func(f *kmstest.Plugin) { f.Forgotten = "key-1" })
	for range 2 {
		if _, err := o.open(t.Context(), secretPath, sealed); err == nil || !strings.Contains(err.Error(), "key key-1 is gone") {
			t.Errorf("with a key that is gone: %v", err)
		}
	}
	fake.Change(func(f *kmstest.Plugin) { f.Forgotten = "" })

	// A plug-in that is away fails what needs it, without being waited for each time. What is known goes on.
	fake.Stop()
	for range 1000 {
		if _, err := o.open(t.Context(), secretPath, sealed); err == nil {
			t.Fatal("opened without the plug-in")
		}
	}
	if !o.missed.Load() {
		t.Error("it is not noted that a value could not be read")
	}
	checkOpens(t, p, sealed, "v")
	checkOpens(t, p, mustSeal(t, p, "w"), "w")
	if p.Poll(t.Context()) == nil || p.Healthy() == nil {
		t.Error("the plug-in is away, and well")
	}
	if err := fake.Listen(socket); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(20 * time.Second)
	for p.Poll(t.Context()) != nil && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	for time.Now().Before(deadline) {
		if _, err := o.open(t.Context(), secretPath, sealed); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	checkOpens(t, o, sealed, "v")
	if err := p.Healthy(); err != nil {
		t.Errorf("the plug-in came back: %v", err)
	}
}

// direct calls a plug-in without a connection, for tests with a fake clock.
type direct struct {
	*kmstest.Plugin
	away atomic.Bool
}

func (d *direct) Status(ctx context.Context, r *kmsapi.StatusRequest, _ ...grpc.CallOption) (*kmsapi.StatusResponse, error) {
	if d.away.Load() {
		return nil, status.Error(codes.Unavailable, "away")
	}
	return d.Plugin.Status(ctx, r)
}

func (d *direct) Encrypt(ctx context.Context, r *kmsapi.EncryptRequest, _ ...grpc.CallOption) (*kmsapi.EncryptResponse, error) {
	return d.Plugin.Encrypt(ctx, r)
}

func (d *direct) Decrypt(ctx context.Context, r *kmsapi.DecryptRequest, _ ...grpc.CallOption) (*kmsapi.DecryptResponse, error) {
	if d.away.Load() {
		return nil, status.Error(codes.Unavailable, "away")
	}
	return d.Plugin.Decrypt(ctx, r)
}

// TestKMSRuns follows a plug-in through an hour.
func TestKMSRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := &kmstest.Plugin{Key: "key-1", Health: "ok", Version: "v2"}
		client := &direct{Plugin: fake}
		p := &plugin{config: kmsConfig{Name: "fake", Timeout: &metav1.Duration{Duration: defaultTimeout}}, client: client}
		o := &plugin{config: p.config, client: client}
		if err := p.Poll(t.Context()); err != nil {
			t.Fatal(err)
		}
		sealed := mustSeal(t, p, "v")
		ctx, cancel := context.WithCancel(t.Context())
		var reported, readable atomic.Int64
		fake.Asked = 0
		go p.run(ctx, usualEvery, func(error) { reported.Add(1) }, func() {})
		go o.run(ctx, usualEvery, func(error) { reported.Add(1) }, func() { readable.Add(1) })
		later := func(d time.Duration) { time.Sleep(d); synctest.Wait() }
		defer func() { cancel(); synctest.Wait() }()

		later(time.Hour)
		if n := fake.Asked; n < 120 || n > 140 {
			t.Errorf("two servers asked %d times in an hour", n)
		}
		if reported.Load() != 0 || readable.Load() != 0 {
			t.Errorf("%d errors, %d times readable, in a quiet hour", reported.Load(), readable.Load())
		}
		mustSeal(t, p, "v")

		client.away.Store(true)
		if _, err := o.open(ctx, secretPath, sealed); err == nil {
			t.Fatal("opened without the plug-in")
		}
		later(2 * time.Minute)
		mustSeal(t, p, "v") // it was well a short while ago
		later(3 * time.Minute)
		if _, err := p.seal(ctx, secretPath, []byte("v")); err == nil || !strings.Contains(err.Error(), "expired") || !strings.Contains(err.Error(), "away") {
			t.Errorf("sealed after minutes without the plug-in: %v", err)
		}
		checkOpens(t, p, sealed, "v")
		if reported.Load() == 0 || readable.Load() != 0 {
			t.Errorf("%d errors, %d times readable, while it is away", reported.Load(), readable.Load())
		}
		client.away.Store(false)
		later(11 * time.Second)
		mustSeal(t, p, "v")
		checkOpens(t, o, sealed, "v")
		if readable.Load() != 1 {
			t.Errorf("told %d times that values can be read again", readable.Load())
		}
	})
}

// TestKMSComesBack: what is read once a poll found the plug-in well again is asked for, also if the plug-in failed a moment before.
func TestKMSComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &direct{Plugin: &kmstest.Plugin{Key: "key-1", Health: "ok", Version: "v2"}}
		p := &plugin{config: kmsConfig{Name: "fake", Timeout: &metav1.Duration{Duration: defaultTimeout}}, client: client}
		o := &plugin{config: p.config, client: client}
		if err := p.Poll(t.Context()); err != nil {
			t.Fatal(err)
		}
		sealed := mustSeal(t, p, "v")
		client.away.Store(true)
		if _, err := o.open(t.Context(), secretPath, sealed); err == nil {
			t.Fatal("opened without the plug-in")
		}
		client.away.Store(false)
		if err := o.Poll(t.Context()); err != nil {
			t.Fatal(err)
		}
		checkOpens(t, o, sealed, "v")
	})
}

func TestSeedCacheIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c seedCache
		id := func(i int) seedID { return (&envelope{keyID: fmt.Sprint(i)}).seedID() }
		for i := range 3 * maxSeeds {
			c.put(id(i), []byte{1})
		}
		if len(c.seeds) != maxSeeds || len(c.order) != maxSeeds || c.get(id(0)) != nil || c.get(id(3*maxSeeds-1)) == nil {
			t.Errorf("keeps %d seeds, %d in order", len(c.seeds), len(c.order))
		}
		time.Sleep(seedLife + time.Second)
		if c.get(id(3*maxSeeds-1)) != nil {
			t.Error("a seed is kept longer than its life")
		}
	})
}
