package openapi

import (
	"net/http/httptest"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/openapi3"
	"k8s.io/client-go/rest"
)

// A client-go client reads both versions, as kubectl does.
func TestClientGo(t *testing.T) {
	s := httptest.NewServer(withCustom())
	defer s.Close()
	c, err := discovery.NewDiscoveryClientForConfig(&rest.Config{Host: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	v2, err := c.OpenAPISchema()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range v2.GetDefinitions().GetAdditionalProperties() {
		names = append(names, d.GetName())
	}
	for _, want := range []string{"io.k8s.api.core.v1.Pod", "com.example.v1.Widget", "io.k8s.cars.v1.EngineList"} {
		if !slices.Contains(names, want) {
			t.Errorf("v2 has no definition %s", want)
		}
	}
	root := openapi3.NewRoot(c.OpenAPIV3())
	versions, err := root.GroupVersions()
	if err != nil || !slices.Contains(versions, schema.GroupVersion{Group: "cars.k8s.io", Version: "v2"}) {
		t.Errorf("group versions of v3: %v, %v", versions, err)
	}
	for gv, model := range map[schema.GroupVersion]string{
		{Version: "v1"}:                           "io.k8s.api.core.v1.Pod",
		{Group: "example.com", Version: "v1"}:     "com.example.v1.Widget",
		{Group: "node.k8s.io", Version: "v1"}:     "io.k8s.api.node.v1.RuntimeClass",
		{Group: "cars.k8s.io", Version: "v2"}:     "io.k8s.cars.v2.Engine",
		{Group: "autoscaling", Version: "v2"}:     "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
		{Group: "resource.k8s.io", Version: "v1"}: "io.k8s.api.resource.v1.ResourceClaim",
	} {
		spec, err := root.GVSpec(gv)
		if err != nil {
			t.Errorf("v3 of %v: %v", gv, err)
		} else if spec.Components.Schemas[model] == nil {
			t.Errorf("v3 of %v has no schema %s", gv, model)
		}
	}
}
