package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Generated names: the prefix, cut, and random letters that spell no words.
const (
	maxGeneratedPrefix = 58
	suffixLength       = 5
	suffixLetters      = "bcdfghjklmnpqrstvwxz2456789"
)

func generateName(prefix string) string {
	if len(prefix) > maxGeneratedPrefix {
		prefix = prefix[:maxGeneratedPrefix]
	}
	b := []byte(prefix)
	for range suffixLength {
		b = append(b, suffixLetters[rand.IntN(len(suffixLetters))])
	}
	return string(b)
}

// validateNew reports all that is wrong with a new object: its metadata first.
func (e *Engine) validateNew(ctx context.Context, d *kind.Definition, obj object.Object) field.ErrorList {
	var errs field.ErrorList
	if !fineNew(d, obj) {
		errs = apivalidation.ValidateObjectMetaAccessor(obj, d.Namespaced(), checkName(d), field.NewPath("metadata"))
		errs = append(errs, validateFinalizers(d, obj)...)
	}
	if d.Validate != nil {
		errs = append(errs, d.Validate(ctx, obj)...)
	}
	return errs
}

// validateUpdate reports all that is wrong with an update made through a door.
func (e *Engine) validateUpdate(ctx context.Context, d *kind.Definition, view *kind.View, obj, old object.Object) field.ErrorList {
	var errs field.ErrorList
	if !fineUpdate(obj, old) {
		errs = apivalidation.ValidateObjectMetaAccessorUpdate(obj, old, field.NewPath("metadata"))
		errs = append(errs, validateFinalizers(d, obj)...)
	}
	switch {
	case view != nil:
		if view.Validate != nil {
			errs = append(errs, view.Validate(ctx, obj, old)...)
		}
	case d.ValidateUpdate != nil:
		errs = append(errs, d.ValidateUpdate(ctx, obj, old)...)
	case d.Validate != nil:
		errs = append(errs, d.Validate(ctx, obj)...)
	}
	return errs
}

// fineNew reports whether nothing is wrong with the metadata of a new object. That is so for nearly all, and found out at a tenth of what it
// costs to say what is wrong. false: something may be.
func fineNew(d *kind.Definition, obj object.Object) bool {
	if obj.GetGeneration() < 0 || len(obj.GetFinalizers()) > 0 {
		return false
	}
	if d.Namespaced() && !object.IsDNSLabel(obj.GetNamespace()) || !d.Namespaced() && obj.GetNamespace() != "" {
		return false
	}
	name, generated := obj.GetName(), obj.GetGenerateName()
	if d.CheckName != nil {
		if name == "" || len(d.CheckName(name, false)) > 0 || generated != "" && len(d.CheckName(generated, true)) > 0 {
			return false
		}
	} else if !object.IsDNSSubdomain(name) || generated != "" && !object.IsDNSSubdomain(strings.TrimSuffix(generated, "-")) {
		return false
	}
	return object.FineMetadata(obj)
}

// fineUpdate is fineNew for an update.
func fineUpdate(obj, old object.Object) bool {
	if obj.GetResourceVersion() == "" || obj.GetGeneration() < 0 || obj.GetGeneration() < old.GetGeneration() || len(obj.GetFinalizers()) > 0 ||
		obj.GetName() != old.GetName() || obj.GetNamespace() != old.GetNamespace() || obj.GetUID() != old.GetUID() {
		return false
	}
	created, before := obj.GetCreationTimestamp(), old.GetCreationTimestamp()
	if !created.Equal(&before) || obj.GetDeletionTimestamp() != nil || old.GetDeletionTimestamp() != nil ||
		obj.GetDeletionGracePeriodSeconds() != nil || old.GetDeletionGracePeriodSeconds() != nil {
		return false
	}
	return object.FineMetadata(obj)
}

// standardFinalizers are those that need no domain.
var standardFinalizers = []string{"kubernetes", metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents}

// validateFinalizers wants finalizers of most built-in kinds to be qualified names.
func validateFinalizers(d *kind.Definition, obj object.Object) field.ErrorList {
	if d.AnyFinalizer {
		return nil
	}
	var errs field.ErrorList
	for i, f := range obj.GetFinalizers() {
		if !strings.Contains(f, "/") && !slices.Contains(standardFinalizers, f) {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "finalizers").Index(i), f, "name is neither a standard finalizer name nor is it fully qualified"))
		}
	}
	return errs
}

// checkedBy is the definition whose rules objects are held to: the version's own if it has any, else
// the hub's. Either looks at objects of the hub's type.
func checkedBy(d *kind.Definition) *kind.Definition {
	if d.Validate != nil {
		return d
	}
	return d.Hub()
}

func checkName(d *kind.Definition) apivalidation.ValidateNameFunc {
	if d.CheckName != nil {
		return d.CheckName
	}
	return apivalidation.NameIsDNSSubdomain
}

// keepSystemFields copies from old what no client may change.
func keepSystemFields(d *kind.Definition, obj, old object.Object) {
	if obj.GetUID() == "" {
		obj.SetUID(old.GetUID())
	}
	obj.SetCreationTimestamp(old.GetCreationTimestamp())
	obj.SetDeletionTimestamp(old.GetDeletionTimestamp())
	obj.SetDeletionGracePeriodSeconds(old.GetDeletionGracePeriodSeconds())
	obj.SetGeneration(old.GetGeneration())
	obj.SetSelfLink("")
	if obj.GetNamespace() == "" {
		obj.SetNamespace(old.GetNamespace())
	}
	if obj.GetName() == "" {
		obj.SetName(old.GetName())
	}
	if old.GetGenerateName() != "" && obj.GetGenerateName() == "" {
		obj.SetGenerateName(old.GetGenerateName())
	}
}

// dropDuplicateOwners removes owner references that are there twice, with a warning.
func dropDuplicateOwners(c *Call, obj object.Object) {
	owners := obj.GetOwnerReferences()
	if len(owners) < 2 {
		return
	}
	kept := make([]metav1.OwnerReference, 0, len(owners))
	for _, o := range owners {
		same := func(k metav1.OwnerReference) bool { return equalOwners(k, o) }
		if !slices.ContainsFunc(kept, same) {
			kept = append(kept, o)
		}
	}
	if len(kept) < len(owners) {
		obj.SetOwnerReferences(kept)
		c.Warn(fmt.Sprintf(".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: %s", duplicateUIDs(owners)))
	}
}

func equalOwners(a, b metav1.OwnerReference) bool {
	return a.APIVersion == b.APIVersion && a.Kind == b.Kind && a.Name == b.Name && a.UID == b.UID &&
		equalPointer(a.Controller, b.Controller) && equalPointer(a.BlockOwnerDeletion, b.BlockOwnerDeletion)
}

func equalPointer[T comparable](a, b *T) bool {
	return a == b || a != nil && b != nil && *a == *b
}

func duplicateUIDs(owners []metav1.OwnerReference) string {
	count, text := map[string]int{}, ""
	for _, o := range owners {
		if count[string(o.UID)]++; count[string(o.UID)] == 2 {
			if text != "" {
				text += ","
			}
			text += string(o.UID)
		}
	}
	return text
}

func newOf(s *kind.Subresource) func() runtime.Object {
	return func() runtime.Object { return s.New() }
}
