package core

import (
	"fmt"
	"slices"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/podspec"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// PersistentVolumeClaim asks for storage; a volume is bound to it.
func persistentVolumeClaim() *kind.Definition {
	spec, status := corev1.PersistentVolumeClaimSpec{}.SwaggerDoc(), corev1.PersistentVolumeClaimStatus{}.SwaggerDoc()
	bound := func(f func(c *corev1.PersistentVolumeClaim) string) func(c *corev1.PersistentVolumeClaim) any {
		return func(c *corev1.PersistentVolumeClaim) any {
			if c.Spec.VolumeName == "" {
				return ""
			}
			return f(c)
		}
	}
	return &kind.Definition{
		Version: "v1", Kind: "PersistentVolumeClaim", Plural: "persistentvolumeclaims", ShortNames: []string{"pvc"},
		Scope: kind.Namespaced, Verbs: kind.Standard,
		New:     kind.Of[corev1.PersistentVolumeClaim](),
		Default: kind.Default(DefaultClaim),
		Stored:  kind.Stored{Undefaulted: true}, // kube-apiserver stores no phase on create
		PrepareCreate: kind.Prepare(func(c *corev1.PersistentVolumeClaim) {
			c.Status = corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}
			mirrorDataSource(&c.Spec, nil)
		}),
		PrepareUpdate: kind.PrepareUpdate(func(c, old *corev1.PersistentVolumeClaim) {
			c.Status = old.Status
			mirrorDataSource(&c.Spec, &old.Spec)
		}),
		Validate: kind.Validate(func(c *corev1.PersistentVolumeClaim) field.ErrorList {
			return podspec.ValidateClaimSpec(&c.Spec, nil, field.NewPath("spec"))
		}),
		ValidateUpdate: kind.ValidateUpdate(validateClaimUpdate),
		Warnings:       kind.Warn(warnClaim),
		ReturnsDeleted: true,
		Columns: kind.Columns{
			{Name: "Status", Description: status["phase"], Of: kind.Cell(func(c *corev1.PersistentVolumeClaim) any {
				if c.DeletionTimestamp != nil {
					return "Terminating"
				}
				return string(c.Status.Phase)
			})},
			{Name: "Volume", Description: spec["volumeName"], Of: kind.Cell(func(c *corev1.PersistentVolumeClaim) any { return c.Spec.VolumeName })},
			{Name: "Capacity", Description: status["capacity"], Of: kind.Cell(bound(func(c *corev1.PersistentVolumeClaim) string {
				return quantityText(c.Status.Capacity, corev1.ResourceStorage)
			}))},
			{Name: "Access Modes", Description: status["accessModes"], Of: kind.Cell(bound(func(c *corev1.PersistentVolumeClaim) string {
				return show.AccessModes(c.Status.AccessModes)
			}))},
			{Name: "StorageClass", Description: "StorageClass of the pvc", Of: kind.Cell(func(c *corev1.PersistentVolumeClaim) any {
				return classOf(c.Annotations, ptr.Deref(c.Spec.StorageClassName, ""))
			})},
			{Name: "VolumeAttributesClass", Description: "VolumeAttributesClass of the pvc", Of: kind.Cell(func(c *corev1.PersistentVolumeClaim) any {
				return ptr.Deref(c.Spec.VolumeAttributesClassName, show.Unset)
			})},
			kind.Age,
			{Name: "VolumeMode", Wide: true, Description: spec["volumeMode"], Of: kind.Cell(func(c *corev1.PersistentVolumeClaim) any {
				return string(ptr.Deref(c.Spec.VolumeMode, show.Unset))
			})},
		},
		ColumnFields: []string{
			"metadata.annotations", "metadata.deletionTimestamp",
			"spec.volumeName", "spec.storageClassName", "spec.volumeAttributesClassName", "spec.volumeMode",
			"status.phase", "status.capacity", "status.accessModes",
		},
		Subresources: map[string]*kind.Subresource{
			"status": kind.Status(func(c, old *corev1.PersistentVolumeClaim) {
				c.Spec = old.Spec
				if old.Status.HealthStatus == nil {
					c.Status.HealthStatus = nil // feature CSIVolumeHealth is off
				}
			}, validateClaimStatus),
		},
	}
}

