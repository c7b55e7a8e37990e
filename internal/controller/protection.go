package controller

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

const (
	claimProtection  = "kubernetes.io/pvc-protection"
	volumeProtection = "kubernetes.io/pv-protection"
	classProtection  = "kubernetes.io/vac-protection"
)

// addVolumeProtection keeps claims that pods use, and volumes that are bound, from going (docs: "Storage Object in Use
// Protection"): each has a finalizer that is taken off when it is deleted and not in use.
func (c *Controllers) addVolumeProtection() {
	claims, volumes := c.informers.Core().V1().PersistentVolumeClaims(), c.informers.Core().V1().PersistentVolumes()
	p := c.add("claim protection", "pvc-protection-controller")
	follow(p, claims.Informer(), func(claim *corev1.PersistentVolumeClaim) { p.queue.Add(keyOf(claim)) })
	tell := func(pod *corev1.Pod) {
		for _, name := range claimsOf(pod) {
			p.queue.Add(pod.Namespace + "/" + name)
		}
	}
	followChanges(p, c.podIndex().informer, func(old, pod *corev1.Pod) {
		if old == nil || finished(pod) != finished(old) {
			tell(pod)
		}
	}, tell)
	p.work(1, func(ctx context.Context, key string) error {
		namespace, name := splitKey(key)
		claim, err := claims.Lister().PersistentVolumeClaims(namespace).Get(name)
		if err != nil {
			return nil //nolint:nilerr // gone
		}
		uses := func(pod *corev1.Pod) bool { return !finished(pod) && slices.Contains(claimsOf(pod), name) }
		next, err := protect(claim, claimProtection, func() (bool, error) {
			seen, err := p.pods.lister.Pods(namespace).List(labels.Everything())
			if err != nil || slices.ContainsFunc(seen, uses) {
				return true, err
			}
			// The informer may be behind: the server decides.
			live, err := p.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
			if err != nil {
				return true, err
			}
			return slices.ContainsFunc(live.Items, func(pod corev1.Pod) bool { return uses(&pod) }), nil
		})
		if err != nil || next == nil {
			return err
		}
		changed := claim.DeepCopy()
		changed.Finalizers = *next
		_, err = p.client.CoreV1().PersistentVolumeClaims(namespace).Update(ctx, changed, metav1.UpdateOptions{})
		return gone(err)
	})

	v := c.add("volume protection", "pv-protection-controller")
	follow(v, volumes.Informer(), func(volume *corev1.PersistentVolume) { v.queue.Add(volume.Name) })
	v.work(1, func(ctx context.Context, name string) error {
		volume, err := volumes.Lister().Get(name)
		if err != nil {
			return nil //nolint:nilerr // gone
		}
		next, err := protect(volume, volumeProtection, func() (bool, error) { return volume.Status.Phase == corev1.VolumeBound, nil })
		if err != nil || next == nil {
			return err
		}
		changed := volume.DeepCopy()
		changed.Finalizers = *next
		_, err = v.client.CoreV1().PersistentVolumes().Update(ctx, changed, metav1.UpdateOptions{})
		return gone(err)
	})
}

