package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/timonel/timonel/internal/admission"
	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/trace"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
)

const (
	// maxNameTries is how often a generated name that is taken is drawn again.
	maxNameTries = 8
	// maxReserveTries is how often a companion (an IP, a port) that is taken is chosen again. Of those who write to one companion
	// at a time, one succeeds each time.
	maxReserveTries = 256
)

// Create stores a new object, or does what is posted to a virtual kind or a
// subresource.
func (e *Engine) Create(ctx context.Context, c *Call, body Body, options metav1.CreateOptions) (Result, error) {
	if c.Sub != nil {
		return e.job(ctx, c, body, options)
	}
	c.Trace.Enter(trace.Decode)
	obj, err := e.decode(c, c.Definition, body)
	if err != nil {
		return Result{}, err
	}
	if c.Definition.Job != nil {
		return e.do(ctx, c, c.Definition.Job, obj, options)
	}
	if c.Definition.Virtual != nil {
		return e.createVirtual(ctx, c, obj, options)
	}
	return e.create(ctx, c, obj, options)
}

// decode reads a body, defaults it and brings it into the form that the engine works on.
func (e *Engine) decode(c *Call, d *kind.Definition, body Body) (object.Object, error) {
	decoded, warnings, err := codec.Decode(body.Bytes, body.Media, codec.TargetOf(d, e.Registered), c.Strictness)
	if err != nil {
		return nil, err
	}
	c.Warn(warnings...)
	return e.toHub(d, decoded.(object.Object))
}

// toHub defaults an object of the request's version and converts it to the hub.
func (e *Engine) toHub(d *kind.Definition, obj object.Object) (object.Object, error) {
	if d.Default != nil {
		d.Default(obj)
	}
	if d.Convert == nil {
		return obj, nil
	}
	hub, err := codec.ToHub(d, obj)
	if err != nil {
		return nil, err
	}
	if d.Convert.Hub.Default != nil {
		d.Convert.Hub.Default(hub)
	}
	codec.SetKind(hub, d.Convert.Hub.GroupVersionKind())
	return hub, nil
}

func (e *Engine) create(ctx context.Context, c *Call, obj object.Object, options metav1.CreateOptions) (Result, error) {
	if err := e.beginCreate(c, obj); err != nil {
		return Result{}, err
	}
	e.own(c, nil, obj, options.FieldManager)
	return e.finishCreate(ctx, c, obj, options)
}

// createOwned is create for an object whose owners are recorded already (apply).
func (e *Engine) createOwned(ctx context.Context, c *Call, obj object.Object, options metav1.CreateOptions) (Result, error) {
	if err := e.beginCreate(c, obj); err != nil {
		return Result{}, err
	}
	return e.finishCreate(ctx, c, obj, options)
}

func (e *Engine) finishCreate(ctx context.Context, c *Call, obj object.Object, options metav1.CreateOptions) (Result, error) {
	d := c.Definition.Hub()
	request := &admission.Request{
		Operation: admission.Create, Definition: c.Definition, Namespace: c.Namespace, Name: obj.GetName(),
		Object: obj, Options: &options, User: c.User, DryRun: dryRun(options.DryRun),
	}
	if c.Definition.Premise != nil {
		request.Premises = append(request.Premises, c.Definition.Premise())
	}
	obj, err := e.change(ctx, c, request)
	if err != nil {
		return Result{}, err
	}
	generated := obj.GetName() == "" && obj.GetGenerateName() != ""
	for try := 1; ; try++ {
		if generated {
			obj.SetName(generateName(obj.GetGenerateName()))
		}
		request.Name = obj.GetName()
		item, err := e.checkAndStoreNew(ctx, c, d, obj, request)
		if apierrors.IsAlreadyExists(err) && generated {
			if try < maxNameTries {
				continue
			}
			return Result{}, apierrors.NewGenerateNameConflict(c.Definition.GroupResource(), obj.GetName(), 1)
		}
		if err != nil {
			return Result{}, err
		}
		return Result{Item: item, Created: true}, nil
	}
}

