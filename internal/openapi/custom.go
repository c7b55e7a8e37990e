package openapi

import (
	"bytes"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode"
)

// CustomResource is one served version of a custom resource, as its definition
// says (apiextensions.k8s.io/v1 CustomResourceDefinition).
type CustomResource struct {
	Group, Version         string
	Plural, Kind, ListKind string
	Namespaced             bool

	// Status and Scale say which subresources the version has.
	Status, Scale bool

	// Selectable are the version's selectableFields as JSON paths, ".spec.color".
	Selectable []string

	// Fingerprint stands for everything in this value: it differs whenever
	// anything else does, on every server alike, as UID and generation of the
	// definition with the name of the version do. The documents' hashes are made
	// of it. When empty, the value itself is hashed, with the schema.
	Fingerprint string

	// Schema returns the version's openAPIV3Schema as JSON, empty when it has
	// none or when its unknown fields are preserved as a whole. It is called
	// when a document is asked for, and again for the next one.
	Schema func() ([]byte, error)
}

// customVersion is the custom resources of one group version, which share a v3 document.
type customVersion struct {
	group, version string
	resources      []CustomResource
	etag           func() string
}

func newCustomVersion(group, version string) *customVersion {
	v := &customVersion{group: group, version: version}
	v.etag = sync.OnceValue(v.hash)
	return v
}

func hash(content []byte) string {
	return fmt.Sprintf("%X", sha512.Sum512(content))
}

func (v *customVersion) hash() string {
	h := sha512.New()
	h.Write([]byte(builtIn().Documents["v2"].ETag)) // what the rest of the documents is made of
	for _, r := range v.resources {
		fmt.Fprintf(h, "\x00%s\x00%s", r.Plural, r.Fingerprint)
		if r.Fingerprint != "" {
			continue
		}
		fmt.Fprintf(h, "%q%q%q%v%v%v%q", r.Plural, r.Kind, r.ListKind, r.Namespaced, r.Status, r.Scale, r.Selectable)
		if schema, err := r.schema(); err == nil { // an error shows when the document is asked for
			h.Write(schema)
		}
	}
	return fmt.Sprintf("%X", h.Sum(nil))
}

func (r *CustomResource) schema() ([]byte, error) {
	if r.Schema == nil {
		return nil, nil
	}
	raw, err := r.Schema()
	if err != nil {
		return nil, fmt.Errorf("reading the schema of %s.%s/%s: %w", r.Plural, r.Group, r.Version, err)
	}
	return raw, nil
}

// template is the API of a custom resource with placeholders for its names; gen/build/template.go writes it.
type template struct {
	V2      map[string]map[string]json.RawMessage `json:"v2"` // by scope, then path
	V3      map[string]map[string]json.RawMessage `json:"v3"`
	Schemas map[string]json.RawMessage            `json:"schemas"`
}

func readTemplate() (*template, error) {
	r, err := openPlain(builtIn().Template)
	if err != nil {
		return nil, err
	}
	t := &template{}
	if err := json.NewDecoder(r).Decode(t); err != nil {
		return nil, fmt.Errorf("the embedded template for custom resources: %w", err)
	}
	return t, nil
}

// model is the name of the resource's model: Widget of example.com/v1 is com.example.v1.Widget.
func (r *CustomResource) model(kind string) string {
	parts := strings.Split(r.Group, ".")
	slices.Reverse(parts)
	return strings.Join(append(parts, r.Version, kind), ".")
}

// paths adds the resource's path items to those of a document.
func (r *CustomResource) paths(to, from map[string]json.RawMessage) {
	id := camel(r.Group)
	article := "a"
	if strings.ContainsRune("AEIOU", unicode.ToUpper(rune(r.Kind[0]))) {
		article = "an"
	}
	fill := strings.NewReplacer(
		"@group@", r.Group, "@version@", r.Version, "@plural@", r.Plural, "@kind@", r.Kind,
		"@model@", r.model(r.Kind), "@list@", r.model(r.ListKind), "@a@", article,
		"@id@", strings.ToUpper(id[:1])+id[1:]+strings.ToUpper(r.Version[:1])+r.Version[1:], "@tag@", id+"_"+r.Version,
	)
	for path, item := range from {
		if strings.HasSuffix(path, "/status") && !r.Status || strings.HasSuffix(path, "/scale") && !r.Scale {
			continue
		}
		to[fill.Replace(path)] = json.RawMessage(fill.Replace(string(item)))
	}
}

