package codec

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/timonel/timonel/internal/codec/cleanjson"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Strictness is what happens with fields that are unknown or given twice
// (fieldValidation: Ignore, Warn, Strict).
type Strictness uint8

const (
	Warn Strictness = iota
	Ignore
	Strict
)

// Target is what a request body must hold.
type Target struct {
	Kind schema.GroupVersionKind // expected
	New  func() runtime.Object
	// Registered reports whether the server knows a kind at all; it decides the text of the error for
	// a wrong one.
	Registered func(schema.GroupVersionKind) bool
	// Prune is that of a custom resource's definition.
	Prune func(obj object.Object, stored bool) (unknown []string, err error)
}

// TargetOf is the target for bodies of a definition.
func TargetOf(d *kind.Definition, registered func(schema.GroupVersionKind) bool) Target {
	return Target{Kind: d.GroupVersionKind(), New: func() runtime.Object { return d.New() }, Registered: registered, Prune: d.Prune}
}

// Decode reads a request body. It returns the object with its type set, and the
// unknown and duplicate fields as warnings, or, with Strict, as an error. Errors are API Status
// errors, 400.
func Decode(body []byte, media Media, target Target, strictness Strictness) (runtime.Object, []string, error) {
	if media == ProtobufMedia {
		obj, err := decodeProtobufBody(body, target)
		return obj, nil, err
	}
	var strict []error
	if media == YAMLMedia {
		converted, err := yaml.YAMLToJSON(body)
		if err != nil {
			return nil, nil, unrecognized(target.Kind.Kind, fmt.Errorf("yaml: %w", trimYAML(err)), body)
		}
		if strictness != Ignore {
			if _, err := yaml.YAMLToJSONStrict(body); err != nil {
				strict = append(strict, trimStrictYAML(err))
			}
		}
		body = converted
	}
	if media == CBORMedia {
		converted, err := CBORToJSON(body)
		if err != nil {
			return nil, nil, unrecognized(target.Kind.Kind, err, body)
		}
		body = converted
	}
	obj, got, more, err := read(body, target, strictness)
	if err != nil {
		return nil, nil, err
	}
	if media == YAMLMedia && strictness == Warn && len(strict) > 0 {
		strict = repeatedKeys(strict[0])
	}
	strict = append(strict, more...)
	if target.Prune != nil {
		unknown, err := target.Prune(obj.(object.Object), false)
		if err != nil {
			return nil, nil, cannotBeHandled(got, target.Kind.Kind, err)
		}
		if strictness != Ignore {
			strict = append(strict, UnknownFields(unknown)...)
		}
	}
	if len(strict) > 0 && strictness == Strict {
		return nil, nil, cannotBeHandled(got, target.Kind.Kind, runtime.NewStrictDecodingError(strict))
	}
	SetKind(obj, target.Kind)
	warnings := make([]string, len(strict))
	for i, err := range strict {
		warnings[i] = err.Error()
	}
	return obj, warnings, nil
}

// read decodes a JSON body of the target's kind, and returns what strictness is about.
func read(body []byte, target Target, strictness Strictness) (runtime.Object, schema.GroupVersionKind, []error, error) {
	obj := target.New()
	if clean(body, obj) {
		got, err := typeOfDecoded(obj, body, target)
		return obj, got, nil, err
	}
	got, err := typeOf(body, target)
	if err != nil {
		return nil, got, nil, err
	}
	obj = target.New() // the first may be half filled
	strict, err := unmarshal(body, obj, strictness)
	if err != nil {
		return nil, got, nil, cannotBeHandled(got, target.Kind.Kind, err)
	}
	return obj, got, strict, nil
}

// clean decodes a JSON object if there is nothing in it that unmarshal would remark on. Otherwise obj is half filled.
func clean(doc []byte, obj runtime.Object) bool {
	if u, tree := obj.(*unstructured.Unstructured); tree {
		return cleanjson.Decode(doc, &u.Object)
	}
	return cleanjson.Decode(doc, obj)
}

// typeOfDecoded is typeOf for a body that was found clean: it looks at the object. It asks the body when
// the object does not show for sure what is in it: keys that differ by the case of letters, or text that is no version.
func typeOfDecoded(obj runtime.Object, body []byte, target Target) (schema.GroupVersionKind, error) {
	var meta typeMeta
	if u, tree := obj.(*unstructured.Unstructured); !tree {
		meta.APIVersion, meta.Kind = obj.GetObjectKind().GroupVersionKind().ToAPIVersionAndKind()
	} else if !otherCase(u.Object, "apiVersion", "kind") {
		meta.APIVersion, _ = u.Object["apiVersion"].(string)
		meta.Kind, _ = u.Object["kind"].(string)
	}
	if meta.APIVersion == "" || meta.Kind == "" {
		return typeOf(body, target)
	}
	return target.check(body, meta)
}

