package http2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// peer is a client that sends whatever a test wants.
type peer struct {
	testing.TB
	net.Conn
	*http2.Framer
	done  chan struct{} // the server has let go of the connection
	block bytes.Buffer
	pack  *hpack.Encoder
}

// small is a server with narrow bounds.
func small() *Server {
	return &Server{MaxStreams: 3, Window: 32 << 10, MaxHeaderBytes: 4 << 10, IdleTimeout: time.Minute}
}

// play runs body in a bubble of fake time, as the client of a connection that handler serves.
func play(t *testing.T, handler http.HandlerFunc, body func(p *peer, s *Server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := small()
		p := dial(t, s, handler)
		defer func() {
			_ = p.Close()
			<-p.done
			s.Shutdown()
		}()
		p.open()
		body(p, s)
	})
}

func dial(t testing.TB, s *Server, handler http.HandlerFunc) *peer {
	client, server := pipe()
	p := &peer{TB: t, Conn: client, Framer: http2.NewFramer(client, client), done: make(chan struct{})}
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.pack = hpack.NewEncoder(&p.block)
	go func() {
		defer close(p.done)
		s.Serve(context.Background(), server, nil, handler)
	}()
	return p
}

func (p *peer) open(settings ...http2.Setting) {
	p.Helper()
	p.send([]byte(preface))
	p.check(p.WriteSettings(settings...))
	if f := p.next(); f.Header().Type != http2.FrameSettings {
		p.Fatalf("the server begins with %v", f)
	}
	if f := p.next(); f.Header().Type != http2.FrameWindowUpdate {
		p.Fatalf("and then %v", f)
	}
	if f := p.next().(*http2.SettingsFrame); !f.IsAck() {
		p.Fatal("the settings are not acknowledged")
	}
	p.check(p.WriteSettingsAck())
}

func (p *peer) send(b []byte) {
	p.Helper()
	_, err := p.Write(b)
	p.check(err)
}

func (p *peer) check(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

func (p *peer) next() http2.Frame {
	p.Helper()
	f, err := p.ReadFrame()
	p.check(err)
	return f
}

// ask sends the head of a request.
func (p *peer) ask(id uint32, end bool, fields ...string) {
	p.Helper()
	if len(fields) == 0 {
		fields = []string{":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/"}
	}
	p.check(p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndStream: end, EndHeaders: true, BlockFragment: p.encode(fields...)}))
}

func (p *peer) encode(fields ...string) []byte {
	p.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = p.pack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(p.block.Bytes())
}

// answer reads a whole answer: its fields in short, and its body.
func (p *peer) answer(id uint32) string {
	p.Helper()
	var b strings.Builder
	for {
		switch f := p.next().(type) {
		case *http2.MetaHeadersFrame:
			fmt.Fprintf(&b, "[%s]", f.PseudoValue("status"))
			for _, field := range f.RegularFields() {
				if strings.HasPrefix(field.Name, "x-") {
					fmt.Fprintf(&b, "%s=%s ", field.Name, field.Value)
				}
			}
			if f.StreamEnded() {
				return b.String()
			}
		case *http2.DataFrame:
			b.Write(f.Data())
			if f.StreamEnded() {
				return b.String()
			}
		case *http2.RSTStreamFrame:
			return b.String() + " reset: " + f.ErrCode.String()
		case *http2.GoAwayFrame:
			return b.String() + " gone: " + f.ErrCode.String()
		}
	}
}

func hello(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	_, _ = io.WriteString(w, "hello")
}

