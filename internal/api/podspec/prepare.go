package podspec

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// QOSClass is how a pod is treated when its node runs short (Kubernetes documentation, "Pod Quality of
// Service Classes"): by what the pod as a whole asks for, if it says so, else by what its containers do.
func QOSClass(s *corev1.PodSpec) corev1.PodQOSClass {
	requests, limits := corev1.ResourceList{}, corev1.ResourceList{}
	guaranteed := true
	see := func(r *corev1.ResourceRequirements) {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			q, limit := r.Requests[name], r.Limits[name]
			if q.Sign() > 0 {
				sum := requests[name]
				sum.Add(q)
				requests[name] = sum
			}
			if limit.Sign() > 0 {
				sum := limits[name]
				sum.Add(limit)
				limits[name] = sum
			} else {
				guaranteed = false
			}
		}
	}
	if s.Resources != nil && (len(s.Resources.Requests) > 0 || len(s.Resources.Limits) > 0) {
		see(s.Resources)
	} else {
		for _, c := range slices.Concat(s.InitContainers, s.Containers) {
			see(&c.Resources)
		}
	}
	if len(requests) == 0 && len(limits) == 0 {
		return corev1.PodQOSBestEffort
	}
	for name, q := range requests {
		limit, found := limits[name]
		if !found || limit.Cmp(q) != 0 {
			guaranteed = false
		}
	}
	if guaranteed && len(requests) == len(limits) {
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

// PreparePod makes a new pod ready to be checked, its status aside.
func PreparePod(p *corev1.Pod, rules Rules) {
	rules.DropDisabled(&p.Spec, nil)
	mergeMatchLabels(&p.Spec, p.Labels)
	appArmorFromAnnotations(p)
}

// appArmorFromAnnotations turns the annotations in which AppArmor profiles once stood into fields, where there is none.
func appArmorFromAnnotations(p *corev1.Pod) {
	if p.Spec.OS != nil && p.Spec.OS.Name == corev1.Windows {
		return
	}
	eachLifecycle(&p.Spec, func(c *corev1.Container) {
		profile := appArmorOf(p.Annotations[corev1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+c.Name])
		if profile == nil || c.SecurityContext != nil && c.SecurityContext.AppArmorProfile != nil {
			return
		}
		if s := p.Spec.SecurityContext; s != nil && s.AppArmorProfile != nil && equality.Semantic.DeepEqual(s.AppArmorProfile, profile) {
			return
		}
		if c.SecurityContext == nil {
			c.SecurityContext = &corev1.SecurityContext{}
		}
		c.SecurityContext.AppArmorProfile = profile
	})
}

// appArmorOf is the profile that an annotation names, nil if none.
func appArmorOf(annotation string) *corev1.AppArmorProfile {
	switch local, isLocal := strings.CutPrefix(annotation, corev1.DeprecatedAppArmorBetaProfileNamePrefix); {
	case annotation == corev1.DeprecatedAppArmorBetaProfileRuntimeDefault:
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}
	case annotation == corev1.DeprecatedAppArmorBetaProfileNameUnconfined:
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}
	case isLocal && local != "":
		return &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: &local}
	}
	return nil
}

// mergeMatchLabels turns matchLabelKeys and mismatchLabelKeys of pod (anti-)affinity into requirements on the values that
// the pod's own labels have (KEP-3633); the same for topology spread (KEP-3243).
func mergeMatchLabels(s *corev1.PodSpec, labels map[string]string) {
	require := func(selector **metav1.LabelSelector, key string, operator metav1.LabelSelectorOperator) {
		value, found := labels[key]
		if !found || *selector == nil {
			return
		}
		for _, e := range (*selector).MatchExpressions {
			if e.Key == key && e.Operator == operator && slices.Equal(e.Values, []string{value}) {
				return
			}
		}
		(*selector).MatchExpressions = append((*selector).MatchExpressions, metav1.LabelSelectorRequirement{Key: key, Operator: operator, Values: []string{value}})
	}
	term := func(t *corev1.PodAffinityTerm) {
		for _, key := range t.MatchLabelKeys {
			require(&t.LabelSelector, key, metav1.LabelSelectorOpIn)
		}
		for _, key := range t.MismatchLabelKeys {
			require(&t.LabelSelector, key, metav1.LabelSelectorOpNotIn)
		}
	}
	EachAffinityTerm(s, term)
	for i := range s.TopologySpreadConstraints {
		c := &s.TopologySpreadConstraints[i]
		for _, key := range c.MatchLabelKeys {
			require(&c.LabelSelector, key, metav1.LabelSelectorOpIn)
		}
	}
}

