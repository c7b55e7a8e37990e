package codec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/timonel/timonel/internal/kind"
	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// Encoder writes the answers of one request: objects, lists or events, all in one
// format.
type Encoder struct {
	Definition *kind.Definition
	Format     Format
	Now        func() time.Time // for ages in tables; default time.Now

	columnsSent bool   // the first table of a stream carried them
	partialHead string // the beginning of a PartialObjectMetadata; "": not made yet
}

// Object encodes a single item.
func (e *Encoder) Object(i Item) ([]byte, error) { return e.AppendObject(nil, i) }

// AppendObject is Object, in b if there is room: what is in b goes.
func (e *Encoder) AppendObject(b []byte, i Item) ([]byte, error) {
	switch e.Format.View {
	case AsTable:
		table, err := e.tableOf(&i)
		if err != nil {
			return nil, err
		}
		return textForm(table, e.Format)
	case AsMetadata:
		p, err := i.Metadata(e.Format.ViewVersion)
		if err != nil {
			return nil, err
		}
		return Encode(p, p.GroupVersionKind(), e.Format)
	}
	if e.Format.Media == ProtobufMedia {
		raw, err := i.Message()
		if err != nil {
			return nil, err
		}
		return appendEnvelope(b[:0], e.Definition.APIVersion(), e.Definition.Kind, raw), nil
	}
	b, err := i.AppendWithType(b[:0])
	if err != nil {
		return nil, err
	}
	return textForm(b, e.Format)
}

// Encode encodes any API value that is not stored: a Status, a review, a Scale.
func Encode(v runtime.Object, gvk schema.GroupVersionKind, f Format) ([]byte, error) {
	if f.Media == ProtobufMedia {
		m, ok := v.(message)
		if !ok {
			return nil, fmt.Errorf("encode %s: %T has no protobuf form", gvk.Kind, v)
		}
		raw, err := m.Marshal()
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", gvk.Kind, err)
		}
		return Envelope(gvk.GroupVersion().String(), gvk.Kind, raw), nil
	}
	SetKind(v, gvk)
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", gvk.Kind, err)
	}
	return textForm(b, f)
}

// textForm turns compact JSON into what was asked for, with a newline at the end.
func textForm(b []byte, f Format) ([]byte, error) {
	switch {
	case f.Media == YAMLMedia:
		return yaml.JSONToYAML(b)
	case f.Media == CBORMedia:
		return cborForm(b)
	case f.Pretty:
		var out bytes.Buffer
		if err := json.Indent(&out, b, "", "  "); err != nil {
			return nil, err
		}
		return out.Bytes(), nil
	}
	return append(b, '\n'), nil
}

func resourceVersion(i *Item) string {
	if i.Version != nil {
		return FormatRevision(i.Version.Revision)
	}
	return i.Object.GetResourceVersion()
}

// WriteList writes a list of items to w, one by one from their kept forms: unless
// it is to be indented or YAML, the answer is never held in memory at once.
//
// The forms of text are written as they stand below, protobuf by writeMessages and CBOR from a collection.
func (e *Encoder) WriteList(w io.Writer, items []Item, meta metav1.ListMeta) error {
	switch {
	case e.Format.Media == ProtobufMedia && e.Format.View == AsMetadata:
		return e.writeMessages(w, e.viewAPIVersion(), "PartialObjectMetadataList", items, meta, metadataMessage)
	case e.Format.Media == ProtobufMedia:
		return e.writeMessages(w, e.Definition.APIVersion(), e.Definition.ListKind, items, meta, wholeMessage)
	case e.Format.Media == CBORMedia:
		return e.collection(items, meta).writeCBOR(w)
	}
	head, tail, err := e.listEnds(meta)
	if err != nil {
		return err
	}
	appendItem := e.itemAppender(items)
	if e.Format.Media == JSONMedia && !e.Format.Pretty {
		return writeElements(w, head, len(items), appendItem, tail+"\n")
	}
	var b bytes.Buffer
	if err := writeElements(&b, head, len(items), appendItem, tail); err != nil {
		return err
	}
	text, err := textForm(b.Bytes(), e.Format)
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}

