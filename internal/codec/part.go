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
	return p.without.appendOthers(make([]byte, 0, p.without.sizeOfOthers(v.Blob)), v.Blob)
}

// Same reports whether two versions of an object have the same part.
func (p *Part) Same(a, b *watchcache.Version) bool {
	return a.Err == nil && b.Err == nil && p.without.sameOthers(a.Blob, b.Blob)
}

// wireField is a field of a message with its tag; content is what it holds if that has a length. What is no field is one without a number, for the
// decoder to say so.
type wireField struct {
	number         protowire.Number
	tag            int // its length
	whole, content []byte
}

// next takes the next field that stays off a message; false at the end.
func (t fieldTree) next(message *[]byte) (f wireField, ok bool) {
	for b := *message; len(b) > 0; {
		number, typ, n := protowire.ConsumeTag(b)
		m := -1
		if n > 0 {
			m = protowire.ConsumeFieldValue(number, typ, b[n:])
		}
		if m < 0 {
			*message = nil
			return wireField{whole: b}, true
		}
		f = wireField{number: number, tag: n, whole: b[:n+m]}
		b = b[n+m:]
		below, listed := t[number]
		if listed && (len(below) == 0 || typ != protowire.BytesType) {
			continue
		}
		if listed {
			f.content, _ = protowire.ConsumeBytes(f.whole[n:])
		}
		*message = b
		return f, true
	}
	*message = nil
	return f, false
}

func (t fieldTree) appendOthers(out, message []byte) []byte {
	for {
		f, ok := t.next(&message)
		if !ok {
			return out
		}
		below := t[f.number]
		if below == nil {
			out = append(out, f.whole...)
			continue
		}
		out = append(out, f.whole[:f.tag]...)
		out = protowire.AppendVarint(out, uint64(below.sizeOfOthers(f.content)))
		out = below.appendOthers(out, f.content)
	}
}

func (t fieldTree) sizeOfOthers(message []byte) (size int) {
	for {
		f, ok := t.next(&message)
		if !ok {
			return size
		}
		if below := t[f.number]; below != nil {
			size += f.tag + protowire.SizeBytes(below.sizeOfOthers(f.content))
		} else {
			size += len(f.whole)
		}
	}
}

func (t fieldTree) sameOthers(a, b []byte) bool {
	for {
		f, more := t.next(&a)
		g, also := t.next(&b)
		if !more || !also {
			return more == also
		}
		below := t[f.number]
		switch {
		case f.number != g.number,
			below == nil && !bytes.Equal(f.whole, g.whole),
			below != nil && !below.sameOthers(f.content, g.content):
			return false
		}
	}
}
