package patch

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"reflect"
	"strings"

	"github.com/timonel/timonel/internal/object"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// MergePatch is a decoded merge patch (RFC 7386).
type MergePatch struct {
	// Strict are the repeated fields of the patch, for fieldValidation Strict and Warn.
	Strict []error

	body []byte
	tree map[string]any
}

// ParseMerge decodes a merge patch. Errors are 400.
func ParseMerge(body []byte) (*MergePatch, error) {
	tree, repeated, err := decodeTree(body)
	if err != nil {
		return nil, err
	}
	return &MergePatch{Strict: repeated, body: body, tree: tree}, nil
}

// Apply returns the patched document.
func (p *MergePatch) Apply(doc []byte) ([]byte, error) {
	patched, err := jsonpatch.MergePatch(doc, p.body)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	return patched, nil
}

// Merge applies a merge patch to a document; see ParseMerge and MergePatch.Apply.
func Merge(doc, patch []byte) ([]byte, error) {
	p, err := ParseMerge(patch)
	if err != nil {
		return nil, err
	}
	return p.Apply(doc)
}

// ApplyTo patches a copy of an object. It touches only what the patch names, and
// gives what decoding the patched document would give, before defaults. false: something does not fit the
// kind (an unknown field, a wrong type, a kind of its own); then Apply to the document and decode it, for the error.
func (p *MergePatch) ApplyTo(live object.Object) (object.Object, bool) {
	if p.tree == nil { // null, which is no patch
		return nil, false
	}
	if tree, ok := live.(*unstructured.Unstructured); ok {
		return &unstructured.Unstructured{Object: runtime.DeepCopyJSON(merged(tree.Object, p.tree))}, true
	}
	l := layoutOfObject(live)
	if l == nil || touchesManagedFields(p.tree) || p.tree["apiVersion"] != nil || p.tree["kind"] != nil {
		return nil, false
	}
	made := object.Copy(live)
	v := reflect.ValueOf(made).Elem()
	m := merger{json: true}
	part, ok := project(l, v, p.tree, false)
	if !ok {
		return nil, false
	}
	m.restore(l, v, p.tree, merged(part, p.tree), false)
	return made, m.err == nil
}

// merged merges a patch into a tree, neither of which it changes.
func merged(tree, patch map[string]any) map[string]any {
	made := maps.Clone(tree)
	if made == nil {
		made = make(map[string]any, len(patch))
	}
	for key, value := range patch {
		old, _ := made[key].(map[string]any)
		switch v := value.(type) {
		case nil:
			delete(made, key)
		case map[string]any:
			made[key] = merged(old, v)
		default:
			if old == nil {
				value = withoutNulls(value)
			}
			made[key] = value
		}
	}
	return made
}

// withoutNulls drops null fields at any depth of what is new.
func withoutNulls(value any) any {
	switch v := value.(type) {
	case map[string]any:
		return merged(nil, v)
	case []any:
		made := make([]any, len(v))
		for i := range v {
			made[i] = withoutNulls(v[i])
		}
		return made
	}
	return value
}

// layoutOfObject returns the layout of a built-in object, nil if there is none.
func layoutOfObject(obj object.Object) *layout {
	goType := reflect.TypeOf(obj)
	if goType.Kind() != reflect.Pointer || goType.Elem().Kind() != reflect.Struct {
		return nil
	}
	found, ok := SchemaOf(obj)
	if !ok {
		return nil
	}
	if l := layoutFor(goType.Elem(), found.root); l.form == structForm {
		return l
	}
	return nil
}

// touchesManagedFields: layouts leave these out.
func touchesManagedFields(patch map[string]any) bool {
	metadata, is := patch["metadata"].(map[string]any)
	_, touches := metadata["managedFields"]
	return touches || !is && patch["metadata"] != nil
}

// project makes the tree of those fields of a struct that a patch names, so that
// patching the part gives the same as patching the whole. directives: the patch may have those of
// strategic merge patches. false: the type cannot be read.
func project(l *layout, v reflect.Value, patch map[string]any, directives bool) (map[string]any, bool) {
	part := map[string]any{}
	for key, value := range patch {
		f := l.field(patchedField(key, directives))
		if f == nil {
			continue
		}
		x, s := f.get(v)
		switch {
		case s == absent:
		case s == null:
			part[f.name] = nil
		default:
			below, partial := f.partial(key, value, directives)
			if !partial {
				tree, ok := f.layout.asTree(x)
				if !ok {
					return nil, false
				}
				part[f.name] = tree
				continue
			}
			tree, ok := project(f.layout, x, below, directives)
			if !ok {
				return nil, false
			}
			part[f.name] = tree
		}
	}
	return part, true
}

