package codec

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage/watchcache"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Item is one object on its way to a client, in the version of Definition: a stored
// version as the cache keeps it, or an object in hand (of the hub's type), or both when it was just written.
type Item struct {
	Definition *kind.Definition
	Version    *watchcache.Version
	Object     object.Object
}

// tree reports whether the item is a custom resource.
func (i *Item) tree() bool { return IsTree(i.Definition) }

// Decoded returns the item in the version of its Definition; the caller may
// change it only if it came from a stored version.
func (i *Item) Decoded() (object.Object, error) {
	hub, err := i.hub()
	if err != nil {
		return nil, err
	}
	obj, err := FromHub(i.Definition, hub)
	if err != nil {
		return nil, err
	}
	if i.Object == nil && obj != hub {
		SetKind(obj, i.Definition.GroupVersionKind())
	}
	return obj, nil
}

// hub returns the item in the version that the engine works on.
func (i *Item) hub() (object.Object, error) {
	if i.Object != nil {
		return i.Object, nil
	}
	return DecodeVersion(i.Definition.Hub(), i.Version)
}

// shown returns as much of a stored version, in the version that the engine works on, as its columns look at.
func (i *Item) shown() (object.Object, error) {
	hub := i.Definition.Hub()
	part, ok := columnPart(hub)
	if !ok {
		return i.hub()
	}
	obj, err := part.Decode(i.Version)
	if err == nil && hub.Default != nil && !i.Version.Defaulted.Load() {
		hub.Default(obj) // what it makes of the part is what it makes of that part of the whole: see TestColumnFields
	}
	return obj, err
}

// DecodeVersion returns the object of the hub definition that a cached version holds, the caller's own.
func DecodeVersion(hub *kind.Definition, v *watchcache.Version) (object.Object, error) {
	if v.Err != nil {
		return nil, v.Err
	}
	if IsTree(hub) {
		obj, err := decodeStoredText(hub, v.Blob)
		if err != nil {
			return nil, err
		}
		return finish(hub, obj, v.Revision), nil
	}
	obj, err := decodeMessage(hub, v.Blob)
	if err != nil {
		return nil, err
	}
	if v.Defaulted.Load() {
		identify(hub, obj, v.Revision)
		return obj, nil
	}
	return finish(hub, obj, v.Revision), nil
}

// JSON returns the item's JSON object. For Go types it is without apiVersion and
// kind, as list items are; see WithType.
func (i *Item) JSON() ([]byte, error) {
	if i.Version == nil || i.Object != nil {
		return i.appendTransient(nil)
	}
	if i.Version.Err != nil {
		return nil, i.Version.Err
	}
	return forms.jsonOf(i)
}

// asStored reports whether a custom resource is stored in the version in which it is shown.
func (i *Item) asStored() bool {
	return i.tree() && i.Definition.Convert == nil && bytes.HasPrefix(i.Version.Blob, []byte(`{"apiVersion":"`+i.Definition.APIVersion()+`",`))
}

// appendTransient appends the JSON of an object in hand. What was written is shown as it reads back, so
// that the answer to a write is that to the next read.
func (i *Item) appendTransient(b []byte) ([]byte, error) {
	hub := i.Object
	if i.Version != nil {
		if i.asStored() { // and pruned and defaulted when it was written
			return append(b, i.Version.Blob...), nil
		}
		if i.Version.Defaulted.Load() {
			return i.appendJSON(b)
		}
		var err error
		if hub, err = DecodeVersion(i.Definition.Hub(), i.Version); err != nil {
			return b, err
		}
	}
	obj, err := FromHub(i.Definition, hub)
	if err != nil {
		return b, err
	}
	text, err := marshalItem(obj)
	return append(b, text...), err
}

// kept returns the item's JSON if that is kept, else nil.
func (i *Item) kept() []byte {
	if i.Version == nil || i.Object != nil {
		return nil
	}
	return forms.load(i).json
}

// appendListed appends the item's JSON as a list item; it is kept while there is room.
func (i *Item) appendListed(b []byte) ([]byte, error) {
	if i.Version == nil || i.Object != nil {
		return i.appendTransient(b)
	}
	if f := forms.load(i); f.json != nil {
		return append(b, f.json...), nil
	}
	start := len(b)
	b, metaEnd, err := i.appendStored(b)
	if made := b[start:]; err == nil && forms.admits(len(made)) {
		forms.keepJSON(i, bytes.Clone(made), metaEnd)
	}
	return b, err
}

// appendJSON appends the JSON of a stored version; what is not kept already is not kept for it.
func (i *Item) appendJSON(b []byte) ([]byte, error) {
	if f := forms.load(i); f.json != nil {
		return append(b, f.json...), nil
	}
	b, _, err := i.appendStored(b)
	return b, err
}

// storedJSON makes the JSON of a stored version, and tells where the metadata in it ends, if it knows.
func (i *Item) storedJSON() (text []byte, metaEnd int, err error) {
	out := borrow()
	defer out.release()
	if out.b, metaEnd, err = i.appendStored(out.b); err != nil {
		return nil, 0, err
	}
	return bytes.Clone(out.b), metaEnd, nil
}

