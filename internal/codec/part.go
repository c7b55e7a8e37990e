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

// Part decodes some of the fields of a kind's objects, for those who follow a resource and look at little of it. The kind is a Go type.
//
// Paths of fields are dotted, with elements of lists meant by their list ("spec.versions.schema"). Entries of maps have a key and a value ("data.key").
type Part struct {
	hub    *kind.Definition
	fields *fieldTree
}

// fieldTree says which fields of a message are in a part: those with a tree of their own as it says, by number, and the others or not.
type fieldTree struct {
	named  []*fieldTree // by number; nil: not named
	others bool
}

// Without is the part that leaves out the fields at paths.
func Without(hub *kind.Definition, paths ...string) (*Part, error) { return newPart(hub, paths, true) }

// Only is the part of nothing but the fields at paths.
func Only(hub *kind.Definition, paths ...string) (*Part, error) { return newPart(hub, paths, false) }

func newPart(hub *kind.Definition, paths []string, others bool) (*Part, error) {
	p := &Part{hub: hub, fields: &fieldTree{others: others}}
	end := all // of a path
	if others {
		end = none
	}
	for _, path := range paths {
		numbers, err := fieldNumbers(reflect.TypeOf(hub.New()).Elem(), path)
		if err != nil {
			return nil, fmt.Errorf("a part of %s by %q: %w", hub.Kind, path, err)
		}
		at := p.fields
		for i, n := range numbers {
			below := at.of(n)
			if below == end {
				break // a shorter path ends here
			}
			if i == len(numbers)-1 {
				below = end
			} else if below == all || below == none {
				below = &fieldTree{others: others}
			}
			at.name(n, below)
			at = below
		}
	}
	return p, nil
}

// all and none are trees of messages that are in a part as a whole, or not at all.
var all, none = &fieldTree{others: true}, &fieldTree{}

// of is the tree of a field.
func (t *fieldTree) of(number protowire.Number) *fieldTree {
	if int(number) < len(t.named) && t.named[number] != nil {
		return t.named[number]
	}
	if t.others {
		return all
	}
	return none
}

func (t *fieldTree) name(number protowire.Number, below *fieldTree) {
	if more := int(number) + 1 - len(t.named); more > 0 {
		t.named = append(t.named, make([]*fieldTree, more)...)
	}
	t.named[number] = below
}

func fieldNumbers(t reflect.Type, path string) (numbers []protowire.Number, err error) {
	for step := range strings.SplitSeq(path, ".") {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		next, number, ok := follow(t, step)
		if !ok {
			return nil, fmt.Errorf("%s has no %s", t, step)
		}
		numbers, t = append(numbers, number), next
	}
	return numbers, nil
}

// follow finds a field of a struct, or of the entries of a map, which are messages of a key and a value.
func follow(t reflect.Type, name string) (reflect.Type, protowire.Number, bool) {
	switch {
	case t.Kind() == reflect.Struct:
		field, number, ok := fieldByJSON(t, name)
		return field.Type, number, ok
	case t.Kind() == reflect.Map && name == "key":
		return t.Key(), 1, true
	case t.Kind() == reflect.Map && name == "value":
		return t.Elem(), 2, true
	}
	return nil, 0, false
}

// Decode returns the part of a cached version, the caller's own. Defaults of what it leaves out are not set.
func (p *Part) Decode(v *watchcache.Version) (object.Object, error) {
	if v.Err != nil {
		return nil, v.Err
	}
	message := borrow()
	defer message.release()
	message.b = p.fields.appendTo(message.b, v.Blob)
	obj, err := decodeMessage(p.hub, message.b)
	if err != nil {
		return nil, err
	}
	obj.SetResourceVersion(FormatRevision(v.Revision))
	SetKind(obj, p.hub.GroupVersionKind())
	return obj, nil
}

// Same reports whether two versions of an object have the same part.
func (p *Part) Same(a, b *watchcache.Version) bool {
	return a.Err == nil && b.Err == nil && p.fields.same(a.Blob, b.Blob)
}

// partField is a field of a message that is in a part; below is not all if only some of its content is. What is no field has no number, for
// the decoder to say so.
type partField struct {
	number         protowire.Number
	whole, content []byte
	below          *fieldTree
}

// next takes the next field that is in the part off a message; false at the end.
func (t *fieldTree) next(message *[]byte) (f partField, ok bool) {
	for b := *message; len(b) > 0; {
		number, typ, content, end := firstField(b)
		if end < 0 {
			*message = nil
			return partField{whole: b, below: all}, true
		}
		f = partField{number: number, whole: b[:end], content: content, below: t.of(number)}
		b = b[end:]
		if f.below == none || f.below != all && typ != protowire.BytesType {
			continue
		}
		*message = b
		return f, true
	}
	*message = nil
	return f, false
}

// firstField reads the first field of a message, of whatever type: its number, its type, its content if that has a length, and where it ends; -1
// if there is none.
func firstField(b []byte) (number protowire.Number, typ protowire.Type, content []byte, end int) {
	number, typ, v, end := fieldAt(b, 0)
	if end < 0 {
		number, typ, end = protowire.ConsumeField(b)
	}
	return number, typ, v.bytes, end
}

// appendTo appends the part of a message.
func (t *fieldTree) appendTo(out, message []byte) []byte {
	for {
		f, ok := t.next(&message)
		if !ok {
			return out
		}
		if f.below == all {
			out = append(out, f.whole...)
			continue
		}
		// The part is not longer than the whole, and so is the number that tells its length.
		out = protowire.AppendTag(out, f.number, protowire.BytesType)
		start := len(out)
		out = protowire.AppendVarint(out, uint64(len(f.content)))
		content := len(out)
		out = f.below.appendTo(out, f.content)
		size := len(out) - content
		head := len(protowire.AppendVarint(out[:start], uint64(size)))
		if head < content {
			copy(out[head:], out[content:])
		}
		out = out[:head+size]
	}
}

// same reports whether two messages have the same part.
func (t *fieldTree) same(a, b []byte) bool {
	for {
		f, more := t.next(&a)
		g, also := t.next(&b)
		if !more || !also {
			return more == also
		}
		switch {
		case f.number != g.number,
			f.below == all && !bytes.Equal(f.whole, g.whole),
			f.below != all && !f.below.same(f.content, g.content):
			return false
		}
	}
}
