package apitest

import (
	"context"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Shelf is a kind.Objects in memory: what a job finds, and what it leaves behind. What is deleted goes at once.
type Shelf map[string]object.Object

// Place is where an object is on a shelf.
func Place(r schema.GroupResource, namespace, name string) string {
	return r.String() + " " + object.Key(namespace, name)
}

func (s Shelf) Put(r schema.GroupResource, obj object.Object) {
	s[Place(r, obj.GetNamespace(), obj.GetName())] = obj
}

func (s Shelf) Get(_ context.Context, r schema.GroupResource, namespace, name string) (object.Object, error) {
	if obj := s[Place(r, namespace, name)]; obj != nil {
		return object.Copy(obj), nil
	}
	return nil, apierrors.NewNotFound(r, name)
}

func (s Shelf) List(_ context.Context, r schema.GroupResource, namespace string) ([]object.Object, error) {
	var keys []string
	for k, obj := range s {
		if strings.HasPrefix(k, r.String()+" ") && (namespace == "" || obj.GetNamespace() == namespace) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	var list []object.Object
	for _, k := range keys {
		list = append(list, object.Copy(s[k]))
	}
	return list, nil
}

func (s Shelf) Change(ctx context.Context, r schema.GroupResource, namespace, name string, change func(object.Object) error, options kind.ChangeOptions) (object.Object, error) {
	obj, err := s.Get(ctx, r, namespace, name)
	if err != nil {
		return nil, err
	}
	if err := change(obj); err != nil {
		return nil, err
	}
	if !options.DryRun {
		s[Place(r, namespace, name)] = obj // it may bear no name itself
	}
	return obj, nil
}

func (s Shelf) Create(_ context.Context, r schema.GroupResource, obj object.Object) (object.Object, error) {
	s.Put(r, obj)
	return obj, nil
}

func (s Shelf) Delete(ctx context.Context, r schema.GroupResource, namespace, name string, options metav1.DeleteOptions) error {
	if _, err := s.Get(ctx, r, namespace, name); err != nil {
		return err
	}
	if len(options.DryRun) == 0 {
		delete(s, Place(r, namespace, name))
	}
	return nil
}
