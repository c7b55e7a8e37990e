package http2

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Whatever a client sends, its connection ends when it hangs up, with nothing left running.
func FuzzFrames(f *testing.F) {
	seed := func(play func(p *peer)) {
		client, server := pipe()
		p := &peer{TB: f, Conn: client, Framer: http2.NewFramer(client, client)}
		p.pack = hpack.NewEncoder(&p.block)
		play(p)
		_ = client.Close()
		b, _ := io.ReadAll(server)
		f.Add(b)
	}
	seed(func(p *peer) { p.ask(1, true) })
	seed(func(p *peer) { p.ask(1, false); _ = p.WriteData(1, true, []byte("body")) })
	seed(func(p *peer) {
		_ = p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1}, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 10})
		p.ask(1, true)
		_ = p.WriteWindowUpdate(1, 100)
		_ = p.WriteRSTStream(1, http2.ErrCodeCancel)
		_ = p.WritePing(false, [8]byte{})
		_ = p.WriteGoAway(1, http2.ErrCodeNo, nil)
	})
	f.Fuzz(func(t *testing.T, frames []byte) {
		s := small()
		s.IdleTimeout = 0
		client, server := pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Serve(context.Background(), server, nil, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(w, r.Body)
			}))
		}()
		go func() { _, _ = io.Copy(io.Discard, client) }()
		_, _ = client.Write([]byte(preface))
		_, _ = client.Write(appendHead(nil, 0, frameSettings, 0, 0))
		_, _ = client.Write(frames)
		_ = client.Close()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal("the connection does not end")
		}
		s.Shutdown()
	})
}
