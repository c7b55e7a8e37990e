package cel

import (
	"maps"
	"math"
	"slices"
	"strings"

	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
)

// RequestBytes is the size of the largest request: nothing that an expression sees is larger (limits of kube-apiserver).
const RequestBytes = 3 * 1024 * 1024

// Type is the type of a value that an expression sees, with what is known of its size. The zero MaxSize is that of a value without a size.
type Type struct {
	CEL *celgo.Type
	// MaxSize bounds characters of a string, bytes, items of a list, entries of a map.
	MaxSize uint64
	// MinBytes is the smallest that the value can be as JSON.
	MinBytes uint64
	// Fields of an object, Keys and Elements of a map, Elements of a list.
	Fields         map[string]*Type
	Keys, Elements *Type
}

// The smallest JSON of values.
const (
	minStringBytes = 2 // ""
	minBoolBytes   = 4 // true
	minNumberBytes = 1
)

// Dyn is a value of which nothing is known.
func Dyn() *Type { return &Type{CEL: celgo.DynType, MinBytes: 1, MaxSize: RequestBytes} }

// Scalar is a value of a type without parts: a number, a boolean, a time.
func Scalar(t *celgo.Type) *Type {
	least := uint64(minNumberBytes)
	if t == celgo.BoolType {
		least = minBoolBytes
	}
	return &Type{CEL: t, MinBytes: least}
}

// Text is a string of at most max characters.
func Text(max uint64) *Type {
	return &Type{CEL: celgo.StringType, MaxSize: max, MinBytes: minStringBytes}
}

// AnyText is a string that is bounded by the size of a request.
func AnyText() *Type { return Text(RequestBytes - minStringBytes) }

// ListOf is a list of at most max elements; 0: as many as a request can hold.
func ListOf(element *Type, max uint64) *Type {
	if max == 0 {
		max = (RequestBytes - 2) / (element.MinBytes + 1)
	}
	return &Type{CEL: celgo.ListType(element.CEL), MaxSize: max, MinBytes: 2, Elements: element}
}

// shortestEntry is the size of a map's entry without its value: an empty key, a colon, a comma, and the
// characters that make the key another one.
const shortestEntry = 6

// MapOf is a map with keys of a type of at most max entries; 0: as many as a request can hold.
func MapOf(key, element *Type, max uint64) *Type {
	if max == 0 {
		max = (RequestBytes - 2) / (element.MinBytes + shortestEntry)
	}
	return &Type{CEL: celgo.MapType(key.CEL, element.CEL), MaxSize: max, MinBytes: 2, Keys: key, Elements: element}
}

// Object is a value with named fields. The name is what errors call its type; it must be different for different fields.
func Object(name string, fields map[string]*Type) *Type {
	return &Type{CEL: celgo.ObjectType(name), MinBytes: 2, Fields: fields}
}

// at follows a path of the checker from a variable to a value; nil if it is not known there.
func (t *Type) at(path []string) *Type {
	for _, step := range path {
		if t == nil {
			return nil
		}
		switch step {
		case "@items", "@values":
			t = t.Elements
		case "@keys":
			t = t.Keys
		case "@indices":
			t = Scalar(celgo.IntType)
		default:
			if t.Fields == nil && t.Keys != nil {
				t = t.Elements // m.key
			} else {
				t = t.Fields[step]
			}
		}
	}
	return t
}

// provider knows the types of objects, besides those that it is put in front of.
type provider struct {
	types.Provider
	objects map[string]*Type
}

func newProvider(next types.Provider, variables map[string]*Type) *provider {
	p := &provider{Provider: next, objects: map[string]*Type{}}
	for _, t := range variables {
		p.add(t)
	}
	return p
}

func (p *provider) add(t *Type) {
	if t == nil {
		return
	}
	if t.Fields != nil {
		p.objects[t.CEL.DeclaredTypeName()] = t
		for _, f := range t.Fields {
			p.add(f)
		}
	}
	p.add(t.Keys)
	p.add(t.Elements)
}

func (p *provider) FindStructType(name string) (*types.Type, bool) {
	if t := p.objects[name]; t != nil {
		return types.NewTypeTypeWithParam(t.CEL), true
	}
	return p.Provider.FindStructType(name)
}

func (p *provider) FindStructFieldNames(name string) ([]string, bool) {
	if t := p.objects[name]; t != nil {
		return slices.Sorted(maps.Keys(t.Fields)), true
	}
	return p.Provider.FindStructFieldNames(name)
}

func (p *provider) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	if t := p.objects[name]; t != nil {
		f := t.Fields[field]
		if f == nil {
			return nil, false
		}
		return &types.FieldType{Type: f.CEL}, true
	}
	return p.Provider.FindStructFieldType(name, field)
}

// NewValue: objects are given to expressions, not made by them.
func (p *provider) NewValue(name string, fields map[string]ref.Val) ref.Val {
	if p.objects[name] != nil {
		return types.NewErr("values of type %s cannot be made", name)
	}
	return p.Provider.NewValue(name, fields)
}

// reserved words cannot be the names of fields (the language's definition, and Kubernetes' rules of escaping).
var reserved = []string{
	"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop",
	"package", "namespace", "return", "var", "void", "while",
}

// Escape is the name of a field as expressions write it.
func Escape(name string) string {
	if slices.Contains(reserved, name) {
		return "__" + name + "__"
	}
	return escapes.Replace(name)
}

var escapes = strings.NewReplacer("__", "__underscores__", ".", "__dot__", "-", "__dash__", "/", "__slash__")

// Times is x*y, or the largest number there is.
func Times(x, y uint64) uint64 {
	if y != 0 && x > math.MaxUint64/y {
		return math.MaxUint64
	}
	return x * y
}
