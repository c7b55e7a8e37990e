package engine

import (
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
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Delete removes an object, or marks it as being deleted when something holds it: a
// finalizer, a grace period, or its kind (namespaces).
func (e *Engine) Delete(ctx context.Context, c *Call, options metav1.DeleteOptions) (Result, error) {
	d := c.Definition.Hub()
	warned := len(c.warnings)
	for fresh := dryRun(options.DryRun); ; { // a dry run commits nothing that would tell that the cache is behind
		c.warnings = c.warnings[:warned]
		obj, version, err := e.current(ctx, d, c.Namespace, c.Name, fresh)
		if err == nil {
			var result Result
			result, err = e.deleteOnce(ctx, c, d, obj, version.Revision, fresh, options)
			if err == nil {
				return result, nil
			}
		}
		var conflict *storage.ConflictError
		if !errors.As(err, &conflict) && (fresh || apierrors.IsServerTimeout(err)) { // a timeout: it may have been done already
			return Result{}, err
		}
		if err := ctx.Err(); err != nil {
			return Result{}, late(err)
		}
		fresh = true
	}
}

// DeleteUnreadable removes an object whose stored bytes do not decode (KEP-3926). Nothing that would hold or refuse the
// deletion of another can be asked: finalizers, preconditions, admission. An object that decodes is left alone: 422.
func (e *Engine) DeleteUnreadable(ctx context.Context, c *Call, options metav1.DeleteOptions) (Result, error) {
	d := c.Definition.Hub()
	if _, err := e.loaded(ctx, d); err != nil {
		return Result{}, err
	}
	if err := e.wait(ctx, "", 0); err != nil {
		return Result{}, err
	}
	version, found := e.object(d, c.Namespace, c.Name)
	if found {
		_, err := codec.DecodeVersion(d, version)
		found = err != nil
	}
	if !found {
		return Result{}, apierrors.NewInvalid(schema.GroupKind{Group: c.Definition.Group, Kind: c.Definition.Plural}, c.Name, field.ErrorList{
			field.Invalid(field.NewPath("ignoreStoreReadErrorWithClusterBreakingPotential"), true, "is exclusively used to delete corrupt object(s), try again by removing this option"),
		})
	}
	gone := Result{Status: &metav1.Status{
		Status:  metav1.StatusSuccess,
		Details: &metav1.StatusDetails{Name: c.Name, Group: c.Definition.Group, Kind: c.Definition.Plural},
	}}
	if dryRun(options.DryRun) {
		return gone, nil
	}
	key := e.key(d, c.Namespace, c.Name)
	c.Trace.Enter(trace.Commit)
	now, err := e.commit(ctx, d, storage.Txn{If: []storage.Condition{{Key: key, Revision: version.Revision}}, Then: []storage.Op{{Key: key}}})
	if err != nil {
		return Result{}, e.storageError(err, d, c.Name)
	}
	c.sawRevision(now)
	return gone, nil
}

func (e *Engine) deleteOnce(ctx context.Context, c *Call, d *kind.Definition, old object.Object, revision storage.Revision, fresh bool, options metav1.DeleteOptions) (Result, error) {
	if err := deletePreconditions(c, options.Preconditions, old); err != nil {
		return Result{}, err
	}
	c.Trace.Enter(trace.Check)
	request := &admission.Request{
		Operation: admission.Delete, Definition: c.Definition, Namespace: c.Namespace, Name: c.Name,
		Old: old, Options: &options, User: c.User, DryRun: dryRun(options.DryRun),
	}
	for _, phase := range []func(context.Context, *admission.Request) error{e.Admission.Chain().Change, e.Admission.Chain().Check} {
		if err := phase(ctx, request); err != nil {
			return Result{}, err
		}
	}
	c.Warn(request.Warnings()...)
	obj := object.Copy(old)
	stays, changed, graceful := e.mark(d, obj, &options)
	if dryRun(options.DryRun) && !stays {
		return deleted(c, obj), nil
	}
	if dryRun(options.DryRun) {
		return Result{Item: codec.Item{Definition: c.Definition, Object: obj}}, nil
	}
	if !stays {
		if err := e.remove(ctx, c, d, obj, revision); err != nil {
			return Result{}, err
		}
		return deleted(c, obj), nil
	}
	result := Result{Item: codec.Item{Definition: c.Definition, Object: obj}}
	result.Accepted = options.OrphanDependents != nil && !*options.OrphanDependents && !graceful
	if !changed && !fresh {
		return Result{}, errStale
	}
	if !changed {
		return result, nil
	}
	value, err := codec.EncodeStored(d, obj)
	if err != nil {
		return Result{}, err
	}
	key := e.key(d, c.Namespace, c.Name)
	c.Trace.Enter(trace.Commit)
	now, err := e.commit(ctx, d, storage.Txn{
		If:   []storage.Condition{{Key: key, Revision: revision}},
		Then: []storage.Op{{Key: key, Value: value}},
	})
	if err != nil {
		var conflict *storage.ConflictError
		if errors.As(err, &conflict) {
			return Result{}, err
		}
		return Result{}, e.storageError(err, d, c.Name)
	}
	obj.SetResourceVersion(codec.FormatRevision(now))
	c.sawRevision(now)
	return result, nil
}

// mark prepares an object for deletion and reports whether it stays for now, whether it was
// changed, and whether it stays for a grace period.
func (e *Engine) mark(d *kind.Definition, obj object.Object, options *metav1.DeleteOptions) (stays, changed, graceful bool) {
	already := obj.GetDeletionTimestamp() != nil
	before := slices.Clone(obj.GetFinalizers())
	if !d.Unowned {
		setPropagation(d, obj, options)
	}
	changed = !slices.Equal(before, obj.GetFinalizers())
	now := e.Now().UTC().Truncate(time.Second)
	grace := int64(0)
	if d.Grace != nil {
		if already {
			return e.shorten(d, obj, options, changed, now)
		}
		grace, graceful = d.Grace(obj, options)
	}
	held := len(obj.GetFinalizers()) > 0
	if d.BeginDelete != nil && d.BeginDelete(obj) {
		held, changed = true, changed || !already
	}
	if !held && !graceful {
		if !already && d.Grace != nil { // what is answered shows that it was deleted
			setDeleted(obj, now, 0)
		}
		return false, true, false
	}
	if !already {
		setDeleted(obj, now, grace)
		changed = true
	}
	return true, changed, graceful
}

// setDeleted marks an object as being deleted after a grace period.
func setDeleted(obj object.Object, now time.Time, grace int64) {
	at := metav1.NewTime(now.Add(time.Duration(grace) * time.Second))
	obj.SetDeletionTimestamp(&at)
	obj.SetDeletionGracePeriodSeconds(&grace)
	if obj.GetGeneration() > 0 {
		obj.SetGeneration(obj.GetGeneration() + 1)
	}
}

// shorten is a further deletion of an object that is already waiting for its grace
// period: it may only end sooner.
func (e *Engine) shorten(d *kind.Definition, obj object.Object, options *metav1.DeleteOptions, changed bool, now time.Time) (stays, wasChanged, graceful bool) {
	current := int64(0)
	if g := obj.GetDeletionGracePeriodSeconds(); g != nil {
		current = *g
	}
	if current == 0 {
		return len(obj.GetFinalizers()) > 0, changed, false
	}
	if options.GracePeriodSeconds == nil {
		return true, changed, true
	}
	period, _ := d.Grace(obj, options)
	if period >= current {
		return true, changed, true
	}
	start := obj.GetDeletionTimestamp().Add(-time.Duration(current) * time.Second)
	end := metav1.NewTime(start.Add(time.Duration(period) * time.Second))
	obj.SetDeletionTimestamp(&end)
	obj.SetDeletionGracePeriodSeconds(&period)
	stays = period > 0 || len(obj.GetFinalizers()) > 0
	return stays, true, period > 0
}

// setPropagation adds or removes the finalizers that make the garbage collector
// orphan the dependents or delete them first.
func setPropagation(d *kind.Definition, obj object.Object, options *metav1.DeleteOptions) {
	finalizers := obj.GetFinalizers()
	orphan, foreground := false, false
	switch {
	case options.OrphanDependents != nil:
		orphan = *options.OrphanDependents
	case options.PropagationPolicy != nil:
		orphan = *options.PropagationPolicy == metav1.DeletePropagationOrphan
		foreground = *options.PropagationPolicy == metav1.DeletePropagationForeground
	case slices.Contains(finalizers, metav1.FinalizerOrphanDependents), slices.Contains(finalizers, metav1.FinalizerDeleteDependents):
		return
	default:
		orphan = d.OrphanByDefault
	}
	var kept []string
	for _, f := range finalizers {
		if f != metav1.FinalizerOrphanDependents && f != metav1.FinalizerDeleteDependents {
			kept = append(kept, f)
		}
	}
	if orphan {
		kept = append(kept, metav1.FinalizerOrphanDependents)
	}
	if foreground {
		kept = append(kept, metav1.FinalizerDeleteDependents)
	}
	obj.SetFinalizers(kept)
}

func deletePreconditions(c *Call, p *metav1.Preconditions, obj object.Object) error {
	if p == nil {
		return nil
	}
	kindName := c.Definition.GroupKind().String()
	conflict := func(text string) error {
		err := apierrors.NewConflict(c.Definition.GroupResource(), c.Name, errors.New(text))
		err.ErrStatus.Message = fmt.Sprintf("Operation cannot be fulfilled on %s %q: %s", kindName, c.Name, text)
		err.ErrStatus.Details.Kind = c.Definition.Kind
		return err
	}
	if p.UID != nil && *p.UID != obj.GetUID() {
		return conflict(fmt.Sprintf("the UID in the precondition (%s) does not match the UID in record (%s). The object might have been deleted and then recreated", *p.UID, obj.GetUID()))
	}
	if p.ResourceVersion != nil && *p.ResourceVersion != obj.GetResourceVersion() {
		return conflict(fmt.Sprintf("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%s). The object might have been modified", *p.ResourceVersion, obj.GetResourceVersion()))
	}
	return nil
}

// deleted is the answer about an object that is gone.
func deleted(c *Call, obj object.Object) Result {
	if c.Definition.ReturnsDeleted {
		return Result{Item: codec.Item{Definition: c.Definition, Object: obj}}
	}
	return Result{Status: &metav1.Status{
		Status:  metav1.StatusSuccess,
		Details: &metav1.StatusDetails{Name: c.Name, Group: c.Definition.Group, Kind: c.Definition.Plural, UID: obj.GetUID()},
	}}
}

// DeleteCollection deletes all objects that match and returns them as they were.
func (e *Engine) DeleteCollection(ctx context.Context, c *Call, options metav1.DeleteOptions, list metav1.ListOptions) (Page, error) {
	page, err := e.List(ctx, c, list)
	if err != nil {
		return Page{}, err
	}
	for i := range page.Items {
		one := *c
		one.Namespace, one.Name = page.Items[i].Version.Namespace, page.Items[i].Version.Name
		own := options
		if _, err := e.Delete(ctx, &one, own); err != nil && !apierrors.IsNotFound(err) {
			return Page{}, err
		}
	}
	return page, nil
}
