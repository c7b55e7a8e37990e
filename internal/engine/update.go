package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/timonel/timonel/internal/admission"
	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/watchcache"
	"github.com/timonel/timonel/internal/trace"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Update replaces an object with what the client sent.
func (e *Engine) Update(ctx context.Context, c *Call, body Body, options metav1.UpdateOptions) (Result, error) {
	c.Trace.Enter(trace.Decode)
	if c.Sub != nil && c.Sub.Scale != nil {
		return e.updateScale(ctx, c, body, options)
	}
	sent, err := e.sent(c, body)
	if err != nil {
		return Result{}, err
	}
	if c.Definition.MustMatch && sent.GetResourceVersion() == "" && (c.Sub == nil || c.Sub.View != nil) {
		if _, _, err := e.current(ctx, c.Definition, c.Namespace, c.Name, true); err == nil || !c.Definition.CreateOnPut {
			if err != nil {
				return Result{}, err
			}
			return Result{}, mustMatch(c.Definition, c.Name)
		}
	}
	// A try uses up what was sent; the next one, which is rare, decodes it again.
	uid, used := sent.GetUID(), false
	take := func() (object.Object, error) {
		if used {
			return e.sent(c, body)
		}
		used = true
		return sent, nil
	}
	result, err := e.write(ctx, c, writeOptions{
		manager: options.FieldManager, dryRun: dryRun(options.DryRun), options: &options, verb: "update",
		versionText: sent.GetResourceVersion(), uid: uid,
	}, func(object.Object) (object.Object, error) { return take() })
	if apierrors.IsNotFound(err) && c.Definition.CreateOnPut && c.Sub == nil && uid == "" {
		if c.MayCreate != nil {
			if err := c.MayCreate(ctx); err != nil {
				return Result{}, err
			}
		}
		if sent, err = take(); err != nil {
			return Result{}, err
		}
		sent.SetResourceVersion("")
		return e.create(ctx, c, sent, metav1.CreateOptions{DryRun: options.DryRun, FieldManager: options.FieldManager, FieldValidation: options.FieldValidation})
	}
	return result, err
}

// sent decodes the body of an update.
func (e *Engine) sent(c *Call, body Body) (object.Object, error) {
	obj, err := e.decode(c, c.Definition, body)
	if err != nil {
		return nil, err
	}
	return obj, matchURL(c, obj)
}

// matchURL refuses a body whose name or namespace is not that of the URL.
func matchURL(c *Call, obj object.Object) error {
	if obj.GetName() == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s based on URL) was undeterminable: name must be provided", c.Name))
	}
	if obj.GetName() != c.Name {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", obj.GetName(), c.Name))
	}
	return matchNamespace(c, obj)
}

func mustMatch(d *kind.Definition, name string) error {
	err := apierrors.NewInvalid(d.GroupKind(), name, field.ErrorList{field.Invalid(field.NewPath("metadata").Child("resourceVersion"), 0, "must be specified for an update")})
	err.ErrStatus.Details.Kind = d.Plural
	err.ErrStatus.Message = fmt.Sprintf("%s %q is invalid: %s", d.GroupResource(), name, err.ErrStatus.Details.Causes[0].Field+": "+err.ErrStatus.Details.Causes[0].Message)
	return err
}

// writeOptions are what the ways to write (update, patch, apply) have in common.
type writeOptions struct {
	verb        string
	manager     string
	dryRun      bool
	options     runtime.Object // for admission
	versionText string         // resourceVersion that must still be the newest; "": any
	uid         types.UID
	// internal: a write of the server's own, without admission.
	internal bool
	// owned: the transform recorded field ownership itself (apply).
	owned bool
	// version, when set, is asked of each transformed object instead of versionText (patch).
	versionOf func(obj object.Object) string
}

