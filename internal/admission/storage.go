package admission

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"
)

// Finalizers that keep storage objects while something uses them.
const (
	claimProtection      = "kubernetes.io/pvc-protection"
	volumeProtection     = "kubernetes.io/pv-protection"
	attributesProtection = "kubernetes.io/vac-protection"
)

// storageObjectInUseProtection puts a finalizer on volumes, claims and volume attributes classes.
func storageObjectInUseProtection() Plugin {
	return Plugin{Name: "StorageObjectInUseProtection", Change: func(_ context.Context, r *Request) error {
		if r.Operation != Create || r.Object == nil {
			return nil
		}
		finalizer := ""
		switch {
		case r.Is("", "persistentvolumeclaims"):
			finalizer = claimProtection
		case r.Is("", "persistentvolumes"):
			finalizer = volumeProtection
		case r.Is(storagev1.GroupName, "volumeattributesclasses"):
			finalizer = attributesProtection
		default:
			return nil
		}
		if have := r.Object.GetFinalizers(); !slices.Contains(have, finalizer) {
			r.Object.SetFinalizers(append(slices.Clip(have), finalizer))
		}
		return nil
	}}
}

// persistentVolumeClaimResize lets a claim grow only if its storage class says that volumes can.
func (c *cluster) persistentVolumeClaimResize() Plugin {
	return Plugin{Name: "PersistentVolumeClaimResize", Check: func(ctx context.Context, r *Request) error {
		if r.Operation != Update || !r.Is("", "persistentvolumeclaims") {
			return nil
		}
		claim, ok := r.Object.(*corev1.PersistentVolumeClaim)
		old, wasOne := r.Old.(*corev1.PersistentVolumeClaim)
		if !ok || !wasOne {
			return nil
		}
		size, before := claim.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage]
		if size.Cmp(before) <= 0 {
			return nil
		}
		grows, err := c.expandable(ctx, claim, old)
		if err != nil {
			return err
		}
		if !grows {
			return r.Forbidden("only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize")
		}
		return nil
	}}
}

func (c *cluster) expandable(ctx context.Context, claim, old *corev1.PersistentVolumeClaim) (bool, error) {
	name := storageClassOf(claim)
	if name == "" || name != storageClassOf(old) {
		return false, nil
	}
	class, err := get[*storagev1.StorageClass](ctx, c.Reader, storageClasses, "", name)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return ptr.Deref(class.AllowVolumeExpansion, false), nil
}

// storageClassOf returns the name of a claim's storage class, or "".
func storageClassOf(claim *corev1.PersistentVolumeClaim) string {
	if name, ok := claim.Annotations[corev1.BetaStorageClassAnnotation]; ok {
		return name
	}
	return ptr.Deref(claim.Spec.StorageClassName, "")
}
