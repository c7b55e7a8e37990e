// Package object is the value that every layer passes: an API object with its
// metadata.
//
// Built-in kinds are the Go types of k8s.io/api; custom resources are
// *unstructured.Unstructured. Both satisfy [Object] as they are, so no layer
// needs to know which it holds.
//
// Does not know: kinds, encodings, storage.
package object

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Object is an API object: a type that can be copied and that carries
// ObjectMeta (Kubernetes API conventions, "Objects").
type Object interface {
	runtime.Object
	metav1.Object
}

// Copy returns a deep copy of o with its Go type kept.
func Copy[T Object](o T) T { return o.DeepCopyObject().(T) }

// Key is the part of a storage key that names an object inside its resource:
// "namespace/name", or "name" for a cluster-scoped object.
func Key(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}
