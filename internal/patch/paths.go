package patch

import (
	"strings"

	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// pathsOf are the paths that a configuration sets, which must be valid: leaves,
// keys of maps, items of lists, and what is empty or null. ok is false if items of a list are called the same.
func pathsOf(t *typ, tree map[string]any, reset *resetTree) (paths []change, ok bool) {
	paths = make([]change, 0, len(tree))
	for _, key := range sortedKeys(tree, nil) {
		below := reset.field(key)
		if below != nil && below.leaf {
			continue
		}
		value := tree[key]
		var c change
		at, field := t.fields.elem, t.fields.field(key)
		if field != nil {
			at, c.element = field.typ, field.element
		} else {
			c.element = fieldElement(key)
		}
		c.mark, c.below, ok = valuePaths(at, value, below)
		if !ok {
			return nil, false
		}
		if m, isMap := value.(map[string]any); field == nil || value == nil || isMap && len(m) == 0 {
			c.mark = gained
		}
		if c.mark != 0 || len(c.below) > 0 {
			paths = append(paths, c)
		}
	}
	return paths, true
}

func valuePaths(t *typ, value any, reset *resetTree) (m mark, below []change, ok bool) {
	switch v := value.(type) {
	case nil:
		if t.fields != nil && t.fields.atomic || t.fields == nil && (t.scalar != "" || t.list.atomic) {
			return gained, nil, true
		}
		return 0, nil, true
	case map[string]any:
		if t.fields.atomic {
			return gained, nil, true
		}
		below, ok = pathsOf(t, v, reset)
		return 0, below, ok
	case []any:
		if t.list.atomic {
			return gained, nil, true
		}
		below = make([]change, 0, len(v))
		for _, item := range v {
			e, ok := treeElement(t.list, item)
			_, deeper, fine := valuePaths(t.list.elem, item, nil)
			if !ok || !fine {
				return 0, nil, false
			}
			below = append(below, change{e, gained, deeper})
		}
		below = inOrder(below)
		for i := 1; i < len(below); i++ {
			if below[i].element == below[i-1].element {
				return 0, nil, false
			}
		}
		return 0, below, true
	}
	return gained, nil, true
}

// bareItems reports whether an item of a list is owned without any of its
// fields (it has only default keys). The reference implementation then may take it for an empty one.
func bareItems(t *typ, owned []change) bool {
	for i := range owned {
		c := &owned[i]
		at := below(t, c.element)
		if c.element[0] == 'k' && len(c.below) == 0 && at != nil && !at.remnant() || bareItems(at, c.below) {
			return true
		}
	}
	return false
}

// leavesNothing reports whether all paths of dropped are among those of owned.
func leavesNothing(dropped, owned []change) bool {
	for i := range dropped {
		c := &dropped[i]
		at, found := find(owned, c.element)
		if !found || c.mark == gained && owned[at].mark != gained || !leavesNothing(c.below, owned[at].below) {
			return false
		}
	}
	return true
}

// union merges two trees of changes; a gain wins over a loss.
func union(a, b []change) []change {
	if len(a) == 0 {
		return b
	}
	if len(b) == 0 {
		return a
	}
	made := make([]change, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch c := compareElements(a[0].element, b[0].element); {
		case c < 0:
			made, a = append(made, a[0]), a[1:]
		case c > 0:
			made, b = append(made, b[0]), b[1:]
		default:
			m := a[0].mark
			if b[0].mark == gained || m == 0 {
				m = b[0].mark
			}
			made = append(made, change{a[0].element, m, union(a[0].below, b[0].below)})
			a, b = a[1:], b[1:]
		}
	}
	return append(append(made, a...), b...)
}

// isOwned reports whether a path is owned: itself, or, for a declared field,
// something below it.
func isOwned(owners []change, element string, declared bool) (below []change, owned bool) {
	at, found := find(owners, element)
	if !found {
		return nil, false
	}
	return owners[at].below, owners[at].mark == gained || declared
}

// Only is a filter that lets fields be owned that are at some dotted paths, and below them; "*" stands for any item or key.
func Only(paths []string) fieldpath.Filter {
	matchers := make([]*fieldpath.SetMatcher, len(paths))
	for i, path := range paths {
		var parts []any
		for name := range strings.SplitSeq(path, ".") {
			if name == "*" {
				parts = append(parts, fieldpath.MatchAnyPathElement())
				continue
			}
			parts = append(parts, name)
		}
		matchers[i] = fieldpath.MakePrefixMatcherOrDie(parts...)
	}
	return fieldpath.NewIncludeMatcherFilter(matchers...)
}