// camel shortens a group for operation ids: stable.example.com is stableExampleCom.
func camel(group string) string {
	first, rest, _ := strings.Cut(strings.TrimSuffix(group, ".k8s.io"), ".")
	for part := range strings.SplitSeq(rest, ".") {
		if part != "" {
			first += strings.ToUpper(part[:1]) + part[1:]
		}
	}
	return first
}

func (r *CustomResource) scope() string {
	if r.Namespaced {
		return "Namespaced"
	}
	return "Cluster"
}

// document makes the v3 document.
func (v *customVersion) document() ([]byte, error) {
	t, err := readTemplate()
	if err != nil {
		return nil, err
	}
	paths, schemas := map[string]json.RawMessage{}, map[string]json.RawMessage{}
	scaled := false
	for i := range v.resources {
		r := &v.resources[i]
		scaled = scaled || r.Scale
		r.paths(paths, t.V3[r.scope()])
		if err := r.schemas(schemas, dialectV3); err != nil {
			return nil, err
		}
	}
	for name, schema := range t.Schemas {
		if scaled || !strings.HasPrefix(name, "io.k8s.api.autoscaling.") {
			schemas[name] = schema
		}
	}
	return encode(map[string]any{
		"openapi":    "3.0.0",
		"info":       map[string]string{"title": "Kubernetes CRD Swagger", "version": "v0.1.0"},
		"paths":      paths,
		"components": map[string]any{"schemas": schemas},
	})
}

// partV2 is what the v2 document has besides the default.
type partV2 struct {
	paths, definitions map[string]json.RawMessage
}

// newPartV2 makes the part of custom resources, and of built-in documents with the v3 paths extra.
func newPartV2(c *catalogue, extra []string) (*partV2, error) {
	p := &partV2{paths: map[string]json.RawMessage{}, definitions: map[string]json.RawMessage{}}
	for _, path := range extra {
		if err := p.add(builtIn().Documents[path].Part); err != nil {
			return nil, err
		}
	}
	if len(c.versions) == 0 {
		return p, nil
	}
	t, err := readTemplate()
	if err != nil {
		return nil, err
	}
	for _, path := range slices.Sorted(maps.Keys(c.versions)) {
		for i := range c.versions[path].resources {
			r := &c.versions[path].resources[i]
			r.paths(p.paths, t.V2[r.scope()])
			if err := r.schemas(p.definitions, dialectV2); err != nil {
				return nil, err
			}
		}
	}
	return p, nil
}

// add takes in a prebuilt part.
func (p *partV2) add(f *form) error {
	content, err := f.content()
	if err != nil {
		return err
	}
	var part struct {
		Paths, Definitions map[string]json.RawMessage
	}
	if err := json.Unmarshal(content, &part); err != nil {
		return fmt.Errorf("the embedded OpenAPI document %s: %w", f.File, err)
	}
	maps.Copy(p.paths, part.Paths)
	maps.Copy(p.definitions, part.Definitions)
	return nil
}

// insertions are what goes behind the pieces of the v2 document's two forms.
func (p *partV2) insertions() (asJSON, asProto []insertion, err error) {
	var whole []byte
	for _, members := range []map[string]json.RawMessage{p.paths, p.definitions} {
		content, err := encode(members)
		if err != nil {
			return nil, nil, err
		}
		// The piece in front ends before the brace that closes a filled object.
		in, err := newInsertion(append([]byte(","), content[1:len(content)-1]...))
		if err != nil {
			return nil, nil, err
		}
		asJSON = append(asJSON, in)
	}
	whole, err = encode(map[string]any{
		"swagger": "2.0", "info": map[string]string{"title": "Kubernetes", "version": "v0"}, "paths": p.paths, "definitions": p.definitions,
	})
	if err != nil {
		return nil, nil, err
	}
	binary, err := protoV2(whole)
	if err != nil {
		return nil, nil, err
	}
	in, err := newInsertion(binary)
	return asJSON, []insertion{in}, err
}

// encode writes JSON without the escapes that only HTML needs.
func encode(v any) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}
