package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/patch"
	"github.com/timonel/timonel/internal/trace"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// Patch changes a part of an object, on the newest state and again on what another
// writer left (JSON patch, RFC 6902; merge patch, RFC 7386; strategic merge patch; apply).
func (e *Engine) Patch(ctx context.Context, c *Call, patchType types.PatchType, body []byte, options metav1.PatchOptions) (Result, error) {
	c.Trace.Enter(trace.Decode)
	if c.Sub != nil && c.Sub.Scale != nil {
		return e.patchScale(ctx, c, patchType, body, options)
	}
	if patchType == types.ApplyYAMLPatchType {
		return e.apply(ctx, c, body, options)
	}
	if codec.IsTree(c.Definition) && patchType == types.StrategicMergePatchType {
		return Result{}, unsupportedPatch()
	}
	if patchType != types.JSONPatchType && !json.Valid(body) {
		return Result{}, apierrors.NewBadRequest("invalid JSON patch") // the text is the same for all
	}
	apply := patchFunc(c, patchType, body)
	sentVersion := false
	return e.write(ctx, c, writeOptions{
		verb: "patch", manager: options.FieldManager, dryRun: dryRun(options.DryRun), options: &options,
		versionOf: func(obj object.Object) string { // only a patch that names a version demands it
			if sentVersion {
				return obj.GetResourceVersion()
			}
			return ""
		},
	}, func(old object.Object) (object.Object, error) {
		c.Trace.Enter(trace.Decode)
		obj, err := e.patched(c, old, apply)
		if err != nil {
			return nil, err
		}
		sentVersion = obj.GetResourceVersion() != "" && obj.GetResourceVersion() != old.GetResourceVersion()
		if obj.GetName() != c.Name {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", obj.GetName(), c.Name))
		}
		return obj, matchNamespace(c, obj)
	})
}

func unsupportedPatch() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: 415, Reason: metav1.StatusReasonUnsupportedMediaType,
		Message: "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
	}}
}

// patchFunc is the patch as a function from one JSON document to another, with the fields
// that are unknown or given twice in the patch itself.
func patchFunc(c *Call, patchType types.PatchType, body []byte) func(doc []byte) ([]byte, []error, error) {
	strict := c.Strictness != codec.Ignore
	switch patchType {
	case types.JSONPatchType:
		return func(doc []byte) ([]byte, []error, error) { return patch.JSON(doc, body, strict) }
	case types.MergePatchType:
		return func(doc []byte) ([]byte, []error, error) { return patch.Merge(doc, body, strict) }
	}
	model := c.Definition.New()
	return func(doc []byte) ([]byte, []error, error) { return patch.Strategic(doc, body, model, strict) }
}

// patched applies a patch to an object, in the version of the request, and decodes what it led to.
func (e *Engine) patched(c *Call, old object.Object, apply func([]byte) ([]byte, []error, error)) (object.Object, error) {
	item := codec.Item{Definition: c.Definition, Object: old}
	doc, err := item.AppendWithType(nil)
	if err != nil {
		return nil, err
	}
	result, strict, err := apply(doc)
	if err != nil {
		return nil, err
	}
	obj, more, err := codec.UnmarshalPatched(c.Definition, result, c.Strictness)
	if err != nil {
		return nil, invalidPatch(string(result), err)
	}
	if err := e.strict(c, append(strict, more...), string(result)); err != nil {
		return nil, err
	}
	if gvk := kindOf(result); gvk != c.Definition.GroupVersionKind() && !gvk.Empty() {
		return nil, e.wrongKind(c, gvk)
	}
	return e.toHub(c.Definition, obj)
}

// kindOf reads the type of a JSON object.
func kindOf(doc []byte) schema.GroupVersionKind {
	var t metav1.TypeMeta
	if json.Unmarshal(doc, &t) != nil {
		return schema.GroupVersionKind{}
	}
	return t.GroupVersionKind()
}

func (e *Engine) wrongKind(c *Call, got schema.GroupVersionKind) error {
	if e.Registered == nil || !e.Registered(got) {
		return invalidPatch("", fmt.Errorf("no kind %q is registered for version %q in scheme %q", got.Kind, got.GroupVersion(), "timonel"))
	}
	return apierrors.NewBadRequest(fmt.Sprintf("the API version in the data (%s) does not match the expected API version (%s)", got.GroupVersion(), c.Definition.APIVersion()))
}

// strict deals with unknown and duplicate fields of a patch as the request wants it.
func (e *Engine) strict(c *Call, errs []error, doc string) error {
	if len(errs) == 0 || c.Strictness == codec.Ignore {
		return nil
	}
	if c.Strictness == codec.Strict {
		return invalidPatch(doc, runtime.NewStrictDecodingError(errs))
	}
	for _, err := range errs {
		c.Warn(err.Error())
	}
	return nil
}

// invalidPatch is the 422 for a patch whose result is no object of the kind.
func invalidPatch(value string, err error) error {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return err
	}
	return apierrors.NewInvalid(schema.GroupKind{}, "", field.ErrorList{field.Invalid(field.NewPath("patch"), value, err.Error())})
}

// apply is server-side apply (KEP-555): it creates the object if there is none.
func (e *Engine) apply(ctx context.Context, c *Call, body []byte, options metav1.PatchOptions) (Result, error) {
	applied := &unstructured.Unstructured{}
	doc, err := yaml.YAMLToJSON(body)
	if err != nil {
		return Result{}, apierrors.NewBadRequest(fmt.Sprintf("error decoding YAML: %v", err))
	}
	if c.Strictness != codec.Ignore {
		if _, err := yaml.YAMLToJSONStrict(body); err != nil {
			if c.Strictness == codec.Strict {
				return Result{}, apierrors.NewBadRequest(fmt.Sprintf("error decoding YAML: %v", err))
			}
			c.Warn(err.Error())
		}
	}
	if err := json.Unmarshal(doc, &applied.Object); err != nil || applied.Object == nil {
		return Result{}, apierrors.NewBadRequest(fmt.Sprintf("error decoding YAML: %v", err))
	}
	force := options.Force != nil && *options.Force
	owners := e.owners(c)
	result, err := e.write(ctx, c, writeOptions{
		verb: "patch", manager: options.FieldManager, dryRun: dryRun(options.DryRun), options: &options, owned: true,
		versionText: applied.GetResourceVersion(), uid: applied.GetUID(),
	}, func(old object.Object) (object.Object, error) {
		c.Trace.Enter(trace.Decode)
		return owners.Apply(old, applied.DeepCopy(), options.FieldManager, force, e.Now())
	})
	if !apierrors.IsNotFound(err) || c.Sub != nil {
		return result, err
	}
	if applied.GetUID() != "" {
		return Result{}, apierrors.NewConflict(c.Definition.GroupResource(), c.Name, fmt.Errorf("uid mismatch: the provided object specified uid %s, and no existing object was found", applied.GetUID()))
	}
	if c.MayCreate != nil {
		if err := c.MayCreate(ctx); err != nil {
			return Result{}, err
		}
	}
	obj, err := owners.Apply(nil, applied.DeepCopy(), options.FieldManager, force, e.Now())
	if err != nil {
		return Result{}, err
	}
	if err := matchURL(c, obj); err != nil {
		return Result{}, err
	}
	obj.SetResourceVersion("")
	result, err = e.createOwned(ctx, c, obj, metav1.CreateOptions{DryRun: options.DryRun, FieldManager: options.FieldManager, FieldValidation: options.FieldValidation})
	if apierrors.IsAlreadyExists(err) { // somebody was faster: apply to what they made
		return e.apply(ctx, c, body, options)
	}
	return result, err
}