// DefaultClaim fills in what is left out of a claim.
func DefaultClaim(c *corev1.PersistentVolumeClaim) {
	if c.Status.Phase == "" {
		c.Status.Phase = corev1.ClaimPending
	}
	if c.Spec.VolumeMode == nil {
		c.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeFilesystem)
	}
	for _, list := range []corev1.ResourceList{c.Spec.Resources.Limits, c.Spec.Resources.Requests, c.Status.Capacity, c.Status.AllocatedResources} {
		podspec.RoundUp(list)
	}
}

const snapshotGroup = "snapshot.storage.k8s.io"

// mirrorDataSource keeps the older dataSource, which names only claims and snapshots, and dataSourceRef (KEP-1495) together. Sources
// in other namespaces are a feature that is off.
func mirrorDataSource(s, old *corev1.PersistentVolumeClaimSpec) {
	if r := s.DataSourceRef; r != nil && (old == nil || old.DataSourceRef == nil || old.DataSourceRef.Namespace == nil) {
		r.Namespace = nil
	}
	if d := s.DataSource; d != nil && old == nil && !knownSource(d) {
		s.DataSource = nil
	}
	if old != nil {
		return
	}
	switch {
	case s.DataSource != nil && s.DataSourceRef == nil:
		s.DataSourceRef = &corev1.TypedObjectReference{APIGroup: s.DataSource.APIGroup, Kind: s.DataSource.Kind, Name: s.DataSource.Name}
	case s.DataSourceRef != nil && s.DataSource == nil && s.DataSourceRef.Namespace == nil:
		s.DataSource = &corev1.TypedLocalObjectReference{APIGroup: s.DataSourceRef.APIGroup, Kind: s.DataSourceRef.Kind, Name: s.DataSourceRef.Name}
	}
}

func knownSource(d *corev1.TypedLocalObjectReference) bool {
	group := ptr.Deref(d.APIGroup, "")
	return d.Kind == "PersistentVolumeClaim" && group == "" || d.Kind == "VolumeSnapshot" && group == snapshotGroup
}

const textClaimSpec = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"

func validateClaimUpdate(c, old *corev1.PersistentVolumeClaim) field.ErrorList {
	path := field.NewPath("spec")
	errs := podspec.ValidateClaimSpec(&c.Spec, &old.Spec, path)
	now, was := c.Spec.DeepCopy(), old.Spec.DeepCopy()
	if was.VolumeName == "" { // binding
		was.VolumeName = now.VolumeName
	}
	before, annotated := old.Annotations[corev1.BetaStorageClassAnnotation]
	switch {
	case classFromAnnotation(c, old):
		now.StorageClassName = nil
	case c.Annotations[corev1.BetaStorageClassAnnotation] != before:
		errs = append(errs, field.Invalid(field.NewPath("metadata", "annotations").Key(corev1.BetaStorageClassAnnotation),
			c.Annotations[corev1.BetaStorageClassAnnotation], check.TextImmutable))
	}
	if !annotated && was.StorageClassName == nil { // a claim made before there was a default class may get one later (KEP-3333)
		was.StorageClassName = now.StorageClassName
	}
	bound := c.Status.Phase == corev1.ClaimBound
	if bound && now.Resources.Requests != nil {
		now.Resources.Requests[corev1.ResourceStorage] = was.Resources.Requests[corev1.ResourceStorage]
	}
	if bound {
		now.VolumeAttributesClassName = was.VolumeAttributesClassName
	}
	if !equality.Semantic.DeepEqual(now, was) {
		errs = append(errs, field.Forbidden(path, textClaimSpec+"\n"+check.Diff(was, now)))
	}
	errs = append(errs, growOnly(c, old, path)...)
	errs = append(errs, check.Immutable(c.Spec.VolumeMode, old.Spec.VolumeMode, field.NewPath("volumeMode"))...) // Parity: without spec
	return append(errs, keepAttributesClass(c, old, path.Child("volumeAttributesClassName"))...)
}

