package patch

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kube-openapi/pkg/schemaconv"
	"k8s.io/kube-openapi/pkg/validation/spec"
	smd "sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
)

// schemaText has a line for every type of the built-in kinds, sorted by name:
// the name, a blank, and the type. It stays in the program's read-only pages;
// a line is parsed when its type is first needed.
//
//	type    = s | n | b | u            string, numeric, boolean, any scalar
//	        | "[" keys "]" ref         list: a map with keys, a set without; [=] is atomic
//	        | "{" rel fields "}" ref?  map, ref being the type of undeclared keys
//	        | type "|" type            one of them
//	fields  = name ":" ref ("#" default)? joined with ";"
//	ref     = rel ("@" name | type | "(" type "|" type ")")
//	rel     = "" | "=" atomic | "~" separable
//	name    without its "io.k8s.api."; "/" stands for "io.k8s."
//
//go:generate go run ./schemagen schema.txt
//go:embed schema.txt
var schemaText string

// Schema tells how the fields of one version of a kind may be owned and merged
// (KEP-555): which lists are sets, maps or atomic. It is immutable.
type Schema struct {
	root *typ
	// parseable gives the same type in the form of the reference implementation.
	parseable func() *typed.ParseableType
	tree      bool // describes trees, not a Go type
}

// SchemaOf returns the schema of the Go type of obj, a built-in kind, and false
// if there is none. The first call for a type reads the lines it needs; further ones are lookups.
func SchemaOf(obj runtime.Object) (*Schema, bool) {
	goType := reflect.TypeOf(obj)
	if s, ok := builtins.Load(goType); ok {
		return s.(*Schema), s.(*Schema) != nil
	}
	var found *Schema
	if name, ok := modelName(obj); ok {
		if root, ok := builtinTypes.named(name); ok {
			found = &Schema{root: root, parseable: sync.OnceValue(func() *typed.ParseableType { return builtinParseable(name) })}
		}
	}
	builtins.Store(goType, found)
	return found, found != nil
}

var builtins sync.Map // reflect.Type → *Schema, nil if there is none

func modelName(obj runtime.Object) (string, bool) {
	named, ok := obj.(interface{ OpenAPIModelName() string })
	if !ok {
		return "", false
	}
	return named.OpenAPIModelName(), true
}

// FromOpenAPI returns the schema of a custom resource's version from the OpenAPI
// v3 form of its structural schema (KEP-1027, KEP-2896). apiVersion, kind and metadata
// are added, also to embedded resources. preserveUnknown keeps unknown fields everywhere, as
// spec.preserveUnknownFields of old definitions does.
func FromOpenAPI(root *spec.Schema, preserveUnknown bool) (*Schema, error) {
	converted, err := schemaconv.ToSchemaFromOpenAPI(map[string]*spec.Schema{"root": asResource(root)}, preserveUnknown)
	if err != nil {
		return nil, fmt.Errorf("owned fields of the schema: %w", err)
	}
	parser := &typed.Parser{Schema: smd.Schema{Types: append(converted.Types, metaTypes()...)}}
	parseable := parser.Type("root")
	types := newTypes(parser.Schema.FindNamedType)
	types.byName[objectMeta], _ = builtinTypes.named(objectMeta)
	return &Schema{root: types.ref(parseable.TypeRef), parseable: func() *typed.ParseableType { return &parseable }, tree: true}, nil
}

const objectMeta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"

// metaTypes are ObjectMeta and what it refers to, except the types that every
// converted schema has.
var metaTypes = sync.OnceValue(func() []smd.TypeDef {
	return slices.DeleteFunc(builtinClosure(objectMeta), func(def smd.TypeDef) bool { return strings.HasPrefix(def.Name, "__") })
})

