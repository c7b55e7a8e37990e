package patch

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"

	"github.com/timonel/timonel/internal/object"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// unmarshal gives a tree to a type that reads itself from JSON.
func (m *merger) unmarshal(v reflect.Value, tree any) {
	reader, ok := v.Addr().Interface().(json.Unmarshaler)
	if !ok {
		m.fail("%s does not read JSON", v.Type())
		return
	}
	text, err := json.Marshal(tree)
	if err == nil {
		err = reader.UnmarshalJSON(text)
	}
	if err != nil {
		m.fail("%w", err)
	}
}

// treeTarget applies to a tree. It merges first and compares the results.
type treeTarget struct {
	o        *Ownership
	root     *typ
	live     *unstructured.Unstructured
	removals []change
	merged   map[string]any
	differ   differ
}

func (g *treeTarget) prune(dropped, others []change) bool {
	g.removals = g.pruneEntries(g.root.fields, g.live.Object, dropped, others, g.o.reset)
	return !g.differ.stuck
}

func (g *treeTarget) pruneEntries(m *mapType, tree map[string]any, dropped, others []change, reset *resetTree) []change {
	var removals []change
	for i := range dropped {
		c := &dropped[i]
		key, ok := fieldName(c.element)
		if !ok {
			g.differ.stuck = true
			return nil
		}
		under := reset.field(key)
		if under != nil && under.leaf {
			g.differ.stuck = true
			return nil
		}
		value, ok := tree[key]
		if !ok {
			continue
		}
		if r, ok := g.pruneValue(m.typeOf(key), value, c, m.field(key) != nil, others, under); ok {
			removals = append(removals, r)
		}
	}
	if len(removals) > 0 && hollowWithout(m, tree, removals) {
		g.differ.stuck = true // then this map goes too, owned or not
	}
	return removals
}

// hollow and hollowWithout are to trees what they are to layouts.
func hollow(t *typ, value any) bool {
	switch v := value.(type) {
	case []any:
		return len(v) == 0 && t != nil && t.list != nil && !t.list.atomic
	case map[string]any:
		return len(v) > 0 && t != nil && t.fields != nil && !t.fields.atomic && hollowWithout(t.fields, v, nil)
	}
	return false
}

func hollowWithout(m *mapType, tree map[string]any, removals []change) bool {
	stays := false
	for key, value := range tree {
		if at, found := find(removals, fieldElement(key)); found {
			if removals[at].mark != 0 {
				continue
			}
			return false
		}
		f := m.field(key)
		if f == nil || !hollow(f.typ, value) {
			return false
		}
		stays = true
	}
	return stays
}

func (g *treeTarget) pruneValue(t *typ, value any, dropped *change, declared bool, others []change, reset *resetTree) (change, bool) {
	below, owned := isOwned(others, dropped.element, declared)
	if t == nil {
		g.differ.stuck = true
		return change{}, false
	}
	if !owned {
		if !declared && dropped.mark != gained {
			g.differ.stuck = true
			return change{}, false
		}
		if hollow(t, value) {
			return change{}, false
		}
		m, lostBelow := g.differ.trees(t, value, nil, treeState(value), absent, nil)
		return change{dropped.element, m, lostBelow}, true
	}
	if len(dropped.below) == 0 {
		return change{}, false
	}
	if dropped.element[0] == 'k' && len(below) == 0 {
		g.differ.stuck = true // see bareItems
		return change{}, false
	}
	var removals []change
	switch v := value.(type) {
	case map[string]any:
		if t.fields != nil && !t.fields.atomic {
			removals = g.pruneEntries(t.fields, v, dropped.below, below, reset)
		}
	case []any:
		if t.list == nil || t.list.atomic {
			break
		}
		elements := g.differ.treeElements(t.list, v)
		for i := range dropped.below {
			c := &dropped.below[i]
			if at := slices.Index(elements, c.element); at >= 0 {
				if r, ok := g.pruneValue(t.list.elem, v[at], c, false, below, nil); ok {
					removals = append(removals, r)
				}
			}
		}
	}
	return change{dropped.element, 0, removals}, len(removals) > 0
}

func (g *treeTarget) changes(applied map[string]any) ([]change, bool, bool) {
	if !valid(g.root, g.live.Object) {
		return nil, false, false
	}
	g.merged = g.mergeEntries(g.root.fields, g.live.Object, applied)
	if len(g.removals) > 0 {
		g.merged, _ = g.removed(g.root, g.merged, g.removals).(map[string]any)
	}
	changes := g.differ.treeEntries(g.root.fields, g.live.Object, g.merged, g.o.reset)
	return changes, len(changes) > 0 || !equalTrees(g.live.Object, g.merged), !g.differ.stuck && g.merged != nil
}

// merge returns the merged tree, which changes has made, in memory of its own.
func (g *treeTarget) merge(map[string]any) (object.Object, bool) {
	return &unstructured.Unstructured{Object: runtime.DeepCopyJSON(g.merged)}, true
}

func (g *treeTarget) mergeEntries(m *mapType, live, applied map[string]any) map[string]any {
	made := maps.Clone(live)
	if made == nil {
		made = make(map[string]any, len(applied))
	}
	for key, value := range applied {
		old, ok := live[key]
		if !ok {
			made[key] = value
			continue
		}
		made[key] = g.mergeValue(m.typeOf(key), old, value)
	}
	return made
}

func (g *treeTarget) mergeValue(t *typ, live, applied any) any {
	if t == nil {
		g.differ.stuck = true
		return nil
	}
	if (live == nil || applied == nil || kindOf(live) != kindOf(applied)) && several(t) {
		g.differ.stuck = true
	}
	switch l := live.(type) {
	case map[string]any:
		a, _ := applied.(map[string]any)
		if applied != nil && a == nil || t.fields == nil || t.fields.atomic || len(l) == 0 && len(a) == 0 {
			return applied
		}
		return g.mergeEntries(t.fields, l, a)
	case []any:
		a, _ := applied.([]any)
		if applied != nil && a == nil || t.list == nil || t.list.atomic || len(l) == 0 && len(a) == 0 {
			return applied
		}
		before, after := g.differ.treeElements(t.list, l), g.differ.treeElements(t.list, a)
		if g.differ.stuck {
			return nil
		}
		made := make([]any, 0, len(l))
		for _, from := range mergedOrder(before, after) {
			switch {
			case from.applied < 0:
				made = append(made, l[from.live])
			case from.live < 0:
				made = append(made, a[from.applied])
			default:
				made = append(made, g.mergeValue(t.list.elem, l[from.live], a[from.applied]))
			}
		}
		return made
	}
	return applied
}

// removed returns a tree without the marked paths. What is left empty becomes null.
func (g *treeTarget) removed(t *typ, tree any, removals []change) any {
	switch v := tree.(type) {
	case map[string]any:
		made := make(map[string]any, len(v))
		for key, value := range v {
			i, found := find(removals, fieldElement(key))
			switch {
			case !found:
				made[key] = value
			case removals[i].mark == 0:
				made[key] = g.removed(t.fields.typeOf(key), value, removals[i].below)
			}
		}
		if len(made) > 0 {
			return made
		}
		return nil
	case []any:
		made := make([]any, 0, len(v))
		for _, item := range v {
			e, _ := treeElement(t.list, item)
			i, found := find(removals, e)
			switch {
			case !found:
				made = append(made, item)
			case removals[i].mark == 0:
				made = append(made, g.removed(t.list.elem, item, removals[i].below))
			}
		}
		if len(made) > 0 {
			return made
		}
		return nil
	}
	return tree
}
