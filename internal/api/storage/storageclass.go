package storage

import (
	"maps"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// StorageClass is a way in which volumes are made for claims.
func storageClass() *kind.Definition {
	doc := storagev1.StorageClass{}.SwaggerDoc()
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "StorageClass", Plural: "storageclasses", ShortNames: []string{"sc"},
		Scope: kind.Cluster, Verbs: kind.Standard,
		New:            kind.Of[storagev1.StorageClass](),
		Default:        kind.Default(defaultStorageClass),
		Validate:       kind.Validate(validateStorageClass),
		ValidateUpdate: kind.ValidateUpdate(validateStorageClassUpdate),
		ReturnsDeleted: true,
		Columns: kind.Columns{
			{Name: "Provisioner", Description: doc["provisioner"], Of: kind.Cell(func(c *storagev1.StorageClass) any { return c.Provisioner })},
			{Name: "ReclaimPolicy", Description: doc["reclaimPolicy"], Of: kind.Cell(func(c *storagev1.StorageClass) any {
				return string(ptr.Deref(c.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete))
			})},
			{Name: "VolumeBindingMode", Description: doc["volumeBindingMode"], Of: kind.Cell(func(c *storagev1.StorageClass) any {
				return string(ptr.Deref(c.VolumeBindingMode, show.Unset))
			})},
			{Name: "AllowVolumeExpansion", Description: doc["allowVolumeExpansion"], Of: kind.Cell(func(c *storagev1.StorageClass) any {
				return ptr.Deref(c.AllowVolumeExpansion, false)
			})},
			kind.Age,
		},
		ColumnFields: []string{"provisioner", "reclaimPolicy", "volumeBindingMode", "allowVolumeExpansion"},
		Marked: func(all []object.Object) (object.Object, string) {
			return object.Newest(all, isDefaultClass, isDefaultClassBeta), " (default)"
		},
	}
}

// The annotations that make a class the default one.
const (
	isDefaultClass     = "storageclass.kubernetes.io/is-default-class"
	isDefaultClassBeta = "storageclass.beta.kubernetes.io/is-default-class"
)

func defaultStorageClass(c *storagev1.StorageClass) {
	if c.ReclaimPolicy == nil {
		c.ReclaimPolicy = ptr.To(corev1.PersistentVolumeReclaimDelete)
	}
	if c.VolumeBindingMode == nil {
		c.VolumeBindingMode = ptr.To(storagev1.VolumeBindingImmediate)
	}
}

func validateStorageClass(c *storagev1.StorageClass) field.ErrorList {
	errs := check.Form(c.Provisioner, field.NewPath("provisioner"), driverForm)
	errs = append(errs, checkParameters(c.Parameters, false)...)
	if c.ReclaimPolicy != nil && *c.ReclaimPolicy != "" {
		errs = append(errs, check.OneOf(*c.ReclaimPolicy, field.NewPath("reclaimPolicy"), corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain)...)
	}
	mode := field.NewPath("volumeBindingMode")
	if c.VolumeBindingMode == nil {
		errs = append(errs, field.Required(mode, ""))
	} else {
		errs = append(errs, check.OneOf(*c.VolumeBindingMode, mode, storagev1.VolumeBindingImmediate, storagev1.VolumeBindingWaitForFirstConsumer)...)
	}
	errs = append(errs, checkTopologies(c.AllowedTopologies, field.NewPath("allowedTopologies"))...)
	return append(errs, check.Required(c.Provisioner, field.NewPath("provisioner"))...)
}

func checkTopologies(terms []corev1.TopologySelectorTerm, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, term := range terms {
		expressions := path.Index(i).Child("matchLabelExpressions")
		keys := map[string]bool{}
		for k, e := range term.MatchLabelExpressions {
			at := expressions.Index(k)
			errs = append(errs, checkTopologyValues(e.Values, at.Child("values"))...)
			errs = append(errs, metavalidation.ValidateLabelName(e.Key, at.Child("key"))...)
			if keys[e.Key] {
				errs = append(errs, field.Duplicate(at.Child("key"), e.Key))
			}
			keys[e.Key] = true
		}
		for _, earlier := range terms[:i] {
			if maps.EqualFunc(valuesByKey(earlier), valuesByKey(term), sets.Set[string].Equal) {
				errs = append(errs, field.Duplicate(expressions, ""))
			}
		}
	}
	return errs
}

func valuesByKey(term corev1.TopologySelectorTerm) map[string]sets.Set[string] {
	all := make(map[string]sets.Set[string], len(term.MatchLabelExpressions))
	for _, e := range term.MatchLabelExpressions {
		all[e.Key] = sets.New(e.Values...)
	}
	return all
}

func checkTopologyValues(values []string, path *field.Path) field.ErrorList {
	if len(values) == 0 {
		return field.ErrorList{field.Required(path, "")}
	}
	return check.Once(values, func(v string) string { return v }, path.Index)
}

func validateStorageClassUpdate(c, old *storagev1.StorageClass) field.ErrorList {
	errs := validateStorageClass(c)
	errs = append(errs, check.Unchanged(c.Provisioner, old.Provisioner, field.NewPath("provisioner"))...)
	errs = append(errs, check.Unchanged(c.Parameters, old.Parameters, field.NewPath("parameters"))...)
	errs = append(errs, check.Unchanged(c.ReclaimPolicy, old.ReclaimPolicy, field.NewPath("reclaimPolicy"))...)
	return append(errs, check.Unchanged(c.VolumeBindingMode, old.VolumeBindingMode, field.NewPath("volumeBindingMode"))...)
}
