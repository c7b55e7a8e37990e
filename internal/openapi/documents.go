package openapi

import (
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"weak"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Config is what a server's documents depend on.
type Config struct {
	// Served reports whether a built-in group version is served (--runtime-config), or, without a version, a group. The
	// documents of those that are not are left out. nil: what is on by default is served.
	Served func(group, version string) bool
}

// Documents are the OpenAPI documents of one server. All methods may be called
// at any time from any goroutine.
type Documents struct {
	served  func(group, version string) bool
	started time.Time
	extra   func() []string // v3 paths of what is served and not on by default, sorted

	mu struct {
		sync.RWMutex
		custom  map[string][]CustomResource // by the name given to Set
		remote  map[string]Remote           // by v3 path
		changed time.Time
		current *catalogue // nil when something changed since it was made
	}
	merged struct {
		sync.Mutex
		v2 weak.Pointer[mergedV2] // kept as long as the garbage collector likes
	}
	converting sync.Mutex // one conversion to protobuf at a time: each takes tens of megabytes
}

// catalogue is what there is beside the built-in documents at some moment.
type catalogue struct {
	versions map[string]*customVersion // by v3 path, as apis/example.com/v1
	remote   map[string]Remote
	changed  time.Time
}

// New makes the documents of a server. It reads nothing.
func New(c Config) *Documents {
	d := &Documents{served: c.Served, started: time.Now()}
	d.extra = sync.OnceValue(d.findExtra)
	d.mu.changed = d.started
	d.mu.custom, d.mu.remote = map[string][]CustomResource{}, map[string]Remote{}
	return d
}

// Set tells of the custom resources that one definition serves, one entry for
// each served version, in place of those told before under the same name; none
// takes them away. Nothing is computed before a document is asked for.
func (d *Documents) Set(name string, served ...CustomResource) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(served) == 0 {
		delete(d.mu.custom, name)
	} else {
		d.mu.custom[name] = slices.Clone(served)
	}
	d.mu.changed, d.mu.current = time.Now(), nil
}

// Remote is a v3 document that an aggregated API server has.
type Remote struct {
	// Hash identifies its content, as in the serverRelativeURL of that server's index.
	Hash string
	// Handler answers the requests for it; their path is that of this server.
	Handler http.Handler
}

// SetRemote tells of an aggregated group version's v3 document; a nil handler takes it away.
func (d *Documents) SetRemote(gv schema.GroupVersion, r Remote) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.Handler == nil {
		delete(d.mu.remote, versionPath(gv))
	} else {
		d.mu.remote[versionPath(gv)] = r
	}
	d.mu.changed, d.mu.current = time.Now(), nil
}

