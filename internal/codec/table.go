package codec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A Table (KEP-1904, server-side printing) is written piece by piece: the cells of stored versions and
// their metadata are kept, so that a list that is shown again and again costs little more than its bytes.

// tableOf is the Table of a single item. In a stream only the first carries the column definitions.
func (e *Encoder) tableOf(i *Item) ([]byte, error) {
	head, tail, err := e.listEnds(metav1.ListMeta{ResourceVersion: resourceVersion(i)})
	if err != nil {
		return nil, err
	}
	items := []Item{*i}
	b, err := e.rowAppender(items, e.rows(items))([]byte(head), 0)
	return append(b, tail...), err
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

// rowAppender returns how an item is appended as its row.
func (e *Encoder) rowAppender(items []Item, rowOf func(n int) (*row, error)) func(b []byte, n int) ([]byte, error) {
	now := e.now()
	return func(b []byte, n int) ([]byte, error) {
		r, err := rowOf(n)
		if err != nil {
			return b, err
		}
		return e.appendRow(b, &items[n], r, now)
	}
}

func (e *Encoder) now() time.Time {
	if e.Now != nil {
		return e.Now()
	}
	return time.Now()
}

// tableHead is what stands before the rows.
func (e *Encoder) tableHead(metadata []byte) (string, error) {
	definitions := []byte("null")
	if !e.columnsSent {
		var err error
		if definitions, err = json.Marshal(e.Definition.Columns.All().Definitions()); err != nil {
			return "", err
		}
	}
	return typeHead(e.viewAPIVersion(), "Table") + `"metadata":` + string(metadata) + `,"columnDefinitions":` + string(definitions) + `,"rows":[`, nil
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

// columnTrees holds, by the Go type of a kind, the fields that its columns look at.
var columnTrees sync.Map // reflect.Type → *columnTree

type columnTree struct {
	paths  []string
	fields *fieldTree
}

// columnPart returns the part of a hub definition's objects that its columns look at; false if they may look at anything.
func columnPart(hub *kind.Definition) (part Part, ok bool) {
	if hub.GoType() == nil || hub.ColumnFields == nil && len(hub.Columns) > 0 {
		return part, false
	}
	if t, ok := columnTrees.Load(hub.GoType()); ok && slices.Equal(t.(*columnTree).paths, hub.ColumnFields) {
		return Part{hub, t.(*columnTree).fields}, true
	}
	p, err := Only(hub, append([]string{"metadata.name", "metadata.creationTimestamp"}, hub.ColumnFields...)...)
	if err != nil {
		panic(fmt.Sprintf("columns of %s: %v", hub.Kind, err)) // a mistake in a Definition
	}
	columnTrees.Store(hub.GoType(), &columnTree{hub.ColumnFields, p.fields})
	return *p, true
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
