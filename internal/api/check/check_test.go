package check

import (
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func TestResourceNames(t *testing.T) {
	for _, x := range []struct {
		name                           corev1.ResourceName
		container, quota, whole, spare bool // valid for containers, for quotas; counted in whole numbers; may be overcommitted
	}{
		{"cpu", true, true, false, true},
		{"memory", true, true, false, true},
		{"hugepages-2Mi", true, true, false, false},
		{"example.com/gpu", true, true, true, false},
		{"kubernetes.io/x", true, true, false, true},
		{"pods", false, true, true, true},
		{"requests.cpu", false, true, false, true},
		{"bananas", false, false, false, true},
		{"a b", false, false, false, true},
		{"count/deployments.apps", true, true, true, false},
	} {
		at := field.NewPath("x")
		if got := ContainerResourceName(x.name, at) == nil; got != x.container {
			t.Errorf("%s for a container: valid %v", x.name, got)
		}
		if got := QuotaResourceName(x.name, at) == nil; got != x.quota {
			t.Errorf("%s for a quota: valid %v", x.name, got)
		}
		if Whole(x.name) != x.whole || Overcommittable(x.name) != x.spare {
			t.Errorf("%s: whole %v, overcommittable %v", x.name, Whole(x.name), Overcommittable(x.name))
		}
	}
}

func TestContainerResources(t *testing.T) {
	list := func(s string) corev1.ResourceList {
		out := corev1.ResourceList{}
		for _, pair := range strings.Fields(s) {
			name, q, _ := strings.Cut(pair, "=")
			out[corev1.ResourceName(name)] = resource.MustParse(q)
		}
		return out
	}
	for _, x := range []struct{ limits, requests, want string }{
		{"cpu=2 memory=1Gi", "cpu=1 memory=1Gi", ""},
		{"cpu=1", "cpu=2", "must be less than or equal to cpu limit of 1"},
		{"example.com/gpu=2", "example.com/gpu=2", ""},
		{"", "example.com/gpu=2", "Limit must be set for non overcommitable resources"},
		{"hugepages-2Mi=4Mi cpu=1", "", ""},
		{"hugepages-2Mi=4Mi", "", "HugePages require cpu or memory"},
		{"hugepages-2Mi=5Mi cpu=1", "", "is not positive integer multiple of hugepages-2Mi"},
		{"cpu=-1", "", TextNonNegative},
	} {
		errs := ContainerResources(&corev1.ResourceRequirements{Limits: list(x.limits), Requests: list(x.requests)}, field.NewPath("r"), nil, false)
		if got := errs.ToAggregate(); x.want == "" && got != nil || x.want != "" && (got == nil || !strings.Contains(got.Error(), x.want)) {
			t.Errorf("limits %q, requests %q: got %v, want %q", x.limits, x.requests, got, x.want)
		}
	}
}

func TestGoNames(t *testing.T) {
	got, err := json.Marshal(GoNames(corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e"}, TargetContainerName: "c"}))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`{"Name":"e","Image":""`, `"TargetContainerName":"c"}`, `"Resources":{"Limits":null,"Requests":null,"Claims":null}`} {
		if !strings.Contains(string(got), want) {
			t.Errorf("%s\nhas no %s", got, want)
		}
	}
}
