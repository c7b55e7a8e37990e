package podspec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// WarnPod tells what in a new pod is deprecated or does not do what it seems to. Changes of pods are made by machines, which
// do not read warnings: there are none when old is given.
func WarnPod(p, old *corev1.Pod) []string {
	if old != nil {
		return nil
	}
	var texts []string
	if messages := check.Label(p.Name); len(messages) > 0 {
		texts = append(texts, fmt.Sprintf("metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: %v", messages))
	}
	return append(texts, warnings(&p.ObjectMeta, &p.Spec, nil)...)
}

// WarnName tells that names made from this one will not be host names.
func WarnName(name string) []string {
	messages := check.Label(name)
	if len(messages) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: %v", messages)}
}

// WarnTemplate is WarnPod for a template at path.
func WarnTemplate(t *corev1.PodTemplateSpec, path *field.Path) []string {
	if t == nil {
		return nil
	}
	return warnings(&t.ObjectMeta, &t.Spec, path)
}

// warnings goes through a specification in the order in which kube-apiserver speaks of it. Without path it is that of a pod.
func warnings(meta *metav1.ObjectMeta, s *corev1.PodSpec, path *field.Path) []string {
	w := &warner{path: path, spec: s, annotations: meta.Annotations}
	if path == nil {
		w.appArmor()
	}
	w.nodeLabels()
	w.deprecatedAnnotations()
	w.volumes()
	w.overlaps()
	w.repeated()
	w.fractions(s.Overhead, w.at("overhead"))
	w.seccomp("", s.SecurityContext == nil || s.SecurityContext.SeccompProfile == nil)
	w.eachContainer(w.container)
	w.ports()
	if p := s.TerminationGracePeriodSeconds; p != nil && *p < 0 {
		w.say("%s: must be >= 0; negative values are invalid and will be treated as 1", w.at("terminationGracePeriodSeconds"))
	}
	w.affinity()
	w.addresses()
	return w.texts
}

type warner struct {
	path        *field.Path
	spec        *corev1.PodSpec
	annotations map[string]string
	texts       []string
}

// under is a path below the template's, or below nothing for a pod.
func (w *warner) under(name string, more ...string) *field.Path {
	if w.path == nil {
		return field.NewPath(name, more...)
	}
	return w.path.Child(name, more...)
}

// at is a path in the specification.
func (w *warner) at(names ...string) *field.Path { return w.under("spec", names...) }

func (w *warner) say(format string, args ...any) {
	w.texts = append(w.texts, fmt.Sprintf(format, args...))
}

func (w *warner) eachContainer(f func(ctr *corev1.Container, at *field.Path)) {
	c := checker{spec: w.spec}
	c.eachContainer(w.at(), f)
}

// deprecatedNodeLabels have new names.
var deprecatedNodeLabels = map[string]string{
	"beta.kubernetes.io/arch":                  `deprecated since v1.14; use "kubernetes.io/arch" instead`,
	"beta.kubernetes.io/os":                    `deprecated since v1.14; use "kubernetes.io/os" instead`,
	"failure-domain.beta.kubernetes.io/region": `deprecated since v1.17; use "topology.kubernetes.io/region" instead`,
	"failure-domain.beta.kubernetes.io/zone":   `deprecated since v1.17; use "topology.kubernetes.io/zone" instead`,
	"beta.kubernetes.io/instance-type":         `deprecated since v1.17; use "node.kubernetes.io/instance-type" instead`,
}

func (w *warner) nodeLabels() {
	for _, key := range check.Sorted(w.spec.NodeSelector) {
		if text := deprecatedNodeLabels[key]; text != "" {
			w.say("%s: %s", w.at("nodeSelector").Key(key), text)
		}
	}
	if a := w.spec.Affinity; a != nil && a.NodeAffinity != nil {
		at := w.at("affinity", "nodeAffinity")
		if r := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution; r != nil {
			w.texts = append(w.texts, WarnNodeSelector(r, at.Child("requiredDuringSchedulingIgnoredDuringExecution"))...)
		}
		for i := range a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
			w.texts = append(w.texts, warnNodeTerm(&a.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution[i].Preference, true,
				at.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i).Child("preference"))...)
		}
	}
	for i, t := range w.spec.TopologySpreadConstraints {
		at := w.at("topologySpreadConstraints").Index(i)
		if text := deprecatedNodeLabels[t.TopologyKey]; text != "" {
			w.say("%s: %s is %s", at.Child("topologyKey"), t.TopologyKey, text)
		}
		w.selectsNothing(t.LabelSelector, at)
	}
}

