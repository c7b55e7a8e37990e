package serve

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// metricsType is the media type of Prometheus' text format.
const metricsType = "text/plain; version=0.0.4; charset=utf-8"

func writeJSON(w http.ResponseWriter, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %T: %w", v, err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(data)
	return nil
}

// counters count requests by route.
type counters struct {
	mu     sync.Mutex
	routes map[string]*routeCounter
}

type routeCounter struct{ served, inFlight atomic.Int64 }

func newCounters() *counters { return &counters{routes: map[string]*routeCounter{}} }

func (c *counters) count(pattern string, next http.Handler) http.Handler {
	c.mu.Lock()
	defer c.mu.Unlock()
	counter := &routeCounter{}
	c.routes[pattern] = counter
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		counter.served.Add(1)
		counter.inFlight.Add(1)
		defer counter.inFlight.Add(-1)
		next.ServeHTTP(w, r)
	})
}

// metrics answers with what this server and the agent know, under the names
// that kubelets use.
func (s *Server) metrics(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", metricsType)
	out := bufio.NewWriter(w)
	defer out.Flush()
	family := func(name, kind, help string) { fmt.Fprintf(out, "# HELP %s %s\n# TYPE %[1]s %s\n", name, help, kind) }

	family("kubelet_node_name", "gauge", "The node's name. The count is always 1.")
	fmt.Fprintf(out, "kubelet_node_name{node=%q} 1\n", s.config.NodeName)
	family("kubernetes_build_info", "gauge", "The version of the program.")
	fmt.Fprintf(out, "kubernetes_build_info{git_version=%q} 1\n", s.config.Version)

	pods, running, states := s.config.Containers.Pods().Items, 0, map[string]int{"created": 0, "exited": 0, "running": 0}
	for i := range pods {
		here := false
		for _, c := range slices.Concat(pods[i].Status.InitContainerStatuses, pods[i].Status.ContainerStatuses, pods[i].Status.EphemeralContainerStatuses) {
			switch {
			case c.State.Running != nil:
				here = true
				states["running"]++
			case c.State.Terminated != nil:
				states["exited"]++
			case c.ContainerID != "":
				states["created"]++
			}
		}
		if here {
			running++
		}
	}
	family("kubelet_running_pods", "gauge", "Number of pods with a running container.")
	fmt.Fprintf(out, "kubelet_running_pods %d\n", running)
	family("kubelet_running_containers", "gauge", "Number of containers by state.")
	for _, state := range slices.Sorted(maps.Keys(states)) {
		fmt.Fprintf(out, "kubelet_running_containers{container_state=%q} %d\n", state, states[state])
	}

	s.counters.mu.Lock()
	defer s.counters.mu.Unlock()
	family("kubelet_http_requests_total", "counter", "Number of HTTP requests received.")
	for _, pattern := range slices.Sorted(maps.Keys(s.counters.routes)) {
		method, path := routeLabels(pattern)
		fmt.Fprintf(out, "kubelet_http_requests_total{method=%q,path=%q,server_type=\"readwrite\"} %d\n", method, path, s.counters.routes[pattern].served.Load())
	}
	family("kubelet_http_inflight_requests", "gauge", "Number of HTTP requests being served.")
	for _, pattern := range slices.Sorted(maps.Keys(s.counters.routes)) {
		method, path := routeLabels(pattern)
		fmt.Fprintf(out, "kubelet_http_inflight_requests{method=%q,path=%q,server_type=\"readwrite\"} %d\n", method, path, s.counters.routes[pattern].inFlight.Load())
	}
	return nil
}

func routeLabels(pattern string) (method, path string) {
	if method, path, ok := strings.Cut(pattern, " "); ok {
		return method, strings.Trim(path, "/")
	}
	return "", "other"
}

// Labels by which agents tell the runtime whose a container is.
const (
	labelPod       = "io.kubernetes.pod.name"
	labelNamespace = "io.kubernetes.pod.namespace"
	labelContainer = "io.kubernetes.container.name"
)

// usage is what a container, a pod or the node used.
type usage struct {
	labels       string
	cpuSeconds   float64 // since the start
	cpuAt        int64   // milliseconds since 1970
	memory       uint64  // bytes that cannot be reclaimed
	memoryAt     int64
	hasCPU, hasM bool
}

