package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes"
)

const (
	maxUnsentEvents = 1000            // waiting for the API server; more are dropped
	maxSeries       = 2000            // remembered at once
	seriesRefresh   = 5 * time.Minute // a series that goes on is written this often
	seriesEnd       = 6 * time.Minute // unseen so long, the next is a new Event
	eventTries      = 3               // requests for one Event
	eventRetryAfter = 1 * time.Second // doubled at each further one
	maxNote         = 1024            // bytes of an Event's note (events.k8s.io/v1)
	maxInstance     = 128             // bytes of its reportingInstance
)

// reporter writes events.k8s.io/v1 Events about pods in the background, in
// order. The same thing said again about the same pod becomes a series of one
// Event: its second time is written at once, later ones with seriesRefresh.
// Its one timer is armed only while a series lives.
type reporter struct {
	client     kubernetes.Interface
	log        *slog.Logger
	controller string // reportingController
	instance   string // reportingInstance

	unsent chan eventWrite

	mu     sync.Mutex
	series map[seriesKey]*series
	timer  *time.Timer
	armed  bool
	closed bool
}

// An eventWrite creates an Event; of a series already created it writes count
// and last time.
type eventWrite struct {
	event  *eventsv1.Event
	update bool
}

type seriesKey struct {
	pod          types.UID
	reason, note string
}

type series struct {
	event   *eventsv1.Event // as first written
	count   int32
	last    time.Time // last occurrence
	written time.Time // last write
	dirty   bool      // occurrences since
}

func newReporter(client kubernetes.Interface, controller string, log *slog.Logger) *reporter {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	instance := controller + "-" + host
	instance = instance[:min(len(instance), maxInstance)]
	return &reporter{
		client: client, log: log, controller: controller, instance: instance,
		unsent: make(chan eventWrite, maxUnsentEvents),
		series: map[seriesKey]*series{},
	}
}

func (r *reporter) scheduled(pod *v1.Pod, node string) {
	r.record(pod, nil, v1.EventTypeNormal, "Scheduled", "Binding",
		fmt.Sprintf("Successfully assigned %s/%s to %s", pod.Namespace, pod.Name, node))
}

func (r *reporter) failed(pod *v1.Pod, msg string) {
	r.record(pod, nil, v1.EventTypeWarning, "FailedScheduling", "Scheduling", msg)
}

func (r *reporter) preempted(victim, by *v1.Pod, node string) {
	r.record(victim, by, v1.EventTypeNormal, "Preempted", "Preempting",
		fmt.Sprintf("Preempted by pod %s on node %s", by.UID, node))
}

func (r *reporter) record(pod, related *v1.Pod, kind, reason, action, note string) {
	if len(note) > maxNote {
		const more = " ..."
		note = strings.ToValidUTF8(note[:maxNote-len(more)], "") + more
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	key := seriesKey{pod.UID, reason, note}
	if s := r.series[key]; s != nil {
		s.count++
		s.last, s.dirty = now, true
		if s.count == 2 {
			r.write(s, now)
		}
		return
	}
	event := &eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{Name: eventName(pod.Name, now), Namespace: pod.Namespace},
		EventTime:           metav1.NewMicroTime(now),
		ReportingController: r.controller,
		ReportingInstance:   r.instance,
		Action:              action,
		Reason:              reason,
		Regarding:           podReference(pod),
		Note:                note,
		Type:                kind,
	}
	if related != nil {
		ref := podReference(related)
		event.Related = &ref
	}
	if kind == v1.EventTypeWarning { // the others happen once
		r.makeRoom()
		r.series[key] = &series{event: event, count: 1, last: now, written: now}
		r.arm(seriesRefresh)
	}
	r.send(eventWrite{event: event})
}

// eventName is unique, and a valid name however long the pod's is.
func eventName(pod string, now time.Time) string {
	suffix := fmt.Sprintf(".%x", now.UnixNano())
	if most := validation.DNS1123SubdomainMaxLength - len(suffix); len(pod) > most {
		pod = strings.TrimRight(pod[:most], "-.")
	}
	return pod + suffix
}

// makeRoom forgets some series once there are maxSeries.
func (r *reporter) makeRoom() {
	if len(r.series) < maxSeries {
		return
	}
	for key, s := range r.series {
		if s.dirty {
			r.write(s, time.Now())
		}
		delete(r.series, key)
		return
	}
}

func podReference(pod *v1.Pod) v1.ObjectReference {
	return v1.ObjectReference{
		Kind: "Pod", APIVersion: "v1", Namespace: pod.Namespace, Name: pod.Name,
		UID: pod.UID, ResourceVersion: pod.ResourceVersion,
	}
}

// write queues the series' state.
func (r *reporter) write(s *series, now time.Time) {
	event := s.event.DeepCopy()
	event.Series = &eventsv1.EventSeries{Count: s.count, LastObservedTime: metav1.NewMicroTime(s.last)}
	s.dirty, s.written = false, now
	r.send(eventWrite{event: event, update: true})
}

func (r *reporter) send(w eventWrite) {
	select {
	case r.unsent <- w:
	default:
		r.log.Warn("too many unsent events, one dropped", "pod", w.event.Regarding.Name, "reason", w.event.Reason)
	}
}

func (r *reporter) arm(after time.Duration) {
	if r.armed || r.closed {
		return
	}
	r.armed = true
	if r.timer == nil {
		r.timer = time.AfterFunc(after, r.tick)
		return
	}
	r.timer.Reset(after)
}

// tick writes the series that went on and forgets those that ended.
func (r *reporter) tick() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.armed = false
	now := time.Now()
	for key, s := range r.series {
		if s.dirty && now.Sub(s.written) >= seriesRefresh {
			r.write(s, now)
		}
		if now.Sub(s.last) >= seriesEnd {
			if s.dirty {
				r.write(s, now)
			}
			delete(r.series, key)
		}
	}
	if len(r.series) > 0 {
		r.arm(time.Minute)
	}
}

// run sends until ctx ends.
func (r *reporter) run(ctx context.Context) {
	defer r.close()
	for {
		select {
		case <-ctx.Done():
			return
		case w := <-r.unsent:
			r.deliver(ctx, w)
		}
	}
}

func (r *reporter) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.timer != nil {
		r.timer.Stop()
	}
}

func (r *reporter) deliver(ctx context.Context, w eventWrite) {
	wait := eventRetryAfter
	for try := 1; ; try++ {
		err := r.request(ctx, w)
		if err == nil || ctx.Err() != nil {
			return
		}
		if try == eventTries || refused(err) {
			r.log.Warn("writing an event", "pod", w.event.Regarding.Namespace+"/"+w.event.Regarding.Name, "reason", w.event.Reason, "err", err)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait *= 2
	}
}

func (r *reporter) request(ctx context.Context, w eventWrite) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	events := r.client.EventsV1().Events(w.event.Namespace)
	if w.update {
		patch, err := json.Marshal(map[string]any{"series": w.event.Series})
		if err != nil {
			return err
		}
		_, err = events.Patch(ctx, w.event.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
		if !apierrors.IsNotFound(err) {
			return err
		} // it lives for an hour only: write it anew
	}
	_, err := events.Create(ctx, w.event, metav1.CreateOptions{})
	return err
}

// refused reports an answer that another try would not change, such as that
// the namespace is going.
func refused(err error) bool {
	status, ok := err.(apierrors.APIStatus)
	if !ok {
		return false
	}
	code := status.Status().Code
	return code >= 400 && code < 500 && !apierrors.IsTooManyRequests(err)
}
