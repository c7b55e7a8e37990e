package scheduler

import (
	"container/heap"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
)

// The waits of kube-scheduler's defaults (podInitialBackoffSeconds,
// podMaxBackoffSeconds, podMaxInUnschedulablePodsDuration).
const (
	firstBackoff = 1 * time.Second
	maxBackoff   = 10 * time.Second
	maxParked    = 5 * time.Minute
)

// maxMissedEvents bounds the Events remembered for a pod in its cycle; past
// it, the pod is retried as if one of them had mattered.
const maxMissedEvents = 256

// queue holds the pods that wait for a node.
//
// A pod is in exactly one place: active (ready), backing off (ready once its
// back-off is over), parked (waits for an Event that a plugin which rejected
// it finds relevant) or in flight (being scheduled or bound). Events that come
// while its cycle runs are kept beside it and judged when it is parked, so
// none falls between the snapshot and the parking.
//
// One timer, armed only while pods back off or are parked, serves both the
// ends of back-offs and the last resort: a pod parked for maxParked is retried.
type queue struct {
	mu       sync.Mutex
	ready    *sync.Cond // a pod may be popped, or closed
	closed   bool
	active   podHeap // by priority, then age
	backoff  podHeap // by end of back-off
	parked   map[podID]*queuedPod
	inFlight map[podID]*queuedPod
	where    map[podID]*queuedPod // all of them
	timer    *time.Timer
	timerAt  time.Time // zero when not armed
	// lastResort is when to look for pods parked too long: never later than
	// the first of them is due, perhaps earlier. Zero when none is parked.
	lastResort time.Time
}

// A queuedPod is a pod with its history in the queue.
type queuedPod struct {
	info  *PodInfo  // the pod as it is now; guarded by queue.mu
	added time.Time // when it joined the queue; age for the order
	// trying is the pod as it was popped: what the attempt in flight is about,
	// and all that its holder reads of p.
	trying *PodInfo

	place    place
	index    int       // in its heap
	attempts int       // failed ones, the back-off grows with them
	until    time.Time // end of its back-off
	parkedAt time.Time // when parked
	rejects  []Plugin  // who rejected it last
	errored  bool      // the last attempt failed rather than found no node
	missed   []Event   // Events since it was popped
	overflow bool      // more of them than were kept
	done     bool      // in its cycle no more: Events need not be kept
	gone     bool      // deleted or assigned while in flight
}

type place int

const (
	inActive place = iota + 1
	inBackoff
	inParked
	inFlight
)

func newQueue() *queue {
	q := &queue{
		active:   podHeap{less: beforeInLine},
		backoff:  podHeap{less: func(a, b *queuedPod) bool { return a.until.Before(b.until) }},
		parked:   map[podID]*queuedPod{},
		inFlight: map[podID]*queuedPod{},
		where:    map[podID]*queuedPod{},
	}
	q.ready = sync.NewCond(&q.mu)
	return q
}

// beforeInLine is the order of scheduling: higher priority, then longer wait.
func beforeInLine(a, b *queuedPod) bool {
	if pa, pb := a.info.priority(), b.info.priority(); pa != pb {
		return pa > pb
	}
	return a.added.Before(b.added)
}

// add queues a pod that waits for a node, or brings its newer self.
func (q *queue) add(pod *v1.Pod) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if p := q.where[idOf(pod)]; p != nil {
		q.replace(p, pod)
		return
	}
	p := &queuedPod{info: newPodInfo(pod), added: time.Now()}
	q.where[idOf(pod)] = p
	q.put(p, inActive)
}

func (q *queue) replace(p *queuedPod, pod *v1.Pod) {
	old := p.info.Pod
	p.gone = false
	if !pendingPodChanged(old, pod) {
		info := *p.info
		info.Pod = pod
		p.info = &info // what was worked out still holds
		return
	}
	p.info = newPodInfo(pod)
	e := Event{Kind: PendingPodUpdated, OldPod: old, Pod: pod}
	switch p.place {
	case inActive:
		heap.Fix(&q.active, p.index) // its priority may be another
	case inParked:
		q.wake(p, e)
	case inFlight:
		p.miss(e)
	}
}

