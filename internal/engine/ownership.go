package engine

import (
	"errors"

	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/patch"
	"github.com/timonel/timonel/internal/storage"
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
	if d.Convert != nil || e.Catalog.Catalog().Versioned(d) {
		options.Convert = func(obj object.Object, apiVersion string) (object.Object, error) {
			return e.convertTo(d, obj, apiVersion)
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
	if c.Sub != nil && c.Sub.View != nil && len(c.Sub.View.OwnsOnly) > 0 {
		options.Filter = patch.Only(c.Sub.View.OwnsOnly)
	}
	o, _ := e.ownership.LoadOrStore(at, patch.NewOwnership(options))
	return o.(*patch.Ownership)
}

// forgetOwners takes the managedFields of an object that is too large to be stored with them, and reports whether it may be tried
// again. What an apply owns is its purpose, and stays.
func (c *Call) forgetOwners(err error, obj object.Object) bool {
	if !errors.Is(err, storage.ErrTooLarge) || c.applies || len(obj.GetManagedFields()) == 0 {
		return false
	}
	obj.SetManagedFields(nil)
	return true
}

// convertTo converts between the versions of a kind that are served, by way of the hub.
func (e *Engine) convertTo(d *kind.Definition, obj object.Object, apiVersion string) (object.Object, error) {
	from := obj.GetObjectKind().GroupVersionKind().GroupVersion().String()
	if apiVersion == from {
		return obj, nil
	}
	source, target := e.variant(d, from), e.variant(d, apiVersion)
	if source == nil || target == nil {
		return nil, patch.ErrNoVersion
	}
	hub, err := codec.ToHub(source, obj)
	if err != nil {
		return nil, err
	}
	return codec.FromHub(target, hub)
}

// variant is the definition of a kind in another version, or nil. The hub is one even if it is not served.
func (e *Engine) variant(d *kind.Definition, apiVersion string) *kind.Definition {
	hub := d.Hub()
	if apiVersion == hub.APIVersion() {
		return hub
	}
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return nil
	}
	if v := e.Catalog.Catalog().Kind(gv.WithKind(d.Kind)); v != nil && v.Hub() == hub {
		return v
	}
	return nil
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
