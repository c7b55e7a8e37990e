package engine

import (
	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/patch"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// endpoint is where ownership is recorded: a kind's version and a door to it.
type endpoint struct {
	definition  *kind.Definition
	subresource string
}

// owners returns the keeper of managedFields of an endpoint, made on first use.
func (e *Engine) owners(c *Call) *patch.Ownership {
	at := endpoint{c.Definition, c.Subresource}
	if o, ok := e.ownership.Load(at); ok {
		return o.(*patch.Ownership)
	}
	d := c.Definition
	options := patch.OwnershipOptions{
		Kind: d.GroupVersionKind(), Subresource: c.Subresource, New: d.New, Default: d.Default,
		Hub: d.Hub().APIVersion(), Reset: resetFields(c),
	}
	if d.Convert != nil {
		options.Convert = func(obj object.Object, apiVersion string) (object.Object, error) {
			return convertTo(d, obj, apiVersion)
		}
	}
	if d.Prune != nil { // a custom resource, whose versions differ in name alone
		options.Convert = func(obj object.Object, apiVersion string) (object.Object, error) {
			return rename(d, obj, apiVersion)
		}
	}
	if d.Schema != nil {
		options.Schema = d.Schema
	}
	o, _ := e.ownership.LoadOrStore(at, patch.NewOwnership(options))
	return o.(*patch.Ownership)
}

// convertTo converts between a version and its hub, the only versions known here.
func convertTo(d *kind.Definition, obj object.Object, apiVersion string) (object.Object, error) {
	from := obj.GetObjectKind().GroupVersionKind().GroupVersion().String()
	switch {
	case apiVersion == from:
		return obj, nil
	case apiVersion == d.APIVersion():
		return codec.FromHub(d, obj)
	case apiVersion == d.Hub().APIVersion():
		return codec.ToHub(d, obj)
	}
	return nil, patch.ErrNoVersion
}

// rename gives a custom resource the name of another version of its kind.
func rename(d *kind.Definition, obj object.Object, apiVersion string) (object.Object, error) {
	from := obj.GetObjectKind().GroupVersionKind()
	if apiVersion == from.GroupVersion().String() {
		return obj, nil
	}
	gv, err := schema.ParseGroupVersion(apiVersion)
	if _, known := d.Schema(apiVersion); err != nil || !known {
		return nil, patch.ErrNoVersion
	}
	obj = object.Copy(obj)
	codec.SetKind(obj, gv.WithKind(from.Kind))
	return obj, nil
}

// resetFields are the fields that a write through the call's door does not own.
func resetFields(c *Call) []string {
	switch {
	case c.Sub == nil:
		return c.Definition.Hub().StatusFields
	case c.Sub.View != nil:
		return c.Sub.View.ResetFields
	}
	return nil
}