// otherCase reports whether a tree has a key that differs from a name only by the case of letters.
func otherCase(tree map[string]any, names ...string) bool {
	for key := range tree {
		for _, name := range names {
			if key != name && strings.EqualFold(key, name) {
				return true
			}
		}
	}
	return false
}

// UnknownFields are the strict errors about fields that a schema does not know.
func UnknownFields(paths []string) []error {
	errs := make([]error, len(paths))
	for i, path := range paths {
		errs[i] = fmt.Errorf("unknown field %q", path)
	}
	return errs
}

// unmarshal decodes JSON into an object, case-sensitive, and returns the fields
// that strictness is about.
func unmarshal(body []byte, obj runtime.Object, strictness Strictness) (strict []error, err error) {
	var into any = obj
	u, tree := obj.(*unstructured.Unstructured)
	if tree {
		u.Object = map[string]any{}
		into = &u.Object
	}
	if strictness == Ignore {
		return nil, kjson.UnmarshalCaseSensitivePreserveInts(body, into)
	}
	return kjson.UnmarshalStrict(body, into)
}

// UnmarshalPatched decodes the JSON that a patch led to.
func UnmarshalPatched(d *kind.Definition, doc []byte, strictness Strictness) (obj object.Object, strict []error, err error) {
	if obj = d.New(); !clean(doc, obj) {
		obj = d.New()
		strict, err = unmarshal(doc, obj, strictness)
	}
	if err == nil {
		SetKind(obj, d.GroupVersionKind())
	}
	return obj, strict, err
}

type typeMeta = struct {
	APIVersion string "json:\"apiVersion,omitempty\""
	Kind       string "json:\"kind,omitempty\""
}

// typeOf reads apiVersion and kind of a JSON body, fills in what is left out, and checks them.
func typeOf(body []byte, target Target) (schema.GroupVersionKind, error) {
	var meta typeMeta
	if err := json.Unmarshal(body, &meta); err != nil {
		return schema.GroupVersionKind{}, unrecognized(target.Kind.Kind, fmt.Errorf("couldn't get version/kind; json parse error: %w", err), body)
	}
	return target.check(body, meta)
}

// check checks what a body says it is.
func (target Target) check(body []byte, meta typeMeta) (schema.GroupVersionKind, error) {
	if target.Prune != nil {
		return checkTreeType(body, meta, target)
	}
	return checkType(body, meta.APIVersion, meta.Kind, target)
}

// checkTreeType is checkType for custom resources, which must say what they are.
func checkTreeType(body []byte, meta typeMeta, target Target) (schema.GroupVersionKind, error) {
	gv, err := schema.ParseGroupVersion(meta.APIVersion)
	got := gv.WithKind(meta.Kind)
	switch {
	case meta.Kind == "":
		return got, unrecognized(target.Kind.Kind, runtime.NewMissingKindErr(string(body)), body)
	case meta.APIVersion == "":
		return got, unrecognized(target.Kind.Kind, runtime.NewMissingVersionErr(string(body)), body)
	case err != nil:
		return got, unrecognized(target.Kind.Kind, err, body)
	case gv != target.Kind.GroupVersion():
		return got, apierrors.NewBadRequest(fmt.Sprintf("the API version in the data (%s) does not match the expected API version (%s)", gv, target.Kind.GroupVersion()))
	case meta.Kind != target.Kind.Kind:
		var named struct {
			Metadata struct {
				Name string `json:"name"`
			} `json:"metadata"`
		}
		_ = json.Unmarshal(body, &named) // without a name, if that is no text
		return got, apierrors.NewInvalid(got.GroupKind(), named.Metadata.Name, field.ErrorList{field.Invalid(field.NewPath("kind"), meta.Kind, "must be "+target.Kind.Kind)})
	}
	return got, nil
}

func checkType(body []byte, apiVersion, kindName string, target Target) (schema.GroupVersionKind, error) {
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return schema.GroupVersionKind{}, unrecognized(target.Kind.Kind, err, body)
	}
	got := gv.WithKind(kindName)
	if apiVersion == "" {
		got.Group, got.Version = target.Kind.Group, target.Kind.Version
	}
	if kindName == "" {
		got.Kind = target.Kind.Kind
	}
	switch {
	case got == target.Kind:
		return got, nil
	case target.Registered == nil || !target.Registered(got):
		return got, cannotBeHandled(got, target.Kind.Kind, fmt.Errorf("no kind %q is registered for version %q in scheme %q", got.Kind, got.GroupVersion(), "timonel"))
	case got.Kind == target.Kind.Kind && got.Group == target.Kind.Group:
		return got, apierrors.NewBadRequest(fmt.Sprintf("the API version in the data (%s) does not match the expected API version (%s)", got.GroupVersion(), target.Kind.GroupVersion()))
	}
	return got, cannotBeHandled(got, target.Kind.Kind, UnknownConversion(got, target.Kind))
}

