package bootstrap

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/timonel/timonel/internal/object"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/utils/ptr"
)

// Namespaces returns the namespaces that every cluster has.
func Namespaces() []object.Object {
	var all []object.Object
	for _, name := range []string{"default", "kube-node-lease", "kube-public", "kube-system"} {
		all = append(all, &corev1.Namespace{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelMetadataName: name}},
			Spec:       corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{corev1.FinalizerKubernetes}},
			Status:     corev1.NamespaceStatus{Phase: corev1.NamespaceActive},
		})
	}
	return all
}

// PriorityClasses returns the classes for pods that the cluster cannot do without.
func PriorityClasses() []object.Object {
	class := func(name string, value int32, description string) object.Object {
		return &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: name, Generation: 1}, Value: value,
			Description: description, PreemptionPolicy: ptr.To(corev1.PreemptLowerPriority)}
	}
	return []object.Object{
		class("system-node-critical", 2000001000, "Used for system critical pods that must not be moved from their current node."),
		class("system-cluster-critical", 2000000000, "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."),
	}
}

// family is the IP family of an address as API objects name it.
func family(a netip.Addr) corev1.IPFamily {
	if a.Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

// Service returns default/kubernetes, behind which the API servers are reached
// from pods; ip is the first of the service range. nodePort 0 makes it a ClusterIP service.
func Service(ip netip.Addr, port, nodePort int) *corev1.Service {
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kubernetes", Labels: map[string]string{"component": "apiserver", "provider": "kubernetes"}},
		Spec: corev1.ServiceSpec{
			Ports:                 []corev1.ServicePort{{Name: "https", Protocol: corev1.ProtocolTCP, Port: 443, TargetPort: intstr.FromInt(port)}},
			ClusterIP:             ip.String(),
			ClusterIPs:            []string{ip.String()},
			Type:                  corev1.ServiceTypeClusterIP,
			SessionAffinity:       corev1.ServiceAffinityNone,
			IPFamilies:            []corev1.IPFamily{family(ip)},
			IPFamilyPolicy:        ptr.To(corev1.IPFamilyPolicySingleStack),
			InternalTrafficPolicy: ptr.To(corev1.ServiceInternalTrafficPolicyCluster),
		},
	}
	if nodePort != 0 {
		service.Spec.Type = corev1.ServiceTypeNodePort
		service.Spec.Ports[0].NodePort = int32(nodePort)
		service.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	}
	return service
}

// IPAddress returns the reservation of default/kubernetes' address.
func IPAddress(ip netip.Addr) *networkingv1.IPAddress {
	return &networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{Name: ip.String(), Labels: map[string]string{
			networkingv1.LabelIPAddressFamily: string(family(ip)), networkingv1.LabelManagedBy: "ipallocator.k8s.io"}},
		Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: "default", Name: "kubernetes"}},
	}
}

// ServiceCIDR returns the default range of service addresses.
func ServiceCIDR(ranges []netip.Prefix, now time.Time) *networkingv1.ServiceCIDR {
	cidr := &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}}
	for _, r := range ranges {
		cidr.Spec.CIDRs = append(cidr.Spec.CIDRs, r.Masked().String())
	}
	cidr.Status.Conditions = []metav1.Condition{{Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue,
		Message: "Kubernetes default Service CIDR is ready", LastTransitionTime: metav1.NewTime(now)}}
	return cidr
}

// Endpoints returns the addresses of all API servers as Endpoints
// default/kubernetes.
func Endpoints(addresses []netip.Addr, port int) *corev1.Endpoints {
	e := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kubernetes",
		Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"}}}
	if len(addresses) > 0 {
		subset := corev1.EndpointSubset{Ports: []corev1.EndpointPort{{Name: "https", Port: int32(port), Protocol: corev1.ProtocolTCP}}}
		for _, a := range addresses {
			subset.Addresses = append(subset.Addresses, corev1.EndpointAddress{IP: a.String()})
		}
		e.Subsets = []corev1.EndpointSubset{subset}
	}
	return e
}

// EndpointSlice is Endpoints as an EndpointSlice; all addresses are of one family.
func EndpointSlice(addresses []netip.Addr, port int) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kubernetes", Generation: 1,
			Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("https"), Port: ptr.To(int32(port)), Protocol: ptr.To(corev1.ProtocolTCP)}},
	}
	for _, a := range addresses {
		s.AddressType = discoveryv1.AddressType(family(a))
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a.String()}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}})
	}
	return s
}

// Authentication is what ConfigMap kube-system/extension-apiserver-authentication tells extension
// API servers about whom to trust. Empty fields are left out.
type Authentication struct {
	ClientCA            string // PEM
	RequestHeaderCA     string // PEM; without it nothing else about request headers is told
	AllowedNames        []string
	UsernameHeaders     []string
	UIDHeaders          []string
	GroupHeaders        []string
	ExtraHeaderPrefixes []string
}

