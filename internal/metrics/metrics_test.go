package metrics

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/trace"
)

func scrape(r *Requests) string {
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

func record(verb, resource, namespace, name string, status int, served bool) *trace.Record {
	rec := &trace.Record{Verb: verb, Group: "apps", Version: "v1", Resource: resource, Namespace: namespace, Name: name, Status: status, Served: served}
	rec.Begin(time.Now())
	rec.End()
	return rec
}

func has(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("there is no %s", line)
		}
	}
}

// The names and labels are those of kube-apiserver's stable metrics.
func TestRequestsAreCounted(t *testing.T) {
	r := New("v1.37.2", "go1.26", "linux/amd64")
	for range 3 {
		r.Done(record("list", "deployments", "a", "", 200, true))
	}
	r.Done(record("get", "deployments", "a", "web", 404, true))
	r.Done(record("deletecollection", "nodes", "", "", 200, true))
	has(t, scrape(r),
		`apiserver_request_total{code="200",component="apiserver",dry_run="",group="apps",resource="deployments",scope="namespace",subresource="",verb="LIST",version="v1"} 3`,
		`apiserver_request_total{code="404",component="apiserver",dry_run="",group="apps",resource="deployments",scope="resource",subresource="",verb="GET",version="v1"} 1`,
		`apiserver_request_total{code="200",component="apiserver",dry_run="",group="apps",resource="nodes",scope="cluster",subresource="",verb="DELETECOLLECTION",version="v1"} 1`,
		`apiserver_request_duration_seconds_count{component="apiserver",dry_run="",group="apps",resource="deployments",scope="namespace",subresource="",verb="LIST",version="v1"} 3`,
		`kubernetes_build_info{git_version="v1.37.2",go_version="go1.26",major="1",minor="37",platform="linux/amd64"} 1`,
	)
}

// What clients make up does not become a label: else anyone could fill the memory.
func TestLabelsAreBounded(t *testing.T) {
	r := New("v1.37.2", "go", "linux")
	for _, name := range []string{"a", "b", "c"} {
		rec := record("get", "made-up-"+name, "", name, 404, false)
		rec.Group = name
		r.Done(rec)
		r.Done(record("BREW"+name, "made-up", "", name, 405, false))
	}
	text := scrape(r)
	if strings.Contains(text, "made-up") || strings.Contains(text, "BREW") {
		t.Error("a client's words are labels")
	}
	has(t, text, `apiserver_request_total{code="404",component="apiserver",dry_run="",group="",resource="",scope="",subresource="",verb="GET",version=""} 3`)
}

func TestRunningRequests(t *testing.T) {
	r := New("v1.37.2", "go", "linux")
	read, write := r.Begin(record("get", "pods", "a", "p", 0, true)), r.Begin(record("patch", "pods", "a", "p", 0, true))
	long := record("watch", "pods", "", "", 0, true)
	long.Long = true
	watch := r.Begin(long)
	has(t, scrape(r),
		`apiserver_current_inflight_requests{request_kind="mutating"} 1`, `apiserver_current_inflight_requests{request_kind="readOnly"} 1`,
		`apiserver_longrunning_requests{component="apiserver",group="apps",resource="pods",scope="cluster",subresource="",verb="WATCH",version="v1"} 1`)
	read()
	write()
	watch()
	has(t, scrape(r),
		`apiserver_current_inflight_requests{request_kind="mutating"} 0`, `apiserver_current_inflight_requests{request_kind="readOnly"} 0`,
		`apiserver_longrunning_requests{component="apiserver",group="apps",resource="pods",scope="cluster",subresource="",verb="WATCH",version="v1"} 0`)
	r.Done(long)
	if text := scrape(r); strings.Contains(text, `duration_seconds_count{component="apiserver",dry_run="",group="apps",resource="pods"`) {
		t.Error("a watch has a duration")
	}
}
