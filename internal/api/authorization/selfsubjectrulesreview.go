package authorization

import (
	"context"
	"errors"

	"github.com/timonel/timonel/internal/authz"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/user"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// SelfSubjectRulesReview asks for a list of what the caller may do in a namespace.
func selfSubjectRulesReview(authorizer authz.Authorizer) *kind.Definition {
	return review("SelfSubjectRulesReview", "selfsubjectrulesreviews", kind.Cluster, kind.Of[authorizationv1.SelfSubjectRulesReview](),
		func(ctx context.Context, _ string, obj object.Object) (object.Object, error) {
			r := obj.(*authorizationv1.SelfSubjectRulesReview)
			u := user.From(ctx)
			if u == nil {
				return nil, errNoUser
			}
			if r.Spec.Namespace == "" {
				return nil, apierrors.NewBadRequest("no namespace on request")
			}
			lister, ok := authorizer.(authz.Lister)
			if !ok {
				return nil, apierrors.NewInternalError(errors.New("the authorizer cannot list rules"))
			}
			rules, incomplete, err := lister.Rules(ctx, u, r.Spec.Namespace)
			r.Status = authorizationv1.SubjectRulesReviewStatus{
				ResourceRules:    append([]authorizationv1.ResourceRule{}, rules.Resource...),
				NonResourceRules: append([]authorizationv1.NonResourceRule{}, rules.NonResource...),
				Incomplete:       incomplete,
			}
			if err != nil {
				r.Status.EvaluationError = err.Error()
			}
			return r, nil
		})
}