// beginCreate sets the metadata that only the server sets.
func (e *Engine) beginCreate(c *Call, obj object.Object) error {
	if obj.GetResourceVersion() != "" {
		return plain("resourceVersion should not be set on objects to be created")
	}
	if err := matchNamespace(c, obj); err != nil {
		return err
	}
	obj.SetSelfLink("")
	obj.SetDeletionTimestamp(nil)
	obj.SetDeletionGracePeriodSeconds(nil)
	obj.SetCreationTimestamp(metav1.NewTime(e.Now().UTC().Truncate(time.Second)))
	obj.SetUID(uuid.NewUUID())
	dropDuplicateOwners(c, obj)
	return nil
}

// matchNamespace puts an object into the namespace of the request.
func matchNamespace(c *Call, obj object.Object) error {
	switch ns := obj.GetNamespace(); {
	case ns == c.Namespace:
	case ns == "":
		obj.SetNamespace(c.Namespace)
	case c.Namespace == "":
		obj.SetNamespace("")
	default:
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	return nil
}

// own records the writer in managedFields.
func (e *Engine) own(c *Call, old, obj object.Object, manager string) {
	e.owners(c).Update(old, obj, c.managerOr(manager), e.Now())
}

// change runs mutating admission. What it changes belongs to no manager.
func (e *Engine) change(ctx context.Context, c *Call, r *admission.Request) (object.Object, error) {
	c.Trace.Enter(trace.Change)
	err := e.Admission.Chain().Change(ctx, r)
	c.Warn(r.Warnings()...)
	return r.Object, err
}

// check runs validating admission.
func (e *Engine) check(ctx context.Context, c *Call, r *admission.Request) error {
	before := len(r.Warnings())
	err := e.Admission.Chain().Check(ctx, r)
	c.Warn(r.Warnings()[before:]...)
	return err
}

// checkAndStoreNew validates a new object and stores it.
func (e *Engine) checkAndStoreNew(ctx context.Context, c *Call, d *kind.Definition, obj object.Object, r *admission.Request) (item codec.Item, err error) {
	c.Trace.Enter(trace.Check)
	dropDuplicateOwners(c, obj)
	e.prepareNew(ctx, d, obj)
	if errs := e.validateNew(ctx, checkedBy(c.Definition), obj); len(errs) > 0 {
		return item, invalid(d, obj.GetName(), errs)
	}
	if d.Warnings != nil {
		c.Warn(d.Warnings(ctx, obj, nil)...)
	}
	if err := e.check(ctx, c, r); err != nil {
		return item, err
	}
	for try := 1; ; try++ {
		chosen := obj
		if d.Reserve != nil { // each try chooses anew
			chosen = object.Copy(obj)
		}
		item, err = e.storeNew(ctx, c, d, chosen, r.DryRun, r.Premises)
		if errors.Is(err, errPremise) && try < maxReserveTries {
			if err := e.judge(ctx, r.Premises); err != nil {
				return item, err
			}
			continue
		}
		if err == nil || d.Reserve == nil || !chooseAgain(err, try) {
			return item, err
		}
		if err := e.wait(ctx, "", 0); err != nil { // what was chosen, or refused, followed from a cache that may be old
			return item, err
		}
	}
}

// chooseAgain reports whether what a kind reserves should be chosen anew after an error: when it was taken in the meantime,
// and once when the kind refused it.
func chooseAgain(err error, try int) bool {
	if errors.Is(err, errCompanionTaken) {
		return try < maxReserveTries
	}
	return try == 1 && !apierrors.IsAlreadyExists(err) && !apierrors.IsServerTimeout(err)
}

// prepareNew brings a new object into the state in which its kind begins.
func (e *Engine) prepareNew(ctx context.Context, d *kind.Definition, obj object.Object) {
	if d.Generation != nil {
		obj.SetGeneration(1)
	}
	if d.PrepareCreate != nil {
		d.PrepareCreate(ctx, obj)
	}
}

// judge decides again on what the admission of a new object rests on, as it is now.
func (e *Engine) judge(ctx context.Context, premises []kind.Premise) error {
	for i := range premises {
		p := &premises[i]
		obj, err := e.Objects().Get(ctx, p.Resource, p.Namespace, p.Name)
		if err != nil {
			return err
		}
		if err := p.Judge(obj); err != nil {
			return err
		}
		p.Version = obj.GetResourceVersion()
	}
	return nil
}

var (
	// errCompanionTaken says that something chosen by Reserve was taken in the meantime.
	errCompanionTaken = errors.New("what was reserved has been taken")
	// errPremise says that something on which admission decided has changed in the meantime.
	errPremise = errors.New("what was decided on has changed")
)

func (e *Engine) storeNew(ctx context.Context, c *Call, d *kind.Definition, obj object.Object, dry bool, premises []kind.Premise) (item codec.Item, err error) {
	item = codec.Item{Definition: c.Definition, Object: obj}
	key := e.key(d, c.Namespace, obj.GetName())
	txn := storage.Txn{If: []storage.Condition{{Key: key}}}
	decided, err := e.demand(premises, &txn)
	if err != nil {
		return item, err
	}
	companions, err := e.reserve(ctx, d, obj, nil, dry, &txn)
	if err != nil {
		return item, err
	}
	written, err := codec.Write(d, obj)
	if err != nil {
		return item, err
	}
	op := storage.Op{Key: key, Value: written.Value}
	if d.Expire != nil {
		op.TTL = d.Expire(obj)
	}
	txn.Then = append([]storage.Op{op}, txn.Then...)
	if dry {
		if _, err := e.loaded(ctx, d); err != nil {
			return item, err
		}
		if err := e.wait(ctx, "", 0); err != nil { // no transaction tells whether there is one
			return item, err
		}
		if _, exists := e.object(d, c.Namespace, obj.GetName()); exists {
			return item, e.alreadyExists(d, c.Namespace, obj.GetName())
		}
		return item, nil
	}
	c.Trace.Enter(trace.Commit)
	revision, err := e.commit(ctx, d, txn)
	if c.forgetOwners(err, obj) {
		return e.storeNew(ctx, c, d, obj, dry, premises)
	}
	if conflict := (*storage.ConflictError)(nil); errors.As(err, &conflict) && slices.Contains(decided, conflict.Key) {
		return item, errPremise
	}
	if err != nil {
		return item, e.createError(err, d, c.Namespace, obj.GetName(), key, companions)
	}
	obj.SetResourceVersion(codec.FormatRevision(revision))
	c.sawRevision(revision)
	if c.Trace != nil {
		c.Trace.Name = obj.GetName()
	}
	item.Version, err = written.Version(revision)
	return item, err
}

// demand makes a transaction hold only while the premises do, and returns their keys.
func (e *Engine) demand(premises []kind.Premise, txn *storage.Txn) (keys []string, err error) {
	for i := range premises {
		p := &premises[i]
		d := e.Catalog.Catalog().Hub(p.Resource)
		if d == nil {
			return nil, apierrors.NewNotFound(p.Resource, p.Name)
		}
		at, err := codec.ParseRevision(p.Version)
		if err != nil {
			return nil, fmt.Errorf("decide on %s %s: %w", p.Resource, p.Name, err)
		}
		key := e.key(d, p.Namespace, p.Name)
		txn.If = append(txn.If, storage.Condition{Key: key, Revision: storage.Revision(at)})
		keys = append(keys, key)
	}
	return keys, nil
}

func (e *Engine) createError(err error, d *kind.Definition, namespace, name, key string, companions map[string]kind.Companion) error {
	var conflict *storage.ConflictError
	if !errors.As(err, &conflict) {
		return e.storageError(err, d, name)
	}
	if conflict.Key == key {
		return e.alreadyExists(d, namespace, name)
	}
	if taken := companions[conflict.Key].Taken; taken != nil {
		return taken()
	}
	return errCompanionTaken
}

func (e *Engine) alreadyExists(d *kind.Definition, namespace, name string) error {
	err := apierrors.NewAlreadyExists(d.GroupResource(), name)
	if v, ok := e.object(d, namespace, name); ok {
		if there, decodeErr := codec.DecodeVersion(d.Hub(), v); decodeErr == nil && there.GetDeletionTimestamp() != nil {
			err.ErrStatus.Message = "object is being deleted: " + err.ErrStatus.Message
		}
	}
	return err
}

// reserve asks the kind what else must be written with obj and adds that to the transaction.
func (e *Engine) reserve(ctx context.Context, d *kind.Definition, obj, old object.Object, dry bool, txn *storage.Txn) (map[string]kind.Companion, error) {
	if d.Reserve == nil {
		return nil, nil
	}
	companions, err := d.Reserve(ctx, e.Reader(), obj, old, dry)
	if err != nil {
		return nil, err
	}
	byKey := map[string]kind.Companion{}
	for _, companion := range companions {
		other := companion.Object
		key := e.key(companion.Definition, other.GetNamespace(), cmp.Or(companion.Name, other.GetName()))
		byKey[key] = companion
		if companion.Remove {
			txn.Then = append(txn.Then, storage.Op{Key: key})
			continue
		}
		var there storage.Revision
		if companion.Replaces != "" {
			revision, err := codec.ParseRevision(companion.Replaces)
			if err != nil {
				return nil, fmt.Errorf("replace %s: %w", key, err)
			}
			there = storage.Revision(revision)
		} else if companion.Name == "" {
			e.identify(companion.Definition, other)
		}
		value, err := codec.EncodeStored(companion.Definition, other)
		if err != nil {
			return nil, err
		}
		txn.If = append(txn.If, storage.Condition{Key: key, Revision: there})
		txn.Then = append(txn.Then, storage.Op{Key: key, Value: value})
	}
	return byKey, nil
}

// identify gives a new companion what makes it an object of its own.
func (e *Engine) identify(d *kind.Definition, obj object.Object) {
	if obj.GetUID() != "" {
		return
	}
	obj.SetUID(uuid.NewUUID())
	obj.SetCreationTimestamp(metav1.NewTime(e.Now().UTC().Truncate(time.Second)))
	if d.Generation != nil {
		obj.SetGeneration(1)
	}
}

func (e *Engine) createVirtual(ctx context.Context, c *Call, obj object.Object, options metav1.CreateOptions) (Result, error) {
	if err := matchNamespace(c, obj); err != nil {
		return Result{}, err
	}
	e.own(c, nil, obj, options.FieldManager)
	request := &admission.Request{
		Operation: admission.Create, Definition: c.Definition, Namespace: c.Namespace, Name: obj.GetName(),
		Object: obj, Options: &options, User: c.User, DryRun: dryRun(options.DryRun),
	}
	obj, err := e.change(ctx, c, request)
	if err != nil {
		return Result{}, err
	}
	c.Trace.Enter(trace.Check)
	if err := e.check(ctx, c, request); err != nil {
		return Result{}, err
	}
	answer, err := c.Definition.Virtual(ctx, c.Namespace, obj)
	if err != nil {
		return Result{}, err
	}
	return Result{Value: answer, Created: true}, nil
}

// job does what is posted to a subresource.
func (e *Engine) job(ctx context.Context, c *Call, body Body, options metav1.CreateOptions) (Result, error) {
	c.Trace.Enter(trace.Decode)
	target := codec.Target{Kind: c.Sub.Kind, New: newOf(c.Sub), Registered: e.Registered}
	decoded, warnings, err := codec.Decode(body.Bytes, body.Media, target, c.Strictness)
	if err != nil {
		return Result{}, err
	}
	c.Warn(warnings...)
	obj, ok := decoded.(object.Object)
	if !ok {
		return Result{}, fmt.Errorf("%s %s: %T is not an object", c.Definition.Plural, c.Subresource, decoded)
	}
	return e.do(ctx, c, c.Sub.Job, obj, options)
}

// do does what was posted instead of storing it.
func (e *Engine) do(ctx context.Context, c *Call, job kind.Job, obj object.Object, options metav1.CreateOptions) (Result, error) {
	if err := matchNamespace(c, obj); err != nil {
		return Result{}, err
	}
	request := &admission.Request{
		Operation: admission.Create, Definition: c.Definition, Subresource: c.Subresource, Namespace: c.Namespace, Name: c.Name,
		Object: obj, Options: &options, User: c.User, DryRun: dryRun(options.DryRun),
	}
	obj, err := e.change(ctx, c, request)
	if err != nil {
		return Result{}, err
	}
	c.Trace.Enter(trace.Commit)
	answer, err := job(ctx, kind.JobCall{
		Objects: objects{reader: reader{e}, trace: c.Trace}, Namespace: c.Namespace, Name: c.Name, Body: obj, DryRun: request.DryRun,
		Check: func(ctx context.Context) error { return e.Admission.Chain().Check(ctx, request) },
	})
	if err != nil {
		return Result{}, err
	}
	if status, ok := answer.(*kind.Done); ok {
		return Result{Status: status.Status(), Created: true}, nil
	}
	return Result{Value: answer, Created: true}, nil
}

func dryRun(values []string) bool { return len(values) > 0 }
