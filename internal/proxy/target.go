package proxy

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"github.com/timonel/timonel/internal/proxy/query"
)

// KubeletRequest is what to ask a kubelet for.
type KubeletRequest struct {
	Node  string // whose kubelet; empty while the pod has no node
	Path  string
	Query url.Values
}

// LogRequest decides what to ask for a container's log. Errors are 400 and, for
// options that make no sense, 422.
func LogRequest(pod *corev1.Pod, o *corev1.PodLogOptions, splitStreams bool) (KubeletRequest, error) {
	if wrong := query.CheckLog(o, splitStreams); len(wrong) > 0 {
		return KubeletRequest{}, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("PodLogOptions").GroupKind(), pod.Name, wrong)
	}
	container, err := chooseContainer(pod, o.Container)
	if err != nil {
		return KubeletRequest{}, err
	}
	return KubeletRequest{Node: pod.Spec.NodeName, Path: containerPath("/containerLogs", pod, container), Query: query.KubeletLog(o)}, nil
}

// ExecRequest decides what to ask to run a command. Errors are 400.
func ExecRequest(pod *corev1.Pod, o *corev1.PodExecOptions) (KubeletRequest, error) {
	return streamRequest("/exec", pod, o.Container, query.KubeletExec(o))
}

// AttachRequest decides what to ask to join a running container. Errors are 400.
func AttachRequest(pod *corev1.Pod, o *corev1.PodAttachOptions) (KubeletRequest, error) {
	return streamRequest("/attach", pod, o.Container, query.KubeletAttach(o))
}

func streamRequest(path string, pod *corev1.Pod, container string, q url.Values) (KubeletRequest, error) {
	container, err := chooseContainer(pod, container)
	if err != nil {
		return KubeletRequest{}, err
	}
	if err := needNode(pod); err != nil {
		return KubeletRequest{}, err
	}
	return KubeletRequest{Node: pod.Spec.NodeName, Path: containerPath(path, pod, container), Query: q}, nil
}

// PortForwardRequest decides what to ask to reach a pod's ports. Errors are 400.
func PortForwardRequest(pod *corev1.Pod, o *corev1.PodPortForwardOptions) (KubeletRequest, error) {
	if err := needNode(pod); err != nil {
		return KubeletRequest{}, err
	}
	return KubeletRequest{Node: pod.Spec.NodeName, Path: path.Join("/portForward", pod.Namespace, pod.Name), Query: query.KubeletPortForward(o)}, nil
}

func needNode(pod *corev1.Pod) error {
	if pod.Spec.NodeName == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", pod.Name))
	}
	return nil
}

func containerPath(root string, pod *corev1.Pod, container string) string {
	return path.Join(root, pod.Namespace, pod.Name, container)
}

// chooseContainer takes the one that was asked for, or the only one.
func chooseContainer(pod *corev1.Pod, name string) (string, error) {
	names, initNames, ephemeralNames := containerNames(pod)
	if name != "" {
		if slices.Contains(slices.Concat(names, initNames, ephemeralNames), name) {
			return name, nil
		}
		return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, pod.Name))
	}
	if len(names) == 1 {
		return names[0], nil
	}
	text := fmt.Sprintf("a container name must be specified for pod %s", pod.Name)
	if len(names) > 0 {
		text += fmt.Sprintf(", choose one of: [%s]", strings.Join(names, " "))
		if len(initNames) > 0 {
			text += fmt.Sprintf(" or one of the init containers: [%s]", strings.Join(initNames, " "))
		}
		if len(ephemeralNames) > 0 {
			text += fmt.Sprintf(" or one of the ephemeral containers: [%s]", strings.Join(ephemeralNames, " "))
		}
	}
	return "", apierrors.NewBadRequest(text)
}

func containerNames(pod *corev1.Pod) (names, initNames, ephemeralNames []string) {
	for i := range pod.Spec.Containers {
		names = append(names, pod.Spec.Containers[i].Name)
	}
	for i := range pod.Spec.InitContainers {
		initNames = append(initNames, pod.Spec.InitContainers[i].Name)
	}
	for i := range pod.Spec.EphemeralContainers {
		ephemeralNames = append(ephemeralNames, pod.Spec.EphemeralContainers[i].Name)
	}
	return names, initNames, ephemeralNames
}

