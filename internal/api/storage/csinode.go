package storage

import (
	"fmt"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/podspec"
	"github.com/timonel/timonel/internal/kind"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxNodeID is the longest ID that a driver can have for a node (CSI specification).
const maxNodeID = 256

// CSINode lists the drivers that run on a node.
func csiNode() *kind.Definition {
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "CSINode", Plural: "csinodes",
		Scope: kind.Cluster, Verbs: kind.Standard, MustMatch: true,
		New: kind.Of[storagev1.CSINode](),
		// The status belongs to the feature CSIVolumeHealth (alpha).
		PrepareCreate:  kind.Prepare(func(n *storagev1.CSINode) { n.Status = storagev1.CSINodeStatus{} }),
		PrepareUpdate:  kind.PrepareUpdate(func(n, old *storagev1.CSINode) { n.Status = old.Status }),
		Validate:       kind.Validate(validateCSINode),
		ValidateUpdate: kind.ValidateUpdate(validateCSINodeUpdate),
		ReturnsDeleted: true,
		Columns: kind.Columns{
			{Name: "Drivers", Type: "integer", Description: "Drivers indicates the number of CSI drivers registered on the node", Of: kind.Cell(func(n *storagev1.CSINode) any {
				return int64(len(n.Spec.Drivers))
			})},
			kind.Age,
		},
		ColumnFields: []string{"spec.drivers.name"},
		Subresources: map[string]*kind.Subresource{
			"status": kind.StatusOnly(func(n, old *storagev1.CSINode) {
				n.Spec = old.Spec
				if len(old.Status.StorageHealth) == 0 {
					n.Status.StorageHealth = nil
				}
			}, nil),
		},
	}
}

func validateCSINode(n *storagev1.CSINode) field.ErrorList {
	drivers := field.NewPath("spec", "drivers")
	var errs field.ErrorList
	seen := map[string]bool{}
	for i := range n.Spec.Drivers {
		d, at := &n.Spec.Drivers[i], drivers.Index(i)
		errs = append(errs, podspec.ValidateDriverName(d.Name, at.Child("name"))...)
		switch {
		case d.NodeID == "":
			errs = append(errs, field.Required(at.Child("nodeID"), ""))
		case len(d.NodeID) > maxNodeID:
			errs = append(errs, field.Invalid(at.Child("nodeID"), d.NodeID, fmt.Sprintf("must be %d characters or less", maxNodeID)))
		}
		if d.Allocatable != nil {
			errs = append(errs, check.NonNegativePtr(d.Allocatable.Count, at.Child("allocatable", "count"))...)
		}
		if seen[d.Name] {
			errs = append(errs, field.Duplicate(at.Child("name"), d.Name))
		}
		seen[d.Name] = true
		errs = append(errs, checkTopologyKeys(d.TopologyKeys, at)...)
	}
	return errs
}

// checkTopologyKeys reports what is wrong with keys at the driver that has them.
func checkTopologyKeys(keys []string, driver *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for _, key := range keys {
		errs = append(errs, check.Required(key, driver)...)
		if seen[key] {
			errs = append(errs, field.Duplicate(driver, key))
		}
		seen[key] = true
		errs = append(errs, check.Each(driver, keys, check.QualifiedName(key))...)
	}
	return errs
}

// validateCSINodeUpdate lets drivers come and go, but not change, but for how many volumes they can take.
func validateCSINodeUpdate(n, old *storagev1.CSINode) field.ErrorList {
	errs := validateCSINode(n)
	for _, was := range old.Spec.Drivers {
		for _, d := range n.Spec.Drivers {
			if d.Name != was.Name {
				continue
			}
			like := d
			like.Allocatable = was.Allocatable
			if !equality.Semantic.DeepEqual(like, was) {
				errs = append(errs, field.Invalid(field.NewPath("spec", "drivers"), check.GoNames(d), check.TextImmutable))
			}
		}
	}
	return errs
}
