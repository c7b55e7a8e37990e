package openapi

import (
	"compress/gzip"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"sync"
)

//go:embed documents
var files embed.FS

// index is documents/index.json; gen/build/artifacts.go writes it.
type index struct {
	Documents map[string]*document `json:"documents"` // by "v2" or the v3 path without a slash in front
	Template  string               `json:"template"`
}

type document struct {
	ETag  string `json:"etag"` // upper-case hex SHA-512 of the JSON
	JSON  *form  `json:"json"`
	Proto *form  `json:"proto"`
	// Part is what the v2 document has besides when this one is served; nil: it is served by default.
	Part *form `json:"part"`
}

// form is a gzip file; pieces are independent runs of DEFLATE blocks in it.
type form struct {
	File   string  `json:"file"`
	Size   int     `json:"size"` // of the content, bytes
	Pieces []piece `json:"pieces"`
}

type piece struct {
	Size   int    `json:"size"`   // of the content, bytes
	Packed int    `json:"packed"` // of the blocks, bytes
	CRC    uint32 `json:"crc"`    // IEEE CRC-32 of the content
}

// builtIn reads the index on the first request.
var builtIn = sync.OnceValue(func() *index {
	i := &index{}
	content, err := files.ReadFile("documents/index.json")
	if err == nil {
		err = json.Unmarshal(content, i)
	}
	if err != nil {
		panic(fmt.Errorf("the embedded OpenAPI index: %w", err)) // the build is broken, and a test says so
	}
	return i
})

// open returns the file as it is, which is gzip.
func open(name string) (io.ReadSeekCloser, int64, error) {
	f, err := files.Open("documents/" + name)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	s, ok := f.(io.ReadSeekCloser)
	if !ok {
		return nil, 0, &fs.PathError{Op: "seek", Path: name, Err: fs.ErrInvalid}
	}
	return s, info.Size(), nil
}

// openPlain returns the file's content.
func openPlain(name string) (io.ReadCloser, error) {
	f, _, err := open(name)
	if err != nil {
		return nil, err
	}
	return gzip.NewReader(f)
}

func (f *form) plain() body {
	return body{size: int64(f.Size), open: func() (io.Reader, error) { return openPlain(f.File) }}
}

func (f *form) packed() (body, error) {
	s, size, err := open(f.File)
	if err != nil {
		return body{}, err
	}
	return body{size: size, open: func() (io.Reader, error) {
		_, err := s.Seek(0, io.SeekStart)
		return s, err
	}}, nil
}

// content reads the whole plain content.
func (f *form) content() ([]byte, error) {
	r, err := openPlain(f.File)
	if err != nil {
		return nil, err
	}
	out := make([]byte, f.Size)
	if _, err := io.ReadFull(r, out); err != nil {
		return nil, fmt.Errorf("the embedded OpenAPI document %s: %w", f.File, err)
	}
	return out, nil
}
