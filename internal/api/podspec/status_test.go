package podspec

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// checkStatus compares what is said of a change of status with want, one problem a line.
func checkStatus(t *testing.T, name string, now, was corev1.Pod, want ...string) {
	t.Helper()
	var got []string
	for _, e := range ValidatePodStatusUpdate(&now, &was, Rules{}) {
		got = append(got, e.Error())
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s:\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestPodStatus(t *testing.T) {
	pod := func(s corev1.PodStatus) corev1.Pod { return corev1.Pod{Status: s} }
	nothing := pod(corev1.PodStatus{})
	checkStatus(t, "nothing", nothing, nothing)
	checkStatus(t, "three addresses", pod(corev1.PodStatus{PodIP: "1.1.1.1", PodIPs: []corev1.PodIP{{IP: "1.1.1.1"}, {IP: "2001:db8::1"}, {IP: "1.1.1.1"}}}), nothing,
		"status.podIPs: Invalid value: [{\"IP\":\"1.1.1.1\"},{\"IP\":\"2001:db8::1\"},{\"IP\":\"1.1.1.1\"}]: may specify no more than one IP for each IP family",
		"status.podIPs[2]: Duplicate value: {\"IP\":\"1.1.1.1\"}")
	checkStatus(t, "address of the host", pod(corev1.PodStatus{HostIP: "1.1.1.1", HostIPs: []corev1.HostIP{{IP: "1.1.1.2"}}}), nothing,
		"status.hostIPs[0].ip: Invalid value: \"1.1.1.2\": must be equal to `hostIP`")
	checkStatus(t, "conditions", pod(corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady}, {Type: "/"}}}), nothing,
		"metadata.conditions[1].Type: Invalid value: \"/\": prefix part must be non-empty",
		"metadata.conditions[1].Type: Invalid value: \"/\": name part must be non-empty",
		"metadata.conditions[1].Type: Invalid value: \"/\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')")
	odd := pod(corev1.PodStatus{NominatedNodeName: "Odd Name"})
	checkStatus(t, "a nomination that was there", odd, odd)
	checkStatus(t, "class", pod(corev1.PodStatus{QOSClass: corev1.PodQOSBurstable}), pod(corev1.PodStatus{QOSClass: corev1.PodQOSBestEffort}),
		"status.qosClass: Invalid value: \"Burstable\": field is immutable")
}

func TestMirrorStays(t *testing.T) {
	plain := corev1.Pod{Spec: corev1.PodSpec{NodeName: "n"}}
	mirror := plain
	mirror.ObjectMeta = metav1.ObjectMeta{Annotations: map[string]string{corev1.MirrorPodAnnotationKey: "a"}}
	checkStatus(t, "becomes one", mirror, plain, "metadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not add mirror pod annotation")
	checkStatus(t, "is one no more", plain, mirror, "metadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not remove or update mirror pod annotation")
}

func TestResize(t *testing.T) {
	pod := func(containers ...corev1.Container) *corev1.Pod {
		for i := range containers {
			containers[i].Name, containers[i].Image = "c", "x"
		}
		p := &corev1.Pod{Spec: corev1.PodSpec{Containers: containers}}
		Default(&p.Spec)
		return p
	}
	disk := func(c corev1.Container, q string) corev1.Container {
		c.Resources.Requests[corev1.ResourceEphemeralStorage] = resource.MustParse(q)
		return c
	}
	for _, x := range []struct {
		name     string
		now, was *corev1.Pod
		want     string
	}{
		{"more", pod(ctr("2", "", "", "")), pod(ctr("1", "", "", "")), ""},
		{"a limit more", pod(ctr("1", "1Gi", "", "2Gi")), pod(ctr("1", "", "", "")), ""},
		{"a request less", pod(ctr("1", "", "", "")), pod(ctr("1", "1Gi", "", "")), "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"},
		{"disk", pod(disk(ctr("1", "", "", ""), "1Gi")), pod(disk(ctr("1", "", "", ""), "2Gi")), "spec: Forbidden: only cpu and memory resources are mutable"},
		{"to guaranteed", pod(ctr("1", "1Gi", "1", "1Gi")), pod(ctr("1", "1Gi", "", "")), `spec: Invalid value: "": Pod QOS Class may not change as a result of resizing`},
	} {
		got := ""
		if errs := ValidateResize(x.now, x.was, Rules{}); len(errs) > 0 {
			got = errs.ToAggregate().Error()
		}
		if got != x.want {
			t.Errorf("%s: %s, want %s", x.name, got, x.want)
		}
	}
}

func TestStatusOfFeaturesThatAreOff(t *testing.T) {
	status := func() *corev1.PodStatus {
		return &corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{VolumeMounts: []corev1.VolumeMountStatus{
			{Name: "v", VolumeStatus: &corev1.VolumeStatus{Image: &corev1.ImageVolumeStatus{ImageRef: "sha256:0"}}},
		}}}}
	}
	s := status()
	DropDisabledStatus(s, &corev1.PodStatus{})
	if s.ContainerStatuses[0].VolumeMounts[0].VolumeStatus != nil {
		t.Error("a new status kept the digest of an image volume")
	}
	s = status()
	DropDisabledStatus(s, status())
	if s.ContainerStatuses[0].VolumeMounts[0].VolumeStatus == nil {
		t.Error("a status lost the digest that was there before")
	}
}
