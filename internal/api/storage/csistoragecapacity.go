package storage

import (
	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// CSIStorageCapacity says how much a driver can still provide in a part of the cluster.
func csiStorageCapacity() *kind.Definition {
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "CSIStorageCapacity", Plural: "csistoragecapacities",
		Scope: kind.Namespaced, Verbs: kind.Standard, MustMatch: true,
		New:      kind.Of[storagev1.CSIStorageCapacity](),
		Validate: kind.Validate(func(c *storagev1.CSIStorageCapacity) field.ErrorList { return validateCapacity(c, nil) }),
		ValidateUpdate: kind.ValidateUpdate(func(c, old *storagev1.CSIStorageCapacity) field.ErrorList {
			errs := validateCapacity(c, old)
			errs = append(errs, check.Immutable(c.NodeTopology, old.NodeTopology, field.NewPath("nodeTopology"))...)
			return append(errs, check.Immutable(c.StorageClassName, old.StorageClassName, field.NewPath("storageClassName"))...)
		}),
	}
}

func validateCapacity(c, old *storagev1.CSIStorageCapacity) field.ErrorList {
	var before *metav1.LabelSelector
	if old != nil {
		before = old.NodeTopology
	}
	errs := check.Selector(c.NodeTopology, before, field.NewPath("nodeTopology"))
	errs = append(errs, check.Each(field.NewPath("storageClassName"), c.StorageClassName, check.Subdomain(c.StorageClassName))...)
	if c.Capacity != nil {
		errs = append(errs, check.NonNegativeQuantity(*c.Capacity, field.NewPath("capacity"))...)
	}
	if c.MaximumVolumeSize != nil {
		errs = append(errs, check.NonNegativeQuantity(*c.MaximumVolumeSize, field.NewPath("maximumVolumeSize"))...)
	}
	return errs
}
