package controller

import (
	"sync"

	corev1 "k8s.io/api/core/v1"
)

// endedPods counts the pods that ended and are still there.
type endedPods struct {
	mu sync.Mutex
	n  int
}

// change counts a pod that was old and is now now; nil is not there. It returns the count.
func (e *endedPods) change(old, now *corev1.Pod) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if old != nil && finished(old) {
		e.n--
	}
	if now != nil && finished(now) {
		e.n++
	}
	return e.n
}