// KubeletAddress returns host and port of a node's kubelet: the node's first
// address of the first of the types that it has one of.
func KubeletAddress(node *corev1.Node, types []corev1.NodeAddressType) (string, error) {
	port := int(node.Status.DaemonEndpoints.KubeletEndpoint.Port)
	if port == 0 {
		port = KubeletPort
	}
	host, err := nodeHost(node, types)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(host, strconv.Itoa(port)), nil
}

func nodeHost(node *corev1.Node, types []corev1.NodeAddressType) (string, error) {
	for _, kind := range types {
		for _, address := range node.Status.Addresses {
			if address.Type == kind {
				return address.Address, nil
			}
		}
	}
	return "", fmt.Errorf("no preferred addresses found; known addresses: %v", node.Status.Addresses)
}

// Name is what stands in the URL of a proxy request: [https:]name[:port].
type Name struct {
	Scheme, Name, Port string
}

// ParseName splits the name in the URL of a proxy request. what is the kind of
// object, for the error, a 400.
func ParseName(what, name string) (Name, error) {
	scheme, host, port, ok := utilnet.SplitSchemeNamePort(name)
	if !ok {
		return Name{}, apierrors.NewBadRequest(fmt.Sprintf("invalid %s request %q", what, name))
	}
	return Name{Scheme: scheme, Name: host, Port: port}, nil
}

// PodLocation decides where a pod's own server is: the given port, else the
// first that a container declares. Errors are 400.
func PodLocation(pod *corev1.Pod, name Name) (*url.URL, error) {
	port := name.Port
	if port == "" {
		for i := range pod.Spec.Containers {
			if ports := pod.Spec.Containers[i].Ports; len(ports) > 0 {
				port = strconv.Itoa(int(ports[0].ContainerPort))
				break
			}
		}
	}
	ip := pod.Status.PodIP
	if len(pod.Status.PodIPs) > 0 {
		ip = pod.Status.PodIPs[0].IP
	}
	if err := checkAddress(ip); err != nil {
		return nil, err
	}
	return location(name.Scheme, ip, port), nil
}

func checkAddress(ip string) error {
	address, err := netip.ParseAddr(ip)
	if err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("%q is not an IP address", ip))
	}
	if !proxyable(address) {
		return errOwnAddress
	}
	return nil
}

func location(scheme, host, port string) *url.URL {
	if port == "" {
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
	} else {
		host = net.JoinHostPort(host, port)
	}
	if scheme == "" {
		scheme = "http"
	}
	return &url.URL{Scheme: scheme, Host: host}
}

// ServiceLocation decides which endpoint of a service to ask, one of those that
// are ready, at random. The port of name is a number or a name of a port of the
// service; it may be left out when the service's only port has no name. Errors
// are 503, and 400 for endpoints that are not to be reached.
func ServiceLocation(service *corev1.Service, slices []*discoveryv1.EndpointSlice, name Name) (*url.URL, error) {
	port := name.Port
	if port == "" && len(service.Spec.Ports) == 1 {
		port = service.Spec.Ports[0].Name
	} else if number, err := strconv.ParseInt(port, 10, 64); err == nil {
		found := false
		for _, p := range service.Spec.Ports {
			if int64(p.Port) == number {
				port, found = p.Name, true
				break
			}
		}
		if !found {
			return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %d found for service %q", number, service.Name))
		}
	}
	var candidates []string // host:port
	for _, slice := range slices {
		if slice.AddressType == discoveryv1.AddressTypeFQDN {
			continue
		}
		for _, p := range slice.Ports {
			if p.Port == nil || text(p.Name) != port {
				continue
			}
			for _, endpoint := range slice.Endpoints {
				if endpoint.Conditions.Ready != nil && !*endpoint.Conditions.Ready || len(endpoint.Addresses) == 0 {
					continue
				}
				candidates = append(candidates, net.JoinHostPort(endpoint.Addresses[0], strconv.Itoa(int(*p.Port))))
			}
		}
	}
	if len(candidates) == 0 {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", service.Name))
	}
	chosen := candidates[rand.IntN(len(candidates))]
	host, port, err := net.SplitHostPort(chosen)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("endpoint %q of service %q: %w", chosen, service.Name, err))
	}
	if err := checkAddress(host); err != nil {
		return nil, err
	}
	return location(name.Scheme, host, port), nil
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
