package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/patch"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var scaleKind = autoscalingv1.SchemeGroupVersion.WithKind("Scale")

// scaleOf shows an object as a Scale.
func scaleOf(s *kind.Scale, obj object.Object) (*autoscalingv1.Scale, error) {
	spec, status, selector, err := s.Get(obj)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	scale := &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{
			Name: obj.GetName(), Namespace: obj.GetNamespace(), UID: obj.GetUID(),
			ResourceVersion: obj.GetResourceVersion(), CreationTimestamp: obj.GetCreationTimestamp(),
		},
		Spec:   autoscalingv1.ScaleSpec{Replicas: spec},
		Status: autoscalingv1.ScaleStatus{Replicas: status, Selector: selector},
	}
	scale.SetGroupVersionKind(scaleKind)
	return scale, nil
}

// GetScale reads the scale of an object.
func (e *Engine) GetScale(ctx context.Context, c *Call) (codec.Item, error) {
	obj, _, err := e.current(ctx, c.Definition, c.Namespace, c.Name, true)
	if err != nil {
		return codec.Item{}, err
	}
	scale, err := scaleOf(c.Sub.Scale, obj)
	return codec.Item{Definition: scaleDefinition, Object: scale}, err
}

func (e *Engine) updateScale(ctx context.Context, c *Call, body Body, options metav1.UpdateOptions) (Result, error) {
	target := codec.Target{Kind: scaleKind, New: func() runtime.Object { return &autoscalingv1.Scale{} }, Registered: e.Registered}
	decoded, warnings, err := codec.Decode(body.Bytes, body.Media, target, c.Strictness)
	if err != nil {
		return Result{}, err
	}
	c.Warn(warnings...)
	scale := decoded.(*autoscalingv1.Scale)
	if err := matchURL(c, scale); err != nil {
		return Result{}, err
	}
	return e.writeScale(ctx, c, writeOptions{
		verb: "update", manager: options.FieldManager, dryRun: dryRun(options.DryRun), options: &options,
		versionText: scale.ResourceVersion, uid: scale.UID,
	}, func(*autoscalingv1.Scale) (*autoscalingv1.Scale, error) { return scale, nil })
}

func (e *Engine) patchScale(ctx context.Context, c *Call, patchType types.PatchType, body []byte, options metav1.PatchOptions) (Result, error) {
	if patchType == types.ApplyYAMLPatchType {
		return e.applyScale(ctx, c, body, options)
	}
	as := *c
	as.Definition = scaleDefinition
	apply, err := parsePatch(&as, patchType, body)
	if err != nil {
		return Result{}, err
	}
	return e.writeScale(ctx, c, writeOptions{
		verb: "patch", manager: options.FieldManager, dryRun: dryRun(options.DryRun), options: &options,
	}, func(now *autoscalingv1.Scale) (*autoscalingv1.Scale, error) {
		patched, strict, undecodable, err := apply(now)
		var other *otherKindError
		if errors.As(err, &other) {
			_, err = e.patchedToOther(&as, other)
		}
		if err != nil {
			return nil, err
		}
		if err := e.strict(c, strict, undecodable); err != nil {
			return nil, err
		}
		return patched.(*autoscalingv1.Scale), nil
	})
}

// scaleDefinition is a Scale as a kind: how it is decoded and shown. It is never stored.
var scaleDefinition = &kind.Definition{
	Group: "autoscaling", Version: "v1", Kind: "Scale", Plural: "scales", Scope: kind.Namespaced,
	New: kind.Of[autoscalingv1.Scale](),
	Columns: kind.Columns{
		{Name: "Name", Description: kind.Name.Description, Of: kind.Name.Of}, // Parity: without a format, unlike other kinds
		{Name: "Desired", Type: "integer", Description: autoscalingv1.ScaleSpec{}.SwaggerDoc()["replicas"], Of: kind.Cell(func(s *autoscalingv1.Scale) any { return int64(s.Spec.Replicas) })},
		{Name: "Available", Type: "integer", Description: autoscalingv1.ScaleStatus{}.SwaggerDoc()["replicas"], Of: kind.Cell(func(s *autoscalingv1.Scale) any { return int64(s.Status.Replicas) })},
		kind.Age,
	},
}

