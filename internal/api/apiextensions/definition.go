package apiextensions

import (
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

const defaultWebhookPort = 443

// CustomResourceDefinition adds a kind to the API.
func customResourceDefinition(o Options) *kind.Definition {
	v := validator{Options: o}
	return &kind.Definition{
		Group: apiextensionsv1.GroupName, Version: "v1", Kind: "CustomResourceDefinition", Plural: "customresourcedefinitions",
		ShortNames: []string{"crd", "crds"}, Categories: []string{"api-extensions"},
		Scope: kind.Cluster, Verbs: kind.Standard, MustMatch: true, AnyFinalizer: true,
		Stored: kind.Stored{
			Prefix: "apiextensions.k8s.io/customresourcedefinitions", Version: "v1beta1", Encoding: kind.JSON,
			Shape: &kind.Shape{ToStored: toStored, New: newStored, FromStored: fromStored},
		},
		New:     kind.Of[apiextensionsv1.CustomResourceDefinition](),
		Default: kind.Default(defaultDefinition),
		PrepareCreate: kind.Prepare(func(d *apiextensionsv1.CustomResourceDefinition) {
			d.Status = apiextensionsv1.CustomResourceDefinitionStatus{}
			noteStorageVersion(d)
		}),
		PrepareUpdate: kind.PrepareUpdate(func(d, old *apiextensionsv1.CustomResourceDefinition) {
			d.Status = *old.Status.DeepCopy()
			noteStorageVersion(d)
		}),
		Generation: kind.Changed(func(d, old *apiextensionsv1.CustomResourceDefinition) bool {
			return !object.Equal(&d.Spec, &old.Spec)
		}),
		Validate:       kind.Validate(v.validate),
		ValidateUpdate: kind.ValidateUpdate(v.validateUpdate),
		Warnings:       kind.Warn(v.warn),
		BeginDelete:    beginDelete,
		Columns: kind.Columns{
			{Name: "Scope", Description: "Cluster/Namespaced", Of: kind.Cell(func(d *apiextensionsv1.CustomResourceDefinition) any { return string(d.Spec.Scope) })},
			{Name: "Versions", Description: "Served versions", Of: kind.Cell(func(d *apiextensionsv1.CustomResourceDefinition) any { return servedVersions(d) })},
			kind.CreatedAt,
			{Name: "Group", Wide: true, Description: "API group", Of: kind.Cell(func(d *apiextensionsv1.CustomResourceDefinition) any { return d.Spec.Group })},
			{Name: "Kind", Wide: true, Description: "CustomResource kind", Of: kind.Cell(func(d *apiextensionsv1.CustomResourceDefinition) any { return d.Spec.Names.Kind })},
			{Name: "ShortNames", Wide: true, Description: "Short names", Of: kind.Cell(func(d *apiextensionsv1.CustomResourceDefinition) any {
				return strings.Join(d.Spec.Names.ShortNames, ",")
			})},
			{Name: "Established", Type: "boolean", Wide: true, Description: "Established status", Of: kind.Cell(func(d *apiextensionsv1.CustomResourceDefinition) any { return established(d) })},
		},
		ColumnFields: []string{
			"spec.group", "spec.scope", "spec.names.kind", "spec.names.shortNames", "spec.versions.name", "spec.versions.served",
			"spec.versions.storage", "spec.versions.deprecated",
			"status.conditions.type", "status.conditions.status",
		},
		Subresources: map[string]*kind.Subresource{
			"status": kind.StatusOnly(func(d, old *apiextensionsv1.CustomResourceDefinition) { d.Spec = old.Spec }, func(d, _ *apiextensionsv1.CustomResourceDefinition) field.ErrorList {
				return checkStatus(d)
			}),
		},
	}
}

// servedVersions lists the versions that clients can use, and marks the stored one.
func servedVersions(d *apiextensionsv1.CustomResourceDefinition) string {
	var names []string
	for _, v := range d.Spec.Versions {
		if !v.Served {
			continue
		}
		name := v.Name
		if v.Storage {
			name += "(storage)"
		}
		if v.Deprecated {
			name += "(deprecated)"
		}
		names = append(names, name)
	}
	return strings.Join(names, ",")
}

func established(d *apiextensionsv1.CustomResourceDefinition) bool {
	return slices.ContainsFunc(d.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
		return c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue
	})
}

func defaultDefinition(d *apiextensionsv1.CustomResourceDefinition) {
	names := &d.Spec.Names
	if names.Singular == "" {
		names.Singular = strings.ToLower(names.Kind)
	}
	if names.ListKind == "" && names.Kind != "" {
		names.ListKind = names.Kind + "List"
	}
	if d.Spec.Conversion == nil {
		d.Spec.Conversion = &apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.NoneConverter}
	}
	for i := range d.Spec.Versions {
		if s := d.Spec.Versions[i].Schema; s != nil {
			sortValues(s.OpenAPIV3Schema)
		}
	}
	if w := d.Spec.Conversion.Webhook; w != nil && w.ClientConfig != nil && w.ClientConfig.Service != nil && w.ClientConfig.Service.Port == nil {
		w.ClientConfig.Service.Port = ptr.To[int32](defaultWebhookPort)
	}
}

// storageVersions are the versions marked as the stored one; there should be exactly one.
func storageVersions(d *apiextensionsv1.CustomResourceDefinition) []string {
	var names []string
	for _, v := range d.Spec.Versions {
		if v.Storage {
			names = append(names, v.Name)
		}
	}
	return names
}

// noteStorageVersion remembers every version in which objects may be stored.
func noteStorageVersion(d *apiextensionsv1.CustomResourceDefinition) {
	if names := storageVersions(d); len(names) > 0 && !slices.Contains(d.Status.StoredVersions, names[0]) {
		d.Status.StoredVersions = append(d.Status.StoredVersions, names[0])
	}
}

// beginDelete keeps a definition until its objects are gone, which whoever removes the finalizer sees to.
func beginDelete(obj object.Object) bool {
	d := obj.(*apiextensionsv1.CustomResourceDefinition)
	if d.DeletionTimestamp != nil {
		return len(d.Finalizers) > 0
	}
	if !slices.Contains(d.Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer) {
		d.Finalizers = append(d.Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer)
	}
	d.Status.Conditions = slices.DeleteFunc(slices.Clone(d.Status.Conditions), func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
		return c.Type == apiextensionsv1.Terminating
	})
	d.Status.Conditions = append(d.Status.Conditions, apiextensionsv1.CustomResourceDefinitionCondition{
		Type: apiextensionsv1.Terminating, Status: apiextensionsv1.ConditionTrue, LastTransitionTime: metav1.Now(),
		Reason: "InstanceDeletionPending", Message: "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
	})
	return true
}
