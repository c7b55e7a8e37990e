// Package fairness paces requests so that no client can take the whole server: step Pace.
//
// Today it bounds the requests that run at once, reading and writing apart, as
// kube-apiserver does with API Priority and Fairness switched off. Watches and streams hold no
// seat, and members of system:masters are never turned away.
package fairness

import (
	"net/http"

	"github.com/timonel/timonel/internal/user"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Limits are the requests that may run at once (--max-requests-inflight,
// --max-mutating-requests-inflight).
type Limits struct {
	Reading int // default 400
	Writing int // default 200
}

// Pacer hands out seats.
type Pacer struct {
	reading, writing chan struct{}
}

// New makes a pacer.
func New(l Limits) *Pacer {
	if l.Reading == 0 {
		l.Reading = 400
	}
	if l.Writing == 0 {
		l.Writing = 200
	}
	return &Pacer{reading: make(chan struct{}, l.Reading), writing: make(chan struct{}, l.Writing)}
}

func nothing() {}

// Enter takes a seat for a request, or refuses it with 429. The caller calls leave
// when the request is done.
func (p *Pacer) Enter(verb string, long bool, u *user.Info) (leave func(), err error) {
	if long || u.InGroup(user.SystemPrivileged) {
		return nothing, nil
	}
	seats := p.writing
	switch verb {
	case "get", "list", "head", "options":
		seats = p.reading
	}
	select {
	case seats <- struct{}{}:
		return func() { <-seats }, nil
	default:
		return nil, tooMany()
	}
}

func tooMany() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusTooManyRequests, Reason: metav1.StatusReasonTooManyRequests,
		Message: "Too many requests, please try again later.", Details: &metav1.StatusDetails{RetryAfterSeconds: 1},
	}}
}
