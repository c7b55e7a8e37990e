package cel

import (
	"reflect"
	"slices"
	"strings"

	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
)

// The types that mutations are written with (KEP-3962): Object{…}, whose fields and their types (Object.spec, Object.spec.template …) are
// any, and JSONPatch{op, path, from, value}.
const (
	objectTypeName = "Object"
	patchTypeName  = "JSONPatch"
)

var (
	// ObjectType is what an apply configuration evaluates to.
	ObjectType = celgo.ObjectType(objectTypeName, traits.FieldTesterType, traits.IndexerType)
	// PatchType is an operation of a JSON patch.
	PatchType = celgo.ObjectType(patchTypeName, traits.FieldTesterType, traits.IndexerType)
)

var patchFields = map[string]*celgo.Type{
	"op": celgo.StringType, "path": celgo.StringType, "from": celgo.StringType, "value": celgo.DynType,
}

// Mutation declares the types of mutations and jsonpatch.escapeKey(string), which makes a key part of a JSON pointer (RFC 6901).
func Mutation() celgo.EnvOption {
	return options(
		func(e *celgo.Env) (*celgo.Env, error) {
			return celgo.CustomTypeProvider(&mutationTypes{e.CELTypeProvider()})(e)
		},
		function("jsonpatch.escapeKey", "string_jsonpatch_escapeKey_string", celgo.StringType, celgo.StringType, func(v ref.Val) ref.Val {
			s, problem := text(v)
			if problem != nil {
				return problem
			}
			return types.String(pointerEscapes.Replace(s))
		}),
	)
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

// mutationTypes knows the types of mutations, besides those that it is put in front of.
type mutationTypes struct{ types.Provider }

func isObject(name string) bool {
	return name == objectTypeName || strings.HasPrefix(name, objectTypeName+".")
}

func (p *mutationTypes) FindStructType(name string) (*types.Type, bool) {
	if isObject(name) || name == patchTypeName {
		return types.NewTypeTypeWithParam(celgo.ObjectType(name, traits.FieldTesterType, traits.IndexerType)), true
	}
	return p.Provider.FindStructType(name)
}

func (p *mutationTypes) FindStructFieldNames(name string) ([]string, bool) {
	switch {
	case name == patchTypeName:
		return []string{"from", "op", "path", "value"}, true
	case isObject(name):
		return nil, true
	}
	return p.Provider.FindStructFieldNames(name)
}

func (p *mutationTypes) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	switch {
	case name == patchTypeName:
		t, ok := patchFields[field]
		return &types.FieldType{Type: t}, ok
	case isObject(name):
		return &types.FieldType{Type: celgo.DynType}, true
	}
	return p.Provider.FindStructFieldType(name, field)
}

func (p *mutationTypes) NewValue(name string, fields map[string]ref.Val) ref.Val {
	if isObject(name) || name == patchTypeName {
		return &Struct{Name: name, Fields: fields}
	}
	return p.Provider.NewValue(name, fields)
}

// Struct is a value that an expression made by naming a type: Object{spec: Object.spec{replicas: 2}}.
type Struct struct {
	Name   string
	Fields map[string]ref.Val
}

// ConvertToNative gives nothing away: who applies a mutation looks at Fields.
func (s *Struct) ConvertToNative(want reflect.Type) (any, error) {
	if reflect.TypeOf(s).AssignableTo(want) {
		return s, nil
	}
	return nil, types.NewErr("type conversion error from '%s' to '%s'", s.Name, want).(*types.Err)
}

// ConvertToType converts to the value's own type, and to its type as a value.
func (s *Struct) ConvertToType(want ref.Type) ref.Val {
	switch want.TypeName() {
	case s.Name:
		return s
	case types.TypeType.TypeName():
		return s.Type().(ref.Val)
	}
	return types.NewErr("type conversion error from '%s' to '%s'", s.Name, want)
}

// Equal compares type and fields.
func (s *Struct) Equal(other ref.Val) ref.Val {
	o, ok := other.(*Struct)
	if !ok || o.Name != s.Name || len(o.Fields) != len(s.Fields) {
		return types.False
	}
	for name, v := range s.Fields {
		if w, ok := o.Fields[name]; !ok || v.Equal(w) != types.True {
			return types.False
		}
	}
	return types.True
}

// Type is the named type.
func (s *Struct) Type() ref.Type {
	return celgo.ObjectType(s.Name, traits.FieldTesterType, traits.IndexerType)
}

// Value is the struct itself.
func (s *Struct) Value() any { return s }

// IsSet tells whether the field was given.
func (s *Struct) IsSet(field ref.Val) ref.Val {
	name, problem := text(field)
	if problem != nil {
		return problem
	}
	_, ok := s.Fields[name]
	return types.Bool(ok)
}

// Get reads a field; those of a JSONPatch that are not given are empty.
func (s *Struct) Get(field ref.Val) ref.Val {
	name, problem := text(field)
	if problem != nil {
		return problem
	}
	if v, ok := s.Fields[name]; ok {
		return v
	}
	if s.Name == patchTypeName && slices.Contains([]string{"op", "path", "from"}, name) {
		return types.String("")
	}
	return types.NewErr("no such key: %s", name)
}