func (a *Authentication) configMap() *corev1.ConfigMap {
	data := map[string]string{}
	if a.ClientCA != "" {
		data["client-ca-file"] = a.ClientCA
	}
	if a.RequestHeaderCA != "" {
		data["requestheader-client-ca-file"] = a.RequestHeaderCA
		for key, list := range map[string][]string{
			"requestheader-allowed-names":        a.AllowedNames,
			"requestheader-username-headers":     a.UsernameHeaders,
			"requestheader-uid-headers":          a.UIDHeaders,
			"requestheader-group-headers":        a.GroupHeaders,
			"requestheader-extra-headers-prefix": a.ExtraHeaderPrefixes,
		} {
			if list == nil {
				list = []string{}
			}
			text, _ := json.Marshal(list)
			data[key] = string(text)
		}
	}
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "extension-apiserver-authentication"}, Data: data}
}

// LegacyTokenTracking returns the ConfigMap that says since when the use of tokens kept in Secrets is
// recorded.
func LegacyTokenTracking(now time.Time) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "kube-apiserver-legacy-service-account-token-tracking"},
		Data:       map[string]string{"since": now.UTC().Format(time.DateOnly)},
	}
}

// identityLeaseSeconds is how long a server counts as alive without renewing its Lease.
const identityLeaseSeconds = 3600

// Identity is an API server as its Lease in kube-system shows it (KEP-1965).
type Identity struct {
	Hostname string
	Instance string // a UUID of this run
	Peer     string // host:port at which other API servers reach it; may be empty
}

// Name is the Lease's name: the same for each run on a host.
func (i *Identity) Name() string {
	hash := sha256.New()
	for _, part := range []string{i.Hostname, "kube-apiserver"} {
		hash.Write(binary.BigEndian.AppendUint16(nil, uint16(len(part))))
		hash.Write([]byte(part))
	}
	return "apiserver-" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(hash.Sum(nil)[:16]))
}

// Lease is the server's Lease at a moment; the server renews it every 10 seconds.
func (i *Identity) Lease(now time.Time) *coordinationv1.Lease {
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: i.Name(),
			Labels: map[string]string{"apiserver.kubernetes.io/identity": "kube-apiserver", corev1.LabelHostname: i.Hostname}},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity:       ptr.To(i.Name() + "_" + i.Instance),
			LeaseDurationSeconds: ptr.To(int32(identityLeaseSeconds)),
			RenewTime:            ptr.To(metav1.NewMicroTime(now)),
		},
	}
	if i.Peer != "" {
		lease.Annotations = map[string]string{"kubernetes.io/peer-advertise-address": i.Peer}
	}
	return lease
}

// GroupVersion is a served group version and its place in discovery.
type GroupVersion struct {
	Group, Version                 string
	GroupPriority, VersionPriority int32
}

// automanaged is the label of APIServices that the server keeps itself; its value says until when.
const automanaged = "kube-aggregator.kubernetes.io/automanaged"

// LocalVersions are the built-in group versions with their priorities, higher first in discovery.
var LocalVersions = []GroupVersion{
	{"", "v1", 18000, 1},
	{"apps", "v1", 17800, 15},
	{"events.k8s.io", "v1", 17750, 15},
	{"authentication.k8s.io", "v1", 17700, 15},
	{"authorization.k8s.io", "v1", 17600, 15},
	{"autoscaling", "v1", 17500, 15},
	{"autoscaling", "v2", 17500, 30},
	{"batch", "v1", 17400, 15},
	{"certificates.k8s.io", "v1", 17300, 15},
	{"networking.k8s.io", "v1", 17200, 15},
	{"policy", "v1", 17100, 15},
	{"rbac.authorization.k8s.io", "v1", 17000, 15},
	{"storage.k8s.io", "v1", 16800, 15},
	{"apiextensions.k8s.io", "v1", 16700, 15},
	{"admissionregistration.k8s.io", "v1", 16700, 15},
	{"scheduling.k8s.io", "v1", 16600, 15},
	{"coordination.k8s.io", "v1", 16500, 15},
	{"node.k8s.io", "v1", 16300, 15},
	{"discovery.k8s.io", "v1", 16200, 15},
	{"resource.k8s.io", "v1", 16200, 21},
	{"flowcontrol.apiserver.k8s.io", "v1", 16100, 21},
	{"storagemigration.k8s.io", "v1", 15800, 15},
}

// APIService returns the registration of a group version that this server serves itself.
func APIService(v GroupVersion, now time.Time) *apiregistrationv1.APIService {
	return &apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s.%s", v.Version, v.Group), Labels: map[string]string{automanaged: "onstart"}},
		Spec: apiregistrationv1.APIServiceSpec{Group: v.Group, Version: v.Version,
			GroupPriorityMinimum: v.GroupPriority, VersionPriority: v.VersionPriority},
		Status: apiregistrationv1.APIServiceStatus{Conditions: []apiregistrationv1.APIServiceCondition{{
			Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue, LastTransitionTime: metav1.NewTime(now),
			Reason: "Local", Message: "Local APIServices are always available"}}},
	}
}
