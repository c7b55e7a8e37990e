package patch

import (
	"bytes"
	"reflect"
	"slices"
	"time"

	"github.com/timonel/timonel/internal/object"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// How apply works here.
//
// The applied configuration is walked in step with the live object. That gives the
// paths it would change, and whether it changes anything at all; most applies do not, and end here without
// a copy of the object. What the manager applied last time and left out now is removed, unless
// somebody else owns it. Other managers that own a changed path conflict, or lose it.
// Only then the live object is copied and changed.
//
// Invariant: the result equals the reference implementation's, which merges two trees
// into a third, makes sets of all their paths and works with these. TestApplyEqualsReference and
// FuzzApplyEqualsReference check it.

const lastAppliedAnnotation = "kubectl.kubernetes.io/last-applied-configuration"

// quickApply applies without the reference implementation; false if it cannot.
// The result is live itself if nothing changes.
func (o *Ownership) quickApply(live object.Object, applied *unstructured.Unstructured, manager string, force bool, now time.Time) (object.Object, bool) {
	if applied.GetAPIVersion() != o.apiVersion || applied.GetKind() != o.Kind.Kind {
		return nil, false
	}
	if metadata, ok := applied.Object["metadata"].(map[string]any); ok {
		if _, has := metadata["managedFields"]; has {
			return nil, false
		}
	}
	if _, has := live.GetAnnotations()[lastAppliedAnnotation]; has && manager == "kubectl" {
		return nil, false // it knows this annotation
	}
	entries, ok := readable(live.GetManagedFields())
	if !ok || len(entries) == 0 && !o.isEmpty(live) {
		return nil, false
	}
	at, err := o.toVersion(live, o.apiVersion)
	if err != nil {
		return nil, false
	}
	found, ok := o.schemaOf(at, o.apiVersion)
	if !ok || !valid(found.root, applied.Object) {
		return nil, false
	}
	var target target
	if tree, ok := at.(*unstructured.Unstructured); ok {
		target = &treeTarget{o: o, root: found.root, live: tree}
	} else if l := o.layoutIn(at, o.apiVersion); l != nil && l.form == structForm && !l.lacksKey(reflect.ValueOf(at).Elem()) {
		target = &goTarget{o: o, layout: l, live: at}
	} else {
		return nil, false
	}

	if manager == "" {
		manager = "unknown"
	}
	self := identity{manager: manager, operation: string(metav1.ManagedFieldsOperationApply), subresource: o.Subresource}
	owned, ok := pathsOf(found.root, applied.Object, o.reset) // as merging sees it, with name and namespace
	if !ok || bareItems(found.root, owned) {
		return nil, false
	}

	editor := editors.Get().(*editor)
	defer editors.Put(editor)
	mine := -1
	for i := range entries {
		if identityOf(&entries[i]) == self {
			mine = i
		}
	}
	var dropped []change // what the manager owned and does not any more
	if mine >= 0 {
		last := &entries[mine]
		if last.APIVersion != o.apiVersion {
			return nil, false
		}
		editor.edit(last.FieldsV1.GetRawBytes(), found.root, nil, false)
		if !editor.ok {
			return nil, false
		}
		if text := editor.write(ownable(owned)); !bytes.Equal(text, last.FieldsV1.GetRawBytes()) {
			dropped = readPaths(last.FieldsV1.GetRawBytes())
		}
		if !leavesNothing(dropped, owned) {
			var others []change
			for i := range entries {
				if entries[i].APIVersion != o.apiVersion {
					return nil, false
				}
				if i != mine {
					editor.edit(entries[i].FieldsV1.GetRawBytes(), found.root, nil, false)
					if !editor.ok {
						return nil, false
					}
					others = union(others, readPaths(entries[i].FieldsV1.GetRawBytes()))
				}
			}
			others = union(others, owned)
			if !target.prune(dropped, others) {
				return nil, false
			}
		}
	}
	changes, changed, ok := target.changes(applied.Object)
	if !ok {
		return nil, false
	}

	made := make([]metav1.ManagedFieldsEntry, 0, len(entries)+1)
	touched := false
	for i := range entries {
		if i == mine {
			continue
		}
		entry := entries[i]
		if entry.APIVersion != o.apiVersion && changed {
			return nil, false
		}
		root := found.root
		if entry.APIVersion != o.apiVersion {
			if root = o.rootOf(live, entry.APIVersion); root == nil {
				return nil, false // the version is gone, or does not know what is there
			}
		}
		after := editor.edit(entry.FieldsV1.GetRawBytes(), root, changes, false)
		if !editor.ok || editor.conflict && !force {
			return nil, false // the reference implementation words the conflict
		}
		if len(after) == len("{}") {
			touched = true
			continue
		}
		if editor.changed {
			entry.FieldsV1 = &metav1.FieldsV1{}
			entry.FieldsV1.SetRawBytes(after)
			touched = true
		}
		made = append(made, entry)
	}
	text := editor.write(ownable(owned))
	entry := metav1.ManagedFieldsEntry{
		Manager: manager, Operation: metav1.ManagedFieldsOperationApply, APIVersion: o.apiVersion,
		FieldsType: "FieldsV1", Subresource: o.Subresource,
	}
	if mine >= 0 {
		entry.Time, entry.FieldsV1 = entries[mine].Time, entries[mine].FieldsV1
	}
	if entry.FieldsV1 == nil || !bytes.Equal(entry.FieldsV1.GetRawBytes(), text) {
		entry.FieldsV1 = &metav1.FieldsV1{}
		entry.FieldsV1.SetRawBytes(text)
		touched = true
	}
	if changed {
		entry.Time = &metav1.Time{Time: now}
	}
	if len(text) > len("{}") {
		made = append(made, entry)
	}
	if !changed && !touched {
		return live, true
	}
	sortEntries(made)
	if len(made) == 0 {
		made = nil
	}
	var result object.Object
	if changed {
		if result, ok = target.merge(applied.Object); !ok {
			return nil, false
		}
		o.Default(result)
		if result, err = o.toVersion(result, o.Hub); err != nil {
			return nil, false
		}
	} else {
		result = object.Copy(live)
	}
	result.SetManagedFields(made)
	return result, true
}

// target is the live object that a configuration is applied to: Go values or a tree.
type target interface {
	// prune decides what of the dropped paths is to be removed: what others do not
	// own. false: it cannot tell.
	prune(dropped, others []change) bool
	// changes compares the object with what merge would make of it. changed also
	// counts what nobody can own, the order of items.
	changes(applied map[string]any) (paths []change, changed, ok bool)
	// merge returns a changed copy.
	merge(applied map[string]any) (object.Object, bool)
}

// isEmpty reports whether live stands for no object yet.
func (o *Ownership) isEmpty(live object.Object) bool {
	return live.GetUID() == "" && live.GetName() == "" && live.GetResourceVersion() == ""
}

// rootOf is the root of the schema of another version of live, nil if live does not fit it.
func (o *Ownership) rootOf(live object.Object, apiVersion string) *typ {
	other, err := o.toVersion(live, apiVersion)
	if err != nil {
		return nil
	}
	found, ok := o.schemaOf(other, apiVersion)
	if !ok {
		return nil
	}
	if tree, ok := other.(*unstructured.Unstructured); ok && !valid(found.root, tree.Object) {
		return nil
	}
	return found.root
}

// goTarget applies to a Go object.
type goTarget struct {
	o        *Ownership
	layout   *layout
	live     object.Object
	removals []change // what prune takes away; marked ones with all below
	differ   differ
}

func (g *goTarget) root() reflect.Value { return reflect.ValueOf(g.live).Elem() }

func (g *goTarget) prune(dropped, others []change) bool {
	g.removals = g.pruneFields(g.layout, g.root(), dropped, others, g.o.reset)
	return !g.differ.stuck
}

// pruneFields finds what to remove below a struct.
func (g *goTarget) pruneFields(l *layout, v reflect.Value, dropped, others []change, reset *resetTree) []change {
	var removals []change
	for i := range dropped {
		c := &dropped[i]
		f := l.fieldOf(c.element)
		if f == nil {
			continue // it is not there
		}
		under := reset.field(f.name)
		if under != nil && under.leaf {
			g.differ.stuck = true
			return nil
		}
		if x, s := f.get(v); s != absent {
			// A declared field counts as owned last time if anything below it was.
			if r, ok := g.pruneValue(f.layout, x, s, c, true, others, under); ok {
				removals = append(removals, r)
			}
		}
	}
	if len(removals) > 0 && l.hollowWithout(v, removals) {
		g.differ.stuck = true // then this struct goes too, owned or not
	}
	return removals
}

// hollow reports whether a value has no paths to own: an empty list, or a struct
// of such.
func (l *layout) hollow(v reflect.Value, s state) bool {
	switch {
	case s != present || l.atomic:
		return false
	case l.form == listForm:
		return v.Len() == 0
	case l.form == structForm:
		return !l.hasNothing(v) && l.hollowWithout(v, nil)
	}
	return false
}

// hollowWithout reports whether what stays of a struct has no paths to own. A
// struct of which nothing stays becomes null, and that is a path.
func (l *layout) hollowWithout(v reflect.Value, removals []change) bool {
	stays := false
	for i := range l.fields {
		f := &l.fields[i]
		x, s := f.get(v)
		if s == absent {
			continue
		}
		if at, found := find(removals, f.element); found {
			if removals[at].mark != 0 {
				continue
			}
			return false
		}
		if !f.layout.hollow(x, s) {
			return false
		}
		stays = true
	}
	return stays
}

// pruneValue finds what to remove of a value that was owned last time (or only
// parts of it were, if it is not a member).
func (g *goTarget) pruneValue(l *layout, v reflect.Value, s state, dropped *change, declared bool, others []change, reset *resetTree) (change, bool) {
	below, owned := isOwned(others, dropped.element, declared)
	if !owned {
		if !declared && dropped.mark != gained {
			// Parts of an item were owned without the item, and nobody owns it.
			g.differ.stuck = true
			return change{}, false
		}
		if l.hollow(v, s) {
			return change{}, false // what has no paths is not removed
		}
		m, lostBelow := g.differ.value(l, v, reflect.Value{}, s, absent, nil)
		return change{dropped.element, m, lostBelow}, true
	}
	if s != present || l.atomic || len(dropped.below) == 0 {
		return change{}, false
	}
	if dropped.element[0] == 'k' && len(below) == 0 {
		g.differ.stuck = true // see bareItems
		return change{}, false
	}
	var removals []change
	switch l.form {
	case structForm:
		removals = g.pruneFields(l, v, dropped.below, below, reset)
	case mapForm:
		for i := range dropped.below {
			c := &dropped.below[i]
			key, ok := fieldName(c.element)
			if !ok {
				g.differ.stuck = true
				break
			}
			if x, s := l.entry(v, present, key); s != absent {
				if r, ok := g.pruneValue(l.elem, x, s, c, false, below, nil); ok {
					removals = append(removals, r)
				}
			}
		}
	case listForm:
		elements := g.differ.elements(l, v, v.Len())
		for i := range dropped.below {
			c := &dropped.below[i]
			if at := slices.Index(elements, c.element); at >= 0 {
				x, s := l.item(v, at)
				if r, ok := g.pruneValue(l.elem, x, s, c, false, below, nil); ok {
					removals = append(removals, r)
				}
			}
		}
	case otherForm:
		g.differ.stuck = true
	}
	return change{dropped.element, 0, removals}, len(removals) > 0
}

// fieldOf finds the field of a struct that an element names.
func (l *layout) fieldOf(element string) *fieldLayout {
	at, found := slices.BinarySearchFunc(l.fields, element, func(f fieldLayout, e string) int { return compareElements(f.element, e) })
	if !found {
		return nil
	}
	return &l.fields[at]
}

// fieldName is the name in an element of a field or key.
func fieldName(element string) (string, bool) {
	if len(element) < 2 || element[0] != 'f' {
		return "", false
	}
	if bytes.IndexByte([]byte(element), '\\') < 0 {
		return element[2:], true
	}
	e, ok := parseElement(element)
	if !ok || e.FieldName == nil {
		return "", false
	}
	return *e.FieldName, true
}

func (g *goTarget) changes(applied map[string]any) ([]change, bool, bool) {
	c := comparison{differ: differ{stuck: g.differ.stuck}}
	gains := c.fields(g.layout, g.root(), applied, g.o.reset, true)
	changed := len(gains) > 0 || len(g.removals) > 0 || c.reordered || c.resetChanged
	return union(gains, g.removals), changed, !c.differ.stuck
}

func (g *goTarget) merge(applied map[string]any) (object.Object, bool) {
	made := object.Copy(g.live)
	v := reflect.ValueOf(made).Elem()
	m := merger{}
	m.fields(g.layout, v, applied, true)
	if m.err != nil {
		return nil, false
	}
	g.remove(g.layout, v, g.removals)
	return made, true
}

// remove takes the marked paths out of a struct, map or list.
func (g *goTarget) remove(l *layout, v reflect.Value, removals []change) {
	switch l.form {
	case structForm:
		for i := range removals {
			c := &removals[i]
			f := l.fieldOf(c.element)
			raw := f.raw(v)
			if c.mark != 0 {
				raw.SetZero()
				continue
			}
			below := raw
			if f.pointer {
				below = raw.Elem()
			}
			emptied := f.layout.form == structForm && f.layout.count(below) == marked(c.below)
			g.remove(f.layout, below, c.below)
			if emptied {
				raw.SetZero()
			}
		}
	case mapForm:
		for i := range removals {
			c := &removals[i]
			name, _ := fieldName(c.element)
			key := reflect.ValueOf(name).Convert(v.Type().Key())
			if c.mark != 0 {
				v.SetMapIndex(key, reflect.Value{})
				continue
			}
			item := reflect.New(v.Type().Elem()).Elem()
			item.Set(v.MapIndex(key))
			below := item
			if l.pointers {
				below = item.Elem()
			}
			g.remove(l.elem, below, c.below)
			v.SetMapIndex(key, item)
		}
		if v.Len() == 0 {
			v.SetZero()
		}
	case listForm:
		elements := g.differ.elements(l, v, v.Len())
		kept := reflect.MakeSlice(v.Type(), 0, v.Len())
		for at := range v.Len() {
			item := v.Index(at)
			if i, found := find(removals, elements[at]); found {
				if removals[i].mark != 0 {
					continue
				}
				below := item
				if l.pointers {
					below = item.Elem()
				}
				g.remove(l.elem, below, removals[i].below)
			}
			kept = reflect.Append(kept, item)
		}
		if kept.Len() == 0 {
			v.SetZero()
			return
		}
		v.Set(kept)
	}
}

// count is the number of fields of a struct that are there.
func (l *layout) count(v reflect.Value) int {
	n := 0
	for i := range l.fields {
		if _, s := l.fields[i].get(v); s != absent {
			n++
		}
	}
	return n
}

func marked(changes []change) int {
	n := 0
	for i := range changes {
		if changes[i].mark != 0 {
			n++
		}
	}
	return n
}

// raw is the field itself, a pointer if it is one.
func (f *fieldLayout) raw(of reflect.Value) reflect.Value {
	for _, i := range f.path {
		of = of.Field(i)
	}
	return of
}