// partial reports whether only a part of a struct has to be looked at for what
// the patch says about it.
func (f *fieldLayout) partial(key string, value any, directives bool) (map[string]any, bool) {
	below, ok := value.(map[string]any)
	if !ok || f.layout.form != structForm || key != f.name {
		return nil, false
	}
	if directives {
		_, whole := below["$patch"]
		_, keeps := below["$retainKeys"]
		if whole || keeps || strings.Contains(f.strategy, "replace") {
			return nil, false
		}
	}
	return below, true
}

// patchedField is the field that a key of a patch is about.
func patchedField(key string, directives bool) string {
	if directives {
		for _, prefix := range []string{"$setElementOrder/", "$deleteFromPrimitiveList/"} {
			if name, ok := strings.CutPrefix(key, prefix); ok {
				return name
			}
		}
	}
	return key
}

func (l *layout) field(name string) *fieldLayout {
	for i := range l.fields {
		if l.fields[i].name == name {
			return &l.fields[i]
		}
	}
	return nil
}

// restore puts the patched part back into the struct.
func (m *merger) restore(l *layout, v reflect.Value, patch, part map[string]any, directives bool) {
	for key, value := range patch {
		name := patchedField(key, directives)
		f := l.field(name)
		result, is := part[name]
		if f == nil {
			if is || !directives || !strings.HasPrefix(key, "$") {
				m.fail("unknown field %q", key)
			}
			continue
		}
		raw := f.raw(v)
		below, partial := f.partial(key, value, directives)
		tree, isMap := result.(map[string]any)
		switch {
		case !is:
			raw.SetZero()
		case partial && isMap:
			if f.pointer {
				if raw.IsNil() {
					raw.Set(reflect.New(f.layout.goType))
				}
				raw = raw.Elem()
			}
			m.restore(f.layout, raw, below, tree, directives)
		default:
			raw.SetZero()
			m.fill(f.layout, raw, f.pointer, result)
		}
		if m.err != nil {
			return
		}
	}
}

// asTree is the JSON form of a value that is there.
func (l *layout) asTree(v reflect.Value) (any, bool) {
	switch l.form {
	case stringForm, boolForm, intForm, floatForm:
		return l.scalar(v), true
	case invalidForm:
		return nil, false
	case structForm:
		made := make(map[string]any, len(l.fields))
		for i := range l.fields {
			f := &l.fields[i]
			x, s := f.get(v)
			if s == absent {
				continue
			}
			tree, ok := f.layout.asNullable(x, s)
			if !ok {
				return nil, false
			}
			made[f.name] = tree
		}
		return made, true
	case mapForm:
		made := make(map[string]any, v.Len())
		for iter := v.MapRange(); iter.Next(); {
			key := iter.Key().String()
			tree, ok := l.elem.asNullable(l.entry(v, present, key))
			if !ok {
				return nil, false
			}
			made[key] = tree
		}
		return made, true
	case listForm:
		made := make([]any, v.Len())
		for i := range made {
			tree, ok := l.elem.asNullable(l.item(v, i))
			if !ok {
				return nil, false
			}
			made[i] = tree
		}
		return made, true
	}
	switch l.form {
	case bytesForm:
		return base64.StdEncoding.EncodeToString(v.Bytes()), true
	case timeForm:
		return v.Addr().Interface().(*metav1.Time).ToUnstructured(), true
	case quantityForm:
		return v.Addr().Interface().(*resource.Quantity).ToUnstructured(), true
	case intOrStringForm:
		if x := v.Addr().Interface().(*intstr.IntOrString); x.Type == intstr.Int {
			return int64(x.IntVal), true
		} else if x.Type == intstr.String {
			return x.StrVal, true
		}
		return nil, false
	}
	// A type with a JSON form of its own.
	text, err := v.Addr().Interface().(json.Marshaler).MarshalJSON()
	if err != nil {
		return nil, false
	}
	var tree any
	return tree, utiljson.Unmarshal(text, &tree) == nil
}

func (l *layout) asNullable(v reflect.Value, s state) (any, bool) {
	if s != present {
		return nil, true
	}
	return l.asTree(v)
}
