package controller

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
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
	// Only those of this name: a cluster's ConfigMaps may be large.
	named := informers.NewSharedInformerFactoryWithOptions(c.client, 0, informers.WithTransform(lean), informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, rootCAName).String()
	}))
	maps := named.Core().V1().ConfigMaps()
	c.starts = append(c.starts, func(ctx context.Context) { named.Start(ctx.Done()) })
	p := c.add("root CA", "root-ca-cert-publisher")
	follow(p, namespaces.Informer(), func(ns *corev1.Namespace) { p.queue.Add(ns.Name) })
	follow(p, maps.Informer(), func(m *corev1.ConfigMap) {
		if m.Name == rootCAName {
			p.queue.Add(m.Namespace)
		}
	})
	want := map[string]string{rootCAKey: string(c.RootCA)}
	p.work(1, func(ctx context.Context, name string) error {
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
			_, err = p.client.CoreV1().ConfigMaps(name).Update(ctx, have, metav1.UpdateOptions{})
			return gone(err)
		}
		_, err = p.client.CoreV1().ConfigMaps(name).Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: rootCAName, Namespace: name, Annotations: map[string]string{rootCAAnnotation: rootCAText}},
			Data:       want,
		}, metav1.CreateOptions{})
		return ignore(err, apierrors.IsAlreadyExists, namespaceIsGoing)
	})
}
