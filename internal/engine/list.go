package engine

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/watchcache"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Page is the answer of List.
type Page struct {
	Items []codec.Item
	Meta  metav1.ListMeta
}

// List returns the objects that match, at the revision that the options ask for
// (Kubernetes API concepts, "Resource versions").
func (e *Engine) List(ctx context.Context, c *Call, options metav1.ListOptions) (Page, error) {
	if c.Definition.VirtualList != nil {
		return e.listVirtual(ctx, c)
	}
	query, err := e.query(c, options)
	if err != nil {
		return Page{}, err
	}
	snapshot, err := e.snapshot(ctx, c, &query, options)
	if err != nil {
		return Page{}, err
	}
	found := snapshot.List(query)
	page := Page{
		Items: make([]codec.Item, len(found.Versions)),
		Meta:  metav1.ListMeta{ResourceVersion: codec.FormatRevision(snapshot.Revision())},
	}
	for i, v := range found.Versions {
		if v.Err != nil {
			return Page{}, e.unreadableList(c, found.Versions[i:])
		}
		page.Items[i] = codec.Item{Definition: c.Definition, Version: v}
	}
	if selects := query.Labels != nil || len(query.Fields) > 0; selects && len(found.Versions) > 0 && len(found.Versions) == query.Limit {
		// Parity: with selectors, a full page is followed by another if there are further objects at all; see the
		// corpus, verbs/limit-continue.
		after := watchcache.Query{Namespace: query.Namespace, After: found.Versions[query.Limit-1].Key(), Limit: 1}
		found.More = len(snapshot.List(after).Versions) > 0
	}
	if found.More {
		last := found.Versions[len(found.Versions)-1]
		page.Meta.Continue = encodeContinue(snapshot.Revision(), "/"+relativeKey(c, last))
		if remaining := found.Remaining; remaining >= 0 {
			page.Meta.RemainingItemCount = &remaining
		}
	}
	c.sawRevision(snapshot.Revision())
	return page, nil
}

func (e *Engine) listVirtual(ctx context.Context, c *Call) (Page, error) {
	objects, err := c.Definition.VirtualList(ctx)
	page := Page{}
	for _, obj := range objects {
		page.Items = append(page.Items, codec.Item{Definition: c.Definition, Object: obj})
	}
	return page, err
}

// snapshot chooses the state that a list shows, and where in it a continued list begins.
func (e *Engine) snapshot(ctx context.Context, c *Call, query *watchcache.Query, options metav1.ListOptions) (watchcache.Snapshot, error) {
	view, err := e.loaded(ctx, c.Definition)
	if err != nil {
		return watchcache.Snapshot{}, err
	}
	if view == nil {
		return watchcache.Snapshot{}, e.notFound(c.Definition, "")
	}
	at, err := codec.ParseRevision(options.ResourceVersion)
	if err != nil {
		return watchcache.Snapshot{}, invalidVersion(options.ResourceVersion, err)
	}
	if options.Continue != "" {
		token, err := decodeContinue(options.Continue)
		if err != nil {
			return watchcache.Snapshot{}, err
		}
		if options.ResourceVersion != "" && options.ResourceVersion != "0" {
			return watchcache.Snapshot{}, apierrors.NewBadRequest("specifying resource version is not allowed when using continue")
		}
		query.After = absoluteKey(c, token.start)
		if token.revision < 0 { // "inconsistent": go on in the newest state
			if err := e.wait(ctx, "", 0); err != nil {
				return watchcache.Snapshot{}, err
			}
			return view.Latest(), nil
		}
		if err := e.wait(ctx, "at", token.revision); err != nil {
			return watchcache.Snapshot{}, err
		}
		snapshot, err := view.At(token.revision)
		if err != nil {
			return snapshot, expiredContinue(token.start)
		}
		return snapshot, nil
	}
	exact := options.ResourceVersionMatch == metav1.ResourceVersionMatchExact ||
		options.ResourceVersionMatch == "" && options.Limit > 0 && at > 0
	switch {
	case options.ResourceVersion == "0":
		query.Limit = 0
		return view.Latest(), nil
	case exact:
		if err := e.wait(ctx, "at", storage.Revision(at)); err != nil {
			return watchcache.Snapshot{}, err
		}
		snapshot, err := view.At(storage.Revision(at))
		if err != nil {
			return snapshot, apierrors.NewResourceExpired(fmt.Sprintf("The provided resource version is too old: %d", at))
		}
		return snapshot, nil
	}
	if err := e.wait(ctx, options.ResourceVersion, storage.Revision(at)); err != nil {
		return watchcache.Snapshot{}, err
	}
	return view.Latest(), nil
}

func invalidVersion(text string, err error) error {
	return apierrors.NewBadRequest("invalid resource version: " + field.Invalid(field.NewPath("resourceVersion"), text, err.Error()).Error())
}

