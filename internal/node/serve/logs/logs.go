// Package logs reads container logs as container runtimes write them for CRI:
// one file for each run of a container, each line
//
//	2016-10-06T00:17:09.669794202Z stdout F the text that the container wrote
//
// with a time in RFC 3339 with nanoseconds, the stream, and a tag: F ends a line
// of the container, P says that the line goes on in the next record of the same
// stream. The file is rotated by renaming; the runtime then opens a new one
// under the old name.
//
// Promises: bytes come out as the container wrote them, once and in order.
// Following sleeps in inotify, and goes on over rotations: a reader so slow that
// a file is rotated away before it has begun with it misses that file. Reading
// the last n lines reads the file from its end.
//
// Does not know: HTTP, containers, the files of older rotations, which it does
// not read. Start reading at Copy.
package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// maxPiece bounds how much of one record is held in memory. Records are 16 KiB
// in usual configurations; of longer ones pieces are passed on as they come.
const maxPiece = 64 << 10

// drainTimeout bounds the wait for the runtime to write the last lines of a
// container that has just ended.
const drainTimeout = time.Second

// Stream selects records.
type Stream string

// The streams. The zero value selects both, like All.
const (
	All    Stream = "All"
	Stdout Stream = "Stdout"
	Stderr Stream = "Stderr"
)

// Options say what of a log is wanted. The zero value is all that is there now.
type Options struct {
	// Since drops records older than it.
	Since time.Time
	// Tail, when not nil, is how many lines from the end to begin with, before
	// Since is applied.
	Tail *int64
	// Limit, when not nil, is how many bytes to write at most.
	Limit *int64
	// Timestamps puts the time and a blank in front of each line.
	Timestamps bool
	Stream     Stream
	// Follow waits for more until Ended is closed. A nil Ended means that the
	// container has ended: then there is nothing to wait for.
	Follow bool
	Ended  <-chan struct{}
}

// Copy writes a log to w. flush is called, if not nil, whenever everything read
// so far was written and a wait may follow.
//
// Errors: fs.ErrNotExist when there is no such log; the error of w, or of ctx
// when it ends a wait.
func Copy(ctx context.Context, w io.Writer, flush func(), path string, options Options) error {
	if options.Ended == nil {
		options.Follow = false
	}
	var changes *watch
	if options.Follow {
		var err error
		if changes, err = watchFile(path); err != nil { // before the first read: no change is missed
			return err
		}
		defer changes.close()
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open a container's log: %w", err)
	}
	defer func() { f.Close() }()
	if options.Tail != nil {
		start, err := tailStart(f, *options.Tail)
		if err != nil {
			return fmt.Errorf("find the last %d lines of a container's log: %w", *options.Tail, err)
		}
		if _, err := f.Seek(start, io.SeekStart); err != nil {
			return fmt.Errorf("find the last %d lines of a container's log: %w", *options.Tail, err)
		}
	}

	p := &printer{w: w, options: options, left: -1}
	if options.Limit != nil {
		p.left = *options.Limit
	}
	for {
		// What decides whether this is the last look is asked before looking:
		// what was written until then is read below.
		ended, complete := false, !options.Follow
		var next *os.File
		if options.Follow {
			ended = isClosed(options.Ended)
			complete = ended && changes.drained()
			if next, err = successor(f, path); err != nil {
				return err
			}
		}
		err := p.read(f)
		if err == nil && next != nil {
			err = p.finish()
		}
		if next != nil {
			f.Close()
			f = next
		}
		switch {
		case errors.Is(err, errFull):
			return nil
		case err != nil:
			return err
		case next != nil:
			continue
		}
		if flush != nil {
			flush()
		}
		switch {
		case complete:
			return p.finish()
		case ended:
			err = changes.waitDrained(ctx)
		default:
			err = changes.wait(ctx, options.Ended)
		}
		if err != nil {
			return err
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// successor opens the file that took the place of f at path, or returns nil
// while there is none. One that is empty does not count: the runtime may not
// have turned to it yet.
func successor(f *os.File, path string) (*os.File, error) {
	now, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // renamed away, the new one is not there yet
	}
	if err != nil {
		return nil, fmt.Errorf("look for a newer log: %w", err)
	}
	was, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("look for a newer log: %w", err)
	}
	if os.SameFile(was, now) || now.Size() == 0 {
		return nil, nil
	}
	next, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open a newer log: %w", err)
	}
	return next, nil
}

