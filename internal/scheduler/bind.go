package scheduler

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// maxBinding bounds the bindings under way at the API server at once.
	maxBinding = 128
	// requestTimeout bounds each request of the scheduler.
	requestTimeout = 30 * time.Second
)

// bindLater binds p, assumed on node, from a goroutine of its own: the cycle
// need not wait for the API server, nor for volumes to be made. The room on
// the nodes bounds how many pods wait for volumes.
func (s *Scheduler) bindLater(ctx context.Context, p *queuedPod, node string, taken reservations) {
	s.background.Go(func() {
		pod := p.trying.Pod
		err := taken.bind(ctx)
		if err == nil {
			err = s.bind(ctx, pod, node)
		}
		if err == nil {
			s.log.Debug("bound", "pod", p.trying.String(), "node", node)
			s.queue.finish(p)
			s.events.scheduled(pod, node)
			return
		}
		taken.undo()
		s.nominated.set(p.trying)
		if s.cache.forget(idOf(pod)) {
			s.queue.happened(Event{Kind: PodRemoved, OldPod: pod})
		}
		s.attemptFailed(ctx, p, fmt.Errorf("binding rejected: %w", err))
	})
}

// bind posts the binding. The UID makes sure that the pod is the one seen.
func (s *Scheduler) bind(ctx context.Context, pod *v1.Pod, node string) error {
	select {
	case s.binding <- struct{}{}:
		defer func() { <-s.binding }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return s.client.CoreV1().Pods(pod.Namespace).Bind(ctx, &v1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     v1.ObjectReference{Kind: "Node", Name: node},
	}, metav1.CreateOptions{})
}

// podIsGone reports an error that says so: retrying makes no sense.
func podIsGone(err error) bool { return apierrors.IsNotFound(err) }
