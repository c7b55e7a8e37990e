package httpapi

import (
	"context"
	"fmt"
	"mime"
	"net/http"

	"github.com/timonel/timonel/internal/authz"
	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/engine"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/patch"
	"github.com/timonel/timonel/internal/user"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// serve does what a request for an API resource asks for.
func (x *exchange) serve() error {
	c := x.call()
	var err error
	switch x.request.Verb {
	case "get":
		err = x.get(c)
	case "list":
		err = x.list(c)
	case "watch":
		err = x.watch(c)
	case "create":
		err = x.create(c)
	case "update":
		err = x.update(c)
	case "patch":
		err = x.patch(c)
	case "delete":
		err = x.delete(c)
	case "deletecollection":
		err = x.deleteCollection(c)
	}
	if err != nil {
		x.warnings(c)
	}
	return err
}

// call is the request as the engine sees it.
func (x *exchange) call() *engine.Call {
	q := &x.request
	c := &engine.Call{
		Definition: q.Definition, Subresource: q.Subresource, Sub: q.Sub,
		Namespace: q.Namespace, Name: q.Name, User: x.user, Trace: x.record,
		Manager: patch.Manager("", x.r.UserAgent()),
	}
	if q.Definition.Scope == kind.Cluster {
		c.Namespace = ""
	}
	if x.request.Verb == "get" || x.request.Verb == "list" || x.request.Verb == "watch" {
		return c // nothing is admitted, nobody asks who it is
	}
	c.MayCreate = func(ctx context.Context) error {
		a := x.attributes()
		a.Verb = "create"
		decision, reason, _ := x.Authorizer.Authorize(ctx, &a)
		if decision == authz.Allow {
			return nil
		}
		return authz.Forbidden(&a, reason)
	}
	x.ctx = kind.WithWarn(user.With(x.ctx, x.user), c.Warn)
	return c
}

func (x *exchange) warnings(c *engine.Call) {
	for _, text := range c.Warnings() {
		x.w.warn(text)
	}
}

func (x *exchange) get(c *engine.Call) error {
	f, err := x.negotiate(codec.Offer{Views: true})
	if err != nil {
		return err
	}
	options, err := x.getOptions()
	if err != nil {
		return err
	}
	if c.Sub != nil && c.Sub.Scale != nil {
		scale, err := x.Engine.GetScale(x.ctx, c)
		if err != nil {
			return err
		}
		return x.sendItem(http.StatusOK, scale, f)
	}
	item, err := x.Engine.Get(x.ctx, c, options)
	if err != nil {
		return err
	}
	if f.View == codec.AsMetadata {
		if err := codec.CheckListView(x.r.Header.Get("Accept"), false, x.CBOR, goType(c.Definition, false)); err != nil {
			return err
		}
	}
	return x.sendItem(http.StatusOK, item, f)
}

// goType is what the reference calls a kind's type in some texts.
func goType(d *kind.Definition, list bool) string {
	name := d.Kind
	if list {
		name = d.ListKind
	}
	group := d.Group
	if group == "" {
		group = "core"
	}
	return "*" + group + "." + name
}

func (x *exchange) list(c *engine.Call) error {
	f, err := x.negotiate(codec.Offer{Views: true})
	if err != nil {
		return err
	}
	options, err := x.listOptions()
	if err != nil {
		return err
	}
	c.Name = ""
	page, err := x.Engine.List(x.ctx, c, options)
	if err != nil {
		return err
	}
	if f.View == codec.AsMetadata {
		if err := codec.CheckListView(x.r.Header.Get("Accept"), true, x.CBOR, goType(c.Definition, true)); err != nil {
			return err
		}
	}
	return x.sendList(page, f)
}

// write is what the writing verbs have in common: the format of the answer is settled first, then do
// writes, then the result is sent with its warnings.
func (x *exchange) write(c *engine.Call, do func() (engine.Result, error)) error {
	f, err := x.negotiate(codec.Offer{Views: true})
	if err != nil {
		return err
	}
	result, err := do()
	if err != nil {
		return err
	}
	x.warnings(c)
	return x.sendResult(result, f)
}

func (x *exchange) create(c *engine.Call) error {
	return x.write(c, func() (result engine.Result, err error) {
		options, err := x.createOptions()
		if err != nil {
			return result, err
		}
		b, err := x.body()
		if err != nil {
			return result, err
		}
		c.Strictness = strictness(options.FieldValidation)
		return x.Engine.Create(x.ctx, c, b, options)
	})
}

func (x *exchange) update(c *engine.Call) error {
	return x.write(c, func() (result engine.Result, err error) {
		options, err := x.updateOptions()
		if err != nil {
			return result, err
		}
		b, err := x.body()
		if err != nil {
			return result, err
		}
		c.Strictness = strictness(options.FieldValidation)
		return x.Engine.Update(x.ctx, c, b, options)
	})
}

func (x *exchange) patch(c *engine.Call) error {
	patchType, err := x.patchType()
	if err != nil {
		return err
	}
	return x.write(c, func() (result engine.Result, err error) {
		b, err := x.readBody()
		if err != nil {
			return result, err
		}
		options, err := x.patchOptions(patchType)
		if err != nil {
			return result, err
		}
		if patchType == types.ApplyCBORPatchType {
			if b, err = codec.CBORToJSON(b); err != nil {
				return result, apierrors.NewBadRequest(err.Error())
			}
			patchType = types.ApplyYAMLPatchType // of which JSON is a case
		}
		c.Strictness = strictness(options.FieldValidation)
		return x.Engine.Patch(x.ctx, c, patchType, b, options)
	})
}

// patchType is the kind of patch, by the Content-Type.
func (x *exchange) patchType() (types.PatchType, error) {
	mediaType, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	switch t := types.PatchType(mediaType); {
	case err != nil:
	case t == types.StrategicMergePatchType && codec.IsTree(x.request.Definition):
	case t == types.ApplyCBORPatchType && x.CBOR:
		return t, nil
	case t == types.JSONPatchType, t == types.MergePatchType, t == types.StrategicMergePatchType, t == types.ApplyYAMLPatchType:
		return t, nil
	}
	if codec.IsTree(x.request.Definition) {
		accepted := "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
		if x.CBOR {
			accepted += ", " + string(types.ApplyCBORPatchType)
		}
		return "", &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
			Message: "the body of the request was in an unknown format - accepted media types include: " + accepted,
		}}
	}
	return "", &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
		Message: "415: Unsupported Media Type", Details: &metav1.StatusDetails{},
	}}
}

