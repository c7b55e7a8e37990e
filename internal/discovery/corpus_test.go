package discovery

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/version"

	"github.com/timonel/timonel/internal/testkit/corpus"
)

// handler is the discovery of a server with the default group versions.
func handler(t *testing.T) http.Handler {
	d := Build(append(builtIn(t), widgets("c001.example.com")), Options{ServerAddress: "10.0.0.1:6443"})
	mux := http.NewServeMux()
	mux.Handle("/", d)
	v := VersionHandler(version.Info{Major: "1", Minor: "37", EmulationMajor: "1", EmulationMinor: "37", MinCompatibilityMajor: "1",
		MinCompatibilityMinor: "36", GitVersion: "v1.37.2", Compiler: "gc"})
	mux.Handle("/version", v)
	mux.Handle("/version/", v)
	return mux
}

// ours are the steps about documents of this package.
func ours(s *corpus.Step) bool {
	path, _, _ := strings.Cut(strings.Trim(s.Path, "/"), "?")
	parts := strings.Split(path, "/")
	switch parts[0] {
	case "version":
		return true
	case "api":
		return len(parts) <= 2
	case "apis":
		return len(parts) <= 3
	}
	return false
}

func TestCorpus(t *testing.T) {
	corpus.Replay(t, handler(t), "discovery", "*.yaml", nil, ours)
}

func TestCorpusCustomResources(t *testing.T) {
	corpus.Replay(t, handler(t), "crd", "discovery-openapi.yaml", map[string]string{"ns": "c001"}, func(s *corpus.Step) bool {
		return s.Method == "GET" && s.Name != "established" && ours(s) && !slices.Contains(s.Only, "status")
	})
}

func widgets(group string) Group {
	return Group{Name: group, Custom: true, Versions: []Version{{Name: "v1", Resources: []Resource{{
		Name: "widgets", Singular: "widget", Kind: "Widget", Namespaced: true,
		Verbs: []string{"delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"}, ShortNames: []string{"wd"}, Categories: []string{"all"},
	}}}}}
}
