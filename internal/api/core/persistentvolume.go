package core

import (
	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/podspec"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// PersistentVolume is storage that outlives pods. Claims are bound to it.
func persistentVolume() *kind.Definition {
	spec, status := corev1.PersistentVolumeSpec{}.SwaggerDoc(), corev1.PersistentVolumeStatus{}.SwaggerDoc()
	return &kind.Definition{
		Version: "v1", Kind: "PersistentVolume", Plural: "persistentvolumes", ShortNames: []string{"pv"},
		Scope: kind.Cluster, Verbs: kind.Standard,
		New:     kind.Of[corev1.PersistentVolume](),
		Default: kind.Default(defaultPersistentVolume),
		PrepareCreate: kind.Prepare(func(v *corev1.PersistentVolume) {
			v.Status = corev1.PersistentVolumeStatus{Phase: corev1.VolumePending, LastPhaseTransitionTime: ptr.To(metav1.Now())}
		}),
		PrepareUpdate:  kind.PrepareUpdate(func(v, old *corev1.PersistentVolume) { v.Status = old.Status }),
		Validate:       kind.Validate(func(v *corev1.PersistentVolume) field.ErrorList { return validateVolumeSpec(v, nil) }),
		ValidateUpdate: kind.ValidateUpdate(validatePersistentVolumeUpdate),
		Warnings:       kind.Warn(warnPersistentVolume),
		ReturnsDeleted: true,
		Columns: kind.Columns{
			{Name: "Capacity", Description: spec["capacity"], Of: kind.Cell(func(v *corev1.PersistentVolume) any {
				return quantityText(v.Spec.Capacity, corev1.ResourceStorage)
			})},
			{Name: "Access Modes", Description: spec["accessModes"], Of: kind.Cell(func(v *corev1.PersistentVolume) any { return show.AccessModes(v.Spec.AccessModes) })},
			{Name: "Reclaim Policy", Description: spec["persistentVolumeReclaimPolicy"], Of: kind.Cell(func(v *corev1.PersistentVolume) any {
				return string(v.Spec.PersistentVolumeReclaimPolicy)
			})},
			{Name: "Status", Description: status["phase"], Of: kind.Cell(func(v *corev1.PersistentVolume) any {
				if v.DeletionTimestamp != nil {
					return "Terminating"
				}
				return string(v.Status.Phase)
			})},
			{Name: "Claim", Description: spec["claimRef"], Of: kind.Cell(func(v *corev1.PersistentVolume) any {
				if v.Spec.ClaimRef == nil {
					return ""
				}
				return v.Spec.ClaimRef.Namespace + "/" + v.Spec.ClaimRef.Name
			})},
			{Name: "StorageClass", Description: "StorageClass of the pv", Of: kind.Cell(func(v *corev1.PersistentVolume) any {
				return classOf(v.Annotations, v.Spec.StorageClassName)
			})},
			{Name: "VolumeAttributesClass", Description: "VolumeAttributesClass of the pv", Of: kind.Cell(func(v *corev1.PersistentVolume) any {
				return ptr.Deref(v.Spec.VolumeAttributesClassName, show.Unset)
			})},
			{Name: "Reason", Description: status["reason"], Of: kind.Cell(func(v *corev1.PersistentVolume) any { return v.Status.Reason })},
			kind.Age,
			{Name: "VolumeMode", Wide: true, Description: spec["volumeMode"], Of: kind.Cell(func(v *corev1.PersistentVolume) any {
				return string(ptr.Deref(v.Spec.VolumeMode, show.Unset))
			})},
		},
		ColumnFields: []string{
			"metadata.annotations", "metadata.deletionTimestamp",
			"spec.capacity", "spec.accessModes", "spec.persistentVolumeReclaimPolicy", "spec.claimRef.namespace", "spec.claimRef.name",
			"spec.storageClassName", "spec.volumeAttributesClassName", "spec.volumeMode",
			"status.phase", "status.reason",
		},
		Subresources: map[string]*kind.Subresource{"status": kind.Status(preparePersistentVolumeStatus, nil)},
	}
}

// classOf is the class of a volume or claim; an annotation was where it once stood.
func classOf(annotations map[string]string, name string) string {
	if class, ok := annotations[corev1.BetaStorageClassAnnotation]; ok {
		return class
	}
	return name
}

func quantityText(list corev1.ResourceList, name corev1.ResourceName) string {
	q := list[name]
	return q.String()
}

// preparePersistentVolumeStatus notes when the phase changed, unless the writer did.
func preparePersistentVolumeStatus(v, old *corev1.PersistentVolume) {
	v.Spec = old.Spec
	now, was := v.Status.LastPhaseTransitionTime, old.Status.LastPhaseTransitionTime
	if v.Status.Phase != old.Status.Phase && (now == nil || was != nil && now.Equal(was)) {
		v.Status.LastPhaseTransitionTime = ptr.To(metav1.Now())
	}
}

func defaultPersistentVolume(v *corev1.PersistentVolume) {
	s := &v.Spec
	if v.Status.Phase == "" {
		v.Status.Phase = corev1.VolumePending
	}
	if s.PersistentVolumeReclaimPolicy == "" {
		s.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	}
	if s.VolumeMode == nil {
		s.VolumeMode = ptr.To(corev1.PersistentVolumeFilesystem)
	}
	podspec.RoundUp(s.Capacity)
	if s.HostPath != nil && s.HostPath.Type == nil {
		s.HostPath.Type = ptr.To(corev1.HostPathUnset)
	}
	if s.ISCSI != nil && s.ISCSI.ISCSIInterface == "" {
		s.ISCSI.ISCSIInterface = "default"
	}
	if r := s.RBD; r != nil {
		setDefault(&r.RBDPool, "rbd")
		setDefault(&r.RadosUser, "admin")
		setDefault(&r.Keyring, "/etc/ceph/keyring")
	}
	if i := s.ScaleIO; i != nil {
		setDefault(&i.StorageMode, "ThinProvisioned")
		setDefault(&i.FSType, "xfs")
	}
	if s.AzureDisk != nil {
		podspec.DefaultAzureDisk(s.AzureDisk)
	}
}

func setDefault(p *string, value string) {
	if *p == "" {
		*p = value
	}
}

// validatePersistentVolumeUpdate. Parity: some paths leave out spec.
func validatePersistentVolumeUpdate(v, old *corev1.PersistentVolume) field.ErrorList {
	path := field.NewPath("spec")
	errs := validateVolumeSpec(v, old)
	source, was := v.Spec.PersistentVolumeSource.DeepCopy(), &old.Spec.PersistentVolumeSource
	if source.CSI != nil && was.CSI != nil && was.CSI.ControllerExpandSecretRef == nil { // it can be set later
		source.CSI.ControllerExpandSecretRef = nil
	}
	if !equality.Semantic.DeepEqual(source, was) {
		errs = append(errs, field.Forbidden(path.Child("persistentvolumesource"), // Parity: the path is in lower case
			"spec.persistentvolumesource is immutable after creation\n"+check.Diff(was, source)))
	}
	errs = append(errs, check.Immutable(v.Spec.VolumeMode, old.Spec.VolumeMode, field.NewPath("volumeMode"))...)
	if old.Spec.NodeAffinity != nil && !equality.Semantic.DeepEqual(v.Spec.NodeAffinity, old.Spec.NodeAffinity) && !sameButLabels(v.Spec.NodeAffinity, old.Spec.NodeAffinity) {
		errs = append(errs, field.Invalid(field.NewPath("nodeAffinity"), check.GoNames(v.Spec.NodeAffinity), check.TextImmutable))
	}
	if old.Spec.VolumeAttributesClassName != nil && v.Spec.VolumeAttributesClassName == nil {
		errs = append(errs, field.Forbidden(path.Child("volumeAttributesClassName"), "update from non-nil value to nil is forbidden"))
	}
	return errs
}

// renamedLabels are the new names of node labels that a volume may be moved to.
var renamedLabels = map[string]string{
	corev1.LabelFailureDomainBetaZone: corev1.LabelTopologyZone, corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
	"beta.kubernetes.io/os": corev1.LabelOSStable, "beta.kubernetes.io/arch": corev1.LabelArchStable,
	corev1.LabelInstanceType: corev1.LabelInstanceTypeStable,
}

// sameButLabels reports whether old becomes now by giving node labels their new names.
func sameButLabels(now, old *corev1.VolumeNodeAffinity) bool {
	if now == nil || old.Required == nil || now.Required == nil {
		return false
	}
	renamed, target := old.DeepCopy(), now.DeepCopy()
	for _, a := range []*corev1.VolumeNodeAffinity{renamed, target} {
		for i := range a.Required.NodeSelectorTerms {
			for j := range a.Required.NodeSelectorTerms[i].MatchExpressions {
				if e := &a.Required.NodeSelectorTerms[i].MatchExpressions[j]; renamedLabels[e.Key] != "" {
					e.Key = renamedLabels[e.Key]
				}
			}
		}
	}
	return equality.Semantic.DeepEqual(renamed, target)
}

// deprecatedVolumes are sources that do not work any more, or not for long.
func deprecatedVolumes(s *corev1.PersistentVolumeSource, at *field.Path) []string {
	var warnings []string
	for _, d := range []struct {
		used bool
		name string
		text string
	}{
		{s.PhotonPersistentDisk != nil, "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"},
		{s.ScaleIO != nil, "scaleIO", "deprecated in v1.16, non-functional in v1.22+"},
		{s.StorageOS != nil, "storageOS", "deprecated in v1.22, non-functional in v1.25+"},
		{s.Glusterfs != nil, "glusterfs", "deprecated in v1.25, non-functional in v1.26+"},
		{s.Flocker != nil, "flocker", "deprecated in v1.22, non-functional in v1.25+"},
		{s.Quobyte != nil, "quobyte", "deprecated in v1.22, non-functional in v1.25+"},
		{s.CephFS != nil, "cephfs", "deprecated in v1.28, non-functional in v1.31+"},
		{s.RBD != nil, "rbd", "deprecated in v1.28, non-functional in v1.31+"},
	} {
		if d.used {
			warnings = append(warnings, at.Child(d.name).String()+": "+d.text)
		}
	}
	return warnings
}

func warnPersistentVolume(v, _ *corev1.PersistentVolume) []string {
	var warnings []string
	annotations, spec := field.NewPath("metadata", "annotations"), field.NewPath("spec")
	old := func(key, text string) {
		if _, ok := v.Annotations[key]; ok {
			warnings = append(warnings, annotations.Key(key).String()+": "+text)
		}
	}
	old(corev1.BetaStorageClassAnnotation, `deprecated since v1.8; use "storageClassName" attribute instead`)
	old(corev1.MountOptionAnnotation, `deprecated since v1.31; use "mountOptions" attribute instead`)
	if v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		warnings = append(warnings, spec.Child("persistentVolumeReclaimPolicy").String()+": The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.")
	}
	if a := v.Spec.NodeAffinity; a != nil && a.Required != nil {
		warnings = append(warnings, podspec.WarnNodeSelector(a.Required, spec.Child("nodeAffinity", "required"))...)
	}
	return append(warnings, deprecatedVolumes(&v.Spec.PersistentVolumeSource, spec)...)
}
