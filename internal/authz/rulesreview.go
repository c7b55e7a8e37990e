package authz

import (
	"context"
	"strings"

	"github.com/timonel/timonel/internal/user"
	authorizationv1 "k8s.io/api/authorization/v1"
)

// Lister is an authorizer that can say what a user may do in a namespace
// (authorization.k8s.io/v1 SelfSubjectRulesReview).
type Lister interface {
	// Rules returns what is allowed; incomplete says that there may be more. The error tells what could not be
	// evaluated.
	Rules(ctx context.Context, u *user.Info, namespace string) (rules Rules, incomplete bool, err error)
}

// Rules are the parts of a SubjectRulesReviewStatus.
type Rules struct {
	Resource    []authorizationv1.ResourceRule
	NonResource []authorizationv1.NonResourceRule
}

// Rules implements Lister.
func (r *RBAC) Rules(_ context.Context, u *user.Info, namespace string) (Rules, bool, error) {
	policy, err := r.RulesFor(u, namespace)
	var out Rules
	for _, rule := range policy {
		if len(rule.Resources) > 0 {
			out.Resource = append(out.Resource, authorizationv1.ResourceRule{Verbs: rule.Verbs, APIGroups: rule.APIGroups, Resources: rule.Resources, ResourceNames: rule.ResourceNames})
		}
		if len(rule.NonResourceURLs) > 0 {
			out.NonResource = append(out.NonResource, authorizationv1.NonResourceRule{Verbs: rule.Verbs, NonResourceURLs: rule.NonResourceURLs})
		}
	}
	return out, false, err
}

// all is every request.
var allRules = Rules{
	Resource:    []authorizationv1.ResourceRule{{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}}},
	NonResource: []authorizationv1.NonResourceRule{{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}}},
}

// Rules implements Lister: what all listed authorizers say together; it is incomplete when one of them cannot list.
func (c Chain) Rules(ctx context.Context, u *user.Info, namespace string) (Rules, bool, error) {
	var out Rules
	incomplete := false
	var failed []string
	for _, one := range c {
		lister, ok := one.(Lister)
		if !ok {
			if _, privileged := one.(Masters); !privileged {
				incomplete = true
			}
			continue
		}
		rules, partial, err := lister.Rules(ctx, u, namespace)
		out.Resource = append(out.Resource, rules.Resource...)
		out.NonResource = append(out.NonResource, rules.NonResource...)
		incomplete = incomplete || partial
		if err != nil {
			failed = append(failed, err.Error())
		}
	}
	if len(failed) > 0 {
		return out, true, evaluationError(strings.Join(failed, ", "))
	}
	return out, incomplete, nil
}

type evaluationError string

func (e evaluationError) Error() string { return string(e) }
