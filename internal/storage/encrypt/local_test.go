package encrypt

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

const (
	secretKey  = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	secretPath = "/registry/secrets/ns/a"
	sealedGCM  = "000102030405060708090a0b2c3aa51bb384ae6ee8a92026c1d80f2c29eb97ade949853224"
	sealedCBC  = "000102030405060708090a0b0c0d0e0feb2364a542e8d69e26638c6a70a83bb9"
	sealedCBC2 = "000102030405060708090a0b0c0d0e0fa1848c42bb8b5e1a46acd958ccfec54fa0b8c3327fd78f5ba3f75af79f4834b8"
	sealedSeed = "6465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f80818283000102030405060708090a0bc74ba6dad578a10563a7ecf1277248ecb070cce715c76f6a93"
)

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func locals(t testing.TB) map[string]provider {
	t.Helper()
	secret := unhex(t, secretKey)
	gcm, err := newAESGCM("g:", secret)
	if err != nil {
		t.Fatal(err)
	}
	cbc, err := newAESCBC("c:", secret)
	if err != nil {
		t.Fatal(err)
	}
	short, err := newAESCBC("s:", secret[:16])
	if err != nil {
		t.Fatal(err)
	}
	box := newSecretBox("b:", unhex(t, "1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389"))
	return map[string]provider{"aesgcm": gcm, "aescbc": cbc, "aescbc of 16 bytes": short, "secretbox": box}
}

// TestKnownAnswers opens what other implementations sealed: OpenSSL's AES, and for secretbox the vector of NaCl's own tests.
func TestKnownAnswers(t *testing.T) {
	all := locals(t)
	check := func(name, sealed string, want []byte) {
		t.Helper()
		got, err := all[name].open(t.Context(), secretPath, unhex(t, sealed))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
	value := []byte("k8s\x00value")
	check("aesgcm", sealedGCM, value)
	check("aescbc", sealedCBC, value)
	check("aescbc of 16 bytes", sealedCBC2, []byte("0123456789abcdef"))
	check("secretbox", "69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37"+
		"f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186ac0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2"+
		"270d6fb863d51738b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5",
		unhex(t, "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f41db66cce314adb31"+
			"0e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705"))

	got, err := seed(unhex(t, secretKey)).open(secretPath, unhex(t, sealedSeed))
	if err != nil || !bytes.Equal(got, value) {
		t.Errorf("seed: %q, %v", got, err)
	}
}

// TestSealOpen: what is sealed opens to the same, sealed twice it looks different, and damaged it does not open.
func TestSealOpen(t *testing.T) {
	for name, p := range locals(t) {
		for _, size := range []int{0, 1, 15, 16, 17, 1000, 100_000} {
			value := bytes.Repeat([]byte{'v'}, size)
			sealed, err := p.seal(t.Context(), secretPath, value)
			if err != nil {
				t.Fatal(err)
			}
			got, err := p.open(t.Context(), secretPath, sealed)
			if err != nil || got == nil || !bytes.Equal(got, value) {
				t.Errorf("%s: %d bytes come back as %d, nil %v, %v", name, size, len(got), got == nil, err)
			}
			again, _ := p.seal(t.Context(), secretPath, value)
			if bytes.Equal(sealed, again) || size > 0 && bytes.Contains(sealed, value[:min(size, 16)]) && size > 15 {
				t.Errorf("%s: %d bytes are not hidden", name, size)
			}
			if !bytes.Equal(value, bytes.Repeat([]byte{'v'}, size)) {
				t.Errorf("%s changed the value", name)
			}
			for _, cut := range []int{0, 1, 11, 12, 16, 24, len(sealed) - 1} {
				if got, err := p.open(t.Context(), secretPath, sealed[:min(cut, len(sealed))]); err == nil {
					t.Errorf("%s: %d of %d bytes open to %q", name, cut, len(sealed), got)
				}
			}
			if strings.HasPrefix(name, "aescbc") {
				continue // it authenticates nothing
			}
			sealed[len(sealed)-1] ^= 1
			if _, err := p.open(t.Context(), secretPath, sealed); err == nil {
				t.Errorf("%s opens what was changed", name)
			}
		}
	}
	sealed, _ := locals(t)["aesgcm"].seal(t.Context(), secretPath, []byte("v"))
	if _, err := locals(t)["aesgcm"].open(t.Context(), secretPath+"2", sealed); err == nil {
		t.Error("aesgcm opens the value of another object")
	}
}

func TestProvidersReadAndWrite(t *testing.T) {
	all := locals(t)
	p := providers{all["aesgcm"], all["secretbox"], identity{}}
	stored, err := p.seal(t.Context(), secretPath, []byte("v"))
	if err != nil || !bytes.HasPrefix(stored, []byte("g:")) {
		t.Fatalf("stored %q, %v", stored, err)
	}
	old, _ := p[1:].seal(t.Context(), secretPath, []byte("v"))
	check := func(what string, p providers, stored []byte, stale bool, problem error) {
		t.Helper()
		value, err := p.open(t.Context(), secretPath, stored)
		if !errors.Is(err, problem) || problem == nil && string(value) != "v" {
			t.Errorf("%s: %q, %v", what, value, err)
		}
		if got := p.stale(stored); got != stale {
			t.Errorf("%s: stale %v", what, got)
		}
	}
	check("of the first", p, stored, false, nil)
	check("of the second", p, old, true, nil)
	check("plain", p, []byte("v"), true, nil)
	check("plain, when that comes first", providers{identity{}, all["aesgcm"]}, []byte("v"), false, nil)
	check("plain, without identity", p[:2], []byte("v"), true, errNoPrefix)
	check("of none", p, []byte("k8s:enc:aescbc:v1:x:0"), true, errIdentity)
	check("of none, and no identity", p[:2], []byte("k8s:enc:aescbc:v1:x:0"), true, errNoPrefix)
	check("without rules", plain, []byte("k8s:enc:x"), true, errIdentity)
}

func FuzzOpen(f *testing.F) {
	for _, text := range []string{sealedGCM, sealedCBC, sealedCBC2, sealedSeed, ""} {
		f.Add(unhex(f, text))
	}
	all := locals(f)
	f.Fuzz(func(t *testing.T, sealed []byte) {
		for name, p := range all {
			before := bytes.Clone(sealed)
			value, err := p.open(t.Context(), secretPath, sealed)
			if err == nil && len(value) >= len(sealed) {
				t.Errorf("%s opens %d bytes to %d", name, len(sealed), len(value))
			}
			if !bytes.Equal(before, sealed) {
				t.Errorf("%s changes what is stored", name)
			}
		}
		_, _ = seed(sealed).open(secretPath, sealed)
	})
}
