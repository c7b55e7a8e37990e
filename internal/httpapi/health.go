package httpapi

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Check is one thing that health endpoints look at. Probe must be quick: it is
// called for each request.
type Check struct {
	Name  string
	Probe func(r *http.Request) error
	// Where it counts.
	Livez, Readyz bool
}

// Health serves /healthz, /livez and /readyz with their single checks.
type Health struct {
	mu struct {
		sync.RWMutex
		checks []Check
	}
}

// Add adds checks; those of one endpoint are shown in the order in which they were added.
func (h *Health) Add(checks ...Check) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.checks = append(h.mu.checks, checks...)
}

func (h *Health) of(endpoint string) []Check {
	h.mu.RLock()
	defer h.mu.RUnlock()
	var out []Check
	for _, c := range h.mu.checks {
		switch endpoint {
		case "readyz":
			if !c.Readyz {
				continue
			}
		default:
			if !c.Livez {
				continue
			}
		}
		out = append(out, c)
	}
	return out
}

// Names lists the paths that the checks are served at.
func (h *Health) Names() []string {
	var paths []string
	for _, endpoint := range []string{"healthz", "livez", "readyz"} {
		paths = append(paths, "/"+endpoint)
		for _, c := range h.of(endpoint) {
			paths = append(paths, "/"+endpoint+"/"+c.Name)
		}
	}
	return paths
}

func (h *Health) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	endpoint, name, single := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	checks := h.of(endpoint)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if single && name != "" {
		for _, c := range checks {
			if c.Name == name {
				if err := c.Probe(r); err != nil {
					http.Error(w, fmt.Sprintf("internal server error: %v", err), http.StatusInternalServerError)
					return
				}
				_, _ = io.WriteString(w, "ok")
				return
			}
		}
		NotFound(w)
		return
	}
	text, failed := h.verbose(endpoint, checks, r)
	switch _, verbose := r.URL.Query()["verbose"]; {
	case failed:
		http.Error(w, text+endpoint+" check failed", http.StatusInternalServerError)
	case verbose:
		_, _ = io.WriteString(w, text+endpoint+" check passed\n")
	default:
		_, _ = io.WriteString(w, "ok")
	}
}

func (h *Health) verbose(endpoint string, checks []Check, r *http.Request) (text string, failed bool) {
	excluded := r.URL.Query()["exclude"]
	var b strings.Builder
	for _, c := range checks {
		if i := slices.Index(excluded, c.Name); i >= 0 {
			excluded = slices.Delete(excluded, i, i+1)
			fmt.Fprintf(&b, "[+]%s excluded: ok\n", c.Name)
			continue
		}
		if err := c.Probe(r); err != nil {
			failed = true
			fmt.Fprintf(&b, "[-]%s failed: reason withheld\n", c.Name)
			continue
		}
		fmt.Fprintf(&b, "[+]%s ok\n", c.Name)
	}
	if len(excluded) > 0 {
		fmt.Fprintf(&b, "warn: some health checks cannot be excluded: no matches for %q\n", strings.Join(excluded, ","))
	}
	return b.String(), failed
}