// scaleOwners keeps the managedFields of a Scale, from which those of its object follow.
var scaleOwners = patch.NewOwnership(patch.OwnershipOptions{
	Kind: scaleKind, Subresource: "scale", New: kind.Of[autoscalingv1.Scale](),
})

// applyScale is server-side apply to a scale.
func (e *Engine) applyScale(ctx context.Context, c *Call, body []byte, options metav1.PatchOptions) (Result, error) {
	applied, err := parseApply(c, body)
	if err != nil {
		return Result{}, err
	}
	force := options.Force != nil && *options.Force
	return e.writeScale(ctx, c, writeOptions{
		verb: "patch", manager: options.FieldManager, dryRun: dryRun(options.DryRun), options: &options, owned: true,
		versionText: applied.GetResourceVersion(), uid: applied.GetUID(),
	}, func(now *autoscalingv1.Scale) (*autoscalingv1.Scale, error) {
		merged, err := scaleOwners.Apply(now, applied.DeepCopy(), options.FieldManager, force, e.Now())
		if err != nil {
			return nil, err
		}
		return merged.(*autoscalingv1.Scale), nil
	})
}

// writeScale changes an object's replicas through its scale and answers with the scale.
func (e *Engine) writeScale(ctx context.Context, c *Call, o writeOptions, transform func(now *autoscalingv1.Scale) (*autoscalingv1.Scale, error)) (Result, error) {
	apiVersion := c.Definition.Hub().APIVersion()
	paths := patch.ScalePaths{apiVersion: c.Sub.Scale.ReplicasPath}
	through := o
	through.owned = true // the owners of a scale are those of one field of the object
	result, err := e.write(ctx, c, through, func(old object.Object) (object.Object, error) {
		now, err := scaleOf(c.Sub.Scale, old)
		if err != nil {
			return nil, err
		}
		if now.ManagedFields, err = paths.ToScale(old.GetManagedFields(), apiVersion); err != nil {
			return nil, err
		}
		scale, err := transform(now)
		if err != nil {
			return nil, err
		}
		if scale.Spec.Replicas < 0 && codec.IsTree(c.Definition) {
			path := field.NewPath("." + strings.Join(c.Sub.Scale.ReplicasPath, "."))
			return nil, invalid(c.Definition, c.Name, field.ErrorList{field.Invalid(path, scale.Spec.Replicas, "should be a non-negative integer")})
		}
		if scale.Spec.Replicas < 0 {
			return nil, apierrors.NewInvalid(scaleKind.GroupKind(), c.Name, field.ErrorList{field.Invalid(field.NewPath("spec", "replicas"), scale.Spec.Replicas, "must be greater than or equal to 0")})
		}
		if o.verb == "patch" && scale.ResourceVersion != "" && scale.ResourceVersion != old.GetResourceVersion() {
			return nil, apierrors.NewConflict(c.Definition.GroupResource(), c.Name, errModified)
		}
		if !o.owned {
			scale = object.Copy(scale)
			scale.ManagedFields = nil
			scaleOwners.Update(now, scale, c.managerOr(o.manager), e.Now())
		}
		owners, err := paths.FromScale(old.GetManagedFields(), scale.ManagedFields, apiVersion)
		if err != nil {
			return nil, err
		}
		obj := object.Copy(old)
		if err := c.Sub.Scale.Set(obj, scale.Spec.Replicas); err != nil {
			return nil, fmt.Errorf("scale %s: %w", c.Name, err)
		}
		obj.SetManagedFields(owners)
		return obj, nil
	})
	if err != nil {
		return result, err
	}
	scale, err := scaleOf(c.Sub.Scale, result.Item.Object)
	return Result{Value: scale}, err
}