// What breaks the rules ends its stream or its connection, with the code that RFC 9113 names, and no other stream.
func TestBadRequests(t *testing.T) {
	get := []string{":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/"}
	with := func(more ...string) []string { return append(get[:8:8], more...) }
	for name, test := range map[string]struct {
		send func(p *peer)
		want string
	}{
		"connection field":    {func(p *peer) { p.ask(1, true, with("connection", "close")...) }, " reset: PROTOCOL_ERROR"},
		"te":                  {func(p *peer) { p.ask(1, true, with("te", "gzip")...) }, " reset: PROTOCOL_ERROR"},
		"te trailers":         {func(p *peer) { p.ask(1, true, with("te", "trailers")...) }, "[200]hello"},
		"capital":             {func(p *peer) { p.ask(1, true, with("Accept", "x")...) }, " reset: PROTOCOL_ERROR"},
		"newline":             {func(p *peer) { p.ask(1, true, with("accept", "x\ny")...) }, " reset: PROTOCOL_ERROR"},
		"no path":             {func(p *peer) { p.ask(1, true, get[:6]...) }, " reset: PROTOCOL_ERROR"},
		"relative path":       {func(p *peer) { p.ask(1, true, ":method", "GET", ":scheme", "https", ":path", "a") }, " reset: PROTOCOL_ERROR"},
		"path twice":          {func(p *peer) { p.ask(1, true, append(get[:8:8], ":path", "/b")...) }, " reset: PROTOCOL_ERROR"},
		"late pseudo":         {func(p *peer) { p.ask(1, true, append([]string{"a", "b"}, get...)...) }, " reset: PROTOCOL_ERROR"},
		"unknown pseudo":      {func(p *peer) { p.ask(1, true, append(get[:8:8], ":protocol", "websocket")...) }, " reset: PROTOCOL_ERROR"},
		"method":              {func(p *peer) { p.ask(1, true, ":method", "G T", ":scheme", "https", ":path", "/") }, " reset: PROTOCOL_ERROR"},
		"host":                {func(p *peer) { p.ask(1, true, ":method", "GET", ":scheme", "https", ":authority", "a b", ":path", "/") }, " reset: PROTOCOL_ERROR"},
		"length that is none": {func(p *peer) { p.ask(1, true, with("content-length", "-1")...) }, " reset: PROTOCOL_ERROR"},
		"length without body": {func(p *peer) { p.ask(1, true, with("content-length", "1")...) }, " reset: PROTOCOL_ERROR"},
		"body too long": {func(p *peer) {
			p.ask(1, false, with("content-length", "1")...)
			p.check(p.WriteData(1, true, []byte("ab")))
		}, " reset: PROTOCOL_ERROR"},
		"body too short": {func(p *peer) {
			p.ask(1, false, with("content-length", "3")...)
			p.check(p.WriteData(1, true, []byte("ab")))
		}, " reset: PROTOCOL_ERROR"},
		"body": {func(p *peer) {
			p.ask(1, false, with("content-length", "2")...)
			p.check(p.WriteData(1, true, []byte("ab")))
		}, "[200]hello"},
		"padding":          {func(p *peer) { p.ask(1, false); p.check(p.WriteDataPadded(1, true, []byte("ab"), make([]byte, 9))) }, "[200]hello"},
		"header too large": {func(p *peer) { p.ask(1, true, with("x", strings.Repeat("x", 3000), "y", strings.Repeat("y", 3000))...) }, "[431]x-content-type-options=nosniff the header"},
		"endless header":   {endlessHeader, " gone: ENHANCE_YOUR_CALM"},
		"broken header": {func(p *peer) {
			p.check(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}))
		}, " gone: COMPRESSION_ERROR"},
		"header not continued": {func(p *peer) {
			p.check(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}}))
			p.check(p.WritePing(false, [8]byte{}))
		}, " gone: PROTOCOL_ERROR"},
		"continued by itself": {func(p *peer) { p.check(p.WriteContinuation(1, true, []byte{0x82})) }, " gone: PROTOCOL_ERROR"},
		"even stream":         {func(p *peer) { p.AllowIllegalWrites = true; p.ask(2, true) }, " gone: PROTOCOL_ERROR"},
		"data of nothing":     {func(p *peer) { p.check(p.WriteData(1, true, []byte("a"))) }, " gone: PROTOCOL_ERROR"},
		"push":                {func(p *peer) { p.check(p.WriteRawFrame(http2.FramePushPromise, 0, 1, make([]byte, 4))) }, " gone: PROTOCOL_ERROR"},
		"unknown frame":       {func(p *peer) { p.check(p.WriteRawFrame(0x77, 0, 1, make([]byte, 4))); p.ask(1, true) }, "[200]hello"},
		"frame too large":     {func(p *peer) { p.check(p.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 33<<10))) }, " gone: FRAME_SIZE_ERROR"},
		"window":              {func(p *peer) { p.ask(1, false); p.check(p.WriteWindowUpdate(1, 1<<31-1)) }, " reset: FLOW_CONTROL_ERROR"},
		"window of all":       {func(p *peer) { p.check(p.WriteWindowUpdate(0, 1<<31-1)) }, " gone: FLOW_CONTROL_ERROR"},
		"setting":             {func(p *peer) { p.check(p.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1})) }, " gone: PROTOCOL_ERROR"},
		"trailers":            {func(p *peer) { p.ask(1, false); p.ask(1, true, "x", "y") }, "[200]hello"},
		"pseudo in trailers":  {func(p *peer) { p.ask(1, false); p.ask(1, true) }, " reset: PROTOCOL_ERROR"},
		"depends on itself":   {func(p *peer) { p.check(p.WritePriority(1, http2.PriorityParam{StreamDep: 1})); p.ask(1, true) }, " reset: PROTOCOL_ERROR"},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, hello, func(p *peer, _ *Server) {
				test.send(p)
				if got := p.answer(1); !strings.HasPrefix(got, test.want) {
					t.Fatalf("%q, want %q", got, test.want)
				}
				if strings.Contains(test.want, "gone") {
					<-p.done
					return
				}
				p.AllowIllegalWrites = false
				p.ask(3, true)
				if got := p.answer(3); got != "[200]hello" {
					t.Errorf("the next request: %q", got)
				}
			})
		})
	}
}

