// Package schema is what a custom resource's structural schema does to its objects:
// it prunes, defaults and validates trees (KEP-1027, "Extend your API with CustomResourceDefinitions").
//
// Promises: a Schema is immutable and safe for concurrent use; pruning and defaulting are idempotent and
// change only the tree that they are given; errors have the texts of kube-apiserver.
//
// Does not know: CustomResourceDefinition objects beside their schemas, kinds, requests. Whether a schema is
// structural has been checked before it comes here. Start reading at Schema.
package schema

import (
	"encoding/json"
	"fmt"
	"sync"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/kube-openapi/pkg/validation/spec"
	kjson "sigs.k8s.io/json"
)

// Schema is a version's schema, compiled.
type Schema struct {
	root *node
	// validator and published are made on first use: objects are read more often than written.
	validator func() (*validator, error)
	published func() (*spec.Schema, error)
}

// node is the structural side of one schema: what pruning, defaulting and the
// checks beyond OpenAPI need.
type node struct {
	nullable, preserve, embedded bool
	array, object                bool // of the type
	listType                     apiextensionsListType
	listKeys                     []string
	atomicMap                    bool
	def                          any // default, if hasDefault
	hasDefault                   bool
	properties                   map[string]*node
	additional                   *node // of undeclared keys
	anyKey                       bool  // undeclared keys are allowed without a schema
	items                        *node
	// defaults, nulls and embeds report whether anything in the subtree gets a default, may lose a
	// null, or is an object with metadata of its own, so that whole branches can be skipped.
	defaults, nulls, embeds, lists bool
}

type apiextensionsListType uint8

const (
	atomicList apiextensionsListType = iota
	setList
	mapList
)

// New compiles a schema. Validation is compiled later, when something is written.
func New(props *apiextensions.JSONSchemaProps) (*Schema, error) {
	root, err := compile(props)
	if err != nil {
		return nil, err
	}
	s := &Schema{root: root}
	s.validator = sync.OnceValues(func() (*validator, error) { return newValidator(props) })
	s.published = sync.OnceValues(func() (*spec.Schema, error) { return openAPI(props) })
	return s, nil
}

// OpenAPI is the schema as an OpenAPI v3 schema, for field ownership. The caller must not change it.
func (s *Schema) OpenAPI() (*spec.Schema, error) { return s.published() }

func openAPI(props *apiextensions.JSONSchemaProps) (*spec.Schema, error) {
	raw, err := json.Marshal(props)
	if err != nil {
		return nil, fmt.Errorf("encode schema: %w", err)
	}
	out := &spec.Schema{}
	if err := json.Unmarshal(raw, out); err != nil {
		return nil, fmt.Errorf("decode schema: %w", err)
	}
	return out, nil
}

func compile(p *apiextensions.JSONSchemaProps) (*node, error) {
	n := &node{
		nullable:  p.Nullable,
		preserve:  p.XPreserveUnknownFields != nil && *p.XPreserveUnknownFields,
		embedded:  p.XEmbeddedResource,
		array:     p.Type == "array",
		object:    p.Type == "object",
		listKeys:  p.XListMapKeys,
		atomicMap: p.XMapType != nil && *p.XMapType == "atomic",
	}
	if p.XListType != nil {
		switch *p.XListType {
		case "set":
			n.listType = setList
		case "map":
			n.listType = mapList
		}
	}
	if p.Default != nil {
		if err := kjson.UnmarshalCaseSensitivePreserveInts(p.Default.Raw, &n.def); err != nil {
			return nil, fmt.Errorf("default: %w", err)
		}
		n.hasDefault = true
	}
	inherit := func(child *node) {
		n.defaults = n.defaults || child.defaults || child.hasDefault
		n.nulls = n.nulls || child.nulls || !child.nullable
		n.embeds = n.embeds || child.embeds || child.embedded
		n.lists = n.lists || child.lists || child.listType != atomicList
	}
	if len(p.Properties) > 0 {
		n.properties = make(map[string]*node, len(p.Properties))
		for name := range p.Properties {
			prop := p.Properties[name]
			child, err := compile(&prop)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			n.properties[name] = child
			inherit(child)
		}
	}
	if p.Items != nil && p.Items.Schema != nil {
		child, err := compile(p.Items.Schema)
		if err != nil {
			return nil, fmt.Errorf("items: %w", err)
		}
		n.items = child
		inherit(child)
	}
	if a := p.AdditionalProperties; a != nil {
		n.anyKey = a.Allows && a.Schema == nil
		if a.Schema != nil {
			child, err := compile(a.Schema)
			if err != nil {
				return nil, fmt.Errorf("additionalProperties: %w", err)
			}
			n.additional = child
			inherit(child)
		}
	}
	return n, nil
}

// child returns the schema of a key, nil if there is none.
func (n *node) child(key string) *node {
	if c := n.properties[key]; c != nil {
		return c
	}
	return n.additional
}
