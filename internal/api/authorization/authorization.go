// Package authorization holds the kinds of authorization.k8s.io: questions about what somebody may do,
// answered at once and never stored.
//
// Does not know: how the answer is found; it asks the authorizer it was given. Start reading at
// subjectaccessreview.go.
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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const group = authorizationv1.GroupName

// Definitions lists the kinds of the group. Rules reviews need an authorizer that
// implements authz.Lister.
func Definitions(authorizer authz.Authorizer) []*kind.Definition {
	return []*kind.Definition{
		localSubjectAccessReview(authorizer), selfSubjectAccessReview(authorizer), selfSubjectRulesReview(authorizer), subjectAccessReview(authorizer),
	}
}

func review(name, plural string, scope kind.Scope, new func() object.Object, answer func(ctx context.Context, namespace string, obj object.Object) (object.Object, error)) *kind.Definition {
	return &kind.Definition{
		Group: group, Version: "v1", Kind: name, Plural: plural, Scope: scope, Verbs: kind.Create,
		New: new, Virtual: answer,
	}
}

// invalid is the error for a question that is not well put. Parity: it names neither kind nor object; see the corpus,
// verbs/accessreviews.
func invalid(errs field.ErrorList) error {
	return apierrors.NewInvalid(schema.GroupKind{Group: group}, "", errs)
}

// pathQuestion shows attributes in errors by the names of their Go fields, as kube-apiserver does.
type pathQuestion struct{ Path, Verb string }

func shown(a *authorizationv1.NonResourceAttributes) *pathQuestion {
	if a == nil {
		return nil
	}
	return &pathQuestion{a.Path, a.Verb}
}

// validateMetadata: a question has no metadata. What the server itself filled in does not count.
func validateMetadata(meta *metav1.ObjectMeta, namespaced bool) field.ErrorList {
	said := meta.DeepCopy()
	said.CreationTimestamp = metav1.Time{}
	if namespaced {
		said.Namespace = ""
	}
	bare := said.DeepCopy()
	bare.ManagedFields = nil
	if empty(bare) {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("metadata"), *said, "must be empty")}
}

func empty(m *metav1.ObjectMeta) bool {
	return m.Name == "" && m.GenerateName == "" && m.Namespace == "" && m.SelfLink == "" && m.UID == "" && m.ResourceVersion == "" && m.Generation == 0 &&
		m.DeletionTimestamp == nil && m.DeletionGracePeriodSeconds == nil &&
		len(m.Labels)+len(m.Annotations)+len(m.OwnerReferences)+len(m.Finalizers)+len(m.ManagedFields) == 0
}

// validateAttributes: a question is about a resource or a path.
func validateAttributes(resource *authorizationv1.ResourceAttributes, path *authorizationv1.NonResourceAttributes) field.ErrorList {
	spec := field.NewPath("spec")
	if (resource == nil) == (path == nil) {
		return field.ErrorList{field.Invalid(spec, shown(path), "exactly one of nonResourceAttributes or resourceAttributes must be specified")}
	}
	if resource == nil {
		return nil
	}
	return validateSelectors(resource, spec.Child("resourceAttributes"))
}

// answer asks the authorizer and fills a status.
func answer(ctx context.Context, authorizer authz.Authorizer, a *authz.Attributes) authorizationv1.SubjectAccessReviewStatus {
	decision, reason, err := authorizer.Authorize(ctx, a)
	status := authorizationv1.SubjectAccessReviewStatus{Allowed: decision == authz.Allow, Denied: decision == authz.Deny, Reason: reason}
	if err != nil {
		status.EvaluationError = err.Error()
	}
	return status
}

// attributes puts a question in the authorizer's terms. Selectors that cannot be read do not narrow it; the error says so.
func attributes(u *user.Info, resource *authorizationv1.ResourceAttributes, path *authorizationv1.NonResourceAttributes) (*authz.Attributes, error) {
	if resource == nil {
		return &authz.Attributes{User: u, Verb: path.Verb, Path: path.Path}, nil
	}
	a := &authz.Attributes{User: u, Verb: resource.Verb, Group: resource.Group, Version: resource.Version, Resource: resource.Resource,
		Subresource: resource.Subresource, Namespace: resource.Namespace, Name: resource.Name}
	var fields, labels error
	a.Fields, fields = fieldRequirements(resource.FieldSelector)
	a.Labels, labels = labelRequirements(resource.LabelSelector)
	return a, errors.Join(fields, labels)
}

// subject is the user that a question is about.
func subject(spec *authorizationv1.SubjectAccessReviewSpec) *user.Info {
	u := &user.Info{Name: spec.User, UID: spec.UID, Groups: spec.Groups}
	if len(spec.Extra) > 0 {
		u.Extra = map[string][]string{}
		for key, values := range spec.Extra {
			u.Extra[key] = values
		}
	}
	return u
}

// evaluate answers a question; what could not be read about it becomes part of the evaluation error.
func evaluate(ctx context.Context, authorizer authz.Authorizer, u *user.Info, resource *authorizationv1.ResourceAttributes, path *authorizationv1.NonResourceAttributes) authorizationv1.SubjectAccessReviewStatus {
	a, unreadable := attributes(u, resource, path)
	status := answer(ctx, authorizer, a)
	if unreadable != nil {
		if status.EvaluationError != "" {
			status.EvaluationError += ", "
		}
		status.EvaluationError += unreadable.Error()
	}
	return status
}
