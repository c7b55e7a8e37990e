package admission

import (
	"context"
	"fmt"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// namespaceLifecycle keeps the namespaces of the system, and refuses new objects in a namespace that does not exist or
// is on its way out. Who empties a namespace that ends relies on it: when its end has begun, nothing comes any more.
func (c *cluster) namespaceLifecycle() Plugin {
	return Plugin{Name: "NamespaceLifecycle", Change: func(ctx context.Context, r *Request) error {
		switch {
		case r.Operation == Connect:
			return nil
		case r.Definition.Group == "" && r.Definition.Plural == "namespaces":
			if r.Operation != Delete {
				return nil
			}
			switch r.Name {
			case metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic:
				return r.Forbidden("this namespace may not be deleted")
			}
			return nil
		case r.Namespace == "", r.Operation == Delete, r.Definition.Group == "authorization.k8s.io" && r.Definition.Plural == "localsubjectaccessreviews":
			return nil
		}
		n, err := c.namespace(ctx, r)
		if err == nil && r.Operation == Create && n.Status.Phase == corev1.NamespaceTerminating { // unless it was made again meanwhile
			if err = c.refresh(ctx); err == nil {
				r.found.namespace = nil
				n, err = c.namespace(ctx, r)
			}
		}
		if err != nil || r.Operation != Create {
			return err
		}
		active := func(obj object.Object) error {
			if n, ok := obj.(*corev1.Namespace); ok && n.Status.Phase == corev1.NamespaceTerminating {
				return terminating(r)
			}
			return nil
		}
		r.Premises = append(r.Premises, kind.Premise{Resource: namespaces, Name: n.Name, Version: n.ResourceVersion, Judge: active})
		return active(n)
	}}
}

func terminating(r *Request) error {
	err := r.Forbidden("unable to create new content in namespace %s because it is being terminated", r.Namespace).(*apierrors.StatusError)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
		Type: corev1.NamespaceTerminatingCause, Message: fmt.Sprintf("namespace %s is being terminated", r.Namespace), Field: "metadata.namespace",
	})
	return err
}

// namespaceExists refuses everything in a namespace that does not exist.
func (c *cluster) namespaceExists() Plugin {
	return Plugin{Name: "NamespaceExists", Check: func(ctx context.Context, r *Request) error {
		if r.Namespace == "" || r.Operation == Connect || r.Definition.Group == "" && r.Definition.Plural == "namespaces" {
			return nil
		}
		_, err := c.namespace(ctx, r)
		return err
	}}
}

// namespaceAutoProvision makes the namespace of a new object if there is none.
func (c *cluster) namespaceAutoProvision() Plugin {
	return Plugin{Name: "NamespaceAutoProvision", Change: func(ctx context.Context, r *Request) error {
		if r.Operation != Create || r.DryRun || r.Namespace == "" || r.Definition.Group == "" && r.Definition.Plural == "namespaces" {
			return nil
		}
		_, err := c.namespace(ctx, r)
		if !apierrors.IsNotFound(err) {
			return err
		}
		n := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: r.Namespace}}
		if _, err := c.Objects.Create(ctx, namespaces, n); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
		return c.refresh(ctx)
	}}
}
