// Package podspec is what a pod specification means before any node sees it: its defaults, what is
// valid in it, what may change later. Pods use it directly; Deployments, Jobs and the others for their templates.
//
// Promises: functions are pure; defaulting is idempotent. Start reading at defaults.go, then
// validate.go, which follows a specification from top to bottom.
package podspec

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
)

const (
	defaultFileMode         = 0o644
	tokenSeconds            = 3600
	podCertificateSeconds   = 86400
	defaultProbeSeconds     = 10
	defaultProbeTimeout     = 1
	defaultFailureThreshold = 3
)

// DefaultTemplate fills in what is left out of a pod template.
func DefaultTemplate(t *corev1.PodTemplateSpec) { Default(&t.Spec) }

// Default fills in what is left out of a specification, in a pod as in a template.
func Default(s *corev1.PodSpec) {
	setString(&s.RestartPolicy, corev1.RestartPolicyAlways)
	setString(&s.DNSPolicy, corev1.DNSClusterFirst)
	setString(&s.SchedulerName, corev1.DefaultSchedulerName)
	set(&s.TerminationGracePeriodSeconds, int64(corev1.DefaultTerminationGracePeriodSeconds))
	if s.SecurityContext == nil {
		s.SecurityContext = &corev1.PodSecurityContext{}
	}
	// The older name of the field follows the newer one.
	setString(&s.ServiceAccountName, s.DeprecatedServiceAccount)
	s.DeprecatedServiceAccount = s.ServiceAccountName

	roundUp(s.Overhead)
	if s.Resources != nil {
		roundUp(s.Resources.Limits)
		roundUp(s.Resources.Requests)
	}
	for i := range s.Volumes {
		defaultVolume(&s.Volumes[i])
	}
	for i := range s.InitContainers {
		defaultContainer(&s.InitContainers[i])
	}
	for i := range s.Containers {
		defaultContainer(&s.Containers[i])
	}
	for i := range s.EphemeralContainers {
		defaultContainer((*corev1.Container)(&s.EphemeralContainers[i].EphemeralContainerCommon))
	}
}

// DefaultPod fills in what only pods get: what a template leaves to the pods made from it.
func DefaultPod(p *corev1.Pod) {
	Default(&p.Spec)
	set(&p.Spec.EnableServiceLinks, corev1.DefaultEnableServiceLinks)
	if *p.Spec.TerminationGracePeriodSeconds < 0 {
		p.Spec.TerminationGracePeriodSeconds = ptr.To[int64](1)
	}
	for i := range p.Spec.Containers {
		requestLimits(&p.Spec.Containers[i].Resources)
	}
	for i := range p.Spec.InitContainers {
		requestLimits(&p.Spec.InitContainers[i].Resources)
	}
	if p.Spec.HostNetwork {
		defaultHostPorts(p.Spec.Containers)
		defaultHostPorts(p.Spec.InitContainers)
	}
	defaultPodResources(&p.Spec)
	defaultPodIPs(&p.Status)
}

// requestLimits makes the request of a resource equal to its limit when only that is given.
func requestLimits(r *corev1.ResourceRequirements) {
	for name, limit := range r.Limits {
		if _, requested := r.Requests[name]; !requested {
			if r.Requests == nil {
				r.Requests = corev1.ResourceList{}
			}
			r.Requests[name] = limit.DeepCopy()
		}
	}
}

// defaultPodResources fills in the requests of the pod as a whole (KEP-2837): what its containers request
// together, else its limits.
func defaultPodResources(s *corev1.PodSpec) {
	if s.Resources == nil || len(s.Resources.Limits) == 0 && len(s.Resources.Requests) == 0 {
		return
	}
	sum := Requests(s)
	requests := corev1.ResourceList{}
	for name, q := range s.Resources.Requests {
		requests[name] = q
	}
	for name, q := range sum {
		if _, given := requests[name]; !given && podLevelResource(name) && !hugePages(name) {
			requests[name] = q
		}
	}
	for name, limit := range s.Resources.Limits {
		if _, given := requests[name]; !given {
			requests[name] = limit.DeepCopy()
		}
	}
	if len(requests) > 0 {
		s.Resources.Requests = requests
	}
}

// defaultPodIPs keeps podIP and podIPs together; podIP wins.
func defaultPodIPs(s *corev1.PodStatus) {
	switch {
	case s.PodIP != "" && (len(s.PodIPs) == 0 || s.PodIPs[0].IP != s.PodIP):
		s.PodIPs = []corev1.PodIP{{IP: s.PodIP}}
	case s.PodIP == "" && len(s.PodIPs) > 0:
		s.PodIP = s.PodIPs[0].IP
	}
	switch {
	case s.HostIP != "" && len(s.HostIPs) == 0:
		s.HostIPs = []corev1.HostIP{{IP: s.HostIP}}
	}
}

func defaultContainer(c *corev1.Container) {
	setString(&c.ImagePullPolicy, pullPolicy(c.Image))
	setString(&c.TerminationMessagePath, corev1.TerminationMessagePathDefault)
	setString(&c.TerminationMessagePolicy, corev1.TerminationMessageReadFile)
	roundUp(c.Resources.Limits)
	roundUp(c.Resources.Requests)
	for i := range c.Ports {
		setString(&c.Ports[i].Protocol, corev1.ProtocolTCP)
	}
	for i := range c.Env {
		if from := c.Env[i].ValueFrom; from != nil {
			defaultFieldRef(from.FieldRef)
			if from.FileKeyRef != nil {
				set(&from.FileKeyRef.Optional, false)
			}
		}
	}
	defaultProbe(c.LivenessProbe)
	defaultProbe(c.ReadinessProbe)
	defaultProbe(c.StartupProbe)
	if c.Lifecycle != nil {
		if h := c.Lifecycle.PostStart; h != nil {
			defaultHTTP(h.HTTPGet)
		}
		if h := c.Lifecycle.PreStop; h != nil {
			defaultHTTP(h.HTTPGet)
		}
	}
}

