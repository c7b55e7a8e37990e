package controller

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
)

// halfDiscovery knows ConfigMaps. While it is broken, the server of another group does not answer.
type halfDiscovery struct {
	discovery.DiscoveryInterface
	broken atomic.Bool
}

func (d *halfDiscovery) ServerPreferredNamespacedResources() ([]*metav1.APIResourceList, error) {
	lists := []*metav1.APIResourceList{{GroupVersion: "v1", APIResources: []metav1.APIResource{
		{Name: "configmaps", Namespaced: true, Kind: "ConfigMap", Verbs: metav1.Verbs{"create", "delete", "deletecollection", "get", "list"}},
	}}}
	if !d.broken.Load() {
		return lists, nil
	}
	return lists, &discovery.ErrGroupDiscoveryFailed{Groups: map[schema.GroupVersion]error{
		{Group: "metrics.example.com", Version: "v1"}: errors.New("the server is currently unable to handle the request"),
	}}
}

// A namespace that ends is emptied of everything that is known. What a server that does not answer may have in it keeps it, the
// conditions say so, and it goes when that server answers again or its registration is taken away.
func TestNamespaceWithAGroupThatDoesNotAnswer(t *testing.T) {
	scheme := metadatafake.NewTestScheme()
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	half := &halfDiscovery{}
	half.broken.Store(true)
	var objects *metadatafake.FakeMetadataClient
	now := metav1.Now()
	red := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "red", DeletionTimestamp: &now}, Spec: corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{corev1.FinalizerKubernetes}}}
	run(t, func(c *Controllers) {
		objects = metadatafake.NewSimpleMetadataClient(scheme, &metav1.PartialObjectMetadata{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "red"},
		})
		objects.PrependReactor("delete-collection", "configmaps", func(a clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, objects.Tracker().Delete(a.GetResource(), a.GetNamespace(), "a")
		})
		c.objects, c.discovery = objects, half
		c.addNamespaces()
	}, func(c *cluster) {
		c.settle()
		left := must[*metav1.PartialObjectMetadataList](t)(objects.Resource(corev1.SchemeGroupVersion.WithResource("configmaps")).Namespace("red").List(c.ctx, metav1.ListOptions{}))
		if len(left.Items) != 0 {
			t.Errorf("left: %v", left.Items)
		}
		namespace := must[*corev1.Namespace](t)(c.client.CoreV1().Namespaces().Get(c.ctx, "red", metav1.GetOptions{}))
		i := slices.IndexFunc(namespace.Status.Conditions, func(x corev1.NamespaceCondition) bool { return x.Type == corev1.NamespaceDeletionDiscoveryFailure })
		if i < 0 || namespace.Status.Conditions[i].Status != corev1.ConditionTrue || namespace.Status.Conditions[i].Reason != "DiscoveryFailed" ||
			!strings.HasPrefix(namespace.Status.Conditions[i].Message, "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: metrics.example.com/v1:") {
			t.Errorf("conditions: %+v", namespace.Status.Conditions)
		}
		c.client.ClearActions()
		time.Sleep(time.Hour)
		if n := c.writes("update", "namespaces"); n != 0 {
			t.Errorf("%d writes of a namespace that waits", n)
		}
		half.broken.Store(false)
		time.Sleep(retryMost)
		c.settle()
		finalized := false
		for _, a := range c.client.Actions() {
			finalized = finalized || a.Matches("create", "namespaces") && a.GetSubresource() == "finalize"
		}
		if !finalized {
			t.Error("it is not let go")
		}
	}, red)
}