// UnknownConversion is the error about an object of one kind where another was expected.
func UnknownConversion(got, want schema.GroupVersionKind) error {
	internal := want.Group
	if internal == "" {
		internal = "core"
	}
	return fmt.Errorf("converting (%s.%s) to (%s.%s): unknown conversion", got.Version, got.Kind, internal, want.Kind)
}

func decodeProtobufBody(body []byte, target Target) (runtime.Object, error) {
	apiVersion, kindName, raw, err := OpenEnvelope(body)
	switch {
	case len(body) == 0:
		err = errors.New("empty data")
	case errors.Is(err, ErrNotEnvelope):
		err = errors.New("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
	case len(body) == len(magic):
		err = errors.New("empty body")
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, unrecognized(target.Kind.Kind, err, body)
	}
	said := schema.FromAPIVersionAndKind(apiVersion, kindName) // Parity: a version that is none counts as left out, unlike in JSON
	got, err := checkType(body, said.GroupVersion().String(), said.Kind, target)
	if err != nil {
		return nil, err
	}
	obj := target.New()
	m, ok := obj.(message)
	if !ok {
		return nil, cannotBeHandled(got, target.Kind.Kind, fmt.Errorf("%s has no protobuf form", got.Kind))
	}
	if err := m.Unmarshal(raw); err != nil {
		return nil, cannotBeHandled(got, target.Kind.Kind, err)
	}
	SetKind(obj, target.Kind)
	return obj, nil
}

func cannotBeHandled(got schema.GroupVersionKind, want string, err error) error {
	return apierrors.NewBadRequest(fmt.Sprintf("%s in version %q cannot be handled as a %s: %v", got.Kind, got.Version, want, err))
}

func unrecognized(want string, err error, body []byte) error {
	return apierrors.NewBadRequest(fmt.Sprintf("the object provided is unrecognized (must be of type %s): %v (%s)", want, err, Summary(body)))
}

// Summary shows the beginning of a body in an error: as text if it begins like a
// JSON object, else in hexadecimal.
func Summary(body []byte) string {
	const most = 30
	show := func(b []byte) string { return hex.EncodeToString(b) }
	switch {
	case len(body) == 0:
		return "<empty>"
	case body[0] == '{' && utf8.Valid(body):
		show = func(b []byte) string { return string(b) }
	}
	if len(body) > most {
		return show(body[:most]) + " ..."
	}
	return show(body)
}

// DecodeDeleteOptions reads DeleteOptions, which clients may send in the version of any
// group. Parity: errors are told without the words about the expected kind; see the corpus, verbs/delete-options.
func DecodeDeleteOptions(body []byte, media Media, registered func(schema.GroupVersionKind) bool) (*metav1.DeleteOptions, error) {
	o := &metav1.DeleteOptions{}
	if media == ProtobufMedia {
		apiVersion, kindName, raw, err := OpenEnvelope(body)
		if err == nil {
			err = checkDeleteOptions(apiVersion, kindName, registered)
		}
		if err == nil {
			err = o.Unmarshal(raw)
		}
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		return o, nil
	}
	var err error
	switch media {
	case YAMLMedia:
		body, err = yaml.YAMLToJSON(body)
	case CBORMedia:
		body, err = CBORToJSON(body)
	}
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	var t typeMeta
	err = json.Unmarshal(body, &t)
	if err != nil {
		err = fmt.Errorf("couldn't get version/kind; json parse error: %w", err)
	} else if err = checkDeleteOptions(t.APIVersion, t.Kind, registered); err == nil {
		err = kjson.UnmarshalCaseSensitivePreserveInts(body, o)
	}
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return o, nil
}

// checkDeleteOptions checks the type that a body says it has; what it leaves out is that of the options.
func checkDeleteOptions(apiVersion, kindName string, registered func(schema.GroupVersionKind) bool) error {
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return err
	}
	if gv.Empty() {
		gv = metav1.SchemeGroupVersion
	}
	if kindName == "" {
		kindName = "DeleteOptions"
	}
	if kindName == "DeleteOptions" && (gv == metav1.SchemeGroupVersion || registered(gv.WithKind(kindName))) {
		return nil
	}
	return fmt.Errorf("no kind %q is registered for version %q in scheme %q", kindName, gv, "timonel")
}
