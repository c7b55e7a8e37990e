package patch

import (
	"cmp"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	smd "sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/value"
)

// layout is a Go type seen through a type of the schema: where its fields are,
// which of them are there, and how its values are compared. Layouts are made once and shared
// by all kinds; they may refer to each other in circles.
type layout struct {
	form    form
	typ     *typ
	goType  reflect.Type  // never a pointer
	atomic  bool          // owned and compared as a whole
	fields  []fieldLayout // of a struct, by JSON name
	keys    []keyLayout   // of an item of a list with keys, by name
	keyless bool          // of a list with keys: an item may have none of them
	// suspects are the fields of a struct that are keyless lists, or structs with such a field. Few kinds have one.
	suspects []*fieldLayout
	elem     *layout // of a map's value or a list's item
	// pointers: the items of the list or map are pointers.
	pointers bool
	convert  *value.TypeReflectCacheEntry // of otherForm
}

// form is how a Go value is read.
type form uint8

const (
	invalidForm form = iota // the schema does not fit the Go type
	stringForm
	boolForm
	intForm
	floatForm
	bytesForm
	structForm
	mapForm
	listForm
	timeForm
	microTimeForm
	quantityForm
	intOrStringForm
	otherForm // turned into a tree first
)

type fieldLayout struct {
	name     string
	element  string
	path     []int // of field indexes, through embedded structs
	offset   uintptr
	blank    blankness
	pointer  bool
	strategy string // of strategic merge patches, as in the struct tag
	omit     omission
	omitZero func(reflect.Value) bool
	layout   *layout
}

// omission says when a field is left out of the JSON form.
type omission uint8

const (
	never     omission = iota
	whenEmpty          // omitempty
	whenZero           // omitzero
	whenEither
)

// blankness is how to tell by a look at its memory that a field is left out because it is empty. Most fields of most objects are, and
// to ask reflection about each of them was half of what a comparison costs.
type blankness uint8

const (
	unseen  blankness = iota // ask get
	noWord                   // a pointer or map that is nil
	noText                   // a string
	noItems                  // a list
	noByte                   // a number or boolean of this size
	noHalf
	noLong
)

func blanknessOf(t reflect.Type) blankness {
	switch t.Kind() {
	case reflect.Pointer, reflect.Map:
		return noWord
	case reflect.String:
		return noText
	case reflect.Slice:
		return noItems
	case reflect.Bool, reflect.Int8:
		return noByte
	case reflect.Int32:
		return noHalf
	case reflect.Int64:
		return noLong
	}
	return unseen
}

// isBlank reports whether get would find the field absent, if that is seen at once. of is the struct that has it.
func (f *fieldLayout) isBlank(of unsafe.Pointer) bool {
	at := unsafe.Add(of, f.offset)
	switch f.blank {
	case noWord:
		return *(*unsafe.Pointer)(at) == nil
	case noText:
		return len(*(*string)(at)) == 0
	case noItems:
		return len(*(*[]struct{})(at)) == 0
	case noByte:
		return *(*uint8)(at) == 0
	case noHalf:
		return *(*uint32)(at) == 0
	case noLong:
		return *(*uint64)(at) == 0
	}
	return false
}

type keyLayout struct {
	field *fieldLayout // nil: the type has no such field
	name  string
	value any // default
}

// state is whether a value is there.
type state uint8

const (
	absent state = iota
	null
	present
)

var layouts = struct {
	sync.Mutex
	made map[layoutKey]*layout
}{made: map[layoutKey]*layout{}}

type layoutKey struct {
	goType reflect.Type
	typ    *typ
}

// layoutFor returns the layout of a Go type, which must not be a pointer.
func layoutFor(goType reflect.Type, t *typ) *layout {
	layouts.Lock()
	defer layouts.Unlock()
	return makeLayout(goType, t)
}

