package engine

import (
	"context"
	"errors"

	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/watchcache"
	"github.com/timonel/timonel/internal/trace"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Reader reads stored objects for the server's own rooms: admission, authorization, jobs.
func (e *Engine) Reader() kind.Reader { return reader{e} }

// Objects reads and changes stored objects on the server's own behalf.
func (e *Engine) Objects() kind.Objects { return objects{reader: reader{e}} }

// reader reads the cache as it is, but what this server has answered it shows.
type reader struct{ e *Engine }

func (r reader) definition(resource schema.GroupResource) (*kind.Definition, error) {
	d := r.e.Catalog.Catalog().Hub(resource)
	if d == nil {
		return nil, apierrors.NewNotFound(resource, "")
	}
	return d, nil
}

// kept is definition, and returns when the cache shows what this server has answered about the kind.
func (r reader) kept(ctx context.Context, resource schema.GroupResource) (*kind.Definition, error) {
	d, err := r.definition(resource)
	if err != nil {
		return nil, err
	}
	if view := r.e.view(d); view != nil {
		err = r.e.keep(ctx, view)
	}
	return d, err
}

func (r reader) Get(ctx context.Context, resource schema.GroupResource, namespace, name string) (object.Object, error) {
	d, err := r.kept(ctx, resource)
	if err != nil {
		return nil, err
	}
	obj, _, err := r.e.current(ctx, d, namespace, name, false)
	if apierrors.IsNotFound(err) { // as far as the cache has heard
		obj, _, err = r.e.current(ctx, d, namespace, name, true)
	}
	return obj, err
}

func (r reader) List(ctx context.Context, resource schema.GroupResource, namespace string) ([]object.Object, error) {
	return r.list(ctx, resource, namespace, codec.DecodeVersion)
}

func (r reader) list(ctx context.Context, resource schema.GroupResource, namespace string, decode func(*kind.Definition, *watchcache.Version) (object.Object, error)) ([]object.Object, error) {
	d, err := r.kept(ctx, resource)
	if err != nil {
		return nil, err
	}
	view, err := r.e.loaded(ctx, d)
	if err != nil {
		return nil, err
	}
	if view == nil {
		return nil, apierrors.NewNotFound(resource, "")
	}
	var list []object.Object
	for _, v := range view.Latest().List(watchcache.Query{Namespace: namespace}).Versions {
		obj, err := decode(d, v)
		if err != nil {
			continue // told to whoever asks for it by name
		}
		list = append(list, obj)
	}
	return list, nil
}

type objects struct {
	reader
	trace *trace.Record // of the request on whose behalf it is done; nil: none
}

func (o objects) call(resource schema.GroupResource, namespace, name string) (*Call, error) {
	d, err := o.definition(resource)
	return &Call{Definition: d, Namespace: namespace, Name: name, Manager: "kube-apiserver", Trace: o.trace}, err
}

// Get reads what was committed before the call: a client may ask for a job on what another server has just answered.
func (o objects) Get(ctx context.Context, resource schema.GroupResource, namespace, name string) (object.Object, error) {
	d, err := o.definition(resource)
	if err != nil {
		return nil, err
	}
	obj, _, err := o.e.current(ctx, d, namespace, name, true)
	return obj, err
}

// List is like Get.
func (o objects) List(ctx context.Context, resource schema.GroupResource, namespace string) ([]object.Object, error) {
	if err := o.e.Fresh(ctx); err != nil {
		return nil, err
	}
	return o.reader.List(ctx, resource, namespace)
}

// Change is documented at kind.Objects.
func (o objects) Change(ctx context.Context, resource schema.GroupResource, namespace, name string, change func(object.Object) error, options kind.ChangeOptions) (object.Object, error) {
	c, err := o.call(resource, namespace, name)
	if err != nil {
		return nil, err
	}
	if options.Subresource != "" {
		c.Subresource, c.Sub = options.Subresource, c.Definition.Subresources[options.Subresource]
	}
	if !options.Raw {
		result, err := o.e.write(ctx, c, writeOptions{verb: "update", dryRun: options.DryRun, internal: true}, func(old object.Object) (object.Object, error) {
			obj := object.Copy(old)
			return obj, change(obj)
		})
		return result.Item.Object, err
	}
	for {
		obj, version, err := o.e.current(ctx, c.Definition, namespace, name, true)
		if err != nil {
			return nil, err
		}
		old := object.Copy(obj)
		if err := change(obj); err != nil {
			return nil, err
		}
		result, err := o.e.store(ctx, c, c.Definition, options.DryRun, obj, old, version, true, nil)
		var conflict *storage.ConflictError
		if errors.As(err, &conflict) && ctx.Err() == nil {
			continue
		}
		return result.Item.Object, err
	}
}

// Create is documented at kind.Objects.
func (o objects) Create(ctx context.Context, resource schema.GroupResource, obj object.Object) (object.Object, error) {
	c, err := o.call(resource, obj.GetNamespace(), obj.GetName())
	if err != nil {
		return nil, err
	}
	d := c.Definition
	if d.Default != nil {
		d.Default(obj)
	}
	if err := o.e.beginCreate(c, obj); err != nil {
		return nil, err
	}
	o.e.own(c, nil, obj, "")
	o.e.prepareNew(ctx, d, obj)
	if errs := o.e.validateNew(ctx, d, obj); len(errs) > 0 {
		return nil, invalid(d, obj.GetName(), errs)
	}
	codec.SetKind(obj, d.GroupVersionKind())
	_, err = o.e.storeNew(ctx, c, d, obj, false, nil)
	return obj, err
}

// Delete is documented at kind.Objects.
func (o objects) Delete(ctx context.Context, resource schema.GroupResource, namespace, name string, options metav1.DeleteOptions) error {
	c, err := o.call(resource, namespace, name)
	if err != nil {
		return err
	}
	_, err = o.e.Delete(ctx, c, options)
	return err
}

// maxBatch bounds the objects of one transaction (etcd's --max-txn-ops).
const maxBatch = 120

// CreateAll creates those of the seeds that do not exist, in few transactions. Their maker vouches for
// them: they are neither prepared nor validated, and keep their status.
func (o objects) CreateAll(ctx context.Context, seeds []kind.Seed) error {
	for len(seeds) > 0 {
		n := min(len(seeds), maxBatch)
		err := o.createBatch(ctx, seeds[:n])
		if errors.Is(err, storage.ErrConflict) && n > 1 { // some exist: one by one
			for i := range n {
				if err = o.createBatch(ctx, seeds[i:i+1]); errors.Is(err, storage.ErrConflict) {
					err = nil
				}
				if err != nil {
					break
				}
			}
		}
		if err != nil && !errors.Is(err, storage.ErrConflict) {
			return err
		}
		seeds = seeds[n:]
	}
	return nil
}

func (o objects) createBatch(ctx context.Context, seeds []kind.Seed) error {
	var txn storage.Txn
	for _, seed := range seeds {
		obj := object.Copy(seed.Object)
		c, err := o.call(seed.Resource, obj.GetNamespace(), obj.GetName())
		if err != nil {
			return err
		}
		d := c.Definition
		if d.Default != nil {
			d.Default(obj)
		}
		codec.SetKind(obj, d.GroupVersionKind())
		if err := o.e.beginCreate(c, obj); err != nil {
			return err
		}
		o.e.own(c, nil, obj, seed.Manager)
		if d.Generation != nil {
			obj.SetGeneration(1)
		}
		value, err := codec.EncodeStored(d, obj)
		if err != nil {
			return err
		}
		key := o.e.key(d, c.Namespace, c.Name)
		txn.If = append(txn.If, storage.Condition{Key: key})
		txn.Then = append(txn.Then, storage.Op{Key: key, Value: value})
	}
	_, err := o.e.Store.Commit(ctx, txn)
	return err
}
