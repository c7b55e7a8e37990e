package authentication

import (
	"context"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// TokenReview asks whom a bearer token belongs to.
func tokenReview(tokens Tokens) *kind.Definition {
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "TokenReview", Plural: "tokenreviews", Scope: kind.Cluster, Verbs: kind.Create,
		New: kind.Of[authenticationv1.TokenReview](),
		Virtual: func(ctx context.Context, _ string, obj object.Object) (object.Object, error) {
			r := obj.(*authenticationv1.TokenReview)
			if r.Spec.Token == "" {
				return nil, apierrors.NewBadRequest("token is required for TokenReview in authentication")
			}
			r.Status = authenticationv1.TokenReviewStatus{}
			v, err := tokens.Review(ctx, r.Spec.Token, r.Spec.Audiences)
			if err != nil {
				r.Status.Error = err.Error()
			}
			if v != nil {
				r.Status.Authenticated = true
				r.Status.User = info(v.User)
				r.Status.Audiences = v.Audiences
			}
			return r, nil
		},
	}
}
