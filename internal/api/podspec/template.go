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

// Warnings are what [WarnTemplate] says of the template, for kind.Definition.Warnings.
func (t Template[P]) Warnings(path *field.Path) func(ctx context.Context, obj, old object.Object) []string {
	return func(_ context.Context, obj, old object.Object) []string {
		var before *corev1.PodTemplateSpec
		if p, ok := old.(P); ok {
			before = t(p)
		}
		return WarnTemplate(t(obj.(P)), before, path)
	}
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

// New and Update drop what [DropDisabled] drops from the template.
func (t Template[P]) New(p P) { DropDisabled(&t(p).Spec, nil) }

// Update is documented at New.
func (t Template[P]) Update(p, old P) { DropDisabled(&t(p).Spec, &t(old).Spec) }
