package apps

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ControllerRevision is a state of a StatefulSet or DaemonSet to which it can be rolled back.
func controllerRevision() *kind.Definition {
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "ControllerRevision", Plural: "controllerrevisions",
		Scope: kind.Namespaced, Verbs: kind.Standard,
		New: kind.Of[appsv1.ControllerRevision](),
		Validate: kind.Validate(func(r *appsv1.ControllerRevision) field.ErrorList {
			return append(validateControllerRevision(r), validateState(r)...)
		}),
		ValidateUpdate: kind.ValidateUpdate(func(r, old *appsv1.ControllerRevision) field.ErrorList {
			errs := validateControllerRevision(r)
			if !bytes.Equal(r.Data.Raw, old.Data.Raw) {
				errs = append(errs, validateState(r)...)
				errs = append(errs, field.Invalid(field.NewPath("data"), r.Data, check.TextImmutable))
			}
			return errs
		}),
		Columns: kind.Columns{
			{Name: "Controller", Description: "Controller of the object", Of: kind.Cell(func(r *appsv1.ControllerRevision) any { return controllerName(r) })},
			{Name: "Revision", Description: appsv1.ControllerRevision{}.SwaggerDoc()["revision"], Of: kind.Cell(func(r *appsv1.ControllerRevision) any { return r.Revision })},
			kind.Age,
		},
		ColumnFields: []string{"metadata.ownerReferences", "revision"},
	}
}

func validateControllerRevision(r *appsv1.ControllerRevision) field.ErrorList {
	var errs field.ErrorList
	if len(r.Data.Raw) == 0 && r.Data.Object == nil {
		errs = append(errs, field.Required(field.NewPath("data"), "data is mandatory"))
	}
	return append(errs, check.NonNegative(r.Revision, field.NewPath("revision"))...)
}

// validateState wants the state to be an object. One that is stored already is not asked: older servers took any JSON.
func validateState(r *appsv1.ControllerRevision) field.ErrorList {
	if len(r.Data.Raw) == 0 {
		return nil
	}
	if err := json.Unmarshal(r.Data.Raw, &map[string]any{}); err != nil {
		return field.ErrorList{field.Invalid(field.NewPath("data"), r.Data, "error parsing data as JSON: "+err.Error())}
	}
	return nil
}

// controllerName is the controller of an object as `kubectl get` names it: "statefulset.apps/web".
func controllerName(obj metav1.Object) string {
	owner := metav1.GetControllerOf(obj)
	if owner == nil {
		return show.None
	}
	gv, err := schema.ParseGroupVersion(owner.APIVersion)
	if err != nil {
		return strings.ToLower(owner.Kind) + "/" + owner.Name
	}
	name := strings.ToLower(owner.Kind)
	if gv.Group != "" {
		name += "." + gv.Group
	}
	return name + "/" + owner.Name
}
