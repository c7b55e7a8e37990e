package admission

import (
	"context"
	"fmt"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// cluster is what the built-in plug-ins can see of the cluster.
type cluster struct {
	kind.Reader
	BuiltinOptions
}

// shared reads what nobody changes.
func (c *cluster) shared() kind.Reader {
	if c.Shared != nil {
		return c.Shared
	}
	return c.Reader
}

// found are objects that one plug-in has read for a request and a later one needs again.
type found struct {
	namespace *corev1.Namespace
	account   *corev1.ServiceAccount
	limits    *[]*corev1.LimitRange
}

var (
	namespaces      = schema.GroupResource{Resource: "namespaces"}
	serviceAccounts = schema.GroupResource{Resource: "serviceaccounts"}
	nodes           = schema.GroupResource{Resource: "nodes"}
	pods            = schema.GroupResource{Resource: "pods"}
	limitRanges     = schema.GroupResource{Resource: "limitranges"}
	resourceQuotas  = schema.GroupResource{Resource: "resourcequotas"}
	priorityClasses = schema.GroupResource{Group: "scheduling.k8s.io", Resource: "priorityclasses"}
	runtimeClasses  = schema.GroupResource{Group: "node.k8s.io", Resource: "runtimeclasses"}
	storageClasses  = schema.GroupResource{Group: "storage.k8s.io", Resource: "storageclasses"}
	ingressClasses  = schema.GroupResource{Group: "networking.k8s.io", Resource: "ingressclasses"}
)

// get reads one object. NotFound if there is none.
func get[T object.Object](ctx context.Context, r kind.Reader, resource schema.GroupResource, namespace, name string) (T, error) {
	var none T
	obj, err := r.Get(ctx, resource, namespace, name)
	if err != nil {
		return none, err
	}
	typed, ok := obj.(T)
	if !ok {
		return none, fmt.Errorf("read %s %q: got a %T, want a %T", resource, name, obj, none)
	}
	return typed, nil
}

// list reads all objects of a resource in a namespace, in the order of their names. A resource that the server
// does not have has no objects.
func list[T object.Object](ctx context.Context, r kind.Reader, resource schema.GroupResource, namespace string) ([]T, error) {
	all, err := r.List(ctx, resource, namespace)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil || len(all) == 0 {
		return nil, err
	}
	typed := make([]T, 0, len(all))
	for _, obj := range all {
		one, ok := obj.(T)
		if !ok {
			return nil, fmt.Errorf("list %s: got a %T, want a %T", resource, obj, one)
		}
		typed = append(typed, one)
	}
	return typed, nil
}

// namespace returns the namespace of the request's object, read once a request. It is shared: do not change it.
func (c *cluster) namespace(ctx context.Context, r *Request) (*corev1.Namespace, error) {
	if r.found.namespace == nil {
		n, err := get[*corev1.Namespace](ctx, c.shared(), namespaces, "", r.Namespace)
		if err != nil {
			return nil, err
		}
		r.found.namespace = n
	}
	return r.found.namespace, nil
}

// refresh waits until the Reader shows what was committed before.
func (c *cluster) refresh(ctx context.Context) error {
	if c.Fresh == nil {
		return nil
	}
	return c.Fresh(ctx)
}

// podOf returns the pod of a request about pods, or about one of their subresources given, that has a
// pod as its object; nil for any other.
func podOf(r *Request, subresources ...string) *corev1.Pod {
	if r.Definition.Group != "" || r.Definition.Plural != "pods" {
		return nil
	}
	if r.Subresource != "" {
		known := false
		for _, s := range subresources {
			known = known || s == r.Subresource
		}
		if !known {
			return nil
		}
	}
	p, _ := r.Object.(*corev1.Pod)
	return p
}
