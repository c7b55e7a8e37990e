package patch

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
)

const (
	// OperationLimit is the most operations that a JSON patch may have.
	OperationLimit = 10000
	// CopyLimit is the most bytes that the copy operations of a JSON patch may add to a document.
	CopyLimit = 3 << 20
)

func init() {
	// The library has no other way to set it; nothing else in a server uses the library.
	jsonpatch.AccumulatedCopySizeLimit = CopyLimit
}

// JSONPatch is a decoded JSON patch (RFC 6902).
type JSONPatch struct {
	// Strict are the unknown and repeated fields of the patch itself, for
	// fieldValidation Strict and Warn.
	Strict []error

	operations jsonpatch.Patch
}

// ParseJSON decodes a JSON patch. Errors: 400 if it is none, 413 if it has more
// than OperationLimit operations.
func ParseJSON(body []byte) (*JSONPatch, error) {
	if !json.Valid(body) {
		return nil, errNotJSON()
	}
	// Only to see what does not belong there.
	var read []struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		From  string `json:"from"`
		Value any    `json:"value"`
	}
	strict, err := kjson.UnmarshalStrict(body, &read)
	if err != nil {
		return nil, errUndecodable(operationTypes.Replace(err.Error()))
	}
	if len(read) > OperationLimit {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("The allowed maximum operations in a JSON patch is %d, got %d", OperationLimit, len(read)))
	}
	operations, err := jsonpatch.DecodePatch(body)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	for i, err := range strict {
		strict[i] = fmt.Errorf("json patch %w", err)
	}
	return &JSONPatch{Strict: strict, operations: operations}, nil
}

// operationTypes gives the operation's type the name under which clients of
// kube-apiserver know it.
var operationTypes = strings.NewReplacer(
	`struct { Op string "json:\"op\""; Path string "json:\"path\""; From string "json:\"from\""; Value interface {} "json:\"value\"" }`, "handlers.jsonPatchOp",
	"Go struct field .", "Go struct field jsonPatchOp.",
)

// Apply returns the patched document. A failed test or a path that leads nowhere
// is 422 without saying more.
func (p *JSONPatch) Apply(doc []byte) (patched []byte, err error) {
	defer func() {
		// The library panics on some operations that lack their value.
		if fault := recover(); fault != nil {
			patched, err = nil, fmt.Errorf("malformed operation: %v", fault)
		}
		if err != nil {
			err = apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "", schema.GroupResource{}, "", err.Error(), 0, false)
		}
	}()
	return p.operations.Apply(doc)
}

// JSON applies a JSON patch to a document; see ParseJSON and JSONPatch.Apply.
func JSON(doc, patch []byte) ([]byte, error) {
	p, err := ParseJSON(patch)
	if err != nil {
		return nil, err
	}
	return p.Apply(doc)
}

// Undecodable is the error for a patched document that is not an object of its
// kind, and for one with unknown or repeated fields under fieldValidation Strict
// (then err is from runtime.NewStrictDecodingError).
func Undecodable(patched []byte, err error) error {
	return undecodable(string(patched), err)
}

func undecodable(value string, err error) error {
	return apierrors.NewInvalid(schema.GroupKind{}, "", field.ErrorList{field.Invalid(field.NewPath("patch"), value, err.Error())})
}

func errNotJSON() error { return apierrors.NewBadRequest("invalid JSON patch") }

func errUndecodable(text string) error {
	return apierrors.NewBadRequest("error decoding patch: " + text)
}

// decodeTree reads a patch that is a JSON object, and the repeated fields in it.
func decodeTree(body []byte) (tree map[string]any, repeated []error, err error) {
	if !json.Valid(body) {
		return nil, nil, errNotJSON()
	}
	repeated, err = kjson.UnmarshalStrict(body, &tree)
	if err != nil {
		return nil, nil, errUndecodable(err.Error())
	}
	return tree, repeated, nil
}
