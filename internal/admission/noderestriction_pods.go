package admission

import (
	"context"
	"slices"

	"github.com/timonel/timonel/internal/authz"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// pods decides about pods and their subresources.
func (p *nodeRestriction) pods(ctx context.Context, r *Request, node string) error {
	switch r.Subresource {
	case "":
		switch r.Operation {
		case Create:
			return p.createPod(ctx, r, node)
		case Delete:
			pod, ok := r.Old.(*corev1.Pod)
			if !ok {
				var err error
				if pod, err = p.pod(ctx, r.Namespace, r.Name); err != nil {
					return err
				}
			}
			if pod.Spec.NodeName != node {
				return r.Forbidden("node %q can only delete pods with spec.nodeName set to itself", node)
			}
			return nil
		}
		return r.Forbidden("unexpected operation %q, node %q can only create and delete mirror pods", r.Operation, node)
	case "status":
		return p.podStatus(r, node)
	case "eviction":
		if r.Operation != Create {
			return r.Forbidden("unexpected operation %q", r.Operation)
		}
		pod, err := p.pod(ctx, r.Namespace, r.Name)
		if err != nil {
			return err
		}
		if pod.Spec.NodeName != node {
			return r.Forbidden("node %q can only evict pods with spec.nodeName set to itself", node)
		}
		return nil
	}
	return r.Forbidden("unexpected pod subresource %q, only 'status' and 'eviction' are allowed", r.Subresource)
}

// createPod lets a kubelet show its static pods as mirror pods, which may not borrow anything from the API.
func (p *nodeRestriction) createPod(ctx context.Context, r *Request, node string) error {
	pod, ok := r.Object.(*corev1.Pod)
	if !ok {
		return r.Forbidden("unexpected type %T", r.Object)
	}
	if !isMirror(pod) {
		return r.Forbidden("pod does not have %q annotation, node %q can only create mirror pods", corev1.MirrorPodAnnotationKey, node)
	}
	if pod.Spec.NodeName != node {
		return r.Forbidden("node %q can only create pods with spec.nodeName set to itself", node)
	}
	if err := p.ownedByNode(ctx, r, node, pod); err != nil {
		return err
	}
	if what := borrowed(pod); what != "" {
		return r.Forbidden("node %q can not create pods that reference %s", node, what)
	}
	return nil
}

func (p *nodeRestriction) ownedByNode(ctx context.Context, r *Request, node string, pod *corev1.Pod) error {
	if len(pod.OwnerReferences) != 1 {
		return r.Forbidden("node %q can only create pods with an owner reference set to itself", node)
	}
	owner := pod.OwnerReferences[0]
	switch {
	case owner.APIVersion != "v1" || owner.Kind != "Node" || owner.Name != node:
		return r.Forbidden("node %q can only create pods with an owner reference set to itself", node)
	case owner.Controller == nil || !*owner.Controller:
		return r.Forbidden("node %q can only create pods with a controller owner reference set to itself", node)
	case owner.BlockOwnerDeletion != nil && *owner.BlockOwnerDeletion:
		return r.Forbidden("node %q must not set blockOwnerDeletion on an owner reference", node)
	}
	itself, err := p.reader.Get(ctx, schema.GroupResource{Resource: "nodes"}, "", node)
	if apierrors.IsNotFound(err) {
		return r.Forbidden("node %q not found", node)
	}
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if owner.UID != itself.GetUID() {
		return r.Forbidden("node %s UID mismatch: expected %s got %s", node, owner.UID, itself.GetUID())
	}
	return nil
}

// borrowed names the first sort of API object that a pod's specification refers to, "" if there is none.
func borrowed(pod *corev1.Pod) string {
	if pod.Spec.ServiceAccountName != "" {
		return "a service account"
	}
	if len(pod.Spec.ImagePullSecrets) > 0 {
		return "secrets"
	}
	if len(pod.Spec.ResourceClaims) > 0 {
		return "resourceclaims"
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range list {
			if what := borrowedByEnvironment(c.Env, c.EnvFrom); what != "" {
				return what
			}
		}
	}
	for _, c := range pod.Spec.EphemeralContainers {
		if what := borrowedByEnvironment(c.Env, c.EnvFrom); what != "" {
			return what
		}
	}
	for i := range pod.Spec.Volumes {
		if what := borrowedByVolume(&pod.Spec.Volumes[i]); what != "" {
			return what
		}
	}
	return ""
}

func borrowedByEnvironment(env []corev1.EnvVar, from []corev1.EnvFromSource) string {
	for _, e := range env {
		if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
			return "secrets"
		}
		if e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil {
			return "configmaps"
		}
	}
	for _, f := range from {
		if f.SecretRef != nil {
			return "secrets"
		}
		if f.ConfigMapRef != nil {
			return "configmaps"
		}
	}
	return ""
}

