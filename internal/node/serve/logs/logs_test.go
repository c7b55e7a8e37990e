package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sample has both streams, a line in three records, and one interleaved.
const sample = `2026-01-02T03:04:05.000000001Z stdout F one
2026-01-02T03:04:06.000000002Z stderr F two
2026-01-02T03:04:07.000000003Z stdout P th
2026-01-02T03:04:07.000000004Z stdout P re
2026-01-02T03:04:07.000000005Z stdout F e
2026-01-02T03:04:08.000000006Z stdout F:tag four
2026-01-02T03:04:09.000000007Z stdout F 
2026-01-02T03:04:10.000000008Z stdout F six
`

func number(n int64) *int64 { return &n }

func TestCopy(t *testing.T) {
	check := func(t *testing.T, content string, options Options, want string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "0.log")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := Copy(t.Context(), &out, nil, path, options); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("got %q, want %q", out.String(), want)
		}
	}
	all := "one\ntwo\nthree\nfour\n\nsix\n"
	for _, c := range []struct {
		name    string
		content string
		options Options
		want    string
	}{
		{"everything", sample, Options{}, all},
		{"nothing yet", "", Options{}, ""},
		{"all streams", sample, Options{Stream: All}, all},
		{"standard output", sample, Options{Stream: Stdout}, "one\nthree\nfour\n\nsix\n"},
		{"standard error", sample, Options{Stream: Stderr}, "two\n"},
		{"no lines", sample, Options{Tail: number(0)}, ""},
		{"the last", sample, Options{Tail: number(1)}, "six\n"},
		{"the last two", sample, Options{Tail: number(2)}, "\nsix\n"},
		{"the last four, one of three records", sample, Options{Tail: number(4)}, "three\nfour\n\nsix\n"},
		{"the last five", sample, Options{Tail: number(5)}, "two\nthree\nfour\n\nsix\n"},
		{"as many as there are", sample, Options{Tail: number(6)}, all},
		{"more than there are", sample, Options{Tail: number(600)}, all},
		{"since the third", sample, Options{Since: time.Date(2026, 1, 2, 3, 4, 7, 0, time.UTC)}, "three\nfour\n\nsix\n"},
		{"since the end of time", sample, Options{Since: time.Date(2126, 1, 2, 3, 4, 7, 0, time.UTC)}, ""},
		{"tail, then since", sample, Options{Tail: number(2), Since: time.Date(2026, 1, 2, 3, 4, 10, 0, time.UTC)}, "six\n"},
		{"five bytes", sample, Options{Limit: number(5)}, "one\nt"},
		{"more bytes than there are", sample, Options{Limit: number(500)}, all},
		{"times", sample, Options{Tail: number(4), Timestamps: true},
			"2026-01-02T03:04:07.000000003Z three\n2026-01-02T03:04:08.000000006Z four\n2026-01-02T03:04:09.000000007Z \n2026-01-02T03:04:10.000000008Z six\n"},
		{"a line without an end", "2026-01-02T03:04:05Z stdout P half", Options{}, "half"},
		{"a record without an end", "2026-01-02T03:04:05Z stdout F half", Options{}, "half\n"},
		{"an unfinished line is one", sample + "2026-01-02T03:04:11Z stdout P sev\n", Options{Tail: number(2)}, "six\nsev"},
		{"damage is left out", "nonsense\n\n2026-01-02T03:04:05Z stdout X no\n2026-01-02T03:04:05Z stdin F no\n2026-01-02T03:04:05Z stdout F yes\n", Options{}, "yes\n"},
	} {
		t.Run(c.name, func(t *testing.T) { check(t, c.content, c.options, c.want) })
	}
}

// TestLongRecords has records longer than any buffer.
func TestLongRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	long := strings.Repeat("x", 3*maxPiece+5)
	content := "2026-01-02T03:04:05Z stdout F first\n2026-01-02T03:04:05Z stderr P " + long + "\n2026-01-02T03:04:05Z stderr F " + long + "\n2026-01-02T03:04:05Z stdout F last\n"
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	for lines, want := range map[int64]string{
		1: "last\n",
		2: long + long + "\nlast\n",
		3: "first\n" + long + long + "\nlast\n",
	} {
		var out bytes.Buffer
		if err := Copy(t.Context(), &out, nil, path, Options{Tail: &lines}); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("tail of %d: got %d bytes, want %d", lines, out.Len(), len(want))
		}
	}
	var out bytes.Buffer
	if err := Copy(t.Context(), &out, nil, path, Options{Stream: Stdout}); err != nil || out.String() != "first\nlast\n" {
		t.Errorf("standard output alone: %d bytes, %v", out.Len(), err)
	}
}

