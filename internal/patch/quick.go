package patch

import (
	"bytes"
	"reflect"
	"slices"
	"sync"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/timonel/timonel/internal/object"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// The most entries that are kept for updates; beyond it the oldest are merged.
// It is the reference implementation's number.
const updateManagers = 10

// quickUpdate computes the managedFields of obj after an update. It compares the
// objects, which gives the changed paths, and edits each manager's text by them; entries that the
// changes do not touch are not even copied. false: the reference implementation must do it.
func (o *Ownership) quickUpdate(live, obj object.Object, manager string, now time.Time) ([]metav1.ManagedFieldsEntry, bool) {
	entries, ok := o.entriesFor(live, obj)
	if !ok {
		return nil, false
	}
	if len(entries) == 0 && live.GetUID() != "" {
		return nil, true // not tracked, until somebody applies
	}
	if manager == "" {
		manager = "unknown"
	}
	self := identity{manager: manager, operation: string(metav1.ManagedFieldsOperationUpdate), apiVersion: o.apiVersion, subresource: o.Subresource}
	d := differs.Get().(*differ)
	defer d.putBack()
	own, t, ok := o.changes(d, live, obj, o.apiVersion)
	if !ok {
		return nil, false
	}
	mine := ownable(own)
	owns := gains(mine)

	editor := editors.Get().(*editor)
	defer editors.Put(editor)
	made := make([]metav1.ManagedFieldsEntry, 0, len(entries)+1)
	updates, found := 0, false
	for i := range entries {
		entry := entries[i]
		changes, at := own, t
		if entry.APIVersion != o.apiVersion {
			if changes, at, ok = o.changes(d, live, obj, entry.APIVersion); !ok {
				return nil, false
			}
		}
		self := owns && identityOf(&entry) == self
		if self {
			changes, found = mine, true
			entry.Time = &metav1.Time{Time: now}
		}
		text := entry.FieldsV1.GetRawBytes()
		after := editor.edit(text, at, changes, self)
		if !editor.ok {
			return nil, false
		}
		if editor.changed {
			entry.FieldsV1 = &metav1.FieldsV1{}
			entry.FieldsV1.SetRawBytes(after)
		}
		if len(after) == len("{}") {
			continue
		}
		if entry.Operation == metav1.ManagedFieldsOperationUpdate {
			updates++
		}
		made = append(made, entry)
	}
	if owns && !found {
		entry := metav1.ManagedFieldsEntry{
			Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: o.apiVersion,
			Time: &metav1.Time{Time: now}, FieldsType: "FieldsV1", FieldsV1: &metav1.FieldsV1{}, Subresource: o.Subresource,
		}
		entry.FieldsV1.SetRawBytes(editor.write(mine))
		made = append(made, entry)
		updates++
	}
	if updates > updateManagers {
		return nil, false
	}
	if len(made) == 0 {
		return nil, true
	}
	sortEntries(made)
	return made, true
}

var editors = sync.Pool{New: func() any { return new(editor) }}

// entriesFor chooses the managedFields to start from. false: they are not as
// this package or kube-apiserver writes them.
func (o *Ownership) entriesFor(live, obj object.Object) ([]metav1.ManagedFieldsEntry, bool) {
	entries := live.GetManagedFields()
	if o.Subresource == "" {
		switch sent := obj.GetManagedFields(); {
		case sent == nil:
		case len(sent) == 0, len(sent) == 1 && reflect.DeepEqual(sent[0], metav1.ManagedFieldsEntry{}):
			return nil, true
		default:
			entries = sent
		}
	}
	return readable(entries)
}

// readable returns the entries if they can be worked on as texts.
func readable(entries []metav1.ManagedFieldsEntry) ([]metav1.ManagedFieldsEntry, bool) {
	for i := range entries {
		e := &entries[i]
		switch {
		case e.Operation != metav1.ManagedFieldsOperationApply && e.Operation != metav1.ManagedFieldsOperationUpdate,
			e.APIVersion == "", e.FieldsType != "FieldsV1", e.FieldsV1 == nil,
			!utf8.ValidString(e.Manager) || !utf8.ValidString(e.Subresource) || !utf8.ValidString(e.APIVersion),
			bytes.Contains(e.FieldsV1.GetRawBytes(), []byte(`"f:managedFields"`)):
			return nil, false
		}
		id := identityOf(e)
		if slices.ContainsFunc(entries[:i], func(other metav1.ManagedFieldsEntry) bool { return identityOf(&other) == id }) {
			return nil, false
		}
	}
	return entries, true
}

// changes compares the objects as they are in a version, and returns the root of
// its schema too.
// They are d's.
func (o *Ownership) changes(d *differ, live, obj object.Object, apiVersion string) ([]change, *typ, bool) {
	a, err := o.throughEndpoint(live, apiVersion)
	if err != nil {
		return nil, nil, false
	}
	b, err := o.throughEndpoint(obj, apiVersion)
	if err != nil {
		return nil, nil, false
	}
	var reset *resetTree
	if apiVersion == o.apiVersion || apiVersion == o.Hub {
		reset = o.reset
	}
	if tree, ok := b.(*unstructured.Unstructured); ok {
		before, ok := a.(*unstructured.Unstructured)
		found, has := o.schemaOf(b, apiVersion)
		if !ok || !has || found.root.fields == nil {
			return nil, nil, false
		}
		changes := d.treeEntries(found.root.fields, withoutManagedFields(before.Object), withoutManagedFields(tree.Object), reset)
		return changes, found.root, !d.stuck
	}
	l := o.layoutIn(b, apiVersion)
	if l == nil || reflect.TypeOf(a) != reflect.TypeOf(b) {
		return nil, nil, false
	}
	before, after := reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()
	if l.lacksKey(before) || l.lacksKey(after) {
		return nil, nil, false
	}
	if reset != nil && apiVersion != o.apiVersion {
		d.object(l, before, after, nil) // who converts an object must be able to tell all its items apart
	}
	changes := d.object(l, before, after, reset)
	return changes, l.typ, !d.stuck
}

// throughEndpoint converts obj by way of the endpoint's version: what that does not show has not been changed by who writes there.
func (o *Ownership) throughEndpoint(obj object.Object, apiVersion string) (object.Object, error) {
	shown, err := o.toVersion(obj, o.apiVersion)
	if err != nil {
		return nil, err
	}
	return o.toVersion(shown, apiVersion)
}

// layoutIn returns the layout of the Go type of obj, nil if it has no schema.
func (o *Ownership) layoutIn(obj object.Object, apiVersion string) *layout {
	if apiVersion == o.apiVersion {
		return o.layout()
	}
	if l, ok := o.versions.Load(apiVersion); ok {
		return l.(*layout)
	}
	l := o.layoutOf(obj, apiVersion)
	o.versions.Store(apiVersion, l)
	return l
}

func (o *Ownership) layoutOf(obj object.Object, apiVersion string) *layout {
	goType := reflect.TypeOf(obj).Elem()
	found, ok := o.schemaOf(obj, apiVersion)
	if !ok || goType.Kind() != reflect.Struct || found.tree {
		return nil
	}
	return layoutFor(goType, found.root)
}

// withoutManagedFields returns a tree without metadata.managedFields; maps on the way there are copied.
func withoutManagedFields(tree map[string]any) map[string]any {
	metadata, ok := tree["metadata"].(map[string]any)
	if !ok || metadata["managedFields"] == nil {
		return tree
	}
	made := make(map[string]any, len(tree))
	for k, v := range tree {
		made[k] = v
	}
	meta := make(map[string]any, len(metadata))
	for k, v := range metadata {
		if k != "managedFields" {
			meta[k] = v
		}
	}
	made["metadata"] = meta
	return made
}

// viewString returns b as a string without a copy; b must not change while it is used.
func viewString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
