package patch

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	goruntime "runtime"

	"github.com/timonel/timonel/internal/object"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/mergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// StrategicPatch is a decoded strategic merge patch: a merge patch that merges
// lists as the patchStrategy and patchMergeKey of the Go types say, with the directives $patch, $retainKeys,
// $setElementOrder and $deleteFromPrimitiveList. Only built-in kinds have it.
type StrategicPatch struct {
	// Strict are the repeated fields of the patch, for fieldValidation Strict and Warn.
	Strict []error

	tree map[string]any
}

// ParseStrategic decodes a strategic merge patch. Errors are 400.
func ParseStrategic(body []byte) (*StrategicPatch, error) {
	tree, repeated, err := decodeTree(body)
	if err != nil {
		return nil, err
	}
	return &StrategicPatch{Strict: repeated, tree: tree}, nil
}

// ApplyTo returns a patched copy of live, before defaults. strict are the
// unknown fields of the result. Errors: 400 and 422 for directives that are not well formed, 422 for a result
// that is not of the kind; others (an item without its merge key) are plain and mean 500, as kube-apiserver has it.
func (p *StrategicPatch) ApplyTo(live object.Object) (patched object.Object, strict []error, err error) {
	if patched, ok := p.applyToPart(live); ok {
		return patched, nil, nil
	}
	tree, err := runtime.DefaultUnstructuredConverter.ToUnstructured(live)
	if err != nil {
		return nil, nil, fmt.Errorf("strategic merge patch: %w", err)
	}
	meta, err := strategicpatch.NewPatchMetaFromStruct(live)
	if err != nil {
		return nil, nil, fmt.Errorf("strategic merge patch: %w", err)
	}
	result, err := p.patch(tree, meta)
	if err != nil {
		return nil, nil, err
	}
	patched = reflect.New(reflect.TypeOf(live).Elem()).Interface().(object.Object)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(result, patched, true); err != nil {
		unknown, ok := runtime.AsStrictDecodingError(err)
		if !ok {
			return nil, nil, p.Undecodable(err)
		}
		strict = unknown.Errors()
	}
	return patched, strict, nil
}

// Undecodable is the error for a patched object with unknown or repeated fields
// under fieldValidation Strict.
func (p *StrategicPatch) Undecodable(err error) error {
	return undecodable(fmt.Sprintf("%+v", p.tree), err)
}

// patch patches a tree, which is used up.
func (p *StrategicPatch) patch(tree map[string]any, meta strategicpatch.LookupPatchMeta) (map[string]any, error) {
	patched, err := p.merge(tree, meta)
	switch {
	case err == nil:
		return patched, nil
	case errors.Is(err, mergepatch.ErrBadJSONDoc), errors.Is(err, mergepatch.ErrBadPatchFormatForPrimitiveList),
		errors.Is(err, mergepatch.ErrBadPatchFormatForRetainKeys), errors.Is(err, mergepatch.ErrBadPatchFormatForSetElementOrderList),
		errors.Is(err, mergepatch.ErrUnsupportedStrategicMergePatchFormat):
		return nil, apierrors.NewBadRequest(err.Error())
	case errors.Is(err, mergepatch.ErrNoListOfLists), errors.Is(err, mergepatch.ErrPatchContentNotMatchRetainKeys):
		return nil, apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", err.Error(), 0, false)
	}
	return nil, err
}

// merge is patch with the errors of the library, which panics when it compares merge keys that are maps or lists.
func (p *StrategicPatch) merge(tree map[string]any, meta strategicpatch.LookupPatchMeta) (patched map[string]any, err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case goruntime.Error:
			err = p.Undecodable(fmt.Errorf("merge keys cannot be compared: %w", r))
		default:
			panic(r)
		}
	}()
	// The library changes the patch too, which may be needed again.
	return strategicpatch.StrategicMergeMapPatchUsingLookupPatchMeta(tree, runtime.DeepCopyJSON(p.tree), meta)
}

// applyToPart patches only those fields of live that the patch names; false if
// that is not enough.
func (p *StrategicPatch) applyToPart(live object.Object) (object.Object, bool) {
	l := layoutOfObject(live)
	if l == nil || touchesManagedFields(p.tree) || p.tree["$patch"] != nil || p.tree["$retainKeys"] != nil {
		return nil, false
	}
	v := reflect.ValueOf(live).Elem()
	part, ok := project(l, v, p.tree, true)
	if !ok {
		return nil, false
	}
	result, err := p.patch(part, strategicpatch.PatchMetaFromStruct{T: l.goType})
	if err != nil {
		return nil, false // again with everything, for what the error says
	}
	made := object.Copy(live)
	m := merger{}
	m.restore(l, reflect.ValueOf(made).Elem(), p.tree, result, true)
	return made, m.err == nil
}

// Strategic applies a strategic merge patch to the document of an object of
// the Go type of kind, for instance &corev1.Pod{}.
func Strategic(doc, patch []byte, kind object.Object) ([]byte, error) {
	p, err := ParseStrategic(patch)
	if err != nil {
		return nil, err
	}
	meta, err := strategicpatch.NewPatchMetaFromStruct(kind)
	if err != nil {
		return nil, fmt.Errorf("strategic merge patch: %w", err)
	}
	var tree map[string]any
	if err := utiljson.Unmarshal(doc, &tree); err != nil {
		return nil, fmt.Errorf("strategic merge patch: document: %w", err)
	}
	patched, err := p.patch(tree, meta)
	if err != nil {
		return nil, err
	}
	return json.Marshal(patched)
}
