package codec

import (
	"bytes"
	"encoding/base64"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// transcoder writes the JSON of a protobuf message straight from its bytes.
//
// Every version of a built-in object is kept as protobuf and is wanted as JSON sooner or later: by a GET, in lists,
// by watchers. Making the Go object in between costs most of the time (a pod of 4.7 KB: 233 allocations, 17 KB and
// 40 µs, instead of 3, 5 KB and 11 µs), and all of it is thrown away. The steps instead, for each message:
//
//  1. Go through its bytes once and note where each field lies (found). Protobuf has fields in any order, by
//     number as a rule; JSON has them in the order of the Go struct.
//  2. Write the members in their order: what was found from its bytes, what was not in the way that
//     encoding/json writes zero values, unless it is omitted.
//
// Invariant: where the transcoder answers, it answers what decoding and encoding/json would, byte for byte. What it
// does not expect in a message (a field given twice, another wire type than the field's, bytes that end early, a
// quantity in another spelling that does not parse) is errUnusual, and the object is decoded, which may succeed
// or tell what is wrong. See transcode_test.go.
//
// Defaults are not its business: a version whose defaults are not known to be there is decoded (vouch.go).
//
// Refused: encoders generated for each type, which would be more program than all the rest of this room, and a build
// step; and decoding into pooled objects, which would save memory and little time.
type transcoder struct {
	found   []found // a stack: the fields of the messages that are being written
	entries []entry // a stack as well, of map entries
	depth   int
	first   int // where the first member of the outermost message ends
}

// found is where a field lies in its message.
type found struct {
	count    int32
	from, to int    // once: the content of a value with a length; otherwise from the first tag to the end of the last value
	number   uint64 // a value without length
}

// entry is one entry of a map.
type entry struct {
	key   []byte
	value value
}

// value is one value as it lies in a message: bytes, or a number.
type value struct {
	bytes  []byte
	number uint64
}

// errUnusual says that a message is written in a way that only decoding understands, if anything does.
var errUnusual = errors.New("message is unusual")

// maxDepth bounds how deep messages are nested that a transcoder follows.
const maxDepth = 100

// maxKeptEntries bounds what a transcoder keeps for the next object.
const maxKeptEntries = 1 << 12

var transcoders = sync.Pool{New: func() any { return new(transcoder) }}

// appendTranscoded appends the JSON of a message, and tells where in it the first member ends.
func appendTranscoded(b []byte, s *shape, raw []byte) (_ []byte, first int, err error) {
	t := transcoders.Get().(*transcoder)
	defer t.put()
	longer, err := t.object(b, s, raw)
	if err != nil {
		return b, 0, err
	}
	return longer, t.first - len(b), nil
}

func (t *transcoder) put() {
	if cap(t.entries) > maxKeptEntries {
		return
	}
	t.found, t.entries, t.depth, t.first = t.found[:0], t.entries[:0], 0, 0
	transcoders.Put(t)
}

// object appends a message as a JSON object.
func (t *transcoder) object(b []byte, s *shape, raw []byte) ([]byte, error) {
	b, err := t.members(append(b, '{'), s, raw)
	return end(b, '}'), err
}

// end closes an object or a list: the bracket takes the place of the comma after the last element.
func end(b []byte, bracket byte) []byte {
	if last := len(b) - 1; b[last] == ',' {
		b[last] = bracket
		return b
	}
	return append(b, bracket)
}

// members appends the members of a message, each with a comma behind it.
func (t *transcoder) members(b []byte, s *shape, raw []byte) (_ []byte, err error) {
	if t.depth++; t.depth > maxDepth {
		return b, errUnusual
	}
	base := len(t.found)
	t.found = slices.Grow(t.found, len(s.members))[:base+len(s.members)]
	clear(t.found[base:])
	if err := s.find(t.found[base:], raw); err != nil {
		return b, err
	}
	for i := range s.members {
		m, f := &s.members[i], &t.found[base+i]
		if f.count == 0 && !m.zero {
			b = append(b, m.absent...)
			continue
		}
		v := value{raw[f.from:f.to:f.to], f.number}
		switch m.many {
		case once:
			b, err = t.single(b, m, v)
		case repeated:
			b, err = t.list(append(b, m.name...), m, v.bytes, m.number)
		case keyed:
			b, err = t.mapping(append(b, m.name...), m, v.bytes)
		}
		if err != nil {
			return b, err
		}
		if i == 0 && t.depth == 1 {
			t.first = len(b) - 1
		}
	}
	t.found = t.found[:base]
	t.depth--
	return b, nil
}

// find notes where the fields of a message lie.
func (s *shape) find(fields []found, raw []byte) error {
	for at := 0; at < len(raw); {
		start := at
		number, typ, v, next := fieldAt(raw, at)
		if next < 0 {
			return errUnusual
		}
		at = next
		if int(number) >= len(s.byNumber) || s.byNumber[number] < 0 {
			continue // unknown here, and left out when the message is decoded, too
		}
		i := s.byNumber[number]
		m, f := &s.members[i], &fields[i]
		switch {
		case typ != m.typ, f.count > 0 && m.many == once:
			return errUnusual
		case m.many == once:
			f.number, f.from, f.to = v.number, at-len(v.bytes), at
		case f.count == 0:
			f.from, f.to = start, at
		default:
			f.to = at
		}
		f.count++
	}
	return nil
}

// fieldAt reads the field at a place of a message: its number, its type, its value and where the next one begins; -1 if
// there is none, or one of a type that the API does not use.
func fieldAt(raw []byte, at int) (number protowire.Number, typ protowire.Type, v value, next int) {
	tag, at := varint(raw, at)
	if at < 0 || tag>>3 == 0 || tag>>3 > uint64(protowire.MaxValidNumber) {
		return 0, 0, v, -1
	}
	number, typ = protowire.Number(tag>>3), protowire.Type(tag&7)
	switch typ {
	case protowire.VarintType:
		v.number, at = varint(raw, at)
		return number, typ, v, at
	case protowire.BytesType:
		size, at := varint(raw, at)
		if at < 0 || size > uint64(len(raw)-at) {
			return 0, 0, v, -1
		}
		next = at + int(size)
		v.bytes = raw[at:next:next]
		return number, typ, v, next
	}
	return 0, 0, v, -1
}

// varint reads a number and returns where the next byte is; -1 if there is no number.
func varint(raw []byte, at int) (v uint64, next int) {
	if at < len(raw) && raw[at] < 0x80 {
		return uint64(raw[at]), at + 1
	}
	v, n := protowire.ConsumeVarint(raw[at:])
	if n < 0 {
		return 0, -1
	}
	return v, at + n
}

// single appends a member that is one value, if it is to be written.
func (t *transcoder) single(b []byte, m *property, v value) ([]byte, error) {
	if m.spelling == inline {
		return t.members(b, m.of, v.bytes)
	}
	if m.omit && !m.pointer && m.empty(v) {
		return b, nil
	}
	return t.value(append(b, m.name...), m, v)
}

// empty reports whether encoding/json would omit the value.
func (m *property) empty(v value) bool {
	switch m.spelling {
	case text, base64Bytes:
		return len(v.bytes) == 0
	case int32Number:
		return int32(v.number) == 0
	case boolean, int64Number:
		return v.number == 0
	case timeText:
		at, err := timestamp(v.bytes)
		return len(v.bytes) == 0 || err == nil && time.Unix(at.Seconds, 0).IsZero()
	}
	return false
}

// list appends the values of a repeated field, which may lie among those of others.
func (t *transcoder) list(b []byte, m *property, raw []byte, number protowire.Number) (_ []byte, err error) {
	b = append(b, '[')
	for at := 0; at < len(raw); {
		n, typ, v, next := fieldAt(raw, at)
		if next < 0 {
			return b, errUnusual
		}
		at = next
		if n != number {
			continue
		}
		if typ != m.item.typ {
			return b, errUnusual
		}
		if b, err = t.value(b, m.item, v); err != nil {
			return b, err
		}
	}
	return append(end(b, ']'), ','), nil
}

// mapping appends a map, in the order of its keys.
func (t *transcoder) mapping(b []byte, m *property, raw []byte) (_ []byte, err error) {
	base := len(t.entries)
	for at := 0; at < len(raw); {
		n, _, v, next := fieldAt(raw, at)
		if next < 0 {
			return b, errUnusual
		}
		at = next
		if n != m.number {
			continue
		}
		e, err := m.item.entry(v.bytes)
		if err != nil {
			return b, err
		}
		t.entries = append(t.entries, e)
	}
	entries := t.entries[base:]
	byKey := func(a, b entry) int { return bytes.Compare(a.key, b.key) }
	if !slices.IsSortedFunc(entries, byKey) {
		slices.SortFunc(entries, byKey)
	}
	b = append(b, '{')
	for i := range entries {
		if i > 0 && bytes.Equal(entries[i-1].key, entries[i].key) {
			return b, errUnusual
		}
		b = append(appendText(b, entries[i].key), ':')
		if b, err = t.value(b, m.item, entries[i].value); err != nil {
			return b, err
		}
	}
	t.entries = t.entries[:base]
	return append(end(b, '}'), ','), nil
}

// entry reads a map entry: the key is field 1, the value field 2.
func (m *property) entry(raw []byte) (e entry, err error) {
	key, keyType, v, at := fieldAt(raw, 0)
	if at < 0 || key != 1 || keyType != protowire.BytesType {
		return e, errUnusual
	}
	e.key = v.bytes
	number, typ, v, at := fieldAt(raw, at)
	if at != len(raw) || number != 2 || typ != m.typ {
		return e, errUnusual
	}
	e.value = v
	return e, nil
}

// value appends one value, with a comma behind it.
func (t *transcoder) value(b []byte, m *property, v value) (_ []byte, err error) {
	if m.many == listed {
		return t.list(b, m, v.bytes, 1)
	}
	switch m.spelling {
	case text:
		b = appendText(b, v.bytes)
	case nested:
		b, err = t.object(b, m.of, v.bytes)
	case base64Bytes:
		b = append(base64.StdEncoding.AppendEncode(append(b, '"'), v.bytes), '"')
	case boolean:
		b = strconv.AppendBool(b, v.number != 0)
	case int32Number:
		b = strconv.AppendInt(b, int64(int32(v.number)), 10)
	case int64Number:
		b = strconv.AppendInt(b, int64(v.number), 10)
	case timeText, microTimeText:
		b, err = appendTime(b, m.spelling, v.bytes)
	case durationText:
		var nanoseconds value
		nanoseconds, _, err = two(v.bytes, protowire.VarintType)
		b = appendText(b, []byte(time.Duration(nanoseconds.number).String()))
	case intOrText:
		b, err = appendIntOrString(b, v.bytes)
	case quantityText, rawJSON:
		b, err = appendWrapped(b, m.spelling, v.bytes)
	}
	return append(b, ','), err
}

// two reads a message of up to two fields of a type, numbered 1 and 2, which the API writes in this order.
func two(raw []byte, typ protowire.Type) (first, second value, err error) {
	for at, last := 0, protowire.Number(0); at < len(raw); {
		number, got, v, next := fieldAt(raw, at)
		if next < 0 || got != typ || number <= last || number > 2 {
			return first, second, errUnusual
		}
		if number == 1 {
			first = v
		} else {
			second = v
		}
		at, last = next, number
	}
	return first, second, nil
}

// timestamp reads the message of a time.
func timestamp(raw []byte) (p metav1.Timestamp, err error) {
	seconds, nanos, err := two(raw, protowire.VarintType)
	return metav1.Timestamp{Seconds: int64(seconds.number), Nanos: int32(nanos.number)}, err
}

// appendTime appends a Time or MicroTime: null if it is zero.
func appendTime(b []byte, s spelling, raw []byte) ([]byte, error) {
	p, err := timestamp(raw)
	if err != nil {
		return b, err
	}
	at, layout := time.Unix(p.Seconds, 0).UTC(), time.RFC3339
	if s == microTimeText {
		at, layout = time.Unix(p.Seconds, int64(time.Duration(p.Nanos).Truncate(time.Microsecond))).UTC(), metav1.RFC3339Micro
	}
	if len(raw) == 0 || at.IsZero() {
		return append(b, "null"...), nil
	}
	return append(at.AppendFormat(append(b, '"'), layout), '"'), nil
}

// appendWrapped appends a type that is a message around a text: a quantity or raw JSON.
func appendWrapped(b []byte, s spelling, raw []byte) ([]byte, error) {
	content, second, err := two(raw, protowire.BytesType)
	switch {
	case err != nil, second.bytes != nil:
		return b, errUnusual
	case s == quantityText && len(raw) == 0:
		return append(b, `"0"`...), nil
	case s == quantityText:
		return appendQuantity(b, content.bytes)
	case len(raw) == 0:
		return append(b, "null"...), nil
	case len(content.bytes) == 0: // there, but empty: what that means differs from type to type
		return b, errUnusual
	}
	return appendRaw(b, content.bytes)
}

// appendIntOrString appends an IntOrString message: type = 1, intVal = 2, strVal = 3.
func appendIntOrString(b, raw []byte) ([]byte, error) {
	var values [4]value
	for at, last := 0, protowire.Number(0); at < len(raw); {
		number, typ, v, next := fieldAt(raw, at)
		if next < 0 || number <= last || number > 3 || (typ == protowire.BytesType) != (number == 3) {
			return b, errUnusual
		}
		values[number], at, last = v, next, number
	}
	switch values[1].number {
	case 0:
		return strconv.AppendInt(b, int64(int32(values[2].number)), 10), nil
	case 1:
		return appendText(b, values[3].bytes), nil
	}
	return b, errUnusual
}
