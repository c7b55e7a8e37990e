// Package authz decides who may do what: Node authorization, RBAC and the
// privileged group, each an [Authorizer], asked in order.
//
// Decisions are look-ups in immutable structures that are compiled when a role, a binding or a
// pod changes, never while a request waits.
//
// Does not know: HTTP, how identities are proven. Start reading at Chain.
package authz

import (
	"context"

	"github.com/timonel/timonel/internal/user"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
)

// Attributes are the facts of a request that authorization may look at
// (authorization.k8s.io/v1 SubjectAccessReviewSpec).
type Attributes struct {
	User            *user.Info
	Verb            string // a request verb, or the lower-case HTTP method of a non-resource request
	Group, Version  string
	Resource        string // the plural; empty for a non-resource request
	Subresource     string
	Namespace, Name string
	Path            string // of a non-resource request
	Fields          fields.Requirements
	Labels          labels.Requirements
}

// IsResource reports whether the request is about an API resource.
func (a *Attributes) IsResource() bool { return a.Resource != "" }

// Decision is an authorizer's answer.
type Decision uint8

const (
	NoOpinion Decision = iota
	Allow
	Deny
)

// Authorizer answers whether a request may be made; the reason is for humans. An
// error may come with NoOpinion: something could not be evaluated.
type Authorizer interface {
	Authorize(ctx context.Context, a *Attributes) (Decision, string, error)
}

// Chain asks authorizers in order; the first opinion wins.
type Chain []Authorizer

func (c Chain) Authorize(ctx context.Context, a *Attributes) (Decision, string, error) {
	var reason string
	var failed []error
	for _, one := range c {
		decision, why, err := one.Authorize(ctx, a)
		if decision != NoOpinion {
			return decision, why, err
		}
		if why != "" {
			if reason != "" {
				reason += "\n"
			}
			reason += why
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	return NoOpinion, reason, utilerrors.NewAggregate(failed)
}

// Masters allows everything to the group system:masters; it stands before all
// configured authorizers.
type Masters struct{}

func (Masters) Authorize(_ context.Context, a *Attributes) (Decision, string, error) {
	if a.User.InGroup(user.SystemPrivileged) {
		return Allow, "", nil
	}
	return NoOpinion, "", nil
}
