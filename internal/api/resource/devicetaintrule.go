package resource

import (
	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// DeviceTaintRule taints devices from outside of their driver (KEP-5055).
func deviceTaintRule() *kind.Definition {
	taintDoc := resourcev1.DeviceTaint{}.SwaggerDoc()
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "DeviceTaintRule", Plural: "devicetaintrules",
		Scope: kind.Cluster, Verbs: kind.Standard, MustMatch: true,
		Stored:        kind.Stored{Version: "v1beta2"}, // whose fields are the same
		New:           kind.Of[resourcev1.DeviceTaintRule](),
		Default:       kind.Default(func(r *resourcev1.DeviceTaintRule) { defaultTaint(&r.Spec.Taint) }),
		PrepareCreate: kind.Prepare(func(r *resourcev1.DeviceTaintRule) { r.Status = resourcev1.DeviceTaintRuleStatus{} }),
		PrepareUpdate: kind.PrepareUpdate(func(r, old *resourcev1.DeviceTaintRule) {
			r.Status = old.Status
			// A new effect begins now, unless the client says when it began.
			if now, was := &r.Spec.Taint, &old.Spec.Taint; now.Effect != was.Effect && equality.Semantic.DeepEqual(now.TimeAdded, was.TimeAdded) {
				now.TimeAdded = nil
				defaultTaint(now)
			}
		}),
		Generation: kind.Changed(func(r, old *resourcev1.DeviceTaintRule) bool { return !object.Equal(&r.Spec, &old.Spec) }),
		Validate:   kind.Validate(validateTaintRule),
		Columns: kind.Columns{
			{Name: "Key", Description: taintDoc["key"], Of: kind.Cell(func(r *resourcev1.DeviceTaintRule) any { return r.Spec.Taint.Key })},
			{Name: "Value", Description: taintDoc["value"], Of: kind.Cell(func(r *resourcev1.DeviceTaintRule) any { return r.Spec.Taint.Value })},
			{Name: "Effect", Description: taintDoc["effect"], Of: kind.Cell(func(r *resourcev1.DeviceTaintRule) any { return string(r.Spec.Taint.Effect) })},
			{Name: "TimeAdded", Description: taintDoc["timeAdded"], Of: kind.Cell(func(r *resourcev1.DeviceTaintRule) any { return kind.SinceOf(r.Spec.Taint.TimeAdded) })},
			kind.Age,
		},
		ColumnFields: []string{"spec.taint"},
		Subresources: map[string]*kind.Subresource{
			"status": kind.StatusOnly(func(r, old *resourcev1.DeviceTaintRule) { r.Spec = old.Spec }, func(r, _ *resourcev1.DeviceTaintRule) field.ErrorList {
				path := field.NewPath("status", "conditions")
				errs := tooMany(len(r.Status.Conditions), resourcev1.DeviceTaintRuleStatusMaxConditions, path)
				return append(errs, metavalidation.ValidateConditions(r.Status.Conditions, path)...)
			}),
		},
	}
}

// defaultTaint says when a taint was added, if nobody does: now.
func defaultTaint(t *resourcev1.DeviceTaint) {
	if t.TimeAdded == nil {
		now := metav1.Now().Rfc3339Copy()
		t.TimeAdded = &now
	}
}

func validateTaintRule(r *resourcev1.DeviceTaintRule) field.ErrorList {
	spec := field.NewPath("spec")
	var errs field.ErrorList
	if s := r.Spec.DeviceSelector; s != nil {
		at := spec.Child("deviceSelector")
		if s.Driver != nil {
			errs = append(errs, driverName(*s.Driver, at.Child("driver"))...)
		}
		if s.Pool != nil {
			errs = append(errs, poolName(*s.Pool, at.Child("pool"))...)
		}
		if s.Device != nil {
			errs = append(errs, check.Each(at.Child("device"), *s.Device, check.Label(*s.Device))...)
		}
	}
	return append(errs, taint(&r.Spec.Taint, spec.Child("taint"))...)
}