func (x *exchange) delete(c *engine.Call) error {
	return x.write(c, func() (result engine.Result, err error) {
		options, err := x.deleteOptions()
		if err != nil {
			return result, err
		}
		if unreadable(options) {
			if err := x.mayBreak(c); err != nil {
				return result, err
			}
			return x.Engine.DeleteUnreadable(x.ctx, c, *options)
		}
		return x.Engine.Delete(x.ctx, c, *options)
	})
}

// unreadable reports whether a deletion is of an object that cannot be read.
func unreadable(o *metav1.DeleteOptions) bool {
	return o.IgnoreStoreReadErrorWithClusterBreakingPotential != nil && *o.IgnoreStoreReadErrorWithClusterBreakingPotential
}

// mayBreak asks for the right to delete what nobody can read, and with it what it would have held together (KEP-3926).
func (x *exchange) mayBreak(c *engine.Call) error {
	a := x.attributes()
	a.Verb = "unsafe-delete-ignore-read-errors"
	allowed, reason := x.may(&a)
	if allowed {
		return nil
	}
	return apierrors.NewForbidden(c.Definition.GroupResource(), c.Name, fmt.Errorf("not permitted to do %q, reason: %s", a.Verb, reason))
}

func (x *exchange) deleteCollection(c *engine.Call) error {
	f, err := x.negotiate(codec.Offer{Views: true})
	if err != nil {
		return err
	}
	list, err := x.listOptions()
	if err != nil {
		return err
	}
	options, err := x.deleteOptions()
	if err != nil {
		return err
	}
	if unreadable(options) {
		return invalidOptions("DeleteOptions", field.ErrorList{field.Invalid(field.NewPath("ignoreStoreReadErrorWithClusterBreakingPotential"), true, "is not allowed with DELETECOLLECTION, try again after removing the option")})
	}
	page, err := x.Engine.DeleteCollection(x.ctx, c, *options, list)
	if err != nil {
		return err
	}
	x.warnings(c)
	return x.sendList(page, f)
}