func endlessHeader(p *peer) {
	p.check(p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.encode("a", strings.Repeat("a", 3000))}))
	go func() { // the server stops reading
		for p.WriteContinuation(1, false, bytes.Repeat([]byte{0x82}, 3000)) == nil {
		}
	}()
}

// Frames that ask for nothing are answered up to a bound, and do not grow what the server holds.
func TestFloods(t *testing.T) {
	for name, send := range map[string]func(p *peer, i int) error{
		"ping":     func(p *peer, _ int) error { return p.WritePing(false, [8]byte{}) },
		"settings": func(p *peer, _ int) error { return p.WriteSettings() },
		"reset": func(p *peer, i int) error {
			id := uint32(2*i + 1)
			err := p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, BlockFragment: p.encode(":method", "GET", ":scheme", "https", ":path", "/slow")})
			return errors.Join(err, p.WriteRSTStream(id, http2.ErrCodeCancel))
		},
		"priority": func(p *peer, _ int) error { return p.WritePriority(7, http2.PriorityParam{StreamDep: 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			slow := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
			play(t, slow, func(p *peer, _ *Server) {
				go func() {
					for i := range 2 * maxFaults {
						if send(p, i) != nil {
							return
						}
					}
				}()
				for {
					switch f := p.next().(type) {
					case *http2.GoAwayFrame:
						if f.ErrCode != http2.ErrCodeEnhanceYourCalm {
							t.Errorf("gone with %v", f.ErrCode)
						}
						return
					}
				}
			})
		})
	}
}

// A client is sent what its windows take, as soon as they take it.
func TestWindows(t *testing.T) {
	const size = 50_000
	play(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(bytes.Repeat([]byte("x"), size))
	}, func(p *peer, _ *Server) {
		p.check(p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10}))
		p.ask(1, true)
		got := 0
		take := func() (end bool) {
			for {
				switch f := p.next().(type) {
				case *http2.DataFrame:
					got += len(f.Data())
					return f.StreamEnded()
				case *http2.RSTStreamFrame, *http2.GoAwayFrame:
					t.Fatal(f)
				}
			}
		}
		if take(); got != 10 {
			t.Fatalf("%d bytes in a window of 10", got)
		}
		p.check(p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 30}))
		if take(); got != 30 {
			t.Fatalf("%d bytes in a window of 30", got)
		}
		p.check(p.WriteWindowUpdate(1, 5))
		if take(); got != 35 {
			t.Fatalf("%d bytes in a window of 35", got)
		}
		p.check(p.WriteWindowUpdate(1, size))
		for !take() {
		}
		if got != size {
			t.Errorf("%d bytes of %d", got, size)
		}
	})
}

