package robust_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"
)

// seen is what a watcher noted, in order.
type seen struct {
	What     string // list, open, event, bookmark, gone
	Type     string // of an event
	Name     string
	Value    string
	Revision int64
	Server   int
	State    map[string]int64 // of a list: revisions by name
}

// watcher follows the objects as an informer does: a list, a watch from there, again from where it was when
// the stream ends, and a new list when the server says that it is too late (410). Each stream is of a random server.
type watcher struct {
	*cluster
	dice *rand.Rand
	http *http.Client

	mu   sync.Mutex
	all  []seen
	last int64
}

func newWatcher(c *cluster, dice *rand.Rand) *watcher {
	return &watcher{cluster: c, dice: dice, http: newHTTPClient()}
}

func (w *watcher) note(s seen) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, s)
	w.last = max(w.last, s.Revision)
}

func (w *watcher) count(what string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.all {
		if s.What == what {
			n++
		}
	}
	return n
}

// waitFor returns when the watcher has seen a revision.
func (w *watcher) waitFor(t *testing.T, revision int64) {
	t.Helper()
	end := time.Now().Add(startWait)
	for {
		w.mu.Lock()
		last := w.last
		w.mu.Unlock()
		if last >= revision {
			return
		}
		if time.Now().After(end) {
			t.Errorf("a watch is at revision %d and does not reach %d", last, revision)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (w *watcher) run(ctx context.Context) {
	from := int64(0)
	for ctx.Err() == nil {
		server := w.dice.IntN(len(w.urls))
		if from == 0 {
			from = w.list(ctx, server)
		}
		if from != 0 {
			from = w.stream(ctx, server, from)
		}
		away := 20 + w.dice.IntN(80) // milliseconds; the server may be away
		if w.dice.IntN(3) == 0 {
			away += w.dice.IntN(3000) // long enough that a server that was restarted does not know the revision any more
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(away) * time.Millisecond):
		}
	}
}

func (w *watcher) path(server int) string {
	return w.urls[server] + "/api/v1/namespaces/" + namespace + "/configmaps"
}

func (w *watcher) list(ctx context.Context, server int) int64 {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	r, err := w.request(ctx, "GET", w.path(server), nil)
	if err != nil {
		return 0
	}
	resp, err := w.http.Do(r)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	var got struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
		Items []object `json:"items"`
	}
	if resp.StatusCode != http.StatusOK || json.NewDecoder(resp.Body).Decode(&got) != nil {
		return 0
	}
	s := seen{What: "list", Server: server, State: map[string]int64{}}
	s.Revision, _ = strconv.ParseInt(got.Metadata.ResourceVersion, 10, 64)
	for _, item := range got.Items {
		s.State[item.Metadata.Name] = item.revision()
	}
	w.note(s)
	return s.Revision
}

// stream follows until the stream ends and returns where to go on; 0: a new list is needed.
func (w *watcher) stream(ctx context.Context, server int, from int64) int64 {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(requestLimit, cancel) // a paused server says nothing
	defer silence.Stop()
	limit := 1 + w.dice.IntN(4)
	r, err := w.request(ctx, "GET", fmt.Sprintf("%s?watch=1&allowWatchBookmarks=true&resourceVersion=%d&timeoutSeconds=%d", w.path(server), from, limit), nil)
	if err != nil {
		return from
	}
	resp, err := w.http.Do(r)
	if err != nil {
		return from
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusGone:
		w.note(seen{What: "gone", Server: server})
		return 0
	default:
		return from
	}
	silence.Reset(time.Duration(limit)*time.Second + requestLimit)
	w.note(seen{What: "open", Server: server, Revision: from})
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e struct {
			Type   string `json:"type"`
			Object struct {
				object
				Code int `json:"code"`
			} `json:"object"`
		}
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			return from // cut within a line
		}
		s := seen{What: "event", Type: e.Type, Name: e.Object.Metadata.Name, Value: e.Object.Data["v"], Revision: e.Object.revision(), Server: server}
		switch e.Type {
		case "BOOKMARK":
			s.What = "bookmark"
		case "ERROR":
			if e.Object.Code == http.StatusGone {
				w.note(seen{What: "gone", Server: server})
				return 0
			}
			return from
		}
		w.note(s)
		from = s.Revision
	}
	return from
}

