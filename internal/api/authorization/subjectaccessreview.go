package authorization

import (
	"context"

	"github.com/timonel/timonel/internal/authz"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// SubjectAccessReview asks whether anybody may do something.
func subjectAccessReview(authorizer authz.Authorizer) *kind.Definition {
	return review("SubjectAccessReview", "subjectaccessreviews", kind.Cluster, kind.Of[authorizationv1.SubjectAccessReview](),
		func(ctx context.Context, _ string, obj object.Object) (object.Object, error) {
			r := obj.(*authorizationv1.SubjectAccessReview)
			errs := validateSubject(&r.Spec)
			errs = append(errs, validateMetadata(&r.ObjectMeta, false)...)
			if len(errs) > 0 {
				return nil, invalid(errs)
			}
			r.Status = evaluate(ctx, authorizer, subject(&r.Spec), r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
			return r, nil
		})
}

func validateSubject(spec *authorizationv1.SubjectAccessReviewSpec) field.ErrorList {
	errs := validateAttributes(spec.ResourceAttributes, spec.NonResourceAttributes)
	if spec.User == "" && len(spec.Groups) == 0 {
		errs = append(errs, field.Invalid(field.NewPath("spec").Child("user"), spec.User, "at least one of user or group must be specified"))
	}
	return errs
}
