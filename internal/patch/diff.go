package patch

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// differ finds the changes between two Go objects of one layout.
//
// It gives what typed.TypedValue.Compare of structured-merge-diff gives, without
// making values or sets for what is equal. Where it cannot be sure to (items that cannot be told apart, a value that
// does not fit its schema) it sets stuck, and its result is worth nothing.
type differ struct {
	stuck bool

	pending []change // of lists that are being gathered, one upon the other
	used    int      // of pending, at most
	kept    []change // room for lists that are done
}

// differs are used again, with the room that they have got: a new object consists of dozens of lists. What a differ found is gone when it is put back.
var differs = sync.Pool{New: func() any { return new(differ) }}

// maxRoom bounds the changes that a differ has room for when it is put back.
const maxRoom = 4096

func (d *differ) putBack() {
	if cap(d.kept) > maxRoom || cap(d.pending) > maxRoom {
		return
	}
	clear(d.kept)
	clear(d.pending[:d.used])
	*d = differ{pending: d.pending[:0], kept: d.kept[:0]}
	differs.Put(d)
}

// keep ends the list that was gathered in pending from start on. Lists lie one behind the other in memory.
func (d *differ) keep(start int) []change {
	list := d.pending[start:]
	d.used = max(d.used, len(d.pending))
	d.pending = d.pending[:start]
	n := len(list)
	if n == 0 {
		return nil
	}
	if cap(d.kept)-len(d.kept) < n {
		d.kept = make([]change, 0, max(n, 16, 2*cap(d.kept)))
	}
	at := len(d.kept)
	d.kept = append(d.kept, list...)
	return d.kept[at : at+n : at+n]
}

// object compares two structs; what reset names is left out.
func (d *differ) object(l *layout, a, b reflect.Value, reset *resetTree) []change {
	if l.form != structForm {
		d.stuck = true
		return nil
	}
	return d.fields(l, a, b, present, present, reset)
}

// value compares two values; an invalid reflect.Value belongs to those that are
// absent or null.
func (d *differ) value(l *layout, a, b reflect.Value, as, bs state, reset *resetTree) (mark, []change) {
	switch l.form {
	case invalidForm:
		d.stuck = true
		return 0, nil
	case otherForm:
		return d.others(l, a, b, as, bs)
	case structForm, mapForm, listForm:
		if l.atomic || (as != present || l.hasNothing(a)) && (bs != present || l.hasNothing(b)) {
			return d.leaf(l, a, b, as, bs), nil
		}
	default:
		return d.leaf(l, a, b, as, bs), nil
	}
	var below []change
	switch l.form {
	case structForm:
		below = d.fields(l, a, b, as, bs, reset)
	case mapForm:
		below = d.entries(l, a, b, as, bs)
	case listForm:
		below = d.items(l, a, b, as, bs)
	}
	switch {
	case as == absent:
		return gained, below
	case bs == absent:
		return lost, below
	}
	return 0, below
}

// leaf compares what is owned as a whole.
func (d *differ) leaf(l *layout, a, b reflect.Value, as, bs state) mark {
	switch {
	case as == absent:
		return gained
	case bs == absent:
		return lost
	case as != bs:
		return gained
	case as == null || d.equal(l, a, b):
		return 0
	}
	return gained
}

func (d *differ) fields(l *layout, a, b reflect.Value, as, bs state, reset *resetTree) []change {
	start := len(d.pending)
	var am, bm unsafe.Pointer
	if as == present {
		am = memory(a)
	}
	if bs == present {
		bm = memory(b)
	}
	for i := range l.fields {
		f := &l.fields[i]
		if (am == nil || f.isBlank(am)) && (bm == nil || f.isBlank(bm)) {
			continue
		}
		below := reset.field(f.name)
		if below != nil && below.leaf {
			continue
		}
		var x, y reflect.Value
		xs, ys := absent, absent
		if as == present {
			x, xs = f.get(a)
		}
		if bs == present {
			y, ys = f.get(b)
		}
		if xs == absent && ys == absent {
			continue
		}
		if m, c := d.value(f.layout, x, y, xs, ys, below); m != 0 || c != nil {
			d.pending = append(d.pending, change{f.element, m, c})
		}
	}
	return d.keep(start)
}

func (d *differ) entries(l *layout, a, b reflect.Value, as, bs state) []change {
	var keys []string
	gather := func(m reflect.Value, s state) {
		if s != present {
			return
		}
		if plain, ok := m.Interface().(map[string]string); ok {
			for k := range plain {
				keys = append(keys, k)
			}
			return
		}
		for iter := m.MapRange(); iter.Next(); {
			keys = append(keys, iter.Key().String())
		}
	}
	gather(a, as)
	gather(b, bs)
	slices.Sort(keys)
	keys = slices.Compact(keys)
	start := len(d.pending)
	for _, key := range keys {
		x, xs := l.entry(a, as, key)
		y, ys := l.entry(b, bs, key)
		if m, c := d.value(l.elem, x, y, xs, ys, nil); m != 0 || c != nil {
			d.pending = append(d.pending, change{fieldElement(key), m, c})
		}
	}
	return d.keep(start)
}