// asResource returns a copy of s with the fields that every object has.
func asResource(s *spec.Schema) *spec.Schema {
	made := embedded(s)
	if made == s {
		c := *s
		made = &c
	}
	properties := make(map[string]spec.Schema, len(made.Properties)+3)
	maps.Copy(properties, made.Properties)
	properties["apiVersion"] = *spec.StringProperty()
	properties["kind"] = *spec.StringProperty()
	properties["metadata"] = *spec.RefSchema("#/definitions/" + objectMeta)
	made.Properties = properties
	return made
}

// embedded returns s with the embedded resources in it completed, s itself if there are none.
func embedded(s *spec.Schema) *spec.Schema {
	made := s
	change := func() {
		if made == s {
			c := *s
			made = &c
			made.Properties = maps.Clone(s.Properties)
		}
	}
	complete := func(child *spec.Schema) *spec.Schema {
		if is, _ := child.Extensions["x-kubernetes-embedded-resource"].(bool); is {
			return asResource(child)
		}
		return embedded(child)
	}
	for name, child := range s.Properties {
		if c := complete(&child); c != &child {
			change()
			made.Properties[name] = *c
		}
	}
	if s.Items != nil && s.Items.Schema != nil {
		if c := complete(s.Items.Schema); c != s.Items.Schema {
			change()
			made.Items = &spec.SchemaOrArray{Schema: c}
		}
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		if c := complete(s.AdditionalProperties.Schema); c != s.AdditionalProperties.Schema {
			change()
			made.AdditionalProperties = &spec.SchemaOrBool{Allows: true, Schema: c}
		}
	}
	return made
}

// Schemaless returns the schema of custom resources that have none: every map is
// owned key by key, every list as a whole.
func Schemaless() *Schema { return schemaless() }

var schemaless = sync.OnceValue(func() *Schema {
	parseable := &typed.DeducedParseableType
	types := newTypes(func(name string) (smd.TypeDef, bool) { return parseable.Schema.FindNamedType(name) })
	return &Schema{root: types.ref(parseable.TypeRef), parseable: func() *typed.ParseableType { return parseable }, tree: true}
})

// typ is a type of a schema: what a value at some path can be. Types refer to
// each other and may do so in circles.
type typ struct {
	scalar smd.Scalar // "": not a scalar
	list   *listType
	fields *mapType
}

type listType struct {
	atomic bool
	keys   []string // sorted; empty for a set
	elem   *typ
}

type mapType struct {
	atomic bool
	free   bool        // nothing declared and anything allowed, as in a custom resource without schema
	fields []fieldType // sorted by name
	elem   *typ        // of undeclared keys; nil: there can be none
}

type fieldType struct {
	name    string
	element string // its path element
	typ     *typ
	scalar  any // default, if that is a scalar
}

func (m *mapType) field(name string) *fieldType {
	low, high := 0, len(m.fields)
	for low < high {
		mid := (low + high) / 2
		switch f := &m.fields[mid]; {
		case f.name == name:
			return f
		case f.name < name:
			low = mid + 1
		default:
			high = mid
		}
	}
	return nil
}

// typeOf returns the type of a key, nil if the schema has no such key.
func (m *mapType) typeOf(key string) *typ {
	if f := m.field(key); f != nil {
		return f.typ
	}
	return m.elem
}

// types builds typ values from the named types of a schema, each once.
type types struct {
	find   func(name string) (smd.TypeDef, bool)
	mu     sync.Mutex
	byName map[string]*typ
}

func newTypes(find func(string) (smd.TypeDef, bool)) *types {
	return &types{find: find, byName: map[string]*typ{}}
}

var builtinTypes = newTypes(builtinDef)

func (t *types) named(name string) (*typ, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	found := t.lookup(name)
	return found, found != nil
}

func (t *types) ref(r smd.TypeRef) *typ {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.resolve(r)
}

func (t *types) lookup(name string) *typ {
	if found, ok := t.byName[name]; ok {
		return found
	}
	def, ok := t.find(name)
	if !ok {
		return nil
	}
	made := &typ{}
	t.byName[name] = made // before its parts: they may refer back
	t.fill(made, def.Atom)
	return made
}

