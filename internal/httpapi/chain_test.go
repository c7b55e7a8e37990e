package httpapi

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/timonel/timonel/internal/admission"
	"github.com/timonel/timonel/internal/authz"
	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/engine"
	"github.com/timonel/timonel/internal/fairness"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/metrics"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/route"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/storagetest"
	"github.com/timonel/timonel/internal/storage/watchcache"
	"github.com/timonel/timonel/internal/trace"
	"github.com/timonel/timonel/internal/user"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// front is a front door before an engine in memory. Tokens are user names; the user "nobody" may do nothing, "busy"
// finds no seat.
type front struct {
	testing.TB
	server  *Server
	handler http.Handler
	store   *storagetest.Memory
	hook    atomic.Pointer[func()] // called when a ConfigMap is validated
	ring    *trace.Ring
	metrics *metrics.Requests
}

type tokens struct{}

func (tokens) Authenticate(r *http.Request) (*user.Info, error) {
	name, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return nil, nil
	}
	if name == "wrong" {
		return nil, errors.New("no such token")
	}
	u := &user.Info{Name: name}
	if name == "admin" {
		u.Groups = []string{user.SystemPrivileged}
	}
	return u, nil
}

type rights struct{}

func (rights) Authorize(_ context.Context, a *authz.Attributes) (authz.Decision, string, error) {
	if a.User.Name == "nobody" || a.User.Name == "updater" && a.Verb == "create" || a.User.Name == "careful" && strings.HasPrefix(a.Verb, "unsafe") {
		return authz.NoOpinion, "because", nil
	}
	return authz.Allow, "", nil
}

type connector struct{}

func (connector) Connect(w http.ResponseWriter, _ *http.Request, q *route.Request) error {
	if q.Name == "gone" {
		return apierrors.NewBadRequest("it is gone")
	}
	_, err := io.WriteString(w, "connected to "+q.Name+q.Tail)
	return err
}

func open(t testing.TB, change func(c *Config)) *front {
	t.Helper()
	f := &front{TB: t, store: storagetest.NewMemory(), ring: trace.NewRing(64), metrics: metrics.New("v1.37.2", "go", "linux")}
	maps := &kind.Definition{
		Version: "v1", Kind: "ConfigMap", Plural: "configmaps", Scope: kind.Namespaced, Verbs: kind.Standard, New: kind.Of[corev1.ConfigMap](), CreateOnPut: true,
		Validate: kind.Validate(func(*corev1.ConfigMap) field.ErrorList {
			if hook := f.hook.Load(); hook != nil {
				(*hook)()
			}
			return nil
		}),
		Warnings: func(_ context.Context, obj, _ object.Object) (texts []string) {
			for key, text := range obj.GetAnnotations() {
				if strings.HasPrefix(key, "warn") {
					texts = append(texts, text)
				}
			}
			return texts
		},
		Subresources: map[string]*kind.Subresource{"proxy": {Verbs: kind.Get, Connect: true}},
	}
	old := &kind.Definition{Version: "v1", Kind: "Secret", Plural: "secrets", Scope: kind.Namespaced, Verbs: kind.Get | kind.List, New: kind.Of[corev1.Secret](), Deprecated: "v1 Secret is deprecated"}
	live := kind.NewLive(kind.NewCatalog(maps, old))
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	cache := watchcache.New(f.store, "/registry/", watchcache.Options{Log: quiet})
	c := Config{
		Catalog: live, Authenticator: tokens{}, Authorizer: rights{}, Pacer: fairness.New(fairness.Limits{}), Connector: connector{},
		Engine: engine.New(engine.Config{Catalog: live, Store: f.store, Cache: cache, Prefix: "/registry", Admission: &admission.Gate{}, Registered: func(schema.GroupVersionKind) bool { return false }}),
		Ring:   f.ring, Metrics: f.metrics, Log: quiet,
		Paths: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/panic" {
				panic("on purpose")
			}
			_, _ = io.WriteString(w, "path "+r.URL.Path+" of "+user.From(r.Context()).Name)
		}),
	}
	if change != nil {
		change(&c)
	}
	f.server = New(c)
	f.handler = f.server
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = cache.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	<-cache.Ready()
	return f
}

