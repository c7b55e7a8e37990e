// Package events holds the kinds of events.k8s.io: Event, which is another view of the core Event.
package events

import (
	"context"
	"fmt"

	"github.com/timonel/timonel/internal/api/core"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Definitions lists the kinds of the group. hub is the definition of the core Event.
func Definitions(hub *kind.Definition) []*kind.Definition {
	return []*kind.Definition{event(hub)}
}

// Event is the core Event with other names for its fields, and stricter rules. Validation gets the hub's type,
// columns that of this version.
func event(hub *kind.Definition) *kind.Definition {
	return &kind.Definition{
		Group: eventsv1.GroupName, Version: "v1", Kind: "Event", Plural: "events", ShortNames: []string{"ev"},
		Scope: kind.Namespaced, Verbs: kind.Standard, CreateOnPut: true, Unowned: true,
		Stored: kind.Stored{Version: "v1"},
		New:    kind.Of[eventsv1.Event](),
		Convert: &kind.Conversion{
			Hub:     hub,
			ToHub:   func(o object.Object) (object.Object, error) { return toCore(o) },
			FromHub: func(o object.Object) (object.Object, error) { return fromCore(o) },
		},
		Validate: func(_ context.Context, o object.Object) field.ErrorList {
			return core.ValidateEvent(o.(*corev1.Event), true)
		},
		ValidateUpdate: func(_ context.Context, o, old object.Object) field.ErrorList {
			return core.ValidateEventUpdate(o.(*corev1.Event), old.(*corev1.Event), true)
		},
		Expire:        hub.Expire,
		Fields:        fields(),
		FieldsUnknown: hub.FieldsUnknown,
		Columns:       core.EventColumns(),
	}
}

// fields are selected on in the hub's form: Path is a path of the core Event.
func fields() []kind.Field {
	var fs []kind.Field
	for _, name := range []string{"kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"} {
		fs = append(fs, kind.Field{Label: "regarding." + name, Path: "involvedObject." + name})
	}
	return append(fs, kind.Field{Label: "reason"}, kind.Field{Label: "reportingController", Path: "reportingComponent"}, kind.Field{Label: "type"})
}

func toCore(o object.Object) (*corev1.Event, error) {
	e, ok := o.(*eventsv1.Event)
	if !ok {
		return nil, fmt.Errorf("convert %T to a core Event: not an events.k8s.io/v1 Event", o)
	}
	c := &corev1.Event{
		ObjectMeta:          e.ObjectMeta,
		InvolvedObject:      e.Regarding,
		Related:             e.Related,
		Reason:              e.Reason,
		Message:             e.Note,
		Type:                e.Type,
		EventTime:           e.EventTime,
		Action:              e.Action,
		ReportingController: e.ReportingController,
		ReportingInstance:   e.ReportingInstance,
		Source:              e.DeprecatedSource,
		FirstTimestamp:      e.DeprecatedFirstTimestamp,
		LastTimestamp:       e.DeprecatedLastTimestamp,
		Count:               e.DeprecatedCount,
	}
	if e.Series != nil {
		c.Series = &corev1.EventSeries{Count: e.Series.Count, LastObservedTime: e.Series.LastObservedTime}
	}
	c.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Event"))
	return c, nil
}

func fromCore(o object.Object) (*eventsv1.Event, error) {
	c, ok := o.(*corev1.Event)
	if !ok {
		return nil, fmt.Errorf("convert %T to an events.k8s.io/v1 Event: not a core Event", o)
	}
	e := &eventsv1.Event{
		ObjectMeta:               c.ObjectMeta,
		Regarding:                c.InvolvedObject,
		Related:                  c.Related,
		Reason:                   c.Reason,
		Note:                     c.Message,
		Type:                     c.Type,
		EventTime:                c.EventTime,
		Action:                   c.Action,
		ReportingController:      c.ReportingController,
		ReportingInstance:        c.ReportingInstance,
		DeprecatedSource:         c.Source,
		DeprecatedFirstTimestamp: c.FirstTimestamp,
		DeprecatedLastTimestamp:  c.LastTimestamp,
		DeprecatedCount:          c.Count,
	}
	if c.Series != nil {
		e.Series = &eventsv1.EventSeries{Count: c.Series.Count, LastObservedTime: c.Series.LastObservedTime}
	}
	e.SetGroupVersionKind(eventsv1.SchemeGroupVersion.WithKind("Event"))
	return e, nil
}
