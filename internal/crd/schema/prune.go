package schema

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
)

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// Prune removes from an object every field that the schema does not know and returns
// their paths, sorted. apiVersion, kind and metadata of the object and of resources embedded in it stay;
// see Metadata for what metadata may hold.
func (s *Schema) Prune(object map[string]any) (unknown []string) {
	p := pruner{}
	p.object(object, s.root, true)
	slices.Sort(p.unknown)
	return p.unknown
}

type pruner struct {
	path    []byte
	unknown []string
}

// key extends the path, which is relative to the object, by a key and returns its length before.
func (p *pruner) key(name string) (back int) {
	back = len(p.path)
	if back > 0 {
		p.path = append(p.path, '.')
	}
	p.path = append(p.path, name...)
	return back
}

func (p *pruner) value(v any, n *node) {
	switch v := v.(type) {
	case map[string]any:
		p.object(v, n, n.embedded)
	case []any:
		if n.items == nil && n.preserve {
			return
		}
		items := n.items
		if items == nil {
			items = &nothing
		}
		for i, e := range v {
			switch e.(type) {
			case map[string]any, []any:
			default:
				continue
			}
			back := len(p.path)
			p.path = append(strconv.AppendInt(append(p.path, '['), int64(i), 10), ']')
			p.value(e, items)
			p.path = p.path[:back]
		}
	}
}

// nothing is the schema of what has none.
var nothing node

func (p *pruner) object(m map[string]any, n *node, resource bool) {
	for key, v := range m {
		if resource && (key == "apiVersion" || key == "kind" || key == "metadata") {
			continue
		}
		child := n.child(key)
		if child == nil {
			if n.preserve || n.anyKey {
				continue
			}
			back := p.key(key)
			p.unknown = append(p.unknown, string(p.path))
			p.path = p.path[:back]
			delete(m, key)
			continue
		}
		switch v.(type) {
		case map[string]any, []any:
			back := p.key(key)
			p.value(v, child)
			p.path = p.path[:back]
		}
	}
}