// do sends a request as a user; headers are "Name: value".
func (f *front) do(who, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if who != "" {
		r.Header.Set("Authorization", "Bearer "+who)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, r)
	return w
}

const collection = "/api/v1/namespaces/a/configmaps"

func (f *front) create(name string) {
	f.Helper()
	if w := f.do("user", "POST", collection, `{"metadata":{"name":"`+name+`"}}`); w.Code != http.StatusCreated {
		f.Fatalf("create: %d %s", w.Code, w.Body)
	}
}

func status(t *testing.T, w *httptest.ResponseRecorder) metav1.Status {
	t.Helper()
	var s metav1.Status
	if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil || s.Kind != "Status" || int(s.Code) != w.Code {
		t.Errorf("%d %s is no Status: %v", w.Code, w.Body, err)
	}
	return s
}

// TestStepsInOrder: who is unknown is told that first, who may not is told that before what there is.
func TestStepsInOrder(t *testing.T) {
	f := open(t, func(c *Config) {
		c.Pacer = fairness.New(fairness.Limits{Reading: 1, Writing: 1})
		leave, err := c.Pacer.Enter("get", false, &user.Info{}) // the only seat for readers is taken
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(leave)
	})
	f.create("there")
	for _, one := range []struct {
		who, method, path string
		code              int
	}{
		{"", "GET", collection + "/none", 401},
		{"wrong", "GET", "/apis/none/v1/things", 401},
		{"wrong", "HEAD", collection, 401},
		{"nobody", "GET", collection + "/there", 429},
		{"nobody", "POST", collection, 403},
		{"nobody", "DELETE", collection + "/none", 403},
		{"nobody", "POST", "/api/v1/things", 403},
		{"nobody", "PUT", "/healthz", 403},
		{"user", "POST", "/api/v1/things", 404},
		{"user", "DELETE", "/apis/none/v1/things", 404},
		{"user", "POST", collection + "/there", 405},
		{"user", "OPTIONS", collection, 405},
		{"user", "POST", "/healthz", 200},
		{"user", "GET", collection + "/there", 429},
		{"admin", "GET", collection + "/there", 200}, // is never turned away
		{"admin", "HEAD", collection + "/there", 405},
		{"admin", "GET", collection + "/none", 404},
		{"admin", "GET", "/healthz", 200},
	} {
		w := f.do(one.who, one.method, one.path, "")
		if w.Code != one.code {
			t.Errorf("%s %s of %q: %d %s, want %d", one.method, one.path, one.who, w.Code, w.Body, one.code)
			continue
		}
		if w.Header().Get("Audit-Id") == "" || w.Header().Get("Cache-Control") != "no-cache, private" {
			t.Errorf("%s %s: headers %v", one.method, one.path, w.Header())
		}
		if one.code >= 400 && !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
			status(t, w)
		}
	}
}

func TestErrorsInTheClientsForm(t *testing.T) {
	f := open(t, nil)
	w := f.do("nobody", "GET", collection, "")
	if s := status(t, w); s.Message != `configmaps is forbidden: User "nobody" cannot list resource "configmaps" in API group "" in the namespace "a": because` || w.Header().Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("got %v %s", w.Header(), s.Message)
	}
	w = f.do("user", "GET", collection+"/none", "", "Accept: application/vnd.kubernetes.protobuf")
	if _, kindName, _, err := codec.OpenEnvelope(w.Body.Bytes()); err != nil || kindName != "Status" || w.Header().Get("Content-Type") != "application/vnd.kubernetes.protobuf" {
		t.Errorf("got %q %v", kindName, err)
	}
	w = f.do("user", "GET", collection+"/none", "", "Accept: application/yaml")
	if !strings.Contains(w.Body.String(), "reason: NotFound\n") {
		t.Errorf("got %s", w.Body)
	}
	w = f.do("user", "GET", collection, "", "Accept: text/html")
	if s := status(t, w); w.Code != 406 || s.Reason != "NotAcceptable" {
		t.Errorf("got %s", w.Body)
	}
	if w = f.do("user", "GET", "/apis/none/v1/things", ""); w.Body.String() != "404 page not found\n" {
		t.Errorf("got %q", w.Body)
	}
	if w = f.do("user", "GET", collection+"/x/proxy", ""); w.Body.String() != "connected to x" {
		t.Errorf("got %q", w.Body)
	}
	if w = f.do("user", "GET", collection+"/gone/proxy", ""); status(t, w).Message != "it is gone" {
		t.Errorf("got %q", w.Body)
	}
}

