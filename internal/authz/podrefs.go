package authz

import corev1 "k8s.io/api/core/v1"

// object kinds that a node may read because of its pods.
type objectKind uint8

const (
	secretKind objectKind = iota
	configMapKind
	claimKind // PersistentVolumeClaim
	accountKind
	resourceClaimKind
	podKind
)

// vertex names an object that a pod refers to.
type vertex struct {
	kind            objectKind
	namespace, name string
}

// isMirror reports whether a pod only shows a static pod of a node. Its references grant nothing: a node makes
// mirror pods itself.
func isMirror(pod *corev1.Pod) bool {
	_, ok := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}

// references lists what a pod refers to, each once, itself excepted.
func references(pod *corev1.Pod) []vertex {
	var refs []vertex
	add := func(kind objectKind, name string) {
		if name == "" {
			return
		}
		v := vertex{kind, pod.Namespace, name}
		for _, have := range refs {
			if have == v {
				return
			}
		}
		refs = append(refs, v)
	}
	if isMirror(pod) {
		return nil
	}
	add(accountKind, pod.Spec.ServiceAccountName)
	for _, s := range pod.Spec.ImagePullSecrets {
		add(secretKind, s.Name)
	}
	for i := range pod.Spec.InitContainers {
		addEnvironment(add, pod.Spec.InitContainers[i].Env, pod.Spec.InitContainers[i].EnvFrom)
	}
	for i := range pod.Spec.Containers {
		addEnvironment(add, pod.Spec.Containers[i].Env, pod.Spec.Containers[i].EnvFrom)
	}
	for i := range pod.Spec.EphemeralContainers {
		addEnvironment(add, pod.Spec.EphemeralContainers[i].Env, pod.Spec.EphemeralContainers[i].EnvFrom)
	}
	for i := range pod.Spec.Volumes {
		addVolume(add, pod, &pod.Spec.Volumes[i])
	}
	for _, claim := range pod.Spec.ResourceClaims {
		if claim.ResourceClaimName != nil {
			add(resourceClaimKind, *claim.ResourceClaimName)
		}
	}
	for _, status := range pod.Status.ResourceClaimStatuses {
		if status.ResourceClaimName != nil {
			add(resourceClaimKind, *status.ResourceClaimName)
		}
	}
	if extended := pod.Status.ExtendedResourceClaimStatus; extended != nil {
		add(resourceClaimKind, extended.ResourceClaimName)
	}
	return refs
}

func addEnvironment(add func(objectKind, string), env []corev1.EnvVar, from []corev1.EnvFromSource) {
	for _, e := range env {
		if e.ValueFrom == nil {
			continue
		}
		if ref := e.ValueFrom.SecretKeyRef; ref != nil {
			add(secretKind, ref.Name)
		}
		if ref := e.ValueFrom.ConfigMapKeyRef; ref != nil {
			add(configMapKind, ref.Name)
		}
	}
	for _, f := range from {
		if f.SecretRef != nil {
			add(secretKind, f.SecretRef.Name)
		}
		if f.ConfigMapRef != nil {
			add(configMapKind, f.ConfigMapRef.Name)
		}
	}
}

func addVolume(add func(objectKind, string), pod *corev1.Pod, v *corev1.Volume) {
	local := func(ref *corev1.LocalObjectReference) {
		if ref != nil {
			add(secretKind, ref.Name)
		}
	}
	switch {
	case v.Secret != nil:
		add(secretKind, v.Secret.SecretName)
	case v.ConfigMap != nil:
		add(configMapKind, v.ConfigMap.Name)
	case v.PersistentVolumeClaim != nil:
		add(claimKind, v.PersistentVolumeClaim.ClaimName)
	case v.Ephemeral != nil:
		add(claimKind, pod.Name+"-"+v.Name)
	case v.Projected != nil:
		for _, source := range v.Projected.Sources {
			if source.Secret != nil {
				add(secretKind, source.Secret.Name)
			}
			if source.ConfigMap != nil {
				add(configMapKind, source.ConfigMap.Name)
			}
		}
	case v.CSI != nil:
		local(v.CSI.NodePublishSecretRef)
	case v.AzureFile != nil:
		add(secretKind, v.AzureFile.SecretName)
	case v.CephFS != nil:
		local(v.CephFS.SecretRef)
	case v.Cinder != nil:
		local(v.Cinder.SecretRef)
	case v.FlexVolume != nil:
		local(v.FlexVolume.SecretRef)
	case v.ISCSI != nil:
		local(v.ISCSI.SecretRef)
	case v.RBD != nil:
		local(v.RBD.SecretRef)
	case v.ScaleIO != nil:
		local(v.ScaleIO.SecretRef)
	case v.StorageOS != nil:
		local(v.StorageOS.SecretRef)
	}
}

// volumeSecrets lists the secrets that a node needs to use a persistent volume.
func volumeSecrets(pv *corev1.PersistentVolume) []vertex {
	claimNamespace := ""
	if pv.Spec.ClaimRef != nil {
		claimNamespace = pv.Spec.ClaimRef.Namespace
	}
	var refs []vertex
	add := func(namespace, name string) {
		if namespace == "" {
			namespace = claimNamespace
		}
		if name != "" {
			refs = append(refs, vertex{secretKind, namespace, name})
		}
	}
	secret := func(ref *corev1.SecretReference) {
		if ref != nil {
			add(ref.Namespace, ref.Name)
		}
	}
	switch s := pv.Spec.PersistentVolumeSource; {
	case s.CSI != nil:
		secret(s.CSI.NodePublishSecretRef)
		secret(s.CSI.NodeStageSecretRef)
		secret(s.CSI.NodeExpandSecretRef)
	case s.AzureFile != nil:
		namespace := ""
		if s.AzureFile.SecretNamespace != nil {
			namespace = *s.AzureFile.SecretNamespace
		}
		add(namespace, s.AzureFile.SecretName)
	case s.CephFS != nil:
		secret(s.CephFS.SecretRef)
	case s.Cinder != nil:
		secret(s.Cinder.SecretRef)
	case s.FlexVolume != nil:
		secret(s.FlexVolume.SecretRef)
	case s.ISCSI != nil:
		secret(s.ISCSI.SecretRef)
	case s.RBD != nil:
		secret(s.RBD.SecretRef)
	case s.ScaleIO != nil:
		secret(s.ScaleIO.SecretRef)
	case s.StorageOS != nil:
		if ref := s.StorageOS.SecretRef; ref != nil {
			add(ref.Namespace, ref.Name)
		}
	}
	return refs
}
