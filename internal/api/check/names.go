package check

import (
	"github.com/timonel/timonel/internal/object"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The forms of names, for kind.Definition.CheckName: with prefix, name is a generateName.

// LabelName is a DNS label (RFC 1123), at most 63 characters.
func LabelName(name string, prefix bool) []string {
	if object.IsDNSLabel(name) {
		return nil
	}
	return apivalidation.NameIsDNSLabel(name, prefix)
}

// SubdomainName is a DNS subdomain (RFC 1123), at most 253 characters.
func SubdomainName(name string, prefix bool) []string {
	if object.IsDNSSubdomain(name) {
		return nil
	}
	return apivalidation.NameIsDNSSubdomain(name, prefix)
}

// SegmentName is a name that can stand in a URL path.
func SegmentName(name string, prefix bool) []string {
	if prefix {
		return path.IsValidPathSegmentPrefix(name)
	}
	return path.IsValidPathSegmentName(name)
}

// Label is the form of a DNS label, Subdomain of a DNS subdomain, QualifiedName of a
// label key ("prefix/name"); for Form and RequiredForm.
var (
	Label         = form(object.IsDNSLabel, validation.IsDNS1123Label)
	Subdomain     = form(object.IsDNSSubdomain, validation.IsDNS1123Subdomain)
	QualifiedName = form(object.IsLabelKey, validation.IsQualifiedName)
)

// form asks what is wrong only with names that have not the form.
func form(has func(string) bool, wrong func(string) []string) func(string) []string {
	return func(name string) []string {
		if has(name) {
			return nil
		}
		return wrong(name)
	}
}

// Labels checks a label map: Invalid at path for each bad key or value.
func Labels(labels map[string]string, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if fine(labels) {
		return nil
	}
	for _, k := range Sorted(labels) {
		errs = append(errs, metavalidation.ValidateLabelName(k, path)...)
		errs = append(errs, Each(path, labels[k], validation.IsValidLabelValue(labels[k]))...)
	}
	return errs
}

func fine(labels map[string]string) bool {
	for k, v := range labels {
		if !object.IsLabelKey(k) || !object.IsLabelValue(v) {
			return false
		}
	}
	return true
}

// Selector checks a label selector. With old, values that old had already are not complained about.
func Selector(s, old *metav1.LabelSelector, path *field.Path) field.ErrorList {
	options := metavalidation.LabelSelectorValidationOptions{
		AllowInvalidLabelValueInSelector: metavalidation.LabelSelectorHasInvalidLabelValue(old),
	}
	return metavalidation.ValidateLabelSelector(s, options, path)
}

// IP checks an address in a field that is older than strict address parsing: one of old passes.
func IP(value string, path *field.Path, old ...string) field.ErrorList {
	return validation.IsValidIPForLegacyField(path, value, true, old)
}

// CIDR checks an address range in a field that is older than strict address parsing: one of old passes.
func CIDR(value string, path *field.Path, old ...string) field.ErrorList {
	return validation.IsValidCIDRForLegacyField(path, value, true, old)
}
