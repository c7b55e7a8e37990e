package schema

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

const widget = `
type: object
required: [spec]
properties:
  spec:
    type: object
    required: [size]
    properties:
      size: {type: integer, minimum: 1, maximum: 10}
      color: {type: string, enum: [red, green], default: red}
      name: {type: string, maxLength: 5}
      nul: {type: string, nullable: true}
      plain: {type: string}
      any: {x-kubernetes-int-or-string: true}
      free: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {known: {type: object}}}
      m: {type: object, additionalProperties: {type: integer}}
      nested: {type: object, default: {}, properties: {lit: {type: boolean, default: true}}}
      tags: {type: array, x-kubernetes-list-type: set, items: {type: string}}
      ports:
        type: array
        x-kubernetes-list-type: map
        x-kubernetes-list-map-keys: [port]
        items: {type: object, required: [port], properties: {port: {type: integer}, proto: {type: string, default: TCP, maxLength: 3}}}
      pod: {type: object, x-kubernetes-embedded-resource: true, x-kubernetes-preserve-unknown-fields: true}
  status:
    type: object
    properties: {num: {type: integer, maximum: 5}}
`

func compiled(t testing.TB, text string) *Schema {
	t.Helper()
	var props apiextensions.JSONSchemaProps
	if err := yaml.Unmarshal([]byte(text), &props); err != nil {
		t.Fatal(err)
	}
	s, err := New(&props)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func object(t testing.TB, text string) map[string]any {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]any{}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func check(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

func TestPruneAndDefault(t *testing.T) {
	s := compiled(t, widget)
	for name, c := range map[string]struct{ in, want, unknown string }{
		"defaults": {"spec: {size: 1}", "spec: {size: 1, color: red, nested: {lit: true}}", ""},
		"unknown fields": {
			"{bogus: 1, kind: Widget, spec: {size: 1, zap: 2, nested: {x: 1}, ports: [{port: 1, extra: 2}]}, status: {q: 1}}",
			"{kind: Widget, spec: {size: 1, color: red, nested: {lit: true}, ports: [{port: 1, proto: TCP}]}, status: {}}",
			"bogus spec.nested.x spec.ports[0].extra spec.zap status.q",
		},
		"preserved, but what is specified":     {"spec: {free: {a: {b: 1}, known: {c: 1}}}", "spec: {free: {a: {b: 1}, known: {}}, color: red, nested: {lit: true}}", "spec.free.known.c"},
		"undeclared keys":                      {"spec: {m: {a: 1, b: 2}}", "spec: {m: {a: 1, b: 2}, color: red, nested: {lit: true}}", ""},
		"null where a default is":              {"spec: {color: null}", "spec: {color: red, nested: {lit: true}}", ""},
		"null where it may not be":             {"{spec: {plain: null}, status: null}", "spec: {color: red, nested: {lit: true}}", ""},
		"null where it may be":                 {"spec: {nul: null}", "spec: {nul: null, color: red, nested: {lit: true}}", ""},
		"a value that is not of the type":      {"spec: [1]", "spec: [1]", ""},
		"an embedded resource keeps its names": {"spec: {pod: {apiVersion: v1, kind: Pod, metadata: {name: a}, x: 1}}", "spec: {pod: {apiVersion: v1, kind: Pod, metadata: {name: a}, x: 1}, color: red, nested: {lit: true}}", ""},
	} {
		t.Run(name, func(t *testing.T) {
			o := object(t, c.in)
			unknown := s.Prune(o)
			s.Default(o)
			check(t, "unknown", strings.Join(unknown, " "), c.unknown)
			check(t, "object", o, object(t, c.want))
		})
	}
}

func TestMetadata(t *testing.T) {
	s := compiled(t, widget)
	for name, c := range map[string]struct {
		in, want, unknown, err string
		drop                   bool
	}{
		"as it should be":    {in: "metadata: {name: a, labels: {x: z}}", want: "metadata: {name: a, labels: {x: z}}"},
		"no time":            {in: "metadata: {name: a, creationTimestamp: null}", want: "metadata: {name: a}"},
		"unknown":            {in: "metadata: {name: a, foo: 1}", want: "metadata: {name: a}", unknown: "metadata.foo"},
		"embedded":           {in: "spec: {pod: {metadata: {name: a, foo: 1}}}", want: "spec: {pod: {metadata: {name: a}}}", unknown: "spec.pod.metadata.foo"},
		"wrong type":         {in: "metadata: {name: a, labels: {x: 1}}", err: "cannot unmarshal number"},
		"wrong type, stored": {in: "metadata: {name: a, labels: {x: 1}}", want: "metadata: {name: a}", drop: true},
		"no object":          {in: "metadata: 7", err: "cannot unmarshal number"},
		"wrong kind":         {in: "spec: {pod: {kind: 1}}", err: "spec.pod.kind: Invalid value: 1: must be a string"},
		"wrong kind, stored": {in: "spec: {pod: {kind: 1}}", want: "spec: {pod: {}}", drop: true},
	} {
		t.Run(name, func(t *testing.T) {
			o := object(t, c.in)
			unknown, err := s.Metadata(o, c.drop)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			check(t, "unknown", strings.Join(unknown, " "), c.unknown)
			check(t, "object", o, object(t, c.want))
		})
	}
}

func TestValidate(t *testing.T) {
	s := compiled(t, widget)
	for name, c := range map[string]struct{ in, old, want string }{
		"valid":              {in: "spec: {size: 1, any: 50%, tags: [a, b], pod: {apiVersion: v1, kind: Pod}}"},
		"required":           {in: "spec: {}", want: `spec.size: Required value`},
		"maximum":            {in: "spec: {size: 11}", want: `spec.size: Invalid value: 11: spec.size in body should be less than or equal to 10`},
		"enum":               {in: "spec: {size: 1, color: blue}", want: `spec.color: Unsupported value: "blue": supported values: "red", "green"`},
		"too long":           {in: "spec: {size: 1, name: abcdef}", want: `spec.name: Too long: may not be more than 5 bytes`},
		"type":               {in: "spec: {size: x}", want: `spec.size: Invalid value: "string": spec.size in body must be of type integer: "string"`},
		"int or string":      {in: "spec: {size: 1, any: true}", want: `spec.any: Invalid value: "boolean": spec.any in body must be of type integer,string: "boolean"`},
		"set":                {in: "spec: {size: 1, tags: [a, b, a]}", want: `spec.tags[2]: Duplicate value: "a"`},
		"map":                {in: "spec: {size: 1, ports: [{port: 1}, {port: 1}]}", want: `spec.ports[1]: Duplicate value: {"port":1}`},
		"embedded":           {in: "spec: {size: 1, pod: {kind: Pod}}", want: `spec.pod.apiVersion: Required value`},
		"embedded metadata":  {in: `spec: {size: 1, pod: {apiVersion: v1, kind: Pod, metadata: {generateName: a/, namespace: B}}}`, want: `[spec.pod.metadata.generateName: Invalid value: "a/": may not contain '/', spec.pod.metadata.namespace: Invalid value: "B": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')]`},
		"in the order asked": {in: "spec: {size: 0, color: blue}", want: `[spec.color: Unsupported value: "blue": supported values: "red", "green", spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1]`},

		"what was wrong and is left alone":       {in: "spec: {size: 11, name: a}", old: "spec: {size: 11, name: b}"},
		"what was wrong and is changed":          {in: "spec: {size: 12}", old: "spec: {size: 11}", want: `spec.size: Invalid value: 12: spec.size in body should be less than or equal to 10`},
		"what was missing, in another object":    {in: "spec: {name: a}", old: "spec: {name: b}", want: `spec.size: Required value`},
		"an element that moved":                  {in: "spec: {size: 1, ports: [{port: 2}, {port: 1, proto: SCTP}]}", old: "spec: {size: 1, ports: [{port: 1, proto: SCTP}]}"},
		"an element that changed":                {in: "spec: {size: 1, ports: [{port: 1, proto: QUIC}]}", old: "spec: {size: 1, ports: [{port: 1, proto: SCTP}]}", want: `spec.ports[0].proto: Too long: may not be more than 3 bytes`},
		"elements that were there twice already": {in: "spec: {size: 2, tags: [a, a]}", old: "spec: {size: 1, tags: [a, a]}"},
	} {
		t.Run(name, func(t *testing.T) {
			var old map[string]any
			if c.old != "" {
				old = object(t, c.old)
			}
			got := ""
			if err := s.Validate(object(t, c.in), old).ToAggregate(); err != nil {
				got = err.Error()
			}
			check(t, "errors", got, c.want)
		})
	}
	errs := s.ValidateStatus(object(t, "status: {num: 9}"), object(t, "status: {num: 1}"))
	check(t, "status", errs.ToAggregate().Error(), `status.num: Invalid value: 9: num in body should be less than or equal to 5`)
}

// FuzzSettle: pruning and defaulting are idempotent, leave nothing unknown, and never change what is valid into
// what is not JSON.
func FuzzSettle(f *testing.F) {
	s := compiled(f, widget)
	for _, seed := range []string{`{}`, `{"spec":{"size":1,"zap":[{"a":null}]}}`, `{"spec":{"ports":[null,{"port":1,"x":{}}],"free":{"a":1}},"metadata":{"name":1}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		o := map[string]any{}
		if kjson.UnmarshalCaseSensitivePreserveInts(doc, &o) != nil || o == nil {
			return
		}
		if _, err := s.Metadata(o, true); err != nil {
			t.Fatalf("metadata that may be dropped: %v", err)
		}
		s.Prune(o)
		s.Default(o)
		once, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		if more := s.Prune(o); len(more) > 0 {
			t.Fatalf("unknown after pruning: %q", more)
		}
		s.Default(o)
		if more, err := s.Metadata(o, false); err != nil || len(more) > 0 {
			t.Fatalf("metadata after settling: %q, %v", more, err)
		}
		twice, _ := json.Marshal(o)
		if string(once) != string(twice) {
			t.Fatalf("settled twice:\n%s\n%s", once, twice)
		}
		s.Validate(o, nil) // must not panic
	})
}
