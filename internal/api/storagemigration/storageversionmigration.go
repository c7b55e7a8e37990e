// Package storagemigration holds the kinds of storagemigration.k8s.io: StorageVersionMigration.
package storagemigration

import (
	"fmt"
	"slices"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	storagemigrationv1beta1 "k8s.io/api/storagemigration/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Definitions lists the kinds of the group.
func Definitions() []*kind.Definition {
	migration := storageVersionMigration()
	return []*kind.Definition{migration, migration.Renamed("v1beta1", kind.Of[storagemigrationv1beta1.StorageVersionMigration]())}
}

// StorageVersionMigration has all objects of a resource written again, in the version that is stored now.
func storageVersionMigration() *kind.Definition {
	name := kind.Name
	name.Format = ""
	return &kind.Definition{
		Group: storagemigrationv1.SchemeGroupVersion.Group, Version: "v1", Kind: "StorageVersionMigration", Plural: "storageversionmigrations",
		Scope: kind.Cluster, Verbs: kind.Standard, MustMatch: true,
		Stored: kind.Stored{Version: "v1beta1"}, // whose fields are the same
		New:    kind.Of[storagemigrationv1.StorageVersionMigration](),
		PrepareCreate: kind.Prepare(func(m *storagemigrationv1.StorageVersionMigration) {
			m.Status = storagemigrationv1.StorageVersionMigrationStatus{}
		}),
		PrepareUpdate: kind.PrepareUpdate(func(m, old *storagemigrationv1.StorageVersionMigration) { m.Status = old.Status }),
		Validate:      kind.Validate(validate),
		ValidateUpdate: kind.ValidateUpdate(func(m, old *storagemigrationv1.StorageVersionMigration) field.ErrorList {
			errs := validate(m)
			if !object.Equal(&m.Spec, &old.Spec) {
				errs = append(errs, field.Invalid(field.NewPath("spec"), check.GoNames(m.Spec), check.TextImmutable))
			}
			return errs
		}),
		Columns: kind.Columns{
			name,
			{Name: "Resource", Description: "GroupResource to migrate", Of: kind.Cell(func(m *storagemigrationv1.StorageVersionMigration) any {
				return m.Spec.Resource.String()
			})},
			{Name: "Status", Description: "Status of the migration", Of: kind.Cell(func(m *storagemigrationv1.StorageVersionMigration) any { return state(m) })},
		},
		ColumnFields: []string{"spec.resource", "status.conditions.type", "status.conditions.status"},
		Subresources: map[string]*kind.Subresource{
			"status": kind.StatusOnly(func(m, old *storagemigrationv1.StorageVersionMigration) { m.Spec = old.Spec }, validateStatus),
		},
	}
}

func has(conditions []metav1.Condition, t storagemigrationv1.MigrationConditionType) bool {
	return slices.ContainsFunc(conditions, func(c metav1.Condition) bool { return c.Type == string(t) && c.Status == metav1.ConditionTrue })
}

func state(m *storagemigrationv1.StorageVersionMigration) string {
	for _, t := range []storagemigrationv1.MigrationConditionType{storagemigrationv1.MigrationSucceeded, storagemigrationv1.MigrationFailed, storagemigrationv1.MigrationRunning} {
		if has(m.Status.Conditions, t) {
			return string(t)
		}
	}
	return "Unknown"
}

func validate(m *storagemigrationv1.StorageVersionMigration) field.ErrorList {
	path := field.NewPath("spec", "resource")
	errs := check.Form(m.Spec.Resource.Group, path.Child("group"), check.Subdomain)
	if m.Spec.Resource.Resource == "" {
		return append(errs, field.Required(path.Child("resource"), "resource is required to be set"))
	}
	return append(errs, check.Each(path.Child("resource"), m.Spec.Resource.Resource, check.Label(m.Spec.Resource.Resource))...)
}

// validateStatus wants that a migration ends once, and goes on from where it began.
func validateStatus(m, old *storagemigrationv1.StorageVersionMigration) field.ErrorList {
	status := field.NewPath("status")
	conditions := status.Child("conditions")
	errs := metavalidation.ValidateConditions(m.Status.Conditions, conditions)
	const succeeded, failed, running = storagemigrationv1.MigrationSucceeded, storagemigrationv1.MigrationFailed, storagemigrationv1.MigrationRunning
	for _, pair := range [][2]storagemigrationv1.MigrationConditionType{{succeeded, failed}, {running, succeeded}, {running, failed}} {
		if has(m.Status.Conditions, pair[0]) && has(m.Status.Conditions, pair[1]) {
			errs = append(errs, field.Invalid(conditions, m.Status.Conditions, fmt.Sprintf("Both %s and %s conditions cannot be true at the same time", pair[0], pair[1])))
		}
	}
	for _, t := range []storagemigrationv1.MigrationConditionType{succeeded, failed} {
		if has(old.Status.Conditions, t) && !has(m.Status.Conditions, t) {
			errs = append(errs, field.Invalid(conditions, m.Status.Conditions, fmt.Sprintf("%s condition cannot be set to false once it is true", t)))
		}
	}
	if was := old.Status.ResourceVersion; was != "" && m.Status.ResourceVersion != was {
		errs = append(errs, field.Invalid(status.Child("resourceVersion"), m.Status.ResourceVersion, "resourceVersion cannot be updated"))
	}
	return errs
}
