package podspec

import (
	"fmt"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// WarnPod tells what in a pod is deprecated or does not do what it seems to; old is nil on create.
func WarnPod(p, old *corev1.Pod) []string {
	if old != nil { // only what is new
		return WarnTemplate(&corev1.PodTemplateSpec{ObjectMeta: p.ObjectMeta, Spec: p.Spec}, &corev1.PodTemplateSpec{ObjectMeta: old.ObjectMeta, Spec: old.Spec}, nil)
	}
	return WarnTemplate(&corev1.PodTemplateSpec{ObjectMeta: p.ObjectMeta, Spec: p.Spec}, nil, nil)
}

// WarnTemplate is WarnPod for a template at path. An unchanged template has no warnings on update.
func WarnTemplate(t, old *corev1.PodTemplateSpec, path *field.Path) []string {
	w := &warner{path: path, spec: &t.Spec}
	if old == nil {
		w.deprecatedLabels()
		w.annotations(t.Annotations)
		w.mistakes()
	}
	w.volumes(old)
	return w.texts
}

type warner struct {
	path  *field.Path
	spec  *corev1.PodSpec
	texts []string
}

// at is a path in the specification; without path the pod's own.
func (w *warner) at(name string) *field.Path {
	if w.path == nil {
		return field.NewPath("spec", name)
	}
	return w.path.Child("spec", name)
}

func (w *warner) say(format string, args ...any) {
	w.texts = append(w.texts, fmt.Sprintf(format, args...))
}

// deprecatedNodeLabels have new names.
var deprecatedNodeLabels = map[string]string{
	"beta.kubernetes.io/arch":                  `deprecated since v1.14; use "kubernetes.io/arch" instead`,
	"beta.kubernetes.io/os":                    `deprecated since v1.14; use "kubernetes.io/os" instead`,
	"failure-domain.beta.kubernetes.io/region": `deprecated since v1.17; use "topology.kubernetes.io/region" instead`,
	"failure-domain.beta.kubernetes.io/zone":   `deprecated since v1.17; use "topology.kubernetes.io/zone" instead`,
	"beta.kubernetes.io/instance-type":         `deprecated since v1.17; use "node.kubernetes.io/instance-type" instead`,
}

func (w *warner) deprecatedLabels() {
	for key := range w.spec.NodeSelector {
		if text := deprecatedNodeLabels[key]; text != "" {
			w.say("%s: %s", w.at("nodeSelector").Key(key), text)
		}
	}
	if a := w.spec.Affinity; a != nil && a.NodeAffinity != nil {
		at := w.at("affinity").Child("nodeAffinity")
		if r := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
			w.texts = append(w.texts, WarnNodeSelector(r, at.Child("requiredDuringSchedulingIgnoredDuringExecution"))...)
		}
		for i := range a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
			w.texts = append(w.texts, warnNodeTerm(&a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution[i].Preference,
				at.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i).Child("preference"))...)
		}
	}
	for i, t := range w.spec.TopologySpreadConstraints {
		if text := deprecatedNodeLabels[t.TopologyKey]; text != "" {
			w.say("%s: %s is %s", w.at("topologySpreadConstraints").Index(i).Child("topologyKey"), t.TopologyKey, text)
		}
	}
}

// annotations tells of settings that have become fields.
func (w *warner) annotations(annotations map[string]string) {
	path := field.NewPath("metadata", "annotations")
	if w.path != nil {
		path = w.path.Child("metadata", "annotations")
	}
	for _, k := range check.Sorted(annotations) {
		switch {
		case strings.HasPrefix(k, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix):
			w.say("%s: deprecated since v1.30; use the \"appArmorProfile\" field instead", path.Key(k))
		case k == corev1.SeccompPodAnnotationKey || strings.HasPrefix(k, corev1.SeccompContainerAnnotationKeyPrefix):
			w.say("%s: non-functional in v1.27+; use the \"seccompProfile\" field instead", path.Key(k))
		}
	}
}

// WarnNodeSelector tells of node labels that have new names.
func WarnNodeSelector(s *corev1.NodeSelector, path *field.Path) []string {
	var texts []string
	for i := range s.NodeSelectorTerms {
		texts = append(texts, warnNodeTerm(&s.NodeSelectorTerms[i], path.Child("nodeSelectorTerms").Index(i))...)
	}
	return texts
}

func warnNodeTerm(t *corev1.NodeSelectorTerm, path *field.Path) []string {
	var texts []string
	for i, e := range t.MatchExpressions {
		if text := deprecatedNodeLabels[e.Key]; text != "" {
			texts = append(texts, fmt.Sprintf("%s: %s is %s", path.Child("matchExpressions").Index(i).Child("key"), e.Key, text))
		}
	}
	return texts
}

