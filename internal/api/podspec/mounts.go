package podspec

import (
	"path"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// checkMounts checks where volumes appear in a container.
func (c *checker) checkMounts(ctr *corev1.Container, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	devices := map[string]bool{}
	for _, d := range ctr.VolumeDevices {
		devices[d.DevicePath] = true
	}
	deviceNames := map[string]bool{}
	for _, d := range ctr.VolumeDevices {
		deviceNames[d.Name] = true
	}
	paths := map[string]bool{}
	for i, m := range ctr.VolumeMounts {
		here := at.Index(i)
		errs = append(errs, check.Required(m.Name, here.Child("name"))...)
		if c.volumes[m.Name] == nil {
			errs = append(errs, field.NotFound(here.Child("name"), m.Name))
		}
		errs = append(errs, check.Required(m.MountPath, here.Child("mountPath"))...)
		if paths[m.MountPath] {
			errs = append(errs, field.Invalid(here.Child("mountPath"), m.MountPath, "must be unique"))
		}
		paths[m.MountPath] = true
		if deviceNames[m.Name] {
			errs = append(errs, field.Invalid(here.Child("name"), m.Name, "must not already exist in volumeDevices"))
		}
		if devices[m.MountPath] {
			errs = append(errs, field.Invalid(here.Child("mountPath"), m.MountPath, "must not already exist as a path in volumeDevices"))
		}
		// Parity: most of the paths of what follows have no index.
		if m.SubPath != "" {
			errs = append(errs, descendingPath(m.SubPath, at.Child("subPath"))...)
		}
		if m.SubPathExpr != "" {
			if m.SubPath != "" {
				errs = append(errs, field.Invalid(here.Child("subPathExpr"), m.SubPathExpr, "subPathExpr and subPath are mutually exclusive"))
			}
			errs = append(errs, descendingPath(m.SubPathExpr, at.Child("subPathExpr"))...)
		}
		errs = append(errs, c.checkPropagation(ctr, &m, at)...)
	}
	return errs
}

func (c *checker) checkPropagation(ctr *corev1.Container, m *corev1.VolumeMount, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if p := m.MountPropagation; p != nil {
		here := at.Child("mountPropagation")
		errs = append(errs, check.OneOf(*p, here, corev1.MountPropagationBidirectional, corev1.MountPropagationHostToContainer, corev1.MountPropagationNone)...)
		if *p == corev1.MountPropagationBidirectional && !c.privileged(ctr) {
			errs = append(errs, field.Forbidden(here, "Bidirectional mount propagation is available only to privileged containers"))
		}
	}
	if r := m.RecursiveReadOnly; r != nil {
		here := at.Child("recursiveReadOnly")
		switch *r {
		case corev1.RecursiveReadOnlyDisabled:
		case corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible:
			if !m.ReadOnly {
				errs = append(errs, field.Forbidden(here, "may only be specified when readOnly is true"))
			}
			if ptr.Deref(m.MountPropagation, corev1.MountPropagationNone) != corev1.MountPropagationNone {
				errs = append(errs, field.Forbidden(here, "may only be specified when mountPropagation is None or not specified"))
			}
		default:
			errs = append(errs, check.OneOf(*r, here, corev1.RecursiveReadOnlyDisabled, corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible)...)
		}
	}
	return errs
}

// checkDevices checks which volumes a container sees as block devices.
func (c *checker) checkDevices(ctr *corev1.Container, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	mounts := map[string]bool{}
	for _, m := range ctr.VolumeMounts {
		mounts[m.MountPath] = true
	}
	mountNames := map[string]bool{}
	for _, m := range ctr.VolumeMounts {
		mountNames[m.Name] = true
	}
	paths, names := map[string]bool{}, map[string]bool{}
	for i, d := range ctr.VolumeDevices {
		here := at.Index(i)
		errs = append(errs, check.Required(d.Name, here.Child("name"))...)
		if names[d.Name] {
			errs = append(errs, field.Invalid(here.Child("name"), d.Name, "must be unique"))
		}
		names[d.Name] = d.Name != ""
		switch v := c.volumes[d.Name]; {
		case v == nil:
			errs = append(errs, field.NotFound(here.Child("name"), d.Name))
		case v.PersistentVolumeClaim == nil && v.Ephemeral == nil:
			errs = append(errs, field.Invalid(here.Child("name"), d.Name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"))
		}
		errs = append(errs, check.Required(d.DevicePath, here.Child("devicePath"))...)
		if paths[d.DevicePath] {
			errs = append(errs, field.Invalid(here.Child("devicePath"), d.DevicePath, "must be unique"))
		}
		if d.DevicePath != "" && backsteps(d.DevicePath) {
			errs = append(errs, field.Invalid(here.Child("devicePath"), d.DevicePath, "can not contain backsteps ('..')"))
		} else {
			paths[d.DevicePath] = true
		}
		if mounts[d.DevicePath] {
			errs = append(errs, field.Invalid(here.Child("devicePath"), d.DevicePath, "must not already exist as a path in volumeMounts"))
		}
		if mountNames[d.Name] {
			errs = append(errs, field.Invalid(here.Child("name"), d.Name, "must not already exist in volumeMounts"))
		}
	}
	return errs
}

const textBacksteps = "must not contain '..'"

// backsteps reports whether a step of the path goes up.
func backsteps(p string) bool {
	return slices.Contains(strings.Split(p, "/"), "..")
}

// NoBacksteps wants a path without "..".
func NoBacksteps(p string, at *field.Path) field.ErrorList { return noBacksteps(p, at) }

func noBacksteps(p string, at *field.Path) field.ErrorList {
	if backsteps(p) {
		return field.ErrorList{field.Invalid(at, p, textBacksteps)}
	}
	return nil
}

// descendingPath wants a relative path that stays below where it begins.
func descendingPath(p string, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if path.IsAbs(p) {
		errs = append(errs, field.Invalid(at, p, "must be a relative path"))
	}
	return append(errs, noBacksteps(p, at)...)
}

// localPath is descendingPath without the names that volumes keep for themselves.
func localPath(p string, at *field.Path) field.ErrorList {
	errs := descendingPath(p, at)
	if strings.HasPrefix(p, "..") && !strings.HasPrefix(p, "../") {
		errs = append(errs, field.Invalid(at, p, "must not start with '..'"))
	}
	return errs
}
