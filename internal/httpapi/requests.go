package httpapi

import (
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/timonel/timonel/internal/trace"
)

// requestView is a record as /debug/requests shows it. Durations are in microseconds.
type requestView struct {
	Start       time.Time        `json:"start"`
	Method      string           `json:"method"`
	Path        string           `json:"path"`
	Verb        string           `json:"verb"`
	Group       string           `json:"group,omitempty"`
	Resource    string           `json:"resource,omitempty"`
	Subresource string           `json:"subresource,omitempty"`
	Namespace   string           `json:"namespace,omitempty"`
	Name        string           `json:"name,omitempty"`
	User        string           `json:"user"`
	Agent       string           `json:"userAgent,omitempty"`
	AuditID     string           `json:"auditID"`
	Status      int              `json:"status"`
	Revision    int64            `json:"revision,omitempty"`
	Bytes       int64            `json:"bytes"`
	Long        bool             `json:"long,omitempty"`
	Micros      int64            `json:"durationMicroseconds"`
	Steps       map[string]int64 `json:"stepsMicroseconds"`
}

// Requests serves /debug/requests: the ring of recent requests, as JSON or, for a
// browser, as a page. ?resource=, ?namespace=, ?name= and ?user= narrow it.
func Requests(ring *trace.Ring) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		views := []requestView{}
		for _, one := range ring.Records() {
			if differs(q.Get("resource"), one.Resource) || differs(q.Get("namespace"), one.Namespace) ||
				differs(q.Get("name"), one.Name) || differs(q.Get("user"), one.User) {
				continue
			}
			views = append(views, view(one))
		}
		if strings.Contains(r.Header.Get("Accept"), "text/html") {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_ = requestsPage.Execute(w, map[string]any{"Steps": trace.Steps(), "Requests": views})
			return
		}
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		_ = enc.Encode(map[string]any{"requests": views})
	})
}

func differs(want, got string) bool { return want != "" && want != got }

func view(r *trace.Record) requestView {
	v := requestView{
		Start: r.Start.UTC(), Method: r.Method, Path: r.Path, Verb: r.Verb, Group: r.Group, Resource: r.Resource,
		Subresource: r.Subresource, Namespace: r.Namespace, Name: r.Name, User: r.User, Agent: r.Agent, AuditID: r.AuditID,
		Status: r.Status, Revision: r.Revision, Bytes: r.Bytes, Long: r.Long, Micros: r.Total().Microseconds(),
		Steps: map[string]int64{},
	}
	for _, s := range trace.Steps() {
		if d := r.Durations[s]; d > 0 {
			v.Steps[s.String()] = d.Microseconds()
		}
	}
	return v
}

var requestsPage = template.Must(template.New("requests").Funcs(template.FuncMap{
	"step": func(v requestView, s trace.Step) string {
		if n := v.Steps[s.String()]; n > 0 {
			return fmt.Sprint(n)
		}
		return ""
	},
	"clock": func(t time.Time) string { return t.Format("15:04:05.000") },
}).Parse(`<!doctype html><title>Requests</title>
<style>body{font:13px system-ui;margin:1em}table{border-collapse:collapse}td,th{padding:2px 8px;border-bottom:1px solid #ddd;text-align:left}td.n{text-align:right;font-variant-numeric:tabular-nums}</style>
<h1>Recent requests</h1><p>Times in microseconds, step by step.</p>
<table><tr><th>start<th>user<th>verb<th>path<th>status<th>revision<th>total{{range .Steps}}<th>{{.}}{{end}}</tr>
{{range $r := .Requests}}<tr><td>{{clock .Start}}<td>{{.User}}<td>{{.Verb}}<td>{{.Path}}<td>{{.Status}}<td class=n>{{if .Revision}}{{.Revision}}{{end}}<td class=n>{{.Micros}}{{range $.Steps}}<td class=n>{{step $r .}}{{end}}</tr>
{{end}}</table>`))
