// Package storage holds the kinds of storage.k8s.io, which say how volumes are made, attached and mounted: StorageClass and
// VolumeAttributesClass for users, the others for CSI drivers. A file each.
//
// Promises: every function is pure. Start reading at storageclass.go.
package storage

import (
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const group = storagev1.GroupName

// Bounds on the parameters of a class.
const (
	maxParameters     = 512
	maxParametersSize = 256 << 10 // bytes of keys and values together
)

// Definitions lists the kinds of the group in alphabetical order, as discovery does.
func Definitions() []*kind.Definition {
	return []*kind.Definition{
		csiDriver(), csiNode(), csiStorageCapacity(), storageClass(), volumeAttachment(), volumeAttributesClass(),
	}
}

// driverForm is the form of the name by which a class calls its driver.
func driverForm(name string) []string { return check.QualifiedName(strings.ToLower(name)) }

// checkParameters checks what a class tells its driver.
func checkParameters(parameters map[string]string, required bool) field.ErrorList {
	path := field.NewPath("parameters")
	var errs field.ErrorList
	if required && len(parameters) == 0 {
		errs = append(errs, field.Required(path, "must contain at least one key/value pair"))
	}
	if len(parameters) > maxParameters {
		return append(errs, field.TooLong(path, "", maxParameters))
	}
	size := 0
	for _, k := range check.Sorted(parameters) {
		if k == "" {
			errs = append(errs, field.Invalid(path, k, "field can not be empty."))
		}
		size += len(k) + len(parameters[k])
	}
	if size > maxParametersSize {
		errs = append(errs, field.TooLong(path, "", maxParametersSize))
	}
	return errs
}
