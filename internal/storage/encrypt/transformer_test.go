package encrypt

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/encrypt/kmstest"
	"github.com/timonel/timonel/internal/storage/storagetest"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// locate takes the first part of a key behind /registry/ for its resource, everything elsewhere for secrets.
func locate(key string) (Resource, bool) {
	if rest, ok := strings.CutPrefix(key, "/registry/"); ok {
		name, _, _ := strings.Cut(rest, "/")
		return ParseResource(name), false
	}
	return Resource{Name: "secrets"}, false
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, path string, reload bool) *Transformer {
	t.Helper()
	transformer, err := Open(t.Context(), Options{File: path, Reload: reload, Locate: locate, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	return transformer
}

const (
	gcmA = "{aesgcm: {keys: [{name: a, secret: " + key32 + "}]}}"
	boxB = "{secretbox: {keys: [{name: b, secret: " + key32 + "}]}}"
)

// TestContract: a store whose values are encrypted keeps the promises of one.
func TestContract(t *testing.T) {
	t.Parallel() // with a plug-in, whose connection knows no fake time, it waits for keys to expire
	for name, provider := range map[string]string{"aesgcm": gcmA, "aescbc": strings.Replace(gcmA, "aesgcm", "aescbc", 1), "secretbox": boxB, "identity": "{identity: {}}"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config")
			write(t, path, file("secrets", provider))
			storagetest.Run(t, func(t *testing.T) storage.Store {
				return storage.Transform(storagetest.NewMemory(), open(t, path, false))
			}, storagetest.Options{FakeTime: true})
		})
	}
	t.Run("kms", func(t *testing.T) {
		_, _, socket := connected(t)
		path := filepath.Join(t.TempDir(), "config")
		write(t, path, file("secrets", "{kms: {apiVersion: v2, name: fake, endpoint: 'unix://"+socket+"'}}"))
		storagetest.Run(t, func(t *testing.T) storage.Store {
			return storage.Transform(storagetest.NewMemory(), open(t, path, false))
		}, storagetest.Options{})
	})
}

func TestOnlyWhatIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	write(t, path, file("secrets", gcmA))
	inner := storagetest.NewMemory()
	s := storage.Transform(inner, open(t, path, false))
	stored := func(key string) string {
		t.Helper()
		if _, err := s.Commit(t.Context(), storage.Txn{Then: []storage.Op{{Key: key, Value: []byte("value")}}}); err != nil {
			t.Fatal(err)
		}
		e, err := inner.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		return string(e.Value)
	}
	if got := stored("/registry/secrets/ns/a"); !strings.HasPrefix(got, "k8s:enc:aesgcm:v1:a:") || strings.Contains(got, "value") {
		t.Errorf("the secret is stored as %q", got)
	}
	if got := stored("/registry/configmaps/ns/a"); got != "value" {
		t.Errorf("the config map is stored as %q", got)
	}
}

// TestReload rotates a key by changing the file, twice wrongly.
func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "config")
		write(t, path, file("secrets", "{identity: {}}"))
		transformer := open(t, path, true)
		var attempts []error
		transformer.options.Reloaded = func(err error) { attempts = append(attempts, err) }
		ctx, cancel := context.WithCancel(t.Context())
		readable := 0
		done := make(chan error)
		go func() { done <- transformer.Run(ctx, func() { readable++ }) }()
		defer func() {
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("run: %v", err)
			}
		}()
		stored := func() string {
			t.Helper()
			b, err := transformer.ToStore(ctx, secretPath, []byte("v"))
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		later := func(d time.Duration) { time.Sleep(d); synctest.Wait() }

		if later(time.Minute); stored() != "v" || len(attempts) != 0 {
			t.Errorf("before the change: %q, %v", stored(), attempts)
		}
		plain := []byte("v")
		write(t, path, file("secrets", gcmA+", {identity: {}}"))
		later(2 * usualEvery)
		first := []byte(stored())
		if !bytes.HasPrefix(first, []byte("k8s:enc:aesgcm:v1:a:")) || readable != 1 || len(attempts) != 1 || attempts[0] != nil {
			t.Errorf("after the change: %q, readable %d times, %v", first, readable, attempts)
		}
		if !transformer.Stale(secretPath, plain) || transformer.Stale(secretPath, first) {
			t.Error("not the plain value alone is stale")
		}

		write(t, path, "kind: nonsense")
		later(3 * usualEvery)
		if got := stored(); !strings.HasPrefix(got, "k8s:enc:aesgcm:v1:a:") || readable != 1 || len(attempts) < 2 || attempts[1] == nil {
			t.Errorf("with a wrong file: %q, readable %d times, %v", got, readable, attempts)
		}
		write(t, path, file("secrets", boxB+", "+gcmA))
		later(2 * usualEvery)
		if got := stored(); !strings.HasPrefix(got, "k8s:enc:secretbox:v1:b:") || !transformer.Stale(secretPath, first) || readable != 2 {
			t.Errorf("with the right file: %q, readable %d times", got, readable)
		}
		if got, err := transformer.FromStore(ctx, secretPath, first); err != nil || string(got) != "v" {
			t.Errorf("the old value: %q, %v", got, err)
		}
		if _, err := transformer.FromStore(ctx, secretPath, plain); !errors.Is(err, errNoPrefix) {
			t.Errorf("the plain value, without identity: %v", err)
		}
	})
}

