package codec

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// shape is a Go type of the API as a transcoder sees it: how its protobuf message becomes its JSON object. It is
// read off the struct tags once for each type.
type shape struct {
	members  []property // in the order in which encoding/json writes them
	byNumber []int16    // index in members by protobuf number; -1: not a member
}

// property is one field of a message.
type property struct {
	name     []byte // `"name":`
	number   protowire.Number
	typ      protowire.Type // on the wire
	absent   []byte         // what is written when the field is not there; nil: nothing, or see zero
	zero     bool           // not there means that its zero value is written
	omit     bool           // an empty value is not written
	pointer  bool           // there means that it is written, empty or not
	many     many
	spelling spelling
	of       *shape // of nested and inline
	item     *property
}

// many says how often a field may occur.
type many uint8

const (
	once many = iota
	repeated
	keyed  // a map: repeated entries of key and value, the value as item says
	listed // a value of a map only: a message around a repeated field, for named slices such as ExtraValue
)

// spelling is how one value becomes JSON.
type spelling uint8

const (
	text spelling = iota
	base64Bytes
	boolean
	int32Number
	int64Number
	nested // a message that is an object
	inline // a message whose members belong to the object around it
	timeText
	microTimeText
	durationText
	quantityText
	intOrText
	rawJSON // RawExtension and FieldsV1: a message around JSON text
)

// specials are the types that write their own JSON.
var specials = map[reflect.Type]spelling{
	reflect.TypeFor[metav1.Time]():          timeText,
	reflect.TypeFor[metav1.MicroTime]():     microTimeText,
	reflect.TypeFor[metav1.Duration]():      durationText,
	reflect.TypeFor[resource.Quantity]():    quantityText,
	reflect.TypeFor[intstr.IntOrString]():   intOrText,
	reflect.TypeFor[runtime.RawExtension](): rawJSON,
	reflect.TypeFor[metav1.FieldsV1]():      rawJSON,
}

// errShape says that a type has something that a transcoder does not know. Its objects are decoded and encoded.
var errShape = errors.New("type cannot be transcoded")

var (
	shapes     sync.Map // reflect.Type of a struct → *shape, nil if it has none
	typeMetaOf = reflect.TypeFor[metav1.TypeMeta]()
	metaShape  = sync.OnceValue(func() *shape { return shapeOf(reflect.TypeFor[metav1.ObjectMeta]()) })
)

// shapeOf returns the shape of an object's Go type, or nil if it cannot be transcoded.
func shapeOf(t reflect.Type) *shape {
	if s, ok := shapes.Load(t); ok {
		return s.(*shape)
	}
	s, err := (&shaper{}).shape(t)
	if err != nil {
		s = nil
	}
	shapes.Store(t, s)
	return s
}

// shaper makes the shapes of a type and of all that it holds.
type shaper struct {
	made map[reflect.Type]*shape // types may hold themselves
}

func (c *shaper) shape(t reflect.Type) (*shape, error) {
	if s := c.made[t]; s != nil {
		return s, nil
	}
	outermost := c.made == nil
	if outermost {
		c.made = map[reflect.Type]*shape{}
	}
	s := &shape{}
	c.made[t] = s
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" && options == "" || f.Type == typeMetaOf && outermost {
			continue // the type of an object is in its envelope
		}
		m, err := c.property(f, name, options)
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", t, f.Name, err)
		}
		s.members = append(s.members, m)
	}
	if names := s.names(nil); len(slices.Compact(slices.Sorted(slices.Values(names)))) != len(names) {
		return nil, fmt.Errorf("%s: two fields of one name: %w", t, errShape)
	}
	for i, m := range s.members {
		for len(s.byNumber) <= int(m.number) {
			s.byNumber = append(s.byNumber, -1)
		}
		s.byNumber[m.number] = int16(i)
	}
	return s, nil
}

// names are the JSON names of an object, those of inline members among them.
func (s *shape) names(all []string) []string {
	for _, m := range s.members {
		if m.spelling == inline {
			all = m.of.names(all)
		} else {
			all = append(all, string(m.name))
		}
	}
	return all
}

