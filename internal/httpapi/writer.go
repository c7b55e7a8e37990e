package httpapi

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
)

// writer is a ResponseWriter that knows what was written.
type writer struct {
	http.ResponseWriter
	status   int
	bytes    int64
	warnings warnings

	until   context.Context // when it is done a write that waits for the client fails; nil: it may wait for ever
	release func()          // undoes until; nil: no write was large enough to wait
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
	if len(b) > smallWrite && w.until != nil && w.release == nil {
		w.release = whenDone(w.until, func() { _ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now()) })
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// smallWrite fits into the buffer of a connection, and goes out after its request has ended.
const smallWrite = 4 << 10

// whenDone calls cut when ctx is done, unless release is called before. After release, cut neither runs nor will.
func whenDone(ctx context.Context, cut func()) (release func()) {
	ran := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ran)
		cut()
	})
	return func() {
		if !stop() {
			<-ran
		}
	}
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
	w        *writer
	status   int
	compress bool
	held     *[]byte // what was not sent yet; nil: nothing was written
	begun    bool    // the answer is known to be large, and its head is out
	gz       *gzip.Writer
}

// bodyChunk is how much of a large answer is written at a time.
const bodyChunk = 64 << 10

// chunks is memory for what is written at once.
var chunks = sync.Pool{New: func() any { b := make([]byte, 0, minGzip); return &b }}

// reuse gives memory back whose contents were written, to be used by any request.
func reuse(b *[]byte) {
	if cap(*b) < bodyChunk || cap(*b) > 2*minGzip {
		return
	}
	*b = (*b)[:0]
	chunks.Put(b)
}

func (b *body) Write(p []byte) (int, error) {
	if b.held == nil {
		b.held = chunks.Get().(*[]byte)
	}
	if !b.begun && len(*b.held)+len(p) >= minGzip {
		if err := b.begin(); err != nil {
			return 0, err
		}
	}
	if b.gz != nil {
		return b.gz.Write(p)
	}
	if b.begun && len(*b.held) == 0 && len(p) >= bodyChunk {
		return b.w.Write(p)
	}
	*b.held = append(*b.held, p...)
	if b.begun && len(*b.held) >= bodyChunk {
		return len(p), b.flush(b.w)
	}
	return len(p), nil
}

// flush sends what is held.
func (b *body) flush(to io.Writer) error {
	_, err := to.Write(*b.held)
	*b.held = (*b.held)[:0]
	return err
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
	b.begun = true
	if !b.compress {
		b.w.WriteHeader(b.status)
		return b.flush(b.w)
	}
	b.encoded()
	b.gz = gzips.Get().(*gzip.Writer)
	b.gz.Reset(b.w)
	b.w.WriteHeader(b.status)
	return b.flush(b.gz)
}

// Close sends what is left.
func (b *body) Close() (err error) {
	if b.held == nil {
		b.held = new([]byte)
	}
	if !b.begun {
		b.w.Header().Set("Content-Length", strconv.Itoa(len(*b.held)))
		b.w.WriteHeader(b.status)
	}
	if b.gz == nil {
		err = b.flush(b.w)
	} else if err = b.gz.Close(); err == nil {
		gzips.Put(b.gz)
	}
	reuse(b.held)
	return err
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