// TestPanicFence: a bug costs one request.
func TestPanicFence(t *testing.T) {
	f := open(t, nil)
	panics := func() { panic("on purpose") }
	f.hook.Store(&panics)
	for _, w := range []*httptest.ResponseRecorder{f.do("user", "POST", collection, `{"metadata":{"name":"x"}}`), f.do("user", "GET", "/panic", "")} {
		if s := status(t, w); w.Code != 500 || s.Reason != metav1.StatusReasonInternalError || !strings.Contains(s.Message, w.Header().Get("Audit-Id")) || strings.Contains(s.Message, "purpose") {
			t.Errorf("got %d %s", w.Code, w.Body)
		}
	}
	f.hook.Store(nil)
	f.create("x")
	if n := len(f.ring.Records()); n != 3 {
		t.Errorf("%d requests are recorded", n)
	}
}

func TestBodies(t *testing.T) {
	f := open(t, nil)
	exact := `{"metadata":{"name":"big"},"data":{"k":"` + strings.Repeat("x", 100_000) + `"}}`
	for _, one := range []struct {
		what, body, contentType string
		code                    int
	}{
		{"one of 100 kB", exact, "", 201},
		{"one that fills the limit", `{"metadata":{"name":"limit"}}` + strings.Repeat(" ", codec.MaxBody-29), "", 201},
		{"one over the limit", `{"metadata":{"name":"over"}}` + strings.Repeat(" ", codec.MaxBody-27), "", 413},
		{"one of unknown form", "x", "text/plain", 415},
		{"noise", "x", "", 400},
		{"yaml", "metadata: {name: yam}\n", "application/yaml", 201},
	} {
		w := f.do("user", "POST", collection, one.body, "Content-Type: "+one.contentType)
		if w.Code != one.code {
			t.Errorf("%s: %d %.200s", one.what, w.Code, w.Body)
		}
		if w.Code == 413 && status(t, w).Message != "Request entity too large: limit is 3145728" {
			t.Errorf("%s: %s", one.what, w.Body)
		}
	}
	for method, contentType := range map[string]string{"PUT": "application/json", "PATCH": "application/merge-patch+json", "DELETE": "application/json"} {
		if w := f.do("user", method, collection+"/big", strings.Repeat(" ", codec.MaxBody+1), "Content-Type: "+contentType); w.Code != 413 {
			t.Errorf("%s of too much: %d", method, w.Code)
		}
	}
}

// TestDeadline: a request that has an end has one.
func TestDeadline(t *testing.T) {
	f := open(t, nil)
	f.create("x")
	for query, code := range map[string]int{"?timeout=1s": 200, "?timeout=x": 400, "?timeout=1ns": 504} {
		w := f.do("user", "GET", collection+"/x"+query, "")
		if w.Code != code || code == 504 && status(t, w).Reason != metav1.StatusReasonTimeout {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
		}
	}
	for _, method := range []string{"PUT", "DELETE"} {
		w := f.do("user", method, collection+"/x?timeout=1ns", `{"metadata":{"name":"x"},"data":{"a":"b"}}`)
		if method == "DELETE" {
			w = f.do("user", method, collection+"/x?timeout=1ns", "")
		}
		if s := status(t, w); w.Code != 504 || s.Reason != metav1.StatusReasonTimeout {
			t.Errorf("%s: %d %s", method, w.Code, w.Body)
		}
	}
}