// appendStored is storedJSON behind what is in b. It does without making the object if that can be avoided.
func (i *Item) appendStored(b []byte) (_ []byte, metaEnd int, err error) {
	if i.Version.Err != nil {
		return b, 0, i.Version.Err
	}
	s := shapeFor(i.Definition)
	if s != nil && i.Version.Defaulted.Load() {
		if longer, metaEnd, err := appendTranscoded(b, s, i.Version.Blob); err == nil {
			if !bytes.HasPrefix(longer[len(b):], []byte(metadataMember)) {
				metaEnd = 0
			}
			return longer, metaEnd, nil
		}
	}
	only := Item{Definition: i.Definition, Version: i.Version}
	obj, err := only.Decoded()
	if err != nil {
		return b, 0, err
	}
	if s != nil && hasDefaults(obj, i.Version) {
		i.Version.Defaulted.Store(true)
	}
	text, err := marshalItem(obj)
	return append(b, text...), 0, err
}

// appendMetadata appends the item's metadata as JSON.
func (i *Item) appendMetadata(b []byte) ([]byte, error) {
	if i.Version == nil || i.Object != nil {
		p, err := i.Metadata("v1")
		if err != nil {
			return b, err
		}
		meta, err := json.Marshal(&p.ObjectMeta)
		return append(b, meta...), err
	}
	if f := forms.load(i); f.metaEnd > 0 {
		return append(b, f.json[len(metadataMember):f.metaEnd]...), nil
	}
	if raw, ok := i.rawMetadata(); ok {
		if longer, _, err := appendTranscoded(b, metaShape(), raw); err == nil {
			return longer, nil
		}
	}
	meta, err := forms.metadataOf(i)
	return append(b, meta...), err
}

// metadataMember begins every object of a Go type, as a list item.
const metadataMember = `{"metadata":`

// marshalItem encodes an object as a list item: Go types lose their type.
func marshalItem(obj object.Object) ([]byte, error) {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		return json.Marshal(u.Object)
	}
	gvk := obj.GetObjectKind().GroupVersionKind()
	SetKind(obj, schema.GroupVersionKind{})
	b, err := json.Marshal(obj)
	SetKind(obj, gvk)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", gvk.Kind, obj.GetName(), err)
	}
	return b, nil
}

// typeHead is the beginning of a typed object's JSON: its kind and apiVersion.
func typeHead(apiVersion, kindName string) string {
	return `{"kind":"` + kindName + `","apiVersion":"` + apiVersion + `",`
}

// AppendWithType appends the item's JSON as an object of its own, that is with
// apiVersion and kind.
func (i *Item) AppendWithType(b []byte) ([]byte, error) {
	add := i.appendTransient // which is not kept, and so need not be in memory of its own
	if i.Version != nil && i.Object == nil {
		add = func(b []byte) ([]byte, error) {
			body, err := i.JSON()
			return append(b, body...), err
		}
	}
	if i.tree() {
		return add(b)
	}
	b = appendType(b, i.Definition.APIVersion(), i.Definition.Kind)
	at := len(b)
	b, err := add(b)
	if err != nil {
		return nil, err
	}
	return joinType(b, at), nil
}

// appendType appends the type of an object; what is appended then is joined to it by joinType.
func appendType(b []byte, apiVersion, kindName string) []byte {
	b = append(append(append(b, `{"kind":"`...), kindName...), `","apiVersion":"`...)
	return append(append(b, apiVersion...), '"')
}

// joinType makes one object of a type and the members that begin at a place.
func joinType(b []byte, at int) []byte {
	if len(b)-at == len("{}") {
		return append(b[:at], '}')
	}
	b[at] = ','
	return b
}

// EncodeDecoded returns the JSON, with its type, of an object that is in the version of the
// item's definition already.
func (i *Item) EncodeDecoded(obj object.Object) ([]byte, error) {
	body, err := marshalItem(obj)
	if err != nil || i.tree() {
		return body, err
	}
	b := appendType(make([]byte, 0, len(`{"kind":"","apiVersion":"",`)+len(i.Definition.Kind)+len(i.Definition.APIVersion())+len(body)), i.Definition.APIVersion(), i.Definition.Kind)
	return joinType(append(b, body...), len(b)), nil
}

// Message returns the item's protobuf message, without envelope.
func (i *Item) Message() ([]byte, error) {
	if i.Version != nil && (i.Definition.Convert == nil || i.Definition.Convert.SameMessage) {
		return i.Version.Blob, i.Version.Err
	}
	obj, err := i.Decoded()
	if err != nil {
		return nil, err
	}
	m, ok := obj.(message)
	if !ok {
		return nil, fmt.Errorf("encode %s: %T has no protobuf form", i.Definition.Kind, obj)
	}
	return m.Marshal()
}

// rawMetadata returns the ObjectMeta message of a stored version of a Go type.
func (i *Item) rawMetadata() ([]byte, bool) {
	if i.Version == nil || i.Version.Err != nil || i.tree() || i.Object != nil {
		return nil, false
	}
	return lookup(i.Version.Blob, metadataField)
}

// Metadata returns the item as PartialObjectMetadata. Of a stored version only the
// metadata is decoded.
func (i *Item) Metadata(viewVersion string) (*metav1.PartialObjectMetadata, error) {
	p := &metav1.PartialObjectMetadata{}
	if raw, ok := i.rawMetadata(); ok {
		if err := p.ObjectMeta.Unmarshal(raw); err != nil {
			return nil, fmt.Errorf("decode metadata of %s: %w", i.Definition.Kind, err)
		}
	} else {
		obj, err := i.Decoded()
		if err != nil {
			return nil, err
		}
		p = partial(obj)
	}
	p.SetGroupVersionKind(schema.GroupVersionKind{Group: metav1.GroupName, Version: viewVersion, Kind: "PartialObjectMetadata"})
	return p, nil
}
