package admission

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/timonel/timonel/internal/api/podspec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
)

const (
	countPrefix        = "count/"
	storageClassSuffix = ".storageclass.storage.k8s.io/"
	deviceClassSuffix  = ".deviceclass.resource.k8s.io/devices"
	// maxDevices is what a request for all devices that match may come to at most (resource.k8s.io AllocationResultsMaxSize).
	maxDevices = 32
)

// meter knows what the objects of one kind take of the resources that quotas limit.
type meter struct {
	count   corev1.ResourceName // count/<plural>.<group>
	alias   corev1.ResourceName // the older name of count, if it has one: "pods", "secrets"
	limits  func(name corev1.ResourceName) bool
	measure func(obj object.Object, into corev1.ResourceList) // nil: objects are only counted
	demand  func(obj object.Object, limits []corev1.ResourceName) string
}

// QuotaUsage returns what an object takes of the resources that quotas limit, by the names that quotas have for
// them; it is what the quota controller sums up. The object is of the kind that resource names.
func QuotaUsage(resource schema.GroupResource, obj object.Object) corev1.ResourceList {
	return meterFor(resource).usage(obj)
}

// QuotaCovers reports whether the scopes of a quota take an object of the kind in.
func QuotaCovers(q *corev1.ResourceQuota, resource schema.GroupResource, obj object.Object) bool {
	return inScope(q, obj, meterFor(resource))
}

func meterOf(d *kind.Definition) *meter { return meterFor(d.GroupResource()) }

// meterFor returns the meter of a kind.
func meterFor(r schema.GroupResource) *meter {
	m := &meter{count: corev1.ResourceName(countPrefix + r.String())}
	switch r {
	case schema.GroupResource{Resource: "pods"}:
		m.alias, m.limits, m.measure, m.demand = corev1.ResourcePods, podResource, measurePod, podDemand
	case schema.GroupResource{Resource: "services"}:
		m.alias, m.limits, m.measure = corev1.ResourceServices, serviceResource, measureService
	case schema.GroupResource{Resource: "persistentvolumeclaims"}:
		m.alias, m.limits, m.measure = corev1.ResourcePersistentVolumeClaims, claimResource, measureClaim
	case schema.GroupResource{Group: resourcev1.GroupName, Resource: "resourceclaims"}:
		m.limits, m.measure = deviceResource, measureDevices
	case schema.GroupResource{Resource: "configmaps"}, schema.GroupResource{Resource: "secrets"},
		schema.GroupResource{Resource: "replicationcontrollers"}, schema.GroupResource{Resource: "resourcequotas"}:
		m.alias = corev1.ResourceName(r.Resource)
	}
	return m
}