func TestGzip(t *testing.T) {
	f := open(t, nil)
	for i := range 3 {
		w := f.do("user", "POST", collection, fmt.Sprintf(`{"metadata":{"name":"m%d"},"data":{"k":"%s"}}`, i, strings.Repeat("x", 60_000)))
		if w.Code != 201 {
			t.Fatal(w.Body)
		}
	}
	for _, one := range []struct {
		path, accepts string
		want          bool
	}{
		{collection, "gzip", true}, {collection, "br, gzip;q=0.5", true}, {collection, "", false}, {collection, "gzip;q=0", false}, {collection, "identity", false},
		{collection + "/m0", "gzip", false}, {collection + "?limit=2", "gzip", false},
	} {
		w := f.do("user", "GET", one.path, "", "Accept-Encoding: "+one.accepts)
		if got := w.Header().Get("Content-Encoding") == "gzip"; got != one.want {
			t.Errorf("%s with %q: compressed %t", one.path, one.accepts, got)
		}
		var body io.Reader = w.Body
		if one.want {
			z, err := gzip.NewReader(w.Body)
			if err != nil {
				t.Fatal(err)
			}
			body = z
			if w.Header().Get("Vary") != "Accept-Encoding" {
				t.Errorf("headers %v", w.Header())
			}
		}
		var list struct{ Kind string }
		if err := json.NewDecoder(body).Decode(&list); err != nil || !strings.HasPrefix(list.Kind, "ConfigMap") {
			t.Errorf("%s with %q: %v %v", one.path, one.accepts, list, err)
		}
	}
}

func TestWarnings(t *testing.T) {
	f := open(t, nil)
	warnings := func(w *httptest.ResponseRecorder) []string { return w.Header().Values("Warning") }
	w := f.do("user", "POST", collection, `{"metadata":{"name":"x"},"spec":1}`)
	if got := warnings(w); len(got) != 1 || got[0] != `299 - "unknown field \"spec\""` {
		t.Errorf("got %q", got)
	}
	w = f.do("user", "POST", collection+"?fieldValidation=Strict", `{"metadata":{"name":"y"},"spec":1}`)
	if w.Code != 400 || len(warnings(w)) != 0 {
		t.Errorf("strict: %d %q", w.Code, warnings(w))
	}
	if got := warnings(f.do("user", "GET", "/api/v1/secrets", "")); len(got) != 1 || got[0] != `299 - "v1 Secret is deprecated"` {
		t.Errorf("got %q", got)
	}
	if got := warnings(f.do("user", "POST", collection, `{"metadata":{"name":"control","annotations":{"warn-same":"same","warn-again":"same","warn-tab":"a\tb"}}}`)); len(got) != 1 || got[0] != `299 - "same"` {
		t.Errorf("got %q", got)
	}
}

// TestWarningLimits: many characters of warnings cut each short, the first ones too; then no more are added.
func TestWarningLimits(t *testing.T) {
	h, w := http.Header{}, &warnings{}
	sizes := func() (all []int) {
		for _, text := range h.Values("Warning") {
			all = append(all, utf8.RuneCountInString(text)-len(`299 - ""`))
		}
		return all
	}
	for i := range 4 {
		w.add(h, fmt.Sprint(i, strings.Repeat("é", 999)))
	}
	if got := sizes(); !slices.Equal(got, []int{1000, 1000, 1000, 1000}) {
		t.Errorf("within the limit: %v", got)
	}
	w.add(h, "4"+strings.Repeat("é", 100))
	if got := sizes(); !slices.Equal(got, []int{256, 256, 256, 256, 101}) {
		t.Errorf("over the limit: %v", got)
	}
	for i := range 100 {
		w.add(h, fmt.Sprint("more", i, strings.Repeat("x", 300)))
	}
	if got := sizes(); len(got) < 16 || len(got) > 17 {
		t.Errorf("far over the limit: %v", got)
	}
}

func TestPretty(t *testing.T) {
	f := open(t, nil)
	f.create("x")
	for _, one := range []struct {
		query, agent, accept string
		want                 bool
	}{
		{"", "", "", false}, {"?pretty=true", "", "", true}, {"?pretty", "", "", false}, {"?pretty", "curl/8", "", true}, {"?pretty=T", "", "", true}, {"?pretty=yes", "curl/8", "", false}, {"?pretty=0", "curl/8", "", false}, {"", "curl/8.1", "", true}, {"", "kubectl", "", false},
		{"", "Mozilla/5.0 (X11)", "", true}, {"", "", "application/json;pretty=1", true},
	} {
		w := f.do("user", "GET", collection+"/x"+one.query, "", "User-Agent: "+one.agent, "Accept: "+one.accept)
		if got := bytes.HasPrefix(w.Body.Bytes(), []byte("{\n  \"")); got != one.want {
			t.Errorf("%+v: indented %t", one, got)
		}
	}
}

