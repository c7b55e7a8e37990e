// Package corpus replays recorded requests of the reference server against an
// http.Handler and compares the answers, so that a room can be held against
// the corpus without a server. The recordings are not part of this repository:
// TIMONEL_CORPUS names the directory that holds them, by default
// shared/corpus beside the checkout; without it the tests are skipped.
//
// Does not know: watches, variables made by earlier answers, controllers. For
// those, run the replayer that comes with the corpus against a server.
package corpus

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// Step is one request and its recorded answer; the corpus describes the fields.
type Step struct {
	Name    string            `json:"name"`
	Method  string            `json:"method"`
	Path    string            `json:"path"`
	Headers map[string]string `json:"headers"`
	Only    []string          `json:"only"`
	Ignore  []string          `json:"ignore"`
	Sort    []string          `json:"sort"`
	Keep    string            `json:"keep"`
	Compare string            `json:"compare"`
	Facts   string            `json:"facts"`
	Expect  *Answer           `json:"expect"`
}

// Answer is what is compared of an answer.
type Answer struct {
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers"`
	Body    any               `json:"body"`
}

// Replay runs every step of an area's files (file may be a pattern) that want
// accepts as a subtest named file/step, with variables filled in for ${name}.
func Replay(t *testing.T, h http.Handler, area, file string, vars map[string]string, want func(*Step) bool) {
	t.Helper()
	dir := os.Getenv("TIMONEL_CORPUS")
	if dir == "" {
		_, here, _, _ := runtime.Caller(0)
		dir = filepath.Join(filepath.Dir(here), "../../../../shared/corpus")
	}
	files, err := filepath.Glob(filepath.Join(dir, "cases", area, file))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skipf("no corpus: no file %s/%s in %s/cases", area, file, dir)
	}
	for _, name := range files {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var c struct{ Steps []*Step }
		if err := yaml.Unmarshal(content, &c); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, s := range c.Steps {
			if want != nil && !want(s) {
				continue
			}
			t.Run(strings.TrimSuffix(filepath.Base(name), ".yaml")+"/"+s.Name, func(t *testing.T) {
				for _, d := range s.replay(t, h, vars) {
					t.Error(d)
				}
			})
		}
	}
}