// EachAffinityTerm calls f with every term of pod affinity and anti-affinity.
func EachAffinityTerm(s *corev1.PodSpec, f func(*corev1.PodAffinityTerm)) {
	if s.Affinity == nil {
		return
	}
	each := func(required []corev1.PodAffinityTerm, preferred []corev1.WeightedPodAffinityTerm) {
		for i := range required {
			f(&required[i])
		}
		for i := range preferred {
			f(&preferred[i].PodAffinityTerm)
		}
	}
	if a := s.Affinity.PodAffinity; a != nil {
		each(a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution)
	}
	if a := s.Affinity.PodAntiAffinity; a != nil {
		each(a.RequiredDuringSchedulingIgnoredDuringExecution, a.PreferredDuringSchedulingIgnoredDuringExecution)
	}
}

// gated are the features of pods that a gate can turn on here; fields of the others that are off by default are dropped whatever
// their gates say.
var gated = []string{genericWorkload, evictionRequests}

const (
	genericWorkload  = "GenericWorkload"
	evictionRequests = "EvictionRequestAPI"
)

// DropDisabled removes the fields of features that are off, unless old uses the feature already.
func (r Rules) DropDisabled(s, old *corev1.PodSpec) {
	used := map[string]bool{}
	if old != nil {
		eachDisabled(old, func(feature string, set bool, _ func()) { used[feature] = used[feature] || set })
	}
	eachDisabled(s, func(feature string, set bool, clear func()) {
		if set && !used[feature] && !(slices.Contains(gated, feature) && r.Gates.Enabled(feature)) {
			clear()
		}
	})
}

// eachDisabled visits the fields of features that are off by default: whether they are set, and how to clear them.
func eachDisabled(s *corev1.PodSpec, visit func(feature string, set bool, clear func())) {
	visit(genericWorkload, s.SchedulingGroup != nil, func() { s.SchedulingGroup = nil })
	visit(evictionRequests, s.EvictionResponders != nil, func() { s.EvictionResponders = nil })
	eachLifecycle(s, func(c *corev1.Container) {
		if c.Lifecycle != nil {
			visit("ContainerStopSignals", c.Lifecycle.StopSignal != nil, func() {
				if c.Lifecycle.StopSignal = nil; *c.Lifecycle == (corev1.Lifecycle{}) {
					c.Lifecycle = nil
				}
			})
		}
		for i := range c.VolumeMounts {
			m := &c.VolumeMounts[i]
			visit("VolumeBindMountOptions", m.BindMountOptions != nil, func() { m.BindMountOptions = nil })
		}
		eachAction(c, visit)
	})
	for i := range s.Volumes {
		eachDisabledOfVolume(&s.Volumes[i], visit)
	}
}

func eachAction(c *corev1.Container, visit func(feature string, set bool, clear func())) {
	http := func(h *corev1.HTTPGetAction) {
		if h != nil {
			visit("H2CContainerProbe", h.Protocol != nil, func() { h.Protocol = nil })
		}
	}
	for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		if p == nil {
			continue
		}
		http(p.HTTPGet)
		if g := p.GRPC; g != nil {
			visit("GRPCContainerProbeTLS", g.Mode != nil, func() { g.Mode = nil })
		}
	}
	if c.Lifecycle == nil {
		return
	}
	for _, h := range []*corev1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
		if h != nil {
			http(h.HTTPGet)
		}
	}
}

