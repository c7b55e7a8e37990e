package storage

import (
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/podspec"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

const (
	minTokenSeconds            = 600
	maxTokenSeconds            = 1 << 32
	minAllocatableUpdatePeriod = 10
)

// CSIDriver tells the cluster how to deal with a driver.
func csiDriver() *kind.Definition {
	doc := storagev1.CSIDriverSpec{}.SwaggerDoc()
	boolean := func(name, description string, of func(*storagev1.CSIDriverSpec) *bool) kind.Column {
		return kind.Column{Name: name, Type: "boolean", Description: description, Of: kind.Cell(func(d *storagev1.CSIDriver) any {
			return ptr.Deref(of(&d.Spec), false)
		})}
	}
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "CSIDriver", Plural: "csidrivers",
		Scope: kind.Cluster, Verbs: kind.Standard, MustMatch: true,
		New: kind.Of[storagev1.CSIDriver](),
		// The name is the driver's: one of a CSI specification, which may have capitals.
		CheckName: check.SegmentName,
		Default:   kind.Default(defaultDriver),
		// Parity: changes are counted, but the count does not begin at 1.
		PrepareCreate:  kind.Prepare(func(d *storagev1.CSIDriver) { d.Generation = 0 }),
		Generation:     kind.Changed(func(d, old *storagev1.CSIDriver) bool { return !object.Equal(&d.Spec, &old.Spec) }),
		Validate:       kind.Validate(validateDriver),
		ValidateUpdate: kind.ValidateUpdate(validateDriverUpdate),
		Warnings:       kind.Warn(warnDriver),
		ReturnsDeleted: true,
		Columns: kind.Columns{
			boolean("AttachRequired", doc["attachRequired"], func(s *storagev1.CSIDriverSpec) *bool { return s.AttachRequired }),
			boolean("PodInfoOnMount", doc["podInfoOnMount"], func(s *storagev1.CSIDriverSpec) *bool { return s.PodInfoOnMount }),
			boolean("StorageCapacity", doc["storageCapacity"], func(s *storagev1.CSIDriverSpec) *bool { return s.StorageCapacity }),
			{Name: "TokenRequests", Description: doc["tokenRequests"], Of: kind.Cell(audiences)},
			boolean("RequiresRepublish", doc["requiresRepublish"], func(s *storagev1.CSIDriverSpec) *bool { return s.RequiresRepublish }),
			{Name: "Modes", Description: doc["volumeLifecycleModes"], Of: kind.Cell(func(d *storagev1.CSIDriver) any {
				var modes []string
				for _, m := range d.Spec.VolumeLifecycleModes {
					modes = append(modes, string(m))
				}
				return show.Or(strings.Join(modes, ","), show.None)
			})},
			kind.Age,
		},
		ColumnFields: []string{
			"spec.attachRequired", "spec.podInfoOnMount", "spec.storageCapacity", "spec.tokenRequests.audience", "spec.requiresRepublish",
			"spec.volumeLifecycleModes",
		},
	}
}

func audiences(d *storagev1.CSIDriver) any {
	var names []string
	for _, t := range d.Spec.TokenRequests {
		names = append(names, t.Audience)
	}
	if len(names) == 0 {
		return show.Unset
	}
	return strings.Join(names, ",")
}

func defaultDriver(d *storagev1.CSIDriver) {
	s := &d.Spec
	set := func(p **bool, value bool) {
		if *p == nil {
			*p = &value
		}
	}
	set(&s.AttachRequired, true)
	set(&s.PodInfoOnMount, false)
	set(&s.StorageCapacity, false)
	set(&s.RequiresRepublish, false)
	set(&s.SELinuxMount, false)
	set(&s.PreventPodSchedulingIfMissing, false)
	if s.FSGroupPolicy == nil {
		s.FSGroupPolicy = ptr.To(storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)
	}
	if len(s.VolumeLifecycleModes) == 0 {
		s.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
	}
}

func validateDriver(d *storagev1.CSIDriver) field.ErrorList {
	s, spec := &d.Spec, field.NewPath("spec")
	errs := podspec.ValidateDriverName(d.Name, field.NewPath("name"))
	for _, required := range []struct {
		name string
		set  bool
	}{{"attachedRequired", s.AttachRequired != nil}, {"podInfoOnMount", s.PodInfoOnMount != nil}, {"storageCapacity", s.StorageCapacity != nil}} {
		if !required.set {
			errs = append(errs, field.Required(spec.Child(required.name), ""))
		}
	}
	policy := spec.Child("fsGroupPolicy")
	if s.FSGroupPolicy == nil {
		errs = append(errs, field.Required(policy, ""))
	} else {
		errs = append(errs, check.OneOf(*s.FSGroupPolicy, policy, storagev1.FileFSGroupPolicy, storagev1.NoneFSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)...)
	}
	errs = append(errs, checkTokenRequests(s.TokenRequests, spec.Child("tokenRequests"))...)
	for _, m := range s.VolumeLifecycleModes {
		errs = append(errs, check.OneOf(m, spec.Child("volumeLifecycleModes"), storagev1.VolumeLifecyclePersistent, storagev1.VolumeLifecycleEphemeral)...)
	}
	if n := s.NodeAllocatableUpdatePeriodSeconds; n != nil && *n < minAllocatableUpdatePeriod {
		errs = append(errs, field.Invalid(spec.Child("nodeAllocatableUpdatePeriodSeconds"), *n, "must be greater than or equal to 10 seconds"))
	}
	if s.ServiceAccountTokenInSecrets != nil && len(s.TokenRequests) == 0 {
		errs = append(errs, field.Invalid(spec.Child("serviceAccountTokenInSecrets"), *s.ServiceAccountTokenInSecrets, "serviceAccountTokenInSecrets is only valid when tokenRequests is specified"))
	}
	return errs
}

func checkTokenRequests(requests []storagev1.TokenRequest, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, t := range requests {
		at := path.Index(i)
		if seen[t.Audience] {
			errs = append(errs, field.Duplicate(at.Child("audience"), t.Audience))
			continue
		}
		seen[t.Audience] = true
		if t.ExpirationSeconds == nil {
			continue
		}
		switch n := *t.ExpirationSeconds; {
		case n < minTokenSeconds:
			errs = append(errs, field.Invalid(at.Child("expirationSeconds"), n, "may not specify a duration less than 10 minutes"))
		case n > maxTokenSeconds:
			errs = append(errs, field.Invalid(at.Child("expirationSeconds"), n, "may not specify a duration larger than 2^32 seconds"))
		}
	}
	return errs
}

func validateDriverUpdate(d, old *storagev1.CSIDriver) field.ErrorList {
	spec := field.NewPath("spec")
	errs := validateDriver(d)
	// Parity: the field is called otherwise in the answer.
	errs = append(errs, check.Immutable(d.Spec.AttachRequired, old.Spec.AttachRequired, spec.Child("attachedRequired"))...)
	return append(errs, check.Immutable(d.Spec.VolumeLifecycleModes, old.Spec.VolumeLifecycleModes, spec.Child("volumeLifecycleModes"))...)
}

func warnDriver(d, _ *storagev1.CSIDriver) []string {
	if len(d.Spec.TokenRequests) > 0 && d.Spec.ServiceAccountTokenInSecrets == nil {
		return []string{"spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes"}
	}
	return nil
}
