package kind

import (
	"time"

	"github.com/timonel/timonel/internal/object"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
)

// Column is a column of a Table (meta.k8s.io/v1) after the name.
type Column struct {
	Name        string // "": the rows have a cell that no column is declared for
	Type        string // default "string"
	Format      string
	Description string
	Wide        bool // shown by `-o wide` only: priority 1
	// Of makes the cell: a string, int64, bool or nil, or a value that implements
	// Dated when it depends on the time of the request.
	Of func(obj object.Object) any
}

// Columns are the columns of a kind, the Name column excepted unless the first one is
// called Name.
type Columns []Column

// Dated is a cell that depends on when it is looked at.
type Dated interface{ At(now time.Time) any }

// Since is a cell that shows how long ago a moment was, as `kubectl get` shows
// ages; the zero time is "<unknown>".
type Since time.Time

func (s Since) At(now time.Time) any {
	if time.Time(s).IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(time.Time(s)))
}

// SinceOf is the cell for an optional time.
func SinceOf(t *metav1.Time) Since {
	if t == nil {
		return Since{}
	}
	return Since(t.Time)
}

// DatedFunc is a cell made from the time of the request.
type DatedFunc func(now time.Time) any

func (f DatedFunc) At(now time.Time) any { return f(now) }

const creationDescription = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"

const nameDescription = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names"

// Name is the first column of nearly every table.
var Name = Column{Name: "Name", Format: "name", Description: nameDescription, Of: func(o object.Object) any { return o.GetName() }}

// Age is the column that shows how old an object is.
var Age = Column{Name: "Age", Description: creationDescription, Of: func(o object.Object) any {
	return Since(o.GetCreationTimestamp().Time)
}}

// CreatedAt is the column of kinds without columns of their own.
var CreatedAt = Column{Name: "Created At", Type: "date", Description: creationDescription, Of: func(o object.Object) any {
	return o.GetCreationTimestamp().UTC().Format(time.RFC3339)
}}

// All returns the columns as they are shown, Name and defaults included.
func (c Columns) All() Columns {
	switch {
	case len(c) == 0:
		return Columns{Name, CreatedAt}
	case c[0].Name == "Name" || c[0].Name == "Last Seen":
		return c
	}
	return append(Columns{Name}, c...)
}

// Definitions are the columns in the form of a Table.
func (c Columns) Definitions() []metav1.TableColumnDefinition {
	defs := make([]metav1.TableColumnDefinition, 0, len(c))
	for _, col := range c {
		if col.Name == "" {
			continue
		}
		if col.Type == "" {
			col.Type = "string"
		}
		def := metav1.TableColumnDefinition{Name: col.Name, Type: col.Type, Format: col.Format, Description: col.Description}
		if col.Wide {
			def.Priority = 1
		}
		defs = append(defs, def)
	}
	return defs
}