// TestTailLaw compares reading from the end with reading from the beginning.
func TestTailLaw(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	var content strings.Builder
	var lines []string
	for i := range 3000 {
		text := fmt.Sprintf("line %d %s", i, strings.Repeat("y", i%97))
		if i%7 == 0 {
			fmt.Fprintf(&content, "2026-01-02T03:04:05Z stdout P %s\n", text)
			fmt.Fprintf(&content, "2026-01-02T03:04:05Z stdout F %s\n", text)
			text += text
		} else {
			fmt.Fprintf(&content, "2026-01-02T03:04:05Z stdout F %s\n", text)
		}
		lines = append(lines, text+"\n")
	}
	if err := os.WriteFile(path, []byte(content.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for n := 0; n <= len(lines)+1; n += 1 + n/20 {
		var out bytes.Buffer
		tail := int64(n)
		if err := Copy(t.Context(), &out, nil, path, Options{Tail: &tail}); err != nil {
			t.Fatal(err)
		}
		if want := strings.Join(lines[max(0, len(lines)-n):], ""); out.String() != want {
			t.Fatalf("the last %d lines are %d bytes, want %d", n, out.Len(), len(want))
		}
	}
}

func TestNoLog(t *testing.T) {
	for _, follow := range []bool{false, true} {
		err := Copy(t.Context(), &bytes.Buffer{}, nil, filepath.Join(t.TempDir(), "none", "0.log"), Options{Follow: follow, Ended: make(chan struct{})})
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("follow %v: got %v, want fs.ErrNotExist", follow, err)
		}
	}
}

// follower reads a log as it grows.
type follower struct {
	t     *testing.T
	path  string
	ended chan struct{}
	lines chan string
	done  chan error
	f     *os.File
}

func follow(t *testing.T, options Options) *follower {
	f := &follower{t: t, path: filepath.Join(t.TempDir(), "0.log"), ended: make(chan struct{}), lines: make(chan string, 10_000), done: make(chan error, 1)}
	f.open()
	f.write("before")
	options.Follow, options.Ended = true, f.ended
	go func() { f.done <- Copy(t.Context(), f, nil, f.path, options) }()
	f.expect("before")
	return f
}

// Write takes whole lines, since records are written whole.
func (f *follower) Write(p []byte) (int, error) {
	if text := strings.TrimSuffix(string(p), "\n"); text != "" {
		f.lines <- text
	}
	return len(p), nil
}

func (f *follower) open() {
	file, err := os.OpenFile(f.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		f.t.Fatal(err)
	}
	f.f = file
}

func (f *follower) write(text string) {
	if _, err := fmt.Fprintf(f.f, "2026-01-02T03:04:05Z stdout F %s\n", text); err != nil {
		f.t.Fatal(err)
	}
}

func (f *follower) expect(want string) {
	f.t.Helper()
	select {
	case got := <-f.lines:
		if got != want {
			f.t.Fatalf("got %q, want %q", got, want)
		}
	case err := <-f.done:
		f.t.Fatalf("ended with %v while waiting for %q", err, want)
	case <-time.After(30 * time.Second):
		f.t.Fatalf("no %q", want)
	}
}

func (f *follower) rotate(n int) {
	if err := os.Rename(f.path, fmt.Sprintf("%s.%d", f.path, n)); err != nil {
		f.t.Fatal(err)
	}
	old := f.f
	f.open()
	fmt.Fprintf(old, "2026-01-02T03:04:05Z stdout F late %d\n", n) // the runtime has not turned yet
	old.Close()
}

func TestFollow(t *testing.T) {
	f := follow(t, Options{})
	for i := range 100 {
		line := fmt.Sprint("line ", i)
		f.write(line)
		f.expect(line)
	}
	// The container ends; its last words are written after that.
	close(f.ended)
	f.write("last words")
	f.f.Close()
	f.expect("last words")
	if err := <-f.done; err != nil {
		t.Error(err)
	}
}

func TestFollowRotations(t *testing.T) {
	f := follow(t, Options{})
	for i := range 20 {
		f.write(fmt.Sprint("old ", i))
		f.rotate(i)
		f.write(fmt.Sprint("new ", i))
		f.expect(fmt.Sprint("old ", i))
		f.expect(fmt.Sprint("late ", i))
		f.expect(fmt.Sprint("new ", i))
	}
	f.f.Close()
	close(f.ended)
	if err := <-f.done; err != nil {
		t.Error(err)
	}
}

// TestFollowHalfRecord sees a record in two writes as one.
func TestFollowHalfRecord(t *testing.T) {
	f := follow(t, Options{})
	fmt.Fprint(f.f, "2026-01-02T03:04:05Z stdout F first ha")
	fmt.Fprint(f.f, "lf\n")
	f.expect("first half")
	f.f.Close()
	close(f.ended)
	if err := <-f.done; err != nil {
		t.Error(err)
	}
}

func TestFollowLimit(t *testing.T) {
	f := follow(t, Options{Limit: number(int64(len("before\nab")))})
	f.write("abcdef")
	f.expect("ab")
	if err := <-f.done; err != nil {
		t.Error(err)
	}
}

func TestFollowCancelled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(path, []byte(sample), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	flushed := 0
	err := Copy(ctx, &bytes.Buffer{}, func() { flushed++; cancel() }, path, Options{Follow: true, Ended: make(chan struct{})})
	if !errors.Is(err, context.Canceled) || flushed == 0 {
		t.Errorf("got %v after %d flushes", err, flushed)
	}
}

// TestFollowEnded does not wait for a container that has long ended.
func TestFollowEnded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(path, []byte(sample), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Copy(t.Context(), &out, nil, path, Options{Follow: true}); err != nil || out.Len() == 0 {
		t.Errorf("got %q, %v", out.String(), err)
	}
}

func FuzzCopy(f *testing.F) {
	f.Add(sample, int64(3))
	f.Add("2026-01-02T03:04:05Z stdout P a\nx", int64(1))
	f.Fuzz(func(t *testing.T, content string, lines int64) {
		path := filepath.Join(t.TempDir(), "0.log")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		var all, tail bytes.Buffer
		if err := Copy(t.Context(), &all, nil, path, Options{}); err != nil {
			t.Fatal(err)
		}
		if err := Copy(t.Context(), &tail, nil, path, Options{Tail: &lines}); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(all.String(), tail.String()) {
			t.Errorf("the last %d lines %q are not the end of %q", lines, tail.String(), all.String())
		}
	})
}