// A body that nobody reads stops its client at the window, and no other stream.
func TestBodyUnread(t *testing.T) {
	play(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			<-r.Context().Done()
			return
		}
		hello(w, r)
	}, func(p *peer, _ *Server) {
		p.ask(1, false, ":method", "POST", ":scheme", "https", ":path", "/")
		for range 2 {
			p.check(p.WriteData(1, false, make([]byte, 16<<10)))
		}
		p.ask(3, true)
		if got := p.answer(3); got != "[200]hello" {
			t.Fatal(got)
		}
		p.check(p.WriteData(1, false, []byte("x")))
		if got := p.answer(1); got != " reset: FLOW_CONTROL_ERROR" {
			t.Error(got)
		}
	})
}

// More requests than allowed are refused so that the client may ask again; also those whose handlers outlive their reset.
func TestTooManyStreams(t *testing.T) {
	var free chan struct{} // of the bubble
	play(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stay" {
			<-free
		}
		hello(w, r)
	}, func(p *peer, s *Server) {
		free = make(chan struct{})
		id := uint32(1)
		for range 2 * s.MaxStreams {
			p.ask(id, true, ":method", "GET", ":scheme", "https", ":path", "/stay")
			p.check(p.WriteRSTStream(id, http2.ErrCodeCancel))
			id += 2
		}
		p.ask(id, true)
		if got := p.answer(id); got != " reset: REFUSED_STREAM" {
			t.Fatal(got)
		}
		close(free)
		synctest.Wait()
		p.ask(id+2, true)
		if got := p.answer(id + 2); got != "[200]hello" {
			t.Fatal(got)
		}
	})
}

// Forms of an answer.
func TestAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		method  string
		want    string
	}{
		"empty":      {func(http.ResponseWriter, *http.Request) {}, "GET", "[200]"},
		"no content": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204); _, _ = w.Write([]byte("x")) }, "GET", "[204]"},
		"head":       {hello, "HEAD", "[200]"},
		"early": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("x-hint", "a")
			w.WriteHeader(103)
			w.WriteHeader(201)
		}, "GET", "[103]x-hint=a [201]x-hint=a "},
		"too much": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "2")
			_, err := w.Write([]byte("abc"))
			if !errors.Is(err, http.ErrContentLength) {
				panic(err)
			}
			_, _ = w.Write([]byte("ab"))
		}, "GET", "[200]ab"},
		"too little": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "3")
			_, _ = w.Write([]byte("ab"))
		}, "GET", "[200]ab reset: INTERNAL_ERROR"},
		"trailers": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "X-Sum")
			_, _ = w.Write([]byte("ab"))
			w.Header().Set("X-Sum", "2")
			w.Header().Set(http.TrailerPrefix+"X-More", "3")
		}, "GET", "[200]ab[]"},
		"panic":   {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "GET", " reset: INTERNAL_ERROR"},
		"our bug": {func(http.ResponseWriter, *http.Request) { panic("bug") }, "GET", " reset: INTERNAL_ERROR"},
		"changed late": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("x-a", "1")
			w.WriteHeader(200)
			w.Header().Set("x-a", "2")
		}, "GET", "[200]x-a=1 "},
		"not of HTTP/2": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
			w.Header().Set("X-Bad", "a\nb")
			w.WriteHeader(200)
		}, "GET", "[200]"},
	} {
		t.Run(name, func(t *testing.T) {
			log.SetOutput(t.Output())
			defer log.SetOutput(os.Stderr)
			play(t, test.handler, func(p *peer, _ *Server) {
				p.ask(1, true, ":method", test.method, ":scheme", "https", ":path", "/")
				got := p.answer(1)
				if name == "trailers" {
					if !strings.HasPrefix(got, "[200]ab[]") || !strings.Contains(got, "x-sum=2 ") || !strings.Contains(got, "x-more=3 ") {
						t.Error(got)
					}
				} else if got != test.want {
					t.Errorf("%q, want %q", got, test.want)
				}
			})
		})
	}
}

// A client that waits for leave to send its body gets it once the body is wanted.
func TestContinue(t *testing.T) {
	play(t, hello, func(p *peer, _ *Server) {
		p.ask(1, false, ":method", "POST", ":scheme", "https", ":path", "/", "expect", "100-continue")
		if f := p.next().(*http2.MetaHeadersFrame); f.PseudoValue("status") != "100" {
			t.Fatal(f)
		}
		p.check(p.WriteData(1, true, []byte("body")))
		if got := p.answer(1); got != "[200]hello" {
			t.Error(got)
		}
	})
}

