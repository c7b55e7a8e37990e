package resource

import (
	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/podspec"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validate"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// validateClaimStatus checks who got a claim and which devices it got, against the claim and against the status before.
func validateClaimStatus(r, old *resourcev1.ResourceClaim) field.ErrorList {
	s, status := &r.Status, field.NewPath("status")
	errs := checkReserved(r, old, status.Child("reservedFor"))
	if s.Allocation != nil {
		errs = append(errs, checkAllocation(r, status.Child("allocation"))...)
		if old.Status.Allocation != nil && !equality.Semantic.DeepEqual(s.Allocation, old.Status.Allocation) {
			errs = append(errs, field.Invalid(status.Child("allocation"), nil, "field cannot be modified once set"))
		}
	}
	return append(errs, checkDeviceStatus(r, status.Child("devices"))...)
}

func checkReserved(r, old *resourcev1.ResourceClaim, path *field.Path) field.ErrorList {
	s := &r.Status
	errs := check.Keyed(s.ReservedFor, resourcev1.ResourceClaimReservedForMaxSize, func(c *resourcev1.ResourceClaimConsumerReference) string { return string(c.UID) }, path)
	for i, c := range s.ReservedFor {
		at := path.Index(i)
		errs = append(errs, check.Form(c.APIGroup, at.Child("apiGroup"), check.Subdomain)...)
		errs = append(errs, check.Required(c.Resource, at.Child("resource"))...)
		errs = append(errs, check.Required(c.Name, at.Child("name"))...)
		errs = append(errs, check.Required(c.UID, at.Child("uid"))...)
	}
	if len(s.ReservedFor) == 0 {
		return errs
	}
	if s.Allocation == nil {
		errs = append(errs, field.Forbidden(path, "may not be specified when `allocated` is not set"))
	}
	if r.DeletionTimestamp == nil {
		return errs
	}
	was := map[string]bool{}
	for _, c := range old.Status.ReservedFor {
		was[string(c.UID)] = true
	}
	for _, c := range s.ReservedFor {
		if !was[string(c.UID)] {
			return append(errs, field.Forbidden(path, "new entries may not be added while `deletionTimestamp` is set"))
		}
	}
	return errs
}

func checkAllocation(r *resourcev1.ResourceClaim, path *field.Path) field.ErrorList {
	a := r.Status.Allocation
	names := requestNames(&r.Spec.Devices)
	results := path.Child("devices", "results")
	errs := tooMany(len(a.Devices.Results), resourcev1.AllocationResultsMaxSize, results)
	for i := range a.Devices.Results {
		d, at := &a.Devices.Results[i], results.Index(i)
		if !names[d.Request] {
			errs = append(errs, field.Invalid(at.Child("request"), d.Request, "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"))
		}
		errs = append(errs, declaredDriver(d.Driver, at.Child("driver"))...)
		errs = append(errs, poolName(d.Pool, at.Child("pool"))...)
		errs = append(errs, check.Each(at.Child("device"), d.Device, check.Label(d.Device))...)
		errs = append(errs, tolerations(d.Tolerations, at.Child("tolerations"))...)
		errs = append(errs, conditionTypes(d.BindingConditions, resourcev1.BindingConditionsMaxSize, at.Child("bindingConditions"))...)
		errs = append(errs, conditionTypes(d.BindingFailureConditions, resourcev1.BindingFailureConditionsMaxSize, at.Child("bindingFailureConditions"))...)
		if d.ShareID != nil {
			errs = append(errs, check.RequiredSpelled(string(*d.ShareID), at.Child("shareID"), validate.UUID)...)
		}
	}
	config := path.Child("devices", "config")
	errs = append(errs, tooMany(len(a.Devices.Config), 2*resourcev1.DeviceConfigMaxSize, config)...)
	for i := range a.Devices.Config {
		k, at := &a.Devices.Config[i], config.Index(i)
		errs = append(errs, check.RequiredOneOf(k.Source, at.Child("source"), resourcev1.AllocationConfigSourceClaim, resourcev1.AllocationConfigSourceClass)...)
		errs = append(errs, refers(k.Requests, names, at.Child("requests"))...)
		errs = append(errs, configuration(k.Opaque, at)...)
	}
	if a.NodeSelector != nil {
		errs = append(errs, podspec.ValidateNodeSelector(a.NodeSelector, false, path.Child("nodeSelector"))...)
	}
	return errs
}

func checkDeviceStatus(r *resourcev1.ResourceClaim, path *field.Path) field.ErrorList {
	devices := r.Status.Devices
	errs := check.Keyed(devices, len(devices), func(d *resourcev1.AllocatedDeviceStatus) string { return deviceID(d) + "/" + ptr.Deref(d.ShareID, "") }, path)
	for i := range devices {
		d, at := &devices[i], path.Index(i)
		if r.Status.Allocation == nil || !allocated(r.Status.Allocation, d) {
			errs = append(errs, field.Invalid(at, deviceID(d), "must be an allocated device in the claim"))
		}
		errs = append(errs, driverName(d.Driver, at.Child("driver"))...)
		errs = append(errs, poolName(d.Pool, at.Child("pool"))...)
		errs = append(errs, check.Each(at.Child("device"), d.Device, check.Label(d.Device))...)
		errs = append(errs, check.SpelledPtr(d.ShareID, at.Child("shareID"), validate.UUID)...)
		errs = append(errs, tooMany(len(d.Conditions), resourcev1.AllocatedDeviceStatusMaxConditions, at.Child("conditions"))...)
		errs = append(errs, metavalidation.ValidateConditions(d.Conditions, at.Child("conditions"))...)
		if d.Data != nil {
			errs = append(errs, rawObject(d.Data.Raw, false, resourcev1.AllocatedDeviceStatusDataMaxLength, at.Child("data"))...)
		}
		errs = append(errs, checkNetwork(d.NetworkData, at.Child("networkData"))...)
	}
	return errs
}

func checkNetwork(n *resourcev1.NetworkDeviceData, path *field.Path) field.ErrorList {
	if n == nil {
		return nil
	}
	var errs field.ErrorList
	if len(n.InterfaceName) > resourcev1.NetworkDeviceDataInterfaceNameMaxLength {
		errs = append(errs, field.TooLong(path.Child("interfaceName"), "", resourcev1.NetworkDeviceDataInterfaceNameMaxLength))
	}
	if len(n.HardwareAddress) > resourcev1.NetworkDeviceDataHardwareAddressMaxLength {
		errs = append(errs, field.TooLong(path.Child("hardwareAddress"), "", resourcev1.NetworkDeviceDataHardwareAddressMaxLength))
	}
	ips := path.Child("ips")
	errs = append(errs, tooMany(len(n.IPs), resourcev1.NetworkDeviceDataMaxIPs, ips)...)
	errs = append(errs, check.Once(n.IPs, func(ip string) string { return ip }, ips.Index)...)
	for i, ip := range n.IPs {
		errs = append(errs, validation.IsValidInterfaceAddress(ips.Index(i), ip)...)
	}
	return errs
}
