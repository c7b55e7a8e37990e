package httpapi

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
)

func TestHealth(t *testing.T) {
	sick := false
	h := &Health{}
	h.Add(
		Check{Name: "ping", Livez: true, Readyz: true, Probe: func(*http.Request) error { return nil }},
		Check{Name: "etcd", Livez: true, Readyz: true, Probe: func(*http.Request) error {
			if sick {
				return errors.New("no leader")
			}
			return nil
		}},
		Check{Name: "shutdown", Readyz: true, Probe: func(*http.Request) error { return nil }},
	)
	check := func(path string, code int, want string) {
		t.Helper()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != code || w.Body.String() != want {
			t.Errorf("%s: %d %q, want %d %q", path, w.Code, w.Body, code, want)
		}
	}
	check("/healthz", 200, "ok")
	check("/readyz", 200, "ok")
	check("/livez/etcd", 200, "ok")
	check("/livez/shutdown", 404, "404 page not found\n")
	check("/readyz/none", 404, "404 page not found\n")
	check("/livez?verbose", 200, "[+]ping ok\n[+]etcd ok\nlivez check passed\n")
	check("/readyz?verbose&exclude=etcd", 200, "[+]ping ok\n[+]etcd excluded: ok\n[+]shutdown ok\nreadyz check passed\n")
	check("/livez?verbose&exclude=none", 200, "[+]ping ok\n[+]etcd ok\nwarn: some health checks cannot be excluded: no matches for \"none\"\nlivez check passed\n")
	sick = true
	check("/livez", 500, "[+]ping ok\n[-]etcd failed: reason withheld\nlivez check failed\n")
	check("/livez?exclude=etcd", 200, "ok")
	check("/livez/etcd", 500, "internal server error: no leader\n")
	if names := h.Names(); !slices.Contains(names, "/readyz/shutdown") || slices.Contains(names, "/livez/shutdown") || !slices.Contains(names, "/healthz") {
		t.Errorf("the paths are %v", names)
	}
}