// among returns the names of the limits that are about the kind, in order: those in force, and those that
// the quota asks for but the controller has not taken over yet.
func (m *meter) among(hard, asked corev1.ResourceList) []corev1.ResourceName {
	var names []corev1.ResourceName
	for _, l := range []corev1.ResourceList{hard, asked} {
		for name := range l {
			if m.has(name) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

func (m *meter) has(name corev1.ResourceName) bool {
	return name == m.count || m.alias != "" && name == m.alias || m.limits != nil && m.limits(name)
}

// missing says what the object must specify because of the limits; "" if it does.
func (m *meter) missing(obj object.Object, limits []corev1.ResourceName) string {
	if m.demand == nil {
		return ""
	}
	return m.demand(obj, limits)
}

// usage returns what an object takes.
func (m *meter) usage(obj object.Object) corev1.ResourceList {
	one := resource.NewQuantity(1, resource.DecimalSI)
	used := corev1.ResourceList{m.count: *one}
	if m.alias != "" {
		used[m.alias] = one.DeepCopy()
	}
	if m.measure != nil {
		m.measure(obj, used)
	}
	return used
}

// inScope reports whether a quota is about the object: it matches all scopes of the quota.
func inScope(q *corev1.ResourceQuota, obj object.Object, m *meter) bool {
	for _, scope := range q.Spec.Scopes {
		if !matches(corev1.ScopedResourceSelectorRequirement{ScopeName: scope, Operator: corev1.ScopeSelectorOpExists}, obj) {
			return false
		}
	}
	if q.Spec.ScopeSelector != nil {
		for _, want := range q.Spec.ScopeSelector.MatchExpressions {
			if !matches(want, obj) {
				return false
			}
		}
	}
	return true
}

func matches(want corev1.ScopedResourceSelectorRequirement, obj object.Object) bool {
	switch o := obj.(type) {
	case *corev1.Pod:
		return podMatches(want, o)
	case *corev1.PersistentVolumeClaim:
		if want.ScopeName == corev1.ResourceQuotaScopeVolumeAttributesClass {
			return valueMatches(want, ptr.Deref(o.Spec.VolumeAttributesClassName, ""))
		}
	}
	return false
}

func podMatches(want corev1.ScopedResourceSelectorRequirement, p *corev1.Pod) bool {
	bounded := p.Spec.ActiveDeadlineSeconds != nil && *p.Spec.ActiveDeadlineSeconds >= 0
	switch want.ScopeName {
	case corev1.ResourceQuotaScopeTerminating:
		return bounded
	case corev1.ResourceQuotaScopeNotTerminating:
		return !bounded
	case corev1.ResourceQuotaScopeBestEffort:
		return podspec.QOSClass(&p.Spec) == corev1.PodQOSBestEffort
	case corev1.ResourceQuotaScopeNotBestEffort:
		return podspec.QOSClass(&p.Spec) != corev1.PodQOSBestEffort
	case corev1.ResourceQuotaScopePriorityClass:
		return valueMatches(want, p.Spec.PriorityClassName)
	case corev1.ResourceQuotaScopeCrossNamespacePodAffinity:
		return crossesNamespaces(p)
	}
	return false
}

// valueMatches compares the name of a class with a requirement.
func valueMatches(want corev1.ScopedResourceSelectorRequirement, value string) bool {
	switch want.Operator {
	case corev1.ScopeSelectorOpExists, "":
		return value != ""
	case corev1.ScopeSelectorOpDoesNotExist:
		return value == ""
	case corev1.ScopeSelectorOpIn:
		return value != "" && slices.Contains(want.Values, value)
	case corev1.ScopeSelectorOpNotIn:
		return !slices.Contains(want.Values, value)
	}
	return false
}

// crossesNamespaces reports whether a pod's affinity names other namespaces.
func crossesNamespaces(p *corev1.Pod) bool {
	crosses := false
	podspec.EachAffinityTerm(&p.Spec, func(t *corev1.PodAffinityTerm) {
		crosses = crosses || len(t.Namespaces) > 0 || t.NamespaceSelector != nil
	})
	return crosses
}

// podResource reports whether a limit is about what pods compute with.
func podResource(name corev1.ResourceName) bool {
	switch name {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory,
		corev1.ResourceRequestsEphemeralStorage, corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage:
		return true
	}
	text := string(name)
	if strings.HasPrefix(text, corev1.ResourceHugePagesPrefix) {
		return true
	}
	requested, ok := strings.CutPrefix(text, corev1.DefaultResourceRequestsPrefix)
	return ok && (strings.HasPrefix(requested, corev1.ResourceHugePagesPrefix) || isExtended(corev1.ResourceName(requested)))
}

// measurePod adds what a pod computes with. A pod that is over takes nothing but its place among the objects.
func measurePod(obj object.Object, into corev1.ResourceList) {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return
	}
	if over(p) {
		delete(into, corev1.ResourcePods)
		return
	}
	for name, amount := range wholeRequests(&p.Spec) {
		switch {
		case name == corev1.ResourceCPU, name == corev1.ResourceMemory, name == corev1.ResourceEphemeralStorage, strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix):
			into[name] = amount
			into[corev1.DefaultResourceRequestsPrefix+name] = amount
		case isExtended(name):
			into[corev1.DefaultResourceRequestsPrefix+name] = amount
		}
	}
	for name, amount := range wholeLimits(&p.Spec) {
		switch name {
		case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
			into["limits."+name] = amount
		}
	}
}

// over reports whether a pod has ended, or was to be gone by now.
func over(p *corev1.Pod) bool {
	if p.Status.Phase == corev1.PodFailed || p.Status.Phase == corev1.PodSucceeded {
		return true
	}
	return p.DeletionTimestamp != nil && p.DeletionGracePeriodSeconds != nil && p.DeletionTimestamp.Time.Before(time.Now())
}

// wholeLimits is wholeRequests for limits.
func wholeLimits(s *corev1.PodSpec) corev1.ResourceList {
	total := podspec.Limits(s)
	if s.Resources != nil {
		maps.Copy(total, s.Resources.Limits)
	}
	for name, q := range s.Overhead {
		if sum, limited := total[name]; limited && sum.Sign() > 0 {
			sum.Add(q)
			total[name] = sum
		}
	}
	return total
}

// podDemand says which containers lack a request or limit that a quota is about. What the pod says as a whole holds for
// all of them.
func podDemand(obj object.Object, limits []corev1.ResourceName) string {
	p, ok := obj.(*corev1.Pod)
	if !ok {
		return ""
	}
	var lacks []string
	for _, name := range limits {
		of, bound := demanded(name)
		if of == "" {
			continue
		}
		given := func(r *corev1.ResourceRequirements) bool {
			l := r.Requests
			if bound {
				l = r.Limits
			}
			_, found := l[of]
			return found
		}
		if p.Spec.Resources != nil && given(p.Spec.Resources) {
			continue
		}
		var containers []string
		for _, all := range [][]corev1.Container{p.Spec.Containers, p.Spec.InitContainers} {
			for i := range all {
				if !given(&all[i].Resources) {
					containers = append(containers, all[i].Name)
				}
			}
		}
		if len(containers) > 0 {
			slices.Sort(containers)
			lacks = append(lacks, string(name)+" for: "+strings.Join(containers, ","))
		}
	}
	return strings.Join(lacks, "; ")
}

// demanded returns of which resource a limit demands that containers say it, and whether as their limit.
func demanded(name corev1.ResourceName) (of corev1.ResourceName, limit bool) {
	switch name {
	case corev1.ResourceCPU, corev1.ResourceRequestsCPU:
		return corev1.ResourceCPU, false
	case corev1.ResourceMemory, corev1.ResourceRequestsMemory:
		return corev1.ResourceMemory, false
	case corev1.ResourceLimitsCPU:
		return corev1.ResourceCPU, true
	case corev1.ResourceLimitsMemory:
		return corev1.ResourceMemory, true
	}
	return "", false
}

func serviceResource(name corev1.ResourceName) bool {
	return name == corev1.ResourceServicesNodePorts || name == corev1.ResourceServicesLoadBalancers
}

func measureService(obj object.Object, into corev1.ResourceList) {
	s, ok := obj.(*corev1.Service)
	if !ok {
		return
	}
	ports := 0
	switch s.Spec.Type {
	case corev1.ServiceTypeNodePort:
		ports = len(s.Spec.Ports)
	case corev1.ServiceTypeLoadBalancer:
		into[corev1.ResourceServicesLoadBalancers] = *resource.NewQuantity(1, resource.DecimalSI)
		if ptr.Deref(s.Spec.AllocateLoadBalancerNodePorts, true) {
			ports = len(s.Spec.Ports)
		} else {
			for i := range s.Spec.Ports {
				if s.Spec.Ports[i].NodePort != 0 {
					ports++
				}
			}
		}
	}
	into[corev1.ResourceServicesNodePorts] = *resource.NewQuantity(int64(ports), resource.DecimalSI)
}

func claimResource(name corev1.ResourceName) bool {
	if name == corev1.ResourceRequestsStorage {
		return true
	}
	_, of, found := strings.Cut(string(name), storageClassSuffix)
	return found && (of == string(corev1.ResourceRequestsStorage) || of == string(corev1.ResourcePersistentVolumeClaims))
}

func measureClaim(obj object.Object, into corev1.ResourceList) {
	claim, ok := obj.(*corev1.PersistentVolumeClaim)
	if !ok {
		return
	}
	class := storageClassOf(claim)
	ofClass := func(what corev1.ResourceName) corev1.ResourceName {
		return corev1.ResourceName(class+storageClassSuffix) + what
	}
	if class != "" {
		into[ofClass(corev1.ResourcePersistentVolumeClaims)] = *resource.NewQuantity(1, resource.DecimalSI)
	}
	size, asked := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	if !asked {
		return
	}
	size = size.DeepCopy()
	// A claim that asked for more before and got some of that keeps what it got (KEP-1790).
	if got, ok := claim.Status.AllocatedResources[corev1.ResourceStorage]; ok && got.Cmp(size) > 0 {
		size = got.DeepCopy()
	}
	into[corev1.ResourceRequestsStorage] = size
	if class != "" {
		into[ofClass(corev1.ResourceRequestsStorage)] = size
	}
}

func deviceResource(name corev1.ResourceName) bool {
	return strings.HasSuffix(string(name), deviceClassSuffix)
}

// measureDevices adds how many devices of each class a claim may get at most.
func measureDevices(obj object.Object, into corev1.ResourceList) {
	claim, ok := obj.(*resourcev1.ResourceClaim)
	if !ok {
		return
	}
	devices := func(mode resourcev1.DeviceAllocationMode, count int64) int64 {
		if mode == resourcev1.DeviceAllocationModeAll {
			return maxDevices
		}
		return count
	}
	total := map[string]int64{}
	for i := range claim.Spec.Devices.Requests {
		request := &claim.Spec.Devices.Requests[i]
		if exactly := request.Exactly; exactly != nil {
			total[exactly.DeviceClassName] += devices(exactly.AllocationMode, exactly.Count)
			continue
		}
		most := map[string]int64{} // one of the alternatives is taken: the greediest counts
		for j := range request.FirstAvailable {
			sub := &request.FirstAvailable[j]
			most[sub.DeviceClassName] = max(most[sub.DeviceClassName], devices(sub.AllocationMode, sub.Count))
		}
		for class, n := range most {
			total[class] += n
		}
	}
	for class, n := range total {
		into[corev1.ResourceName(class+deviceClassSuffix)] = *resource.NewQuantity(n, resource.DecimalSI)
	}
}
