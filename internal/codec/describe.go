package codec

import (
	"bytes"
	"cmp"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/watchcache"
	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/types"
)

// Collection is how the watch cache sees the resource of a hub definition: where
// it is stored, and how a stored value becomes the blob that clients get and the side record that
// selections look at. Values are scanned, not decoded.
func Collection(d *kind.Definition, prefix string) watchcache.Collection {
	c := watchcache.Collection{
		Prefix:     prefix + "/" + d.Stored.Prefix + "/",
		Namespaced: d.Namespaced(),
	}
	for _, f := range d.Fields {
		c.Fields = append(c.Fields, cmp.Or(f.Label, f.Path))
		c.Indexed = append(c.Indexed, f.Indexed)
	}
	if IsTree(d) {
		describeTree(d, &c)
	} else {
		describeMessage(d, &c)
	}
	return c
}

// Numbers of ObjectMeta's fields (k8s.io/apimachinery/pkg/apis/meta/v1 generated.proto).
const (
	metadataField        = 1 // of every object
	uidField             = 5
	resourceVersionField = 6
	labelsField          = 11
)

func describeMessage(d *kind.Definition, c *watchcache.Collection) {
	paths := make([]wirePath, len(d.Fields))
	for i, f := range d.Fields {
		path, err := compilePath(reflect.TypeOf(d.New()).Elem(), f)
		if err != nil {
			panic(fmt.Sprintf("%s %s: %v", d.Kind, f.Label, err)) // a mistake in a Definition
		}
		paths[i] = path
	}
	c.Describe = func(key string, value []byte, revision storage.Revision) (out watchcache.Description) {
		raw, form, err := storedMessage(d, value)
		if err == nil {
			out.Blob, err = restamp(raw, revision)
		}
		out.Defaulted, out.Outdated = form.defaulted, form.outdated
		if err != nil {
			return watchcache.Description{Err: err}
		}
		meta, _ := lookup(out.Blob, metadataField)
		uid, labels, err := scanMeta(meta)
		if err != nil {
			return watchcache.Description{Err: err}
		}
		out.UID, out.Labels = uid, labels
		out.Fields = fieldsOf(paths, out.Blob)
		return out
	}
	c.Restamp = func(blob []byte, revision storage.Revision) []byte {
		b, err := restamp(blob, revision)
		if err != nil {
			return blob // it was restamped before, so it is well-formed
		}
		return b
	}
}

// fieldsOf returns the values of selectable fields, as substrings of one string: most are short, and a string of their own would
// cost more than they do.
func fieldsOf(paths []wirePath, blob []byte) []string {
	if len(paths) == 0 {
		return nil
	}
	var space [256]byte
	text, ends := space[:0], make([]int, len(paths))
	for i := range paths {
		text = paths[i].append(text, blob)
		ends[i] = len(text)
	}
	values, all, start := make([]string, len(paths)), string(text), 0
	for i, end := range ends {
		values[i], start = all[start:end], end
	}
	return values
}

// storedForm is what is to be known of a stored value besides its message.
type storedForm struct {
	defaulted bool // the message is known to have its defaults
	outdated  bool // it would be stored in another form now: see watchcache.Version
}

// storedMessage returns the protobuf message in a stored value. Values stored in another form, or without their
// defaults, are decoded and encoded once.
func storedMessage(d *kind.Definition, value []byte) (raw []byte, form storedForm, err error) {
	apiVersion, kindName, raw, notEnvelope := OpenEnvelope(value)
	if d.Stored.Encoding == kind.Protobuf {
		form.outdated = notEnvelope != nil || apiVersion != d.StoredAPIVersion()
		if notEnvelope == nil && !d.Stored.Undefaulted && d.Stored.Older[apiVersion] == nil {
			form.defaulted = d.Default == nil || vouched.has(raw)
			return raw, form, ofKind(d, apiVersion, kindName)
		}
	} else {
		form.outdated = notEnvelope == nil || !looksLikeJSON(value)
		if raw = expected.take(d, value); raw != nil {
			form.defaulted = true
			return raw, form, nil
		}
	}
	obj, err := decodeStored(d, value)
	if err != nil {
		return nil, form, err
	}
	if d.Default != nil {
		d.Default(obj)
	}
	m, ok := obj.(message)
	if !ok {
		return nil, form, fmt.Errorf("decode stored %s: %T has no protobuf form", d.Kind, obj)
	}
	raw, err = m.Marshal()
	form.defaulted = true
	return raw, form, err
}

