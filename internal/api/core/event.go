package core

import (
	"strings"
	"time"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Event tells of something that happened to an object. The core version is stored and worked on; events.k8s.io/v1 is
// another view of it.
func event(ttl time.Duration) *kind.Definition {
	return &kind.Definition{
		Version: "v1", Kind: "Event", Plural: "events", ShortNames: []string{"ev"},
		Scope: kind.Namespaced, Verbs: kind.Standard, CreateOnPut: true, Unowned: true,
		New:            kind.Of[corev1.Event](),
		CheckName:      check.SegmentName, // older than rules for names
		Validate:       kind.Validate(func(e *corev1.Event) field.ErrorList { return ValidateEvent(e, false) }),
		ValidateUpdate: kind.ValidateUpdate(func(e, old *corev1.Event) field.ErrorList { return ValidateEventUpdate(e, old, false) }),
		Expire:         func(object.Object) time.Duration { return ttl },
		Fields: []kind.Field{
			{Label: "involvedObject.kind"}, {Label: "involvedObject.namespace"}, {Label: "involvedObject.name"},
			{Label: "involvedObject.uid"}, {Label: "involvedObject.apiVersion"}, {Label: "involvedObject.resourceVersion"},
			{Label: "involvedObject.fieldPath"}, {Label: "reason"}, {Label: "reportingComponent"},
			{Label: "source", Path: "source.component"}, {Label: "type"},
		},
		FieldsUnknown: labelNotSupported,
		Columns:       EventColumns(),
		ColumnFields: []string{
			"involvedObject.kind", "involvedObject.name", "involvedObject.fieldPath",
			"type",
			"reason",
			"message",
			"source",
			"reportingComponent",
			"reportingInstance",
			"count",
			"series",
			"eventTime",
			"firstTimestamp",
			"lastTimestamp",
		},
	}
}

// EventColumns are the columns of core Events; events.k8s.io shows the same.
func EventColumns() kind.Columns {
	doc := corev1.Event{}.SwaggerDoc()
	name := kind.Name
	name.Wide = true
	return kind.Columns{
		{Name: "Last Seen", Description: doc["lastTimestamp"], Of: kind.Cell(func(e *corev1.Event) any { return kind.Since(lastSeen(e)) })},
		{Name: "Type", Description: doc["type"], Of: kind.Cell(func(e *corev1.Event) any { return e.Type })},
		{Name: "Reason", Description: doc["reason"], Of: kind.Cell(func(e *corev1.Event) any { return e.Reason })},
		{Name: "Object", Description: doc["involvedObject"], Of: kind.Cell(eventTarget)},
		{Name: "Subobject", Wide: true, Description: corev1.ObjectReference{}.SwaggerDoc()["fieldPath"], Of: kind.Cell(func(e *corev1.Event) any {
			return e.InvolvedObject.FieldPath
		})},
		{Name: "Source", Wide: true, Description: doc["source"], Of: kind.Cell(eventSource)},
		{Name: "Message", Description: doc["message"], Of: kind.Cell(func(e *corev1.Event) any { return strings.TrimSpace(e.Message) })},
		{Name: "First Seen", Wide: true, Description: doc["firstTimestamp"], Of: kind.Cell(func(e *corev1.Event) any { return kind.Since(firstSeen(e)) })},
		{Name: "Count", Wide: true, Description: doc["count"], Of: kind.Cell(eventCount)},
		name,
	}
}

func firstSeen(e *corev1.Event) time.Time {
	if e.FirstTimestamp.IsZero() {
		return e.EventTime.Time
	}
	return e.FirstTimestamp.Time
}

func lastSeen(e *corev1.Event) time.Time {
	switch {
	case e.Series != nil:
		return e.Series.LastObservedTime.Time
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp.Time
	}
	return firstSeen(e)
}

func eventCount(e *corev1.Event) any {
	switch {
	case e.Series != nil:
		return int64(e.Series.Count)
	case e.Count != 0:
		return int64(e.Count)
	}
	return int64(1)
}

func eventTarget(e *corev1.Event) any {
	target := strings.ToLower(e.InvolvedObject.Kind)
	if e.InvolvedObject.Name != "" {
		target += "/" + e.InvolvedObject.Name
	}
	return target
}

func eventSource(e *corev1.Event) any {
	component, host := e.Source.Component, e.Source.Host
	if component == "" {
		component = e.ReportingController
	}
	if host == "" {
		host = e.ReportingInstance
	}
	if host == "" {
		return component
	}
	return component + ", " + host
}
