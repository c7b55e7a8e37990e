package authz

import (
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Forbidden is the 403 for a request that was not allowed; reason may be empty.
func Forbidden(a *Attributes, reason string) *apierrors.StatusError {
	text := a.denied()
	if reason != "" {
		text += ": " + reason
	}
	return apierrors.NewForbidden(schema.GroupResource{Group: a.Group, Resource: a.Resource}, a.Name, fmt.Errorf("%s", text))
}

func (a *Attributes) denied() string {
	if !a.IsResource() {
		return fmt.Sprintf("User %q cannot %s path %q", a.User.Name, a.Verb, a.Path)
	}
	resource := a.Resource
	if a.Subresource != "" {
		resource += "/" + a.Subresource
	}
	text := fmt.Sprintf("User %q cannot %s resource %q in API group %q", a.User.Name, a.Verb, resource, a.Group)
	if a.Namespace != "" {
		return text + fmt.Sprintf(" in the namespace %q", a.Namespace)
	}
	return text + " at the cluster scope"
}
