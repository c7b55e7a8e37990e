package httpapi

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/engine"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/watchcache"
	"github.com/timonel/timonel/internal/trace"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	bookmarkEvery = time.Minute
	// bookmarkBefore the end of a watch the client gets a last bookmark to resume from.
	bookmarkBefore = 2 * time.Second
)

// stream is a watch on its way to a client.
type stream struct {
	x        *exchange
	encoder  codec.Encoder
	watch    *engine.Watch
	sent     storage.Revision // everything up to here has been told
	marked   storage.Revision // of the last bookmark
	bookmark bool             // the client wants bookmarks
	socket   *socket          // nil: events are the answer's body
	held     *[]byte          // what is gathered to be sent together; nil: nothing is
}

func (x *exchange) watch(c *engine.Call) error {
	f, err := x.negotiate(codec.Offer{Views: true, Watch: true})
	if err != nil {
		return err
	}
	options, err := x.listOptions()
	if err != nil {
		return err
	}
	f.Pretty = false
	c.Name = ""
	w, expired := x.Engine.Watch(x.ctx, c, options)
	if expired != nil && !apierrors.IsResourceExpired(expired) {
		return expired
	}
	if w != nil {
		defer w.Watcher.Close()
	}
	x.record.Enter(trace.Answer)
	s := &stream{x: x, encoder: codec.Encoder{Definition: c.Definition, Format: f}, watch: w, bookmark: options.AllowWatchBookmarks}
	if err := s.open(); err != nil {
		return err
	}
	defer s.close()
	if expired != nil { // it is told in the stream
		s.fail(expired)
		return nil
	}
	s.run(x.timeout(options))
	return nil
}

// open begins the answer.
func (s *stream) open() (err error) {
	x := s.x
	x.w.Header().Set("Content-Type", s.encoder.Format.ContentType(true))
	if websocket.IsWebSocketUpgrade(x.r) {
		s.socket, err = x.upgrade(s.encoder.Format)
		return err
	}
	x.w.WriteHeader(http.StatusOK)
	return nil
}

func (s *stream) close() {
	if s.socket != nil {
		s.socket.close()
	}
}

// timeout is how long a watch may last: as asked, or a random time, so that the
// watches of many clients do not end together.
func (x *exchange) timeout(options metav1.ListOptions) time.Duration {
	if options.TimeoutSeconds != nil && *options.TimeoutSeconds != 0 {
		return time.Duration(*options.TimeoutSeconds) * time.Second
	}
	return x.MinWatch + rand.N(x.MinWatch)
}

// run sends the initial events, then changes until the time is up or the client is gone.
func (s *stream) run(limit time.Duration) {
	start := time.Now()
	end := start.Add(limit)
	if !s.initial() {
		return
	}
	s.flush()
	ctx, cancel := context.WithDeadline(s.x.ctx, end)
	defer cancel()
	defer context.AfterFunc(s.x.ending, cancel)() // a server that shuts down ends its watches
	s.follow(ctx, end)
}

// initial sends what there is already.
func (s *stream) initial() bool {
	s.hold()
	defer s.release()
	for _, item := range s.watch.Initial {
		if !s.event("ADDED", item) {
			return false
		}
	}
	s.watch.Initial = nil
	s.sent = s.watch.InitialRevision
	return !s.watch.End || s.mark(true)
}

// follow sends changes and, for a client that wants them, bookmarks.
func (s *stream) follow(ctx context.Context, end time.Time) {
	for s.tell(ctx, nextBookmark(end)) {
		if s.sent > s.marked && !s.mark(false) {
			return
		}
		s.flush()
	}
}

// nextBookmark is when a watch that lasts until end gets its next bookmark.
func nextBookmark(end time.Time) time.Time {
	now := time.Now()
	next := now.Add(bookmarkEvery)
	if last := end.Add(-bookmarkBefore); last.After(now) && last.Before(next) {
		return last
	}
	return next
}

