package core

import (
	"fmt"

	"github.com/timonel/timonel/internal/api/check"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Bounds on the texts of Events that have an eventTime (KEP-383).
const (
	maxEventText    = 128
	maxEventMessage = 1024
	minEventSeries  = 2
)

// ValidateEvent checks a new Event. One that came through events.k8s.io (strict), or that has an eventTime, must be
// complete; others, from older clients, hardly need anything. Parity: answers quote nothing of what is too long or set in vain.
func ValidateEvent(e *corev1.Event, strict bool) field.ErrorList {
	errs := validateEventAsStored(e, strict)
	if !strict {
		return errs
	}
	errs = append(errs, validateEventSeries(e.Series)...)
	if e.EventTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("eventTime"), ""))
	}
	if e.Type != corev1.EventTypeNormal && e.Type != corev1.EventTypeWarning {
		errs = append(errs, field.Invalid(field.NewPath("type"), "", fmt.Sprintf("has invalid value: %v", e.Type)))
	}
	unset := func(set bool, name string) {
		if set {
			errs = append(errs, field.Invalid(field.NewPath(name), "", "needs to be unset"))
		}
	}
	unset(!e.FirstTimestamp.IsZero(), "firstTimestamp")
	unset(!e.LastTimestamp.IsZero(), "lastTimestamp")
	unset(e.Count != 0, "count")
	unset(e.Source.Component != "" || e.Source.Host != "", "source")
	return errs
}

// validateEventAsStored checks what Events must be whichever way they came.
func validateEventAsStored(e *corev1.Event, strict bool) field.ErrorList {
	errs := validateEventTarget(e)
	if !e.EventTime.IsZero() {
		errs = append(errs, validateEventReporter(e, strict)...)
	}
	return append(errs, check.Each(field.NewPath("namespace"), e.Namespace, check.Subdomain(e.Namespace))...)
}

// validateEventSeries wants a series to be more than one Event.
func validateEventSeries(s *corev1.EventSeries) field.ErrorList {
	if s == nil {
		return nil
	}
	var errs field.ErrorList
	if s.Count < minEventSeries {
		errs = append(errs, field.Invalid(field.NewPath("series", "count"), "", fmt.Sprintf("should be at least %d", minEventSeries)))
	}
	if s.LastObservedTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("series", "lastObservedTime"), ""))
	}
	return errs
}

// ValidateEventUpdate checks a change. Through events.k8s.io only the series may change.
func ValidateEventUpdate(e, old *corev1.Event, strict bool) field.ErrorList {
	errs := validateEventAsStored(e, strict)
	if !strict {
		return errs
	}
	if !equality.Semantic.DeepEqual(e.Series, old.Series) {
		errs = append(errs, validateEventSeries(e.Series)...)
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

// validateEventTarget wants the Event in the namespace of its object, or in default when the object has none. With an eventTime only
// the latter is asked, and kube-system will do too.
func validateEventTarget(e *corev1.Event) field.ErrorList {
	namespace := e.InvolvedObject.Namespace
	fine := namespace == e.Namespace
	switch {
	case !e.EventTime.IsZero():
		fine = namespace != "" || e.Namespace == metav1.NamespaceDefault || e.Namespace == metav1.NamespaceSystem
	case namespace == "":
		fine = fine || e.Namespace == metav1.NamespaceDefault
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
	errs := check.Required(e.ReportingController, controller)
	errs = append(errs, check.Each(controller, e.ReportingController, check.QualifiedName(e.ReportingController))...)
	text := func(value, name string, required bool, max int) {
		path := field.NewPath(name)
		if required {
			errs = append(errs, check.Required(value, path)...)
		}
		if len(value) > max {
			errs = append(errs, field.Invalid(path, "", fmt.Sprintf("can have at most %d characters", max)))
		}
	}
	text(e.ReportingInstance, "reportingInstance", true, maxEventText)
	text(e.Action, "action", true, maxEventText)
	text(e.Reason, "reason", true, maxEventText)
	text(e.Message, "message", false, maxEventMessage)
	return errs
}