// listChunk is about how much of a list is written at a time.
const listChunk = 64 << 10

// writeElements writes a head, n elements with commas between them, and a tail.
func writeElements(w io.Writer, head string, n int, appendElement func(b []byte, n int) ([]byte, error), tail string) (err error) {
	out := borrow()
	defer out.release()
	out.b = append(out.b, head...)
	for i := range n {
		if i > 0 {
			out.b = append(out.b, ',')
		}
		if out.b, err = appendElement(out.b, i); err != nil {
			return err
		}
		if len(out.b) >= listChunk {
			if _, err := w.Write(out.b); err != nil {
				return err
			}
			out.b = out.b[:0]
		}
	}
	_, err = w.Write(append(out.b, tail...))
	return err
}

// itemAppender returns how an item of a list is appended in the view that is asked for.
func (e *Encoder) itemAppender(items []Item) func(b []byte, n int) ([]byte, error) {
	switch e.Format.View {
	case AsTable:
		return e.rowAppender(items, e.listRows(items))
	case AsMetadata:
		return func(b []byte, n int) ([]byte, error) { return e.appendMetadata(b, &items[n]) }
	}
	return listedAppender(items)
}

// listedAppender returns how an item is appended as it is, to be called for one after the other. It finds what is kept of some items at
// once: the way there is a chain of pointers through memory that is in no cache, and a processor follows several chains at a time, unless
// a large copy is between them.
func listedAppender(items []Item) func(b []byte, n int) ([]byte, error) {
	var kept [16][]byte
	return func(b []byte, n int) ([]byte, error) {
		next := n % len(kept)
		if next == 0 {
			for i := range min(len(kept), len(items)-n) {
				kept[i] = items[n+i].kept()
			}
		}
		if text := kept[next]; text != nil {
			return append(b, text...), nil
		}
		return items[n].appendListed(b)
	}
}

// listEnds is what stands before and behind the items of a list in JSON.
func (e *Encoder) listEnds(meta metav1.ListMeta) (head, tail string, err error) {
	metadata, err := json.Marshal(meta)
	if err != nil {
		return "", "", err
	}
	switch {
	case e.Format.View == AsTable:
		head, err = e.tableHead(metadata)
		return head, "]}", err
	case e.Format.View == AsMetadata:
		return typeHead(e.viewAPIVersion(), "PartialObjectMetadataList") + `"metadata":` + string(metadata) + `,"items":[`, "]}", nil
	case !IsTree(e.Definition):
		return typeHead(e.Definition.APIVersion(), e.Definition.ListKind) + `"metadata":` + string(metadata) + `,"items":[`, "]}", nil
	}
	if meta.Continue == "" { // Parity: it is there in lists of custom resources; see the corpus, crd/crud
		metadata = append([]byte(`{"continue":"",`), metadata[1:]...)
	}
	// Trees are written in the order of their keys.
	return `{"apiVersion":"` + e.Definition.APIVersion() + `","items":[`, `],"kind":"` + e.Definition.ListKind + `","metadata":` + string(metadata) + "}", nil
}

// collection is a list of items in the view that is asked for.
func (e *Encoder) collection(items []Item, meta metav1.ListMeta) *collection {
	c := &collection{
		fields: map[string]any{"kind": e.Definition.ListKind, "metadata": meta, "apiVersion": e.Definition.APIVersion()},
		order:  []string{"kind", "items", "metadata", "apiVersion"}, items: "items", n: len(items),
		append: e.itemAppender(items),
	}
	switch e.Format.View {
	case AsMetadata:
		c.fields["kind"], c.fields["apiVersion"] = "PartialObjectMetadataList", e.viewAPIVersion()
	case AsTable:
		c.fields["kind"], c.fields["apiVersion"] = "Table", e.viewAPIVersion()
		c.fields["columnDefinitions"] = e.Definition.Columns.All().Definitions()
		c.order, c.items = []string{"kind", "rows", "metadata", "apiVersion", "columnDefinitions"}, "rows"
	}
	return c
}