// tell sends changes until it is time for a bookmark; false if the watch is over.
func (s *stream) tell(ctx context.Context, bookmark time.Time) bool {
	wait := ctx
	if s.bookmark {
		var cancel context.CancelFunc
		wait, cancel = context.WithDeadline(ctx, bookmark)
		defer cancel()
	}
	for {
		batch, err := s.watch.Watcher.Next(wait)
		switch {
		case err == nil:
			if !s.changes(batch.Events) {
				return false
			}
			s.sent = max(s.sent, batch.Revision)
			if len(batch.Events) > 0 {
				s.flush()
			}
			continue
		case ctx.Err() != nil:
		case errors.Is(err, context.DeadlineExceeded):
			s.sent = max(s.sent, batch.Revision)
			return true
		case errors.Is(err, watchcache.ErrDropped): // the resource is no longer served
		case errors.Is(err, watchcache.ErrExpired):
			s.fail(apierrors.NewResourceExpired("the watch fell too far behind"))
		default:
			s.fail(err)
		}
		return false
	}
}

// hold begins to gather what is written; release sends it. Between batches a stream holds no memory.
func (s *stream) hold() {
	if s.socket == nil { // there each event goes by itself
		s.held = chunks.Get().(*[]byte)
	}
}

func (s *stream) release() {
	if s.held == nil {
		return
	}
	if len(*s.held) > 0 {
		_, _ = s.x.w.Write(*s.held) // the next write tells that the client is gone
	}
	reuse(s.held)
	s.held = nil
}

// flush lets what was written go out.
func (s *stream) flush() {
	if s.socket == nil {
		s.x.w.Flush()
	}
}

// write sends an event, or gathers it, and reports whether the client is there.
func (s *stream) write(b []byte) bool {
	if s.socket != nil {
		s.x.w.bytes += int64(len(b))
		return s.socket.send(b) == nil
	}
	if s.held != nil {
		*s.held = append(*s.held, b...)
		return s.full()
	}
	_, err := s.x.w.Write(b)
	return err == nil
}

// full sends what was gathered once it is a chunk.
func (s *stream) full() bool {
	if len(*s.held) < bodyChunk {
		return true
	}
	_, err := s.x.w.Write(*s.held)
	*s.held = (*s.held)[:0]
	return err == nil
}

func (s *stream) changes(events []watchcache.Event) bool {
	for _, event := range events {
		if !s.change(event) {
			return false
		}
	}
	return true
}

func (s *stream) event(eventType string, item codec.Item) (ok bool) {
	var err error
	if s.held != nil {
		*s.held, err = s.encoder.AppendEvent(*s.held, eventType, item)
		ok = err == nil && s.full()
	} else {
		var b []byte
		if b, err = s.encoder.Event(eventType, item); err == nil {
			ok = s.write(b)
		}
	}
	if err != nil {
		s.fail(s.x.Engine.Unreadable(item, err))
	}
	return ok
}

// sharedFrame is an encoded event that is the same for all watchers who see it in one format.
type sharedFrame struct {
	definition *kind.Definition
	format     codec.Format
	bytes      []byte
}

// change sends an event, encoded once for all who watch in the same way. Tables are not shared:
// their ages differ.
func (s *stream) change(event watchcache.Event) bool {
	item := codec.Item{Definition: s.encoder.Definition, Version: event.Version}
	if s.encoder.Format.View == codec.AsTable || event.Shared == nil {
		return s.event(event.Type.String(), item)
	}
	frame, ok := event.Shared.Load().(*sharedFrame)
	if !ok || frame.definition != s.encoder.Definition || frame.format != s.encoder.Format {
		b, err := s.encoder.Event(event.Type.String(), item)
		if err != nil {
			s.fail(s.x.Engine.Unreadable(item, err))
			return false
		}
		frame = &sharedFrame{s.encoder.Definition, s.encoder.Format, b}
		event.Shared.Offer(frame)
	}
	return s.write(frame.bytes)
}

func (s *stream) mark(initialEventsEnd bool) bool {
	b, err := s.encoder.Bookmark(codec.FormatRevision(s.sent), initialEventsEnd)
	if err != nil {
		s.fail(err)
		return false
	}
	s.marked = s.sent
	return s.write(b)
}

// fail ends the stream with an ERROR event.
func (s *stream) fail(err error) {
	b, encodeErr := s.encoder.Status(StatusOf(err))
	if encodeErr != nil {
		s.x.Log.Error("encode watch error", "error", encodeErr)
		return
	}
	s.write(b) // the client may be gone; the stream ends either way
	s.flush()
}
