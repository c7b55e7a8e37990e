package storage

import (
	"unicode/utf8"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// Bounds on what the attacher reports.
const (
	maxDriverName         = 63
	maxVolumeErrorMessage = 1024
	maxAttachmentMetadata = 256 << 10 // bytes of keys and values together
)

// VolumeAttachment asks a driver to attach a volume to a node.
func volumeAttachment() *kind.Definition {
	spec, status := storagev1.VolumeAttachmentSpec{}.SwaggerDoc(), storagev1.VolumeAttachmentStatus{}.SwaggerDoc()
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "VolumeAttachment", Plural: "volumeattachments",
		Scope: kind.Cluster, Verbs: kind.Standard, MustMatch: true,
		New:           kind.Of[storagev1.VolumeAttachment](),
		PrepareCreate: kind.Prepare(func(a *storagev1.VolumeAttachment) { a.Status = storagev1.VolumeAttachmentStatus{} }),
		PrepareUpdate: kind.PrepareUpdate(func(a, old *storagev1.VolumeAttachment) { a.Status = old.Status }),
		Validate:      kind.Validate(validateNewAttachment),
		ValidateUpdate: kind.ValidateUpdate(func(a, old *storagev1.VolumeAttachment) field.ErrorList {
			return append(validateAttachment(a), check.Unchanged(a.Spec, old.Spec, field.NewPath("spec"))...)
		}),
		ReturnsDeleted: true,
		Columns: kind.Columns{
			{Name: "Attacher", Format: "name", Description: spec["attacher"], Of: kind.Cell(func(a *storagev1.VolumeAttachment) any { return a.Spec.Attacher })},
			{Name: "PV", Description: storagev1.VolumeAttachmentSource{}.SwaggerDoc()["persistentVolumeName"], Of: kind.Cell(func(a *storagev1.VolumeAttachment) any {
				return ptr.Deref(a.Spec.Source.PersistentVolumeName, "")
			})},
			{Name: "Node", Description: spec["nodeName"], Of: kind.Cell(func(a *storagev1.VolumeAttachment) any { return a.Spec.NodeName })},
			{Name: "Attached", Type: "boolean", Description: status["attached"], Of: kind.Cell(func(a *storagev1.VolumeAttachment) any { return a.Status.Attached })},
			kind.Age,
		},
		ColumnFields: []string{"spec.attacher", "spec.source.persistentVolumeName", "spec.nodeName", "status.attached"},
		Subresources: map[string]*kind.Subresource{
			"status": kind.StatusOnly(func(a, old *storagev1.VolumeAttachment) { a.Spec = old.Spec }, func(a, _ *storagev1.VolumeAttachment) field.ErrorList {
				return validateAttachment(a)
			}),
		},
	}
}

func validateNewAttachment(a *storagev1.VolumeAttachment) field.ErrorList {
	errs, attacher := validateAttachment(a), field.NewPath("spec", "attacher")
	if name := a.Spec.Source.PersistentVolumeName; name != nil {
		errs = append(errs, check.Each(field.NewPath("spec", "source", "persistentVolumeName"), *name, check.Subdomain(*name))...)
	}
	errs = append(errs, check.RequiredForm(a.Spec.Attacher, attacher, content.IsDNS1123SubdomainCaseless)...)
	if utf8.RuneCountInString(a.Spec.Attacher) > maxDriverName {
		errs = append(errs, field.TooLongCharacters(attacher, a.Spec.Attacher, maxDriverName))
	}
	return errs
}

// validateAttachment checks everything but the attacher, which is given once, and reported last.
func validateAttachment(a *storagev1.VolumeAttachment) field.ErrorList {
	spec, status := field.NewPath("spec"), field.NewPath("status")
	errs := checkAttachmentSource(&a.Spec.Source, spec.Child("source"))
	errs = append(errs, check.Each(spec.Child("nodeName"), a.Spec.NodeName, check.Subdomain(a.Spec.NodeName))...)
	size := 0
	for k, v := range a.Status.AttachmentMetadata {
		size += len(k) + len(v)
	}
	if size > maxAttachmentMetadata {
		errs = append(errs, field.TooLong(status.Child("attachmentMetadata"), "", maxAttachmentMetadata))
	}
	errs = append(errs, checkVolumeError(a.Status.AttachError, status.Child("attachError"))...)
	return append(errs, checkVolumeError(a.Status.DetachError, status.Child("detachError"))...)
}

func checkAttachmentSource(s *storagev1.VolumeAttachmentSource, path *field.Path) field.ErrorList {
	const one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
	inline, name := s.InlineVolumeSpec, s.PersistentVolumeName
	switch {
	case inline == nil && name == nil:
		return field.ErrorList{field.Required(path, one)}
	case inline != nil && name != nil:
		return field.ErrorList{field.Forbidden(path, one)}
	case name != nil:
		if *name == "" {
			return field.ErrorList{field.Required(path.Child("persistentVolumeName"), "must specify non empty persistentVolumeName")}
		}
		return nil
	}
	// An inline volume is one of a pod that was translated for its CSI driver.
	csi := path.Child("inlineVolumeSpec", "csi")
	if inline.CSI == nil {
		return field.ErrorList{field.Required(csi, "has to be specified in the context of inline volumes")}
	}
	errs := check.RequiredForm(inline.CSI.Driver, csi.Child("driver"), content.IsDNS1123SubdomainCaseless)
	return append(errs, check.Required(inline.CSI.VolumeHandle, csi.Child("volumeHandle"))...)
}

func checkVolumeError(e *storagev1.VolumeError, path *field.Path) field.ErrorList {
	if e == nil {
		return nil
	}
	var errs field.ErrorList
	if len(e.Message) > maxVolumeErrorMessage {
		errs = append(errs, field.TooLong(path.Child("message"), "", maxVolumeErrorMessage))
	}
	return append(errs, check.NonNegativePtr(e.ErrorCode, path.Child("errorCode"))...)
}
