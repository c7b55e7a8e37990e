package scheduler

import (
	"cmp"
	"slices"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
)

// reaches reports whether a volume can be used on node.
func reaches(pv *v1.PersistentVolume, node *v1.Node) bool {
	return pv.Spec.NodeAffinity == nil || pv.Spec.NodeAffinity.Required == nil ||
		matchNodeSelector(pv.Spec.NodeAffinity.Required)(node)
}

func requested(c *v1.PersistentVolumeClaim) resource.Quantity {
	return c.Spec.Resources.Requests[v1.ResourceStorage]
}

// matching lists the volumes that could serve claim, apart from where: one
// reserved for it first, then the free ones, the smallest first ("Binding" in
// the Kubernetes docs on persistent volumes).
func (v *volumes) matching(claim *v1.PersistentVolumeClaim) []*v1.PersistentVolume {
	var out []*v1.PersistentVolume
	want := requested(claim)
	selector := labels.Everything()
	if claim.Spec.Selector != nil {
		selector = selectorOf(claim.Spec.Selector)
	}
	for _, obj := range v.persistent.List() {
		pv := obj.(*v1.PersistentVolume)
		size := pv.Spec.Capacity[v1.ResourceStorage]
		switch {
		case pv.DeletionTimestamp != nil,
			size.Cmp(want) < 0,
			volumeMode(pv.Spec.VolumeMode) != volumeMode(claim.Spec.VolumeMode),
			text(pv.Spec.VolumeAttributesClassName) != text(claim.Spec.VolumeAttributesClassName):
			continue
		case reservedFor(pv, claim):
		case pv.Spec.ClaimRef != nil,
			pv.Status.Phase != v1.VolumeAvailable,
			volumeClassName(pv) != className(claim),
			!selector.Matches(labels.Set(pv.Labels)),
			!hasModes(pv.Spec.AccessModes, claim.Spec.AccessModes):
			continue
		}
		out = append(out, pv)
	}
	slices.SortFunc(out, func(a, b *v1.PersistentVolume) int {
		if ra, rb := reservedFor(a, claim), reservedFor(b, claim); ra != rb {
			if ra {
				return -1
			}
			return 1
		}
		sa, sb := a.Spec.Capacity[v1.ResourceStorage], b.Spec.Capacity[v1.ResourceStorage]
		if c := sa.Cmp(sb); c != 0 {
			return c
		}
		return cmp.Compare(a.Name, b.Name)
	})
	return out
}

// reservedFor reports whether pv names claim in its claimRef.
func reservedFor(pv *v1.PersistentVolume, claim *v1.PersistentVolumeClaim) bool {
	ref := pv.Spec.ClaimRef
	return ref != nil && ref.Namespace == claim.Namespace && ref.Name == claim.Name && (ref.UID == "" || ref.UID == claim.UID)
}

func volumeMode(m *v1.PersistentVolumeMode) v1.PersistentVolumeMode {
	if m == nil {
		return v1.PersistentVolumeFilesystem
	}
	return *m
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func hasModes(have, want []v1.PersistentVolumeAccessMode) bool {
	for _, m := range want {
		if !slices.Contains(have, m) {
			return false
		}
	}
	return true
}

// provisionable says whether a volume for claim can be made for node; else why.
func (v *volumes) provisionable(claim *v1.PersistentVolumeClaim, node *v1.Node) (reason string) {
	class := v.class(className(claim))
	if class == nil || class.Provisioner == "" || class.Provisioner == noProvisioner || !topologyAllowed(class, node) {
		return reasonNoVolume
	}
	driver := v.driver(class.Provisioner)
	if driver == nil || driver.Spec.StorageCapacity == nil || !*driver.Spec.StorageCapacity {
		return "" // the driver does not say how much there is: it may be enough
	}
	want := requested(claim)
	for _, obj := range v.capacities.List() {
		c := obj.(*storagev1.CSIStorageCapacity)
		limit := c.Capacity
		if c.MaximumVolumeSize != nil {
			limit = c.MaximumVolumeSize
		}
		if c.StorageClassName == class.Name && limit != nil && limit.Cmp(want) >= 0 &&
			c.NodeTopology != nil && selectorOf(c.NodeTopology).Matches(labels.Set(node.Labels)) {
			return ""
		}
	}
	return reasonNoStorage
}

// topologyAllowed: terms are alternatives, none allow everything.
func topologyAllowed(class *storagev1.StorageClass, node *v1.Node) bool {
	if len(class.AllowedTopologies) == 0 {
		return true
	}
	return slices.ContainsFunc(class.AllowedTopologies, func(t v1.TopologySelectorTerm) bool {
		for _, e := range t.MatchLabelExpressions {
			value, ok := node.Labels[e.Key]
			if !ok || !slices.Contains(e.Values, value) {
				return false
			}
		}
		return true
	})
}