func (w *warner) selectsNothing(s *metav1.LabelSelector, at *field.Path) {
	if s == nil {
		w.say("%s: a null labelSelector results in matching no pod", at.Child("labelSelector"))
	}
}

// deprecatedAnnotations have become fields and do nothing.
func (w *warner) deprecatedAnnotations() {
	for _, a := range []struct{ key, text string }{
		{"scheduler.alpha.kubernetes.io/critical-pod", `non-functional in v1.16+; use the "priorityClassName" field instead`},
		{"security.alpha.kubernetes.io/sysctls", `non-functional in v1.11+; use the "sysctls" field instead`},
		{"security.alpha.kubernetes.io/unsafe-sysctls", `non-functional in v1.11+; use the "sysctls" field instead`},
	} {
		w.annotation(a.key, a.text)
	}
}

func (w *warner) annotation(key, text string) {
	if _, given := w.annotations[key]; given {
		w.say("%s: %s", w.under("metadata", "annotations").Key(key), text)
	}
}

// appArmor tells of annotations that were turned into fields; in a template they stand beside containers without the field.
func (w *warner) appArmor() {
	for _, k := range check.Sorted(w.annotations) {
		if strings.HasPrefix(k, corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix) {
			w.annotation(k, textAppArmor)
		}
	}
}

const textAppArmor = `deprecated since v1.30; use the "appArmorProfile" field instead`

// seccomp tells of an annotation for a container, or for the pod, that has not got the field instead.
func (w *warner) seccomp(container string, unset bool) {
	key := corev1.SeccompContainerAnnotationKeyPrefix + container
	if container == "" {
		key = corev1.SeccompPodAnnotationKey
	}
	if unset {
		w.annotation(key, `non-functional in v1.27+; use the "seccompProfile" field instead`)
	}
}

// WarnNodeSelector tells of node labels that have new names.
func WarnNodeSelector(s *corev1.NodeSelector, path *field.Path) []string {
	var texts []string
	for i := range s.NodeSelectorTerms {
		texts = append(texts, warnNodeTerm(&s.NodeSelectorTerms[i], false, path.Child("nodeSelectorTerms").Index(i))...)
	}
	return texts
}

func warnNodeTerm(t *corev1.NodeSelectorTerm, values bool, path *field.Path) []string {
	var texts []string
	for i, e := range t.MatchExpressions {
		at := path.Child("matchExpressions").Index(i)
		if text := deprecatedNodeLabels[e.Key]; text != "" {
			texts = append(texts, fmt.Sprintf("%s: %s is %s", at.Child("key"), e.Key, text))
		}
		for j, v := range e.Values {
			for _, m := range validation.IsValidLabelValue(v) {
				if values {
					texts = append(texts, fmt.Sprintf("%s: %s is invalid, %s", at.Child("values").Index(j), v, m))
				}
			}
		}
	}
	return texts
}

// repeated tells of lists that hold something twice.
func (w *warner) repeated() {
	for i, a := range w.spec.HostAliases {
		if slices.ContainsFunc(w.spec.HostAliases[:i], func(b corev1.HostAlias) bool { return b.IP == a.IP }) {
			w.say("%s: duplicate ip %q", w.at("hostAliases").Index(i).Child("ip"), a.IP)
		}
	}
	at := w.at("imagePullSecrets")
	for i, secret := range w.spec.ImagePullSecrets {
		if slices.Contains(w.spec.ImagePullSecrets[:i], secret) {
			w.say("%s: duplicate name %q", at.Index(i).Child("name"), secret.Name)
		}
	}
	for i, secret := range w.spec.ImagePullSecrets {
		if secret.Name == "" {
			w.say("%s: invalid empty name %q", at.Index(i).Child("name"), "")
		}
	}
}

// addresses tells of addresses that are written in a form that not all programs read alike.
func (w *warner) addresses() {
	if d := w.spec.DNSConfig; d != nil {
		for i, ip := range d.Nameservers {
			w.texts = append(w.texts, validation.GetWarningsForIP(w.at("dnsConfig", "nameservers").Index(i), ip)...)
		}
	}
	for i, a := range w.spec.HostAliases {
		w.texts = append(w.texts, validation.GetWarningsForIP(w.at("hostAliases").Index(i).Child("ip"), a.IP)...)
	}
}

