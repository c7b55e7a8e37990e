package resource

import (
	"slices"
	"strconv"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/feature"
	"github.com/timonel/timonel/internal/kind"
	resourcev1alpha3 "k8s.io/api/resource/v1alpha3"
	"k8s.io/apimachinery/pkg/api/validate"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// partitionTypes is the gate of attributes that say which partition a device is.
const partitionTypes = "DRAPartitionableDevicesType"

// The most that a status may hold (tags of the Go types).
const (
	maxPools            = 1000
	maxPoolConditions   = 10
	maxPoolSummary      = 32
	maxPoolErrorLength  = 256
	poolsPerRequestLow  = 1
	poolsPerRequestHigh = resourcev1alpha3.ResourcePoolStatusRequestLimitMax
)

// ResourcePoolStatusRequest asks once how full the pools of a driver are (KEP-5677).
func poolStatusRequest(gates feature.Gates) *kind.Definition {
	byAttribute := gates.Enabled(partitionTypes)
	validateNew := func(r *resourcev1alpha3.ResourcePoolStatusRequest) field.ErrorList {
		return validatePoolStatusRequest(r, byAttribute)
	}
	pools := func(count func(*resourcev1alpha3.PoolStatus) *int32) func(*resourcev1alpha3.ResourcePoolStatusRequest) any {
		return func(r *resourcev1alpha3.ResourcePoolStatusRequest) any { return sumOfPools(r, count) }
	}
	column := func(name, description string, count func(*resourcev1alpha3.PoolStatus) *int32) kind.Column {
		return kind.Column{Name: name, Description: description, Of: kind.Cell(pools(count))}
	}
	doc := resourcev1alpha3.PoolStatus{}.SwaggerDoc()
	return &kind.Definition{
		Group: group, Version: "v1alpha3", Kind: "ResourcePoolStatusRequest", Plural: "resourcepoolstatusrequests", Gate: "DRAResourcePoolStatus",
		Scope: kind.Cluster, Verbs: kind.Standard, ReturnsDeleted: true,
		New: kind.Of[resourcev1alpha3.ResourcePoolStatusRequest](),
		Default: kind.Default(func(r *resourcev1alpha3.ResourcePoolStatusRequest) {
			if r.Spec.Limit == nil {
				r.Spec.Limit = ptr.To(resourcev1alpha3.ResourcePoolStatusRequestLimitDefault)
			}
		}),
		PrepareCreate: kind.Prepare(func(r *resourcev1alpha3.ResourcePoolStatusRequest) { r.Status = nil }),
		PrepareUpdate: kind.PrepareUpdate(func(r, old *resourcev1alpha3.ResourcePoolStatusRequest) { r.Status = old.Status }),
		Validate:      kind.Validate(validateNew),
		ValidateUpdate: kind.ValidateUpdate(func(r, old *resourcev1alpha3.ResourcePoolStatusRequest) field.ErrorList {
			return append(validateNew(r), check.Unchanged(r.Spec, old.Spec, field.NewPath("spec"))...)
		}),
		Columns: kind.Columns{
			{Name: "Driver", Description: resourcev1alpha3.ResourcePoolStatusRequestSpec{}.SwaggerDoc()["driver"], Of: kind.Cell(func(r *resourcev1alpha3.ResourcePoolStatusRequest) any { return r.Spec.Driver })},
			column("Total", doc["totalDevices"], func(p *resourcev1alpha3.PoolStatus) *int32 { return p.TotalDevices }),
			column("Available", doc["availableDevices"], func(p *resourcev1alpha3.PoolStatus) *int32 { return p.AvailableDevices }),
			column("Allocated", doc["allocatedDevices"], func(p *resourcev1alpha3.PoolStatus) *int32 { return p.AllocatedDevices }),
			column("Unavailable", doc["unavailableDevices"], func(p *resourcev1alpha3.PoolStatus) *int32 { return p.UnavailableDevices }),
			{Name: "Errors", Description: doc["validationError"], Of: kind.Cell(poolErrors)},
			{Name: "Pools", Type: "integer", Description: resourcev1alpha3.ResourcePoolStatusRequestStatus{}.SwaggerDoc()["poolCount"], Of: kind.Cell(func(r *resourcev1alpha3.ResourcePoolStatusRequest) any {
				if r.Status == nil {
					return int64(0)
				}
				return int64(ptr.Deref(r.Status.PoolCount, 0))
			})},
			{Name: "Status", Description: resourcev1alpha3.ResourcePoolStatusRequestStatus{}.SwaggerDoc()["conditions"], Of: kind.Cell(func(r *resourcev1alpha3.ResourcePoolStatusRequest) any {
				return poolRequestState(r)
			})},
			{Name: "Completed", Description: "When the request was answered.", Of: kind.Cell(poolRequestCompleted)},
		},
		ColumnFields: []string{
			"spec.driver",
			"status.poolCount", "status.conditions.type", "status.conditions.status", "status.conditions.lastTransitionTime",
			"status.pools.totalDevices", "status.pools.availableDevices", "status.pools.allocatedDevices", "status.pools.unavailableDevices",
			"status.pools.validationError",
		},
		Subresources: map[string]*kind.Subresource{
			"status": kind.StatusOnly(func(r, old *resourcev1alpha3.ResourcePoolStatusRequest) { r.Spec = old.Spec }, validatePoolStatus),
		},
	}
}

// sumOfPools adds up a number over the pools that have it.
func sumOfPools(r *resourcev1alpha3.ResourcePoolStatusRequest, count func(*resourcev1alpha3.PoolStatus) *int32) any {
	if r.Status == nil {
		return show.None
	}
	sum := int64(0)
	for i := range r.Status.Pools {
		sum += int64(ptr.Deref(count(&r.Status.Pools[i]), 0))
	}
	return strconv.FormatInt(sum, 10)
}

// poolErrors is how many pools could not be read.
func poolErrors(r *resourcev1alpha3.ResourcePoolStatusRequest) any {
	if r.Status == nil {
		return show.None
	}
	n := 0
	for _, p := range r.Status.Pools {
		if p.ValidationError != nil {
			n++
		}
	}
	return strconv.Itoa(n)
}

// poolRequestEnd is the condition that ended a request, or nil.
func poolRequestEnd(r *resourcev1alpha3.ResourcePoolStatusRequest) *metav1.Condition {
	if r.Status == nil {
		return nil
	}
	i := slices.IndexFunc(r.Status.Conditions, func(c metav1.Condition) bool {
		return c.Status == metav1.ConditionTrue &&
			(c.Type == resourcev1alpha3.ResourcePoolStatusRequestConditionComplete || c.Type == resourcev1alpha3.ResourcePoolStatusRequestConditionFailed)
	})
	if i < 0 {
		return nil
	}
	return &r.Status.Conditions[i]
}

func poolRequestState(r *resourcev1alpha3.ResourcePoolStatusRequest) string {
	if end := poolRequestEnd(r); end != nil {
		return end.Type
	}
	return "Pending"
}

func poolRequestCompleted(r *resourcev1alpha3.ResourcePoolStatusRequest) any {
	if end := poolRequestEnd(r); end != nil {
		return kind.Since(end.LastTransitionTime.Time)
	}
	return show.None
}

func validatePoolStatusRequest(r *resourcev1alpha3.ResourcePoolStatusRequest, byAttribute bool) field.ErrorList {
	s, spec := &r.Spec, field.NewPath("spec")
	errs := check.Join(
		driverName(s.Driver, spec.Child("driver")),
		check.SpelledPtr(s.PoolName, spec.Child("poolName"), validate.ResourcePoolName),
		check.AtLeast(s.Limit, poolsPerRequestLow, spec.Child("limit")),
		check.AtMost(s.Limit, poolsPerRequestHigh, spec.Child("limit")),
	)
	attribute := spec.Child("defaultPartitionTypeAttribute")
	if s.DefaultPartitionTypeAttribute != nil && !byAttribute {
		return append(errs, field.Forbidden(attribute, ""))
	}
	return append(errs, check.SpelledPtr(s.DefaultPartitionTypeAttribute, attribute, validate.ResourceFullyQualifiedName)...)
}

// validatePoolStatus wants the status to be written once.
func validatePoolStatus(r, old *resourcev1alpha3.ResourcePoolStatusRequest) field.ErrorList {
	status := field.NewPath("status")
	if old.Status != nil {
		return check.Unchanged(r.Status, old.Status, status)
	}
	s := r.Status
	if s == nil {
		return nil
	}
	errs := check.RequiredPtr(s.PoolCount, status.Child("poolCount"))
	errs = append(errs, check.AtLeast(s.PoolCount, 0, status.Child("poolCount"))...)
	errs = append(errs, tooMany(len(s.Pools), maxPools, status.Child("pools"))...)
	for i := range s.Pools {
		errs = append(errs, poolStatus(&s.Pools[i], status.Child("pools").Index(i))...)
	}
	errs = append(errs, tooMany(len(s.Conditions), maxPoolConditions, status.Child("conditions"))...)
	return append(errs, metavalidation.ValidateConditions(s.Conditions, status.Child("conditions"))...)
}

func poolStatus(p *resourcev1alpha3.PoolStatus, path *field.Path) field.ErrorList {
	errs := check.Join(
		driverName(p.Driver, path.Child("driver")),
		poolName(p.PoolName, path.Child("poolName")),
		check.AtLeast(p.ResourceSliceCount, 1, path.Child("resourceSliceCount")),
		check.AtLeast(p.TotalDevices, 0, path.Child("totalDevices")),
		check.AtLeast(p.AllocatedDevices, 0, path.Child("allocatedDevices")),
		check.AtLeast(p.AvailableDevices, 0, path.Child("availableDevices")),
		check.AtLeast(p.UnavailableDevices, 0, path.Child("unavailableDevices")),
		check.SpelledPtr(p.NodeName, path.Child("nodeName"), validate.LongName),
	)
	if p.Generation == 0 {
		errs = append(errs, field.Required(path.Child("generation"), ""))
	}
	errs = append(errs, check.AtLeast(&p.Generation, 0, path.Child("generation"))...)
	if text := p.ValidationError; text != nil && len(*text) > maxPoolErrorLength {
		errs = append(errs, field.TooLong(path.Child("validationError"), *text, maxPoolErrorLength))
	}
	errs = append(errs, partitions(p.PartitionSummary, path.Child("partitionSummary"))...)
	if s := p.ShareableSummary; s != nil {
		errs = append(errs, shareable(s, path.Child("shareableSummary"))...)
	}
	return errs
}

func partitions(all []resourcev1alpha3.PartitionTypeStatus, path *field.Path) field.ErrorList {
	type key struct{ attribute, name string }
	errs := check.Keyed(all, maxPoolSummary, func(p *resourcev1alpha3.PartitionTypeStatus) key { return key{p.Attribute, p.Type} }, path)
	for i := range all {
		p, at := &all[i], path.Index(i)
		errs = append(errs, check.Join(
			check.Required(p.Attribute, at.Child("attribute")),
			check.Required(p.Type, at.Child("type")),
			counted(p.Total, at.Child("total")),
			counted(p.Allocatable, at.Child("allocatable")),
		)...)
	}
	return errs
}

// counted wants a number that is there and not negative.
func counted(n *int32, path *field.Path) field.ErrorList {
	return append(check.RequiredPtr(n, path), check.AtLeast(n, 0, path)...)
}

func shareable(s *resourcev1alpha3.ShareableSummaryStatus, path *field.Path) field.ErrorList {
	errs := append(counted(s.FullyAvailableDevices, path.Child("fullyAvailableDevices")), counted(s.PartiallyAvailableDevices, path.Child("partiallyAvailableDevices"))...)
	errs = append(errs, tooMany(len(s.Capacity), maxPoolSummary, path.Child("capacity"))...)
	for i := range s.Capacity {
		c, at := &s.Capacity[i], path.Child("capacity").Index(i)
		errs = append(errs, check.Join(
			check.Required(c.Name, at.Child("name")),
			check.RequiredPtr(c.Total, at.Child("total")),
			check.RequiredPtr(c.Consumed, at.Child("consumed")),
			check.RequiredPtr(c.Available, at.Child("available")),
		)...)
	}
	return errs
}
