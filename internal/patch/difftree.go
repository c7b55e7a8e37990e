package patch

import (
	"slices"

	smd "sigs.k8s.io/structured-merge-diff/v6/schema"
)

// trees compares two trees (maps, lists and scalars as JSON is read) by their
// schema type, with the results that value has for Go values.
func (d *differ) trees(t *typ, a, b any, as, bs state, reset *resetTree) (mark, []change) {
	if t == nil {
		d.stuck = true
		return 0, nil
	}
	kind := kindOf(a)
	if as != present {
		kind = kindOf(b)
	} else if bs == present && kind != kindOf(b) {
		d.stuck = true // of a type that may be one or the other
		return 0, nil
	}
	var atomic bool
	switch kind {
	case nullKind: // whatever the type, nothing is below
		return treeLeaf(a, b, as, bs), nil
	case mapKind:
		if t.fields == nil {
			d.stuck = true
			return 0, nil
		}
		x, _ := a.(map[string]any)
		y, _ := b.(map[string]any)
		atomic = t.fields.atomic || len(x) == 0 && len(y) == 0
	case listKind:
		if t.list == nil {
			d.stuck = true
			return 0, nil
		}
		x, _ := a.([]any)
		y, _ := b.([]any)
		atomic = t.list.atomic || len(x) == 0 && len(y) == 0
	default:
		if !fits(t.scalar, kind) || as == present && bs == present && !fits(t.scalar, kindOf(b)) {
			d.stuck = true
		}
		atomic = true
	}
	// Beside a null a type that allows several kinds is ambiguous.
	if (as == null || bs == null) && several(t) {
		d.stuck = true
	}
	if atomic {
		d.check(t, a, b)
		return treeLeaf(a, b, as, bs), nil
	}
	var below []change
	if kind == mapKind {
		below = d.treeEntries(t.fields, a, b, reset)
	} else {
		below = d.treeItems(t.list, a, b)
	}
	switch {
	case as == absent:
		return gained, below
	case bs == absent:
		return lost, below
	}
	return 0, below
}

// check looks at what is not compared part by part: the reference implementation
// refuses objects with a value anywhere that does not fit the schema.
func (d *differ) check(t *typ, trees ...any) {
	for _, tree := range trees {
		if !valid(t, tree) {
			d.stuck = true
		}
	}
}

// valid reports whether a tree fits its type. Items of a list may be called the
// same.
func valid(t *typ, tree any) bool {
	if tree == nil {
		return true // as good as any value
	}
	if t == nil {
		return false
	}
	switch v := tree.(type) {
	case map[string]any:
		if t.fields == nil {
			return false
		}
		for key, below := range v {
			if at := t.fields.typeOf(key); at == nil || !valid(at, below) {
				return false
			}
		}
		return true
	case []any:
		if t.list == nil {
			return false
		}
		for _, item := range v {
			if !t.list.atomic && !hasElement(t.list, item) || !valid(t.list.elem, item) {
				return false
			}
		}
		return true
	}
	return fits(t.scalar, kindOf(tree))
}

// hasElement reports whether treeElement finds one.
func hasElement(l *listType, item any) bool {
	if len(l.keys) == 0 {
		k := kindOf(item)
		return k == stringKind || k == numberKind || k == boolKind
	}
	m, ok := item.(map[string]any)
	if !ok || l.elem == nil || l.elem.fields == nil {
		return false
	}
	has := false
	for _, name := range l.keys {
		v, ok := m[name]
		if !ok {
			f := l.elem.fields.field(name)
			has = has || f != nil && f.scalar != nil
			continue
		}
		if k := kindOf(v); k != stringKind && k != numberKind && k != boolKind {
			return false
		}
		has = true
	}
	return has
}

func several(t *typ) bool {
	n := 0
	if t.scalar != "" {
		n++
	}
	if t.list != nil {
		n++
	}
	if t.fields != nil {
		n++
	}
	return n > 1
}

func treeLeaf(a, b any, as, bs state) mark {
	switch {
	case as == absent:
		return gained
	case bs == absent:
		return lost
	case equalTrees(a, b):
		return 0
	}
	return gained
}

