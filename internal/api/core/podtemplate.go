package core

import (
	"github.com/timonel/timonel/internal/api/podspec"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// PodTemplate is a pod to be made from, on its own.
func podTemplate(rules podspec.Rules) *kind.Definition {
	path := field.NewPath("template")
	return &kind.Definition{
		Version: "v1", Kind: "PodTemplate", Plural: "podtemplates",
		Scope: kind.Namespaced, Verbs: kind.Standard,
		New:     kind.Of[corev1.PodTemplate](),
		Default: kind.Default(func(t *corev1.PodTemplate) { podspec.DefaultTemplate(&t.Template) }),
		PrepareCreate: kind.Prepare(func(t *corev1.PodTemplate) {
			rules.DropDisabled(&t.Template.Spec, nil)
		}),
		PrepareUpdate: kind.PrepareUpdate(func(t, old *corev1.PodTemplate) {
			rules.DropDisabled(&t.Template.Spec, &old.Template.Spec)
		}),
		Generation: kind.Changed(func(t, old *corev1.PodTemplate) bool { return !object.Equal(&t.Template, &old.Template) }),
		Validate: kind.Validate(func(t *corev1.PodTemplate) field.ErrorList {
			return podspec.ValidateTemplate(&t.Template, rules, path)
		}),
		ValidateUpdate: kind.ValidateUpdate(func(t, old *corev1.PodTemplate) field.ErrorList {
			return podspec.ValidateTemplateUpdate(&t.Template, &old.Template, rules, path)
		}),
		Warnings: kind.Warn(func(t, old *corev1.PodTemplate) []string {
			if old != nil && podspec.Unchanged(t, old) {
				return nil
			}
			return podspec.WarnTemplate(&t.Template, path)
		}),
		ReturnsDeleted: true,
		Columns: kind.Columns{
			{Name: "Containers", Description: show.ContainersText, Of: kind.Cell(func(t *corev1.PodTemplate) any {
				names, _ := show.Containers(t.Template.Spec.Containers)
				return names
			})},
			{Name: "Images", Description: show.ImagesText, Of: kind.Cell(func(t *corev1.PodTemplate) any {
				_, images := show.Containers(t.Template.Spec.Containers)
				return images
			})},
			{Name: "Pod Labels", Description: "The labels for the pod template.", Of: kind.Cell(func(t *corev1.PodTemplate) any { return show.Labels(t.Template.Labels) })},
		},
		ColumnFields: []string{"template.metadata.labels", "template.spec.containers.name", "template.spec.containers.image"},
	}
}