// write changes one object: read, transform, change, check, commit, again from the
// start when another write came between. transform gets the newest object, in the hub's form, and
// returns another one: what it shall become.
func (e *Engine) write(ctx context.Context, c *Call, o writeOptions, transform func(old object.Object) (object.Object, error)) (Result, error) {
	d := c.Definition.Hub()
	fresh := o.dryRun // it commits nothing that would tell that the cache is behind
	taken := 0
	warned := len(c.warnings)
	for {
		if err := ctx.Err(); err != nil {
			return Result{}, late(err)
		}
		c.warnings = c.warnings[:warned]
		old, version, err := e.current(ctx, d, c.Namespace, c.Name, fresh)
		if err == nil {
			var result Result
			result, err = e.writeOnce(ctx, c, d, o, old, version, fresh, transform)
			if err == nil {
				return result, nil
			}
		}
		var conflict *storage.ConflictError
		switch {
		case errors.Is(err, errCompanionTaken) && taken < maxReserveTries:
			taken++
			fresh = true // choose again, of what is left
		case errors.As(err, &conflict):
			fresh = true // another write came between: begin again on what it left
		case apierrors.IsServerTimeout(err):
			return Result{}, err // it may have been made: a second try would meet its own first, as a conflict or twice
		case !fresh:
			fresh = true // judged on what the cache had, which may be old: judge again on the newest
		default:
			return Result{}, err
		}
	}
}

// errStale says that a no-op was found on an object that may be old.
var errStale = errors.New("the object must be read again")

func (e *Engine) writeOnce(ctx context.Context, c *Call, d *kind.Definition, o writeOptions, old object.Object, version *watchcache.Version, fresh bool, transform func(object.Object) (object.Object, error)) (Result, error) {
	var view *kind.View
	if c.Sub != nil {
		view = c.Sub.View
	}
	obj, err := transform(old)
	if err != nil {
		return Result{}, err
	}
	if err := preconditions(e, d, c, o, obj, old); err != nil {
		return Result{}, err
	}
	keepSystemFields(d, obj, old)
	if !o.owned {
		prepareUpdate(ctx, d, view, obj, old)
		e.own(c, old, obj, o.manager)
	}
	request := &admission.Request{
		Operation: admission.Update, Definition: c.Definition, Subresource: c.Subresource, Namespace: c.Namespace, Name: c.Name,
		Object: obj, Old: old, Options: o.options, User: c.User, DryRun: o.dryRun,
	}
	if !o.internal {
		if obj, err = e.change(ctx, c, request); err != nil {
			return Result{}, err
		}
	}
	c.Trace.Enter(trace.Check)
	dropDuplicateOwners(c, obj)
	prepareUpdate(ctx, d, view, obj, old)
	keepSystemFields(d, obj, old)
	if d.Generation != nil && d.Generation(obj, old) {
		obj.SetGeneration(old.GetGeneration() + 1)
	}
	obj.SetResourceVersion(old.GetResourceVersion())
	if errs := e.validateUpdate(ctx, checkedBy(c.Definition), view, obj, old); len(errs) > 0 {
		return Result{}, invalid(d, obj.GetName(), errs)
	}
	if warn := warnings(d, view); warn != nil {
		c.Warn(warn(ctx, obj, old)...)
	}
	if !o.internal {
		if err := e.check(ctx, c, request); err != nil {
			return Result{}, err
		}
	}
	return e.store(ctx, c, d, o.dryRun, obj, old, version, fresh, view)
}

// prepareUpdate takes back what may not be changed through a door.
func prepareUpdate(ctx context.Context, d *kind.Definition, view *kind.View, obj, old object.Object) {
	switch {
	case view != nil && view.Prepare != nil:
		view.Prepare(ctx, obj, old)
	case view == nil && d.PrepareUpdate != nil:
		d.PrepareUpdate(ctx, obj, old)
	}
}

func warnings(d *kind.Definition, view *kind.View) func(context.Context, object.Object, object.Object) []string {
	if view != nil {
		return view.Warnings
	}
	return d.Warnings
}

// preconditions compares what the client demands with what is there.
func preconditions(e *Engine, d *kind.Definition, c *Call, o writeOptions, obj, old object.Object) error {
	text := o.versionText
	if o.versionOf != nil {
		text = o.versionOf(obj)
	}
	if o.uid != "" && o.uid != old.GetUID() {
		return apierrors.NewConflict(c.Definition.GroupResource(), c.Name, fmt.Errorf("StorageError: invalid object, Code: 4, Key: %s, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: %s, UID in object meta: %s", e.key(d, c.Namespace, c.Name), o.uid, old.GetUID()))
	}
	if text == "" {
		return nil
	}
	if _, err := codec.ParseRevision(text); err != nil {
		return plain("%v", err)
	}
	if text != "0" && text != old.GetResourceVersion() {
		return apierrors.NewConflict(c.Definition.GroupResource(), c.Name, errModified)
	}
	return nil
}