func borrowedByVolume(v *corev1.Volume) string {
	switch {
	case v.PersistentVolumeClaim != nil, v.Ephemeral != nil:
		return "persistentvolumeclaims"
	case v.Secret != nil,
		v.AzureFile != nil && v.AzureFile.SecretName != "",
		v.CephFS != nil && v.CephFS.SecretRef != nil, v.Cinder != nil && v.Cinder.SecretRef != nil,
		v.CSI != nil && v.CSI.NodePublishSecretRef != nil, v.FlexVolume != nil && v.FlexVolume.SecretRef != nil,
		v.ISCSI != nil && v.ISCSI.SecretRef != nil, v.RBD != nil && v.RBD.SecretRef != nil,
		v.ScaleIO != nil && v.ScaleIO.SecretRef != nil, v.StorageOS != nil && v.StorageOS.SecretRef != nil:
		return "secrets"
	case v.ConfigMap != nil:
		return "configmaps"
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			switch {
			case s.Secret != nil:
				return "secrets"
			case s.ConfigMap != nil:
				return "configmaps"
			case s.ServiceAccountToken != nil:
				return "service account tokens"
			case s.ClusterTrustBundle != nil:
				return "clustertrustbundles"
			case s.PodCertificate != nil:
				return "pod certificates"
			}
		}
	}
	return ""
}

// podStatus lets a kubelet write the status of its pods, and nothing else by that way.
func (p *nodeRestriction) podStatus(r *Request, node string) error {
	if r.Operation != Update {
		return r.Forbidden("unexpected operation %q", r.Operation)
	}
	old, had := r.Old.(*corev1.Pod)
	pod, has := r.Object.(*corev1.Pod)
	if !had || !has {
		return r.Forbidden("unexpected type %T", r.Object)
	}
	switch {
	case old.Spec.NodeName != node:
		return r.Forbidden("node %q can only update pod status for pods with spec.nodeName set to itself", node)
	case !equality.Semantic.DeepEqual(old.Labels, pod.Labels):
		return r.Forbidden("node %q cannot update labels through pod status", node)
	case !equality.Semantic.DeepEqual(old.Status.ResourceClaimStatuses, pod.Status.ResourceClaimStatuses):
		return r.Forbidden("node %q cannot update resource claim statuses", node)
	case !equality.Semantic.DeepEqual(old.Status.ExtendedResourceClaimStatus, pod.Status.ExtendedResourceClaimStatus):
		return r.Forbidden("node %q cannot update extended resource claim statuses", node)
	}
	return nil
}

