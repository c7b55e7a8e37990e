package codec

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage/watchcache"
	"google.golang.org/protobuf/encoding/protowire"
)

// Part decodes the objects of a kind without some of their fields, for those who follow a resource and look at little of it.
// Managed fields, the schemas of a CustomResourceDefinition or the status of a Pod are most of their bytes.
type Part struct {
	hub     *kind.Definition
	without fieldTree
}

// fieldTree are fields of a message by number: with nothing below, the field itself.
type fieldTree map[protowire.Number]fieldTree

// NewPart leaves out the fields at paths, which are dotted, with elements of lists meant by their list ("spec.versions.schema"). The kind must be
// a Go type.
func NewPart(hub *kind.Definition, paths ...string) (*Part, error) {
	p := &Part{hub: hub, without: fieldTree{}}
	for _, path := range paths {
		numbers, err := fieldNumbers(reflect.TypeOf(hub.New()).Elem(), path)
		if err != nil {
			return nil, fmt.Errorf("leave %s out of %s: %w", path, hub.Kind, err)
		}
		at := p.without
		for _, n := range numbers {
			if at[n] == nil {
				at[n] = fieldTree{}
			}
			at = at[n]
		}
	}
	return p, nil
}

func fieldNumbers(t reflect.Type, path string) (numbers []protowire.Number, err error) {
	for step := range strings.SplitSeq(path, ".") {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct {
			return nil, fmt.Errorf("%s is not a struct", t)
		}
		field, number, ok := fieldByJSON(t, step)
		if !ok {
			return nil, fmt.Errorf("%s has no %s", t, step)
		}
		numbers, t = append(numbers, number), field.Type
	}
	return numbers, nil
}

// Decode returns the part of a cached version, the caller's own. Defaults of what it leaves out are not set.
func (p *Part) Decode(v *watchcache.Version) (object.Object, error) {
	if v.Err != nil {
		return nil, v.Err
	}
	obj, err := decodeMessage(p.hub, p.of(v))
	if err != nil {
		return nil, err
	}
	obj.SetResourceVersion(FormatRevision(v.Revision))
	SetKind(obj, p.hub.GroupVersionKind())
	return obj, nil
}

// of is the part's message.
func (p *Part) of(v *watchcache.Version) []byte {
	return without(make([]byte, 0, len(v.Blob)), v.Blob, p.without)
}

// Same reports whether two versions of an object have the same part.
func (p *Part) Same(a, b *watchcache.Version) bool {
	return a.Err == nil && b.Err == nil && bytes.Equal(p.of(a), p.of(b))
}

// without appends a message to out, less some of its fields. What is no message stays as it is, for the decoder to say so.
func without(out, message []byte, fields fieldTree) []byte {
	for len(message) > 0 {
		number, typ, n := protowire.ConsumeTag(message)
		if n < 0 {
			return append(out, message...)
		}
		m := protowire.ConsumeFieldValue(number, typ, message[n:])
		if m < 0 {
			return append(out, message...)
		}
		field := message[:n+m]
		message = message[n+m:]
		switch below, listed := fields[number]; {
		case !listed:
			out = append(out, field...)
		case len(below) > 0 && typ == protowire.BytesType:
			content, _ := protowire.ConsumeBytes(field[n:])
			out = append(out, field[:n]...)
			out = protowire.AppendBytes(out, without(make([]byte, 0, len(content)), content, below))
		}
	}
	return out
}
