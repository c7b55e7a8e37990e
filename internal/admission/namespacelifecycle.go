package admission

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// deletedNamespaceMemory is how long a deletion makes the reads of its namespace fresh ones.
	deletedNamespaceMemory = 30 * time.Second
	// maxDeletedNamespaces bounds that memory; beyond it the oldest are forgotten.
	maxDeletedNamespaces = 1024
)

// namespaceLifecycle keeps the namespaces of the system, and refuses new objects in a namespace that does not exist or
// is on its way out.
func (c *cluster) namespaceLifecycle() Plugin {
	deleted := &recently{}
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
			deleted.add(r.Name, time.Now())
			return nil
		case r.Namespace == "", r.Operation == Delete, r.Definition.Group == "authorization.k8s.io" && r.Definition.Plural == "localsubjectaccessreviews":
			return nil
		}
		if deleted.has(r.Namespace, time.Now()) {
			if err := c.refresh(ctx); err != nil {
				return err
			}
		}
		n, err := c.namespace(ctx, r)
		if err != nil {
			return err
		}
		if r.Operation == Create && n.Status.Phase == corev1.NamespaceTerminating {
			return terminating(r)
		}
		return nil
	}}
}

func terminating(r *Request) error {
	err := r.Forbidden("unable to create new content in namespace %s because it is being terminated", r.Namespace).(*apierrors.StatusError)
	err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{
		Type: corev1.NamespaceTerminatingCause, Message: fmt.Sprintf("namespace %s is being terminated", r.Namespace), Field: "metadata.namespace",
	})
	return err
}

// sleep waits, or says that the request ended first.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return apierrors.NewTimeoutError("the request ended while admission waited", 1)
	}
}

// recently remembers names for a while.
type recently struct {
	sync.Mutex
	at    map[string]time.Time
	order []string // oldest first; may name what has been forgotten
}

func (m *recently) add(name string, now time.Time) {
	m.Lock()
	defer m.Unlock()
	if m.at == nil {
		m.at = map[string]time.Time{}
	}
	if _, known := m.at[name]; !known {
		m.order = append(m.order, name)
	}
	m.at[name] = now
	for len(m.order) > 0 && (len(m.order) > maxDeletedNamespaces || now.Sub(m.at[m.order[0]]) > deletedNamespaceMemory) {
		delete(m.at, m.order[0])
		m.order = m.order[1:]
	}
}

func (m *recently) has(name string, now time.Time) bool {
	m.Lock()
	defer m.Unlock()
	at, ok := m.at[name]
	return ok && now.Sub(at) <= deletedNamespaceMemory
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
