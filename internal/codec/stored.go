package codec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/timonel/timonel/internal/codec/cleanjson"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage"
	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// magic begins every protobuf value, stored and on the wire
// (k8s.io/apimachinery/pkg/runtime/serializer/protobuf).
var magic = []byte("k8s\x00")

// ErrNotEnvelope says that bytes are not a protobuf envelope.
var ErrNotEnvelope = errors.New("value is not a Kubernetes protobuf envelope")

// envelopeHead is the envelope up to the raw message: magic, typeMeta, and the
// tag and length of raw.
func envelopeHead(apiVersion, kindName string, rawLength int) []byte {
	return appendEnvelopeHead(make([]byte, 0, len(magic)+len(apiVersion)+len(kindName)+24), apiVersion, kindName, rawLength)
}

func appendEnvelopeHead(b []byte, apiVersion, kindName string, rawLength int) []byte {
	b = append(b, magic...)
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(typeSize(apiVersion, kindName)))
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendString(b, apiVersion)
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	b = protowire.AppendString(b, kindName)
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	return protowire.AppendVarint(b, uint64(rawLength))
}

// typeSize is the size of a TypeMeta message.
func typeSize(apiVersion, kindName string) int {
	return protowire.SizeTag(1) + protowire.SizeBytes(len(apiVersion)) + protowire.SizeTag(2) + protowire.SizeBytes(len(kindName))
}

// envelopeSize is the size of an envelope with a message of a length.
func envelopeSize(apiVersion, kindName string, rawLength int) int {
	return len(magic) + protowire.SizeTag(1) + protowire.SizeBytes(typeSize(apiVersion, kindName)) +
		protowire.SizeTag(2) + protowire.SizeBytes(rawLength) + len(envelopeTail)
}

// envelopeTail is contentEncoding and contentType, both empty and always present.
var envelopeTail = []byte{0x1a, 0, 0x22, 0}

// Envelope wraps a protobuf message.
func Envelope(apiVersion, kindName string, raw []byte) []byte {
	return appendEnvelope(make([]byte, 0, envelopeSize(apiVersion, kindName, len(raw))), apiVersion, kindName, raw)
}

func appendEnvelope(b []byte, apiVersion, kindName string, raw []byte) []byte {
	return append(append(appendEnvelopeHead(b, apiVersion, kindName, len(raw)), raw...), envelopeTail...)
}

// OpenEnvelope returns what an envelope holds. raw shares memory with value.
func OpenEnvelope(value []byte) (apiVersion, kindName string, raw []byte, err error) {
	rest, ok := bytes.CutPrefix(value, magic)
	if !ok {
		return "", "", nil, ErrNotEnvelope
	}
	for len(rest) > 0 {
		number, typ, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return "", "", nil, fmt.Errorf("envelope: %w", protowire.ParseError(n))
		}
		rest = rest[n:]
		if typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, typ, rest); n < 0 {
				return "", "", nil, fmt.Errorf("envelope: %w", protowire.ParseError(n))
			}
			rest = rest[n:]
			continue
		}
		field, n := protowire.ConsumeBytes(rest)
		if n < 0 {
			return "", "", nil, fmt.Errorf("envelope: %w", protowire.ParseError(n))
		}
		rest = rest[n:]
		switch number {
		case 1:
			var meta runtime.TypeMeta
			if err := meta.Unmarshal(field); err != nil {
				return "", "", nil, fmt.Errorf("envelope: type: %w", err)
			}
			apiVersion, kindName = meta.APIVersion, meta.Kind
		case 2:
			raw = field
		}
	}
	return apiVersion, kindName, raw, nil
}

// EncodeStored returns the bytes that are stored for an object of the hub
// definition d: without resourceVersion, in the stored version.
func EncodeStored(d *kind.Definition, obj object.Object) ([]byte, error) {
	value, _, err := encodeStored(d, obj)
	return value, err
}

// encodeStored is EncodeStored; it tells too whether the value is vouched for.
func encodeStored(d *kind.Definition, obj object.Object) (value []byte, defaulted bool, err error) {
	version := obj.GetResourceVersion()
	obj.SetResourceVersion("")
	obj.SetSelfLink("")
	defer obj.SetResourceVersion(version)
	stored := schema.GroupVersionKind{Group: d.Group, Version: d.Stored.Version, Kind: d.Kind}
	if d.Stored.Encoding == kind.JSON {
		value, err = encodeStoredJSON(d, obj, stored)
		return value, false, err
	}
	m, ok := obj.(message)
	if !ok {
		return nil, false, fmt.Errorf("encode %s: %T has no protobuf form", d.Kind, obj)
	}
	// The type is in the envelope alone.
	size := m.Size()
	head := envelopeHead(stored.GroupVersion().String(), d.Kind, size)
	b := make([]byte, len(head)+size+len(envelopeTail))
	copy(b, head)
	raw := b[len(head) : len(head)+size]
	if _, err := m.MarshalToSizedBuffer(raw); err != nil {
		return nil, false, fmt.Errorf("encode %s %s: %w", d.Kind, obj.GetName(), err)
	}
	copy(b[len(head)+size:], envelopeTail)
	return b, vouch(d, obj, m, raw), nil
}

func encodeStoredJSON(d *kind.Definition, obj object.Object, stored schema.GroupVersionKind) ([]byte, error) {
	var value any = obj
	if d.Stored.Shape != nil {
		var err error
		if value, err = d.Stored.Shape.ToStored(obj); err != nil {
			return nil, fmt.Errorf("encode %s %s: %w", d.Kind, obj.GetName(), err)
		}
	} else {
		before := obj.GetObjectKind().GroupVersionKind()
		SetKind(obj, stored)
		defer SetKind(obj, before)
		if u, ok := obj.(*unstructured.Unstructured); ok {
			value = u.Object
		}
	}
	b, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", d.Kind, obj.GetName(), err)
	}
	return append(b, '\n'), nil
}