// writeMessages writes a protobuf list: every list kind of the API has its
// metadata in field 1 and its items in field 2.
func (e *Encoder) writeMessages(w io.Writer, apiVersion, kindName string, items []Item, meta metav1.ListMeta, messageOf func(*Item) (wrapped, error)) error {
	rawMeta, err := meta.Marshal()
	if err != nil {
		return err
	}
	head := protowire.AppendTag(nil, 1, protowire.BytesType)
	head = protowire.AppendBytes(head, rawMeta)
	messages := make([]wrapped, len(items))
	size := len(head)
	for n := range items {
		if messages[n], err = messageOf(&items[n]); err != nil {
			return err
		}
		size += protowire.SizeTag(2) + protowire.SizeBytes(messages[n].size())
	}
	if _, err := w.Write(envelopeHead(apiVersion, kindName, size)); err != nil {
		return err
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	var tags [24]byte
	for _, m := range messages {
		b := protowire.AppendTag(tags[:0], 2, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(m.size()))
		if _, err := w.Write(m.appendHead(b)); err != nil {
			return err
		}
		if _, err := w.Write(m.raw); err != nil {
			return err
		}
	}
	_, err = w.Write(envelopeTail)
	return err
}

// wrapped is a message, or, with metadata, what a message has in its only field, the metadata.
type wrapped struct {
	raw      []byte
	metadata bool
}

func (m wrapped) size() int {
	if m.metadata {
		return protowire.SizeTag(metadataField) + protowire.SizeBytes(len(m.raw))
	}
	return len(m.raw)
}

// appendHead appends what comes before raw.
func (m wrapped) appendHead(b []byte) []byte {
	if !m.metadata {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, metadataField, protowire.BytesType), uint64(len(m.raw)))
}

func wholeMessage(i *Item) (wrapped, error) {
	raw, err := i.Message()
	return wrapped{raw: raw}, err
}

// metadataMessage is an item as a PartialObjectMetadata message.
func metadataMessage(i *Item) (wrapped, error) {
	if raw, ok := i.rawMetadata(); ok {
		return wrapped{raw, true}, nil
	}
	p, err := i.Metadata("v1")
	if err != nil {
		return wrapped{}, err
	}
	raw, err := p.Marshal()
	return wrapped{raw: raw}, err
}

// Event encodes one watch event with its framing: a line of JSON, a length
// and a protobuf message, or an item of a CBOR sequence (Kubernetes API concepts, "Efficient detection of changes").
func (e *Encoder) Event(eventType string, i Item) ([]byte, error) {
	return e.AppendEvent(make([]byte, 0, 512), eventType, i)
}

// AppendEvent is Event behind what is in b already.
func (e *Encoder) AppendEvent(b []byte, eventType string, i Item) ([]byte, error) {
	if e.Format.View == Whole && e.Format.Media == JSONMedia {
		whole, err := i.AppendWithType(appendEventHead(b, eventType))
		if err != nil {
			return b, err
		}
		return append(whole, "}\n"...), nil
	}
	if e.Format.View == Whole && e.Format.Media == ProtobufMedia {
		raw, err := i.Message()
		if err != nil {
			return b, err
		}
		apiVersion, kindName := e.Definition.APIVersion(), e.Definition.Kind
		b = appendFrameHead(b, eventType, envelopeSize(apiVersion, kindName, len(raw)))
		return appendEnvelope(b, apiVersion, kindName, raw), nil
	}
	f := e.Format
	f.Pretty = false
	one := Encoder{Definition: e.Definition, Format: f, Now: e.Now, columnsSent: e.columnsSent}
	encoded, err := one.Object(i)
	e.columnsSent = true
	if err != nil {
		return b, err
	}
	return e.appendFrame(b, eventType, encoded), nil
}

