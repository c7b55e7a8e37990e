package authentication

import (
	"context"
	"errors"
	"time"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/user"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// SelfSubjectReview tells callers who they are (KEP-3325). Its answer, unlike those of other reviews, has a creation
// time.
func selfSubjectReview() *kind.Definition {
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "SelfSubjectReview", Plural: "selfsubjectreviews", Scope: kind.Cluster, Verbs: kind.Create,
		New: kind.Of[authenticationv1.SelfSubjectReview](),
		Virtual: func(ctx context.Context, _ string, obj object.Object) (object.Object, error) {
			u := user.From(ctx)
			if u == nil {
				return nil, apierrors.NewInternalError(errors.New("no user present on request"))
			}
			r := obj.(*authenticationv1.SelfSubjectReview)
			r.CreationTimestamp = metav1.NewTime(time.Now().UTC().Truncate(time.Second))
			r.Status = authenticationv1.SelfSubjectReviewStatus{UserInfo: info(u)}
			return r, nil
		},
	}
}