// pullPolicy is Always for an image that may change under its name: without tag or digest, or tagged "latest".
func pullPolicy(image string) corev1.PullPolicy {
	name, _, digest := strings.Cut(image, "@")
	tag := ""
	if slash := strings.LastIndexByte(name, '/'); strings.LastIndexByte(name, ':') > slash {
		tag = name[strings.LastIndexByte(name, ':')+1:]
	}
	if tag == "latest" || tag == "" && !digest {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}

func defaultProbe(p *corev1.Probe) {
	if p == nil {
		return
	}
	setInt(&p.TimeoutSeconds, defaultProbeTimeout)
	setInt(&p.PeriodSeconds, defaultProbeSeconds)
	setInt(&p.SuccessThreshold, 1)
	setInt(&p.FailureThreshold, defaultFailureThreshold)
	defaultHTTP(p.HTTPGet)
	if p.GRPC != nil {
		set(&p.GRPC.Service, "")
	}
}

func defaultHTTP(h *corev1.HTTPGetAction) {
	if h == nil {
		return
	}
	setString(&h.Path, "/")
	setString(&h.Scheme, corev1.URISchemeHTTP)
}

func defaultFieldRef(f *corev1.ObjectFieldSelector) {
	if f != nil {
		setString(&f.APIVersion, "v1")
	}
}

// defaultHostPorts: in the network of the host, a container's port is the host's.
func defaultHostPorts(containers []corev1.Container) {
	for i := range containers {
		for j := range containers[i].Ports {
			if p := &containers[i].Ports[j]; p.HostPort == 0 {
				p.HostPort = p.ContainerPort
			}
		}
	}
}

func defaultVolume(v *corev1.Volume) {
	if v.VolumeSource == (corev1.VolumeSource{}) {
		v.EmptyDir = &corev1.EmptyDirVolumeSource{}
	}
	if s := v.HostPath; s != nil {
		set(&s.Type, corev1.HostPathUnset)
	}
	if s := v.Secret; s != nil {
		set(&s.DefaultMode, defaultFileMode)
	}
	if s := v.ConfigMap; s != nil {
		set(&s.DefaultMode, defaultFileMode)
	}
	if s := v.DownwardAPI; s != nil {
		set(&s.DefaultMode, defaultFileMode)
		for i := range s.Items {
			defaultFieldRef(s.Items[i].FieldRef)
		}
	}
	if s := v.Projected; s != nil {
		defaultProjected(s)
	}
	if s := v.Ephemeral; s != nil && s.VolumeClaimTemplate != nil {
		set(&s.VolumeClaimTemplate.Spec.VolumeMode, corev1.PersistentVolumeFilesystem)
		roundUp(s.VolumeClaimTemplate.Spec.Resources.Limits)
		roundUp(s.VolumeClaimTemplate.Spec.Resources.Requests)
	}
	if s := v.Image; s != nil {
		setString(&s.PullPolicy, pullPolicy(s.Reference))
	}
	if s := v.ISCSI; s != nil {
		setString(&s.ISCSIInterface, "default")
	}
	if s := v.RBD; s != nil {
		setString(&s.RBDPool, "rbd")
		setString(&s.RadosUser, "admin")
		setString(&s.Keyring, "/etc/ceph/keyring")
	}
	if s := v.ScaleIO; s != nil {
		setString(&s.StorageMode, "ThinProvisioned")
		setString(&s.FSType, "xfs")
	}
	if s := v.AzureDisk; s != nil {
		DefaultAzureDisk(s)
	}
}

// DefaultAzureDisk fills in what is left out of an Azure disk, in a pod as in a persistent volume.
func DefaultAzureDisk(s *corev1.AzureDiskVolumeSource) {
	set(&s.CachingMode, corev1.AzureDataDiskCachingReadWrite)
	set(&s.Kind, corev1.AzureSharedBlobDisk)
	set(&s.FSType, "ext4")
	set(&s.ReadOnly, false)
}

func defaultProjected(s *corev1.ProjectedVolumeSource) {
	set(&s.DefaultMode, defaultFileMode)
	for i := range s.Sources {
		source := &s.Sources[i]
		if t := source.ServiceAccountToken; t != nil {
			set(&t.ExpirationSeconds, tokenSeconds)
		}
		if c := source.PodCertificate; c != nil {
			set(&c.MaxExpirationSeconds, podCertificateSeconds)
		}
		if d := source.DownwardAPI; d != nil {
			for j := range d.Items {
				defaultFieldRef(d.Items[j].FieldRef)
			}
		}
	}
}

// RoundUp rounds every amount up to thousandths, the finest that the API keeps.
func RoundUp(list corev1.ResourceList) { roundUp(list) }

func roundUp(list corev1.ResourceList) {
	for name, q := range list {
		if q.RoundUp(resource.Milli) {
			continue
		}
		list[name] = q
	}
}

func hugePages(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

// podLevelResource reports whether a resource can be given for the pod as a whole.
func podLevelResource(name corev1.ResourceName) bool {
	return slices.Contains([]corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}, name) || hugePages(name)
}

func setString[T ~string](p *T, v T) {
	if *p == "" {
		*p = v
	}
}

func setInt(p *int32, v int32) {
	if *p == 0 {
		*p = v
	}
}

func set[T any](p **T, v T) {
	if *p == nil {
		*p = &v
	}
}
