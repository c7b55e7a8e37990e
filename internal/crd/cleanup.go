package crd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage/watchcache"
	"golang.org/x/sync/errgroup"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Cleanup is the finalizer of a definition whose objects must be removed first.
const Cleanup = apiextensions.CustomResourceCleanupFinalizer

// clean removes the objects of a definition that is being deleted, beside Run, once at a time.
func (r *Registry) clean(ctx context.Context, definition *apiextensions.CustomResourceDefinition) {
	if !slices.Contains(definition.Finalizers, Cleanup) {
		return
	}
	name, uid := definition.Name, definition.UID
	established := isTrue(&definition.Status, apiextensions.Established)
	var kinds []*kind.Definition
	if e := r.known[name]; e != nil {
		kinds = e.kinds
	}
	if established && len(kinds) == 0 {
		return // served on the next event
	}
	r.cleaning.Lock()
	defer r.cleaning.Unlock()
	if r.cleaning.uids[uid] {
		return
	}
	r.cleaning.uids[uid] = true
	r.cleaning.Add(1)
	go func() {
		defer r.cleaning.Done()
		for ctx.Err() == nil {
			err := r.cleanOnce(ctx, name, uid, kinds)
			if err == nil || gone(err) {
				break
			}
			r.Log.Warn("the objects of a CustomResourceDefinition are not all deleted yet", "name", name, "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(retry):
			}
		}
		r.cleaning.Lock()
		delete(r.cleaning.uids, uid)
		r.cleaning.Unlock()
	}()
}

func (r *Registry) cleanOnce(ctx context.Context, name string, uid types.UID, kinds []*kind.Definition) error {
	if _, err := r.Objects.Get(ctx, Resource, "", name); err != nil { // then all objects are seen that were made before it ended
		return err
	}
	done := condition(apiextensions.Terminating, false, "NeverEstablished", "resource was never established")
	if len(kinds) > 0 {
		if err := r.terminating(ctx, name, uid, condition(apiextensions.Terminating, true, "InstanceDeletionInProgress", "CustomResource deletion is in progress")); err != nil {
			return err
		}
		if err := r.deleteAll(ctx, kinds[0]); err != nil {
			return err
		}
		done = condition(apiextensions.Terminating, false, "InstanceDeletionCompleted", "removed all instances")
	}
	_, err := r.Objects.Change(ctx, Resource, "", name, func(obj object.Object) error {
		d := obj.(*apiextensions.CustomResourceDefinition)
		if d.UID != uid {
			return errGone
		}
		setCondition(&d.Status, done, r.Now())
		d.Finalizers = slices.DeleteFunc(d.Finalizers, func(f string) bool { return f == Cleanup })
		return nil
	}, kind.ChangeOptions{Raw: true})
	if err != nil && !gone(err) {
		return fmt.Errorf("remove the finalizer: %w", err)
	}
	return nil
}

func (r *Registry) terminating(ctx context.Context, name string, uid types.UID, c apiextensions.CustomResourceDefinitionCondition) error {
	err := r.change(ctx, name, func(d *apiextensions.CustomResourceDefinition) error {
		if d.UID != uid {
			return errGone
		}
		setCondition(&d.Status, c, r.Now())
		return nil
	})
	if err != nil && !gone(err) {
		return fmt.Errorf("write the condition Terminating: %w", err)
	}
	return err
}

// deleteAll deletes every object of a kind and returns when the last one is gone: finalizers are others'
// to remove.
func (r *Registry) deleteAll(ctx context.Context, d *kind.Definition) error {
	for {
		view := r.View(d)
		if view == nil {
			return errGone
		}
		select {
		case <-view.Ready():
		case <-ctx.Done():
			return ctx.Err()
		}
		snapshot := view.Latest()
		found := snapshot.List(watchcache.Query{}).Versions
		if len(found) == 0 {
			return nil
		}
		w, err := view.Watch(watchcache.Query{}, snapshot.Revision())
		if errors.Is(err, watchcache.ErrExpired) {
			continue
		}
		if err != nil {
			return err
		}
		err = r.deleteThese(ctx, d, found)
		for err == nil && len(view.Latest().List(watchcache.Query{Limit: 1}).Versions) > 0 {
			if _, err = w.Next(ctx); err != nil && ctx.Err() == nil {
				err = nil
				break // fell behind: look again
			}
		}
		w.Close()
		if err != nil {
			return err
		}
	}
}

func (r *Registry) deleteThese(ctx context.Context, d *kind.Definition, versions []*watchcache.Version) error {
	var workers errgroup.Group
	workers.SetLimit(maxWriters)
	for _, v := range versions {
		workers.Go(func() error {
			err := r.Objects.Delete(ctx, d.GroupResource(), v.Namespace, v.Name, metav1.DeleteOptions{})
			if err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("delete %s %s/%s: %w", d.Plural, v.Namespace, v.Name, err)
			}
			return nil
		})
	}
	return workers.Wait()
}
