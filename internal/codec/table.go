package codec

import (
	"encoding/json"
	"io"
	"time"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A Table (KEP-1904, server-side printing) is written piece by piece: the cells of stored versions and
// their metadata are kept, so that a list that is shown again and again costs little more than its bytes.

// writeTable writes items as a Table. In a stream only the first carries the
// column definitions.
func (e *Encoder) writeTable(w io.Writer, items []Item, meta metav1.ListMeta) error {
	columns := e.Definition.Columns.All()
	b, err := e.tableHead(columns, meta)
	if err != nil {
		return err
	}
	now := time.Now()
	if e.Now != nil {
		now = e.Now()
	}
	for n := range items {
		if n > 0 {
			b = append(b, ',')
		}
		if b, err = e.appendRow(b, columns, &items[n], now); err != nil {
			return err
		}
		if len(b) > tableChunk {
			if _, err := w.Write(b); err != nil {
				return err
			}
			b = b[:0]
		}
	}
	_, err = w.Write(append(b, "]}"...))
	return err
}

// tableChunk is about how much of a table is written at a time.
const tableChunk = 16 << 10

func (e *Encoder) tableHead(columns kind.Columns, meta metav1.ListMeta) ([]byte, error) {
	definitions := []byte("null")
	if !e.columnsSent {
		var err error
		if definitions, err = json.Marshal(columns.Definitions()); err != nil {
			return nil, err
		}
	}
	listMeta, err := json.Marshal(meta)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, tableChunk+4096)
	b = append(b, typeHead(e.viewAPIVersion(), "Table")...)
	b = append(append(b, `"metadata":`...), listMeta...)
	b = append(append(b, `,"columnDefinitions":`...), definitions...)
	return append(b, `,"rows":[`...), nil
}

func (e *Encoder) viewAPIVersion() string { return metav1.GroupName + "/" + e.Format.ViewVersion }

// makeRow makes the cells of an object, which is the hub's.
func makeRow(d *kind.Definition, columns kind.Columns, obj object.Object) *row {
	r := &row{cells: make([]any, len(columns))}
	for c := range columns {
		r.cells[c] = columns[c].Of(obj)
	}
	if d.Conditions != nil {
		r.conditions = d.Conditions(obj)
	}
	return r
}

func (e *Encoder) rowOf(i *Item, columns kind.Columns) (*row, error) {
	if i.Version != nil && i.Object == nil {
		return forms.rowOf(i, columns)
	}
	obj, err := i.hub()
	if err != nil {
		return nil, err
	}
	return makeRow(e.Definition, columns, obj), nil
}

func (e *Encoder) appendRow(b []byte, columns kind.Columns, i *Item, now time.Time) ([]byte, error) {
	r, err := e.rowOf(i, columns)
	if err != nil {
		return nil, err
	}
	b = append(b, `{"cells":[`...)
	for n, cell := range r.cells {
		if n > 0 {
			b = append(b, ',')
		}
		if dated, ok := cell.(kind.Dated); ok {
			cell = dated.At(now)
		}
		text, err := json.Marshal(cell)
		if err != nil {
			return nil, err
		}
		b = append(b, text...)
	}
	b = append(b, ']')
	if len(r.conditions) > 0 {
		text, err := json.Marshal(r.conditions)
		if err != nil {
			return nil, err
		}
		b = append(append(b, `,"conditions":`...), text...)
	}
	b = append(b, `,"object":`...)
	switch e.Format.IncludeObject {
	case "None":
		b = append(b, "null"...)
	case "Object":
		b, err = i.AppendWithType(b)
	default:
		b, err = e.appendMetadata(b, i)
	}
	return append(b, '}'), err
}

// appendMetadata appends an item as PartialObjectMetadata.
func (e *Encoder) appendMetadata(b []byte, i *Item) ([]byte, error) {
	var meta []byte
	var err error
	if i.Version != nil && i.Object == nil {
		meta, err = forms.metadataOf(i)
	} else {
		var p *metav1.PartialObjectMetadata
		if p, err = i.Metadata(e.Format.ViewVersion); err == nil {
			meta, err = json.Marshal(&p.ObjectMeta)
		}
	}
	if err != nil {
		return nil, err
	}
	b = append(b, typeHead(e.viewAPIVersion(), "PartialObjectMetadata")...)
	b = append(append(b, `"metadata":`...), meta...)
	return append(b, '}'), nil
}