// addClassProtection keeps VolumeAttributesClasses that claims or volumes refer to from going (KEP-3751), in the same way.
func (c *Controllers) addClassProtection() {
	core := c.informers.Core().V1()
	claims, volumes := core.PersistentVolumeClaims(), core.PersistentVolumes()
	classes := c.informers.Storage().V1().VolumeAttributesClasses()
	p := c.add("attributes class protection", "volumeattributesclass-protection-controller")
	follow(p, classes.Informer(), func(class *storagev1.VolumeAttributesClass) { p.queue.Add(class.Name) })
	tell := func(names []string) {
		for _, name := range names {
			p.queue.Add(name)
		}
	}
	followChanges(p, claims.Informer(), func(old, claim *corev1.PersistentVolumeClaim) {
		if old != nil {
			tell(classesOfClaim(old))
		}
	}, func(claim *corev1.PersistentVolumeClaim) { tell(classesOfClaim(claim)) })
	followChanges(p, volumes.Informer(), func(old, volume *corev1.PersistentVolume) {
		if old != nil {
			tell(classesOfVolume(old))
		}
	}, func(volume *corev1.PersistentVolume) { tell(classesOfVolume(volume)) })
	p.work(1, func(ctx context.Context, name string) error {
		class, err := classes.Lister().Get(name)
		if err != nil {
			return nil //nolint:nilerr // gone
		}
		next, err := protect(class, classProtection, func() (bool, error) {
			bound, err := volumes.Lister().List(labels.Everything())
			if err != nil {
				return true, err
			}
			asked, err := claims.Lister().List(labels.Everything())
			if err != nil || slices.ContainsFunc(bound, func(v *corev1.PersistentVolume) bool { return slices.Contains(classesOfVolume(v), name) }) ||
				slices.ContainsFunc(asked, func(c *corev1.PersistentVolumeClaim) bool { return slices.Contains(classesOfClaim(c), name) }) {
				return true, err
			}
			// As above: the server decides.
			liveVolumes, err := p.client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
			if err != nil {
				return true, err
			}
			liveClaims, err := p.client.CoreV1().PersistentVolumeClaims("").List(ctx, metav1.ListOptions{})
			if err != nil {
				return true, err
			}
			return slices.ContainsFunc(liveVolumes.Items, func(v corev1.PersistentVolume) bool { return slices.Contains(classesOfVolume(&v), name) }) ||
				slices.ContainsFunc(liveClaims.Items, func(c corev1.PersistentVolumeClaim) bool { return slices.Contains(classesOfClaim(&c), name) }), nil
		})
		if err != nil || next == nil {
			return err
		}
		changed := class.DeepCopy()
		changed.Finalizers = *next
		_, err = p.client.StorageV1().VolumeAttributesClasses().Update(ctx, changed, metav1.UpdateOptions{})
		return gone(err)
	})
}

// classesOfClaim and classesOfVolume are the VolumeAttributesClasses that are asked for, in force, or being put in force.
func classesOfClaim(c *corev1.PersistentVolumeClaim) (names []string) {
	for _, name := range []*string{c.Spec.VolumeAttributesClassName, c.Status.CurrentVolumeAttributesClassName} {
		if name != nil && *name != "" {
			names = append(names, *name)
		}
	}
	if m := c.Status.ModifyVolumeStatus; m != nil && m.TargetVolumeAttributesClassName != "" {
		names = append(names, m.TargetVolumeAttributesClassName)
	}
	return names
}

func classesOfVolume(v *corev1.PersistentVolume) []string {
	if name := v.Spec.VolumeAttributesClassName; name != nil && *name != "" {
		return []string{*name}
	}
	return nil
}

// protect returns the finalizers that an object should have; nil if it has them.
func protect(obj metav1.Object, finalizer string, used func() (bool, error)) (*[]string, error) {
	has := slices.Contains(obj.GetFinalizers(), finalizer)
	switch {
	case obj.GetDeletionTimestamp() == nil && !has:
		next := append(slices.Clone(obj.GetFinalizers()), finalizer)
		return &next, nil
	case obj.GetDeletionTimestamp() != nil && has:
		if inUse, err := used(); err != nil || inUse {
			return nil, err
		}
		next := slices.DeleteFunc(slices.Clone(obj.GetFinalizers()), func(f string) bool { return f == finalizer })
		return &next, nil
	}
	return nil, nil
}

// claimsOf are the names of the claims that a pod uses, its ephemeral ones included.
func claimsOf(pod *corev1.Pod) (names []string) {
	for i := range pod.Spec.Volumes {
		switch v := &pod.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			names = append(names, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			names = append(names, pod.Name+"-"+v.Name)
		}
	}
	return names
}