// token lets a kubelet ask for tokens of the service accounts of its pods, for the audiences that they need.
func (p *nodeRestriction) token(ctx context.Context, r *Request, node string) error {
	request, ok := r.Object.(*authenticationv1.TokenRequest)
	if !ok {
		return r.Forbidden("unexpected type %T", r.Object)
	}
	ref := request.Spec.BoundObjectRef
	switch {
	case ref == nil || ref.APIVersion != "v1" || ref.Kind != "Pod" || ref.Name == "":
		return r.Forbidden("node requested token not bound to a pod")
	case ref.UID == "":
		return r.Forbidden("node requested token with a pod binding without a uid")
	}
	pod, err := p.pod(ctx, r.Namespace, ref.Name)
	if err != nil {
		return err
	}
	switch {
	case pod.UID != ref.UID:
		return r.Forbidden("the UID in the bound object reference (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", ref.UID, pod.UID)
	case pod.Spec.NodeName != node:
		return r.Forbidden("node requested token bound to a pod scheduled on a different node")
	}
	return p.audience(ctx, r, pod, request.Spec.Audiences)
}

// requestAudience is the verb with which a node may ask for tokens of an audience that the pod does not name (KEP-4412).
const requestAudience = "request-serviceaccounts-token-audience"

// audience lets a kubelet ask for tokens of the audiences that the pod's volumes and their drivers name.
func (p *nodeRestriction) audience(ctx context.Context, r *Request, pod *corev1.Pod, audiences []string) error {
	if len(audiences) > 1 {
		return r.Forbidden("node may only request 0 or 1 audiences")
	}
	wanted := ""
	if len(audiences) == 1 {
		wanted = audiences[0]
	}
	if p.podNames(ctx, pod, wanted) {
		return nil
	}
	decision, _, err := p.authorizer.Authorize(ctx, &authz.Attributes{User: r.User, Verb: requestAudience, Version: "v1", Resource: wanted, Namespace: r.Namespace, Name: r.Name})
	if decision == authz.Allow {
		return nil
	}
	if err != nil {
		return r.Forbidden("audience %q not found in pod spec volume, and the authorizer failed: %v", wanted, err)
	}
	return r.Forbidden("audience %q not found in pod spec volume", wanted)
}

// podNames reports whether a volume of the pod, or the driver of one, needs tokens for the audience.
func (p *nodeRestriction) podNames(ctx context.Context, pod *corev1.Pod, audience string) bool {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		switch {
		case v.Projected != nil:
			if slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
				return s.ServiceAccountToken != nil && s.ServiceAccountToken.Audience == audience
			}) {
				return true
			}
		case v.CSI != nil:
			if p.driverNames(ctx, v.CSI.Driver, audience) {
				return true
			}
		case v.PersistentVolumeClaim != nil:
			if p.claimNames(ctx, pod.Namespace, v.PersistentVolumeClaim.ClaimName, audience) {
				return true
			}
		case v.Ephemeral != nil:
			if p.claimNames(ctx, pod.Namespace, pod.Name+"-"+v.Name, audience) {
				return true
			}
		}
	}
	return false
}

func (p *nodeRestriction) claimNames(ctx context.Context, namespace, name, audience string) bool {
	obj, err := p.reader.Get(ctx, schema.GroupResource{Resource: "persistentvolumeclaims"}, namespace, name)
	claim, ok := obj.(*corev1.PersistentVolumeClaim)
	if err != nil || !ok || claim.Spec.VolumeName == "" {
		return false
	}
	obj, err = p.reader.Get(ctx, schema.GroupResource{Resource: "persistentvolumes"}, "", claim.Spec.VolumeName)
	pv, ok := obj.(*corev1.PersistentVolume)
	return err == nil && ok && pv.Spec.CSI != nil && p.driverNames(ctx, pv.Spec.CSI.Driver, audience)
}

func (p *nodeRestriction) driverNames(ctx context.Context, name, audience string) bool {
	obj, err := p.reader.Get(ctx, schema.GroupResource{Group: "storage.k8s.io", Resource: "csidrivers"}, "", name)
	driver, ok := obj.(*storagev1.CSIDriver)
	return err == nil && ok && slices.ContainsFunc(driver.Spec.TokenRequests, func(t storagev1.TokenRequest) bool { return t.Audience == audience })
}
