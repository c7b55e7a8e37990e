package encrypt

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"
)

const (
	// storedEnvelope is an EncryptedObject of sealedSeed, storedKey one of sealedGCM as servers before 1.29 wrote it.
	storedEnvelope = "0a45" + sealedSeed + "12056b65792d311a06736f7572636522120a0d612e6578616d706c652e636f6d1201782801"
	storedKey      = "0a25" + sealedGCM + "12056b65792d311a06736f75726365"
)

func TestEnvelope(t *testing.T) {
	check := func(stored, annotation string, kind sourceType) {
		t.Helper()
		e, err := parseEnvelope(unhex(t, stored))
		if err != nil {
			t.Fatal(err)
		}
		if e.keyID != "key-1" || string(e.source) != "source" || e.sourceType != kind || string(e.annotations["a.example.com"]) != annotation {
			t.Errorf("%s reads as %+v", stored, e)
		}
		value, err := e.openWith(unhex(t, secretKey), secretPath)
		if err != nil || string(value) != "k8s\x00value" {
			t.Errorf("it opens to %q, %v", value, err)
		}
		if again := e.append(nil); !bytes.Equal(again, unhex(t, stored)) {
			t.Errorf("%s is written back as %x", stored, again)
		}
	}
	check(storedEnvelope, "x", hkdfSeed)
	check(storedKey, "", aesGCMKey)
}

func TestEnvelopeRefused(t *testing.T) {
	good := envelope{data: []byte("d"), keyID: "k", source: []byte("s"), annotations: map[string][]byte{"a.example.com": nil}, sourceType: hkdfSeed}
	if _, err := parseEnvelope(good.append(nil)); err != nil {
		t.Fatal(err)
	}
	check := func(want string, change func(*envelope)) {
		t.Helper()
		e := good
		e.annotations = maps.Clone(good.annotations)
		change(&e)
		if _, err := parseEnvelope(e.append(nil)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	check("encrypted data is empty", func(e *envelope) { e.data = nil })
	check("keyID is empty", func(e *envelope) { e.keyID = "" })
	check("keyID is 1025 bytes", func(e *envelope) { e.keyID = strings.Repeat("k", 1025) })
	check("source is empty", func(e *envelope) { e.source = nil })
	check("source is 1025 bytes", func(e *envelope) { e.source = make([]byte, 1025) })
	check("annotation key", func(e *envelope) { e.annotations["nodots"] = nil })
	check("total size of annotations", func(e *envelope) { e.annotations["b.example.com"] = make([]byte, maxAnnotations) })
	check("unknown encryptedDEKSourceType: 2", func(e *envelope) { e.sourceType = 2 })
}

// FuzzParseEnvelope: what parses is written back to something that parses to the same.
func FuzzParseEnvelope(f *testing.F) {
	f.Add(unhex(f, storedEnvelope))
	f.Add(unhex(f, storedKey))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseEnvelope(b)
		if err != nil {
			return
		}
		again, err := parseEnvelope(e.append(nil))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.data, e.data) || again.keyID != e.keyID || !bytes.Equal(again.source, e.source) || again.sourceType != e.sourceType ||
			!slices.Equal(slices.Sorted(maps.Keys(again.annotations)), slices.Sorted(maps.Keys(e.annotations))) || again.seedID() != e.seedID() {
			t.Errorf("%+v becomes %+v", e, again)
		}
		_, _ = e.openWith(unhex(t, secretKey), secretPath)
	})
}
