package cleanjson

import (
	"encoding"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// plan reads a value of one type, which is not null.
type plan func(d *decoder, v reflect.Value) bool

// value reads a value by a plan. null leaves a value empty, as it is.
func (d *decoder) value(p plan, v reflect.Value) bool {
	if d.space() == 'n' && !v.Addr().Type().Implements(unmarshaler) {
		return d.word("null")
	}
	return p(d, v)
}

var (
	plans sync.Map // reflect.Type → plan

	unmarshaler     = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// planOf returns the plan of a type, made on first use. That of a struct looks at its fields when the first one is read, so
// types may hold themselves, and what nobody sends costs nothing.
func planOf(t reflect.Type) plan {
	if p, ok := plans.Load(t); ok {
		return p.(plan)
	}
	p, _ := plans.LoadOrStore(t, newPlan(t))
	return p.(plan)
}

func newPlan(t reflect.Type) plan {
	pointer := reflect.PointerTo(t)
	switch known := wellKnown[t]; {
	case known != nil:
		return known
	case pointer.Implements(unmarshaler):
		return own
	case pointer.Implements(textUnmarshaler):
		return unclean
	}
	switch t.Kind() {
	case reflect.String:
		return text
	case reflect.Bool:
		return boolean
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return integer
	case reflect.Float32, reflect.Float64:
		return float
	case reflect.Pointer:
		if t.Elem().Kind() != reflect.Pointer {
			return pointerTo(t.Elem())
		}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return bytes
		}
		return sliceOf(t)
	case reflect.Map:
		if t.Key().Kind() == reflect.String && !reflect.PointerTo(t.Key()).Implements(textUnmarshaler) {
			return mapOf(t)
		}
	case reflect.Struct:
		return (&structPlan{of: t}).read
	case reflect.Interface:
		if t.NumMethod() == 0 {
			return anything
		}
	}
	return unclean
}

// unclean is the plan of types that are left to others.
func unclean(*decoder, reflect.Value) bool { return false }

// own is the plan of types that read themselves.
func own(d *decoder, v reflect.Value) bool {
	raw, ok := d.raw()
	return ok && v.Addr().Interface().(json.Unmarshaler).UnmarshalJSON(raw) == nil
}

// wellKnown are plans of types that read themselves with encoding/json, which makes two decoders of one.
var wellKnown = map[reflect.Type]plan{
	reflect.TypeFor[metav1.Time](): func(d *decoder, v reflect.Value) bool {
		t, ok := d.time(time.RFC3339)
		*v.Addr().Interface().(*metav1.Time) = metav1.Time{Time: t}
		return ok
	},
	reflect.TypeFor[metav1.MicroTime](): func(d *decoder, v reflect.Value) bool {
		t, ok := d.time(metav1.RFC3339Micro)
		*v.Addr().Interface().(*metav1.MicroTime) = metav1.MicroTime{Time: t}
		return ok
	},
	reflect.TypeFor[intstr.IntOrString](): func(d *decoder, v reflect.Value) bool {
		into := v.Addr().Interface().(*intstr.IntOrString)
		switch d.space() {
		case '"':
			s, ok := d.text()
			*into = intstr.FromString(string(s))
			return ok
		case 'n':
			return false
		}
		into.Type = intstr.Int
		return integer(d, reflect.ValueOf(&into.IntVal).Elem())
	},
}

// time reads a time as metav1 does: in the server's zone, null as zero.
func (d *decoder) time(layout string) (time.Time, bool) {
	if d.space() == 'n' {
		return time.Time{}, d.word("null")
	}
	s, ok := d.text()
	if !ok {
		return time.Time{}, false
	}
	t, err := time.Parse(layout, string(s))
	return t.Local(), err == nil
}

func text(d *decoder, v reflect.Value) bool {
	s, ok := d.text()
	if ok {
		v.SetString(string(s))
	}
	return ok
}

func boolean(d *decoder, v reflect.Value) bool {
	is := d.peek() == 't'
	v.SetBool(is)
	if is {
		return d.word("true")
	}
	return d.word("false")
}

func integer(d *decoder, v reflect.Value) bool {
	text, whole, ok := d.number()
	if !ok || !whole {
		return false
	}
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil || v.OverflowInt(n) {
		return false
	}
	v.SetInt(n)
	return true
}

func float(d *decoder, v reflect.Value) bool {
	text, _, ok := d.number()
	if !ok {
		return false
	}
	f, err := strconv.ParseFloat(string(text), v.Type().Bits())
	if err != nil || v.OverflowFloat(f) {
		return false
	}
	v.SetFloat(f)
	return true
}

func bytes(d *decoder, v reflect.Value) bool {
	s, ok := d.text()
	if !ok {
		return false
	}
	b := make([]byte, base64.StdEncoding.DecodedLen(len(s)))
	n, err := base64.StdEncoding.Decode(b, s)
	v.SetBytes(b[:n])
	return err == nil
}

func anything(d *decoder, v reflect.Value) bool {
	value, ok := d.anything()
	if ok {
		v.Set(reflect.ValueOf(value))
	}
	return ok
}

func pointerTo(t reflect.Type) plan {
	p := planOf(t)
	return func(d *decoder, v reflect.Value) bool {
		v.Set(reflect.New(t))
		return p(d, v.Elem())
	}
}

func sliceOf(t reflect.Type) plan {
	p := planOf(t.Elem())
	room := 4
	if t.Elem().Size() > 128 {
		room = 1
	}
	return func(d *decoder, v reflect.Value) bool {
		v.Set(reflect.MakeSlice(t, 0, room))
		n := 0
		ok := d.elements('[', ']', func() bool {
			if n == v.Cap() {
				v.Grow(1)
			}
			n++
			v.SetLen(n)
			return d.value(p, v.Index(n-1))
		})
		if n == 0 {
			v.Set(reflect.MakeSlice(t, 0, 0))
		}
		return ok
	}
}

func mapOf(t reflect.Type) plan {
	if t == reflect.TypeFor[map[string]string]() {
		return texts
	}
	if t == reflect.TypeFor[map[string]any]() {
		return tree
	}
	key, elem, p := t.Key(), t.Elem(), planOf(t.Elem())
	return func(d *decoder, v reflect.Value) bool {
		made := reflect.MakeMap(t)
		v.Set(made)
		return d.members(func(name []byte) bool {
			k := reflect.New(key).Elem()
			k.SetString(string(name))
			value := reflect.New(elem).Elem()
			if made.MapIndex(k).IsValid() || !d.value(p, value) {
				return false
			}
			made.SetMapIndex(k, value)
			return true
		})
	}
}

func texts(d *decoder, v reflect.Value) bool {
	made := map[string]string{}
	v.Set(reflect.ValueOf(made))
	return d.members(func(key []byte) bool {
		if _, twice := made[string(key)]; twice {
			return false
		}
		name := string(key) // key may be a part of what is read next
		if d.space() == 'n' {
			made[name] = ""
			return d.word("null")
		}
		value, ok := d.text()
		made[name] = string(value)
		return ok
	})
}

func tree(d *decoder, v reflect.Value) bool {
	made, ok := d.object()
	v.Set(reflect.ValueOf(made))
	return ok
}

// structPlan reads a struct.
type structPlan struct {
	of     reflect.Type
	once   sync.Once
	fields map[string]*field // nil: not for us
}

// field is a field of a struct or of one that it embeds.
type field struct {
	number int
	index  []int
	plan   plan
	own    bool // reads null too
}

// maxFields bounds the fields of a struct, so that those seen fit into two words.
const maxFields = 128

func (s *structPlan) read(d *decoder, v reflect.Value) bool {
	s.once.Do(s.compile)
	if s.fields == nil {
		return false
	}
	var seen [maxFields / 64]uint64
	return d.members(func(key []byte) bool {
		f := s.fields[string(key)]
		if f == nil {
			return false
		}
		word, bit := &seen[f.number/64], uint64(1)<<(f.number%64)
		if *word&bit != 0 {
			return false
		}
		*word |= bit
		if d.space() == 'n' && !f.own {
			return d.word("null")
		}
		at := v
		for _, i := range f.index {
			at = at.Field(i)
		}
		return f.plan(d, at)
	})
}

// compile lists the fields by their JSON names as encoding/json does for the structs of API types: embedded structs without a
// name are part of their holder. Structs that need more of its rules have no plan.
func (s *structPlan) compile() {
	fields := map[string]*field{}
	var add func(t reflect.Type, above []int) bool
	add = func(t reflect.Type, above []int) bool {
		for f := range t.Fields() {
			tag := f.Tag.Get("json")
			name, options, _ := strings.Cut(tag, ",")
			index := append(above[:len(above):len(above)], f.Index...)
			switch {
			case tag == "-":
				continue
			case f.Anonymous && name == "":
				if f.Type.Kind() != reflect.Struct || !f.IsExported() || !add(f.Type, index) {
					return false
				}
				continue
			case !f.IsExported():
				continue
			case strings.Contains(options, "string"):
				return false
			case name == "":
				name = f.Name
			}
			if fields[name] != nil || len(fields) == maxFields {
				return false
			}
			fields[name] = &field{number: len(fields), index: index, plan: planOf(f.Type), own: reflect.PointerTo(f.Type).Implements(unmarshaler)}
		}
		return true
	}
	if add(s.of, nil) {
		s.fields = fields
	}
}
