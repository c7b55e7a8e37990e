package controller

import (
	"net/http"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
)

// A controller that gets no token has not learned that what it asked for is not there.
func TestNoTokenIsNoAnswer(t *testing.T) {
	manager := fake.NewClientset()
	manager.PrependReactor("create", "serviceaccounts", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if a.GetSubresource() != "token" {
			return false, nil, nil
		}
		return true, nil, apierrors.NewNotFound(schema.GroupResource{Resource: "serviceaccounts"}, "namespace-controller")
	})
	config := &rest.Config{Host: "https://nowhere.invalid"}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return &identity{name: "namespace-controller", manager: manager, next: next}
	})
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.CoreV1().Namespaces().Get(t.Context(), "red", metav1.GetOptions{})
	if err == nil || apierrors.IsNotFound(err) {
		t.Errorf("the namespace: %v", err)
	}
}
