package watchcache

import "slices"

// tree is a persistent B-tree: a root, once published, never changes. An edit
// copies the nodes on its path, once per epoch, so that several edits of one epoch
// share the copies; a root of an older epoch stays valid as long as
// somebody holds it. Each node knows how many items are below, which
// gives ranks and counts of ranges in logarithmic time.
//
// Items are ordered by a term and a key; the tree of objects leaves the term empty.
type tree[T item] struct {
	root *node[T]
}

type item interface {
	comparable
	// compare orders the item relative to a term and a key.
	compare(term, key string) int
	// position returns the term and the key of the item.
	position() (term, key string)
}

const (
	maxItems = 32
	minItems = maxItems / 2
)

type node[T item] struct {
	epoch uint64
	count int // items here and below
	items []T
	kids  []*node[T] // one more than items; none in a leaf
}

func (t tree[T]) len() int { return t.root.len() }

func (n *node[T]) len() int {
	if n == nil {
		return 0
	}
	return n.count
}

// search returns the index of the first item not before the position, and whether it is there.
func (n *node[T]) search(term, key string) (int, bool) {
	lo, hi := 0, len(n.items)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		switch c := n.items[mid].compare(term, key); {
		case c == 0:
			return mid, true
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return lo, false
}

// get returns the item at the position, or the zero item.
func (t tree[T]) get(term, key string) (found T) {
	for n := t.root; n != nil; {
		i, ok := n.search(term, key)
		if ok {
			return n.items[i]
		}
		if n.kids == nil {
			return found
		}
		n = n.kids[i]
	}
	return found
}

// rank returns how many items are before the position; with after, also an item at it counts.
func (t tree[T]) rank(term, key string, after bool) int {
	rank := 0
	for n := t.root; n != nil; {
		i, ok := n.search(term, key)
		rank += i
		if n.kids != nil {
			for _, kid := range n.kids[:i] {
				rank += kid.count
			}
		}
		if ok {
			if n.kids != nil {
				rank += n.kids[i].count
			}
			if after {
				rank++
			}
			return rank
		}
		if n.kids == nil {
			return rank
		}
		n = n.kids[i]
	}
	return rank
}

// ascend calls yield for the items from the position on, in order, until it returns
// false. With after, an item at the position itself is left out.
func (t tree[T]) ascend(term, key string, after bool, yield func(T) bool) {
	if t.root != nil {
		t.root.ascend(term, key, after, yield)
	}
}

func (n *node[T]) ascend(term, key string, after bool, yield func(T) bool) bool {
	i, ok := n.search(term, key)
	if n.kids == nil {
		if ok && after {
			i++
		}
		for _, it := range n.items[i:] {
			if !yield(it) {
				return false
			}
		}
		return true
	}
	if ok { // what is below kids[i] is before the position
		if !after && !yield(n.items[i]) {
			return false
		}
		return n.rest(i+1, yield)
	}
	if !n.kids[i].ascend(term, key, after, yield) {
		return false
	}
	if i < len(n.items) {
		if !yield(n.items[i]) {
			return false
		}
		return n.rest(i+1, yield)
	}
	return true
}

// rest yields everything from kids[i] on.
func (n *node[T]) rest(i int, yield func(T) bool) bool {
	if n.kids == nil {
		for _, it := range n.items[i:] {
			if !yield(it) {
				return false
			}
		}
		return true
	}
	for ; ; i++ {
		if !n.kids[i].rest(0, yield) {
			return false
		}
		if i == len(n.items) {
			return true
		}
		if !yield(n.items[i]) {
			return false
		}
	}
}

// owned returns the node if the epoch made it, else a copy that the epoch may change.
func (n *node[T]) owned(epoch uint64) *node[T] {
	if n.epoch == epoch {
		return n
	}
	return &node[T]{epoch: epoch, count: n.count, items: slices.Clone(n.items), kids: slices.Clone(n.kids)}
}

// set puts the item in its place and returns the one that was there, or the zero item.
func (t *tree[T]) set(it T, epoch uint64) (old T) {
	if t.root == nil {
		t.root = &node[T]{epoch: epoch, count: 1, items: []T{it}}
		return old
	}
	term, key := it.position()
	root, old, mid, right := t.root.set(it, term, key, epoch)
	if right != nil {
		root = &node[T]{epoch: epoch, count: root.count + 1 + right.count, items: []T{mid}, kids: []*node[T]{root, right}}
	}
	t.root = root
	return old
}

// set returns the changed node and, if it became too large and was split, the
// item and the node to its right.
func (n *node[T]) set(it T, term, key string, epoch uint64) (self *node[T], old, mid T, right *node[T]) {
	i, ok := n.search(term, key)
	n = n.owned(epoch)
	if ok {
		old, n.items[i] = n.items[i], it
		return n, old, mid, nil
	}
	var zero T
	if n.kids == nil {
		n.items = slices.Insert(n.items, i, it)
		n.count++
	} else {
		var kidMid T
		var kidRight *node[T]
		n.kids[i], old, kidMid, kidRight = n.kids[i].set(it, term, key, epoch)
		if kidRight != nil {
			n.items = slices.Insert(n.items, i, kidMid)
			n.kids = slices.Insert(n.kids, i+1, kidRight)
		}
		if old == zero {
			n.count++
		}
	}
	if len(n.items) <= maxItems {
		return n, old, mid, nil
	}
	mid, right = n.split(epoch)
	return n, old, mid, right
}

// split cuts an owned node in two around its middle item.
func (n *node[T]) split(epoch uint64) (T, *node[T]) {
	m := len(n.items) / 2
	mid := n.items[m]
	right := &node[T]{epoch: epoch, items: slices.Clone(n.items[m+1:])}
	n.items = slices.Clone(n.items[:m]) // a copy of the right size: most nodes are not split soon
	if n.kids != nil {
		right.kids = slices.Clone(n.kids[m+1:])
		n.kids = slices.Clone(n.kids[:m+1])
	}
	right.recount()
	n.recount()
	return mid, right
}

func (n *node[T]) recount() {
	n.count = len(n.items)
	for _, kid := range n.kids {
		n.count += kid.count
	}
}

// remove takes out the item at the position and returns it, or the zero item.
func (t *tree[T]) remove(term, key string, epoch uint64) (old T) {
	var zero T
	if t.get(term, key) == zero {
		return zero
	}
	t.root, old = t.root.remove(term, key, epoch)
	if len(t.root.items) == 0 {
		if t.root.kids == nil {
			t.root = nil
		} else {
			t.root = t.root.kids[0]
		}
	}
	return old
}

// remove requires that the item is there.
func (n *node[T]) remove(term, key string, epoch uint64) (self *node[T], old T) {
	i, ok := n.search(term, key)
	n = n.owned(epoch)
	n.count--
	switch {
	case n.kids == nil:
		old = n.items[i]
		n.items = slices.Delete(n.items, i, i+1)
		return n, old
	case ok: // its predecessor takes its place
		old = n.items[i]
		n.kids[i], n.items[i] = n.kids[i].removeLast(epoch)
	default:
		n.kids[i], old = n.kids[i].remove(term, key, epoch)
	}
	n.refill(i, epoch)
	return n, old
}

func (n *node[T]) removeLast(epoch uint64) (self *node[T], last T) {
	n = n.owned(epoch)
	n.count--
	end := len(n.items) - 1
	if n.kids == nil {
		last = n.items[end]
		n.items = slices.Delete(n.items, end, end+1)
		return n, last
	}
	n.kids[end+1], last = n.kids[end+1].removeLast(epoch)
	n.refill(end+1, epoch)
	return n, last
}

// refill gives kids[i], should it have become too small, an item of a neighbour, or joins the two.
func (n *node[T]) refill(i int, epoch uint64) {
	kid := n.kids[i]
	if len(kid.items) >= minItems {
		return
	}
	if i > 0 && len(n.kids[i-1].items) > minItems {
		left := n.kids[i-1].owned(epoch)
		n.kids[i-1] = left
		end := len(left.items) - 1
		kid.items = slices.Insert(kid.items, 0, n.items[i-1])
		n.items[i-1] = left.items[end]
		left.items = slices.Delete(left.items, end, end+1)
		if kid.kids != nil {
			kid.kids = slices.Insert(kid.kids, 0, left.kids[end+1])
			left.kids = slices.Delete(left.kids, end+1, end+2)
		}
		left.recount()
		kid.recount()
		return
	}
	if i < len(n.items) && len(n.kids[i+1].items) > minItems {
		right := n.kids[i+1].owned(epoch)
		n.kids[i+1] = right
		kid.items = append(kid.items, n.items[i])
		n.items[i] = right.items[0]
		right.items = slices.Delete(right.items, 0, 1)
		if kid.kids != nil {
			kid.kids = append(kid.kids, right.kids[0])
			right.kids = slices.Delete(right.kids, 0, 1)
		}
		right.recount()
		kid.recount()
		return
	}
	if i == len(n.items) {
		i--
	}
	left, right := n.kids[i].owned(epoch), n.kids[i+1]
	left.items = append(append(left.items, n.items[i]), right.items...)
	left.kids = append(left.kids, right.kids...)
	left.recount()
	n.kids[i] = left
	n.items = slices.Delete(n.items, i, i+1)
	n.kids = slices.Delete(n.kids, i+1, i+2)
}

// grow makes a tree of items that are in order.
func grow[T item](items []T, epoch uint64) tree[T] {
	if len(items) == 0 {
		return tree[T]{}
	}
	// Each level: nodes of even size, with one item between neighbours for the level above.
	var kids []*node[T]
	for {
		const fill = maxItems * 3 / 4 // room for the next insertions
		parts := (len(items) + 1 + fill) / (fill + 1)
		if len(items) <= maxItems {
			parts = 1
		}
		var nodes []*node[T]
		var between []T
		start := 0
		for p := range parts {
			end := (len(items)+1)*(p+1)/parts - 1
			n := &node[T]{epoch: epoch, items: slices.Clone(items[start:end])}
			if kids != nil {
				n.kids = slices.Clone(kids[start : end+1])
			}
			n.recount()
			nodes = append(nodes, n)
			if end < len(items) {
				between = append(between, items[end])
			}
			start = end + 1
		}
		if parts == 1 {
			return tree[T]{root: nodes[0]}
		}
		items, kids = between, nodes
	}
}
