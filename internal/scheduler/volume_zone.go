package scheduler

import (
	"maps"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// volumeZone keeps pods in the zone and region that their volumes are
// labelled with. Volumes of today say so by node affinity; the labels are
// from before.
type volumeZone struct{ volumes *volumes }

func (volumeZone) Name() string { return "VolumeZone" }

const reasonZone = "node(s) had no available volume zone"

// zoneLabels of volumes, each with the node labels that answer it. A label
// may list several values.
var zoneLabels = map[string][]string{
	v1.LabelTopologyZone:            {v1.LabelTopologyZone, v1.LabelFailureDomainBetaZone},
	v1.LabelTopologyRegion:          {v1.LabelTopologyRegion, v1.LabelFailureDomainBetaRegion},
	v1.LabelFailureDomainBetaZone:   {v1.LabelFailureDomainBetaZone, v1.LabelTopologyZone},
	v1.LabelFailureDomainBetaRegion: {v1.LabelFailureDomainBetaRegion, v1.LabelTopologyRegion},
}

const zoneListSeparator = "__"

func (p volumeZone) Filter(pod *PodInfo, _ *Cluster) (NodeFilter, *Status) {
	if !hasClaims(pod.Pod) {
		return nil, nil
	}
	if err := p.volumes.ready(); err != nil {
		return nil, failed(err)
	}
	type demand struct {
		nodeLabels []string
		values     map[string]bool
	}
	var demands []demand
	for i := range pod.Spec.Volumes {
		name, _ := claimOf(pod.Pod, &pod.Spec.Volumes[i])
		if name == "" {
			continue
		}
		c := p.volumes.claim(pod.Namespace, name)
		if c == nil || c.Spec.VolumeName == "" {
			continue // for VolumeBinding to judge
		}
		pv := p.volumes.volume(c.Spec.VolumeName)
		if pv == nil {
			continue
		}
		for label, nodeLabels := range zoneLabels {
			if list, ok := pv.Labels[label]; ok {
				d := demand{nodeLabels, map[string]bool{}}
				for value := range strings.SplitSeq(list, zoneListSeparator) {
					d.values[value] = true
				}
				demands = append(demands, d)
			}
		}
	}
	if len(demands) == 0 {
		return nil, nil
	}
	return func(node *NodeInfo) *Status {
		if !hasZone(node.Node) {
			return nil // a cluster without zones
		}
		for _, d := range demands {
			ok := false
			for _, label := range d.nodeLabels {
				if value, has := node.Labels[label]; has {
					ok = d.values[value]
					break
				}
			}
			if !ok {
				return rejectedFinally(reasonZone)
			}
		}
		return nil
	}, nil
}

func hasZone(n *v1.Node) bool {
	for label := range zoneLabels {
		if _, ok := n.Labels[label]; ok {
			return true
		}
	}
	return false
}

func (p volumeZone) Wakes(_ *PodInfo, e Event) bool {
	switch e.Kind {
	case NodeAdded, VolumesChanged:
		return true
	case NodeUpdated:
		return !maps.Equal(e.OldNode.Labels, e.Node.Labels)
	}
	return false
}