// check reports what the watcher should not have seen. All changes since a list, in the order of what was noted, must be
// those of the history:
//
//	Ordered       revisions of events grow
//	Unique        no change is told twice, also by different streams
//	Atomic        the changes of one revision come together: a stream that tells one tells the others before anything else
//	Reliable      no change is left out up to the last that was told
//	Resumable     a stream that resumes tells only later changes, and all of them
//	Bookmarkable  after a bookmark all changes up to its revision have been told, and none is told later
func (w *watcher) check(h *history) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := watchCheck{transactions: transactions(h.events())}
	for _, s := range w.all {
		switch s.What {
		case "list":
			c.list(s)
		case "open", "gone":
			c.open()
		case "bookmark":
			c.bookmark(s)
		case "event":
			c.event(s)
		}
	}
	return c.problems
}

// transaction is all changes of one revision, by name.
type transaction struct {
	revision int64
	changes  map[string]change
}

func transactions(events []change) (all []transaction) {
	for _, e := range events {
		if len(all) == 0 || all[len(all)-1].revision != e.Revision {
			all = append(all, transaction{e.Revision, map[string]change{}})
		}
		all[len(all)-1].changes[e.Name] = e
	}
	return all
}

// watchCheck goes through what a watcher noted.
type watchCheck struct {
	transactions []transaction
	problems     []string

	next    int               // index of the first transaction of which nothing was told yet
	told    int64             // revision of the last event or list
	marked  int64             // revision of the last bookmark or list
	owed    map[string]change // what else happened at the revision of the last event
	given   map[string]bool   // what was told of that revision
	resumed bool              // a stream began after the last event
}

func (c *watchCheck) bad(guarantee, format string, args ...any) {
	if len(c.problems) < 20 {
		c.problems = append(c.problems, guarantee+": "+fmt.Sprintf(format, args...))
	}
}

// skipTo leaves the transactions up to a revision behind.
func (c *watchCheck) skipTo(revision int64) {
	for c.next < len(c.transactions) && c.transactions[c.next].revision <= revision {
		c.next++
	}
}

func (c *watchCheck) list(s seen) {
	if s.Revision < c.told {
		c.bad("Ordered", "a list went back from revision %d to %d", c.told, s.Revision)
	}
	*c = watchCheck{transactions: c.transactions, problems: c.problems, told: s.Revision, marked: s.Revision}
	want := map[string]int64{}
	for _, t := range c.transactions {
		if t.revision > s.Revision {
			break
		}
		for name, e := range t.changes {
			if want[name] = e.Revision; e.Value == "" {
				delete(want, name)
			}
		}
	}
	c.skipTo(s.Revision)
	for name, revision := range want {
		if s.State[name] != revision {
			c.bad("Reliable", "a list at %d has %s at %d, not at %d", s.Revision, name, s.State[name], revision)
		}
	}
	if len(s.State) != len(want) {
		c.bad("Reliable", "a list at %d has %d objects, not %d", s.Revision, len(s.State), len(want))
	}
}

// open: a stream begins. One that was cut between two changes of a revision can't be asked for the second, for a client
// knows only revisions.
func (c *watchCheck) open() { c.resumed, c.owed = true, nil }

// settled: something that is of a later revision is told, so nothing of the last one may be missing.
func (c *watchCheck) settled(s seen) {
	for name := range c.owed {
		c.bad("Atomic", "server %d told %s %s of %d before that of %s at %d", s.Server, s.What, s.Name, s.Revision, name, c.told)
	}
	c.owed = nil
}

func (c *watchCheck) bookmark(s seen) {
	c.settled(s)
	if s.Revision < c.told || s.Revision < c.marked {
		c.bad("Bookmarkable", "bookmark %d of server %d after revision %d", s.Revision, s.Server, max(c.told, c.marked))
	}
	if c.next < len(c.transactions) && c.transactions[c.next].revision <= s.Revision {
		c.bad("Bookmarkable", "bookmark %d of server %d, but %+v was not told", s.Revision, s.Server, c.transactions[c.next])
		c.skipTo(s.Revision)
	}
	c.marked = s.Revision
}

