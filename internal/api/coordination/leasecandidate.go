package coordination

import (
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	coordinationv1 "k8s.io/api/coordination/v1"
	coordinationv1beta1 "k8s.io/api/coordination/v1beta1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/version"
)

// LeaseCandidate is an instance that would hold a Lease (KEP-4355).
func leaseCandidate() *kind.Definition {
	doc := coordinationv1beta1.LeaseCandidateSpec{}.SwaggerDoc()
	return &kind.Definition{
		Group: coordinationv1.GroupName, Version: "v1beta1", Kind: "LeaseCandidate", Plural: "leasecandidates", Gate: coordinated,
		Scope: kind.Namespaced, Verbs: kind.Standard, CreateOnPut: true, MustMatch: true,
		New:      kind.Of[coordinationv1beta1.LeaseCandidate](),
		Validate: kind.Validate(validateCandidate),
		ValidateUpdate: kind.ValidateUpdate(func(c, old *coordinationv1beta1.LeaseCandidate) field.ErrorList {
			return append(validateCandidate(c), check.Immutable(c.Spec.LeaseName, old.Spec.LeaseName, field.NewPath("spec", "leaseName"))...)
		}),
		Fields: []kind.Field{{Label: "spec.leaseName"}},
		Columns: kind.Columns{
			{Name: "LeaseName", Description: doc["leaseName"], Of: kind.Cell(func(c *coordinationv1beta1.LeaseCandidate) any { return c.Spec.LeaseName })},
			{Name: "BinaryVersion", Description: doc["binaryVersion"], Of: kind.Cell(func(c *coordinationv1beta1.LeaseCandidate) any { return c.Spec.BinaryVersion })},
			{Name: "EmulationVersion", Description: doc["emulationVersion"], Of: kind.Cell(func(c *coordinationv1beta1.LeaseCandidate) any { return c.Spec.EmulationVersion })},
			kind.Age,
		},
		ColumnFields: []string{"spec.leaseName", "spec.binaryVersion", "spec.emulationVersion"},
	}
}

func validateCandidate(c *coordinationv1beta1.LeaseCandidate) field.ErrorList {
	spec := field.NewPath("spec")
	errs := check.RequiredForm(c.Spec.LeaseName, spec.Child("leaseName"), validation.IsDNS1123Subdomain)
	binary, more := semver(c.Spec.BinaryVersion, spec.Child("binaryVersion"))
	errs = append(errs, more...)
	if c.Spec.BinaryVersion == "" {
		errs = append(errs, field.Required(spec.Child("binaryVersion"), ""))
	}
	at := spec.Child("emulationVersion")
	emulated, more := semver(c.Spec.EmulationVersion, at)
	errs = append(errs, more...)
	if c.Spec.EmulationVersion == "" && c.Spec.Strategy == coordinationv1.OldestEmulationVersion {
		errs = append(errs, field.Required(at, "must be specified when `strategy` is 'OldestEmulationVersion'"))
	}
	if binary != nil && emulated != nil && binary.LessThan(emulated) {
		errs = append(errs, field.Invalid(spec.Child("binaryVersion"), c.Spec.BinaryVersion, "must be greater than or equal to `emulationVersion`"))
	}
	if c.Spec.Strategy == "" {
		return append(errs, field.Required(spec.Child("strategy"), ""))
	}
	return append(errs, checkStrategy(c.Spec.Strategy, spec.Child("strategy"))...)
}

// checkStrategy wants a strategy that is known, or one of somebody else's: a qualified name with a domain.
func checkStrategy(s coordinationv1.CoordinatedLeaseStrategy, path *field.Path) field.ErrorList {
	if s == coordinationv1.OldestEmulationVersion {
		return nil
	}
	errs := check.Each(path, s, validation.IsQualifiedName(string(s)))
	if len(errs) == 0 && !strings.Contains(string(s), "/") {
		errs = append(errs, field.Invalid(path, s, "custom strategies must be prefixed by a domain name, such as acme.io/foo"))
	}
	return errs
}

// semver reads a version without a "v" in front; nil if there is none, or none that can be read.
func semver(text string, path *field.Path) (*version.Version, field.ErrorList) {
	if text == "" {
		return nil, nil
	}
	v, err := version.ParseSemantic(text)
	if err != nil || strings.HasPrefix(text, "v") {
		return nil, field.ErrorList{field.Invalid(path, text, "must be a valid semantic version")}
	}
	return v, nil
}