// entry returns the value of a key, in memory of its own where its form asks for that.
func (l *layout) entry(m reflect.Value, s state, key string) (reflect.Value, state) {
	if s != present {
		return reflect.Value{}, absent
	}
	k := reflect.ValueOf(key)
	if t := m.Type().Key(); t != k.Type() {
		k = k.Convert(t)
	}
	v := m.MapIndex(k)
	if !v.IsValid() {
		return v, absent
	}
	if l.pointers {
		if v.IsNil() {
			return reflect.Value{}, null
		}
		v = v.Elem()
	} else if l.elem.form >= structForm || l.elem.form == otherForm {
		own := reflect.New(v.Type()).Elem()
		own.Set(v)
		v = own
	}
	return v, l.elem.state(v)
}

// item returns an item of a list.
func (l *layout) item(list reflect.Value, i int) (reflect.Value, state) {
	v := list.Index(i)
	if l.pointers {
		if v.IsNil() {
			return reflect.Value{}, null
		}
		v = v.Elem()
	}
	return v, l.elem.state(v)
}

// items compares two lists whose items are told apart by keys or values.
func (d *differ) items(l *layout, a, b reflect.Value, as, bs state) []change {
	n, m := 0, 0
	if as == present {
		n = a.Len()
	}
	if bs == present {
		m = b.Len()
	}
	start := len(d.pending)
	// As a rule the lists have the same items in the same places.
	if n == m && !d.repeats(l, a) {
		same := 0
		for same < n && d.sameItem(l, a, b, same, same) {
			same++
		}
		if same == n {
			for i := range n {
				x, xs := l.item(a, i)
				y, ys := l.item(b, i)
				if m, c := d.value(l.elem, x, y, xs, ys, nil); m != 0 || c != nil {
					d.pending = append(d.pending, change{d.element(l, b, i), m, c})
				}
			}
			return inOrder(d.keep(start))
		}
	}
	before, after := d.elements(l, a, n), d.elements(l, b, m)
	placed := places(before)
	for i, e := range after {
		var x reflect.Value
		xs := absent
		if j := placed(e); j >= 0 {
			x, xs = l.item(a, j)
			before[j] = ""
		}
		y, ys := l.item(b, i)
		if m, c := d.value(l.elem, x, y, xs, ys, nil); m != 0 || c != nil {
			d.pending = append(d.pending, change{e, m, c})
		}
	}
	for j, e := range before {
		if e == "" {
			continue
		}
		x, xs := l.item(a, j)
		if m, c := d.value(l.elem, x, reflect.Value{}, xs, absent, nil); m != 0 || c != nil {
			d.pending = append(d.pending, change{e, m, c})
		}
	}
	return inOrder(d.keep(start))
}

func inOrder(changes []change) []change {
	slices.SortFunc(changes, func(a, b change) int { return compareElements(a.element, b.element) })
	return changes
}

// places returns a function that says where an element is, -1 if nowhere.
func places(elements []string) func(string) int {
	if len(elements) <= 16 {
		return func(e string) int { return slices.Index(elements, e) }
	}
	at := make(map[string]int, len(elements))
	for i, e := range elements {
		at[e] = i
	}
	return func(e string) int {
		if i, ok := at[e]; ok {
			return i
		}
		return -1
	}
}

// elements are the path elements of a list's items. Repetitions have a meaning
// of their own, which the differ leaves to others.
func (d *differ) elements(l *layout, list reflect.Value, n int) []string {
	if n == 0 {
		return nil
	}
	elements := make([]string, n)
	for i := range n {
		elements[i] = d.element(l, list, i)
	}
	d.stuck = d.stuck || repeated(elements)
	return elements
}

// repeated reports whether one of the elements is there twice.
func repeated(elements []string) bool {
	if len(elements) <= 12 {
		for i, e := range elements {
			if slices.Contains(elements[:i], e) {
				return true
			}
		}
		return false
	}
	distinct := slices.Sorted(slices.Values(elements))
	return len(slices.Compact(distinct)) != len(elements)
}

func (d *differ) element(l *layout, list reflect.Value, i int) string {
	v, s := l.item(list, i)
	if s != present {
		d.stuck = true
		return "v:null"
	}
	if len(l.keys) == 0 {
		return valueElement(l.elem.scalar(v))
	}
	keys := make([]keyValue, 0, 4)
	for j := range l.keys {
		if k, ok := d.key(&l.keys[j], v); ok {
			keys = append(keys, keyValue{l.keys[j].name, k})
		}
	}
	if len(keys) == 0 {
		d.stuck = true
		return "v:null"
	}
	return keyElement(keys)
}