// TestReloadKMS: a plug-in that stays keeps its seed; one that is away does not come into force.
func TestReloadKMS(t *testing.T) {
	_, fake, socket := connected(t)
	path := filepath.Join(t.TempDir(), "config")
	kms := func(name, socket string) string {
		return "{kms: {apiVersion: v2, name: " + name + ", endpoint: 'unix://" + socket + "'}}"
	}
	write(t, path, file("secrets", kms("fake", socket)))
	transformer := open(t, path, true)
	before := transformer.rules.Load().plugins[0]
	write(t, path, file("secrets, configmaps", kms("fake", socket)))
	if changed, err := transformer.reload(t.Context()); err != nil || !changed {
		t.Fatalf("reload: %v, %v", changed, err)
	}
	if now := transformer.rules.Load().plugins; len(now) != 1 || now[0] != before || fake.Encrypted != 1 {
		t.Errorf("after the change %d plug-ins, %d seeds", len(now), fake.Encrypted)
	}
	write(t, path, file("secrets", kms("new", socket+".away")+", "+kms("fake", socket)))
	if changed, err := transformer.reload(t.Context()); err == nil || changed {
		t.Errorf("a plug-in that is away: %v, %v", changed, err)
	}
	if now := transformer.rules.Load().plugins; len(now) != 1 || now[0] != before {
		t.Errorf("a plug-in that is away came into force")
	}
	second, err := kmstest.Serve(socket+".away", "key-9")
	if err != nil {
		t.Fatal(err)
	}
	defer second.Stop()
	if changed, err := transformer.reload(t.Context()); err != nil || !changed {
		t.Errorf("a plug-in that came: %v, %v", changed, err)
	}
	stored, err := transformer.ToStore(t.Context(), secretPath, []byte("v"))
	if err != nil || !bytes.HasPrefix(stored, []byte("k8s:enc:kms:v2:new:")) {
		t.Errorf("stored %q, %v", stored, err)
	}
}

func TestChecks(t *testing.T) {
	_, fake, socket := connected(t)
	path := filepath.Join(t.TempDir(), "config")
	write(t, path, file("secrets", "{kms: {apiVersion: v2, name: fake, endpoint: 'unix://"+socket+"'}}, {kms: {apiVersion: v2, name: away, endpoint: 'unix://"+socket+".away', timeout: 1s}}"))
	check := func(reload bool, want map[string]bool) {
		t.Helper()
		got := map[string]bool{}
		for _, c := range open(t, path, reload).Checks() {
			got[c.Name] = c.Probe() == nil
		}
		if len(got) != len(want) {
			t.Errorf("checks %v, want %v", got, want)
		}
		for name, well := range want {
			if got[name] != well {
				t.Errorf("checks %v, want %v", got, want)
			}
		}
	}
	check(false, map[string]bool{"kms-provider-0": true, "kms-provider-1": false})
	check(true, map[string]bool{"kms-providers": false})
	if fake.Asked == 0 {
		t.Error("the plug-in was not asked")
	}
}

func TestOpenFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	try := func(want string) {
		t.Helper()
		if _, err := Open(t.Context(), Options{File: path, Locate: locate, Log: quiet}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("open: %v, want %s", err, want)
		}
	}
	try("error while opening encryption provider configuration file")
	write(t, path, "{}")
	try("error while parsing encryption provider configuration file")
}
