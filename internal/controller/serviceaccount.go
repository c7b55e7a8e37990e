package controller

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// defaultAccount is the service account that every namespace has.
const defaultAccount = "default"

// addServiceAccounts gives every active namespace its service account "default".
func (c *Controllers) addServiceAccounts() {
	namespaces := c.informers.Core().V1().Namespaces()
	accounts := c.informers.Core().V1().ServiceAccounts()
	p := c.add("service account", "service-account-controller")
	follow(p, namespaces.Informer(), func(ns *corev1.Namespace) { p.queue.Add(ns.Name) })
	follow(p, accounts.Informer(), func(a *corev1.ServiceAccount) {
		if a.Name == defaultAccount {
			p.queue.Add(a.Namespace)
		}
	})
	p.work(1, func(ctx context.Context, name string) error {
		ns, err := namespaces.Lister().Get(name)
		if err != nil || ns.Status.Phase != corev1.NamespaceActive {
			return nil //nolint:nilerr // gone or going: nothing to do
		}
		if _, err := accounts.Lister().ServiceAccounts(name).Get(defaultAccount); err == nil {
			return nil
		}
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: defaultAccount, Namespace: name}}
		_, err = p.client.CoreV1().ServiceAccounts(name).Create(ctx, account, metav1.CreateOptions{})
		return ignore(err, apierrors.IsAlreadyExists, namespaceIsGoing)
	})
}

// namespaceIsGoing recognizes the refusal to create in a namespace that ends.
func namespaceIsGoing(err error) bool {
	return apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) || apierrors.IsNotFound(err)
}
