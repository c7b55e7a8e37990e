package patch

import (
	"slices"
	"strings"

	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// change is a node of the tree of what an update did: the paths that it added,
// modified or removed, in the order of path elements.
type change struct {
	element string
	mark    mark
	below   []change
}

type mark uint8

const (
	gained mark = iota + 1 // added or modified: who made the update owns it now
	lost                   // removed: nobody owns it any more
)

// gains reports whether anything in the tree was added or modified.
func gains(changes []change) bool {
	for i := range changes {
		if changes[i].mark == gained || gains(changes[i].below) {
			return true
		}
	}
	return false
}

// find returns the position of an element, or where it would be.
func find(changes []change, element string) (int, bool) {
	return slices.BinarySearchFunc(changes, element, func(c change, e string) int { return compareElements(c.element, e) })
}

// unowned are fields of metadata that nobody owns, and at the top apiVersion and kind.
var unowned = map[string]bool{
	"f:name": true, "f:namespace": true, "f:creationTimestamp": true, "f:selfLink": true, "f:uid": true,
	"f:clusterName": true, "f:generation": true, "f:managedFields": true, "f:resourceVersion": true,
}

// ownable returns the changes with those of unowned fields turned into losses.
func ownable(changes []change) []change {
	made := changes
	set := func(of []change, i int, to mark) []change {
		of = slices.Clone(of)
		of[i].mark = to
		return of
	}
	for i := range changes {
		c := &changes[i]
		switch c.element {
		case "f:apiVersion", "f:kind":
			made = set(made, i, lost)
		case "f:metadata":
			if c.mark == gained {
				made = set(made, i, lost)
			}
			below := c.below
			for j := range below {
				if below[j].mark == gained && unowned[below[j].element] {
					below = set(below, j, lost)
				}
			}
			made = slices.Clone(made)
			made[i].below = below
		}
	}
	return made
}

// resetTree are the fields that an endpoint does not own, as a tree of names.
// nil: none. A leaf is reset with all below it.
type resetTree struct {
	leaf  bool
	below map[string]*resetTree
}

func newResetTree(paths []string) *resetTree {
	if len(paths) == 0 {
		return nil
	}
	root := &resetTree{}
	for _, path := range paths {
		at := root
		for _, name := range strings.Split(path, ".") {
			next := at.below[name]
			if next == nil {
				next = &resetTree{}
				if at.below == nil {
					at.below = map[string]*resetTree{}
				}
				at.below[name] = next
			}
			at = next
		}
		at.leaf = true
	}
	return root
}

func (r *resetTree) field(name string) *resetTree {
	if r == nil {
		return nil
	}
	return r.below[name]
}

func (r *resetTree) set() *fieldpath.Set {
	set := fieldpath.NewSet()
	var add func(at *resetTree, path fieldpath.Path)
	add = func(at *resetTree, path fieldpath.Path) {
		if at.leaf {
			set.Insert(path.Copy())
			return
		}
		for name, below := range at.below {
			add(below, append(path, fieldpath.FieldNameElement(name)))
		}
	}
	add(r, nil)
	return set
}