func (w *warner) container(c *corev1.Container, at *field.Path) {
	sc := c.SecurityContext
	w.seccomp(c.Name, sc == nil || sc.SeccompProfile == nil)
	if w.path != nil && (sc == nil || sc.AppArmorProfile == nil) {
		w.annotation(corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+c.Name, textAppArmor)
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
		w.fraction(c.Resources.Limits, name, at.Child("resources", "limits"))
		w.fraction(c.Resources.Requests, name, at.Child("resources", "requests"))
	}
	for i, e := range c.Env {
		if slices.ContainsFunc(c.Env[:i], func(b corev1.EnvVar) bool { return b.Name == e.Name }) && hides(&e) {
			w.say("%s: hides previous definition of %q, which may be dropped when using apply", at.Child("env").Index(i), e.Name)
		}
	}
}

// hides reports whether a variable that is defined again is not built on its earlier value, or is nothing but that.
func hides(e *corev1.EnvVar) bool {
	earlier := "$(" + e.Name + ")"
	return e.ValueFrom != nil || e.Value == earlier || !strings.Contains(e.Value, earlier)
}

func (w *warner) fractions(list corev1.ResourceList, at *field.Path) {
	w.fraction(list, corev1.ResourceMemory, at)
	w.fraction(list, corev1.ResourceEphemeralStorage, at)
}

func (w *warner) fraction(list corev1.ResourceList, name corev1.ResourceName, at *field.Path) {
	w.texts = append(w.texts, WarnFraction(list, name, at)...)
}

// WarnFraction tells of bytes that are not whole.
func WarnFraction(list corev1.ResourceList, name corev1.ResourceName, at *field.Path) []string {
	q, given := list[name]
	if whole := (resource.Quantity{}); !given || q.Cmp(whole) == 0 || q.MilliValue()%1000 == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%s: fractional byte value %q is invalid, must be an integer", at.Key(string(name)), q.String())}
}

// WarnClaimSpec tells of what is odd in a claim at path.
func WarnClaimSpec(s *corev1.PersistentVolumeClaimSpec, path *field.Path) []string {
	return append(WarnFraction(s.Resources.Requests, corev1.ResourceStorage, path.Child("resources", "requests")),
		WarnFraction(s.Resources.Limits, corev1.ResourceStorage, path.Child("resources", "limits"))...)
}

// ports tells of ports that more than one container declares.
func (w *warner) ports() {
	type declared struct {
		at   *field.Path
		port corev1.ContainerPort
	}
	seen := map[string][]declared{}
	w.eachContainer(func(c *corev1.Container, at *field.Path) {
		for i, p := range c.Ports {
			here := at.Child("ports").Index(i)
			if p.HostIP != "" && p.HostPort == 0 {
				w.say("%s: hostIP set without hostPort: %+v", here, p)
			}
			key := fmt.Sprintf("%d/%s", p.ContainerPort, p.Protocol)
			for _, other := range seen[key] {
				o := &other.port
				switch {
				case p.HostIP == o.HostIP && p.HostPort == o.HostPort:
					w.say("%s: duplicate port definition with %s", here, other.at)
				case p.HostPort == 0 || o.HostPort == 0:
					w.say("%s: overlapping port definition with %s", here, other.at)
				case p.HostPort == o.HostPort && (p.HostIP == "") != (o.HostIP == ""):
					w.say("%s: dangerously ambiguous port definition with %s", here, other.at)
				}
			}
			seen[key] = append(seen[key], declared{here, p})
		}
	})
}

// affinity tells of terms that concern no pod.
func (w *warner) affinity() {
	a := w.spec.Affinity
	if a == nil {
		return
	}
	terms := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm, name string) {
		at := w.at("affinity", name)
		for i := range required {
			w.selectsNothing(required[i].LabelSelector, at.Child("requiredDuringSchedulingIgnoredDuringExecution").Index(i))
		}
		for i := range preferred {
			w.selectsNothing(preferred[i].PodAffinityTerm.LabelSelector, at.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i).Child("podAffinityTerm"))
		}
	}
	if p := a.PodAffinity; p != nil {
		terms(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution, "podAffinity")
	}
	if p := a.PodAntiAffinity; p != nil {
		terms(p.RequiredDuringSchedulingIgnoredDuringExecution, p.PreferredDuringSchedulingIgnoredDuringExecution, "podAntiAffinity")
	}
}

func (w *warner) volumes() {
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
			w.texts = append(w.texts, WarnClaimSpec(&v.Ephemeral.VolumeClaimTemplate.Spec, at.Child("ephemeral", "volumeClaimTemplate", "spec"))...)
		}
		old(v.CephFS != nil, "cephfs", "deprecated in v1.28, non-functional in v1.31+")
		old(v.RBD != nil, "rbd", "deprecated in v1.28, non-functional in v1.31+")
	}
}
