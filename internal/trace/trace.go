// Package trace keeps a bounded ring of the requests that were answered lately,
// each with the time that its ten steps took, so that anyone can see what
// happened to a request: at /debug/requests and by `timonel trace`.
//
// Promises: recording costs no allocation beyond the record itself and no lock
// while the request runs; the ring never grows.
//
// Start reading at Record.
package trace

import (
	"sync"
	"time"
)

// Step is one of the ten steps of a request.
type Step uint8

const (
	Accept Step = iota
	Locate
	Identify
	Pace
	Authorize
	Decode
	Change
	Check
	Commit
	Answer
	steps
)

var stepNames = [steps]string{"accept", "locate", "identify", "pace", "authorize", "decode", "change", "check", "commit", "answer"}

func (s Step) String() string { return stepNames[s] }

// Steps lists all steps in order.
func Steps() []Step {
	all := make([]Step, steps)
	for i := range all {
		all[i] = Step(i)
	}
	return all
}

// Record is what is known of one request. Only the goroutine that serves the request
// writes to it, until Ring.Add publishes it.
type Record struct {
	Start       time.Time
	Method      string
	Path        string // with query
	Verb        string
	Group       string
	Version     string
	Resource    string
	Subresource string
	Namespace   string
	Name        string
	User        string
	Agent       string
	AuditID     string
	Status      int
	Revision    int64 // of etcd that the request made or read; 0: none
	Bytes       int64 // of the answer
	Served      bool  // it is for something that the server has
	Long        bool  // watches and streams: the duration says nothing
	Durations   [steps]time.Duration

	last    time.Time
	current Step
}

// Begin starts the record with step Accept running.
func (r *Record) Begin(now time.Time) { r.Start, r.last, r.current = now, now, Accept }

// Enter ends the running step and starts another. A step that is entered again
// (a retried patch) adds up.
func (r *Record) Enter(s Step) {
	if r == nil {
		return
	}
	now := time.Now()
	r.Durations[r.current] += now.Sub(r.last)
	r.last, r.current = now, s
}

// End ends the running step.
func (r *Record) End() { r.Enter(r.current) }

// Total is how long the request took.
func (r *Record) Total() time.Duration { return r.last.Sub(r.Start) }

// Ring is the last requests.
type Ring struct {
	mu      sync.Mutex
	records []*Record
	next    int
}

// NewRing makes a ring of a size.
func NewRing(size int) *Ring { return &Ring{records: make([]*Record, size)} }

// Add publishes a record, which must not be changed any more.
func (g *Ring) Add(r *Record) {
	g.mu.Lock()
	g.records[g.next%len(g.records)] = r
	g.next++
	g.mu.Unlock()
}

// Records returns the records from the oldest to the newest.
func (g *Ring) Records() []*Record {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]*Record, 0, len(g.records))
	for i := range g.records {
		if r := g.records[(g.next+i)%len(g.records)]; r != nil {
			out = append(out, r)
		}
	}
	return out
}