// DecodeStored returns the object of the hub definition d that a stored value
// holds, defaulted, with its resourceVersion and its type set. The format is told by the content,
// so that stores written with another --storage-media-type can be read.
func DecodeStored(d *kind.Definition, value []byte, revision storage.Revision) (object.Object, error) {
	obj, err := decodeStored(d, value)
	if err != nil {
		return nil, err
	}
	return finish(d, obj, revision), nil
}

func decodeStored(d *kind.Definition, value []byte) (object.Object, error) {
	if apiVersion, kindName, raw, err := OpenEnvelope(value); err == nil {
		if err := ofKind(d, apiVersion, kindName); err != nil {
			return nil, err
		}
		if older := d.Stored.Older[apiVersion]; older != nil {
			return fromOlder(older, raw, decodeMessage)
		}
		return decodeMessage(d, raw)
	} else if !errors.Is(err, ErrNotEnvelope) {
		return nil, fmt.Errorf("decode stored %s: %w", d.Kind, err)
	}
	return decodeStoredText(d, value)
}

// fromOlder decodes what was stored in an older version, with that version's defaults, and converts it to the hub.
func fromOlder(older *kind.Definition, value []byte, decode func(*kind.Definition, []byte) (object.Object, error)) (object.Object, error) {
	obj, err := decode(older, value)
	if err != nil {
		return nil, err
	}
	if older.Default != nil {
		older.Default(obj)
	}
	return ToHub(older, obj)
}

// ErrOtherKind says that a stored value holds an object of another kind than its key.
var ErrOtherKind = errors.New("value is of another kind")

// ofKind checks what a stored value says it holds. The version may be any: kinds are stored in one at a
// time, but older ones stay until they are written again.
func ofKind(d *kind.Definition, apiVersion, kindName string) error {
	group, _, grouped := strings.Cut(apiVersion, "/")
	if !grouped {
		group = ""
	}
	if kindName != d.Kind || group != d.Group {
		return fmt.Errorf("decode stored %s: %w: %s of %s", d.Kind, ErrOtherKind, kindName, apiVersion)
	}
	return nil
}

func decodeMessage(d *kind.Definition, raw []byte) (object.Object, error) {
	obj := d.New()
	m, ok := obj.(message)
	if !ok {
		return nil, fmt.Errorf("decode stored %s: unexpected protobuf", d.Kind)
	}
	if err := m.Unmarshal(raw); err != nil {
		return nil, fmt.Errorf("decode stored %s: %w", d.Kind, err)
	}
	return obj, nil
}

func decodeStoredText(d *kind.Definition, value []byte) (object.Object, error) {
	value, err := storedJSON(value)
	if err != nil {
		return nil, fmt.Errorf("decode stored %s: %w", d.Kind, err)
	}
	if d.Stored.Shape != nil {
		stored := d.Stored.Shape.New()
		if !cleanjson.Decode(value, stored) {
			stored = d.Stored.Shape.New()
			if err := kjson.UnmarshalCaseSensitivePreserveInts(value, stored); err != nil {
				return nil, fmt.Errorf("decode stored %s: %w", d.Kind, err)
			}
		}
		return d.Stored.Shape.FromStored(stored)
	}
	if d.Stored.Older != nil {
		var is runtime.TypeMeta
		if err := json.Unmarshal(value, &is); err != nil {
			return nil, fmt.Errorf("decode stored %s: %w", d.Kind, err)
		}
		if older := d.Stored.Older[is.APIVersion]; older != nil {
			return fromOlder(older, value, decodeText)
		}
	}
	return decodeText(d, value)
}

func decodeText(d *kind.Definition, value []byte) (object.Object, error) {
	obj := d.New()
	if clean(value, obj) {
		return obj, nil
	}
	obj = d.New()
	if _, err := unmarshal(value, obj, Ignore); err != nil {
		return nil, fmt.Errorf("decode stored %s: %w", d.Kind, err)
	}
	return obj, nil
}

// finish sets what is not stored: the resourceVersion, the type, and defaults of
// fields that were unknown when the object was written.
func finish(d *kind.Definition, obj object.Object, revision storage.Revision) object.Object {
	identify(d, obj, revision)
	switch {
	case d.Prune != nil: // what the schemas do not know any more is not shown
		_, _ = d.Prune(obj, true)
	case d.Default != nil:
		d.Default(obj)
	}
	return obj
}

func identify(d *kind.Definition, obj object.Object, revision storage.Revision) {
	obj.SetResourceVersion(FormatRevision(revision))
	SetKind(obj, d.GroupVersionKind())
}

// ErrNotObject says that a stored value has none of the forms of an object.
var ErrNotObject = errors.New("value is neither protobuf, JSON nor YAML")

// storedJSON returns a stored text as JSON.
func storedJSON(value []byte) ([]byte, error) {
	if looksLikeJSON(value) {
		return value, nil
	}
	converted, err := yaml.YAMLToJSON(value)
	if err != nil || !looksLikeJSON(converted) {
		return nil, ErrNotObject
	}
	return converted, nil
}

func looksLikeJSON(b []byte) bool {
	b = bytes.TrimLeft(b, " \t\r\n")
	return len(b) > 0 && b[0] == '{'
}

// FormatRevision is the text of a revision on the wire: resourceVersion.
func FormatRevision(r storage.Revision) string {
	if r == 0 {
		return ""
	}
	return strconv.FormatInt(int64(r), 10)
}
