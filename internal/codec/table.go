package codec

import (
	"encoding/json"
	"time"

	"github.com/timonel/timonel/internal/kind"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// table shows items as rows (KEP-1904, server-side printing). In a stream only
// the first table carries the column definitions.
func (e *Encoder) table(items []Item, meta metav1.ListMeta) (*metav1.Table, error) {
	columns := e.Definition.Columns.All()
	t := &metav1.Table{ListMeta: meta, Rows: make([]metav1.TableRow, len(items))}
	t.SetGroupVersionKind(schema.GroupVersionKind{Group: metav1.GroupName, Version: e.Format.ViewVersion, Kind: "Table"})
	if !e.columnsSent {
		t.ColumnDefinitions = columns.Definitions()
	}
	now := time.Now()
	if e.Now != nil {
		now = e.Now()
	}
	for n := range items {
		row, err := e.row(columns, &items[n], now)
		if err != nil {
			return nil, err
		}
		t.Rows[n] = row
	}
	return t, nil
}

func (e *Encoder) row(columns kind.Columns, i *Item, now time.Time) (row metav1.TableRow, err error) {
	obj, err := i.Decoded()
	if err != nil {
		return row, err
	}
	row.Cells = make([]any, len(columns))
	for c := range columns {
		cell := columns[c].Of(obj)
		if dated, ok := cell.(kind.Dated); ok {
			cell = dated.At(now)
		}
		row.Cells[c] = cell
	}
	if e.Definition.Conditions != nil {
		row.Conditions = e.Definition.Conditions(obj)
	}
	switch e.Format.IncludeObject {
	case "None":
		row.Object = runtime.RawExtension{Raw: []byte("null")}
	case "Object":
		row.Object.Raw, err = i.AppendWithType(nil)
	default:
		p := partial(obj)
		p.SetGroupVersionKind(schema.GroupVersionKind{Group: metav1.GroupName, Version: e.Format.ViewVersion, Kind: "PartialObjectMetadata"})
		row.Object.Raw, err = json.Marshal(p)
	}
	return row, err
}

// bookmarkTable is a bookmark for a client that watches tables. The one at the end of the
// initial events always carries the metadata with the annotation.
func (e *Encoder) bookmarkTable(meta metav1.ObjectMeta, initialEventsEnd bool) ([]byte, error) {
	t := &metav1.Table{ListMeta: metav1.ListMeta{ResourceVersion: meta.ResourceVersion}}
	t.SetGroupVersionKind(schema.GroupVersionKind{Group: metav1.GroupName, Version: e.Format.ViewVersion, Kind: "Table"})
	columns := e.Definition.Columns.All()
	if !e.columnsSent {
		t.ColumnDefinitions = columns.Definitions()
		e.columnsSent = true
	}
	obj := e.Definition.New()
	obj.SetResourceVersion(meta.ResourceVersion)
	obj.SetAnnotations(meta.Annotations)
	one := *e
	if initialEventsEnd {
		one.Format.IncludeObject = "Metadata"
	}
	row, err := one.row(columns, &Item{Definition: e.Definition.Hub(), Object: obj}, time.Now())
	if err != nil {
		return nil, err
	}
	t.Rows = []metav1.TableRow{row}
	return json.Marshal(t)
}