// TestEachRequestIsRecordedOnce in the ring and the metrics, whatever became of it.
func TestEachRequestIsRecordedOnce(t *testing.T) {
	f := open(t, nil)
	f.create("x")
	f.do("", "GET", collection, "")
	f.do("nobody", "GET", collection, "")
	f.do("user", "GET", collection+"/x", "", "Audit-Id: mine")
	f.do("user", "GET", collection+"/none", "")
	f.do("user", "GET", "/panic", "")
	records := f.ring.Records()
	var got []string
	for _, r := range records {
		got = append(got, fmt.Sprintf("%s %s %s %d", r.User, r.Verb, r.Name, r.Status))
	}
	want := "user create x 201; list  401;nobody list  403;user get x 200;user get none 404;user get  500"
	if strings.Join(got, ";") != want {
		t.Errorf("recorded %q", got)
	}
	if r := records[3]; r.AuditID != "mine" || r.Bytes == 0 || r.Revision == 0 || r.Total() <= 0 || r.Durations[trace.Answer] <= 0 {
		t.Errorf("recorded %+v", r)
	}
	w := httptest.NewRecorder()
	f.metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, line := range []string{
		`apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1"} 1`,
		`apiserver_request_total{code="404",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1"} 1`,
		`apiserver_current_inflight_requests{request_kind="readOnly"} 0`,
		`apiserver_current_inflight_requests{request_kind="mutating"} 0`,
	} {
		if !strings.Contains(w.Body.String(), line+"\n") {
			t.Errorf("the metrics lack %s", line)
		}
	}
	total := 0
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "apiserver_request_total{") {
			var n int
			_, _ = fmt.Sscan(line[strings.LastIndexByte(line, ' '):], &n)
			total += n
		}
	}
	if total != len(records) {
		t.Errorf("%d requests are counted, want %d", total, len(records))
	}

	w = httptest.NewRecorder()
	Requests(f.ring).ServeHTTP(w, httptest.NewRequest("GET", "/debug/requests?user=user&name=x", nil))
	var shown struct{ Requests []requestView }
	if err := json.Unmarshal(w.Body.Bytes(), &shown); err != nil || len(shown.Requests) != 2 || shown.Requests[1].AuditID != "mine" {
		t.Errorf("shown: %s, %v", w.Body, err)
	}
}

// watching is a watch over a real connection.
func watching(t *testing.T, f *front, query string) (next func() (eventType, name string, err error), stop func()) {
	t.Helper()
	s := httptest.NewServer(f.handler)
	t.Cleanup(s.Close)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	r, _ := http.NewRequestWithContext(ctx, "GET", s.URL+collection+"?watch=1"+query, nil)
	r.Header.Set("Authorization", "Bearer user")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	lines := bufio.NewReader(resp.Body)
	return func() (string, string, error) {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return "", "", err
		}
		var e struct {
			Type   string
			Object struct {
				Code     int
				Metadata metav1.ObjectMeta
			}
		}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		return e.Type, e.Object.Metadata.Name, nil
	}, cancel
}

func TestWatchTellsAndEndsWithDrain(t *testing.T) {
	f := open(t, nil)
	f.create("x")
	next, _ := watching(t, f, "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true")
	expect := func(want string) {
		t.Helper()
		eventType, name, err := next()
		if got := strings.TrimSpace(eventType + " " + name); err != nil || got != want {
			t.Fatalf("told %q, %v, want %q", got, err, want)
		}
	}
	expect("ADDED x")
	expect("BOOKMARK")
	f.create("y")
	expect("ADDED y")
	if w := f.do("user", "DELETE", collection+"/x", ""); w.Code != 200 {
		t.Fatal(w.Body)
	}
	expect("DELETED x")
	f.server.Drain()
	if _, _, err := next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the drain: %v", err)
	}
	if w := f.do("user", "GET", collection, ""); w.Code != http.StatusServiceUnavailable {
		t.Errorf("a request while draining: %d", w.Code)
	}
	if w := f.do("user", "GET", "/healthz", ""); w.Code != http.StatusOK {
		t.Errorf("health while draining: %d", w.Code)
	}
}

