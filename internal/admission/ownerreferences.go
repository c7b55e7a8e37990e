package admission

import (
	"context"
	"fmt"

	"github.com/timonel/timonel/internal/authz"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
)

// ownerReferencesPermissionEnforcement wants whoever changes the owners of an object to be allowed to delete it, and
// whoever lets it block the deletion of an owner to be allowed to update that owner's finalizers.
func (c *cluster) ownerReferencesPermissionEnforcement() Plugin {
	return Plugin{Name: "OwnerReferencesPermissionEnforcement", Check: func(ctx context.Context, r *Request) error {
		if r.Operation != Create && r.Operation != Update || r.Object == nil || r.Is("", "pods") && r.Subresource == "status" {
			return nil
		}
		owners := r.Object.GetOwnerReferences()
		var before []metav1.OwnerReference
		if r.Old != nil {
			before = r.Old.GetOwnerReferences()
		}
		if len(owners) == 0 && len(before) == 0 || equality.Semantic.DeepEqual(owners, before) {
			return nil
		}
		if r.Operation == Update {
			decision, reason, err := c.Authorizer.Authorize(ctx, &authz.Attributes{
				User: r.User, Verb: "delete", Group: r.Definition.Group, Version: r.Definition.Version, Resource: r.Definition.Plural,
				Namespace: r.Namespace, Name: r.Name,
			})
			if decision != authz.Allow {
				return r.Forbidden("cannot set an ownerRef on a resource you can't delete: %v, %v", reason, err)
			}
		}
		for i := range owners {
			if !ptr.Deref(owners[i].BlockOwnerDeletion, false) || blockedBefore(before, &owners[i]) {
				continue
			}
			if err := c.checkBlocking(ctx, r, &owners[i]); err != nil {
				return err
			}
		}
		return nil
	}}
}

// blockedBefore reports whether the object blocked the deletion of that owner already.
func blockedBefore(before []metav1.OwnerReference, owner *metav1.OwnerReference) bool {
	for i := range before {
		if before[i].UID == owner.UID && ptr.Deref(before[i].BlockOwnerDeletion, false) {
			return true
		}
	}
	return false
}

func (c *cluster) checkBlocking(ctx context.Context, r *Request, owner *metav1.OwnerReference) error {
	version, err := schema.ParseGroupVersion(owner.APIVersion)
	if err != nil {
		return r.Forbidden("cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion %v Kind %v: %w", owner.APIVersion, owner.Kind, err)
	}
	definition := c.Catalog.Catalog().Kind(version.WithKind(owner.Kind))
	if definition == nil {
		return r.Forbidden("cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion %v Kind %v: %w", owner.APIVersion, owner.Kind,
			fmt.Errorf("no matches for kind %q in version %q", owner.Kind, owner.APIVersion))
	}
	attributes := &authz.Attributes{
		User: r.User, Verb: "update", Group: definition.Group, Version: definition.Version, Resource: definition.Plural, Subresource: "finalizers", Name: owner.Name,
	}
	if definition.Namespaced() {
		attributes.Namespace = r.Namespace
	}
	decision, reason, err := c.Authorizer.Authorize(ctx, attributes)
	if decision != authz.Allow {
		return r.Forbidden("cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: %v, %v", reason, err)
	}
	return nil
}
