package scheduler

// unsupported refuses, by name, pods that ask for what no plugin here can
// judge. To bind them regardless would break what they asked for.
type unsupported struct{}

func (unsupported) Name() string { return "Unsupported" }

func (unsupported) Filter(pod *PodInfo, _ *Cluster) (NodeFilter, *Status) {
	switch {
	case len(pod.Spec.ResourceClaims) > 0:
		return nil, rejectedFinally("this scheduler does not support spec.resourceClaims (dynamic resource allocation)")
	case pod.Spec.SchedulingGroup != nil:
		return nil, rejectedFinally("this scheduler does not support spec.schedulingGroup (gang scheduling)")
	}
	return nil, nil
}

func (unsupported) Wakes(_ *PodInfo, e Event) bool { return e.Kind == PendingPodUpdated }
