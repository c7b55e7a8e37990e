package robust_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// operation is one request about one object: what was asked, what came back, and when.
type operation struct {
	Client     int
	Verb       verb
	Name       string
	Expect     int64  // revision that must be the newest; 0: any
	Value      string // written
	Call, Back time.Duration
	Outcome    outcome
	Got        string // value read; "" absent
	Revision   int64  // of the answer
	Server     int
}

type verb string

const (
	create verb = "create"
	update verb = "update" // PUT; with Expect a compare-and-swap
	patch  verb = "patch"  // a merge patch, of whatever is there
	remove verb = "delete"
	read   verb = "get"
)

type outcome string

const (
	done     outcome = "done"
	exists   outcome = "exists"   // 409 AlreadyExists
	conflict outcome = "conflict" // 409 Conflict
	missing  outcome = "missing"  // 404
	unknown  outcome = "unknown"  // may or may not have happened, or will
)

// snapshot is a consistent list.
type snapshot struct {
	Revision  int64
	Values    map[string]string
	Revisions map[string]int64
	Server    int
	Cached    bool // resourceVersion=0
}

// operations is everything that clients did.
type operations struct {
	start time.Time
	mu    sync.Mutex
	all   []operation
	lists []snapshot
}

func (o *operations) add(op operation) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, op)
}

// client sends one request at a time, each to a random server.
type client struct {
	*cluster
	log    *operations
	id     int
	dice   *rand.Rand
	http   *http.Client
	next   int
	server int
	seen   map[string]int64 // the revision of an object that it saw last
}

func newClient(c *cluster, log *operations, id int, dice *rand.Rand) *client {
	return &client{cluster: c, log: log, id: id, dice: dice, http: newHTTPClient(), seen: map[string]int64{}}
}

// requestLimit is how long a client waits for an answer.
const requestLimit = 4 * time.Second

func (c *client) run(ctx context.Context) {
	defer c.http.CloseIdleConnections()
	for ctx.Err() == nil {
		c.server = c.dice.IntN(len(c.urls))
		name := objectName(c.dice.IntN(objects))
		op := operation{Name: name}
		switch n := c.dice.IntN(100); {
		case n < 15:
			op.Verb = create
		case n < 40:
			op.Verb, op.Expect = update, c.seen[name]
		case n < 50:
			op.Verb = patch
		case n < 60:
			op.Verb = remove
		case n < 90:
			op.Verb = read
		default:
			c.list(context.WithoutCancel(ctx), c.dice.IntN(2) == 0)
			continue
		}
		pause := time.Duration(c.dice.IntN(20)) * time.Millisecond
		if !c.do(context.WithoutCancel(ctx), op) {
			pause += 50 * time.Millisecond // the server is away
		}
		time.Sleep(pause) // load, not synchronisation
	}
}

// put creates an object and returns its revision, or 0.
func (c *client) put(ctx context.Context, name string) int64 {
	c.do(ctx, operation{Verb: create, Name: name})
	return c.seen[name]
}

type object struct {
	Metadata struct {
		Name            string `json:"name"`
		ResourceVersion string `json:"resourceVersion"`
	} `json:"metadata"`
	Data map[string]string `json:"data"`
}

func (o *object) revision() int64 {
	n, _ := strconv.ParseInt(o.Metadata.ResourceVersion, 10, 64)
	return n
}