// TestWatcherThatDoesNotReadDelaysNobody.
func TestWatcherThatDoesNotReadDelaysNobody(t *testing.T) {
	f := open(t, nil)
	_, stop := watching(t, f, "") // reads nothing
	next, _ := watching(t, f, "")
	const n = 40
	text := strings.Repeat("x", 200_000) // more than sockets hold, all together
	for i := range n {
		if w := f.do("user", "POST", collection, fmt.Sprintf(`{"metadata":{"name":"m%d"},"data":{"k":"%s"}}`, i, text)); w.Code != 201 {
			t.Fatal(w.Body)
		}
	}
	for i := range n {
		eventType, name, err := next()
		if err != nil || eventType != "ADDED" || name != fmt.Sprint("m", i) {
			t.Fatalf("event %d is %s %s, %v", i, eventType, name, err)
		}
	}
	stop()
}

func TestWatchEndsInTime(t *testing.T) {
	f := open(t, nil)
	next, _ := watching(t, f, "&timeoutSeconds=1")
	start := time.Now()
	if _, _, err := next(); !errors.Is(err, io.EOF) || time.Since(start) < 500*time.Millisecond {
		t.Errorf("it ended with %v", err)
	}
}

func TestPutThatMayNotCreate(t *testing.T) {
	f := open(t, nil)
	if w := f.do("updater", "PUT", collection+"/new", `{"metadata":{"name":"new"}}`); w.Code != 403 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := f.do("user", "PUT", collection+"/new", `{"metadata":{"name":"new"}}`); w.Code != 201 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := f.do("updater", "PUT", collection+"/new", `{"metadata":{"name":"new"},"data":{"a":"b"}}`); w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestUnreadableObjects: who has the right may delete what does not decode, one by one and with nothing else asked.
func TestUnreadableObjects(t *testing.T) {
	f := open(t, nil)
	f.create("fine")
	if _, err := f.store.Commit(context.Background(), storage.Txn{Then: []storage.Op{{Key: "/registry/configmaps/a/broken", Value: []byte("\x00noise")}}}); err != nil {
		t.Fatal(err)
	}
	const option = "?ignoreStoreReadErrorWithClusterBreakingPotential=true"
	for _, one := range []struct {
		who, path string
		code      int
		message   string
	}{
		{"user", "/broken", 500, "data from the storage is not transformable or not decodable"},
		{"careful", "/broken" + option, 403, `configmaps "broken" is forbidden: not permitted to do "unsafe-delete-ignore-read-errors", reason: because`},
		{"user", "/broken" + option + "&dryRun=All", 200, ""},
		{"user", "/broken" + option + "&propagationPolicy=Orphan", 422, "cannot be set together with"},
		{"user", "/fine" + option, 422, "is exclusively used to delete corrupt object(s), try again by removing this option"},
		{"user", option, 422, "is not allowed with DELETECOLLECTION, try again after removing the option"},
		{"user", "/broken" + option, 200, ""},
	} {
		w := f.do(one.who, "DELETE", collection+one.path, "")
		if w.Code != one.code || one.message != "" && !strings.Contains(status(t, w).Message, one.message) {
			t.Errorf("%s deletes %s: %d %s", one.who, one.path, w.Code, w.Body)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	f := open(t, nil)
	f.create("x")
	for _, one := range []struct {
		method, query string
		code          int
	}{
		{"GET", "/x?export=1", 400}, {"GET", "/x?export=false", 200},
		{"GET", "?limit=x", 400}, {"GET", "?timeoutSeconds=1.5", 400}, {"GET", "?labelSelector=!!", 400}, {"GET", "?fieldSelector=a", 400},
		{"GET", "?resourceVersionMatch=Exact", 422}, {"GET", "?resourceVersion=1&resourceVersionMatch=Other", 422}, {"GET", "?limit=1&unknown=1", 200},
		{"POST", "?dryRun=Some", 422}, {"POST", "?fieldValidation=x", 422}, {"POST", "?fieldManager=" + strings.Repeat("m", 129), 422}, {"POST", "?dryRun=All", 201},
		{"GET", "?watch=1&resourceVersion=x", 500},
	} {
		w := f.do("user", one.method, collection+one.query, `{"metadata":{"name":"new"}}`)
		if w.Code != one.code {
			t.Errorf("%s %s: %d %s, want %d", one.method, one.query, w.Code, w.Body, one.code)
		}
	}
}
