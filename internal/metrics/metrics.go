// Package metrics counts what the server does, under the names that dashboards of
// kube-apiserver know, and serves them in the Prometheus text format.
//
// Promises: counting a request is one look-up and two additions; what was never asked for is never
// counted under a label of its own.
//
// Does not know: what the requests mean. Start reading at Requests.Done.
package metrics

import (
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/timonel/timonel/internal/trace"
)

// durations are kube-apiserver's buckets, in seconds.
var durations = []float64{
	0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60,
}

// Requests are the metrics of requests.
type Requests struct {
	registry *prometheus.Registry
	total    *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	long     *prometheus.GaugeVec
	inFlight *prometheus.GaugeVec
	reading  running // of inFlight
	writing  running
	counted  sync.Map // labels → *counters
}

// labels are what tells one sort of request from another.
type labels struct {
	verb, group, version, resource, subresource, scope string
	code                                               int
}

type counters struct {
	total   prometheus.Counter
	seconds prometheus.Observer // nil for requests that have no end
}

var requestLabels = []string{"verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"}

// New makes the metrics of a server of a version; others are served beside them.
func New(gitVersion, goVersion, platform string, others ...prometheus.Collector) *Requests {
	r := &Requests{
		registry: prometheus.NewRegistry(),
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "apiserver_request_total", Help: "[STABLE] Requests, by what they asked for and the code of the answer.",
		}, append(requestLabels[:len(requestLabels):len(requestLabels)], "code")),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "apiserver_request_duration_seconds", Help: "[STABLE] How long requests took, by what they asked for.", Buckets: durations,
		}, requestLabels),
		long: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "apiserver_longrunning_requests", Help: "[STABLE] Watches and streams that are open.",
		}, []string{"verb", "group", "version", "resource", "subresource", "scope", "component"}),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "apiserver_current_inflight_requests", Help: "[STABLE] Requests that run now, reading and writing.",
		}, []string{"request_kind"}),
	}
	r.reading, r.writing = newRunning(r.inFlight.WithLabelValues("readOnly")), newRunning(r.inFlight.WithLabelValues("mutating"))
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "kubernetes_build_info", Help: "[ALPHA] The version of the API that is served.",
	}, []string{"git_version", "go_version", "platform", "major", "minor"})
	major, minor, _ := strings.Cut(strings.TrimPrefix(gitVersion, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	build.WithLabelValues(gitVersion, goVersion, platform, major, minor).Set(1)
	r.registry.MustRegister(r.total, r.seconds, r.long, r.inFlight, build, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	r.registry.MustRegister(others...)
	return r
}

// Register adds what another room counts.
func (r *Requests) Register(collectors ...prometheus.Collector) {
	r.registry.MustRegister(collectors...)
}

// Handler serves the metrics.
func (r *Requests) Handler() http.Handler {
	return promhttp.HandlerFor(r.registry, promhttp.HandlerOpts{})
}

// Begin counts a located request as running; the caller calls done when it is answered.
func (r *Requests) Begin(rec *trace.Record) (done func()) {
	if rec.Long {
		l := r.labelsOf(rec)
		g := r.long.WithLabelValues(l.verb, l.group, l.version, l.resource, l.subresource, l.scope, component)
		g.Inc()
		return g.Dec
	}
	now := &r.reading
	if mutates(rec.Verb) {
		now = &r.writing
	}
	now.gauge.Inc()
	return now.done
}

// running is a gauge of requests that run now.
type running struct {
	gauge prometheus.Gauge
	done  func()
}

func newRunning(g prometheus.Gauge) running { return running{g, g.Dec} }

const component = "apiserver"

func mutates(verb string) bool {
	switch verb {
	case "create", "update", "patch", "delete", "deletecollection", "post", "put":
		return true
	}
	return false
}

// Done counts an answered request.
func (r *Requests) Done(rec *trace.Record) {
	l := r.labelsOf(rec)
	l.code = rec.Status
	c, ok := r.counted.Load(l)
	if !ok {
		c, _ = r.counted.LoadOrStore(l, r.countersOf(l, rec.Long))
	}
	n := c.(*counters)
	n.total.Inc()
	if n.seconds != nil {
		n.seconds.Observe(rec.Total().Seconds())
	}
}

func (r *Requests) countersOf(l labels, long bool) *counters {
	c := &counters{total: r.total.WithLabelValues(l.verb, "", l.group, l.version, l.resource, l.subresource, l.scope, component, strconv.Itoa(l.code))}
	if !long {
		c.seconds = r.seconds.WithLabelValues(l.verb, "", l.group, l.version, l.resource, l.subresource, l.scope, component)
	}
	return c
}

// labelsOf leaves out what clients choose freely: paths and names of what is not served.
func (r *Requests) labelsOf(rec *trace.Record) labels {
	if !rec.Served {
		return labels{verb: verbs[rec.Verb]}
	}
	l := labels{verb: verbs[rec.Verb], group: rec.Group, version: rec.Version, resource: rec.Resource, subresource: rec.Subresource}
	switch {
	case rec.Resource == "":
	case rec.Name != "":
		l.scope = "resource"
	case rec.Namespace != "":
		l.scope = "namespace"
	default:
		l.scope = "cluster"
	}
	return l
}

// verbs are the values of the label verb.
var verbs = map[string]string{
	"get": "GET", "list": "LIST", "watch": "WATCH", "create": "POST", "update": "PUT", "patch": "PATCH",
	"delete": "DELETE", "deletecollection": "DELETECOLLECTION", "post": "POST", "put": "PUT", "head": "HEAD",
}