func (c *client) do(ctx context.Context, op operation) (answered bool) {
	op.Client, op.Server = c.id, c.server
	path := c.urls[c.server] + "/api/v1/namespaces/" + namespace + "/configmaps"
	method, contentType := "", "application/json"
	var body map[string]any
	if op.Verb != read && op.Verb != remove {
		c.next++
		op.Value = newValue(c.id, c.next)
		meta := map[string]any{"name": op.Name}
		if op.Expect != 0 {
			meta["resourceVersion"] = strconv.FormatInt(op.Expect, 10)
		}
		body = map[string]any{"metadata": meta, "data": map[string]any{"v": op.Value}}
	}
	switch op.Verb {
	case create:
		method = "POST"
	case update:
		method, path = "PUT", path+"/"+op.Name
	case patch:
		method, path, contentType = "PATCH", path+"/"+op.Name, "application/merge-patch+json"
		delete(body, "metadata")
	case remove:
		method, path = "DELETE", path+"/"+op.Name
	case read:
		method, path = "GET", path+"/"+op.Name
	}
	var encoded []byte
	if body != nil {
		encoded, _ = json.Marshal(body)
	}
	op.Call = time.Since(c.log.start)
	status, answer, err := c.send(ctx, method, path, contentType, encoded)
	op.Back = time.Since(c.log.start)

	var got object
	if err == nil && status < 300 {
		if err = json.Unmarshal(answer, &got); err != nil {
			status = 0
		}
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), err == nil && (status == http.StatusTooManyRequests || status == http.StatusUnauthorized || status == http.StatusForbidden):
		return false // it did not happen
	case err != nil, status >= 500:
		op.Outcome = unknown
		if op.Verb == read {
			return false
		}
	case status == http.StatusNotFound:
		op.Outcome = missing
	case status == http.StatusConflict && op.Verb == create:
		op.Outcome = exists
	case status == http.StatusConflict:
		op.Outcome = conflict
	case status < 300:
		op.Outcome, op.Revision = done, got.revision()
		if op.Verb == read {
			op.Got = got.Data["v"]
		}
		if op.Verb == remove {
			op.Revision = 0 // the answer of a deletion may be a Status
		}
	default:
		panic(fmt.Sprintf("%s %s: %d %s", method, path, status, answer))
	}
	c.log.add(op)
	if op.Revision > 0 {
		c.seen[op.Name] = op.Revision
	}
	if op.Outcome == missing {
		delete(c.seen, op.Name)
	}
	return op.Outcome != unknown
}

func (c *client) send(ctx context.Context, method, path, contentType string, body []byte) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	r, err := c.request(ctx, method, path, body)
	if err != nil {
		return 0, nil, err
	}
	if body == nil {
		r.Body, r.ContentLength = nil, 0
	}
	r.Header.Set("Content-Type", contentType)
	resp, err := c.http.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, bytes.TrimSpace(answer), err
}

// list notes a list, which must be the state of one revision.
func (c *client) list(ctx context.Context, cached bool) {
	path := c.urls[c.server] + "/api/v1/namespaces/" + namespace + "/configmaps"
	if cached {
		path += "?resourceVersion=0"
	}
	call := time.Since(c.log.start)
	status, answer, err := c.send(ctx, "GET", path, "application/json", nil)
	back := time.Since(c.log.start)
	if err != nil || status != http.StatusOK {
		return
	}
	var got struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
		Items []object `json:"items"`
	}
	if json.Unmarshal(answer, &got) != nil {
		return
	}
	s := snapshot{Values: map[string]string{}, Revisions: map[string]int64{}, Server: c.server, Cached: cached}
	s.Revision, _ = strconv.ParseInt(got.Metadata.ResourceVersion, 10, 64)
	for _, item := range got.Items {
		s.Values[item.Metadata.Name], s.Revisions[item.Metadata.Name] = item.Data["v"], item.revision()
		c.seen[item.Metadata.Name] = item.revision()
	}
	c.log.mu.Lock()
	c.log.lists = append(c.log.lists, s)
	c.log.mu.Unlock()
	if cached {
		return
	}
	for i := range objects { // a consistent list reads every object
		name := objectName(i)
		c.log.add(operation{Client: c.id, Verb: read, Name: name, Call: call, Back: back, Outcome: found(s.Values[name]), Got: s.Values[name], Revision: s.Revisions[name], Server: c.server})
	}
}

func found(value string) outcome {
	if value == "" {
		return missing
	}
	return done
}