func (c *shaper) property(f reflect.StructField, name, options string) (m property, err error) {
	parts := strings.Split(f.Tag.Get("protobuf"), ",")
	if len(parts) < 2 {
		return m, fmt.Errorf("no protobuf field: %w", errShape)
	}
	number, err := strconv.Atoi(parts[1])
	if err != nil || number < 1 || number > maxNumber || options == "string" {
		return m, errShape
	}
	m, err = c.value(f.Type)
	if err != nil || m.many == listed {
		return m, errors.Join(err, errShape)
	}
	m.number, m.typ = protowire.Number(number), m.wire()
	if f.Anonymous && name == "" {
		if m.spelling != nested || m.many != once || m.pointer {
			return m, errShape
		}
		m.spelling, m.zero = inline, true
		return m, nil
	}
	if name == "" {
		name = f.Name
	}
	quoted, err := json.Marshal(name)
	m.name = append(quoted, ':')
	for option := range strings.SplitSeq(options, ",") {
		switch option {
		case "omitempty":
			m.omit = m.omit || m.hasEmpty()
		case "omitzero":
			if m.spelling != timeText || m.many != once || m.pointer {
				return m, errShape
			}
			m.omit = true
		case "", "inline":
		default:
			return m, errShape
		}
	}
	m.absence()
	return m, err
}

// maxNumber bounds the numbers of fields, and with them the size of a shape.
const maxNumber = 1000

// hasEmpty reports whether encoding/json counts a value of the field as empty: structs never are.
func (m *property) hasEmpty() bool {
	return m.pointer || m.many != once || m.spelling <= int64Number
}

// absence settles what is written for a field that is not there.
func (m *property) absence() {
	switch {
	case m.omit:
	case m.pointer, m.many != once, m.spelling == base64Bytes:
		m.absent = append(slices.Clone(m.name), "null,"...)
	default:
		m.zero = true
	}
}

// wire is the protobuf type of the field.
func (m *property) wire() protowire.Type {
	switch {
	case m.many == repeated:
		return m.item.typ
	case m.many == once && (m.spelling == boolean || m.spelling == int32Number || m.spelling == int64Number):
		return protowire.VarintType
	}
	return protowire.BytesType
}

// value makes a property for values of a Go type.
func (c *shaper) value(t reflect.Type) (m property, err error) {
	if t.Kind() == reflect.Pointer {
		if m, err = c.value(t.Elem()); m.pointer || m.many != once {
			return m, errShape
		}
		m.pointer = true
		return m, err
	}
	if special, ok := specials[t]; ok {
		m.spelling = special
		return m, nil
	}
	if implements(t, reflect.TypeFor[json.Marshaler]()) || implements(t, reflect.TypeFor[interface{ MarshalText() ([]byte, error) }]()) {
		return m, errShape
	}
	switch t.Kind() {
	case reflect.String:
		m.spelling = text
	case reflect.Bool:
		m.spelling = boolean
	case reflect.Int32:
		m.spelling = int32Number
	case reflect.Int64:
		m.spelling = int64Number
	case reflect.Struct:
		m.spelling = nested
		m.of, err = c.shape(t)
	case reflect.Slice:
		return c.slice(t)
	case reflect.Map:
		return c.mapping(t)
	default:
		err = errShape
	}
	return m, err
}

func (c *shaper) slice(t reflect.Type) (m property, err error) {
	if t.Elem().Kind() == reflect.Uint8 {
		m.spelling = base64Bytes
		return m, nil
	}
	item, err := c.value(t.Elem())
	if err != nil || item.pointer || item.many != once {
		return m, errors.Join(err, errShape)
	}
	item.typ = item.wire()
	m.many, m.item = repeated, &item
	if implements(t, reflect.TypeFor[message]()) {
		m.many = listed
	}
	return m, nil
}

func (c *shaper) mapping(t reflect.Type) (m property, err error) {
	item, err := c.value(t.Elem())
	if err != nil || t.Key().Kind() != reflect.String || item.pointer || item.many != once && item.many != listed || implements(t, reflect.TypeFor[message]()) {
		return m, errors.Join(err, errShape)
	}
	item.typ = item.wire()
	m.many, m.item = keyed, &item
	return m, nil
}

func implements(t, what reflect.Type) bool {
	return t.Implements(what) || reflect.PointerTo(t).Implements(what)
}
