package node

import "time"

// The pauses of Kubernetes: containers that end and images that cannot be
// pulled are tried again after 10 s, 20 s … 300 s.
const (
	backoffBase = 10 * time.Second
	backoffMax  = 300 * time.Second
	// backoffForget is how long a thing must go well to be trusted again.
	backoffForget = 2 * backoffMax
)

// backoff is the memory of one thing that keeps failing. The zero value has no
// failure behind it.
type backoff struct {
	pause time.Duration // in force since last
	last  time.Time     // of the attempt that set pause
}

// readyAt is when the next attempt may begin after a failure at failed.
func (b *backoff) readyAt(failed time.Time) time.Time {
	if b.pause == 0 || failed.Sub(b.last) > backoffForget {
		return failed
	}
	return failed.Add(b.pause)
}

// attempt notes that a further attempt begins now, after a failure at failed.
func (b *backoff) attempt(now, failed time.Time) {
	if b.pause == 0 || failed.Sub(b.last) > backoffForget {
		b.pause = backoffBase
	} else {
		b.pause = min(2*b.pause, backoffMax)
	}
	b.last = now
}

// retry is a short doubling pause for work that has no user-visible back-off
// of its own: mounting, sandboxes, API writes.
type retry struct {
	min, max time.Duration
	pause    time.Duration
	at       time.Time // when the next attempt may begin
}

func (r *retry) failed(now time.Time) {
	r.pause = min(max(2*r.pause, r.min), r.max)
	r.at = now.Add(r.pause)
}

func (r *retry) succeeded() { r.pause, r.at = 0, time.Time{} }

func (r *retry) waits(now time.Time) bool { return now.Before(r.at) }
