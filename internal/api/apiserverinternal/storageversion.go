// Package apiserverinternal holds the kinds of internal.apiserver.k8s.io: StorageVersion.
package apiserverinternal

import (
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	internalv1alpha1 "k8s.io/api/apiserverinternal/v1alpha1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// Definitions lists the kinds of the group.
func Definitions() []*kind.Definition {
	return []*kind.Definition{storageVersion()}
}

// StorageVersion says in which version the servers of a cluster store a resource (KEP-2339).
func storageVersion() *kind.Definition {
	doc := internalv1alpha1.StorageVersionStatus{}.SwaggerDoc()
	return &kind.Definition{
		Group: internalv1alpha1.GroupName, Version: "v1alpha1", Kind: "StorageVersion", Plural: "storageversions", Gate: "StorageVersionAPI",
		Scope: kind.Cluster, Verbs: kind.Standard, MustMatch: true,
		New:           kind.Of[internalv1alpha1.StorageVersion](),
		CheckName:     checkName,
		PrepareCreate: kind.Prepare(func(v *internalv1alpha1.StorageVersion) { v.Status = internalv1alpha1.StorageVersionStatus{} }),
		PrepareUpdate: kind.PrepareUpdate(func(v, old *internalv1alpha1.StorageVersion) { v.Status = old.Status }),
		Validate:      kind.Validate(func(v *internalv1alpha1.StorageVersion) field.ErrorList { return validateStatus(&v.Status) }),
		Columns: kind.Columns{
			{Name: "CommonEncodingVersion", Description: doc["commonEncodingVersion"], Of: kind.Cell(func(v *internalv1alpha1.StorageVersion) any {
				return ptr.Deref(v.Status.CommonEncodingVersion, show.Unset)
			})},
			{Name: "StorageVersions", Description: doc["storageVersions"], Of: kind.Cell(func(v *internalv1alpha1.StorageVersion) any { return servers(v) })},
			kind.Age,
		},
		ColumnFields: []string{"status.commonEncodingVersion", "status.storageVersions.apiServerID", "status.storageVersions.encodingVersion"},
		Subresources: map[string]*kind.Subresource{
			"status": kind.StatusOnly(func(v, old *internalv1alpha1.StorageVersion) { v.Spec = old.Spec }, func(v, _ *internalv1alpha1.StorageVersion) field.ErrorList {
				return validateStatus(&v.Status)
			}),
		},
	}
}

// servers shows what each of the first servers encodes in.
func servers(v *internalv1alpha1.StorageVersion) string {
	const shown = 3
	var all []string
	for _, s := range v.Status.StorageVersions {
		all = append(all, s.APIServerID+"="+s.EncodingVersion)
	}
	return show.Some(all, shown, show.Unset)
}

// checkName wants "<group>.<resource>"; the core group is spelled "core".
func checkName(name string, prefix bool) []string {
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return []string{"name must be in the form of <group>.<resource>"}
	}
	problems := validation.IsDNS1123Subdomain(name[:i])
	if resource := name[i+1:]; !prefix || resource != "" {
		problems = append(problems, validation.IsDNS1035Label(resource)...)
	}
	return problems
}

func validateStatus(s *internalv1alpha1.StorageVersionStatus) field.ErrorList {
	status := field.NewPath("status")
	var errs field.ErrorList
	versions := status.Child("storageVersions")
	errs = append(errs, check.Once(s.StorageVersions, func(v internalv1alpha1.ServerStorageVersion) string { return v.APIServerID },
		func(i int) *field.Path { return versions.Index(i).Child("apiServerID") })...)
	for i := range s.StorageVersions {
		errs = append(errs, validateServer(&s.StorageVersions[i], versions.Index(i))...)
	}
	errs = append(errs, checkCommon(s, status.Child("commonEncodingVersion"))...)
	conditions := status.Child("conditions")
	errs = append(errs, check.Once(s.Conditions, func(c internalv1alpha1.StorageVersionCondition) internalv1alpha1.StorageVersionConditionType {
		return c.Type
	},
		func(i int) *field.Path { return conditions.Index(i).Child("type") })...)
	for i, c := range s.Conditions {
		at := conditions.Index(i)
		errs = append(errs, check.Each(at.Child("type"), c.Type, validation.IsQualifiedName(string(c.Type)))...)
		errs = append(errs, check.Each(at.Child("status"), c.Status, validation.IsQualifiedName(string(c.Status)))...)
		errs = append(errs, check.Required(c.Reason, at.Child("reason"))...)
		errs = append(errs, check.Required(c.Message, at.Child("message"))...)
	}
	return errs
}

func validateServer(s *internalv1alpha1.ServerStorageVersion, path *field.Path) field.ErrorList {
	errs := check.Each(path.Child("apiServerID"), s.APIServerID, validation.IsDNS1123Subdomain(s.APIServerID))
	errs = append(errs, apiVersion(s.EncodingVersion, path.Child("encodingVersion"))...)
	for i, v := range s.DecodableVersions {
		errs = append(errs, apiVersion(v, path.Child("decodableVersions").Index(i))...)
	}
	if !slices.Contains(s.DecodableVersions, s.EncodingVersion) {
		errs = append(errs, field.Invalid(path.Child("decodableVersions"), s.DecodableVersions, "decodableVersions must include encodingVersion "+s.EncodingVersion))
	}
	for i, v := range s.ServedVersions {
		at := path.Child("servedVersions").Index(i)
		errs = append(errs, apiVersion(v, at)...)
		if !slices.Contains(s.DecodableVersions, v) {
			errs = append(errs, field.Invalid(at, v, "individual served version : "+v+" must be included in decodableVersions : "+"["+strings.Join(s.DecodableVersions, " ")+"]"))
		}
	}
	return errs
}

// apiVersion wants "v1" or "group/v1".
func apiVersion(text string, path *field.Path) field.ErrorList {
	group, version, grouped := strings.Cut(text, "/")
	if !grouped {
		group, version = "", text
	}
	var errs field.ErrorList
	if grouped {
		errs = check.Each(path, text, validation.IsDNS1123Subdomain(group))
	}
	return append(errs, check.Each(path, text, validation.IsDNS1035Label(version))...)
}

// checkCommon wants the common version to be there when all servers encode in it, and only then.
func checkCommon(s *internalv1alpha1.StorageVersionStatus, path *field.Path) field.ErrorList {
	common, agree := commonVersion(s)
	said := s.CommonEncodingVersion
	switch {
	case agree && said == nil:
		return field.ErrorList{field.Invalid(path, said, "the common encoding version is "+common)}
	case agree && *said != common:
		return field.ErrorList{field.Invalid(path, *said, "the actual common encoding version is "+common)}
	case !agree && said != nil:
		return field.ErrorList{field.Invalid(path, *said, "should be nil if servers do not agree on the same encoding version, or if there is no server reporting the supported versions yet")}
	}
	return nil
}