func (t *types) resolve(r smd.TypeRef) *typ {
	var found *typ
	if r.NamedType != nil {
		found = t.lookup(*r.NamedType)
	} else if r.Inlined != (smd.Atom{}) {
		found = &typ{}
		t.fill(found, r.Inlined)
	}
	if found == nil || r.ElementRelationship == nil {
		return found
	}
	// The field overrides what its type says. The type may still be half made, so
	// it is read again instead of copied.
	atomic := *r.ElementRelationship == smd.Atomic
	made := &typ{}
	if r.NamedType != nil {
		key := *r.NamedType + string(*r.ElementRelationship)
		if cached, ok := t.byName[key]; ok {
			return cached
		}
		t.byName[key] = made
		def, _ := t.find(*r.NamedType)
		t.fill(made, def.Atom)
	} else {
		t.fill(made, r.Inlined)
	}
	switch {
	case made.fields != nil:
		made.fields.atomic = atomic
	case made.list != nil:
		made.list.atomic = atomic
	}
	return made
}

func (t *types) fill(made *typ, a smd.Atom) {
	if a.Scalar != nil {
		made.scalar = *a.Scalar
	}
	if a.List != nil {
		made.list = &listType{atomic: a.List.ElementRelationship == smd.Atomic, keys: slices.Sorted(slices.Values(a.List.Keys))}
		made.list.elem = t.resolve(a.List.ElementType)
	}
	if a.Map != nil {
		m := &mapType{atomic: a.Map.ElementRelationship == smd.Atomic, fields: make([]fieldType, 0, len(a.Map.Fields))}
		made.fields = m
		for _, f := range a.Map.Fields {
			field := fieldType{name: f.Name, element: fieldElement(f.Name), typ: t.resolve(f.Type)}
			switch f.Default.(type) {
			case string, int, int64, float64, bool:
				field.scalar = f.Default
			}
			m.fields = append(m.fields, field)
		}
		slices.SortFunc(m.fields, func(a, b fieldType) int { return strings.Compare(a.name, b.name) })
		m.elem = t.resolve(a.Map.ElementType)
		elem := a.Map.ElementType
		m.free = len(a.Map.Fields) == 0 && (elem.NamedType != nil && *elem.NamedType == "__untyped_deduced_" ||
			elem.NamedType == nil && elem.Inlined.Scalar != nil && *elem.Inlined.Scalar == smd.Untyped)
	}
}

// builtinDef reads a type of the embedded schema.
func builtinDef(name string) (smd.TypeDef, bool) {
	line, ok := builtinLine(shortName(name))
	if !ok {
		return smd.TypeDef{}, false
	}
	p := defParser{text: line}
	def := smd.TypeDef{Name: name, Atom: p.atom()}
	if p.text != "" {
		panic(fmt.Sprintf("schema.txt: type %s: trailing %q", name, p.text)) // a test parses every line
	}
	return def, true
}

// builtinLine finds a line by bisection.
func builtinLine(name string) (string, bool) {
	low, high := 0, len(schemaText)
	for low < high {
		mid := (low + high) / 2
		start := strings.LastIndexByte(schemaText[:mid], '\n') + 1
		end := start + strings.IndexByte(schemaText[start:], '\n')
		found, rest, _ := strings.Cut(schemaText[start:end], " ")
		switch {
		case found == name:
			return rest, true
		case found < name:
			low = end + 1
		default:
			high = start
		}
	}
	return "", false
}

// builtinParseable is a built-in type in the form of the reference implementation.
func builtinParseable(name string) *typed.ParseableType {
	parser := &typed.Parser{Schema: smd.Schema{Types: builtinClosure(name)}}
	parseable := parser.Type(name)
	return &parseable
}

