package patch

import (
	"encoding/base64"
	"fmt"
	"math"
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// comparison finds what merging a configuration (a tree) into a Go object would
// change.
type comparison struct {
	differ       differ
	reordered    bool // items of a list change places
	resetChanged bool // something changes that the endpoint does not own
}

// fields compares a struct with the fields that a configuration sets. top: it is the object itself.
func (c *comparison) fields(l *layout, v reflect.Value, applied map[string]any, reset *resetTree, top bool) []change {
	var changes []change
	matched := 0
	for i := range l.fields {
		f := &l.fields[i]
		value, ok := applied[f.name]
		if !ok {
			continue
		}
		matched++
		if top && (f.name == "apiVersion" || f.name == "kind") {
			continue // they are right, or the apply would have been refused
		}
		below := reset.field(f.name)
		x, s := f.get(v)
		if below != nil && below.leaf {
			if m, d := c.value(f.layout, x, s, value, nil); m != 0 || d != nil {
				c.resetChanged = true
			}
			continue
		}
		if m, d := c.value(f.layout, x, s, value, below); m != 0 || d != nil {
			changes = append(changes, change{f.element, m, d})
		}
	}
	if matched != len(applied) {
		c.differ.stuck = true
	}
	return changes
}

// value compares a Go value with the tree that is applied to it.
func (c *comparison) value(l *layout, v reflect.Value, s state, applied any, reset *resetTree) (mark, []change) {
	if s == absent || l.form == otherForm {
		return c.others(l, v, s, applied)
	}
	switch l.form {
	case invalidForm:
		c.differ.stuck = true
		return 0, nil
	case structForm, mapForm, listForm:
		if !l.atomic {
			break
		}
		fallthrough
	default:
		if s == null {
			if applied == nil {
				return 0, nil
			}
			return gained, nil
		}
		if applied == nil || !c.same(l, v, applied) {
			return gained, nil
		}
		return 0, nil
	}
	empty := s == null || l.hasNothing(v)
	switch a := applied.(type) {
	case nil:
		if !empty || s == null {
			return 0, nil // a null changes nothing where there is something
		}
		return gained, nil
	case map[string]any:
		if l.form == listForm {
			c.differ.stuck = true
			return 0, nil
		}
		if len(a) == 0 {
			if s == null {
				return gained, nil
			}
			return 0, nil
		}
		if s == null {
			return 0, c.below(l, applied)
		}
		if l.form == structForm {
			return 0, c.fields(l, v, a, reset, false)
		}
		var changes []change
		for _, key := range sortedKeys(a, nil) {
			x, s := l.entry(v, present, key)
			if m, d := c.value(l.elem, x, s, a[key], nil); m != 0 || d != nil {
				changes = append(changes, change{fieldElement(key), m, d})
			}
		}
		return 0, changes
	case []any:
		if l.form != listForm {
			c.differ.stuck = true
			return 0, nil
		}
		if len(a) == 0 {
			if s == null {
				return gained, nil
			}
			return 0, nil
		}
		if s == null {
			return 0, c.below(l, applied)
		}
		return 0, c.items(l, v, a)
	}
	c.differ.stuck = true
	return 0, nil
}

// others compares what is not there, or has to be a tree to be compared.
func (c *comparison) others(l *layout, v reflect.Value, s state, applied any) (mark, []change) {
	var tree any
	if l.form == otherForm && s != absent {
		tree = c.differ.tree(l, v, s)
		s = treeState(tree)
	}
	// Merging keeps what is not applied, so what is missing there counts as equal.
	if s == present {
		if kind := kindOf(applied); kind == mapKind || kind == listKind {
			if !equalTrees(tree, applied) {
				c.differ.stuck = true
			}
			return 0, nil
		}
	}
	return c.differ.trees(l.typ, tree, applied, s, treeState(applied), nil)
}

// below are the changes below a container that was null.
func (c *comparison) below(l *layout, applied any) []change {
	_, changes := c.differ.trees(l.typ, nil, applied, absent, present, nil)
	return changes
}

func (c *comparison) items(l *layout, v reflect.Value, applied []any) []change {
	live := places(c.differ.elements(l, v, v.Len()))
	var changes []change
	last := -1
	for _, item := range applied {
		e, ok := treeElement(l.typ.list, item)
		if !ok {
			c.differ.stuck = true
			return nil
		}
		var x reflect.Value
		s := absent
		if at := live(e); at >= 0 {
			x, s = l.item(v, at)
			c.reordered = c.reordered || at < last
			last = at
		}
		if m, d := c.value(l.elem, x, s, item, nil); m != 0 || d != nil {
			changes = append(changes, change{e, m, d})
		}
	}
	return inOrder(changes)
}

// sameAs is same for a value that may be null.
func (c *comparison) sameAs(l *layout, v reflect.Value, s state, tree any) bool {
	if s == null || tree == nil && l.form != otherForm {
		return s == null && tree == nil
	}
	return c.same(l, v, tree)
}

// same reports whether a Go value that is there would read as the tree.
func (c *comparison) same(l *layout, v reflect.Value, tree any) bool {
	switch l.form {
	case stringForm:
		s, ok := tree.(string)
		return ok && s == v.String()
	case boolForm:
		b, ok := tree.(bool)
		return ok && b == v.Bool()
	case intForm:
		if n, ok := tree.(int64); ok {
			return n == v.Int()
		}
		n, ok := number(tree)
		return ok && n == float64(v.Int())
	case floatForm:
		n, ok := number(tree)
		return ok && n == v.Float()
	case bytesForm:
		s, ok := tree.(string)
		return ok && s == base64.StdEncoding.EncodeToString(v.Bytes())
	case timeForm:
		return tree == v.Addr().Interface().(*metav1.Time).ToUnstructured()
	case microTimeForm:
		b, err := v.Addr().Interface().(*metav1.MicroTime).MarshalJSON()
		s, ok := tree.(string)
		return err == nil && ok && `"`+s+`"` == string(b)
	case quantityForm:
		q := *v.Addr().Interface().(*resource.Quantity)
		s, ok := tree.(string)
		return ok && s == q.String()
	case intOrStringForm:
		x := v.Addr().Interface().(*intstr.IntOrString)
		if x.Type == intstr.Int {
			n, ok := number(tree)
			return ok && n == float64(x.IntVal)
		}
		s, ok := tree.(string)
		return ok && s == x.StrVal
	case structForm:
		m, ok := tree.(map[string]any)
		if !ok {
			return false
		}
		matched := 0
		for i := range l.fields {
			f := &l.fields[i]
			x, s := f.get(v)
			below, has := m[f.name]
			if s == absent && !has {
				continue
			}
			if s == absent || !has || !c.sameAs(f.layout, x, s, below) {
				return false
			}
			matched++
		}
		return matched == len(m)
	case mapForm:
		m, ok := tree.(map[string]any)
		if !ok || len(m) != v.Len() {
			return false
		}
		for key, below := range m {
			x, s := l.entry(v, present, key)
			if s == absent || !c.sameAs(l.elem, x, s, below) {
				return false
			}
		}
		return true
	case listForm:
		list, ok := tree.([]any)
		if !ok || len(list) != v.Len() {
			return false
		}
		for i, below := range list {
			x, s := l.item(v, i)
			if !c.sameAs(l.elem, x, s, below) {
				return false
			}
		}
		return true
	case otherForm:
		return equalTrees(c.differ.tree(l, v, present), tree)
	}
	c.differ.stuck = true
	return false
}

// merger merges a configuration into a Go object of its own.
type merger struct {
	// json: numbers are taken as strictly as the JSON decoder takes them.
	json bool
	err  error
}

func (m *merger) fail(format string, args ...any) {
	if m.err == nil {
		m.err = fmt.Errorf(format, args...)
	}
}

func (m *merger) fields(l *layout, v reflect.Value, applied map[string]any, top bool) {
	for i := range l.fields {
		f := &l.fields[i]
		value, ok := applied[f.name]
		if !ok || top && (f.name == "apiVersion" || f.name == "kind") {
			continue
		}
		m.slot(f.layout, f.raw(v), f.pointer, value)
	}
}

// slot merges into a field, item or map value, which may be a pointer.
func (m *merger) slot(l *layout, slot reflect.Value, pointer bool, applied any) {
	v, s := slot, present
	if pointer {
		if slot.IsNil() {
			s = absent
		} else {
			v = slot.Elem()
		}
	}
	container := !l.atomic && (l.form == structForm || l.form == mapForm || l.form == listForm)
	if s == present && l.form != structForm {
		s = l.state(v)
	}
	if applied == nil {
		// A null leaves a container alone that has something in it.
		if !container || s != present || l.hasNothing(v) {
			slot.SetZero()
		}
		return
	}
	if !container || s != present {
		if c := (comparison{}); s == present && l.form < structForm && c.same(l, v, applied) {
			return
		}
		if pointer {
			v = reflect.New(l.goType).Elem()
		}
		m.assign(l, v, applied)
		if pointer {
			slot.Set(v.Addr())
		}
		return
	}
	switch a := applied.(type) {
	case map[string]any:
		if l.form == structForm {
			m.fields(l, v, a, false)
			return
		}
		for key, value := range a {
			k := reflect.ValueOf(key).Convert(v.Type().Key())
			item := reflect.New(v.Type().Elem()).Elem()
			if old := v.MapIndex(k); old.IsValid() {
				item.Set(old)
			}
			m.slot(l.elem, item, l.pointers, value)
			v.SetMapIndex(k, item)
		}
	case []any:
		m.list(l, v, a)
	default:
		m.fail("merge %T into %s", applied, l.goType)
	}
}

// list merges items by their names, in the order of mergedOrder.
func (m *merger) list(l *layout, v reflect.Value, applied []any) {
	if len(applied) == 0 {
		return
	}
	d := differ{}
	live := d.elements(l, v, v.Len())
	elements := make([]string, len(applied))
	for i, item := range applied {
		elements[i], _ = treeElement(l.typ.list, item)
	}
	if d.stuck {
		m.fail("items that cannot be told apart")
		return
	}
	order := mergedOrder(live, elements)
	// As a rule all stays in its place.
	inPlace := len(order) == len(live) && slices.IsSortedFunc(order, func(a, b origin) int { return a.live - b.live })
	made := v
	if !inPlace {
		made = reflect.MakeSlice(v.Type(), len(order), len(order))
	}
	for i, from := range order {
		item := made.Index(i)
		if from.live >= 0 && !inPlace {
			item.Set(v.Index(from.live))
		}
		switch {
		case from.applied < 0:
		case from.live < 0 && !l.pointers:
			m.assign(l.elem, item, applied[from.applied])
		default:
			m.slot(l.elem, item, l.pointers, applied[from.applied])
		}
	}
	if !inPlace {
		v.Set(made)
	}
}

// origin says where an item of a merged list comes from: indexes, -1 for none.
type origin struct{ live, applied int }

// mergedOrder is the order of a merged list: items that are only live keep
// their place after the one before them; items in both come in the order in which they are applied.
func mergedOrder(live, applied []string) []origin {
	inLive, inApplied := places(live), places(applied)
	var shared []string // applied items that are live too and not yet placed
	for _, e := range applied {
		if inLive(e) >= 0 {
			shared = append(shared, e)
		}
	}
	next := func() {
		if len(shared) > 0 {
			shared = shared[1:]
		}
	}
	var order []origin
	placed := map[string]bool{}
	for i, j := 0, 0; i < len(live) || j < len(applied); {
		if i < len(live) && j < len(applied) {
			if live[i] == applied[j] {
				placed[live[i]] = true
				order = append(order, origin{i, j})
				i, j = i+1, j+1
				next()
				continue
			}
			if inApplied(live[i]) >= 0 && len(shared) > 0 && shared[0] != live[i] {
				i++
				continue
			}
		}
		if i < len(live) {
			if inApplied(live[i]) < 0 {
				order = append(order, origin{i, -1})
				i++
				continue
			}
			if placed[live[i]] {
				i++
			}
		}
		if j < len(applied) {
			placed[applied[j]] = true
			order = append(order, origin{inLive(applied[j]), j})
			if len(shared) > 0 && shared[0] == applied[j] {
				next()
			}
			j++
		}
	}
	return order
}

// assign makes v what a tree says, as runtime.DefaultUnstructuredConverter does:
// what the tree leaves out becomes zero.
func (m *merger) assign(l *layout, v reflect.Value, tree any) {
	if tree == nil {
		v.SetZero()
		return
	}
	switch l.form {
	case stringForm:
		if s, ok := tree.(string); ok {
			v.SetString(s)
			return
		}
	case boolForm:
		if b, ok := tree.(bool); ok {
			v.SetBool(b)
			return
		}
	case intForm:
		switch n := tree.(type) {
		case int64:
			if m.json && v.OverflowInt(n) {
				break
			}
			v.Set(reflect.ValueOf(n).Convert(v.Type()))
			return
		case float64:
			if !m.json && n == math.Trunc(n) {
				v.Set(reflect.ValueOf(n).Convert(v.Type()))
				return
			}
		}
	case floatForm:
		if n, ok := number(tree); ok {
			v.SetFloat(n)
			return
		}
	case bytesForm:
		if s, ok := tree.(string); ok {
			b, err := base64.StdEncoding.DecodeString(s)
			if err != nil {
				m.fail("%w", err)
				return
			}
			v.SetBytes(b)
			return
		}
	case timeForm, microTimeForm, quantityForm, intOrStringForm, otherForm:
		m.unmarshal(v, tree)
		return
	case structForm:
		if t, ok := tree.(map[string]any); ok {
			v.SetZero()
			matched := 0
			for i := range l.fields {
				f := &l.fields[i]
				if value, ok := t[f.name]; ok {
					matched++
					m.fill(f.layout, f.raw(v), f.pointer, value)
				}
			}
			if matched != len(t) {
				m.fail("unknown fields of %s", l.goType)
			}
			return
		}
	case mapForm:
		if t, ok := tree.(map[string]any); ok {
			v.Set(reflect.MakeMapWithSize(v.Type(), len(t)))
			for key, value := range t {
				item := reflect.New(v.Type().Elem()).Elem()
				m.fill(l.elem, item, l.pointers, value)
				v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), item)
			}
			return
		}
	case listForm:
		if t, ok := tree.([]any); ok {
			v.Set(reflect.MakeSlice(v.Type(), len(t), len(t)))
			for i, value := range t {
				m.fill(l.elem, v.Index(i), l.pointers, value)
			}
			return
		}
	}
	m.fail("a %T is no %s", tree, l.goType)
}

func (m *merger) fill(l *layout, slot reflect.Value, pointer bool, tree any) {
	if !pointer {
		m.assign(l, slot, tree)
		return
	}
	if tree != nil {
		slot.Set(reflect.New(l.goType))
		m.assign(l, slot.Elem(), tree)
	}
}
