package admission

import (
	"context"

	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// Annotations that make a class the default one, and one with which an object names its class.
const (
	isDefaultStorageClass     = "storageclass.kubernetes.io/is-default-class"
	isDefaultStorageClassBeta = "storageclass.beta.kubernetes.io/is-default-class"
	isDefaultIngressClass     = networkingv1.AnnotationIsDefaultIngressClass
	ingressClassAnnotation    = "kubernetes.io/ingress.class"
)

// defaultStorageClass gives a claim that names no storage class the default one.
func (c *cluster) defaultStorageClass() Plugin {
	return Plugin{Name: "DefaultStorageClass", Change: func(ctx context.Context, r *Request) error {
		if r.Operation != Create || !r.Is("", "persistentvolumeclaims") {
			return nil
		}
		claim, ok := r.Object.(*corev1.PersistentVolumeClaim)
		if !ok || claim.Spec.StorageClassName != nil {
			return nil
		}
		if _, old := claim.Annotations[corev1.BetaStorageClassAnnotation]; old {
			return nil
		}
		all, err := list[*storagev1.StorageClass](ctx, c.Reader, storageClasses, "")
		if err != nil {
			return err
		}
		if class := object.Newest(all, isDefaultStorageClass, isDefaultStorageClassBeta); class != nil {
			claim.Spec.StorageClassName = &class.Name
		}
		return nil
	}}
}

// defaultIngressClass gives an ingress that names no class the default one.
func (c *cluster) defaultIngressClass() Plugin {
	return Plugin{Name: "DefaultIngressClass", Change: func(ctx context.Context, r *Request) error {
		if r.Operation != Create || !r.Is(networkingv1.GroupName, "ingresses") {
			return nil
		}
		ingress, ok := r.Object.(*networkingv1.Ingress)
		if !ok || ingress.Spec.IngressClassName != nil {
			return nil
		}
		if _, old := ingress.Annotations[ingressClassAnnotation]; old {
			return nil
		}
		all, err := list[*networkingv1.IngressClass](ctx, c.Reader, ingressClasses, "")
		if err != nil {
			return err
		}
		if class := object.Newest(all, isDefaultIngressClass); class != nil {
			ingress.Spec.IngressClassName = &class.Name
		}
		return nil
	}}
}
