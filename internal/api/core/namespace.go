package core

import (
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Namespace is a room for names. It is deleted in two steps: first it is
// Terminating while its contents go, then the last of spec.finalizers is removed through /finalize.
func namespace() *kind.Definition {
	return &kind.Definition{
		Version: "v1", Kind: "Namespace", Plural: "namespaces", ShortNames: []string{"ns"},
		Scope: kind.Cluster, Verbs: kind.Standard &^ kind.DeleteCollection,
		New:            kind.Of[corev1.Namespace](),
		CheckName:      check.LabelName,
		Default:        kind.Default(defaultNamespace),
		PrepareCreate:  kind.Prepare(prepareNamespace),
		PrepareUpdate:  kind.PrepareUpdate(prepareNamespaceUpdate),
		Validate:       kind.Validate(validateNamespace),
		ValidateUpdate: kind.ValidateUpdate(func(n, old *corev1.Namespace) field.ErrorList { return nil }),
		BeginDelete:    beginDeleteNamespace,
		ReturnsDeleted: true,
		Fields:         []kind.Field{{Label: "status.phase"}},
		FieldsUnknown:  labelNotSupported,
		Columns: kind.Columns{
			{Name: "Status", Description: "The status of the namespace", Of: kind.Cell(func(n *corev1.Namespace) any { return string(n.Status.Phase) })},
			kind.Age,
		},
		ColumnFields: []string{"status.phase"},
		Subresources: map[string]*kind.Subresource{
			"status": kind.Status(func(n, old *corev1.Namespace) { n.Spec = old.Spec }, validateNamespaceStatus),
			"finalize": {Verbs: kind.Update, View: &kind.View{
				Prepare:  kind.PrepareUpdate(func(n, old *corev1.Namespace) { n.Status = old.Status }),
				Validate: kind.ValidateUpdate(validateNamespaceFinalize),
				Finish:   func(obj object.Object) bool { return len(obj.(*corev1.Namespace).Spec.Finalizers) == 0 },
			}},
		},
	}
}

func defaultNamespace(n *corev1.Namespace) {
	if n.Status.Phase == "" {
		n.Status.Phase = corev1.NamespaceActive
	}
	if n.Name == "" {
		return // a generated name comes later; prepareNamespace labels it
	}
	if n.Labels == nil {
		n.Labels = map[string]string{}
	}
	n.Labels[corev1.LabelMetadataName] = n.Name
}

func prepareNamespace(n *corev1.Namespace) {
	n.Status = corev1.NamespaceStatus{Phase: corev1.NamespaceActive}
	if !slices.Contains(n.Spec.Finalizers, corev1.FinalizerKubernetes) {
		n.Spec.Finalizers = append(n.Spec.Finalizers, corev1.FinalizerKubernetes)
	}
	defaultNamespace(n)
}

func prepareNamespaceUpdate(n, old *corev1.Namespace) {
	n.Spec.Finalizers = old.Spec.Finalizers
	n.Status = old.Status
}

func validateNamespace(n *corev1.Namespace) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec", "finalizers")
	for _, f := range n.Spec.Finalizers {
		errs = append(errs, validateFinalizer(string(f), path)...)
	}
	return errs
}

// validateNamespaceFinalize. Parity: only here has the path an index.
func validateNamespaceFinalize(n, _ *corev1.Namespace) field.ErrorList {
	var errs field.ErrorList
	for i, f := range n.Spec.Finalizers {
		errs = append(errs, validateFinalizer(string(f), field.NewPath("spec", "finalizers").Index(i))...)
	}
	return errs
}

// validateFinalizer wants a qualified name, and one without a domain only if it is known.
func validateFinalizer(name string, path *field.Path) field.ErrorList {
	errs := apivalidation.ValidateFinalizerName(name, path)
	known := []string{string(corev1.FinalizerKubernetes), metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents}
	if !strings.Contains(name, "/") && !slices.Contains(known, name) {
		errs = append(errs, field.Invalid(path, name, "name is neither a standard finalizer name nor is it fully qualified"))
	}
	return errs
}

func validateNamespaceStatus(n, _ *corev1.Namespace) field.ErrorList {
	path := field.NewPath("status", "Phase")
	switch {
	case n.DeletionTimestamp.IsZero() && n.Status.Phase != corev1.NamespaceActive:
		return field.ErrorList{field.Invalid(path, n.Status.Phase, "may only be 'Active' if `deletionTimestamp` is empty")}
	case !n.DeletionTimestamp.IsZero() && n.Status.Phase != corev1.NamespaceTerminating:
		return field.ErrorList{field.Invalid(path, n.Status.Phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")}
	}
	return nil
}

func beginDeleteNamespace(obj object.Object) bool {
	n := obj.(*corev1.Namespace)
	n.Status.Phase = corev1.NamespaceTerminating
	return len(n.Spec.Finalizers) > 0
}
