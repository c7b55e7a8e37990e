package httpapi

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// writer is a ResponseWriter that knows what was written.
type writer struct {
	http.ResponseWriter
	status   int
	bytes    int64
	failed   bool // a write failed
	warnings warnings
}

func (w *writer) wrote() bool { return w.status != 0 }

func (w *writer) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.failed = w.failed || err != nil
	w.bytes += int64(n)
	return n, err
}

// Flush, Hijack and Unwrap let streams work through the wrapper.
func (w *writer) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

func (w *writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.status == 0 {
		w.status = http.StatusSwitchingProtocols
	}
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// warn adds a Warning header.
func (w *writer) warn(text string) { w.warnings.add(w.Header(), text) }

// minGzip is the smallest answer that is compressed (kube-apiserver's limit).
const minGzip = 128 << 10

// level 1 is what kube-apiserver uses: fast.
var gzips = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(io.Discard, 1)
	return z
}}

// body collects an answer of unknown size: a small one goes out with its length,
// a large one as it is made, compressed if the client takes it.
type body struct {
	w        http.ResponseWriter
	status   int
	compress bool
	held     bytes.Buffer
	out      io.Writer // set once the answer is known to be large
	gz       *gzip.Writer
}

// chunks is memory for what is written at once.
var chunks = sync.Pool{New: func() any { b := make([]byte, 0, bodyChunk+bodyChunk/4); return &b }}

// reuse gives memory back whose contents were written, to be used by any request.
//
// Invariant: that is so only if no write failed. When the client resets its stream, HTTP/2 lets a write return while its frame is still
// on the way: what the next request puts there could go out to the wrong client.
func (x *exchange) reuse(b *[]byte) {
	if x.w.failed || cap(*b) > 2*bodyChunk {
		return
	}
	*b = (*b)[:0]
	chunks.Put(b)
}

// bodyChunk is how much of a large answer is written at a time.
const bodyChunk = 64 << 10

func (b *body) Write(p []byte) (int, error) {
	if b.out == nil {
		if b.held.Len()+len(p) < minGzip {
			return b.held.Write(p)
		}
		if err := b.begin(); err != nil {
			return 0, err
		}
	}
	return b.out.Write(p)
}

// compressed says that what is written is compressed already.
func (b *body) compressed() {
	b.encoded()
	b.compress = false
}

func (b *body) encoded() {
	b.w.Header().Set("Content-Encoding", "gzip")
	b.w.Header().Add("Vary", "Accept-Encoding")
}

// begin starts a large answer.
func (b *body) begin() error {
	if b.compress {
		b.encoded()
		b.gz = gzips.Get().(*gzip.Writer)
		b.gz.Reset(b.w)
		b.out = b.gz
	} else {
		b.out = bufio.NewWriterSize(b.w, bodyChunk)
	}
	b.w.WriteHeader(b.status)
	_, err := b.out.Write(b.held.Bytes())
	b.held = bytes.Buffer{}
	return err
}

// Close sends what is left.
func (b *body) Close() error {
	if b.out == nil {
		b.w.Header().Set("Content-Length", strconv.Itoa(b.held.Len()))
		b.w.WriteHeader(b.status)
		_, err := b.w.Write(b.held.Bytes())
		return err
	}
	if b.gz != nil {
		err := b.gz.Close()
		if err == nil { // see reuse
			gzips.Put(b.gz)
		}
		return err
	}
	return b.out.(*bufio.Writer).Flush()
}

// acceptsGzip reads Accept-Encoding (RFC 9110, section 12.5.3).
func acceptsGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		coding, params, _ := strings.Cut(strings.TrimSpace(part), ";")
		if coding == "gzip" && strings.ReplaceAll(params, " ", "") != "q=0" {
			return true
		}
	}
	return false
}