// resourceMetrics answers with CPU and memory in use, for metrics-server and
// with it kubectl top and autoscalers.
func (s *Server) resourceMetrics(w http.ResponseWriter, r *http.Request) error {
	list, err := s.config.Runtime.ListContainerStats(r.Context(), &runtimeapi.ListContainerStatsRequest{})
	if err != nil {
		return runtimeError(err)
	}
	var containers []usage
	byPod := map[string]*usage{}
	for _, stats := range list.Stats {
		labels := stats.GetAttributes().GetLabels()
		if labels[labelPod] == "" {
			continue // not an agent's
		}
		pod := fmt.Sprintf("namespace=%q,pod=%q", labels[labelNamespace], labels[labelPod])
		one := usage{labels: fmt.Sprintf("container=%q,%s", labels[labelContainer], pod)}
		sum := byPod[pod]
		if sum == nil {
			sum = &usage{labels: pod}
			byPod[pod] = sum
		}
		if cpu := stats.GetCpu(); cpu.GetUsageCoreNanoSeconds() != nil {
			one.hasCPU, one.cpuSeconds, one.cpuAt = true, float64(cpu.UsageCoreNanoSeconds.Value)/1e9, cpu.Timestamp/1e6
			sum.hasCPU, sum.cpuSeconds, sum.cpuAt = true, sum.cpuSeconds+one.cpuSeconds, max(sum.cpuAt, one.cpuAt)
		}
		if memory := stats.GetMemory(); memory.GetWorkingSetBytes() != nil {
			one.hasM, one.memory, one.memoryAt = true, memory.WorkingSetBytes.Value, memory.Timestamp/1e6
			sum.hasM, sum.memory, sum.memoryAt = true, sum.memory+one.memory, max(sum.memoryAt, one.memoryAt)
		}
		containers = append(containers, one)
	}
	pods := make([]usage, 0, len(byPod))
	for _, key := range slices.Sorted(maps.Keys(byPod)) {
		pods = append(pods, *byPod[key])
	}
	slices.SortFunc(containers, func(a, b usage) int { return strings.Compare(a.labels, b.labels) })

	w.Header().Set("Content-Type", metricsType)
	out := bufio.NewWriter(w)
	defer out.Flush()
	writeUsage(out, "container", containers)
	writeUsage(out, "pod", pods)
	node, err := nodeUsage()
	if err == nil {
		writeUsage(out, "node", []usage{node})
	}
	failed := 0
	if err != nil {
		failed = 1
	}
	fmt.Fprintf(out, "# HELP resource_scrape_error 1 if there was an error while getting metrics, 0 otherwise\n# TYPE resource_scrape_error gauge\nresource_scrape_error %d\n", failed)
	return nil
}

func writeUsage(out io.Writer, of string, all []usage) {
	braces := func(labels string) string {
		if labels == "" {
			return ""
		}
		return "{" + labels + "}"
	}
	fmt.Fprintf(out, "# HELP %s_cpu_usage_seconds_total Cumulative cpu time consumed in core-seconds\n# TYPE %[1]s_cpu_usage_seconds_total counter\n", of)
	for _, u := range all {
		if u.hasCPU {
			fmt.Fprintf(out, "%s_cpu_usage_seconds_total%s %s %d\n", of, braces(u.labels), strconv.FormatFloat(u.cpuSeconds, 'g', -1, 64), u.cpuAt)
		}
	}
	fmt.Fprintf(out, "# HELP %s_memory_working_set_bytes Current working set in bytes\n# TYPE %[1]s_memory_working_set_bytes gauge\n", of)
	for _, u := range all {
		if u.hasM {
			fmt.Fprintf(out, "%s_memory_working_set_bytes%s %d %d\n", of, braces(u.labels), u.memory, u.memoryAt)
		}
	}
}

// clockTicks is how the kernel counts time in /proc/stat: USER_HZ, which is 100
// on every architecture that we run on.
const clockTicks = 100

// nodeUsage reads what the whole machine uses.
func nodeUsage() (usage, error) {
	now := time.Now().UnixMilli()
	u := usage{hasCPU: true, hasM: true, cpuAt: now, memoryAt: now}
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return usage{}, fmt.Errorf("read the machine's use of CPU: %w", err)
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	fields := strings.Fields(line) // cpu user nice system idle iowait irq softirq steal …
	for i, field := range fields {
		n, err := strconv.ParseFloat(field, 64)
		if err != nil || i == 0 || i == 4 || i == 5 || i > 8 {
			continue // the name, idle and waiting; what comes later is part of user
		}
		u.cpuSeconds += n / clockTicks
	}
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return usage{}, fmt.Errorf("read the machine's use of memory: %w", err)
	}
	kilobytes := map[string]uint64{}
	for line := range strings.Lines(string(info)) {
		name, rest, _ := strings.Cut(line, ":")
		if fields := strings.Fields(rest); len(fields) > 0 {
			kilobytes[name], _ = strconv.ParseUint(fields[0], 10, 64)
		}
	}
	if kilobytes["MemTotal"] < kilobytes["MemAvailable"] {
		return usage{}, fmt.Errorf("read the machine's use of memory: more available than there is")
	}
	u.memory = (kilobytes["MemTotal"] - kilobytes["MemAvailable"]) << 10
	return u, nil
}
