package kind

import (
	"context"

	"github.com/timonel/timonel/internal/object"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The functions below let a kind's file be written in terms of its Go type:
//
//	New:      kind.Of[coordinationv1.Lease](),
//	Validate: kind.Validate(validateLease), // func(*coordinationv1.Lease) field.ErrorList

// Of returns a function that makes an empty T.
func Of[T any, P interface {
	*T
	object.Object
}]() func() object.Object {
	return func() object.Object { return P(new(T)) }
}

// Default adapts a defaulting function of a type.
func Default[P object.Object](f func(P)) func(object.Object) {
	return func(obj object.Object) { f(obj.(P)) }
}

// Prepare adapts a function that prepares a new object.
func Prepare[P object.Object](f func(P)) func(context.Context, object.Object) {
	return func(_ context.Context, obj object.Object) { f(obj.(P)) }
}

// PrepareUpdate adapts a function that prepares an update: f(obj, old).
func PrepareUpdate[P object.Object](f func(obj, old P)) func(context.Context, object.Object, object.Object) {
	return func(_ context.Context, obj, old object.Object) { f(obj.(P), old.(P)) }
}

// Validate adapts a validation function of a type.
func Validate[P object.Object](f func(P) field.ErrorList) func(context.Context, object.Object) field.ErrorList {
	return func(_ context.Context, obj object.Object) field.ErrorList { return f(obj.(P)) }
}

// ValidateUpdate adapts a validation function of an update: f(obj, old).
func ValidateUpdate[P object.Object](f func(obj, old P) field.ErrorList) func(context.Context, object.Object, object.Object) field.ErrorList {
	return func(_ context.Context, obj, old object.Object) field.ErrorList { return f(obj.(P), old.(P)) }
}

// Warn adapts a function that warns; old is nil on create.
func Warn[P object.Object](f func(obj, old P) []string) func(context.Context, object.Object, object.Object) []string {
	return func(_ context.Context, obj, old object.Object) []string {
		before, _ := old.(P)
		return f(obj.(P), before)
	}
}

// Changed adapts a comparison, for Definition.Generation: f(obj, old).
func Changed[P object.Object](f func(obj, old P) bool) func(object.Object, object.Object) bool {
	return func(obj, old object.Object) bool { return f(obj.(P), old.(P)) }
}

// Cell adapts a function that makes a table cell.
func Cell[P object.Object](f func(P) any) func(object.Object) any {
	return func(obj object.Object) any { return f(obj.(P)) }
}

// Status is the usual status subresource: prepare keeps from old everything that
// a status write may not change (as a rule spec), validate checks the update.
func Status[P object.Object](prepare func(obj, old P), validate func(obj, old P) field.ErrorList) *Subresource {
	v := &View{Prepare: PrepareUpdate(prepare), ResetFields: []string{"spec"}}
	if validate != nil {
		v.Validate = ValidateUpdate(validate)
	}
	return &Subresource{Verbs: ReadWrite, View: v}
}

// Resetting adds fields, besides spec, that the subresource takes back from who writes them, and so are not owned through it.
func (s *Subresource) Resetting(paths ...string) *Subresource {
	s.View.ResetFields = append(s.View.ResetFields, paths...)
	return s
}

// StatusOnly is Status for the kinds whose metadata, too, a status write may not change, besides
// the managed fields.
func StatusOnly[P object.Object](prepare func(obj, old P), validate func(obj, old P) field.ErrorList) *Subresource {
	s := Status(func(obj, old P) {
		prepare(obj, old)
		KeepMetadata(obj, old)
	}, validate)
	s.View.ResetFields = []string{"spec", "metadata"}
	return s
}

// KeepMetadata copies the metadata of old to obj, all but the managed fields and the resourceVersion that obj claims to replace.
func KeepMetadata(obj, old object.Object) {
	obj.SetLabels(old.GetLabels())
	obj.SetAnnotations(old.GetAnnotations())
	obj.SetFinalizers(old.GetFinalizers())
	obj.SetOwnerReferences(old.GetOwnerReferences())
}
