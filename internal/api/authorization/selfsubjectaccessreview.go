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

var errNoUser = apierrors.NewInternalError(errors.New("no user present on request"))

// SelfSubjectAccessReview asks whether the caller may do something.
func selfSubjectAccessReview(authorizer authz.Authorizer) *kind.Definition {
	return review("SelfSubjectAccessReview", "selfsubjectaccessreviews", kind.Cluster, kind.Of[authorizationv1.SelfSubjectAccessReview](),
		func(ctx context.Context, _ string, obj object.Object) (object.Object, error) {
			r := obj.(*authorizationv1.SelfSubjectAccessReview)
			errs := validateAttributes(r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
			errs = append(errs, validateMetadata(&r.ObjectMeta, false)...)
			if len(errs) > 0 {
				return nil, invalid(errs)
			}
			u := user.From(ctx)
			if u == nil {
				return nil, errNoUser
			}
			r.Status = evaluate(ctx, authorizer, u, r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
			return r, nil
		})
}
