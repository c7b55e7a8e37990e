package proxy

import (
	"net/url"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/timonel/timonel/internal/proxy/query"
)

// podOf has containers by name: "-x" is an init container, "+x" an ephemeral one.
func podOf(node string, containers ...string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Spec: corev1.PodSpec{NodeName: node}}
	for _, name := range containers {
		switch name[0] {
		case '-':
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: name[1:]})
		case '+':
			pod.Spec.EphemeralContainers = append(pod.Spec.EphemeralContainers, corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: name[1:]}})
		default:
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: name})
		}
	}
	return pod
}

func TestRequests(t *testing.T) {
	type subresource func(pod *corev1.Pod, q url.Values) (KubeletRequest, error)
	log := func(pod *corev1.Pod, q url.Values) (KubeletRequest, error) {
		o, err := query.Log(q)
		if err != nil {
			return KubeletRequest{}, err
		}
		return LogRequest(pod, o, false)
	}
	exec := func(pod *corev1.Pod, q url.Values) (KubeletRequest, error) {
		o, err := query.Exec(q)
		if err != nil {
			return KubeletRequest{}, err
		}
		return ExecRequest(pod, o)
	}
	attach := func(pod *corev1.Pod, q url.Values) (KubeletRequest, error) {
		o, err := query.Attach(q)
		if err != nil {
			return KubeletRequest{}, err
		}
		return AttachRequest(pod, o)
	}
	forward := func(pod *corev1.Pod, q url.Values) (KubeletRequest, error) {
		o, err := query.PortForward(q)
		if err != nil {
			return KubeletRequest{}, err
		}
		return PortForwardRequest(pod, o)
	}
	for _, c := range []struct {
		name string
		of   subresource
		pod  *corev1.Pod
		q    string
		want string // path?query, or the error after its code
	}{
		{"log of the only container", log, podOf("n", "a"), "", "/containerLogs/shop/web/a?"},
		{"log with everything", log, podOf("n", "a", "b"), "container=b&follow=true&previous=1&timestamps&tailLines=5&limitBytes=7&sinceSeconds=9&insecureSkipTLSVerifyBackend=true",
			"/containerLogs/shop/web/b?follow=true&limitBytes=7&previous=true&sinceSeconds=9&tailLines=5&timestamps=true"},
		{"log since a time", log, podOf("n", "a"), "sinceTime=2026-01-02T03:04:05Z", "/containerLogs/shop/web/a?sinceTime=2026-01-02T03%3A04%3A05Z"},
		{"log not followed", log, podOf("n", "a"), "follow=false&unknown=1", "/containerLogs/shop/web/a?"},
		{"log of an init container", log, podOf("n", "a", "-i"), "container=i", "/containerLogs/shop/web/i?"},
		{"log of an ephemeral container", log, podOf("n", "a", "+e"), "container=e", "/containerLogs/shop/web/e?"},
		{"log of an unscheduled pod", log, podOf("", "a"), "", "/containerLogs/shop/web/a?"},
		{"log of nobody", log, podOf("n", "a"), "container=b", "400 container b is not valid for pod web"},
		{"log of one of two", log, podOf("n", "a", "b"), "", "400 a container name must be specified for pod web, choose one of: [a b]"},
		{"log of one of many", log, podOf("n", "a", "b", "-i", "+e"), "",
			"400 a container name must be specified for pod web, choose one of: [a b] or one of the init containers: [i] or one of the ephemeral containers: [e]"},
		{"log, bad number", log, podOf("n", "a"), "tailLines=many", `400 strconv.ParseInt: parsing "many": invalid syntax`},
		{"log, bad time", log, podOf("n", "a"), "sinceTime=now", `400 parsing time "now" as "2006-01-02T15:04:05Z07:00": cannot parse "now" as "2006"`},
		{"log, negative", log, podOf("n", "a"), "tailLines=-1", `422 PodLogOptions "web" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0`},
		{"log, no bytes", log, podOf("n", "a"), "limitBytes=0", `422 PodLogOptions "web" is invalid: limitBytes: Invalid value: 0: must be greater than 0`},
		{"log, one stream", log, podOf("n", "a"), "stream=Stdout", `422 PodLogOptions "web" is invalid: stream: Forbidden: may not be specified`},
		{"exec", exec, podOf("n", "a"), "command=sh&command=-c&command=echo+a%26b&stdin=true&stdout=true&tty=true", "/exec/shop/web/a?command=sh&command=-c&command=echo+a%26b&input=1&output=1&tty=1"},
		{"exec with errors", exec, podOf("n", "a"), "command=ls&stdout=true&stderr=true", "/exec/shop/web/a?command=ls&error=1&output=1"},
		{"exec, unscheduled", exec, podOf("", "a"), "command=ls&stdout=true", "400 pod web does not have a host assigned"},
		{"exec, one of two", exec, podOf("n", "a", "b"), "command=ls", "400 a container name must be specified for pod web, choose one of: [a b]"},
		{"attach", attach, podOf("n", "a", "b"), "container=b&stdin=true", "/attach/shop/web/b?input=1"},
		{"attach, unscheduled", attach, podOf("", "a"), "", "400 pod web does not have a host assigned"},
		{"forward", forward, podOf("n", "a", "b"), "", "/portForward/shop/web?"},
		{"forward, ports", forward, podOf("n", "a"), "ports=80&ports=81", "/portForward/shop/web?port=80&port=81"},
		{"forward, unscheduled", forward, podOf("", "a"), "", "400 pod web does not have a host assigned"},
	} {
		t.Run(c.name, func(t *testing.T) {
			q, err := url.ParseQuery(c.q)
			if err != nil {
				t.Fatal(err)
			}
			ask, err := c.of(c.pod, q)
			got := ask.Path + "?" + ask.Query.Encode()
			if err != nil {
				got = apiError(t, err)
			} else if ask.Node != c.pod.Spec.NodeName {
				t.Errorf("asks node %q", ask.Node)
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// apiError is the code and message of an API error.
func apiError(t *testing.T, err error) string {
	t.Helper()
	status, ok := err.(apierrors.APIStatus)
	if !ok {
		t.Fatalf("%v is not an API error", err)
	}
	return strings.Join([]string{itoa(status.Status().Code), status.Status().Message}, " ")
}

func itoa(n int32) string {
	return string([]byte{byte('0' + n/100), byte('0' + n/10%10), byte('0' + n%10)})
}

func TestKubeletAddress(t *testing.T) {
	node := &corev1.Node{Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
		{Type: corev1.NodeExternalIP, Address: "8.8.8.8"}, {Type: corev1.NodeInternalIP, Address: "10.0.0.1"},
		{Type: corev1.NodeInternalIP, Address: "fd00::1"}, {Type: corev1.NodeHostName, Address: "n1"},
	}}}
	check := func(want string, types ...corev1.NodeAddressType) {
		t.Helper()
		got, err := KubeletAddress(node, types)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%v: got %q, want %q", types, got, want)
		}
	}
	check("10.0.0.1:10250", corev1.NodeInternalIP, corev1.NodeExternalIP)
	check("n1:10250", defaultAddressTypes...)
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = 443
	check("8.8.8.8:443", corev1.NodeExternalDNS, corev1.NodeExternalIP)
	node.Status.Addresses = node.Status.Addresses[2:3]
	check("[fd00::1]:443", defaultAddressTypes...)
	check("no preferred addresses found; known addresses: [{InternalIP fd00::1}]", corev1.NodeHostName)
}

func TestPodLocation(t *testing.T) {
	pod := podOf("n", "a", "b")
	pod.Spec.Containers[1].Ports = []corev1.ContainerPort{{ContainerPort: 8080}, {ContainerPort: 9090}}
	check := func(name, ip, want string) {
		t.Helper()
		pod.Status.PodIPs = []corev1.PodIP{{IP: ip}}
		parsed, err := ParseName("pod", name)
		got := ""
		if err == nil {
			var to *url.URL
			if to, err = PodLocation(pod, parsed); err == nil {
				got = to.String()
			}
		}
		if err != nil {
			got = apiError(t, err)
		}
		if got != want {
			t.Errorf("%s at %s: got %s, want %s", name, ip, got, want)
		}
	}
	check("web", "10.1.1.1", "http://10.1.1.1:8080")
	check("web:81", "10.1.1.1", "http://10.1.1.1:81")
	check("https:web:81", "10.1.1.1", "https://10.1.1.1:81")
	check("https:web:", "fd00::1", "https://[fd00::1]:8080")
	check("ftp:web:1", "10.1.1.1", `400 invalid pod request "ftp:web:1"`)
	check("web", "", `400 "" is not an IP address`)
	for _, own := range []string{"127.0.0.1", "::1", "169.254.169.254", "fe80::1", "224.0.0.1", "0.0.0.0", "::ffff:127.0.0.1"} {
		check("web", own, "400 address not allowed")
	}
	pod.Spec.Containers[1].Ports = nil
	check("web", "10.1.1.1", "http://10.1.1.1")
	check("web", "fd00::1", "http://[fd00::1]")
}

func TestServiceLocation(t *testing.T) {
	service := func(ports ...corev1.ServicePort) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: corev1.ServiceSpec{Ports: ports}}
	}
	slice := func(port string, number int32, addresses ...string) *discoveryv1.EndpointSlice {
		s := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &port, Port: &number}}}
		for _, a := range addresses {
			ready := !strings.HasPrefix(a, "!")
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{strings.TrimPrefix(a, "!")}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}})
		}
		return s
	}
	unnamed := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Port: ptr.To[int32](8080)}}, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.9"}}}}
	check := func(what string, s *corev1.Service, name string, want string, slices ...*discoveryv1.EndpointSlice) {
		t.Helper()
		parsed, err := ParseName("service", name)
		got := ""
		if err == nil {
			var to *url.URL
			if to, err = ServiceLocation(s, slices, parsed); err == nil {
				got = to.String()
			}
		}
		if err != nil {
			got = apiError(t, err)
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", what, got, want)
		}
	}
	one := service(corev1.ServicePort{Port: 80})
	two := service(corev1.ServicePort{Name: "web", Port: 80}, corev1.ServicePort{Name: "admin", Port: 81})
	check("the only port", one, "shop", "http://10.0.0.1:8080", slice("", 8080, "10.0.0.1"))
	check("a port without a name at all", one, "shop", "http://10.0.0.9:8080", unnamed)
	check("by number", two, "shop:81", "http://10.0.0.2:9090", slice("web", 8080, "10.0.0.1"), slice("admin", 9090, "10.0.0.2"))
	check("by name", two, "https:shop:web", "https://10.0.0.1:8080", slice("web", 8080, "10.0.0.1"))
	check("only ready ones", two, "shop:web", "http://10.0.0.3:8080", slice("web", 8080, "!10.0.0.1", "!10.0.0.2", "10.0.0.3"))
	check("none ready", two, "shop:web", `503 no endpoints available for service "shop"`, slice("web", 8080, "!10.0.0.1"))
	check("no slices", one, "shop", `503 no endpoints available for service "shop"`)
	check("two ports, none chosen", two, "shop", `503 no endpoints available for service "shop"`, slice("web", 8080, "10.0.0.1"))
	check("unknown number", two, "shop:99", `503 no service port 99 found for service "shop"`, slice("web", 8080, "10.0.0.1"))
	check("unknown name", two, "shop:x", `503 no endpoints available for service "shop"`, slice("web", 8080, "10.0.0.1"))
	check("an endpoint that is us", one, "shop", "400 address not allowed", slice("", 8080, "127.0.0.1"))
	check("bad name", one, "", `400 invalid service request ""`)
}
