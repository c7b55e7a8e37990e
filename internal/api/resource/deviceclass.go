package resource

import (
	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// DeviceClass is a kind of device with settings for its driver.
func deviceClass(c checker) *kind.Definition {
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "DeviceClass", Plural: "deviceclasses",
		Scope: kind.Cluster, Verbs: kind.Standard,
		New:        kind.Of[resourcev1.DeviceClass](),
		Generation: kind.Changed(func(d, old *resourcev1.DeviceClass) bool { return !object.Equal(&d.Spec, &old.Spec) }),
		Validate:   kind.Validate(c.deviceClass),
		ValidateUpdate: kind.ValidateUpdate(func(d, old *resourcev1.DeviceClass) field.ErrorList {
			return c.knows(old.Spec.Selectors).deviceClass(d)
		}),
		ReturnsDeleted: true,
		Columns:        kind.Columns{kind.Age},
		ColumnFields:   []string{},
	}
}

func (c checker) deviceClass(d *resourcev1.DeviceClass) field.ErrorList {
	spec := field.NewPath("spec")
	errs := c.selectors(d.Spec.Selectors, spec.Child("selectors"))
	config := spec.Child("config")
	errs = append(errs, tooMany(len(d.Spec.Config), resourcev1.DeviceConfigMaxSize, config)...)
	for i := range d.Spec.Config {
		errs = append(errs, configuration(d.Spec.Config[i].Opaque, config.Index(i))...)
	}
	if name := d.Spec.ExtendedResourceName; name != nil {
		errs = append(errs, check.RequiredSpelled(*name, spec.Child("extendedResourceName"), validate.ExtendedResourceName)...)
	}
	return errs
}
