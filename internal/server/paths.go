package server

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/pprof"
	"path"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/timonel/timonel/internal/authn"
	"github.com/timonel/timonel/internal/discovery"
	"github.com/timonel/timonel/internal/feature"
	"github.com/timonel/timonel/internal/httpapi"
	"github.com/timonel/timonel/internal/metrics"
	"k8s.io/apimachinery/pkg/version"
)

// Compatibility is the Kubernetes version whose API is served.
const (
	compatibleMajor, compatibleMinor = "1", "37"
	compatibleVersion                = "v1.37.2"
	// What is stored can be read by servers from this version on.
	minCompatibleMajor, minCompatibleMinor = "1", "36"
)

// Version is what /version answers: the served API's version, with our own as build metadata.
func Version() version.Info {
	info := version.Info{
		Major: compatibleMajor, Minor: compatibleMinor, EmulationMajor: compatibleMajor, EmulationMinor: compatibleMinor,
		MinCompatibilityMajor: minCompatibleMajor, MinCompatibilityMinor: minCompatibleMinor,
		GitVersion: compatibleVersion, GitTreeState: "clean",
		GoVersion: runtime.Version(), Compiler: runtime.Compiler, Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range build.Settings {
			switch setting.Key {
			case "vcs.revision":
				info.GitCommit = setting.Value
			case "vcs.time":
				info.BuildDate = setting.Value
			case "vcs.modified":
				if setting.Value == "true" {
					info.GitTreeState = "dirty"
				}
			}
		}
	}
	return info
}

func newMetrics(gates feature.Gates) *metrics.Requests {
	v := Version()
	return metrics.New(v.GitVersion, v.GoVersion, v.Platform, metrics.Features(gates.All()))
}

// paths serves everything that is not an API resource.
func (s *Server) paths() http.Handler {
	mux := http.NewServeMux()
	s.addHealth(mux)
	mux.Handle("/openapi/", s.documents)
	mux.Handle("/version", discovery.VersionHandler(Version()))
	mux.Handle("/version/", discovery.VersionHandler(Version()))
	mux.Handle("/metrics", s.metrics.Handler())
	mux.Handle("/debug/requests", httpapi.Requests(s.ring))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	s.addIssuer(mux)
	s.addIndex(mux)
	catalogue := s.discovery()
	for _, path := range []string{"/api", "/api/", "/apis", "/apis/"} {
		mux.Handle(path, catalogue)
	}
	return unclean(mux)
}

// unclean answers paths with empty or dotted parts, which the mux would redirect: they
// belong to nothing.
func unclean(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := strings.TrimSuffix(r.URL.Path, "/")
		switch {
		case p == "" || path.Clean(p) == p:
			mux.ServeHTTP(w, r)
		case strings.HasPrefix(p, "/api/") || strings.HasPrefix(p, "/apis/"):
			httpapi.NoResource(w)
		default:
			httpapi.NotFound(w)
		}
	})
}

// addIndex serves the list of paths, and 404 for everything that is not there.
func (s *Server) addIndex(mux *http.ServeMux) {
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" && r.URL.Path != "/index.html" {
			httpapi.NotFound(w)
			return
		}
		sendJSON(w, map[string]any{"paths": s.index()})
	})
}

func (s *Server) addHealth(mux *http.ServeMux) {
	always := func(*http.Request) error { return nil }
	storage := func(timeout time.Duration) func(*http.Request) error {
		return func(r *http.Request) error {
			ctx, cancel := context.WithTimeout(r.Context(), timeout)
			defer cancel()
			_, err := s.Store.Now(ctx)
			return err
		}
	}
	s.health.Add(
		httpapi.Check{Name: "ping", Probe: always, Livez: true, Readyz: true},
		httpapi.Check{Name: "log", Probe: always, Livez: true, Readyz: true},
		httpapi.Check{Name: "etcd", Probe: storage(s.EtcdHealthTimeout), Livez: true, Readyz: true},
		httpapi.Check{Name: "etcd-readiness", Probe: storage(s.EtcdReadyTimeout), Readyz: true},
	)
	s.addEncryptionHealth()
	s.health.Add(
		httpapi.Check{Name: "informer-sync", Probe: s.ready, Readyz: true},
		httpapi.Check{Name: "poststarthook/rbac/bootstrap-roles", Probe: s.ready, Readyz: true},
	)
	for _, endpoint := range []string{"/healthz", "/livez", "/readyz"} {
		mux.Handle(endpoint, s.health)
		mux.Handle(endpoint+"/", s.health)
	}
}

// addIssuer serves what others need to verify service account tokens (OpenID
// Connect discovery), when the issuer is a URL.
func (s *Server) addIssuer(mux *http.ServeMux) {
	if !strings.HasPrefix(s.ServiceAccountIssuers[0], "https://") {
		return
	}
	const maxAge = "public, max-age=3600"
	mux.HandleFunc("/.well-known/openid-configuration", get(func(w http.ResponseWriter, r *http.Request) {
		host := s.ExternalHostname
		if host == "" {
			host = s.advertiseHostPort()
		}
		b, err := authn.DiscoveryDocument(s.ServiceAccountIssuers[0], host, "", s.Credentials.verifiers)
		sendDocument(w, "application/json", maxAge, b, err)
	}))
	mux.HandleFunc("/openid/v1/jwks", get(func(w http.ResponseWriter, r *http.Request) {
		if accept := r.Header.Get("Accept"); accept != "" && !strings.Contains(accept, "*/*") && !strings.Contains(accept, "application/jwk-set+json") {
			httpapi.NotAcceptable(w, "only the following media types are accepted: application/jwk-set+json")
			return
		}
		b, err := authn.KeySetDocument(s.Credentials.verifiers)
		sendDocument(w, "application/jwk-set+json", maxAge, b, err)
	}))
}

// index lists the paths that are served.
func (s *Server) index() []string {
	paths := []string{"/.well-known/openid-configuration", "/api", "/api/v1", "/apis", "/apis/", "/metrics", "/openapi/v2", "/openapi/v3", "/openapi/v3/", "/openid/v1/jwks", "/version"}
	catalog := s.Catalog.Catalog()
	for _, group := range catalog.Groups() {
		if group == "" {
			continue
		}
		paths = append(paths, "/apis/"+group)
		for _, v := range catalog.Versions(group) {
			paths = append(paths, "/apis/"+group+"/"+v)
		}
	}
	paths = append(paths, s.health.Names()...)
	slices.Sort(paths)
	return slices.Compact(paths)
}

// get lets only GET (and HEAD) through.
func get(f http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			httpapi.MethodNotAllowed(w)
			return
		}
		f(w, r)
	}
}

func sendJSON(w http.ResponseWriter, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	sendDocument(w, "application/json", "", b, err)
}

func sendDocument(w http.ResponseWriter, contentType, cacheControl string, b []byte, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	if cacheControl != "" {
		w.Header().Set("Cache-Control", cacheControl)
	}
	_, _ = w.Write(b)
}