func makeLayout(goType reflect.Type, t *typ) *layout {
	key := layoutKey{goType, t}
	if l, ok := layouts.made[key]; ok {
		return l
	}
	l := &layout{typ: t, goType: goType}
	layouts.made[key] = l
	if t == nil {
		return l
	}
	scalar := func(f form, fits ...smd.Scalar) {
		if slices.Contains(fits, t.scalar) || t.scalar == smd.Untyped {
			l.form = f
		}
	}
	switch goType {
	case reflect.TypeFor[metav1.Time]():
		scalar(timeForm, smd.String)
		return l
	case reflect.TypeFor[metav1.MicroTime]():
		scalar(microTimeForm, smd.String)
		return l
	case reflect.TypeFor[resource.Quantity]():
		scalar(quantityForm, smd.String)
		return l
	case reflect.TypeFor[intstr.IntOrString]():
		scalar(intOrStringForm)
		return l
	}
	if marshaler := reflect.TypeFor[json.Marshaler](); goType.Implements(marshaler) || reflect.PointerTo(goType).Implements(marshaler) {
		l.form, l.convert = otherForm, value.TypeReflectEntryOf(goType)
		return l
	}
	switch goType.Kind() {
	case reflect.String:
		scalar(stringForm, smd.String)
	case reflect.Bool:
		scalar(boolForm, smd.Boolean)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		scalar(intForm, smd.Numeric)
	case reflect.Float32, reflect.Float64:
		scalar(floatForm, smd.Numeric)
	case reflect.Struct:
		if t.fields != nil {
			l.form, l.atomic = structForm, t.fields.atomic
			l.fields = fieldLayouts(goType, t.fields, nil, 0)
			slices.SortFunc(l.fields, func(a, b fieldLayout) int { return cmp.Compare(a.name, b.name) })
			for i := range l.fields {
				if below := l.fields[i].layout; below.keyless || len(below.suspects) > 0 {
					l.suspects = append(l.suspects, &l.fields[i])
				}
			}
		}
	case reflect.Map:
		if t.fields != nil && goType.Key().Kind() == reflect.String && len(t.fields.fields) == 0 {
			l.form, l.atomic = mapForm, t.fields.atomic
			l.elem, l.pointers = elemLayout(goType.Elem(), t.fields.elem)
		}
	case reflect.Slice:
		if goType.Elem().Kind() == reflect.Uint8 {
			scalar(bytesForm, smd.String)
		} else if t.list != nil {
			l.form, l.atomic = listForm, t.list.atomic
			l.elem, l.pointers = elemLayout(goType.Elem(), t.list.elem)
			if !l.atomic && !l.readKeys() {
				l.form = invalidForm
			}
		}
	}
	return l
}

func elemLayout(goType reflect.Type, t *typ) (*layout, bool) {
	if goType.Kind() == reflect.Pointer {
		return makeLayout(goType.Elem(), t), true
	}
	return makeLayout(goType, t), false
}

// readKeys finds where the keys of the list's items are. It reports whether the
// items can be told apart.
func (l *layout) readKeys() bool {
	if len(l.typ.list.keys) == 0 {
		return l.elem.form >= stringForm && l.elem.form <= floatForm
	}
	// The item's own layout may be half made; its Go fields are enough here.
	elem := l.elem
	if elem.goType.Kind() != reflect.Struct || elem.typ == nil || elem.typ.fields == nil {
		return false
	}
	fields := fieldLayouts(elem.goType, elem.typ.fields, nil, 0)
	l.keyless = true
	for _, name := range l.typ.list.keys {
		k := keyLayout{name: name}
		if t := elem.typ.fields.field(name); t != nil {
			k.value = t.scalar
		}
		for i := range fields {
			if fields[i].name == name {
				field := fields[i] // the others are not kept
				k.field = &field
				if f := k.field.layout.form; f != stringForm && f != intForm && f != boolForm {
					return false
				}
			}
		}
		if k.value != nil || k.field != nil && k.field.omit == never {
			l.keyless = false
		}
		l.keys = append(l.keys, k)
	}
	return true
}

