package check

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Resource names without a domain that mean something somewhere (Kubernetes documentation, "Resource
// Quotas", "Managing Resources for Containers").
var (
	computeResources = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage}

	countedResources = []corev1.ResourceName{
		corev1.ResourcePods, corev1.ResourceQuotas, corev1.ResourceServices, corev1.ResourceReplicationControllers,
		corev1.ResourceSecrets, corev1.ResourceConfigMaps, corev1.ResourcePersistentVolumeClaims,
		corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers,
	}

	quotaResources = append([]corev1.ResourceName{
		corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, corev1.ResourceRequestsStorage,
		corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsEphemeralStorage,
		corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage,
	}, countedResources...)
)

// HugePages reports whether a resource is huge pages of some size.
func HugePages(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

// Native reports whether a resource belongs to Kubernetes itself: without a domain, or with
// one below kubernetes.io.
func Native(name corev1.ResourceName) bool {
	return !strings.Contains(string(name), "/") || strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}

// Extended reports whether a resource is a device that a node advertises, "example.com/gpu".
func Extended(name corev1.ResourceName) bool {
	if Native(name) || strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix) {
		return false
	}
	return len(validation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+string(name))) == 0
}

// Whole reports whether amounts of a resource are whole numbers.
func Whole(name corev1.ResourceName) bool {
	return slices.Contains(countedResources, name) || Extended(name)
}

// Overcommittable reports whether the request of a resource may be below its limit.
func Overcommittable(name corev1.ResourceName) bool { return Native(name) && !HugePages(name) }

// ContainerCompute reports whether a resource without a domain is one that containers have.
func ContainerCompute(name corev1.ResourceName) bool {
	return slices.Contains(computeResources, name) || HugePages(name)
}

func standardResource(name corev1.ResourceName) bool {
	return slices.Contains(quotaResources, name) || name == corev1.ResourceStorage ||
		HugePages(name) || strings.HasPrefix(string(name), corev1.ResourceRequestsHugePagesPrefix)
}

// ResourceName checks the name of any resource.
func ResourceName(name corev1.ResourceName, path *field.Path) field.ErrorList {
	if errs := Each(path, name, validation.IsQualifiedName(string(name))); errs != nil {
		return errs
	}
	if !strings.Contains(string(name), "/") && !standardResource(name) {
		return field.ErrorList{field.Invalid(path, name, "must be a standard resource type or fully qualified")}
	}
	return nil
}

// ContainerResourceName checks the name of a resource that a container asks for.
func ContainerResourceName(name corev1.ResourceName, path *field.Path) field.ErrorList {
	errs := ResourceName(name, path)
	switch {
	case !strings.Contains(string(name), "/"):
		if !ContainerCompute(name) {
			errs = append(errs, field.Invalid(path, name, "must be a standard resource for containers"))
		}
	case !Native(name) && !Extended(name):
		errs = append(errs, field.Invalid(path, name, "doesn't follow extended resource name standard"))
	}
	return errs
}

// StandardQuota reports whether a resource is one that quotas know by a name without a domain.
func StandardQuota(name corev1.ResourceName) bool {
	return slices.Contains(quotaResources, name) || HugePages(name) || strings.HasPrefix(string(name), corev1.ResourceRequestsHugePagesPrefix)
}

// QuotaResourceName checks the name of a resource that a quota limits.
func QuotaResourceName(name corev1.ResourceName, path *field.Path) field.ErrorList {
	errs := ResourceName(name, path)
	if !strings.Contains(string(name), "/") && !StandardQuota(name) {
		errs = append(errs, field.Invalid(path, name, "must be a standard resource for quota"))
	}
	return errs
}

// Quantity checks the amount of a resource: not negative, and whole where only whole numbers make sense.
func Quantity(name corev1.ResourceName, q resource.Quantity, path *field.Path) field.ErrorList {
	errs := NonNegativeQuantity(q, path)
	if Whole(name) && q.MilliValue()%1000 != 0 {
		errs = append(errs, field.Invalid(path, q.String(), "must be an integer"))
	}
	return errs
}

// NonNegativeQuantity wants q >= 0.
func NonNegativeQuantity(q resource.Quantity, path *field.Path) field.ErrorList {
	if q.Sign() < 0 {
		return field.ErrorList{field.Invalid(path, q.String(), TextNonNegative)}
	}
	return nil
}

// PositiveQuantity wants q > 0.
func PositiveQuantity(q resource.Quantity, path *field.Path) field.ErrorList {
	if q.Sign() <= 0 {
		return field.ErrorList{field.Invalid(path, q.String(), "must be greater than zero")}
	}
	return nil
}

// ContainerResources checks the requests and limits of a container (core/v1
// ResourceRequirements), or, with name, of something else that names resources otherwise. With oddPages huge pages may be of any amount.
func ContainerResources(r *corev1.ResourceRequirements, path *field.Path, name func(corev1.ResourceName, *field.Path) field.ErrorList, oddPages bool) field.ErrorList {
	if name == nil {
		name = ContainerResourceName
	}
	var errs field.ErrorList
	limits, requests := path.Child("limits"), path.Child("requests")
	hugePages, compute := false, false
	see := func(n corev1.ResourceName, q resource.Quantity, at *field.Path) {
		errs = append(errs, name(n, at)...)
		errs = append(errs, Quantity(n, q, at)...)
		if HugePages(n) {
			hugePages = true
			if !oddPages && !WholePages(n, q) {
				errs = append(errs, field.Invalid(at, q.String(), fmt.Sprintf("%s is not positive integer multiple of %s", q.String(), n)))
			}
		}
		compute = compute || n == corev1.ResourceCPU || n == corev1.ResourceMemory
	}
	for _, n := range Sorted(r.Limits) {
		see(n, r.Limits[n], limits.Key(string(n)))
	}
	for _, n := range Sorted(r.Requests) {
		q := r.Requests[n]
		see(n, q, requests.Key(string(n)))
		limit, limited := r.Limits[n]
		switch {
		case !limited && !Overcommittable(n):
			errs = append(errs, field.Required(limits, "Limit must be set for non overcommitable resources"))
		case limited && !Overcommittable(n) && q.Cmp(limit) != 0:
			errs = append(errs, field.Invalid(requests, q.String(), fmt.Sprintf("must be equal to %s limit of %s", n, limit.String())))
		case limited && q.Cmp(limit) > 0:
			errs = append(errs, field.Invalid(requests, q.String(), fmt.Sprintf("must be less than or equal to %s limit of %s", n, limit.String())))
		}
	}
	if hugePages && !compute {
		errs = append(errs, field.Forbidden(path, "HugePages require cpu or memory"))
	}
	return errs
}

// SaneQuantity wants q >= 0. Parity: what is quoted is a number of whole units.
func SaneQuantity(q resource.Quantity, path *field.Path) field.ErrorList {
	if n := q.Value(); n < 0 {
		return field.ErrorList{field.Invalid(path, n, "must be a valid resource quantity")}
	}
	return nil
}

// WholePages reports whether an amount is a number of pages of the size in the resource's name.
func WholePages(name corev1.ResourceName, q resource.Quantity) bool {
	size, err := resource.ParseQuantity(strings.TrimPrefix(string(name), corev1.ResourceHugePagesPrefix))
	return err == nil && size.Sign() > 0 && size.MilliValue()%1000 == 0 && q.Value()%size.Value() == 0
}