func (d *Documents) catalogue() *catalogue {
	d.mu.RLock()
	c := d.mu.current
	d.mu.RUnlock()
	if c != nil {
		return c
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.current != nil {
		return d.mu.current
	}
	c = &catalogue{versions: map[string]*customVersion{}, remote: maps.Clone(d.mu.remote), changed: d.mu.changed}
	for _, name := range slices.Sorted(maps.Keys(d.mu.custom)) {
		for _, r := range d.mu.custom[name] {
			path := versionPath(schema.GroupVersion{Group: r.Group, Version: r.Version})
			v := c.versions[path]
			if v == nil {
				v = newCustomVersion(r.Group, r.Version)
				c.versions[path] = v
			}
			v.resources = append(v.resources, r)
		}
	}
	d.mu.current = c
	return c
}

// builtIn returns the built-in document at a v3 path, or nil if there is none or it is not served.
func (d *Documents) builtIn(path string) *document {
	doc := builtIn().Documents[path]
	if doc == nil || path == "v2" {
		return nil
	}
	parts := strings.Split(path, "/")
	served := true
	switch {
	case d.served == nil:
		served = doc.Part == nil
	case parts[0] == "api" && len(parts) == 2:
		served = d.served("", parts[1])
	case parts[0] == "apis" && len(parts) == 2:
		served = d.served(parts[1], "")
	case parts[0] == "apis" && len(parts) == 3:
		served = d.served(parts[1], parts[2])
	}
	if !served {
		return nil
	}
	return doc
}

func (d *Documents) findExtra() []string {
	var paths []string
	for path, doc := range builtIn().Documents {
		if doc.Part != nil && d.builtIn(path) != nil {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths
}

// versionPath is the v3 path of a group version: api/v1, apis/apps/v1.
func versionPath(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "api/" + gv.Version
	}
	return "apis/" + gv.Group + "/" + gv.Version
}

// index writes the answer of /openapi/v3.
func (d *Documents) index() []byte {
	type entry struct {
		URL string `json:"serverRelativeURL"`
	}
	paths := map[string]entry{}
	add := func(path, hash string) {
		paths[path] = entry{documentURL(path, hash)}
	}
	c := d.catalogue()
	for path, r := range c.remote {
		add(path, r.Hash)
	}
	for path, v := range c.versions {
		add(path, v.etag())
	}
	for path := range builtIn().Documents {
		if doc := d.builtIn(path); doc != nil {
			add(path, doc.ETag)
		}
	}
	out, err := json.Marshal(map[string]any{"paths": paths})
	if err != nil {
		panic(err) // strings only
	}
	return out
}

func documentURL(path, hash string) string {
	return (&url.URL{Path: "/openapi/v3/" + path, RawQuery: url.Values{"hash": {hash}}.Encode()}).String()
}

// etagV2 identifies the v2 document with what is in it besides the default: versions that are off by default, and custom resources.
func (d *Documents) etagV2(c *catalogue) string {
	etag := builtIn().Documents["v2"].ETag
	if len(c.versions) == 0 && len(d.extra()) == 0 {
		return etag
	}
	h := sha512.New()
	h.Write([]byte(etag))
	for _, path := range d.extra() {
		h.Write([]byte(path))
	}
	for _, path := range slices.Sorted(maps.Keys(c.versions)) {
		h.Write([]byte(path + c.versions[path].etag()))
	}
	return fmt.Sprintf("%X", h.Sum(nil))
}

// mergedV2 is the v2 document with what is in it besides the default.
type mergedV2 struct {
	etag string
	json *spliced
	pb   *spliced
}

func (d *Documents) v2(c *catalogue) (*mergedV2, error) {
	etag, doc := d.etagV2(c), builtIn().Documents["v2"]
	d.merged.Lock()
	defer d.merged.Unlock()
	if m := d.merged.v2.Value(); m != nil && m.etag == etag {
		return m, nil
	}
	m := &mergedV2{etag: etag, json: &spliced{form: doc.JSON}, pb: &spliced{form: doc.Proto}}
	if extra := d.extra(); len(c.versions) > 0 || len(extra) > 0 {
		p, err := newPartV2(c, extra)
		if err != nil {
			return nil, err
		}
		if m.json.insertions, m.pb.insertions, err = p.insertions(); err != nil {
			return nil, err
		}
	}
	d.merged.v2 = weak.Make(m)
	return m, nil
}

// jsonV3 is the v3 document of a path, plain, and its hash; found is false when there is none here.
func (d *Documents) jsonV3(path string) (content []byte, etag string, found bool, err error) {
	if doc := d.builtIn(path); doc != nil {
		content, err = doc.JSON.content()
		return content, doc.ETag, true, err
	}
	if v := d.catalogue().versions[path]; v != nil {
		content, err = v.document()
		return content, v.etag(), true, err
	}
	return nil, "", false, nil
}

// Schemas are the v3 schemas of a group version by model name, as
// io.k8s.api.apps.v1.Deployment, each as JSON with references of the form
// #/components/schemas/<model name>.
type Schemas map[string]json.RawMessage

// SchemasOf reads the schemas of a group version, built-in or custom. Each call
// decompresses and parses the document: keep the result. The error says so when
// there is no such group version.
func (d *Documents) SchemasOf(gv schema.GroupVersion) (Schemas, error) {
	content, _, found, err := d.jsonV3(versionPath(gv))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the OpenAPI document of %s: %w", gv, err)
	case !found:
		return nil, fmt.Errorf("no OpenAPI document of %s", gv)
	}
	var doc struct {
		Components struct{ Schemas Schemas }
	}
	if err := json.Unmarshal(content, &doc); err != nil {
		return nil, fmt.Errorf("reading the OpenAPI document of %s: %w", gv, err)
	}
	return doc.Components.Schemas, nil
}

// Kind finds a kind's model by its x-kubernetes-group-version-kind.
func (s Schemas) Kind(gvk schema.GroupVersionKind) (model string, raw json.RawMessage, found bool) {
	for _, model := range slices.Sorted(maps.Keys(s)) {
		if !strings.HasSuffix(model, "."+gvk.Kind) {
			continue
		}
		var is struct {
			Kinds []schema.GroupVersionKind `json:"x-kubernetes-group-version-kind"`
		}
		if json.Unmarshal(s[model], &is) == nil && slices.Contains(is.Kinds, gvk) {
			return model, s[model], true
		}
	}
	return "", nil, false
}