// An answer that does not wait for the body is whole, and the client is told that the rest is not wanted.
func TestEarlyAnswer(t *testing.T) {
	play(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, func(p *peer, _ *Server) {
		p.ask(1, false)
		if got := p.answer(1); got != "[403]" {
			t.Fatal(got)
		}
		if f := p.next().(*http2.RSTStreamFrame); f.ErrCode != http2.ErrCodeNo {
			t.Error(f)
		}
	})
}

// Deadlines end a read and a write that wait for the client.
func TestDeadlines(t *testing.T) {
	var failed chan error // of the bubble
	play(t, func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Now().Add(time.Second))
		_ = control.SetWriteDeadline(time.Now().Add(2 * time.Second))
		_, err := io.ReadAll(r.Body)
		failed <- err
		_, err = w.Write(make([]byte, 1<<20))
		failed <- err
	}, func(p *peer, _ *Server) {
		failed = make(chan error, 2)
		start := time.Now()
		p.ask(1, false)
		go func() {
			for {
				if _, err := p.ReadFrame(); err != nil {
					return
				}
			}
		}()
		for i := range 2 {
			if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start).Round(time.Second) != time.Duration(i+1)*time.Second {
				t.Errorf("%v after %v", err, time.Since(start))
			}
		}
	})
}

// A client that stops reading, with a window as large as can be, holds a handler no longer than its deadline and a moment.
func TestClientDoesNotRead(t *testing.T) {
	var failed chan error // of the bubble
	play(t, func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Second))
		_, err := w.Write(make([]byte, 1<<20))
		failed <- err
	}, func(p *peer, _ *Server) {
		failed = make(chan error, 2)
		p.check(p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30}))
		p.check(p.WriteWindowUpdate(0, 1<<30))
		start := time.Now()
		p.ask(1, true)
		p.ask(3, true) // waits behind it
		for range 2 {
			if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error(err)
			}
		}
		<-p.done
		if d := time.Since(start); d > time.Second+lastMoment {
			t.Errorf("held for %v", d)
		}
	})
}

// A connection that carries nothing is given up after its time, and one that never begins sooner.
func TestIdle(t *testing.T) {
	play(t, hello, func(p *peer, s *Server) {
		start := time.Now()
		p.ask(1, true)
		p.answer(1)
		if f := p.next().(*http2.GoAwayFrame); f.ErrCode != http2.ErrCodeNo || f.LastStreamID != 1 {
			t.Error(f)
		}
		<-p.done
		if d := time.Since(start).Round(time.Second); d != s.IdleTimeout {
			t.Errorf("after %v", d)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := small()
		p := dial(t, s, hello)
		start := time.Now()
		<-p.done
		if d := time.Since(start); d != prefaceTimeout {
			t.Errorf("a silent client is kept for %v", d)
		}
	})
}

// A server that shuts down lets requests finish, takes no more, and hangs up.
func TestShutdown(t *testing.T) {
	var free chan struct{} // of the bubble
	play(t, func(w http.ResponseWriter, r *http.Request) {
		<-free
		hello(w, r)
	}, func(p *peer, s *Server) {
		free = make(chan struct{})
		p.ask(1, true)
		synctest.Wait()
		s.Shutdown()
		if f := p.next().(*http2.GoAwayFrame); f.ErrCode != http2.ErrCodeNo || f.LastStreamID != 1 {
			t.Fatal(f)
		}
		p.ask(3, true) // it was on its way
		synctest.Wait()
		close(free)
		if got := p.answer(1); got != "[200]hello" {
			t.Error(got)
		}
		<-p.done
	})
}

// A client that goes away in the middle leaves nothing behind.
func TestHangUp(t *testing.T) {
	var ended chan error // of the bubble
	play(t, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		<-r.Context().Done()
		_, writeErr := w.Write(make([]byte, 1<<20))
		ended <- errors.Join(err, writeErr)
	}, func(p *peer, _ *Server) {
		ended = make(chan error, 1)
		p.ask(1, false)
		synctest.Wait()
		_ = p.Close()
		if <-ended == nil {
			t.Error("the handler did not learn of it")
		}
	})
}