// query turns selectors into what the cache selects by.
func (e *Engine) query(c *Call, options metav1.ListOptions) (watchcache.Query, error) {
	q := watchcache.Query{Namespace: c.Namespace, Limit: int(options.Limit)}
	if options.LabelSelector != "" {
		selector, err := labels.Parse(options.LabelSelector)
		if err != nil {
			return q, apierrors.NewBadRequest(err.Error())
		}
		if !selector.Empty() {
			q.Labels = selector
		}
	}
	if options.FieldSelector == "" {
		return q, nil
	}
	selector, err := fields.ParseSelector(options.FieldSelector)
	if err != nil {
		return q, apierrors.NewBadRequest(err.Error())
	}
	return q, selectFields(c.Definition, selector.Requirements(), &q)
}

// selectFields adds field requirements to a query.
func selectFields(d *kind.Definition, requirements fields.Requirements, q *watchcache.Query) error {
	hub := d.Hub()
next:
	for _, r := range requirements {
		not := r.Operator == selection.NotEquals
		switch {
		case r.Field == "metadata.name":
			if !not && r.Value != "" && (q.Name == "" || q.Name == r.Value) {
				q.Name = r.Value
				continue
			}
			q.Fields = append(q.Fields, watchcache.FieldRequirement{Index: watchcache.NameField, Value: r.Value, NotEqual: not})
			continue
		case r.Field == "metadata.namespace" && (d.Namespaced() || len(d.Fields) == 0):
			if !not && r.Value != "" && (q.Namespace == "" || q.Namespace == r.Value) {
				q.Namespace = r.Value
				continue
			}
			q.Fields = append(q.Fields, watchcache.FieldRequirement{Index: watchcache.NamespaceField, Value: r.Value, NotEqual: not})
			continue
		}
		for i, f := range d.Fields {
			if f.Label == r.Field {
				q.Fields = append(q.Fields, watchcache.FieldRequirement{Index: i, Value: r.Value, NotEqual: not})
				continue next
			}
		}
		return apierrors.NewBadRequest(unknownField(d, hub, r.Field))
	}
	return nil
}

func unknownField(d, hub *kind.Definition, label string) string {
	switch {
	case d.FieldsUnknown != nil:
		return d.FieldsUnknown(label)
	case len(hub.Fields) > 0:
		return "field label not supported: " + label
	}
	return fmt.Sprintf("%q is not a known field selector: only %q, %q", label, "metadata.name", "metadata.namespace")
}

// continueToken is where a paged list goes on: behind start, at a revision.
type continueToken struct {
	revision storage.Revision
	start    string
}

type continueJSON struct {
	APIVersion string `json:"v"`
	Revision   int64  `json:"rv"`
	Start      string `json:"start"`
}

func encodeContinue(revision storage.Revision, lastKey string) string {
	b, _ := json.Marshal(continueJSON{"meta.k8s.io/v1", int64(revision), lastKey + "\x00"})
	return base64.RawURLEncoding.EncodeToString(b)
}

var errContinue = errors.New("continue key is not valid")

func decodeContinue(text string) (continueToken, error) {
	bad := func(err error) (continueToken, error) {
		return continueToken{}, apierrors.NewBadRequest(fmt.Sprintf("invalid continue token: %v", err))
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return bad(fmt.Errorf("%w: %v", errContinue, err))
	}
	var token continueJSON
	if err := json.Unmarshal(b, &token); err != nil {
		return bad(fmt.Errorf("%w: %v", errContinue, err))
	}
	switch {
	case token.APIVersion != "meta.k8s.io/v1":
		return bad(fmt.Errorf("continue key is not valid: server does not recognize this encoded version %q", token.APIVersion))
	case token.Revision == 0:
		return bad(fmt.Errorf("continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)"))
	case token.Start == "":
		return bad(fmt.Errorf("continue key is not valid: encoded start key empty (version meta.k8s.io/v1)"))
	}
	key := token.Start
	if !strings.HasPrefix(key, "/") {
		key = "/" + key
	}
	if clean := path.Clean(key); clean != key {
		return bad(fmt.Errorf("continue key is not valid: %s", token.Start))
	}
	return continueToken{storage.Revision(token.Revision), strings.TrimSuffix(token.Start, "\x00")}, nil
}

// relativeKey is a version's key as continue tokens carry it: below the namespace
// when the list is of one.
func relativeKey(c *Call, v *watchcache.Version) string {
	if c.Namespace != "" {
		return v.Name
	}
	return object.Key(v.Namespace, v.Name)
}

func absoluteKey(c *Call, start string) string {
	start = strings.TrimPrefix(start, "/")
	if c.Namespace != "" {
		return c.Namespace + "/" + start
	}
	return start
}

// expiredContinue is the 410 for a token whose revision is gone, with a fresh token that goes on in the newest state.
func expiredContinue(start string) error {
	err := apierrors.NewResourceExpired("The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.")
	err.ErrStatus.ListMeta.Continue = encodeContinue(-1, start)
	return err
}