// errFull ends reading when Options.Limit is reached.
var errFull = errors.New("limit reached")

// printer writes what the records of a log say.
type printer struct {
	w       io.Writer
	options Options
	left    int64 // bytes that may still be written; negative: any number

	pending []byte // read, but not yet a whole record
	within  bool   // the last piece ended inside a record, which goes on
	last    record // of that piece
	open    [2]bool
	buffer  []byte
}

// record is the head of a line of the file.
type record struct {
	time    []byte
	stderr  bool
	partial bool
	skip    bool
}

// read prints f from where it stands to its end. A record whose end is not
// written yet stays pending.
func (p *printer) read(f io.Reader) error {
	if p.buffer == nil {
		p.buffer = make([]byte, maxPiece)
	}
	for {
		n, err := f.Read(p.buffer)
		if err := p.take(p.buffer[:n]); err != nil {
			return err
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a container's log: %w", err)
		}
	}
}

func (p *printer) take(data []byte) error {
	for len(data) > 0 {
		end := bytes.IndexByte(data, '\n')
		if end < 0 {
			p.pending = append(p.pending, data...)
			if len(p.pending) >= maxPiece {
				err := p.piece(p.pending, false)
				p.pending = p.pending[:0]
				return err
			}
			return nil
		}
		line := data[:end]
		if len(p.pending) > 0 {
			p.pending = append(p.pending, line...)
			line = p.pending
		}
		if err := p.piece(line, true); err != nil {
			return err
		}
		p.pending = p.pending[:0]
		data = data[end+1:]
	}
	return nil
}

// finish prints what is left of a file that nobody writes to any more: a record
// without an end.
func (p *printer) finish() error {
	if len(p.pending) == 0 {
		return nil
	}
	err := p.piece(p.pending, true)
	p.pending = p.pending[:0]
	if errors.Is(err, errFull) {
		return nil
	}
	return err
}

// piece prints a record, or a part of one that is too long to be held.
func (p *printer) piece(data []byte, whole bool) error {
	text := data
	if !p.within {
		var ok bool
		if p.last, text, ok = parse(data); !ok {
			p.last.skip = true // not a log record: nothing that a container wrote
		} else {
			p.last.skip = p.unwanted(p.last)
		}
	}
	p.within = !whole
	if p.last.skip {
		return nil
	}
	stream := 0
	if p.last.stderr {
		stream = 1
	}
	if p.options.Timestamps && !p.open[stream] {
		if err := p.write(p.last.time, []byte(" ")); err != nil {
			return err
		}
	}
	p.open[stream] = !whole || p.last.partial
	if whole && !p.last.partial {
		return p.write(text, []byte("\n"))
	}
	return p.write(text)
}

func (p *printer) unwanted(r record) bool {
	if p.options.Stream == Stdout && r.stderr || p.options.Stream == Stderr && !r.stderr {
		return true
	}
	if p.options.Since.IsZero() {
		return false
	}
	at, err := time.Parse(time.RFC3339Nano, string(r.time))
	return err == nil && at.Before(p.options.Since)
}

func (p *printer) write(parts ...[]byte) error {
	for _, part := range parts {
		if p.left >= 0 && int64(len(part)) > p.left {
			part = part[:p.left]
		}
		if len(part) > 0 {
			if _, err := p.w.Write(part); err != nil {
				return fmt.Errorf("pass a container's log on: %w", err)
			}
		}
		if p.left >= 0 {
			if p.left -= int64(len(part)); p.left == 0 {
				return errFull
			}
		}
	}
	return nil
}

// parse splits a line of the file. Of several tags, parted by colons, the first
// says whether the record is partial.
func parse(line []byte) (r record, text []byte, ok bool) {
	at, rest, found := bytes.Cut(line, []byte(" "))
	if !found || len(at) == 0 {
		return r, nil, false
	}
	stream, rest, found := bytes.Cut(rest, []byte(" "))
	if !found {
		return r, nil, false
	}
	switch string(stream) {
	case "stdout":
	case "stderr":
		r.stderr = true
	default:
		return r, nil, false
	}
	// An empty text may come without the blank in front of it.
	tag, text, _ := bytes.Cut(rest, []byte(" "))
	first, _, _ := bytes.Cut(tag, []byte(":"))
	switch string(first) {
	case "F":
	case "P":
		r.partial = true
	default:
		return r, nil, false
	}
	r.time = bytes.Clone(at)
	return r, text, true
}
