// Package codec turns objects into bytes and back: the stored form, request
// bodies, and every form in which an answer can be asked for.
//
// Promises: a stored version is never decoded to answer a protobuf request, and
// at most once to answer in JSON, whatever the number of readers: the JSON form is kept
// beside the version while it fits in a bounded cache. Lists are assembled from
// the forms of their items.
//
// Does not know: URLs, users, the store. It knows a kind only through its
// kind.Definition. Start reading at stored.go, then encode.go.
package codec

import (
	"fmt"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// MaxBody is the most bytes that a request body may have (limit of
// kube-apiserver, 3 MiB).
const MaxBody = 3 << 20

// message is what the generated types of k8s.io/api implement.
type message interface {
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
	Reset()
	MarshalToSizedBuffer([]byte) (int, error)
	Size() int
}

// IsTree reports whether objects of the definition are trees (custom
// resources) rather than Go types with a protobuf form.
func IsTree(d *kind.Definition) bool { return d.Tree() }

// shapeFor returns how objects of a definition are transcoded, or nil.
func shapeFor(d *kind.Definition) *shape {
	if d.GoType() == nil || d.Convert != nil {
		return nil
	}
	return shapeOf(d.GoType())
}

// SetKind writes apiVersion and kind into a value before it is encoded.
func SetKind(v runtime.Object, gvk schema.GroupVersionKind) {
	v.GetObjectKind().SetGroupVersionKind(gvk)
}

// FromHub and ToHub convert between the version of a definition and the one that
// the engine works on. What they make says which version it is in.
func FromHub(d *kind.Definition, obj object.Object) (object.Object, error) {
	if d.Convert == nil {
		return obj, nil
	}
	out, err := d.Convert.FromHub(obj)
	if err != nil {
		return nil, fmt.Errorf("convert %s to %s: %w", obj.GetName(), d.APIVersion(), err)
	}
	SetKind(out, d.GroupVersionKind())
	return out, nil
}

func ToHub(d *kind.Definition, obj object.Object) (object.Object, error) {
	if d.Convert == nil {
		return obj, nil
	}
	out, err := d.Convert.ToHub(obj)
	if err != nil {
		return nil, fmt.Errorf("convert %s from %s: %w", obj.GetName(), d.APIVersion(), err)
	}
	SetKind(out, d.Hub().GroupVersionKind())
	return out, nil
}

// partial is the metadata of an object as an object of its own.
func partial(obj metav1.Object) *metav1.PartialObjectMetadata {
	p := &metav1.PartialObjectMetadata{}
	p.ObjectMeta = metav1.ObjectMeta{
		Name:                       obj.GetName(),
		GenerateName:               obj.GetGenerateName(),
		Namespace:                  obj.GetNamespace(),
		UID:                        obj.GetUID(),
		ResourceVersion:            obj.GetResourceVersion(),
		Generation:                 obj.GetGeneration(),
		CreationTimestamp:          obj.GetCreationTimestamp(),
		DeletionTimestamp:          obj.GetDeletionTimestamp(),
		DeletionGracePeriodSeconds: obj.GetDeletionGracePeriodSeconds(),
		Labels:                     obj.GetLabels(),
		Annotations:                obj.GetAnnotations(),
		OwnerReferences:            obj.GetOwnerReferences(),
		Finalizers:                 obj.GetFinalizers(),
		ManagedFields:              obj.GetManagedFields(),
	}
	return p
}
