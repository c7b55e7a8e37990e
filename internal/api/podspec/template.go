package podspec

import (
	"context"

	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Template finds the pod template in the objects of a kind that has one, for what such kinds have in common.
type Template[P object.Object] func(P) *corev1.PodTemplateSpec

// Warnings are what [WarnTemplate] says of the template, for kind.Definition.Warnings: of a new object, and of one that is not what it was.
func (t Template[P]) Warnings(path *field.Path) func(ctx context.Context, obj, old object.Object) []string {
	return func(_ context.Context, obj, old object.Object) []string {
		if Unchanged(obj, old) {
			return nil
		}
		return WarnTemplate(t(obj.(P)), path)
	}
}

// NamedWarnings is Warnings for a kind whose pods' host names begin with its name.
func (t Template[P]) NamedWarnings(path *field.Path) func(ctx context.Context, obj, old object.Object) []string {
	template := t.Warnings(path)
	return func(ctx context.Context, obj, old object.Object) []string {
		if old != nil {
			return template(ctx, obj, old)
		}
		return append(WarnName(obj.GetName()), template(ctx, obj, nil)...)
	}
}

// Unchanged reports whether an update leaves what is wanted as it was.
func Unchanged(obj, old object.Object) bool {
	return old != nil && obj.GetGeneration() == old.GetGeneration()
}

// Columns show the names and images of the containers in wide tables.
func (t Template[P]) Columns() kind.Columns {
	return kind.Columns{
		{Name: "Containers", Wide: true, Description: show.ContainersText, Of: kind.Cell(func(p P) any {
			names, _ := show.Containers(t(p).Spec.Containers)
			return names
		})},
		{Name: "Images", Wide: true, Description: show.ImagesText, Of: kind.Cell(func(p P) any {
			_, images := show.Containers(t(p).Spec.Containers)
			return images
		})},
	}
}

// New and Update drop what [Rules.DropDisabled] drops from the template.
func (t Template[P]) New(p P, rules Rules) { rules.DropDisabled(&t(p).Spec, nil) }

// Update is documented at New.
func (t Template[P]) Update(p, old P, rules Rules) { rules.DropDisabled(&t(p).Spec, &t(old).Spec) }