func fieldLayouts(goType reflect.Type, m *mapType, path []int, offset uintptr) []fieldLayout {
	var fields []fieldLayout
	for i := range goType.NumField() {
		f := goType.Field(i)
		tag := f.Tag.Get("json")
		if tag == "-" || f.PkgPath != "" && !f.Anonymous {
			continue
		}
		name, options, _ := strings.Cut(tag, ",")
		at := append(slices.Clone(path), i)
		if f.Anonymous && name == "" {
			if f.Type.Kind() == reflect.Struct {
				fields = append(fields, fieldLayouts(f.Type, m, at, offset+f.Offset)...)
			} else {
				// An embedded pointer: no kind of k8s.io/api has one.
				fields = append(fields, fieldLayout{name: f.Name, path: at, layout: &layout{}})
			}
			continue
		}
		if name == "" {
			name = f.Name
		}
		if goType == reflect.TypeFor[metav1.ObjectMeta]() && name == "managedFields" {
			continue // they are what is computed
		}
		field := fieldLayout{name: name, element: fieldElement(name), path: at, offset: offset + f.Offset, strategy: f.Tag.Get("patchStrategy")}
		for option := range strings.SplitSeq(options, ",") {
			switch option {
			case "omitempty":
				field.omit |= whenEmpty
				field.blank = blanknessOf(f.Type)
			case "omitzero":
				field.omit |= whenZero
				field.omitZero = value.OmitZeroFunc(f.Type)
			}
		}
		t := f.Type
		if t.Kind() == reflect.Pointer {
			field.pointer = true
			t = t.Elem()
		}
		field.layout = makeLayout(t, m.typeOf(name))
		fields = append(fields, field)
	}
	return fields
}

// get returns the field of a struct, with pointers followed, and whether it is there.
func (f *fieldLayout) get(of reflect.Value) (reflect.Value, state) {
	v := of
	for _, i := range f.path {
		v = v.Field(i)
	}
	if f.pointer {
		if v.IsNil() {
			if f.omit&whenEmpty != 0 {
				return reflect.Value{}, absent
			}
			if f.omit&whenZero != 0 && f.omitZero(v) {
				return reflect.Value{}, absent
			}
			return reflect.Value{}, null
		}
		if f.omit&whenZero != 0 && f.omitZero(v) {
			return reflect.Value{}, absent
		}
		v = v.Elem()
		return v, f.layout.state(v)
	}
	if f.omit != never {
		if f.omit&whenEmpty != 0 && isEmpty(v) || f.omit&whenZero != 0 && f.omitZero(v) {
			return reflect.Value{}, absent
		}
	}
	return v, f.layout.state(v)
}

// memory is where a struct lies.
func memory(v reflect.Value) unsafe.Pointer { return v.Addr().UnsafePointer() }

// state of a value that is not left out.
func (l *layout) state(v reflect.Value) state {
	switch l.form {
	case mapForm, listForm, bytesForm:
		if v.IsNil() {
			return null
		}
	case timeForm:
		if v.Addr().Interface().(*metav1.Time).IsZero() {
			return null
		}
	case microTimeForm:
		if v.Addr().Interface().(*metav1.MicroTime).IsZero() {
			return null
		}
	}
	return present
}

// isEmpty is what omitempty means.
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Map, reflect.Slice, reflect.String, reflect.Array:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

// hasNothing reports whether a map, list or struct that is there has no content.
func (l *layout) hasNothing(v reflect.Value) bool {
	if l.form != structForm {
		return v.Len() == 0
	}
	at := memory(v)
	for i := range l.fields {
		if f := &l.fields[i]; !f.isBlank(at) {
			if _, s := f.get(v); s != absent {
				return false
			}
		}
	}
	return true
}

// lacksKey reports whether a struct holds an item without any of its keys. The reference implementation refuses such an object,
// whatever changes in it.
func (l *layout) lacksKey(v reflect.Value) bool {
	for _, f := range l.suspects {
		below, s := f.get(v)
		switch {
		case s != present:
		case f.layout.form == structForm:
			if f.layout.lacksKey(below) {
				return true
			}
		default:
			for i := range below.Len() {
				item, s := f.layout.item(below, i)
				has := func(k keyLayout) bool {
					if k.field == nil {
						return false
					}
					_, s := k.field.get(item)
					return s == present
				}
				if s == present && !slices.ContainsFunc(f.layout.keys, has) {
					return true
				}
			}
		}
	}
	return false
}

// scalar is the value of a stringForm, boolForm, intForm or floatForm.
func (l *layout) scalar(v reflect.Value) any {
	switch l.form {
	case stringForm:
		return v.String()
	case boolForm:
		return v.Bool()
	case intForm:
		return v.Int()
	case floatForm:
		return v.Float()
	}
	return nil
}
