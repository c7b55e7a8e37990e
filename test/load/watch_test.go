//go:build load

package load

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"
)

const watchesPerConnection = 100

// watcher follows the pods of one node, as a kubelet does.
type watcher struct {
	server *server
	node   int
	client *http.Client

	mu      sync.Mutex
	last    int64 // revision
	problem error
}

func (w *watcher) open(t *testing.T, ctx context.Context, after int64) io.ReadCloser {
	t.Helper()
	path := fmt.Sprintf("%s?watch=1&timeoutSeconds=7200&resourceVersion=%d&fieldSelector=spec.nodeName%%3Dnode-%d", podsPath, after, w.node)
	resp, err := w.server.request(ctx, w.client, "GET", path, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Body
}

var revisionOf = regexp.MustCompile(`"resourceVersion":"([0-9]+)"`)

// read notes the revisions of events, which must grow, until the stream ends.
func (w *watcher) read(body io.ReadCloser) {
	defer body.Close()
	lines := bufio.NewReaderSize(body, 4096) // there are thousands of them
	var line []byte
	for {
		part, err := lines.ReadSlice('\n')
		if line = append(line, part...); err == bufio.ErrBufferFull { //nolint:errorlint // returned as it is
			continue
		}
		if err != nil {
			w.note(0, fmt.Errorf("the stream ended: %w", err))
			return
		}
		found := revisionOf.FindSubmatch(line)
		if found == nil || !bytes.HasPrefix(line, []byte(`{"type":"MODIFIED"`)) {
			w.note(0, fmt.Errorf("unexpected event: %.200s", line))
			return
		}
		revision, _ := strconv.ParseInt(string(found[1]), 10, 64)
		w.note(revision, nil)
		line = line[:0]
	}
}

func (w *watcher) note(revision int64, problem error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.problem != nil:
	case problem != nil:
		w.problem = problem
	case revision <= w.last:
		w.problem = fmt.Errorf("revision %d came after %d", revision, w.last)
	default:
		w.last = revision
	}
}

// waitFor returns when the watch has told of a revision.
func (w *watcher) waitFor(revision int64, end time.Time) error {
	for {
		w.mu.Lock()
		last, problem := w.last, w.problem
		w.mu.Unlock()
		switch {
		case problem != nil:
			return problem
		case last == revision:
			return nil
		case last > revision:
			return fmt.Errorf("revision %d came, and nothing is later than %d", last, revision)
		case time.Now().After(end):
			return fmt.Errorf("only revision %d of %d came", last, revision)
		}
		time.Sleep(time.Millisecond)
	}
}

// stall opens a watch of everything on a connection of its own and never reads it.
func (s *server) stall(t *testing.T, ctx context.Context, i int, after int64) {
	t.Helper()
	resp, err := s.request(ctx, newClient(), "GET", fmt.Sprintf("%s?watch=1&timeoutSeconds=7200&resourceVersion=%d", podsPath, after), "", nil)
	if err != nil {
		t.Fatalf("stalled watch %d: %v", i, err)
	}
	t.Cleanup(func() { resp.Body.Close() })
}