// store writes the changed object, or nothing if nothing changed, or removes it
// if the last thing that held it is gone.
func (e *Engine) store(ctx context.Context, c *Call, d *kind.Definition, dry bool, obj, old object.Object, version *watchcache.Version, fresh bool, view *kind.View) (Result, error) {
	result := Result{Item: codec.Item{Definition: c.Definition, Object: obj}}
	if obj.GetDeletionTimestamp() != nil && goneAfter(d, obj, view) {
		if dry {
			return result, nil
		}
		return result, e.remove(ctx, c, d, obj, version.Revision)
	}
	written, err := codec.Write(d, obj)
	if err != nil {
		return Result{}, err
	}
	key := e.key(d, c.Namespace, c.Name)
	same, err := written.Same(version)
	if err != nil {
		return Result{}, err
	}
	if same {
		if !fresh {
			return Result{}, errStale
		}
		if stale, err := e.stale(ctx, key, version); err != nil {
			return Result{}, e.storageError(err, d, c.Name)
		} else if !stale {
			return result, nil
		}
	}
	txn := storage.Txn{If: []storage.Condition{{Key: key, Revision: version.Revision}}}
	companions, err := e.reserve(ctx, d, obj, old, dry, &txn)
	if err != nil {
		return Result{}, err
	}
	if d.Reserve != nil { // it may have filled in what it chose, with companions (IPs) or without (node ports)
		if written, err = codec.Write(d, obj); err != nil {
			return Result{}, err
		}
	}
	if dry {
		return result, nil
	}
	op := storage.Op{Key: key, Value: written.Value}
	if d.Expire != nil {
		op.TTL = d.Expire(obj)
	}
	txn.Then = append([]storage.Op{op}, txn.Then...)
	c.Trace.Enter(trace.Commit)
	now, err := e.commit(ctx, d, txn)
	if c.forgetOwners(err, obj) {
		return e.store(ctx, c, d, dry, obj, old, version, fresh, view)
	}
	if err != nil {
		return Result{}, e.companionError(err, d, c.Name, key, companions)
	}
	obj.SetResourceVersion(codec.FormatRevision(now))
	c.sawRevision(now)
	result.Item.Version, err = written.Version(now)
	return result, err
}

// stale reports whether what is stored for a version should be written again although nothing changed.
func (e *Engine) stale(ctx context.Context, key string, version *watchcache.Version) (bool, error) {
	if version.Outdated || e.Stale == nil {
		return version.Outdated, nil
	}
	stale, err := e.Stale(ctx, key, version.Revision)
	if errors.Is(err, storage.ErrNotFound) {
		return true, nil // the commit will find that out
	}
	return stale, err
}

// companionError keeps a conflict about the object itself, for the retry, and turns one
// about a companion into its meaning.
func (e *Engine) companionError(err error, d *kind.Definition, name, key string, companions map[string]kind.Companion) error {
	var conflict *storage.ConflictError
	if !errors.As(err, &conflict) {
		return e.storageError(err, d, name)
	}
	if conflict.Key == key {
		return err
	}
	if taken := companions[conflict.Key].Taken; taken != nil {
		return taken()
	}
	return errCompanionTaken
}

// goneAfter reports whether an object that is being deleted has nothing left that holds it.
func goneAfter(d *kind.Definition, obj object.Object, view *kind.View) bool {
	if len(obj.GetFinalizers()) > 0 {
		return false
	}
	if d.BeginDelete != nil {
		return view != nil && view.Finish != nil && view.Finish(obj) || view == nil && !d.BeginDelete(object.Copy(obj))
	}
	grace := obj.GetDeletionGracePeriodSeconds()
	return grace == nil || *grace == 0
}

// remove deletes an object's key, with the companions that go with it.
func (e *Engine) remove(ctx context.Context, c *Call, d *kind.Definition, obj object.Object, revision storage.Revision) error {
	key := e.key(d, c.Namespace, c.Name)
	txn := storage.Txn{If: []storage.Condition{{Key: key, Revision: revision}}}
	if _, err := e.reserve(ctx, d, nil, obj, false, &txn); err != nil {
		return err
	}
	txn.Then = append([]storage.Op{{Key: key}}, txn.Then...)
	c.Trace.Enter(trace.Commit)
	now, err := e.commit(ctx, d, txn)
	if err != nil {
		var conflict *storage.ConflictError
		if errors.As(err, &conflict) {
			return err
		}
		return e.storageError(err, d, c.Name)
	}
	obj.SetResourceVersion(codec.FormatRevision(now))
	c.sawRevision(now)
	return nil
}
