package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
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
	apply, err := parsePatch(c, patchType, body)
	if err != nil {
		return Result{}, err
	}
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
		return obj, matchURL(c, obj)
	})
}

// patchFunc applies a patch to an object in the version of the request, whose type is set, and
// reports fields that are unknown or given twice.
type patchFunc func(live object.Object) (patched object.Object, strict []error, undecodable func(error) error, err error)

// parsePatch reads a patch once, to be applied as often as needed.
func parsePatch(c *Call, patchType types.PatchType, body []byte) (patchFunc, error) {
	d := c.Definition
	switch patchType {
	case types.JSONPatchType:
		p, err := patch.ParseJSON(body)
		if err != nil {
			return nil, err
		}
		return func(live object.Object) (object.Object, []error, func(error) error, error) {
			return patchDocument(d, live, p.Strict, c.Strictness, p.Apply)
		}, nil
	case types.MergePatchType:
		p, err := patch.ParseMerge(body)
		if err != nil {
			return nil, err
		}
		return func(live object.Object) (object.Object, []error, func(error) error, error) {
			if patched, ok := p.ApplyTo(live); ok && len(p.Strict) == 0 {
				return patched, nil, nil, nil
			}
			return patchDocument(d, live, p.Strict, c.Strictness, p.Apply)
		}, nil
	}
	p, err := patch.ParseStrategic(body)
	if err != nil {
		return nil, err
	}
	return func(live object.Object) (object.Object, []error, func(error) error, error) {
		patched, strict, err := p.ApplyTo(live)
		return patched, append(p.Strict[:len(p.Strict):len(p.Strict)], strict...), p.Undecodable, err
	}, nil
}

// patchDocument applies a patch to an object's JSON.
func patchDocument(d *kind.Definition, live object.Object, strict []error, strictness codec.Strictness, apply func([]byte) ([]byte, error)) (object.Object, []error, func(error) error, error) {
	item := codec.Item{Definition: d, Object: live}
	doc, err := item.EncodeDecoded(live)
	if err != nil {
		return nil, nil, nil, err
	}
	result, err := apply(doc)
	if err != nil {
		return nil, nil, nil, err
	}
	undecodable := func(err error) error { return patch.Undecodable(result, err) }
	if got := kindOf(result); got != d.GroupVersionKind() && !got.Empty() {
		return nil, nil, nil, &otherKindError{got, result}
	}
	obj, more, err := codec.UnmarshalPatched(d, result, strictness)
	if err != nil {
		return nil, nil, nil, undecodable(err)
	}
	return obj, append(strict[:len(strict):len(strict)], more...), undecodable, nil
}

// patched applies a patch to the newest object and brings the result into the hub's form.
func (e *Engine) patched(c *Call, old object.Object, apply patchFunc) (object.Object, error) {
	live, err := codec.FromHub(c.Definition, old)
	if err != nil {
		return nil, err
	}
	codec.SetKind(live, c.Definition.GroupVersionKind())
	obj, strict, undecodable, err := apply(live)
	var other *otherKindError
	if errors.As(err, &other) {
		return e.patchedToOther(c, other)
	}
	if err != nil {
		return nil, err
	}
	if u, tree := obj.(*unstructured.Unstructured); tree && u.GroupVersionKind() != c.Definition.GroupVersionKind() {
		return e.patchedToOther(c, &otherKindError{got: u.GroupVersionKind()})
	}
	codec.SetKind(obj, c.Definition.GroupVersionKind()) // Parity: a strategic merge patch of apiVersion or kind has no effect
	if c.Definition.Prune != nil {
		unknown, err := c.Definition.Prune(obj, false)
		if err != nil {
			return nil, patch.Undecodable(nil, err)
		}
		strict = append(strict, codec.UnknownFields(unknown)...)
		if undecodable == nil {
			undecodable = func(err error) error { return patch.Undecodable(nil, err) }
		}
	}
	if err := e.strict(c, strict, undecodable); err != nil {
		return nil, err
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

// otherKindError says that a patch led to an object of another kind or version.
type otherKindError struct {
	got schema.GroupVersionKind
	doc []byte // its JSON; nil for a tree
}

func (e *otherKindError) Error() string {
	return fmt.Sprintf("the patch changes the kind to %s", e.got)
}

// patchedToOther reads what a patch led to as the kind that it says it is. That is of use if it is another version of
// the same kind; else it is the error of a conversion that there is not.
func (e *Engine) patchedToOther(c *Call, other *otherKindError) (object.Object, error) {
	d, got := c.Definition, other.got
	if codec.IsTree(d) && got.GroupVersion() == d.GroupVersionKind().GroupVersion() {
		return nil, apierrors.NewInvalid(got.GroupKind(), c.Name, field.ErrorList{field.Invalid(field.NewPath("kind"), got.Kind, "must be "+d.Kind)})
	}
	if e.Registered == nil || !e.Registered(got) {
		return nil, patch.Undecodable(other.doc, fmt.Errorf("no kind %q is registered for version %q in scheme %q", got.Kind, got.GroupVersion(), "timonel"))
	}
	if as := e.Catalog.Catalog().Kind(got); as != nil && !codec.IsTree(as) {
		obj, _, err := codec.UnmarshalPatched(as, other.doc, codec.Ignore)
		if err != nil {
			return nil, patch.Undecodable(other.doc, err)
		}
		if as.Hub() == d.Hub() {
			return e.toHub(as, obj)
		}
	}
	return nil, patch.Undecodable(other.doc, codec.UnknownConversion(got, d.GroupVersionKind()))
}

// strict deals with unknown and duplicate fields of a patch as the request wants it.
func (e *Engine) strict(c *Call, errs []error, undecodable func(error) error) error {
	if len(errs) == 0 || c.Strictness == codec.Ignore {
		return nil
	}
	if c.Strictness == codec.Strict {
		return undecodable(runtime.NewStrictDecodingError(errs))
	}
	for _, err := range errs {
		c.Warn(err.Error())
	}
	return nil
}

// apply is server-side apply (KEP-555): it creates the object if there is none.
func (e *Engine) apply(ctx context.Context, c *Call, body []byte, options metav1.PatchOptions) (Result, error) {
	applied, err := parseApply(c, body)
	if err != nil {
		return Result{}, err
	}
	c.applies = true
	force := options.Force != nil && *options.Force
	owners := e.owners(c)
	result, err := e.write(ctx, c, writeOptions{
		verb: "patch", manager: options.FieldManager, dryRun: dryRun(options.DryRun), options: &options, owned: true,
		versionText: applied.GetResourceVersion(),
	}, func(old object.Object) (object.Object, error) {
		c.Trace.Enter(trace.Decode)
		obj, err := owners.Apply(old, applied.DeepCopy(), options.FieldManager, force, e.Now())
		if obj == old && err == nil {
			obj = object.Copy(old)
		}
		return obj, err
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

// parseApply reads an applied configuration, with keys that are given twice dealt with as the request wants it.
func parseApply(c *Call, body []byte) (*unstructured.Unstructured, error) {
	applied, strict, err := patch.ParseApply(body)
	if err != nil || len(strict) == 0 || c.Strictness == codec.Ignore {
		return applied, err
	}
	if c.Strictness == codec.Strict {
		return nil, patch.StrictApply(strict)
	}
	for _, err := range strict {
		c.Warn(err.Error())
	}
	return applied, nil
}