func eachDisabledOfVolume(v *corev1.Volume, visit func(feature string, set bool, clear func())) {
	const users = "AtomicWriteVolumeUserFields"
	items := func(items []corev1.KeyToPath) {
		for i := range items {
			visit(users, items[i].User != nil, func() { items[i].User = nil })
		}
	}
	files := func(files []corev1.DownwardAPIVolumeFile) {
		for i := range files {
			visit(users, files[i].User != nil, func() { files[i].User = nil })
		}
	}
	if e := v.EmptyDir; e != nil {
		visit("EmptyDirVolumeMode", e.Mode != nil, func() { e.Mode = nil })
	}
	if x := v.Secret; x != nil {
		visit(users, x.DefaultUser != nil, func() { x.DefaultUser = nil })
		items(x.Items)
	}
	if x := v.ConfigMap; x != nil {
		visit(users, x.DefaultUser != nil, func() { x.DefaultUser = nil })
		items(x.Items)
	}
	if x := v.DownwardAPI; x != nil {
		visit(users, x.DefaultUser != nil, func() { x.DefaultUser = nil })
		files(x.Items)
	}
	if e := v.Ephemeral; e != nil && e.VolumeClaimTemplate != nil && e.VolumeClaimTemplate.Spec.DataSourceRef != nil {
		r := e.VolumeClaimTemplate.Spec.DataSourceRef
		visit("CrossNamespaceVolumeDataSource", r.Namespace != nil, func() { r.Namespace = nil })
	}
	p := v.Projected
	if p == nil {
		return
	}
	visit(users, p.DefaultUser != nil, func() { p.DefaultUser = nil })
	for i := range p.Sources {
		s := &p.Sources[i]
		if s.Secret != nil {
			items(s.Secret.Items)
		}
		if s.ConfigMap != nil {
			items(s.ConfigMap.Items)
		}
		if s.DownwardAPI != nil {
			files(s.DownwardAPI.Items)
		}
		if t := s.ServiceAccountToken; t != nil {
			visit(users, t.User != nil, func() { t.User = nil })
		}
		if b := s.ClusterTrustBundle; b != nil {
			visit(users, b.User != nil, func() { b.User = nil })
		}
		if c := s.PodCertificate; c != nil {
			visit(users, c.User != nil, func() { c.User = nil })
		}
	}
}

// DropDisabledStatus is DropDisabled for a status.
func DropDisabledStatus(s, old *corev1.PodStatus) {
	if old.NodeAllocatableResourceClaimStatuses == nil {
		s.NodeAllocatableResourceClaimStatuses = nil
	}
	if old.VolumeHealth == nil {
		s.VolumeHealth = nil
	}
	digests := false // feature ImageVolumeWithDigest
	eachStatus(old, func(c *corev1.ContainerStatus) {
		for _, m := range c.VolumeMounts {
			digests = digests || m.VolumeStatus != nil && m.VolumeStatus.Image != nil
		}
	})
	eachStatus(s, func(c *corev1.ContainerStatus) {
		c.StopSignal = nil
		for i := range c.VolumeMounts {
			if !digests {
				c.VolumeMounts[i].VolumeStatus = nil
			}
		}
	})
}

func eachStatus(s *corev1.PodStatus, f func(*corev1.ContainerStatus)) {
	for _, list := range [][]corev1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses} {
		for i := range list {
			f(&list[i])
		}
	}
}

func eachLifecycle(s *corev1.PodSpec, f func(*corev1.Container)) {
	for i := range s.InitContainers {
		f(&s.InitContainers[i])
	}
	for i := range s.Containers {
		f(&s.Containers[i])
	}
	for i := range s.EphemeralContainers {
		f((*corev1.Container)(&s.EphemeralContainers[i].EphemeralContainerCommon))
	}
}

// PrepareResize keeps everything of the old pod but the resources and resize policies of its containers and of the pod.
func PrepareResize(p, old *corev1.Pod) {
	asked := p.Spec
	fields, version := p.ManagedFields, p.ResourceVersion
	old.DeepCopyInto(p)
	p.ManagedFields, p.ResourceVersion = fields, version
	take := func(to, from []corev1.Container) {
		byName := map[string]*corev1.Container{}
		for i := range from {
			byName[from[i].Name] = &from[i]
		}
		for i := range to {
			if c := byName[to[i].Name]; c != nil {
				to[i].Resources, to[i].ResizePolicy = c.Resources, c.ResizePolicy
			}
		}
	}
	if len(asked.Containers) != len(p.Spec.Containers) || len(asked.InitContainers) != len(p.Spec.InitContainers) {
		p.Spec.Containers, p.Spec.InitContainers = asked.Containers, asked.InitContainers // refused by ValidateResize
		return
	}
	take(p.Spec.Containers, asked.Containers)
	take(p.Spec.InitContainers, asked.InitContainers)
	p.Spec.Resources = asked.Resources
}