// remove forgets a pod that is deleted, has a node, or is no longer ours.
func (q *queue) remove(id podID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	p := q.where[id]
	if p == nil {
		return
	}
	if p.place == inFlight {
		p.gone = true // whoever holds it will find out
		return
	}
	q.take(p)
	delete(q.where, id)
	q.arm()
}

// pop waits for the next pod and takes it into flight; false once closed. An
// idle scheduler does not let a pod sit out its back-off, unless the last
// attempt was an error, which may well repeat (KEP-5142).
func (q *queue) pop() (*queuedPod, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if q.closed {
			return nil, false
		}
		p := q.active.first()
		if p == nil {
			p = q.bestBackingOff()
		}
		if p == nil {
			q.ready.Wait()
			continue
		}
		q.take(p)
		p.trying, p.missed, p.overflow, p.done, p.rejects = p.info, nil, false, false, nil
		q.put(p, inFlight)
		q.arm()
		return p, true
	}
}

func (q *queue) bestBackingOff() *queuedPod {
	var best *queuedPod
	for _, p := range q.backoff.pods {
		if !p.errored && (best == nil || beforeInLine(p, best)) {
			best = p
		}
	}
	return best
}

// park puts aside a pod that fits nowhere until an Event matters to one of the
// plugins that rejected it; to none, any Event matters. It reports the pod as
// it is now, false if it no longer waits.
func (q *queue) park(p *queuedPod, rejects []Plugin) (*PodInfo, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.landed(p) {
		return nil, false
	}
	p.attempts++
	p.rejects, p.errored, p.parkedAt = rejects, false, time.Now()
	p.until = p.parkedAt.Add(backoffAfter(p.attempts))
	missed, overflow := p.missed, p.overflow
	p.missed = nil
	q.put(p, inParked)
	for _, e := range missed {
		if p.place == inParked {
			q.wake(p, e)
		}
	}
	if overflow && p.place == inParked {
		q.requeue(p)
	}
	q.arm()
	return p.info, true
}

// retry puts a pod whose attempt failed into back-off. Like park it reports
// the pod as it is now.
func (q *queue) retry(p *queuedPod) (*PodInfo, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.landed(p) {
		return nil, false
	}
	p.attempts++
	p.errored, p.missed = true, nil
	p.until = time.Now().Add(backoffAfter(p.attempts))
	q.put(p, inBackoff)
	q.arm()
	return p.info, true
}

// chosen says that p has a node to be bound to: its cycle is over, but it
// stays in flight until bound or retried.
func (q *queue) chosen(p *queuedPod) {
	q.mu.Lock()
	defer q.mu.Unlock()
	p.done, p.missed = true, nil
}

// finish ends the story of p: bound, or no longer waiting.
func (q *queue) finish(p *queuedPod) {
	q.mu.Lock()
	defer q.mu.Unlock()
	p.gone = true
	q.landed(p)
}

// landed takes p out of flight, and out of the queue if it is gone.
func (q *queue) landed(p *queuedPod) (gone bool) {
	delete(q.inFlight, idOf(p.info.Pod))
	if p.gone {
		delete(q.where, idOf(p.info.Pod))
	}
	return p.gone
}

// happened wakes the parked pods to which e matters.
func (q *queue) happened(e Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range q.inFlight {
		p.miss(e)
	}
	for _, p := range q.parked {
		q.wake(p, e)
	}
	q.arm()
}

// close ends pop, now and later, and stops the timer.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	if q.timer != nil {
		q.timer.Stop()
	}
	q.ready.Broadcast()
}

func (p *queuedPod) miss(e Event) {
	switch {
	case p.done:
	case len(p.missed) < maxMissedEvents:
		p.missed = append(p.missed, e)
	default:
		p.overflow = true
	}
}

// wake requeues the parked p if e matters to a plugin that rejected it.
func (q *queue) wake(p *queuedPod, e Event) {
	matters := len(p.rejects) == 0
	for _, plugin := range p.rejects {
		if matters = plugin.Wakes(p.info, e); matters {
			break
		}
	}
	if matters {
		q.requeue(p)
	}
}