func (s *Step) replay(t *testing.T, h http.Handler, vars map[string]string) []string {
	expand := func(text string) string {
		return os.Expand(text, func(name string) string { return vars[name] })
	}
	r := httptest.NewRequest(s.Method, expand(s.Path), nil)
	r.Header.Set("Accept", "application/json")
	for k, v := range s.Headers {
		if v == "" {
			r.Header.Del(k)
		} else {
			r.Header[http.CanonicalHeaderKey(k)] = strings.Split(v, "|")
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	got := s.reduce(w.Result(), vars, expand)

	var diffs []string
	diff("", plain(s.Expect), plain(got), &diffs)
	return diffs
}

func plain(v any) any {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	var out any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		panic(err)
	}
	return out
}

var comparedHeaders = []string{"Content-Type", "Warning", "Location", "Retry-After", "Www-Authenticate", "Allow"}

// reduce leaves of an answer what does not differ between runs.
func (s *Step) reduce(w *http.Response, vars map[string]string, expand func(string) string) *Answer {
	a := &Answer{Status: w.StatusCode}
	if s.Compare == "none" {
		return s.Expect
	}
	for _, k := range comparedHeaders {
		if v := w.Header.Values(k); len(v) > 0 {
			if a.Headers == nil {
				a.Headers = map[string]string{}
			}
			a.Headers[k] = strings.Join(v, " | ")
		}
	}
	if s.Compare == "status" {
		return a
	}
	raw, _ := io.ReadAll(w.Body)
	var body any
	switch {
	case bytes.HasPrefix(raw, []byte("k8s\x00")):
		body = envelope(raw[4:])
	case strings.Contains(w.Header.Get("Content-Type"), "yaml"):
		if yaml.Unmarshal(raw, &body) != nil {
			body = string(raw)
		}
	default:
		if json.Unmarshal(raw, &body) != nil {
			body = string(raw)
		}
	}
	if s.Facts == "openapi" {
		body = openAPIFacts(body)
	}
	body = plain(body)
	if s.Keep != "" {
		keep(body, regexp.MustCompile(expand(s.Keep)))
	}
	body = clean(body, vars)
	if s.Only != nil {
		picked := map[string]any{}
		for _, path := range s.Only {
			picked[path] = pick(body, strings.Split(path, "."))
		}
		body = picked
	}
	for _, path := range s.Ignore {
		remove(body, strings.Split(path, "."))
	}
	if body != "" {
		a.Body = body
	}
	return a
}

func clean(v any, vars map[string]string) any {
	text := func(s string) string {
		for k, value := range vars {
			s = strings.ReplaceAll(s, value, "${"+k+"}")
		}
		return s
	}
	switch x := v.(type) {
	case string:
		return text(x)
	case []any:
		for i := range x {
			x[i] = clean(x[i], vars)
		}
	case map[string]any:
		out := map[string]any{}
		for k, value := range x {
			if k == "serverAddress" {
				if _, isText := value.(string); isText {
					value = "<address>"
				}
			}
			out[text(k)] = clean(value, vars)
		}
		return out
	}
	return v
}

func keep(body any, re *regexp.Regexp) {
	m, _ := body.(map[string]any)
	for _, key := range []string{"paths", "schemas"} {
		named, _ := m[key].(map[string]any)
		maps.DeleteFunc(named, func(name string, _ any) bool { return !re.MatchString(name) })
	}
	for key, path := range map[string]string{"items": "metadata.name", "resources": "name", "groups": "name"} {
		if list, ok := m[key].([]any); ok {
			m[key] = slices.DeleteFunc(list, func(item any) bool {
				name, isText := pick(item, strings.Split(path, ".")).(string)
				return !isText || !re.MatchString(name)
			})
		}
	}
}

func pick(v any, path []string) any {
	if len(path) == 0 {
		return v
	}
	switch x := v.(type) {
	case map[string]any:
		if path[0] != "*" {
			return pick(x[path[0]], path[1:])
		}
		out := []any{}
		for _, k := range slices.Sorted(maps.Keys(x)) {
			out = append(out, pick(x[k], path[1:]))
		}
		return out
	case []any:
		out := []any{}
		for i, item := range x {
			if path[0] == "*" {
				out = append(out, pick(item, path[1:]))
			} else if path[0] == fmt.Sprint(i) {
				return pick(item, path[1:])
			}
		}
		return out
	}
	if path[0] == "*" {
		return []any{}
	}
	return nil
}

func remove(v any, path []string) {
	switch x := v.(type) {
	case map[string]any:
		for k, value := range x {
			if path[0] != "*" && path[0] != k {
				continue
			}
			if len(path) == 1 {
				delete(x, k)
			} else {
				remove(value, path[1:])
			}
		}
	case []any:
		for i, item := range x {
			if len(path) > 1 && (path[0] == "*" || path[0] == fmt.Sprint(i)) {
				remove(item, path[1:])
			}
		}
	}
}

// diff lists where two decoded values differ.
func diff(path string, want, got any, out *[]string) {
	if len(*out) > 20 {
		return
	}
	add := func(path string, want, got any) {
		*out = append(*out, fmt.Sprintf("%s: want %s / got %s", path, short(want), short(got)))
	}
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			break
		}
		keys := slices.Collect(maps.Keys(w))
		for k := range g {
			if _, both := w[k]; !both {
				keys = append(keys, k)
			}
		}
		slices.Sort(keys)
		for _, k := range keys {
			wv, inW := w[k]
			gv, inG := g[k]
			if inW && inG {
				diff(path+"."+k, wv, gv, out)
			} else {
				add(path+"."+k, present(wv, inW), present(gv, inG))
			}
		}
		return
	case []any:
		g, ok := got.([]any)
		if !ok {
			break
		}
		for i := range max(len(w), len(g)) {
			at := fmt.Sprintf("%s[%d]", path, i)
			switch {
			case i >= len(g):
				add(at, w[i], present(nil, false))
			case i >= len(w):
				add(at, present(nil, false), g[i])
			default:
				diff(at, w[i], g[i], out)
			}
		}
		return
	}
	if !reflect.DeepEqual(want, got) {
		add(path, want, got)
	}
}

type nothing struct{}

func present(v any, is bool) any {
	if is {
		return v
	}
	return nothing{}
}

func short(v any) string {
	if v == (nothing{}) {
		return "nothing"
	}
	b, _ := json.Marshal(v)
	if len(b) > 600 {
		return string(b[:600]) + "…"
	}
	return string(b)
}
