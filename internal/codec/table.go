package codec

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strconv"
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
	return e.writeRows(w, items, meta, e.rows(items))
}

// writeListTable is writeTable for a list.
func (e *Encoder) writeListTable(w io.Writer, items []Item, meta metav1.ListMeta) error {
	return e.writeRows(w, items, meta, e.listRows(items))
}

// rows makes the row of each item.
func (e *Encoder) rows(items []Item) func(n int) (*row, error) {
	columns := e.Definition.Columns.All()
	return func(n int) (*row, error) { return e.rowOf(&items[n], columns) }
}

// listRows is rows for a list, in which the name of one item may be marked.
func (e *Encoder) listRows(items []Item) func(n int) (*row, error) {
	rows := e.rows(items)
	if e.Definition.Marked == nil {
		return rows
	}
	all := make([]object.Object, len(items))
	for i := range items {
		var err error
		if all[i], err = items[i].hub(); err != nil {
			return rows // the item's own row will say what is wrong
		}
	}
	marked, mark := e.Definition.Marked(all)
	named := slices.Clone(e.Definition.Columns.All())
	named[0].Of = func(obj object.Object) any { return obj.GetName() + mark }
	return func(n int) (*row, error) {
		if all[n] == marked {
			return makeRow(e.Definition, named, marked)
		}
		return rows(n)
	}
}

func (e *Encoder) writeRows(w io.Writer, items []Item, meta metav1.ListMeta, rowOf func(n int) (*row, error)) error {
	b, err := e.tableHead(e.Definition.Columns.All(), meta)
	if err != nil {
		return err
	}
	now := e.now()
	for n := range items {
		if n > 0 {
			b = append(b, ',')
		}
		r, err := rowOf(n)
		if err != nil {
			return err
		}
		if b, err = e.appendRow(b, &items[n], r, now); err != nil {
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

func (e *Encoder) now() time.Time {
	if e.Now != nil {
		return e.Now()
	}
	return time.Now()
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

// makeRow makes the row of an object, which is the hub's.
func makeRow(d *kind.Definition, columns kind.Columns, obj object.Object) (*row, error) {
	r := &row{}
	b := append(make([]byte, 0, 256), `{"cells":[`...)
	var err error
	for n := range columns {
		if n > 0 {
			b = append(b, ',')
		}
		cell := columns[n].Of(obj)
		if dated, ok := cell.(kind.Dated); ok {
			r.gaps = append(r.gaps, gap{len(b), dated})
		} else if b, err = appendCell(b, cell); err != nil {
			return nil, err
		}
	}
	b = append(b, ']')
	if d.Conditions != nil {
		if conditions := d.Conditions(obj); len(conditions) > 0 {
			text, err := json.Marshal(conditions)
			if err != nil {
				return nil, err
			}
			b = append(append(b, `,"conditions":`...), text...)
		}
	}
	r.text = bytes.Clone(b)
	return r, nil
}

func appendCell(b []byte, cell any) ([]byte, error) {
	switch v := cell.(type) {
	case string:
		return appendText(b, []byte(v)), nil
	case int64:
		return strconv.AppendInt(b, v, 10), nil
	}
	text, err := json.Marshal(cell)
	return append(b, text...), err
}

// append appends the row as it is seen at a time.
func (r *row) append(b []byte, now time.Time) (_ []byte, err error) {
	at := 0
	for _, g := range r.gaps {
		if b, err = appendCell(append(b, r.text[at:g.at]...), g.cell.At(now)); err != nil {
			return b, err
		}
		at = g.at
	}
	return append(b, r.text[at:]...), nil
}

func (e *Encoder) rowOf(i *Item, columns kind.Columns) (*row, error) {
	if i.Version != nil && i.Object == nil {
		return forms.rowOf(i, columns)
	}
	obj, err := i.hub()
	if err != nil {
		return nil, err
	}
	return makeRow(e.Definition, columns, obj)
}

func (e *Encoder) appendRow(b []byte, i *Item, r *row, now time.Time) ([]byte, error) {
	b, err := r.append(b, now)
	if err != nil {
		return nil, err
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
	if e.partialHead == "" {
		e.partialHead = typeHead(e.viewAPIVersion(), "PartialObjectMetadata") + `"metadata":`
	}
	b, err := i.appendMetadata(append(b, e.partialHead...))
	return append(b, '}'), err
}
