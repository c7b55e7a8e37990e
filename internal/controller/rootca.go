package controller

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	rootCAName = "kube-root-ca.crt"
	rootCAKey  = "ca.crt"
	// rootCAAnnotation says what the ConfigMap is, as kube-controller-manager does.
	rootCAAnnotation = "kubernetes.io/description"
	rootCAText       = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."
)

// addRootCA keeps ConfigMap kube-root-ca.crt in every active namespace.
func (c *Controllers) addRootCA() {
	namespaces := c.informers.Core().V1().Namespaces()
	maps := c.informers.Core().V1().ConfigMaps()
	client := c.as("root-ca-cert-publisher")
	q := c.newQueue("rootca")
	c.follow(namespaces.Informer(), func(obj any) { q.Add(obj.(*corev1.Namespace).Name) })
	c.follow(maps.Informer(), func(obj any) {
		if m := obj.(*corev1.ConfigMap); m.Name == rootCAName {
			q.Add(m.Namespace)
		}
	})
	want := map[string]string{rootCAKey: string(c.RootCA)}
	c.work(q, 1, func(ctx context.Context, name string) error {
		ns, err := namespaces.Lister().Get(name)
		if err != nil || ns.Status.Phase != corev1.NamespaceActive {
			return nil //nolint:nilerr // gone or going: nothing to do
		}
		have, err := maps.Lister().ConfigMaps(name).Get(rootCAName)
		if err == nil && len(have.Data) == 1 && have.Data[rootCAKey] == want[rootCAKey] {
			return nil
		}
		if err == nil {
			have = have.DeepCopy()
			have.Data = want
			_, err = client.CoreV1().ConfigMaps(name).Update(ctx, have, metav1.UpdateOptions{})
			return ignore(err, apierrors.IsNotFound)
		}
		_, err = client.CoreV1().ConfigMaps(name).Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: rootCAName, Namespace: name, Annotations: map[string]string{rootCAAnnotation: rootCAText}},
			Data:       want,
		}, metav1.CreateOptions{})
		return ignore(err, apierrors.IsAlreadyExists, namespaceIsGoing)
	})
}
