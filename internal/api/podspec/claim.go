package podspec

import (
	"github.com/timonel/timonel/internal/api/check"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// accessModes are the ways in which nodes can use a volume, in the order in which answers list them.
var accessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod}

// ValidateAccessModes checks the access modes of a volume or a claim, besides that there must be one.
func ValidateAccessModes(modes []corev1.PersistentVolumeAccessMode, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	alone, others := false, false
	for _, m := range modes {
		errs = append(errs, check.OneOf(m, path, accessModes...)...)
		alone = alone || m == corev1.ReadWriteOncePod
		others = others || m != corev1.ReadWriteOncePod
	}
	if alone && others {
		errs = append(errs, field.Forbidden(path, "may not use ReadWriteOncePod with other access modes"))
	}
	return errs
}

// ValidateClaimSpec checks what a claim asks for; old is what it asked for before, if it is not new.
func ValidateClaimSpec(s, old *corev1.PersistentVolumeClaimSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	modes := path.Child("accessModes")
	if len(s.AccessModes) == 0 {
		errs = append(errs, field.Required(modes, "at least 1 access mode is required"))
	}
	if s.Selector != nil {
		var before *metav1.LabelSelector
		if old != nil {
			before = old.Selector
		}
		errs = append(errs, check.Selector(s.Selector, before, path.Child("selector"))...)
	}
	errs = append(errs, ValidateAccessModes(s.AccessModes, modes)...)
	storage := path.Child("resources").Key(string(corev1.ResourceStorage))
	if q, ok := s.Resources.Requests[corev1.ResourceStorage]; !ok {
		errs = append(errs, field.Required(storage, ""))
	} else {
		errs = append(errs, check.PositiveQuantity(q, storage)...)
	}
	if name := ptr.Deref(s.StorageClassName, ""); name != "" {
		errs = append(errs, check.Each(path.Child("storageClassName"), name, check.Subdomain(name))...)
	}
	if s.VolumeMode != nil {
		errs = append(errs, check.OneOf(*s.VolumeMode, path.Child("volumeMode"), corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)...)
	}
	errs = append(errs, checkDataSource(s, path)...)
	if name := ptr.Deref(s.VolumeAttributesClassName, ""); name != "" {
		errs = append(errs, check.Each(path.Child("volumeAttributesClassName"), name, check.Subdomain(name))...)
	}
	return errs
}

// checkDataSource. Parity: what an answer quotes of two sources that do not agree is a path, which it shows as {}.
func checkDataSource(s *corev1.PersistentVolumeClaimSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	reference := func(kindName, name string, group *string, at *field.Path) {
		errs = append(errs, check.Required(name, at.Child("name"))...)
		errs = append(errs, check.Required(kindName, at.Child("kind"))...)
		g := ptr.Deref(group, "")
		if g == "" && kindName != "PersistentVolumeClaim" {
			errs = append(errs, field.Invalid(at, kindName, "must be 'PersistentVolumeClaim' when referencing the default apiGroup"))
		}
		if g != "" {
			errs = append(errs, check.Each(at.Child("apiGroup"), g, check.Subdomain(g))...)
		}
	}
	source, ref := path.Child("dataSource"), path.Child("dataSourceRef")
	if d := s.DataSource; d != nil {
		reference(d.Kind, d.Name, d.APIGroup, source)
	}
	if d := s.DataSourceRef; d != nil {
		reference(d.Kind, d.Name, d.APIGroup, ref)
		if ns := ptr.Deref(d.Namespace, ""); ns != "" {
			errs = append(errs, check.Each(ref.Child("namespace"), ns, check.Label(ns))...)
		}
		switch n := ptr.Deref(d.Namespace, ""); {
		case n != "" && s.DataSource != nil:
			errs = append(errs, field.Invalid(path, source, "may not be specified when dataSourceRef.namespace is specified"))
		case n == "" && s.DataSource != nil:
			if d.Kind != s.DataSource.Kind || d.Name != s.DataSource.Name || ptr.Deref(d.APIGroup, "") != ptr.Deref(s.DataSource.APIGroup, "") {
				errs = append(errs, field.Invalid(path, source, "must match dataSourceRef"))
			}
		}
	}
	return errs
}
