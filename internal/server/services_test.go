package server

import (
	"context"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/storage"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What a Service has is reserved again when the reservation was lost: by hand while the server runs, and in the store while it does not.
func TestReservationsAreRepaired(t *testing.T) {
	config := DefaultConfig()
	config.DataDir = t.TempDir()
	r := startServer(t, config)
	ctx := context.Background()
	s, err := r.CoreV1().Services("default").Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Port: 80, NodePort: 30080}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	reserved := func(what string) {
		t.Helper()
		for {
			if _, err := r.NetworkingV1().IPAddresses().Get(ctx, s.Spec.ClusterIP, metav1.GetOptions{}); err == nil {
				return
			} else if !apierrors.IsNotFound(err) {
				t.Fatalf("%s: %v", what, err)
			}
			select {
			case <-t.Context().Done():
				t.Fatalf("%s: the address is not reserved again", what)
			case <-time.After(time.Millisecond):
			}
		}
	}
	if err := r.NetworkingV1().IPAddresses().Delete(ctx, s.Spec.ClusterIP, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	reserved("deleted by hand")

	for _, key := range []string{"/registry/ipaddresses/" + s.Spec.ClusterIP, "/registry/ranges/servicenodeports"} {
		if _, err := r.server.Store.Commit(ctx, storage.Txn{Then: []storage.Op{{Key: key}}}); err != nil {
			t.Fatal(err)
		}
	}
	r.stop()
	r = startServer(t, config)
	reserved("lost before the start")
	_, err = r.CoreV1().Services("default").Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "t"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Port: 80, NodePort: 30080}}},
	}, metav1.CreateOptions{})
	if !apierrors.IsInvalid(err) {
		t.Errorf("the port is given away again: %v", err)
	}
}