// restamp returns a copy of an object's message with metadata.resourceVersion set.
func restamp(raw []byte, revision storage.Revision) ([]byte, error) {
	s, err := cutForStamp(raw, revision)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(s.before)+len(s.length())+len(s.meta)+len(s.number())+len(s.metaRest)+len(s.after))
	for _, part := range s.parts() {
		out = append(out, part...)
	}
	return out, nil
}

// stamped is an object's message with metadata.resourceVersion set, in the parts that it is put together from.
type stamped struct {
	before   []byte // fields before metadata
	meta     []byte // fields of metadata before the resourceVersion
	metaRest []byte // and behind it
	after    []byte // fields behind metadata

	head, version           [24]byte // tag and length of metadata; the field resourceVersion
	headLength, versionSize int
}

func (s *stamped) length() []byte { return s.head[:s.headLength] }
func (s *stamped) number() []byte { return s.version[:s.versionSize] }

func (s *stamped) parts() [6][]byte {
	return [...][]byte{s.before, s.length(), s.meta, s.number(), s.metaRest, s.after}
}

// equals reports whether the parts together are b.
func (s *stamped) equals(b []byte) bool {
	for _, part := range s.parts() {
		rest, ok := bytes.CutPrefix(b, part)
		if !ok {
			return false
		}
		b = rest
	}
	return len(b) == 0
}

func cutForStamp(raw []byte, revision storage.Revision) (s stamped, err error) {
	start, value, end, err := find(raw, metadataField)
	if err != nil {
		return s, err
	}
	if value < 0 { // no metadata at all: it goes in front
		start, value, end = 0, 0, 0
	}
	s.before, s.after = raw[:start], raw[end:]
	meta := raw[value:end]
	if start, value, end, err = find(meta, resourceVersionField); err != nil {
		return s, err
	}
	if value < 0 { // written by a client that leaves empty fields out
		if start, err = insertionPoint(meta, resourceVersionField); err != nil {
			return s, err
		}
		end = start
	}
	s.meta, s.metaRest = meta[:start], meta[end:]
	var text [20]byte
	number := strconv.AppendInt(text[:0], int64(revision), 10)
	version := protowire.AppendTag(s.version[:0], resourceVersionField, protowire.BytesType)
	s.versionSize = len(protowire.AppendBytes(version, number))
	head := protowire.AppendTag(s.head[:0], metadataField, protowire.BytesType)
	s.headLength = len(protowire.AppendVarint(head, uint64(len(s.meta)+s.versionSize+len(s.metaRest))))
	return s, nil
}

// find returns where the field with a number begins (its tag), where its bytes begin and where
// they end; value is -1 when the field is absent.
func find(b []byte, number protowire.Number) (start, value, end int, err error) {
	for at := 0; at < len(b); {
		num, typ, n := protowire.ConsumeTag(b[at:])
		if n < 0 {
			return 0, -1, 0, protowire.ParseError(n)
		}
		m := protowire.ConsumeFieldValue(num, typ, b[at+n:])
		if m < 0 {
			return 0, -1, 0, protowire.ParseError(m)
		}
		if num == number && typ == protowire.BytesType {
			content, _ := protowire.ConsumeBytes(b[at+n:])
			return at, at + n + m - len(content), at + n + m, nil
		}
		at += n + m
	}
	return 0, -1, 0, nil
}

// insertionPoint is where a field belongs so that fields stay in order.
func insertionPoint(b []byte, number protowire.Number) (int, error) {
	at := 0
	for at < len(b) {
		num, typ, n := protowire.ConsumeTag(b[at:])
		if n < 0 {
			return 0, protowire.ParseError(n)
		}
		if num > number {
			return at, nil
		}
		m := protowire.ConsumeFieldValue(num, typ, b[at+n:])
		if m < 0 {
			return 0, protowire.ParseError(m)
		}
		at += n + m
	}
	return at, nil
}