func (d *differ) treeEntries(m *mapType, a, b any, reset *resetTree) []change {
	x, _ := a.(map[string]any)
	y, _ := b.(map[string]any)
	var changes []change
	for _, key := range sortedKeys(x, y) {
		below := reset.field(key)
		if below != nil && below.leaf {
			d.check(m.typeOf(key), x[key], y[key])
			continue
		}
		v, ok := x[key]
		vs := absent
		if ok {
			vs = treeState(v)
		}
		w, ok := y[key]
		ws := absent
		if ok {
			ws = treeState(w)
		}
		if m, c := d.trees(m.typeOf(key), v, w, vs, ws, below); m != 0 || c != nil {
			changes = append(changes, change{fieldElement(key), m, c})
		}
	}
	return changes
}

func (d *differ) treeItems(l *listType, a, b any) []change {
	x, _ := a.([]any)
	y, _ := b.([]any)
	before, after := d.treeElements(l, x), d.treeElements(l, y)
	var changes []change
	compare := func(e string, v, w any, vs, ws state) {
		if m, c := d.trees(l.elem, v, w, vs, ws, nil); m != 0 || c != nil {
			changes = append(changes, change{e, m, c})
		}
	}
	placed := places(before)
	for i, e := range after {
		if j := placed(e); j >= 0 {
			before[j] = ""
			compare(e, x[j], y[i], treeState(x[j]), treeState(y[i]))
		} else {
			compare(e, nil, y[i], absent, treeState(y[i]))
		}
	}
	for j, e := range before {
		if e != "" {
			compare(e, x[j], nil, treeState(x[j]), absent)
		}
	}
	return inOrder(changes)
}

// treeElements are the path elements of a list's items, which must be distinct.
func (d *differ) treeElements(l *listType, list []any) []string {
	elements := make([]string, len(list))
	for i, item := range list {
		e, ok := treeElement(l, item)
		if !ok {
			d.stuck = true
			return nil
		}
		elements[i] = e
	}
	if len(list) > 1 {
		distinct := slices.Clone(elements)
		slices.Sort(distinct)
		if len(slices.Compact(distinct)) != len(list) {
			d.stuck = true
		}
	}
	return elements
}

// treeElement is the path element of an item; false if it has none.
func treeElement(l *listType, item any) (string, bool) {
	if len(l.keys) == 0 {
		switch kindOf(item) {
		case stringKind, numberKind, boolKind:
			return valueElement(item), true
		}
		return "", false
	}
	m, ok := item.(map[string]any)
	if !ok || l.elem == nil || l.elem.fields == nil {
		return "", false
	}
	keys := make([]keyValue, 0, 4)
	for _, name := range l.keys {
		v, ok := m[name]
		if !ok {
			if f := l.elem.fields.field(name); f != nil && f.scalar != nil {
				keys = append(keys, keyValue{name, f.scalar})
			}
			continue
		}
		switch kindOf(v) {
		case stringKind, numberKind, boolKind:
			keys = append(keys, keyValue{name, v})
		default:
			return "", false
		}
	}
	return keyElement(keys), len(keys) > 0
}

// treeKind is what a tree is at its root.
type treeKind uint8

const (
	nullKind treeKind = iota
	mapKind
	listKind
	stringKind
	numberKind
	boolKind
	strangeKind // nothing that JSON is read as
)

func kindOf(v any) treeKind {
	switch v.(type) {
	case nil:
		return nullKind
	case map[string]any:
		return mapKind
	case []any:
		return listKind
	case string:
		return stringKind
	case int64, float64, int, int32, float32:
		return numberKind
	case bool:
		return boolKind
	}
	return strangeKind
}

func fits(s smd.Scalar, k treeKind) bool {
	switch s {
	case smd.Untyped:
		return k == stringKind || k == numberKind || k == boolKind
	case smd.String:
		return k == stringKind
	case smd.Numeric:
		return k == numberKind
	case smd.Boolean:
		return k == boolKind
	}
	return false
}

// equalTrees compares trees by value; numbers are equal across their types.
func equalTrees(a, b any) bool {
	switch x := a.(type) {
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for k, v := range x {
			if w, ok := y[k]; !ok || !equalTrees(v, w) {
				return false
			}
		}
		return true
	case []any:
		y, ok := b.([]any)
		return ok && slices.EqualFunc(x, y, equalTrees)
	case string:
		y, ok := b.(string)
		return ok && x == y
	case bool:
		y, ok := b.(bool)
		return ok && x == y
	case nil:
		return b == nil
	}
	if x, ok := a.(int64); ok {
		if y, ok := b.(int64); ok {
			return x == y
		}
	}
	x, ok := number(a)
	y, also := number(b)
	return ok && also && x == y
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	case int:
		return float64(v), true
	case int32:
		return float64(v), true
	case float32:
		return float64(v), true
	}
	return 0, false
}
