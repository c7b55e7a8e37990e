package pause

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// Media types and file names of the OCI image layout, version 1.0.
const (
	indexType    = "application/vnd.oci.image.index.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar"
)

// nameAnnotation is where containerd looks for the reference of an imported image.
const nameAnnotation = "io.containerd.image.name"

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    *platform         `json:"platform,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

// Archive returns the pause image for an architecture as an OCI image layout in
// a tar stream, named Image: what `ctr images import` takes. Equal architectures
// give equal bytes.
func Archive(arch string) ([]byte, error) {
	program, err := Executable(arch)
	if err != nil {
		return nil, err
	}
	layer := archiveOf(file{"pause", 0o755, program})
	blobs := []file{}
	add := func(mediaType string, content []byte) descriptor {
		sum := sha256.Sum256(content)
		hash := hex.EncodeToString(sum[:])
		blobs = append(blobs, file{"blobs/sha256/" + hash, 0o644, content})
		return descriptor{MediaType: mediaType, Digest: "sha256:" + hash, Size: len(content)}
	}

	here := &platform{Architecture: arch, OS: "linux"}
	layerRef := add(layerType, layer)
	configRef := add(configType, document(map[string]any{
		"architecture": here.Architecture,
		"os":           here.OS,
		"config":       map[string]any{"Entrypoint": []string{"/pause"}, "User": "65535:65535"},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{layerRef.Digest}},
	}))
	manifestRef := add(manifestType, document(map[string]any{
		"schemaVersion": 2,
		"mediaType":     manifestType,
		"config":        configRef,
		"layers":        []descriptor{layerRef},
	}))
	manifestRef.Platform = here
	manifestRef.Annotations = map[string]string{nameAnnotation: Image}

	return archiveOf(append([]file{
		{"oci-layout", 0o644, document(map[string]any{"imageLayoutVersion": "1.0.0"})},
		{"index.json", 0o644, document(map[string]any{
			"schemaVersion": 2, "mediaType": indexType, "manifests": []descriptor{manifestRef},
		})},
	}, blobs...)...), nil
}

type file struct {
	name    string
	mode    int64
	content []byte
}

// archiveOf packs files with nothing in the headers that differs between runs.
func archiveOf(files ...file) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range files {
		err := w.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(f.content)),
			ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR,
		})
		if err == nil {
			_, err = w.Write(f.content)
		}
		if err != nil {
			panic(fmt.Sprintf("pack %s into memory: %v", f.name, err)) // short names, exact sizes: cannot fail
		}
	}
	if err := w.Close(); err != nil {
		panic(fmt.Sprintf("close an archive in memory: %v", err))
	}
	return out.Bytes()
}

// document encodes v with sorted keys, as encoding/json does for maps.
func document(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err)) // only strings, numbers and lists of them
	}
	return data
}
