package authorization

import (
	"context"

	"github.com/timonel/timonel/internal/authz"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// LocalSubjectAccessReview asks whether anybody may do something in one namespace, so that the right to ask can be
// given in that namespace.
func localSubjectAccessReview(authorizer authz.Authorizer) *kind.Definition {
	return review("LocalSubjectAccessReview", "localsubjectaccessreviews", kind.Namespaced, kind.Of[authorizationv1.LocalSubjectAccessReview](),
		func(ctx context.Context, namespace string, obj object.Object) (object.Object, error) {
			r := obj.(*authorizationv1.LocalSubjectAccessReview)
			if errs := validateLocal(r, namespace); len(errs) > 0 {
				return nil, invalid(errs)
			}
			r.Status = evaluate(ctx, authorizer, subject(&r.Spec), r.Spec.ResourceAttributes, nil)
			return r, nil
		})
}

func validateLocal(r *authorizationv1.LocalSubjectAccessReview, namespace string) field.ErrorList {
	errs := validateSubject(&r.Spec)
	errs = append(errs, validateMetadata(&r.ObjectMeta, true)...)
	spec := field.NewPath("spec")
	if a := r.Spec.ResourceAttributes; a != nil && a.Namespace != namespace {
		errs = append(errs, field.Invalid(spec.Child("resourceAttributes", "namespace"), a.Namespace, "must match metadata.namespace"))
	}
	if a := r.Spec.NonResourceAttributes; a != nil {
		errs = append(errs, field.Invalid(spec.Child("nonResourceAttributes"), shown(a), "disallowed on this kind of request"))
	}
	return errs
}
