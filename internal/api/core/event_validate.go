package core

import (
	"fmt"

	"github.com/timonel/timonel/internal/api/check"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Bounds on the texts of Events that have an eventTime (KEP-383).
const (
	maxEventText    = 128
	maxEventMessage = 1024
)

// ValidateEvent checks a new Event. One that came through events.k8s.io (strict), or that has an eventTime, must be
// complete; others, from older clients, hardly need anything.
func ValidateEvent(e *corev1.Event, strict bool) field.ErrorList {
	errs := validateEventTarget(e)
	if !e.EventTime.IsZero() {
		errs = append(errs, validateEventReporter(e, strict)...)
	}
	if !strict {
		return errs
	}
	if e.EventTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("eventTime"), ""))
	}
	errs = append(errs, validateEventType(e)...)
	unset := func(set bool, name string, value any) {
		if set {
			errs = append(errs, field.Invalid(field.NewPath(name), value, "needs to be unset"))
		}
	}
	unset(!e.FirstTimestamp.IsZero(), "firstTimestamp", e.FirstTimestamp)
	unset(!e.LastTimestamp.IsZero(), "lastTimestamp", e.LastTimestamp)
	unset(e.Count != 0, "count", e.Count)
	unset(e.Source.Component != "" || e.Source.Host != "", "source", check.GoNames(e.Source))
	return errs
}

// ValidateEventUpdate checks a change. Through events.k8s.io only the series may change.
func ValidateEventUpdate(e, old *corev1.Event, strict bool) field.ErrorList {
	errs := validateEventTarget(e)
	if !e.EventTime.IsZero() {
		errs = append(errs, validateEventReporter(e, strict)...)
	}
	if !strict {
		return errs
	}
	keep := func(name string, value, before any) {
		errs = append(errs, check.Immutable(value, before, field.NewPath(name))...)
	}
	keep("involvedObject", e.InvolvedObject, old.InvolvedObject)
	keep("reason", e.Reason, old.Reason)
	keep("message", e.Message, old.Message)
	keep("source", e.Source, old.Source)
	keep("firstTimestamp", e.FirstTimestamp, old.FirstTimestamp)
	keep("lastTimestamp", e.LastTimestamp, old.LastTimestamp)
	keep("count", e.Count, old.Count)
	keep("reason", e.Reason, old.Reason)
	keep("type", e.Type, old.Type)
	if e.EventTime.UnixMicro() != old.EventTime.UnixMicro() {
		errs = append(errs, field.Invalid(field.NewPath("eventTime"), e.EventTime, check.TextImmutable))
	}
	keep("action", e.Action, old.Action)
	keep("related", e.Related, old.Related)
	keep("reportingController", e.ReportingController, old.ReportingController)
	keep("reportingInstance", e.ReportingInstance, old.ReportingInstance)
	return errs
}

// validateEventTarget wants the Event in the namespace of its object, or in default when the object has none.
func validateEventTarget(e *corev1.Event) field.ErrorList {
	namespace := e.InvolvedObject.Namespace
	fine := namespace == e.Namespace
	if namespace == "" {
		fine = fine || e.Namespace == metav1.NamespaceDefault ||
			!e.EventTime.IsZero() && e.Namespace == metav1.NamespaceSystem
	}
	if fine {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("involvedObject", "namespace"), namespace, "does not match event.namespace")}
}

func validateEventReporter(e *corev1.Event, strict bool) field.ErrorList {
	controller := field.NewPath("reportingComponent")
	if strict {
		controller = field.NewPath("reportingController")
	}
	errs := check.RequiredForm(e.ReportingController, controller, check.QualifiedName)
	text := func(value, name string, required bool, max int) {
		path := field.NewPath(name)
		if required {
			errs = append(errs, check.Required(value, path)...)
		}
		if len(value) > max {
			errs = append(errs, field.Invalid(path, value, fmt.Sprintf("can have at most %d characters", max)))
		}
	}
	text(e.ReportingInstance, "reportingInstance", true, maxEventText)
	text(e.Action, "action", true, maxEventText)
	text(e.Reason, "reason", true, maxEventText)
	text(e.Message, "message", false, maxEventMessage)
	return errs
}

func validateEventType(e *corev1.Event) field.ErrorList {
	if e.Type == corev1.EventTypeNormal || e.Type == corev1.EventTypeWarning {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("type"), e.Type, fmt.Sprintf("has invalid value: %v", e.Type))}
}
