package controller

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

const (
	claimProtection  = "kubernetes.io/pvc-protection"
	volumeProtection = "kubernetes.io/pv-protection"
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