// builtinClosure gathers a built-in type with all it refers to.
func builtinClosure(name string) []smd.TypeDef {
	var defs []smd.TypeDef
	seen := map[string]bool{}
	var add func(name string)
	var visit func(r smd.TypeRef)
	visitAtom := func(a smd.Atom) {
		if a.List != nil {
			visit(a.List.ElementType)
		}
		if a.Map != nil {
			visit(a.Map.ElementType)
			for _, f := range a.Map.Fields {
				visit(f.Type)
			}
		}
	}
	visit = func(r smd.TypeRef) {
		if r.NamedType != nil {
			add(*r.NamedType)
		} else {
			visitAtom(r.Inlined)
		}
	}
	add = func(name string) {
		if seen[name] {
			return
		}
		seen[name] = true
		def, _ := builtinDef(name)
		defs = append(defs, def)
		visitAtom(def.Atom)
	}
	add(name)
	return defs
}

func shortName(name string) string {
	if s, ok := strings.CutPrefix(name, "io.k8s.api."); ok {
		return s
	}
	if s, ok := strings.CutPrefix(name, "io.k8s."); ok {
		return "/" + s
	}
	return name
}

func longName(name string) string {
	if s, ok := strings.CutPrefix(name, "/"); ok {
		return "io.k8s." + s
	}
	if strings.HasPrefix(name, "_") {
		return name
	}
	return "io.k8s.api." + name
}

// defParser reads the text of a type. It panics on text that schemagen does not write.
type defParser struct{ text string }

func (p *defParser) take(c byte) bool {
	if p.text == "" || p.text[0] != c {
		return false
	}
	p.text = p.text[1:]
	return true
}

func (p *defParser) until(stop string) string {
	end := strings.IndexAny(p.text, stop)
	if end < 0 {
		end = len(p.text)
	}
	word := p.text[:end]
	p.text = p.text[end:]
	return word
}

func (p *defParser) atom() smd.Atom {
	var a smd.Atom
	for {
		switch {
		case p.take('['):
			a.List = &smd.List{ElementRelationship: smd.Associative}
			switch keys := p.until("]"); keys {
			case "":
			case "=":
				a.List.ElementRelationship = smd.Atomic
			default:
				a.List.Keys = strings.Split(keys, ",")
			}
			p.take(']')
			a.List.ElementType = p.ref()
		case p.take('{'):
			a.Map = p.mapping()
		default:
			scalar, ok := scalars[p.text[:1]]
			if !ok {
				panic(fmt.Sprintf("schema.txt: type expected at %q", p.text))
			}
			p.text = p.text[1:]
			a.Scalar = &scalar
		}
		if !p.take('|') {
			return a
		}
	}
}

func (p *defParser) mapping() *smd.Map {
	m := &smd.Map{}
	if r := p.relationship(); r != nil {
		m.ElementRelationship = *r
	}
	for !p.take('}') {
		f := smd.StructField{Name: p.until(":")}
		p.take(':')
		f.Type = p.ref()
		if p.take('#') {
			if err := json.Unmarshal([]byte(p.until(";}")), &f.Default); err != nil {
				panic(fmt.Sprintf("schema.txt: default of %s: %v", f.Name, err))
			}
			if n, ok := f.Default.(float64); ok {
				f.Default = int(n)
			}
		}
		m.Fields = append(m.Fields, f)
		p.take(';')
	}
	if p.text != "" && strings.IndexByte(";}|)#", p.text[0]) < 0 {
		m.ElementType = p.ref()
	}
	return m
}

func (p *defParser) ref() smd.TypeRef {
	var r smd.TypeRef
	r.ElementRelationship = p.relationship()
	switch {
	case p.take('@'):
		name := longName(p.until(";}|)#"))
		r.NamedType = &name
	case p.take('('):
		r.Inlined = p.atom()
		p.take(')')
	default:
		r.Inlined = p.atom()
	}
	return r
}

func (p *defParser) relationship() *smd.ElementRelationship {
	r := smd.Atomic
	switch {
	case p.take('='):
	case p.take('~'):
		r = smd.Separable
	default:
		return nil
	}
	return &r
}

var scalars = map[string]smd.Scalar{"s": smd.String, "n": smd.Numeric, "b": smd.Boolean, "u": smd.Untyped}