// mistakes are lists that hold something twice, and the like.
func (w *warner) mistakes() {
	s := w.spec
	for i, secret := range s.ImagePullSecrets {
		at := w.at("imagePullSecrets").Index(i)
		if secret.Name == "" {
			w.say("%s: invalid empty name %q", at.Child("name"), "")
			continue
		}
		for _, earlier := range s.ImagePullSecrets[:i] {
			if earlier.Name == secret.Name {
				w.say("%s: duplicate name %q", at.Child("name"), secret.Name)
				break
			}
		}
	}
	for i, a := range s.HostAliases {
		for _, text := range validation.GetWarningsForIP(w.at("hostAliases").Index(i).Child("ip"), a.IP) {
			w.say("%s", text)
		}
		for _, earlier := range s.HostAliases[:i] {
			if earlier.IP == a.IP {
				w.say("%s: duplicate ip %q", w.at("hostAliases").Index(i).Child("ip"), a.IP)
				break
			}
		}
	}
	if s.DNSConfig != nil {
		for i, ip := range s.DNSConfig.Nameservers {
			for _, text := range validation.GetWarningsForIP(w.at("dnsConfig").Child("nameservers").Index(i), ip) {
				w.say("%s", text)
			}
		}
	}
	w.containers(s.InitContainers, "initContainers")
	w.containers(s.Containers, "containers")
	if p := s.TerminationGracePeriodSeconds; p != nil && *p < 0 {
		w.say("%s: must be >= 0; negative values are invalid and will be treated as 1", w.at("terminationGracePeriodSeconds"))
	}
}

func (w *warner) containers(containers []corev1.Container, name string) {
	for i := range containers {
		c, at := &containers[i], w.at(name).Index(i)
		for k, q := range c.Resources.Limits {
			w.fraction(k, q.MilliValue(), q.String(), at.Child("resources", "limits").Key(string(k)))
		}
		for k, q := range c.Resources.Requests {
			w.fraction(k, q.MilliValue(), q.String(), at.Child("resources", "requests").Key(string(k)))
		}
		for j, e := range c.Env {
			for _, earlier := range c.Env[:j] {
				if earlier.Name == e.Name && !strings.Contains(e.Value, "$("+e.Name+")") {
					w.say("%s: hides previous definition of %q, which may be dropped when using apply", at.Child("env").Index(j), e.Name)
					break
				}
			}
		}
		w.ports(c, at)
	}
}

// fraction warns of bytes that are not whole.
func (w *warner) fraction(name corev1.ResourceName, milli int64, text string, at *field.Path) {
	if (name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage) && milli%1000 != 0 {
		w.say("%s: fractional byte value %q is invalid, must be an integer", at, text)
	}
}

func (w *warner) ports(c *corev1.Container, at *field.Path) {
	for j, p := range c.Ports {
		for k, earlier := range c.Ports[:j] {
			if earlier.ContainerPort == p.ContainerPort && earlier.Protocol == p.Protocol && earlier.HostIP == p.HostIP && earlier.HostPort == p.HostPort {
				w.say("%s: duplicate port definition with %s", at.Child("ports").Index(j), at.Child("ports").Index(k))
				break
			}
		}
	}
}

func (w *warner) volumes(old *corev1.PodTemplateSpec) {
	if old != nil {
		return
	}
	for i := range w.spec.Volumes {
		v, at := &w.spec.Volumes[i], w.at("volumes").Index(i)
		old := func(set bool, name, text string) {
			if set {
				w.say("%s: %s", at.Child(name), text)
			}
		}
		old(v.PhotonPersistentDisk != nil, "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+")
		old(v.GitRepo != nil, "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+")
		old(v.ScaleIO != nil, "scaleIO", "deprecated in v1.16, non-functional in v1.22+")
		old(v.Flocker != nil, "flocker", "deprecated in v1.22, non-functional in v1.25+")
		old(v.StorageOS != nil, "storageOS", "deprecated in v1.22, non-functional in v1.25+")
		old(v.Quobyte != nil, "quobyte", "deprecated in v1.22, non-functional in v1.25+")
		old(v.Glusterfs != nil, "glusterfs", "deprecated in v1.25, non-functional in v1.26+")
		if v.Ephemeral != nil && v.Ephemeral.VolumeClaimTemplate != nil {
			for name, q := range v.Ephemeral.VolumeClaimTemplate.Spec.Resources.Requests {
				if name == corev1.ResourceStorage && q.MilliValue()%1000 != 0 {
					w.say("%s: fractional byte value %q is invalid, must be an integer", at.Child("ephemeral", "volumeClaimTemplate", "spec", "resources", "requests").Key(string(name)), q.String())
				}
			}
		}
		old(v.CephFS != nil, "cephfs", "deprecated in v1.28, non-functional in v1.31+")
		old(v.RBD != nil, "rbd", "deprecated in v1.28, non-functional in v1.31+")
		if p := v.Projected; p != nil {
			w.projected(v.Name, p)
		}
	}
}

func (w *warner) projected(name string, p *corev1.ProjectedVolumeSource) {
	if len(p.Sources) == 0 {
		w.say("volume %q (Projected) has no sources provided", name)
	}
	for _, s := range p.Sources {
		if s == (corev1.VolumeProjection{}) {
			w.say("volume %q (Projected) has no sources provided", name)
		}
	}
}