// key returns a key of an item; false if it has none.
func (d *differ) key(k *keyLayout, item reflect.Value) (any, bool) {
	if k.field != nil {
		switch v, s := k.field.get(item); s {
		case present:
			return k.field.layout.scalar(v), true
		case null:
			d.stuck = true
		}
	}
	return k.value, k.value != nil
}

// sameItem reports whether item i of a is called like item j of b.
func (d *differ) sameItem(l *layout, a, b reflect.Value, i, j int) bool {
	x, xs := l.item(a, i)
	y, ys := l.item(b, j)
	if xs != present || ys != present {
		d.stuck = true
		return false
	}
	if len(l.keys) == 0 {
		return d.equal(l.elem, x, y)
	}
	for k := range l.keys {
		key := &l.keys[k]
		if key.field != nil {
			v, vs := key.field.get(x)
			w, ws := key.field.get(y)
			if vs == present && ws == present {
				if !d.equal(key.field.layout, v, w) {
					return false
				}
				continue
			}
		}
		v, vs := d.key(key, x)
		w, ws := d.key(key, y)
		if vs != ws || v != w {
			return false
		}
	}
	return true
}

// repeats reports whether two items of the list are called the same. Long lists
// it leaves to elements.
func (d *differ) repeats(l *layout, list reflect.Value) bool {
	n := list.Len()
	if n > 12 {
		return true
	}
	for i := range n {
		for j := range i {
			if d.sameItem(l, list, list, i, j) {
				return true
			}
		}
	}
	return false
}

// equal compares two values that are there, as value.Equals of
// structured-merge-diff does: lists of Go values by reflect.DeepEqual, all else by what it means.
func (d *differ) equal(l *layout, a, b reflect.Value) bool {
	switch l.form {
	case stringForm:
		return a.String() == b.String()
	case boolForm:
		return a.Bool() == b.Bool()
	case intForm:
		return a.Int() == b.Int()
	case floatForm:
		return a.Float() == b.Float()
	case bytesForm:
		return bytes.Equal(a.Bytes(), b.Bytes())
	case timeForm:
		return a.Addr().Interface().(*metav1.Time).Unix() == b.Addr().Interface().(*metav1.Time).Unix()
	case microTimeForm:
		return a.Addr().Interface().(*metav1.MicroTime).UnixMicro() == b.Addr().Interface().(*metav1.MicroTime).UnixMicro()
	case quantityForm:
		x, y := *a.Addr().Interface().(*resource.Quantity), *b.Addr().Interface().(*resource.Quantity)
		return x == y || x.String() == y.String()
	case intOrStringForm:
		x, y := *a.Addr().Interface().(*intstr.IntOrString), *b.Addr().Interface().(*intstr.IntOrString)
		return x.Type == y.Type && (x.Type == intstr.Int && x.IntVal == y.IntVal || x.Type != intstr.Int && x.StrVal == y.StrVal)
	case listForm:
		return reflect.DeepEqual(a.Interface(), b.Interface())
	case mapForm:
		if a.Len() != b.Len() {
			return false
		}
		for iter := a.MapRange(); iter.Next(); {
			key := iter.Key().String()
			x, xs := l.entry(a, present, key)
			y, ys := l.entry(b, present, key)
			if xs != ys || xs == present && !d.equal(l.elem, x, y) {
				return false
			}
		}
		return true
	case structForm:
		am, bm := memory(a), memory(b)
		for i := range l.fields {
			f := &l.fields[i]
			if f.isBlank(am) && f.isBlank(bm) {
				continue
			}
			x, xs := f.get(a)
			y, ys := f.get(b)
			if xs != ys || xs == present && !d.equal(f.layout, x, y) {
				return false
			}
		}
		return true
	case otherForm:
		x, y := d.tree(l, a, present), d.tree(l, b, present)
		return equalTrees(x, y)
	}
	d.stuck = true
	return false
}

// tree turns a value into what its JSON form would be read as.
func (d *differ) tree(l *layout, v reflect.Value, s state) any {
	if s != present {
		return nil
	}
	tree, err := l.convert.ToUnstructured(v)
	if err != nil {
		d.stuck = true
	}
	return tree
}

func (d *differ) others(l *layout, a, b reflect.Value, as, bs state) (mark, []change) {
	x, y := d.tree(l, a, as), d.tree(l, b, bs)
	if as != absent {
		as = treeState(x)
	}
	if bs != absent {
		bs = treeState(y)
	}
	return d.trees(l.typ, x, y, as, bs, nil)
}

func treeState(v any) state {
	if v == nil {
		return null
	}
	return present
}

// sortedKeys returns the keys of both maps.
func sortedKeys(a, b map[string]any) []string {
	keys := make([]string, 0, max(len(a), len(b)))
	for k := range a {
		keys = append(keys, k)
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, strings.Compare)
	return keys
}
