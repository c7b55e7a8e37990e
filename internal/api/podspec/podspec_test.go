package podspec

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"
)

func TestPullPolicy(t *testing.T) {
	for image, want := range map[string]corev1.PullPolicy{
		"nginx":                   corev1.PullAlways,
		"nginx:latest":            corev1.PullAlways,
		"nginx:1.27":              corev1.PullIfNotPresent,
		"reg:5000/nginx":          corev1.PullAlways,
		"reg:5000/nginx:1":        corev1.PullIfNotPresent,
		"nginx@sha256:0":          corev1.PullIfNotPresent,
		"nginx:latest@sha256:0":   corev1.PullAlways,
		"reg:5000/nginx@sha256:0": corev1.PullIfNotPresent,
	} {
		if got := pullPolicy(image); got != want {
			t.Errorf("%s: %s, want %s", image, got, want)
		}
	}
}

func TestSubscript(t *testing.T) {
	for path, want := range map[string][2]string{
		"metadata.name":             {"metadata.name", ""},
		"metadata.labels['a/b']":    {"metadata.labels", "a/b"},
		"metadata.labels['']":       {"metadata.labels", ""},
		"['a']":                     {"['a']", ""},
		"metadata.labels['a'].more": {"metadata.labels['a'].more", ""},
	} {
		if name, key, _ := subscript(path); name != want[0] || key != want[1] {
			t.Errorf("%s: %q %q", path, name, key)
		}
	}
}

// ctr is a container with requests and limits of cpu and memory; "" leaves one out.
func ctr(requestCPU, requestMemory, limitCPU, limitMemory string) corev1.Container {
	var c corev1.Container
	set := func(list *corev1.ResourceList, name corev1.ResourceName, q string) {
		if q == "" {
			return
		}
		if *list == nil {
			*list = corev1.ResourceList{}
		}
		(*list)[name] = resource.MustParse(q)
	}
	set(&c.Resources.Requests, corev1.ResourceCPU, requestCPU)
	set(&c.Resources.Requests, corev1.ResourceMemory, requestMemory)
	set(&c.Resources.Limits, corev1.ResourceCPU, limitCPU)
	set(&c.Resources.Limits, corev1.ResourceMemory, limitMemory)
	return c
}

func TestQOSClass(t *testing.T) {
	for _, x := range []struct {
		name string
		spec corev1.PodSpec
		want corev1.PodQOSClass
	}{
		{"nothing", corev1.PodSpec{Containers: []corev1.Container{{}}}, corev1.PodQOSBestEffort},
		{"zero", corev1.PodSpec{Containers: []corev1.Container{ctr("0", "0", "", "")}}, corev1.PodQOSBestEffort},
		{"a request", corev1.PodSpec{Containers: []corev1.Container{ctr("1", "", "", "")}}, corev1.PodQOSBurstable},
		{"all equal", corev1.PodSpec{Containers: []corev1.Container{ctr("1", "1Gi", "1", "1Gi"), ctr("2", "2Gi", "2", "2Gi")}}, corev1.PodQOSGuaranteed},
		{"one differs", corev1.PodSpec{Containers: []corev1.Container{ctr("1", "1Gi", "1", "1Gi"), ctr("1", "2Gi", "2", "2Gi")}}, corev1.PodQOSBurstable},
		{"init container without", corev1.PodSpec{Containers: []corev1.Container{ctr("1", "1Gi", "1", "1Gi")}, InitContainers: []corev1.Container{{}}}, corev1.PodQOSBurstable},
		{"only cpu", corev1.PodSpec{Containers: []corev1.Container{ctr("1", "", "1", "")}}, corev1.PodQOSBurstable},
		{"of the pod", corev1.PodSpec{Containers: []corev1.Container{{}}, Resources: ptr.To(ctr("1", "1Gi", "1", "1Gi").Resources)}, corev1.PodQOSGuaranteed},
	} {
		if got := QOSClass(&x.spec); got != x.want {
			t.Errorf("%s: %s, want %s", x.name, got, x.want)
		}
	}
}

func TestRequestsOfInitialisation(t *testing.T) {
	sidecar := ctr("1", "", "", "")
	sidecar.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
	for _, x := range []struct {
		name string
		spec corev1.PodSpec
		want string
	}{
		{"side by side", corev1.PodSpec{Containers: []corev1.Container{ctr("1", "", "", ""), ctr("2", "", "", "")}}, "3"},
		{"a greedy step", corev1.PodSpec{Containers: []corev1.Container{ctr("1", "", "", "")}, InitContainers: []corev1.Container{ctr("5", "", "", ""), ctr("4", "", "", "")}}, "5"},
		{"sidecar counts for later steps", corev1.PodSpec{Containers: []corev1.Container{ctr("1", "", "", "")}, InitContainers: []corev1.Container{sidecar, ctr("4", "", "", "")}}, "5"},
		{"sidecar after a step", corev1.PodSpec{Containers: []corev1.Container{ctr("1", "", "", "")}, InitContainers: []corev1.Container{ctr("4", "", "", ""), sidecar}}, "4"},
		{"sidecar runs on", corev1.PodSpec{Containers: []corev1.Container{ctr("1", "", "", "")}, InitContainers: []corev1.Container{sidecar}}, "2"},
	} {
		q := Requests(&x.spec)[corev1.ResourceCPU]
		if got := q.String(); got != x.want {
			t.Errorf("%s: %s, want %s", x.name, got, x.want)
		}
	}
}
