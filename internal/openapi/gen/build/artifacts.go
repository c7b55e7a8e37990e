package main

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"crypto/sha512"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// artifacts writes the files; its exported fields are the index, which
// internal/openapi/store.go reads.
type artifacts struct {
	dir       string
	Documents map[string]*document `json:"documents"` // by "v2" or the v3 path without a slash in front
	Template  string               `json:"template"`
}

type document struct {
	ETag  string `json:"etag"` // upper-case hex SHA-512 of the JSON
	JSON  *form  `json:"json"`
	Proto *form  `json:"proto,omitempty"`
	// Part is what the v2 document has besides when this one, which is not served by default, is; else nil.
	Part *form `json:"part,omitempty"`
}

// form is a gzip file. Its pieces are independent runs of DEFLATE blocks,
// between which package openapi can put more.
type form struct {
	File   string  `json:"file"`
	Size   int     `json:"size"` // of the content, bytes
	Pieces []piece `json:"pieces,omitempty"`
}

type piece struct {
	Size   int    `json:"size"`   // of the content, bytes
	Packed int    `json:"packed"` // of the blocks, bytes
	CRC    uint32 `json:"crc"`    // IEEE CRC-32 of the content
}

// addV2 writes the v2 document as JSON in three pieces, cut at the ends of the
// objects paths and definitions, and as protobuf in one, after which fields of
// more paths and definitions may follow.
func (a *artifacts) addV2(swagger *spec.Swagger) error {
	doc, err := swagger.MarshalJSON()
	if err != nil {
		return err
	}
	binary, err := protoV2(doc)
	if err != nil {
		return fmt.Errorf("as protobuf: %w", err)
	}
	paths, definitions, err := memberEnds(doc)
	if err != nil {
		return err
	}
	d := &document{ETag: etag(doc)}
	if d.JSON, err = a.writePieces("v2.json.gz", doc[:paths], doc[paths:definitions], doc[definitions:]); err != nil {
		return err
	}
	if d.Proto, err = a.writePieces("v2.pb.gz", binary); err != nil {
		return err
	}
	a.Documents["v2"] = d
	return nil
}

func (a *artifacts) addV3(root string, v3 *spec3.OpenAPI) error {
	doc, err := v3.MarshalJSON()
	if err != nil {
		return err
	}
	d := &document{ETag: etag(doc), JSON: &form{File: fileName(root), Size: len(doc)}}
	a.Documents[root[1:]] = d
	return a.write(d.JSON.File, doc)
}

// addPartV2 writes the paths and definitions of own that whole does not have. Its v3 document is there already.
func (a *artifacts) addPartV2(root string, own, whole *spec.Swagger) error {
	for name := range whole.Definitions {
		delete(own.Definitions, name)
	}
	doc, err := json.Marshal(map[string]any{"paths": own.Paths.Paths, "definitions": own.Definitions})
	if err != nil {
		return err
	}
	part := &form{File: "v2/" + filepath.Base(fileName(root)), Size: len(doc)}
	a.Documents[root[1:]].Part = part
	return a.write(part.File, doc)
}

func etag(doc []byte) string {
	return fmt.Sprintf("%X", sha512.Sum512(doc))
}

// memberEnds finds the closing braces of the members paths and definitions of a document, in this order.
func memberEnds(doc []byte) (paths, definitions int, err error) {
	d := json.NewDecoder(bytes.NewReader(doc))
	if _, err := d.Token(); err != nil {
		return 0, 0, err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return 0, 0, err
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return 0, 0, err
		}
		switch end := int(d.InputOffset()) - 1; name {
		case "paths":
			paths = end
		case "definitions":
			definitions = end
		}
	}
	if paths == 0 || definitions < paths {
		return 0, 0, fmt.Errorf("members paths (ends at %d) and definitions (ends at %d) are not both there in this order", paths, definitions)
	}
	return paths, definitions, nil
}

func (a *artifacts) write(file string, content []byte) error {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, flate.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(content); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return a.writeFile(file, out.Bytes())
}

// writePieces writes a gzip file (RFC 1952) of independent pieces.
func (a *artifacts) writePieces(file string, contents ...[]byte) (*form, error) {
	out := bytes.NewBuffer([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255})
	f, sum := &form{File: file}, crc32.NewIEEE()
	for _, content := range contents {
		before := out.Len()
		z, err := flate.NewWriter(out, flate.BestCompression)
		if err != nil {
			return nil, err
		}
		if _, err := z.Write(content); err != nil {
			return nil, err
		}
		if err := z.Flush(); err != nil { // ends on a byte, without a last block
			return nil, err
		}
		sum.Write(content)
		f.Size += len(content)
		f.Pieces = append(f.Pieces, piece{Size: len(content), Packed: out.Len() - before, CRC: crc32.ChecksumIEEE(content)})
	}
	out.Write([]byte{3, 0}) // an empty last block
	out.Write(binary.LittleEndian.AppendUint32(nil, sum.Sum32()))
	out.Write(binary.LittleEndian.AppendUint32(nil, uint32(f.Size)))
	return f, a.writeFile(file, out.Bytes())
}

func (a *artifacts) writeFile(file string, content []byte) error {
	path := filepath.Join(a.dir, file)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o644)
}

func (a *artifacts) writeIndex() error {
	content, err := json.MarshalIndent(a, "", " ")
	if err != nil {
		return err
	}
	return a.writeFile("index.json", append(content, '\n'))
}