func (c *watchCheck) event(s seen) {
	switch {
	case s.Revision < c.told:
		c.bad("Ordered", "%s of %s at %d by server %d after %d", s.Type, s.Name, s.Revision, s.Server, c.told)
		return
	case s.Revision == c.told && (c.given[s.Name] || c.given == nil):
		c.bad("Unique", "%s of %s at %d was told again by server %d", s.Type, s.Name, s.Revision, s.Server)
		return
	case s.Revision == c.told && c.resumed:
		c.bad("Resumable", "%s of %s at %d was told by server %d to one who asked for what came after", s.Type, s.Name, s.Revision, s.Server)
		return
	case s.Revision <= c.marked:
		c.bad("Bookmarkable", "%s of %s at %d by server %d after bookmark %d", s.Type, s.Name, s.Revision, s.Server, c.marked)
	}
	if s.Revision > c.told && !c.begin(s) {
		return
	}
	e, ok := c.owed[s.Name]
	if !ok {
		c.bad("Reliable", "%s of %s at %d by server %d is not in etcd", s.Type, s.Name, s.Revision, s.Server)
		return
	}
	delete(c.owed, s.Name)
	c.given[s.Name] = true
	want := "MODIFIED"
	switch {
	case e.Value == "":
		want = "DELETED"
	case e.Created:
		want = "ADDED"
	}
	if s.Type != want || want != "DELETED" && s.Value != e.Value {
		c.bad("Reliable", "server %d told %s of %s %s at %d, etcd has %+v", s.Server, s.Type, s.Name, s.Value, s.Revision, e)
	}
	c.resumed = false
}

// begin: the first change of a revision is told. It reports whether there is such a revision.
func (c *watchCheck) begin(s seen) bool {
	c.settled(s)
	guarantee := "Reliable"
	if c.resumed {
		guarantee = "Resumable"
	}
	for c.next < len(c.transactions) && c.transactions[c.next].revision < s.Revision {
		c.bad(guarantee, "server %d left out %+v before %d", s.Server, c.transactions[c.next], s.Revision)
		c.next++
	}
	if c.next == len(c.transactions) || c.transactions[c.next].revision != s.Revision {
		c.bad("Reliable", "%s of %s at %d by server %d is not in etcd", s.Type, s.Name, s.Revision, s.Server)
		return false
	}
	c.owed = maps.Clone(c.transactions[c.next].changes)
	c.given, c.told = map[string]bool{}, s.Revision
	c.next++
	return true
}

// TestWatchCheck checks the checks: each guarantee that is broken is named.
func TestWatchCheck(t *testing.T) {
	h := &history{all: []change{{2, "a", "x", true}, {4, "a", "y", false}, {5, "b", "z", true}, {7, "a", "", false}, {9, "b", "p", false}, {9, "c", "q", true}}}
	event := func(kind, name, value string, revision int64) seen {
		return seen{What: "event", Type: kind, Name: name, Value: value, Revision: revision}
	}
	list := seen{What: "list", Revision: 3, State: map[string]int64{"a": 2}}
	y, z, gone := event("MODIFIED", "a", "y", 4), event("ADDED", "b", "z", 5), event("DELETED", "a", "", 7)
	p, q := event("MODIFIED", "b", "p", 9), event("ADDED", "c", "q", 9)
	bookmark := func(r int64) seen { return seen{What: "bookmark", Revision: r} }
	check := func(want string, all ...seen) {
		t.Helper()
		w := &watcher{all: append([]seen{list}, all...)}
		problems := w.check(h)
		switch {
		case want == "" && len(problems) > 0:
			t.Errorf("nothing is wrong, and it says %v", problems)
		case want != "" && len(problems) == 0:
			t.Errorf("%s is broken, and it says nothing", want)
		case want != "" && problems[0][:len(want)] != want:
			t.Errorf("%s is broken, and it says %v", want, problems)
		}
	}
	check("", y, bookmark(4), z, bookmark(6), gone, bookmark(8))
	check("", y, z, gone, q, p, bookmark(9))
	check("", y, z, gone, p, seen{What: "open"}, bookmark(11))
	check("Atomic", y, z, gone, p, bookmark(9))
	check("Unique", y, z, gone, p, q, p)
	check("Unique", y, z, gone, p, seen{What: "open"}, p)
	check("Resumable", y, z, gone, p, seen{What: "open"}, q)
	check("", y, seen{What: "open"}, z, seen{What: "gone"}, seen{What: "list", Revision: 8, State: map[string]int64{"b": 5}})
	check("Ordered", y, z, y)
	check("Unique", y, y)
	check("Unique", y, seen{What: "open"}, y)
	check("Reliable", z)
	check("Reliable", event("ADDED", "a", "y", 4))
	check("Reliable", y, event("ADDED", "c", "q", 6))
	check("Resumable", y, seen{What: "open"}, gone)
	check("Bookmarkable", bookmark(4))
	check("Bookmarkable", y, z, bookmark(4))
	check("Reliable", seen{What: "list", Revision: 6, State: map[string]int64{"a": 4}})
	check("Ordered", y, z, gone, seen{What: "list", Revision: 6, State: map[string]int64{"a": 4, "b": 5}})
}
