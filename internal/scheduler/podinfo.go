package scheduler

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
)

// PodInfo is a pod with what the plugins ask of it again and again, worked out
// once. Immutable.
type PodInfo struct {
	*v1.Pod
	Requests Resources // what it occupies on its node
	Scoring  Resources // the same, with defaults for what is not requested
	Ports    []hostPort

	Affinity              []affinityTerm // required: must be near such pods
	AntiAffinity          []affinityTerm // required: must not be near such pods
	PreferredAffinity     []affinityTerm
	PreferredAntiAffinity []affinityTerm
}

func newPodInfo(pod *v1.Pod) *PodInfo {
	p := &PodInfo{Pod: pod, Requests: podRequests(pod, false), Scoring: podRequests(pod, true), Ports: hostPorts(pod)}
	if a := pod.Spec.Affinity; a != nil {
		if a.PodAffinity != nil {
			p.Affinity = requiredTerms(pod, a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
			p.PreferredAffinity = weightedTerms(pod, a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
		}
		if a.PodAntiAffinity != nil {
			p.AntiAffinity = requiredTerms(pod, a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
			p.PreferredAntiAffinity = weightedTerms(pod, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution)
		}
	}
	return p
}

func (p *PodInfo) String() string { return p.Namespace + "/" + p.Name }

// priority is 0 for a pod that says nothing.
func (p *PodInfo) priority() int32 { return podPriority(p.Pod) }

func podPriority(pod *v1.Pod) int32 {
	if pod.Spec.Priority == nil {
		return 0
	}
	return *pod.Spec.Priority
}

// podID identifies one life of a pod: a pod deleted and created again under
// its name is another one.
type podID types.UID

func idOf(pod *v1.Pod) podID { return podID(pod.UID) }

// An affinityTerm selects pods, and the topology in which nearness counts.
type affinityTerm struct {
	topologyKey string
	weight      int64 // preferred terms only, negative for anti-affinity
	namespaces  sets.Set[string]
	// nsSelector selects further namespaces by their labels; nil selects none.
	nsSelector labels.Selector
	selector   labels.Selector
}

func requiredTerms(pod *v1.Pod, terms []v1.PodAffinityTerm) []affinityTerm {
	var out []affinityTerm
	for i := range terms {
		out = append(out, newAffinityTerm(pod, &terms[i], 0))
	}
	return out
}

func weightedTerms(pod *v1.Pod, terms []v1.WeightedPodAffinityTerm) []affinityTerm {
	var out []affinityTerm
	for i := range terms {
		out = append(out, newAffinityTerm(pod, &terms[i].PodAffinityTerm, int64(terms[i].Weight)))
	}
	return out
}

// newAffinityTerm reads a term that the API server has validated; it also has
// merged matchLabelKeys and mismatchLabelKeys into the label selector
// (KEP-3633). A selector that does not parse selects nothing.
func newAffinityTerm(pod *v1.Pod, t *v1.PodAffinityTerm, weight int64) affinityTerm {
	term := affinityTerm{topologyKey: t.TopologyKey, weight: weight, selector: selectorOf(t.LabelSelector)}
	if t.NamespaceSelector != nil {
		term.nsSelector = selectorOf(t.NamespaceSelector)
	}
	if len(t.Namespaces) == 0 && t.NamespaceSelector == nil {
		term.namespaces = sets.New(pod.Namespace)
	} else {
		term.namespaces = sets.New(t.Namespaces...)
	}
	return term
}

func selectorOf(s *metav1.LabelSelector) labels.Selector {
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return sel
}

// matches reports whether the term selects pod, whose namespace has nsLabels.
func (t *affinityTerm) matches(pod *v1.Pod, nsLabels labels.Set) bool {
	if !t.namespaces.Has(pod.Namespace) && (t.nsSelector == nil || !t.nsSelector.Matches(nsLabels)) {
		return false
	}
	return t.selector.Matches(labels.Set(pod.Labels))
}

// A hostPort is a port that a container takes on its node.
type hostPort struct {
	ip       string // "0.0.0.0" is every address
	protocol v1.Protocol
	port     int32
}

const everyAddress = "0.0.0.0"

// hostPorts collects the host ports of everything that keeps running in pod.
func hostPorts(pod *v1.Pod) []hostPort {
	var out []hostPort
	collect := func(c *v1.Container) {
		for _, p := range c.Ports {
			if p.HostPort <= 0 {
				continue
			}
			hp := hostPort{ip: p.HostIP, protocol: p.Protocol, port: p.HostPort}
			if hp.ip == "" {
				hp.ip = everyAddress
			}
			if hp.protocol == "" {
				hp.protocol = v1.ProtocolTCP
			}
			out = append(out, hp)
		}
	}
	for i := range pod.Spec.Containers {
		collect(&pod.Spec.Containers[i])
	}
	for i := range pod.Spec.InitContainers {
		if isSidecar(&pod.Spec.InitContainers[i]) {
			collect(&pod.Spec.InitContainers[i])
		}
	}
	return out
}

func (p hostPort) conflicts(o hostPort) bool {
	return p.port == o.port && p.protocol == o.protocol &&
		(p.ip == o.ip || p.ip == everyAddress || o.ip == everyAddress)
}

// podImages lists the images of pod's containers and image volumes as nodes
// name them: with a tag or digest.
func podImages(pod *v1.Pod) []string {
	var out []string
	add := func(image string) {
		if image == "" {
			return
		}
		if strings.LastIndex(image, ":") <= strings.LastIndex(image, "/") {
			image += ":latest"
		}
		out = append(out, image)
	}
	for i := range pod.Spec.InitContainers {
		add(pod.Spec.InitContainers[i].Image)
	}
	for i := range pod.Spec.Containers {
		add(pod.Spec.Containers[i].Image)
	}
	for i := range pod.Spec.Volumes {
		if v := pod.Spec.Volumes[i].Image; v != nil {
			add(v.Reference)
		}
	}
	return out
}

// claimOf is the name of the claim behind a volume, "" if it has none. An
// ephemeral volume's claim is named after pod and volume (KEP-1698).
func claimOf(pod *v1.Pod, v *v1.Volume) (name string, ephemeral bool) {
	switch {
	case v.PersistentVolumeClaim != nil:
		return v.PersistentVolumeClaim.ClaimName, false
	case v.Ephemeral != nil:
		return fmt.Sprintf("%s-%s", pod.Name, v.Name), true
	}
	return "", false
}
