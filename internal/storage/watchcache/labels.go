package watchcache

import (
	"iter"
	"slices"
	"strings"
	"unique"

	"k8s.io/apimachinery/pkg/labels"
)

// Labels is an immutable set of labels. Equal sets share their memory, and
// comparing two with == compares the sets. The zero value is the empty set.
type Labels struct {
	// text is each label's key and value, each ended by a NUL, in the order of the keys.
	text unique.Handle[string]
}

// Label is a key and its value.
type Label struct{ Key, Value string }

var _ labels.Labels = Labels{}

// NewLabels returns the set of the labels, whose keys must differ. It may reorder
// the slice and keeps nothing of it.
func NewLabels(pairs []Label) Labels {
	if len(pairs) == 0 {
		return Labels{}
	}
	slices.SortFunc(pairs, func(a, b Label) int { return strings.Compare(a.Key, b.Key) })
	size := 0
	for _, p := range pairs {
		size += len(p.Key) + len(p.Value) + 2
	}
	text := make([]byte, 0, size)
	for _, p := range pairs {
		text = append(text, p.Key...)
		text = append(text, 0)
		text = append(text, p.Value...)
		text = append(text, 0)
	}
	return Labels{text: unique.Make(string(text))}
}

// LabelsOf returns the set of the map's labels.
func LabelsOf(m map[string]string) Labels {
	pairs := make([]Label, 0, len(m))
	for k, v := range m {
		pairs = append(pairs, Label{k, v})
	}
	return NewLabels(pairs)
}

// All yields the keys and values in the order of the keys.
func (l Labels) All() iter.Seq2[string, string] {
	return func(yield func(key, value string) bool) {
		if l == (Labels{}) {
			return
		}
		for rest := l.text.Value(); rest != ""; {
			var key, value string
			key, rest, _ = strings.Cut(rest, "\x00")
			value, rest, _ = strings.Cut(rest, "\x00")
			if !yield(key, value) {
				return
			}
		}
	}
}

// Lookup returns the value of the label and whether it is there.
func (l Labels) Lookup(key string) (value string, exists bool) {
	if l == (Labels{}) {
		return "", false
	}
	for rest := l.text.Value(); rest != ""; {
		k := rest[:strings.IndexByte(rest, 0)]
		rest = rest[len(k)+1:]
		v := rest[:strings.IndexByte(rest, 0)]
		if k == key {
			return v, true
		}
		rest = rest[len(v)+1:]
	}
	return "", false
}

// Has says whether the label is there.
func (l Labels) Has(key string) bool { _, ok := l.Lookup(key); return ok }

// Get returns the value of the label, or "".
func (l Labels) Get(key string) string { v, _ := l.Lookup(key); return v }

// Map returns the labels as a new map; nil if there are none.
func (l Labels) Map() map[string]string {
	if l == (Labels{}) {
		return nil
	}
	m := make(map[string]string)
	for k, v := range l.All() {
		m[k] = v
	}
	return m
}
