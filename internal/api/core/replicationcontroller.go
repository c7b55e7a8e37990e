package core

import (
	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/podspec"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// ReplicationController keeps a number of pods running; ReplicaSet is its successor.
func replicationController(rules podspec.Rules) *kind.Definition {
	spec, status := corev1.ReplicationControllerSpec{}.SwaggerDoc(), corev1.ReplicationControllerStatus{}.SwaggerDoc()
	template := field.NewPath("spec", "template")
	return &kind.Definition{
		Version: "v1", Kind: "ReplicationController", Plural: "replicationcontrollers", ShortNames: []string{"rc"}, Categories: []string{"all"},
		Scope: kind.Namespaced, Verbs: kind.Standard,
		Stored:  kind.Stored{Prefix: "controllers"},
		New:     kind.Of[corev1.ReplicationController](),
		Default: kind.Default(defaultReplicationController),
		PrepareCreate: kind.Prepare(func(c *corev1.ReplicationController) {
			c.Status = corev1.ReplicationControllerStatus{}
			if c.Spec.Template != nil {
				rules.DropDisabled(&c.Spec.Template.Spec, nil)
			}
		}),
		PrepareUpdate: kind.PrepareUpdate(func(c, old *corev1.ReplicationController) {
			c.Status = old.Status
			if c.Spec.Template != nil && old.Spec.Template != nil {
				rules.DropDisabled(&c.Spec.Template.Spec, &old.Spec.Template.Spec)
			}
		}),
		Generation: kind.Changed(func(c, old *corev1.ReplicationController) bool { return !object.Equal(&c.Spec, &old.Spec) }),
		Validate: kind.Validate(func(c *corev1.ReplicationController) field.ErrorList {
			return validateReplicationController(c, nil, rules)
		}),
		ValidateUpdate: kind.ValidateUpdate(func(c, old *corev1.ReplicationController) field.ErrorList {
			return validateReplicationController(c, old.Spec.Template, rules)
		}),
		Warnings: kind.Warn(func(c, old *corev1.ReplicationController) []string {
			switch {
			case old == nil:
				return append(podspec.WarnName(c.Name), podspec.WarnTemplate(c.Spec.Template, template)...)
			case podspec.Unchanged(c, old):
				return nil
			}
			return podspec.WarnTemplate(c.Spec.Template, template)
		}),
		OrphanByDefault: true,
		Fields:          []kind.Field{{Label: "status.replicas"}},
		FieldsUnknown:   labelNotSupported,
		Columns: kind.Columns{
			{Name: "Desired", Type: "integer", Description: spec["replicas"], Of: kind.Cell(func(c *corev1.ReplicationController) any { return int64(ptr.Deref(c.Spec.Replicas, 0)) })},
			{Name: "Current", Type: "integer", Description: status["replicas"], Of: kind.Cell(func(c *corev1.ReplicationController) any { return int64(c.Status.Replicas) })},
			{Name: "Ready", Type: "integer", Description: status["readyReplicas"], Of: kind.Cell(func(c *corev1.ReplicationController) any { return int64(c.Status.ReadyReplicas) })},
			kind.Age,
			{Name: "Containers", Wide: true, Description: show.ContainersText, Of: kind.Cell(func(c *corev1.ReplicationController) any {
				names, _ := templateContainers(c)
				return names
			})},
			{Name: "Images", Wide: true, Description: show.ImagesText, Of: kind.Cell(func(c *corev1.ReplicationController) any {
				_, images := templateContainers(c)
				return images
			})},
			{Name: "Selector", Wide: true, Description: spec["selector"], Of: kind.Cell(func(c *corev1.ReplicationController) any { return show.Labels(c.Spec.Selector) })},
		},
		ColumnFields: []string{
			"spec.replicas", "spec.selector", "spec.template.metadata.labels", "spec.template.spec.containers.name", "spec.template.spec.containers.image",
			"status.replicas", "status.readyReplicas",
		},
		Subresources: map[string]*kind.Subresource{
			"status": kind.Status(func(c, old *corev1.ReplicationController) { c.Spec = old.Spec }, validateReplicationControllerStatus),
			"scale": {Verbs: kind.ReadWrite, Scale: &kind.Scale{
				Get: func(obj object.Object) (int32, int32, string, error) {
					c := obj.(*corev1.ReplicationController)
					return ptr.Deref(c.Spec.Replicas, 0), c.Status.Replicas, labels.SelectorFromSet(c.Spec.Selector).String(), nil
				},
				Set: func(obj object.Object, replicas int32) error {
					obj.(*corev1.ReplicationController).Spec.Replicas = &replicas
					return nil
				},
				ReplicasPath: []string{"spec", "replicas"},
			}},
		},
	}
}

func templateContainers(c *corev1.ReplicationController) (names, images string) {
	if c.Spec.Template == nil {
		return "", ""
	}
	return show.Containers(c.Spec.Template.Spec.Containers)
}

// defaultReplicationController takes what is missing from the labels of the template.
func defaultReplicationController(c *corev1.ReplicationController) {
	if c.Spec.Replicas == nil {
		c.Spec.Replicas = ptr.To[int32](1)
	}
	t := c.Spec.Template
	if t == nil {
		return
	}
	podspec.DefaultTemplate(t)
	if len(t.Labels) > 0 {
		if len(c.Spec.Selector) == 0 {
			c.Spec.Selector = copyLabels(t.Labels)
		}
		if len(c.Labels) == 0 {
			c.Labels = copyLabels(t.Labels)
		}
	}
}

func copyLabels(m map[string]string) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[k] = v
	}
	return out
}

