package scheduler

import (
	v1 "k8s.io/api/core/v1"
)

// nodeVolumeLimits keeps a CSI driver's volumes on a node within the number
// that it says it can attach there (CSINode).
type nodeVolumeLimits struct{ volumes *volumes }

func (nodeVolumeLimits) Name() string { return "NodeVolumeLimits" }

const reasonVolumeCount = "node(s) exceed max volume count"

// An attachable is one volume of a CSI driver; pods that share it count once.
type attachable struct{ driver, id string }

func (p nodeVolumeLimits) Filter(pod *PodInfo, _ *Cluster) (NodeFilter, *Status) {
	if !hasClaims(pod.Pod) {
		return nil, nil
	}
	if err := p.volumes.ready(); err != nil {
		return nil, failed(err)
	}
	wanted := map[attachable]bool{}
	p.collect(pod.Pod, wanted)
	if len(wanted) == 0 {
		return nil, nil
	}
	return func(node *NodeInfo) *Status {
		limits := p.limits(node.Name)
		if len(limits) == 0 {
			return nil
		}
		there := map[attachable]bool{}
		for _, other := range node.Pods {
			p.collect(other.Pod, there)
		}
		count := map[string]int64{} // new ones, by driver
		for a := range wanted {
			if !there[a] {
				count[a.driver]++
			}
		}
		if len(count) == 0 {
			return nil
		}
		used := map[string]int64{}
		for a := range there {
			used[a.driver]++
		}
		for driver, n := range count {
			if limit, ok := limits[driver]; ok && used[driver]+n > limit {
				return rejected(reasonVolumeCount)
			}
		}
		return nil
	}, nil
}

// limits of node by driver; a driver without one has none.
func (p nodeVolumeLimits) limits(node string) map[string]int64 {
	info := p.volumes.csiNode(node)
	if info == nil {
		return nil
	}
	out := map[string]int64{}
	for i := range info.Spec.Drivers {
		d := &info.Spec.Drivers[i]
		if d.Allocatable != nil && d.Allocatable.Count != nil {
			out[d.Name] = int64(*d.Allocatable.Count)
		}
	}
	return out
}

// collect adds the CSI volumes behind pod's claims. A claim without a volume
// yet counts for the driver that will make it.
func (p nodeVolumeLimits) collect(pod *v1.Pod, into map[attachable]bool) {
	for i := range pod.Spec.Volumes {
		name, _ := claimOf(pod, &pod.Spec.Volumes[i])
		if name == "" {
			continue
		}
		c := p.volumes.claim(pod.Namespace, name)
		if c == nil {
			continue
		}
		if c.Spec.VolumeName != "" {
			if pv := p.volumes.volume(c.Spec.VolumeName); pv != nil {
				if csi := pv.Spec.CSI; csi != nil {
					into[attachable{csi.Driver, csi.VolumeHandle}] = true
				}
				continue
			}
		}
		if class := p.volumes.class(className(c)); class != nil {
			into[attachable{class.Provisioner, claimKey(c)}] = true
		}
	}
}

func (p nodeVolumeLimits) Wakes(_ *PodInfo, e Event) bool {
	switch e.Kind {
	case PodRemoved:
		return hasClaims(e.OldPod)
	case NodeAdded, VolumesChanged:
		return true
	}
	return false
}
