// Package node holds the kinds of node.k8s.io: RuntimeClass.
package node

import (
	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/podspec"
	"github.com/timonel/timonel/internal/kind"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Definitions lists the kinds of the group.
func Definitions() []*kind.Definition {
	return []*kind.Definition{runtimeClass()}
}

// RuntimeClass is a name for a way in which a node runs containers.
func runtimeClass() *kind.Definition {
	return &kind.Definition{
		Group: nodev1.GroupName, Version: "v1", Kind: "RuntimeClass", Plural: "runtimeclasses",
		Scope: kind.Cluster, Verbs: kind.Standard, CreateOnPut: true, MustMatch: true,
		New:     kind.Of[nodev1.RuntimeClass](),
		Default: kind.Default(defaultRuntimeClass),
		Validate: kind.Validate(func(c *nodev1.RuntimeClass) field.ErrorList {
			return append(validateRuntimeClass(c), check.RequiredForm(c.Handler, field.NewPath("handler"), check.Label)...)
		}),
		ValidateUpdate: kind.ValidateUpdate(validateRuntimeClassUpdate),
		Columns: kind.Columns{
			{Name: "Handler", Of: kind.Cell(func(c *nodev1.RuntimeClass) any { return c.Handler })},
			kind.Age,
		},
		ColumnFields: []string{"handler"},
	}
}

func defaultRuntimeClass(c *nodev1.RuntimeClass) {
	if c.Overhead != nil {
		podspec.RoundUp(c.Overhead.PodFixed)
	}
}

// validateRuntimeClass checks everything but the handler, which is given once, and reported last.
func validateRuntimeClass(c *nodev1.RuntimeClass) field.ErrorList {
	var errs field.ErrorList
	if c.Overhead != nil {
		errs = append(errs, podspec.ValidateOverhead(c.Overhead.PodFixed, field.NewPath("overhead"))...)
	}
	if c.Scheduling != nil {
		errs = append(errs, validateScheduling(c.Scheduling, field.NewPath("scheduling"))...)
	}
	return errs
}

func validateScheduling(s *nodev1.Scheduling, path *field.Path) field.ErrorList {
	errs := check.Labels(s.NodeSelector, path.Child("nodeSelector"))
	tolerations := path.Child("tolerations")
	errs = append(errs, podspec.ValidateTolerations(s.Tolerations, tolerations)...)
	for i, t := range s.Tolerations {
		for _, earlier := range s.Tolerations[:i] {
			if earlier.MatchToleration(&t) {
				errs = append(errs, field.Duplicate(tolerations.Index(i), check.GoNames(t)))
				break
			}
		}
	}
	return errs
}

func validateRuntimeClassUpdate(c, old *nodev1.RuntimeClass) field.ErrorList {
	return append(validateRuntimeClass(c), check.Unchanged(c.Handler, old.Handler, field.NewPath("handler"))...)
}