func validateReplicationController(c *corev1.ReplicationController, old *corev1.PodTemplateSpec, rules podspec.Rules) field.ErrorList {
	path := field.NewPath("spec")
	var errs field.ErrorList
	if len(c.Spec.Selector) == 0 {
		errs = append(errs, field.Required(path.Child("selector"), ""))
	}
	if c.Spec.Template == nil {
		errs = append(errs, field.Required(path.Child("template"), ""))
	} else {
		errs = append(errs, podspec.ValidateLongRunning(c.Spec.Template, old, labels.SelectorFromSet(c.Spec.Selector), "ReplicationController", rules, path.Child("template"))...)
	}
	// Rules that the type itself declares come last.
	errs = append(errs, check.NonNegativePtr(c.Spec.Replicas, path.Child("replicas"))...)
	return append(errs, check.NonNegative(c.Spec.MinReadySeconds, path.Child("minReadySeconds"))...)
}

func validateReplicationControllerStatus(c, _ *corev1.ReplicationController) field.ErrorList {
	s := c.Status
	path := field.NewPath("status")
	errs := check.NonNegative(s.Replicas, path.Child("replicas"))
	errs = append(errs, check.NonNegative(s.FullyLabeledReplicas, path.Child("fullyLabeledReplicas"))...)
	errs = append(errs, check.NonNegative(s.ReadyReplicas, path.Child("readyReplicas"))...)
	errs = append(errs, check.NonNegative(s.AvailableReplicas, path.Child("availableReplicas"))...)
	errs = append(errs, check.NonNegative(s.ObservedGeneration, path.Child("observedGeneration"))...)
	most := func(n, limit int32, name, of string) {
		if n > limit {
			errs = append(errs, field.Invalid(path.Child(name), n, "cannot be greater than "+of))
		}
	}
	most(s.FullyLabeledReplicas, s.Replicas, "fullyLabeledReplicas", "status.replicas")
	most(s.ReadyReplicas, s.Replicas, "readyReplicas", "status.replicas")
	most(s.AvailableReplicas, s.Replicas, "availableReplicas", "status.replicas")
	most(s.AvailableReplicas, s.ReadyReplicas, "availableReplicas", "readyReplicas")
	return errs
}
