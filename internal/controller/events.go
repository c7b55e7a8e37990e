package controller

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

// recorder writes Events as one component. Before Run it drops them.
type recorder struct{ to record.EventRecorder }

// tells makes the controller write Events under a component's name.
func (p *part) tells(component string) *recorder {
	p.events = &recorder{}
	p.Controllers.starts = append(p.starts, func(ctx context.Context) {
		b := record.NewBroadcaster(record.WithContext(ctx))
		b.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: p.client.CoreV1().Events("")})
		p.events.to = b.NewRecorder(scheme.Scheme, corev1.EventSource{Component: component})
		context.AfterFunc(ctx, b.Shutdown)
	})
	return p.events
}

func (r *recorder) normal(obj runtime.Object, reason, format string, args ...any) {
	r.event(obj, corev1.EventTypeNormal, reason, format, args...)
}

func (r *recorder) warn(obj runtime.Object, reason, format string, args ...any) {
	r.event(obj, corev1.EventTypeWarning, reason, format, args...)
}

func (r *recorder) event(obj runtime.Object, kind, reason, format string, args ...any) {
	if r != nil && r.to != nil {
		r.to.Eventf(obj, kind, reason, format, args...)
	}
}