// classFromAnnotation reports whether the update writes the class where it belongs, that stood in an annotation until now.
func classFromAnnotation(c, old *corev1.PersistentVolumeClaim) bool {
	before, annotated := old.Annotations[corev1.BetaStorageClassAnnotation]
	still, kept := c.Annotations[corev1.BetaStorageClassAnnotation]
	return annotated && old.Spec.StorageClassName == nil && ptr.Deref(c.Spec.StorageClassName, "") == before && c.Spec.StorageClassName != nil &&
		(!kept || still == before)
}

// keepAttributesClass: a class of attributes that was applied (KEP-3751) can give way to another one, not to none.
func keepAttributesClass(c, old *corev1.PersistentVolumeClaim, at *field.Path) field.ErrorList {
	if old.Spec.VolumeAttributesClassName == nil || old.Status.CurrentVolumeAttributesClassName == nil || ptr.Equal(c.Spec.VolumeAttributesClassName, old.Spec.VolumeAttributesClassName) {
		return nil
	}
	switch name := c.Spec.VolumeAttributesClassName; {
	case name == nil:
		return field.ErrorList{field.Forbidden(at, "update from non-nil value to nil is forbidden")}
	case *name == "":
		return field.ErrorList{field.Forbidden(at, "update from non-nil value to an empty string is forbidden")}
	}
	return nil
}

// growOnly: a request never falls below what is there, and only falls at all to take back a growth that failed (KEP-1790).
func growOnly(c, old *corev1.PersistentVolumeClaim, path *field.Path) field.ErrorList {
	now, was, have := c.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage], old.Status.Capacity[corev1.ResourceStorage]
	if now.Cmp(was) >= 0 || now.Cmp(have) > 0 {
		return nil
	}
	return field.ErrorList{field.Forbidden(path.Child("resources", "requests", "storage"), "field can not be less than status.capacity")}
}

func validateClaimStatus(c, old *corev1.PersistentVolumeClaim) field.ErrorList {
	path := field.NewPath("status")
	var errs field.ErrorList
	if len(c.Spec.AccessModes) == 0 {
		errs = append(errs, field.Required(field.NewPath("Spec", "accessModes"), ""))
	}
	amounts := func(list corev1.ResourceList, at *field.Path) {
		for _, name := range check.Sorted(list) {
			errs = append(errs, check.SaneQuantity(list[name], at.Key(string(name)))...)
		}
	}
	amounts(c.Status.Capacity, path.Child("capacity"))
	claimName := func(name corev1.ResourceName, at *field.Path) {
		errs = append(errs, check.Each(at, name, check.QualifiedName(string(name)))...)
		if !slices.Contains([]corev1.ResourceName{corev1.ResourceStorage}, name) && check.Native(name) {
			errs = append(errs, field.NotSupported(at, name, []corev1.ResourceName{corev1.ResourceStorage}))
		}
	}
	for _, name := range check.Sorted(c.Status.AllocatedResourceStatuses) {
		at := path.Child("allocatedResourceStatus").Key(string(name))
		claimName(name, at)
	}
	for _, name := range check.Sorted(c.Status.AllocatedResources) {
		claimName(name, path.Child("allocatedResources").Key(string(name)))
	}
	amounts(c.Status.AllocatedResources, path.Child("allocatedResources"))
	return errs
}

func warnClaim(c, _ *corev1.PersistentVolumeClaim) []string {
	var warnings []string
	if _, ok := c.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		warnings = append(warnings, fmt.Sprintf("%s: deprecated since v1.8; use \"storageClassName\" attribute instead", field.NewPath("metadata", "annotations").Key(corev1.BetaStorageClassAnnotation)))
	}
	return append(warnings, podspec.WarnClaimSpec(&c.Spec, field.NewPath("spec"))...)
}
