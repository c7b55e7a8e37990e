package kind

import (
	"fmt"
	"reflect"

	"github.com/timonel/timonel/internal/object"
)

// Converted is the same kind under another version, whose objects are converted by c: what holds for the hub's objects
// holds for them. empty makes an object of the version's Go type.
func (d *Definition) Converted(version string, empty func() object.Object, c Conversion) *Definition {
	c.Hub = d
	v := *d
	v.Version, v.New, v.Convert, v.Stored = version, empty, &c, Stored{}
	if d.Default != nil {
		v.Default = func(obj object.Object) { c.defaulted(d, obj) }
	}
	if !c.SameMessage {
		d.Reads(&v)
	}
	return &v
}

// Reads notes another version of the kind in which a server may have stored objects: they are converted as they are read.
func (d *Definition) Reads(v *Definition) {
	if d.Stored.Older == nil {
		d.Stored.Older = map[string]*Definition{}
	}
	d.Stored.Older[v.APIVersion()] = v
}

// Renamed is the same kind under another version whose Go type has the same fields, under the same names in JSON and the same
// numbers in protobuf, or fields besides that are no longer used: only the version's name differs.
func (d *Definition) Renamed(version string, empty func() object.Object) *Definition {
	return d.Converted(version, empty, Conversion{
		SameMessage: true,
		ToHub:       func(obj object.Object) (object.Object, error) { return transcode(obj, d.New()) },
		FromHub:     func(obj object.Object) (object.Object, error) { return transcode(obj, empty()) },
	})
}

// defaulted fills the hub's defaults into an object of the version. One that cannot be converted stays as it is: the request
// that it came with will say so.
func (c *Conversion) defaulted(hub *Definition, obj object.Object) {
	made, err := c.ToHub(obj)
	if err != nil {
		return
	}
	hub.Default(made)
	back, err := c.FromHub(made)
	if err != nil {
		return
	}
	back.GetObjectKind().SetGroupVersionKind(obj.GetObjectKind().GroupVersionKind())
	reflect.ValueOf(obj).Elem().Set(reflect.ValueOf(back).Elem())
}

// transcode copies an object into one of another Go type that has the same protobuf message.
func transcode(from, into object.Object) (object.Object, error) {
	source, ok := from.(interface{ Marshal() ([]byte, error) })
	target, also := into.(interface{ Unmarshal([]byte) error })
	if !ok || !also {
		return nil, fmt.Errorf("convert %T to %T: one has no protobuf form", from, into)
	}
	raw, err := source.Marshal()
	if err == nil {
		err = target.Unmarshal(raw)
	}
	if err != nil {
		return nil, fmt.Errorf("convert %T to %T: %w", from, into, err)
	}
	return into, nil
}