// lookup returns the bytes of a field.
func lookup(b []byte, number protowire.Number) ([]byte, bool) {
	_, value, end, err := find(b, number)
	if err != nil || value < 0 {
		return nil, false
	}
	return b[value:end], true
}

// scanMeta reads the uid and the labels of an ObjectMeta message.
func scanMeta(meta []byte) (uid types.UID, labels watchcache.Labels, err error) {
	var pairs []watchcache.Label
	for len(meta) > 0 {
		num, typ, n := protowire.ConsumeTag(meta)
		if n < 0 {
			return "", labels, protowire.ParseError(n)
		}
		m := protowire.ConsumeFieldValue(num, typ, meta[n:])
		if m < 0 {
			return "", labels, protowire.ParseError(m)
		}
		if typ == protowire.BytesType {
			content, _ := protowire.ConsumeBytes(meta[n:])
			switch num {
			case uidField:
				uid = types.UID(content)
			case labelsField:
				key, _ := lookup(content, 1)
				value, _ := lookup(content, 2)
				pairs = append(pairs, watchcache.Label{Key: string(key), Value: string(value)})
			}
		}
		meta = meta[n+m:]
	}
	return uid, watchcache.NewLabels(pairs), nil
}

// wirePath is where a selectable field lies in a protobuf message.
type wirePath struct {
	steps []protowire.Number
	kind  reflect.Kind // of the value: String, Bool or an integer
	other *wirePath    // looked at when the value is empty
}

// compilePath follows a dotted JSON path through a Go type by its struct tags.
func compilePath(t reflect.Type, f kind.Field) (wirePath, error) {
	path, err := compileSteps(t, f.Path)
	if err == nil && f.Else != "" {
		var other wirePath
		other, err = compileSteps(t, f.Else)
		path.other = &other
	}
	return path, err
}

func compileSteps(t reflect.Type, path string) (out wirePath, err error) {
	for step := range strings.SplitSeq(path, ".") {
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct {
			return out, fmt.Errorf("field %s: %s is not a struct", path, t)
		}
		field, number, ok := fieldByJSON(t, step)
		if !ok {
			return out, fmt.Errorf("field %s: %s has no %s", path, t, step)
		}
		out.steps = append(out.steps, number)
		t = field.Type
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch out.kind = t.Kind(); out.kind {
	case reflect.String, reflect.Bool, reflect.Int32, reflect.Int64:
		return out, nil
	}
	return out, fmt.Errorf("field %s: a %s cannot be selected on", path, t)
}

// fieldByJSON finds a field by its JSON name, in embedded structs too, with its
// protobuf number.
func fieldByJSON(t reflect.Type, name string) (reflect.StructField, protowire.Number, bool) {
	for f := range t.Fields() {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		parts := strings.Split(f.Tag.Get("protobuf"), ",")
		if tag == name && len(parts) > 1 {
			number, err := strconv.Atoi(parts[1])
			return f, protowire.Number(number), err == nil
		}
	}
	return reflect.StructField{}, 0, false
}

// append appends the value in a message.
func (p *wirePath) append(text, b []byte) []byte {
	longer := p.appendValue(text, b)
	if len(longer) == len(text) && p.other != nil {
		return p.other.appendValue(text, b)
	}
	return longer
}

func (p *wirePath) appendValue(text, b []byte) []byte {
	for _, step := range p.steps[:len(p.steps)-1] {
		next, ok := lookup(b, step)
		if !ok {
			return append(text, p.zero()...)
		}
		b = next
	}
	last := p.steps[len(p.steps)-1]
	if p.kind == reflect.String {
		v, _ := lookup(b, last)
		return append(text, v...)
	}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			break
		}
		if num == last && typ == protowire.VarintType {
			v, m := protowire.ConsumeVarint(b[n:])
			if m < 0 {
				break
			}
			if p.kind == reflect.Bool {
				return strconv.AppendBool(text, v != 0)
			}
			return strconv.AppendInt(text, int64(v), 10)
		}
		m := protowire.ConsumeFieldValue(num, typ, b[n:])
		if m < 0 {
			break
		}
		b = b[n+m:]
	}
	return append(text, p.zero()...)
}

func (p *wirePath) zero() string {
	switch p.kind {
	case reflect.Bool:
		return "false"
	case reflect.String:
		return ""
	}
	return "0"
}
