// Package apiregistration holds the kinds of apiregistration.k8s.io: APIService.
package apiregistration

import (
	"fmt"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/utils/ptr"
)

const (
	defaultPort        = 443
	maxGroupPriority   = 20000
	maxVersionPriority = 1000
)

// Definitions lists the kinds of the group.
func Definitions() []*kind.Definition {
	return []*kind.Definition{apiService()}
}

// APIService says who serves a version of a group of APIs: this server, or a service in the cluster.
func apiService() *kind.Definition {
	return &kind.Definition{
		Group: apiregistrationv1.SchemeGroupVersion.Group, Version: "v1", Kind: "APIService", Plural: "apiservices", Categories: []string{"api-extensions"},
		Scope: kind.Cluster, Verbs: kind.Standard, MustMatch: true, AnyFinalizer: true,
		Stored:    kind.Stored{Prefix: "apiregistration.k8s.io/apiservices", Encoding: kind.JSON},
		New:       kind.Of[apiregistrationv1.APIService](),
		CheckName: check.SegmentName, // the form is that of the version and the group
		Default: kind.Default(func(s *apiregistrationv1.APIService) {
			if s.Spec.Service != nil && s.Spec.Service.Port == nil {
				s.Spec.Service.Port = ptr.To[int32](defaultPort)
			}
		}),
		PrepareCreate: kind.Prepare(func(s *apiregistrationv1.APIService) {
			s.Status = apiregistrationv1.APIServiceStatus{}
			if s.Spec.Service == nil {
				s.Status.Conditions = []apiregistrationv1.APIServiceCondition{{
					Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue, LastTransitionTime: metav1.Now(),
					Reason: "Local", Message: "Local APIServices are always available",
				}}
			}
		}),
		PrepareUpdate: kind.PrepareUpdate(func(s, old *apiregistrationv1.APIService) { s.Status = old.Status }),
		Validate:      kind.Validate(validate),
		Columns: kind.Columns{
			{Name: "Service", Description: "The reference to the service that hosts this API endpoint.", Of: kind.Cell(func(s *apiregistrationv1.APIService) any {
				if s.Spec.Service == nil {
					return "Local"
				}
				return s.Spec.Service.Namespace + "/" + s.Spec.Service.Name
			})},
			{Name: "Available", Description: "Whether this service is available.", Of: kind.Cell(func(s *apiregistrationv1.APIService) any { return available(s) })},
			kind.Age,
		},
		ColumnFields: []string{"spec.service", "status.conditions.type", "status.conditions.status", "status.conditions.reason"},
		Subresources: map[string]*kind.Subresource{
			"status": kind.StatusOnly(func(s, old *apiregistrationv1.APIService) { s.Spec = old.Spec }, validateStatus),
		},
	}
}

func available(s *apiregistrationv1.APIService) string {
	for _, c := range s.Status.Conditions {
		if c.Type != apiregistrationv1.Available {
			continue
		}
		if c.Status == apiregistrationv1.ConditionTrue {
			return string(c.Status)
		}
		return fmt.Sprintf("%s (%s)", c.Status, c.Reason)
	}
	return string(apiregistrationv1.ConditionUnknown)
}

func validate(s *apiregistrationv1.APIService) field.ErrorList {
	spec := field.NewPath("spec")
	var errs field.ErrorList
	if name := s.Spec.Version + "." + s.Spec.Group; s.Name != name {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), s.Name, fmt.Sprintf("must be `spec.version+\".\"+spec.group`: %q", name)))
	}
	switch {
	case s.Spec.Group != "":
		errs = append(errs, check.Each(spec.Child("group"), s.Spec.Group, check.Subdomain(s.Spec.Group))...)
	case s.Spec.Version != "v1":
		errs = append(errs, field.Required(spec.Child("group"), "only v1 may have an empty group and it better be legacy kube"))
	}
	errs = append(errs, check.Each(spec.Child("version"), s.Spec.Version, validation.IsDNS1035Label(s.Spec.Version))...)
	if n := s.Spec.GroupPriorityMinimum; n <= 0 || n > maxGroupPriority {
		errs = append(errs, field.Invalid(spec.Child("groupPriorityMinimum"), n, "must be positive and less than 20000"))
	}
	if n := s.Spec.VersionPriority; n <= 0 || n > maxVersionPriority {
		errs = append(errs, field.Invalid(spec.Child("versionPriority"), n, "must be positive and less than 1000"))
	}
	service := s.Spec.Service
	if service == nil {
		if len(s.Spec.CABundle) > 0 {
			errs = append(errs, field.Invalid(spec.Child("caBundle"), fmt.Sprintf("%d bytes", len(s.Spec.CABundle)), "local APIServices may not have a caBundle"))
		}
		if s.Spec.InsecureSkipTLSVerify {
			errs = append(errs, field.Invalid(spec.Child("insecureSkipTLSVerify"), s.Spec.InsecureSkipTLSVerify, "local APIServices may not have insecureSkipTLSVerify"))
		}
		return errs
	}
	errs = append(errs, check.Required(service.Namespace, spec.Child("service", "namespace"))...)
	errs = append(errs, check.Required(service.Name, spec.Child("service", "name"))...)
	if service.Port != nil {
		for _, m := range validation.IsValidPortNum(int(*service.Port)) {
			errs = append(errs, field.Invalid(spec.Child("service", "port"), *service.Port, "port is not valid: "+m))
		}
	}
	if s.Spec.InsecureSkipTLSVerify && len(s.Spec.CABundle) > 0 {
		errs = append(errs, field.Invalid(spec.Child("insecureSkipTLSVerify"), s.Spec.InsecureSkipTLSVerify, "may not be true if caBundle is present"))
	}
	return errs
}

func validateStatus(s, _ *apiregistrationv1.APIService) field.ErrorList {
	path := field.NewPath("status", "conditions")
	var errs field.ErrorList
	for i, c := range s.Status.Conditions {
		if c.Type == "" {
			errs = append(errs, field.Required(path.Index(i).Child("type"), ""))
		}
		errs = append(errs, check.OneOf(c.Status, path.Index(i).Child("status"), apiregistrationv1.ConditionFalse, apiregistrationv1.ConditionTrue, apiregistrationv1.ConditionUnknown)...)
	}
	return errs
}
