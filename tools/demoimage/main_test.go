package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func TestPack(t *testing.T) {
	dir := t.TempDir()
	program, script := filepath.Join(dir, "demo"), filepath.Join(dir, "script")
	for path, content := range map[string][]byte{program: executable(0), script: []byte("#!/bin/sh")} {
		if err := os.WriteFile(path, content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dynamic := filepath.Join(dir, "dynamic")
	if err := os.WriteFile(dynamic, executable(elf.PT_INTERP), 0o755); err != nil {
		t.Fatal(err)
	}
	var archives [2][]byte
	for i := range archives {
		out := filepath.Join(dir, "demo.tar")
		if err := pack(program, out, "timonel.dev/demo:v1", "arm64", []string{"sh", "ls"}); err != nil {
			t.Fatal(err)
		}
		img, err := tarball.ImageFromPath(out, nil)
		if err != nil {
			t.Fatal(err)
		}
		config, err := img.ConfigFile()
		if err != nil || config.Architecture != "arm64" || config.Config.User != "65532:65532" || config.Config.Entrypoint[0] != "/demo" {
			t.Errorf("got %+v, %v", config, err)
		}
		if archives[i], err = os.ReadFile(out); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("equal programs give different archives")
	}
	for _, bad := range []struct{ program, image, arch string }{
		{filepath.Join(dir, "none"), "a/b:c", "amd64"},
		{program, "not an image", "amd64"},
		{program, "a/b:c", ""}, // not a Go program: it cannot say
		{script, "a/b:c", "amd64"},
		{dynamic, "a/b:c", "amd64"},
	} {
		if err := pack(bad.program, filepath.Join(dir, "bad.tar"), bad.image, bad.arch, nil); err == nil {
			t.Errorf("%+v: packed", bad)
		}
	}
}

// executable is an ELF file with one segment.
func executable(kind elf.ProgType) []byte {
	var out bytes.Buffer
	binary.Write(&out, binary.LittleEndian, elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1,
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	})
	binary.Write(&out, binary.LittleEndian, elf.Prog64{Type: uint32(kind)})
	return out.Bytes()
}