// Bookmark encodes a BOOKMARK event: an empty object that has only a
// resourceVersion, and, after the initial events, their annotation.
func (e *Encoder) Bookmark(revision string, initialEventsEnd bool) ([]byte, error) {
	meta := metav1.ObjectMeta{ResourceVersion: revision}
	if initialEventsEnd {
		meta.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	}
	var b []byte
	var err error
	switch {
	case e.Format.View == AsTable:
		b, err = e.bookmarkTable(meta, initialEventsEnd)
	case e.Format.View == AsMetadata:
		p := &metav1.PartialObjectMetadata{ObjectMeta: meta}
		b, err = Encode(p, schema.GroupVersionKind{Group: metav1.GroupName, Version: e.Format.ViewVersion, Kind: "PartialObjectMetadata"}, e.Format)
	default:
		obj := e.Definition.New()
		obj.SetResourceVersion(meta.ResourceVersion)
		obj.SetAnnotations(meta.Annotations)
		b, err = Encode(obj, e.Definition.GroupVersionKind(), Format{Media: e.Format.Media})
	}
	if err != nil {
		return nil, err
	}
	return e.frame("BOOKMARK", b), nil
}

// Status encodes an ERROR event.
func (e *Encoder) Status(status *metav1.Status) ([]byte, error) {
	b, err := Encode(status, schema.GroupVersionKind{Version: "v1", Kind: "Status"}, Format{Media: e.Format.Media})
	if err != nil {
		return nil, err
	}
	return e.frame("ERROR", b), nil
}

// bookmarkTable is a bookmark for a client that watches tables. The one at the end of the
// initial events always carries the metadata with the annotation.
func (e *Encoder) bookmarkTable(meta metav1.ObjectMeta, initialEventsEnd bool) ([]byte, error) {
	obj := e.Definition.Hub().New()
	obj.SetResourceVersion(meta.ResourceVersion)
	obj.SetAnnotations(meta.Annotations)
	one := *e
	if initialEventsEnd {
		one.Format.IncludeObject = "Metadata"
	}
	e.columnsSent = true
	return one.Object(Item{Definition: e.Definition, Object: obj})
}

func appendEventHead(b []byte, eventType string) []byte {
	return append(append(append(b, `{"type":"`...), eventType...), `","object":`...)
}

// frame puts an encoded object into an event.
func (e *Encoder) frame(eventType string, encoded []byte) []byte {
	return e.appendFrame(make([]byte, 0, len(encoded)+64), eventType, encoded)
}

func (e *Encoder) appendFrame(b []byte, eventType string, encoded []byte) []byte {
	if e.Format.Media == CBORMedia {
		return appendCBOREvent(b, eventType, encoded)
	}
	if e.Format.Media != ProtobufMedia {
		b = append(appendEventHead(b, eventType), bytes.TrimRight(encoded, "\n")...)
		return append(b, "}\n"...)
	}
	return append(appendFrameHead(b, eventType, len(encoded)), encoded...)
}

// appendFrameHead appends a protobuf event up to its object, of which the size is known: a length of four bytes and a
// WatchEvent, type = 1, object = 2 (RawExtension: raw = 1).
func appendFrameHead(b []byte, eventType string, object int) []byte {
	extension := 1 + protowire.SizeBytes(object)
	size := 1 + protowire.SizeBytes(len(eventType)) + 1 + protowire.SizeBytes(extension)
	b = append(b, byte(size>>24), byte(size>>16), byte(size>>8), byte(size))
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	b = protowire.AppendString(b, eventType)
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(extension))
	b = protowire.AppendTag(b, 1, protowire.BytesType)
	return protowire.AppendVarint(b, uint64(object))
}

// ParseRevision reads a resourceVersion; "" is 0.
func ParseRevision(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 63)
	return int64(n), err
}