// requeue moves a parked pod on: to what is left of its back-off, or to active.
func (q *queue) requeue(p *queuedPod) {
	q.take(p)
	if time.Now().Before(p.until) {
		q.put(p, inBackoff)
	} else {
		q.put(p, inActive)
	}
}

// backoffAfter is the wait after so many failed attempts in a row.
func backoffAfter(attempts int) time.Duration {
	d := firstBackoff
	for range attempts - 1 {
		if d *= 2; d >= maxBackoff {
			return maxBackoff
		}
	}
	return d
}

func (q *queue) put(p *queuedPod, to place) {
	p.place = to
	id := idOf(p.info.Pod)
	switch to {
	case inActive:
		heap.Push(&q.active, p)
		q.ready.Signal()
	case inBackoff:
		heap.Push(&q.backoff, p)
		q.ready.Signal()
	case inParked:
		q.parked[id] = p
	case inFlight:
		q.inFlight[id] = p
	}
}

func (q *queue) take(p *queuedPod) {
	switch p.place {
	case inActive:
		heap.Remove(&q.active, p.index)
	case inBackoff:
		heap.Remove(&q.backoff, p.index)
	case inParked:
		delete(q.parked, idOf(p.info.Pod))
	case inFlight:
		delete(q.inFlight, idOf(p.info.Pod))
	}
	p.place = 0
}

// arm sets the timer to the next end of a back-off or of the longest parking.
func (q *queue) arm() {
	switch {
	case len(q.parked) == 0:
		q.lastResort = time.Time{}
	case q.lastResort.IsZero():
		q.lastResort = time.Now().Add(maxParked)
	}
	next := q.lastResort
	if p := q.backoff.first(); p != nil && (next.IsZero() || p.until.Before(next)) {
		next = p.until
	}
	switch {
	case q.closed || next.Equal(q.timerAt):
		return
	case next.IsZero():
		q.timer.Stop()
	case q.timer == nil:
		q.timer = time.AfterFunc(time.Until(next), q.tick)
	default:
		q.timer.Reset(time.Until(next))
	}
	q.timerAt = next
}

// tick moves on what the timer was armed for.
func (q *queue) tick() {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	for p := q.backoff.first(); p != nil && !now.Before(p.until); p = q.backoff.first() {
		q.take(p)
		q.put(p, inActive)
	}
	if !q.lastResort.IsZero() && !now.Before(q.lastResort) {
		q.lastResort = time.Time{}
		for _, p := range q.parked {
			due := p.parkedAt.Add(maxParked)
			if !now.Before(due) {
				q.requeue(p)
			} else if q.lastResort.IsZero() || due.Before(q.lastResort) {
				q.lastResort = due
			}
		}
	}
	q.timerAt = time.Time{}
	q.arm()
}

// counts is the number of pods active, backing off, parked and in flight.
func (q *queue) counts() (active, backoff, parked, flying int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.active.Len(), q.backoff.Len(), len(q.parked), len(q.inFlight)
}

// podHeap is a heap.Interface of pods that know their index.
type podHeap struct {
	pods []*queuedPod
	less func(a, b *queuedPod) bool
}

func (h *podHeap) first() *queuedPod {
	if len(h.pods) == 0 {
		return nil
	}
	return h.pods[0]
}

func (h *podHeap) Len() int           { return len(h.pods) }
func (h *podHeap) Less(i, j int) bool { return h.less(h.pods[i], h.pods[j]) }
func (h *podHeap) Swap(i, j int) {
	h.pods[i], h.pods[j] = h.pods[j], h.pods[i]
	h.pods[i].index, h.pods[j].index = i, j
}
func (h *podHeap) Push(x any) {
	p := x.(*queuedPod)
	p.index = len(h.pods)
	h.pods = append(h.pods, p)
}
func (h *podHeap) Pop() any {
	last := len(h.pods) - 1
	p := h.pods[last]
	h.pods[last] = nil
	h.pods = h.pods[:last]
	return p
}
