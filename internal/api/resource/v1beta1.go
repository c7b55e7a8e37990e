package resource

import (
	"encoding/json"
	"fmt"

	"github.com/timonel/timonel/internal/object"
	resourcev1 "k8s.io/api/resource/v1"
	resourcev1beta1 "k8s.io/api/resource/v1beta1"
	"k8s.io/utils/ptr"
)

// Version v1beta1 has the fields of an exact request in the request itself, those of a device below "basic", and two fields of
// a slice that are empty where those of v1 are absent. Everything else has the same name and JSON form.

// recode fills into from the JSON form of from.
func recode(from, into any) error {
	text, err := json.Marshal(from)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		return fmt.Errorf("convert %T to %T: %w", from, into, err)
	}
	return nil
}

// convert recodes an object of the Go type F as one of T, and lets rest do what differs.
func convert[F, T any](obj object.Object, rest func(from *F, into *T) error) (object.Object, error) {
	from, ok := obj.(any).(*F)
	if !ok {
		return nil, fmt.Errorf("convert %T: want %T", obj, from)
	}
	into := new(T)
	if err := recode(from, into); err != nil {
		return nil, err
	}
	if err := rest(from, into); err != nil {
		return nil, err
	}
	return any(into).(object.Object), nil
}

func claimToHub(obj object.Object) (object.Object, error) {
	return convert(obj, func(from *resourcev1beta1.ResourceClaim, into *resourcev1.ResourceClaim) error {
		return requestsToHub(from.Spec.Devices.Requests, into.Spec.Devices.Requests)
	})
}

func claimFromHub(obj object.Object) (object.Object, error) {
	return convert(obj, func(from *resourcev1.ResourceClaim, into *resourcev1beta1.ResourceClaim) error {
		return requestsFromHub(from.Spec.Devices.Requests, into.Spec.Devices.Requests)
	})
}

func templateToHub(obj object.Object) (object.Object, error) {
	return convert(obj, func(from *resourcev1beta1.ResourceClaimTemplate, into *resourcev1.ResourceClaimTemplate) error {
		return requestsToHub(from.Spec.Spec.Devices.Requests, into.Spec.Spec.Devices.Requests)
	})
}

func templateFromHub(obj object.Object) (object.Object, error) {
	return convert(obj, func(from *resourcev1.ResourceClaimTemplate, into *resourcev1beta1.ResourceClaimTemplate) error {
		return requestsFromHub(from.Spec.Spec.Devices.Requests, into.Spec.Spec.Devices.Requests)
	})
}

// requestsToHub moves what each request asks for into its exact part, if it asks for anything besides alternatives.
func requestsToHub(from []resourcev1beta1.DeviceRequest, into []resourcev1.DeviceRequest) error {
	for i := range from {
		r := from[i]
		if r.DeviceClassName == "" && r.Selectors == nil && r.AllocationMode == "" && r.Count == 0 && r.AdminAccess == nil &&
			r.Tolerations == nil && r.Capacity == nil && r.DerivedAttributes == nil {
			continue
		}
		r.Name, r.FirstAvailable = "", nil
		into[i].Exactly = &resourcev1.ExactDeviceRequest{}
		if err := recode(&r, into[i].Exactly); err != nil {
			return err
		}
	}
	return nil
}

func requestsFromHub(from []resourcev1.DeviceRequest, into []resourcev1beta1.DeviceRequest) error {
	for i := range from {
		if from[i].Exactly == nil {
			continue
		}
		if err := recode(from[i].Exactly, &into[i]); err != nil {
			return err
		}
	}
	return nil
}

func sliceToHub(obj object.Object) (object.Object, error) {
	return convert(obj, func(from *resourcev1beta1.ResourceSlice, into *resourcev1.ResourceSlice) error {
		if from.Spec.NodeName == "" {
			into.Spec.NodeName = nil
		}
		if !from.Spec.AllNodes {
			into.Spec.AllNodes = nil
		}
		for i := range from.Spec.Devices {
			if basic := from.Spec.Devices[i].Basic; basic != nil {
				if err := recode(basic, &into.Spec.Devices[i]); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func sliceFromHub(obj object.Object) (object.Object, error) {
	return convert(obj, func(from *resourcev1.ResourceSlice, into *resourcev1beta1.ResourceSlice) error {
		into.Spec.NodeName, into.Spec.AllNodes = ptr.Deref(from.Spec.NodeName, ""), ptr.Deref(from.Spec.AllNodes, false)
		for i := range from.Spec.Devices {
			d := from.Spec.Devices[i]
			d.Name = ""
			into.Spec.Devices[i].Basic = &resourcev1beta1.BasicDevice{}
			if err := recode(&d, into.Spec.Devices[i].Basic); err != nil {
				return err
			}
		}
		return nil
	})
}
