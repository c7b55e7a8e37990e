package scheduler

import (
	"slices"

	v1 "k8s.io/api/core/v1"
)

// volumeRestrictions keeps a claim with access mode ReadWriteOncePod (KEP-2485)
// to one pod in the cluster, and a disk that cannot be shared to one pod on a
// node.
type volumeRestrictions struct{ volumes *volumes }

func (volumeRestrictions) Name() string { return "VolumeRestrictions" }

const (
	reasonOncePod  = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
	reasonDiskUsed = "node(s) had no available disk"
)

func (p volumeRestrictions) Filter(pod *PodInfo, cluster *Cluster) (NodeFilter, *Status) {
	var once []string // claims for one pod only
	if hasClaims(pod.Pod) {
		if err := p.volumes.ready(); err != nil {
			return nil, failed(err)
		}
		for i := range pod.Spec.Volumes {
			name, _ := claimOf(pod.Pod, &pod.Spec.Volumes[i])
			if name == "" {
				continue
			}
			c := p.volumes.claim(pod.Namespace, name)
			if c != nil && slices.Contains(c.Spec.AccessModes, v1.ReadWriteOncePod) {
				once = append(once, name)
			}
		}
	}
	disks := slices.ContainsFunc(pod.Spec.Volumes, isExclusiveDisk)
	if len(once) == 0 && !disks {
		return nil, nil
	}
	users := map[string]int{} // of the once claims, by node
	elsewhere := 0
	for _, node := range cluster.Nodes {
		for _, other := range node.Pods {
			if other.Namespace == pod.Namespace && usesAny(other.Pod, once) {
				users[node.Name]++
				elsewhere++
			}
		}
	}
	return func(node *NodeInfo) *Status {
		if elsewhere > 0 {
			return rejected(reasonOncePod)
		}
		if disks && slices.ContainsFunc(node.Pods, func(o *PodInfo) bool { return disksConflict(pod.Pod, o.Pod) }) {
			return rejected(reasonDiskUsed)
		}
		return nil
	}, nil
}

func usesAny(pod *v1.Pod, claims []string) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v v1.Volume) bool {
		name, _ := claimOf(pod, &v)
		return name != "" && slices.Contains(claims, name)
	})
}

func isExclusiveDisk(v v1.Volume) bool {
	return v.GCEPersistentDisk != nil || v.AWSElasticBlockStore != nil || v.ISCSI != nil || v.RBD != nil
}

// disksConflict reports whether two pods name one disk that, as they would
// use it, only one of them can have.
func disksConflict(a, b *v1.Pod) bool {
	for i := range a.Spec.Volumes {
		for j := range b.Spec.Volumes {
			if sameDisk(&a.Spec.Volumes[i], &b.Spec.Volumes[j]) {
				return true
			}
		}
	}
	return false
}

func sameDisk(a, b *v1.Volume) bool {
	switch {
	case a.GCEPersistentDisk != nil && b.GCEPersistentDisk != nil:
		x, y := a.GCEPersistentDisk, b.GCEPersistentDisk
		return x.PDName == y.PDName && !(x.ReadOnly && y.ReadOnly)
	case a.AWSElasticBlockStore != nil && b.AWSElasticBlockStore != nil:
		return a.AWSElasticBlockStore.VolumeID == b.AWSElasticBlockStore.VolumeID
	case a.ISCSI != nil && b.ISCSI != nil:
		return a.ISCSI.IQN == b.ISCSI.IQN && !(a.ISCSI.ReadOnly && b.ISCSI.ReadOnly)
	case a.RBD != nil && b.RBD != nil:
		x, y := a.RBD, b.RBD
		shared := slices.ContainsFunc(x.CephMonitors, func(m string) bool { return slices.Contains(y.CephMonitors, m) })
		return shared && x.RBDPool == y.RBDPool && x.RBDImage == y.RBDImage && !(x.ReadOnly && y.ReadOnly)
	}
	return false
}

func (p volumeRestrictions) Wakes(pod *PodInfo, e Event) bool {
	switch e.Kind {
	case PodRemoved:
		if disksConflict(pod.Pod, e.OldPod) {
			return true
		}
		var claims []string
		for i := range pod.Spec.Volumes {
			if name, _ := claimOf(pod.Pod, &pod.Spec.Volumes[i]); name != "" {
				claims = append(claims, name)
			}
		}
		return e.OldPod.Namespace == pod.Namespace && usesAny(e.OldPod, claims)
	case NodeAdded, VolumesChanged:
		return true
	}
	return false
}
