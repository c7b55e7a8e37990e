package storage

import (
	"maps"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// VolumeAttributesClass is a set of properties that volumes can be given while they exist (KEP-3751).
func volumeAttributesClass() *kind.Definition {
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "VolumeAttributesClass", Plural: "volumeattributesclasses", ShortNames: []string{"vac"},
		Scope: kind.Cluster, Verbs: kind.Standard,
		New:      kind.Of[storagev1.VolumeAttributesClass](),
		Validate: kind.Validate(validateAttributesClass),
		ValidateUpdate: kind.ValidateUpdate(func(c, old *storagev1.VolumeAttributesClass) field.ErrorList {
			errs := validateAttributesClass(c)
			if c.DriverName != old.DriverName {
				errs = append(errs, field.Forbidden(field.NewPath("driverName"), "updates to driverName are forbidden."))
			}
			if !maps.Equal(c.Parameters, old.Parameters) {
				errs = append(errs, field.Forbidden(field.NewPath("parameters"), "updates to parameters are forbidden."))
			}
			return errs
		}),
		ReturnsDeleted: true,
		Columns: kind.Columns{
			{Name: "DriverName", Description: storagev1.VolumeAttributesClass{}.SwaggerDoc()["driverName"], Of: kind.Cell(func(c *storagev1.VolumeAttributesClass) any {
				return c.DriverName
			})},
			kind.Age,
		},
		ColumnFields: []string{"driverName"},
	}
}

func validateAttributesClass(c *storagev1.VolumeAttributesClass) field.ErrorList {
	errs := check.RequiredForm(c.DriverName, field.NewPath("driverName"), driverForm)
	return append(errs, checkParameters(c.Parameters, true)...)
}
