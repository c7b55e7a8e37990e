package openapi

import (
	"hash/crc32"
	"testing"
)

func FuzzCombineCRC(f *testing.F) {
	f.Add([]byte(""), []byte(""))
	f.Add([]byte("a"), []byte(""))
	f.Add([]byte(""), []byte("b"))
	f.Add([]byte("hello, "), []byte("world"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		got := combineCRC(crc32.ChecksumIEEE(a), crc32.ChecksumIEEE(b), len(b))
		if want := crc32.ChecksumIEEE(append(append([]byte{}, a...), b...)); got != want {
			t.Errorf("combineCRC of %q and %q = %#x, want %#x", a, b, got, want)
		}
	})
}
