package watchcache

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/timonel/timonel/internal/storage"
)

// Query chooses objects. The zero value is all.
type Query struct {
	Namespace string             // "": all
	Name      string             // "": all
	Labels    labels.Selector    // nil: all
	Fields    []FieldRequirement // all must hold
	After     string             // lists only: keys greater than this one
	Limit     int                // lists only: at most so many; 0: all
}

// FieldRequirement demands that a selectable field has the value, or has not.
type FieldRequirement struct {
	Index    int // in Collection.Fields, or NameField or NamespaceField
	Value    string
	NotEqual bool
}

// Fields that every object has, as indexes.
const (
	NameField      = -1
	NamespaceField = -2
)

// Page is an answer of List.
type Page struct {
	Versions  []*Version // in the order of their keys
	More      bool       // there are further ones
	Remaining int64      // how many further ones; -1: not known, because selectors choose
}

// Snapshot is a view at one revision.
type Snapshot struct {
	view     *View
	state    *state
	revision storage.Revision
}

// Revision returns the revision the snapshot shows. Watch after it continues without a gap.
func (s Snapshot) Revision() storage.Revision { return s.revision }

// Len returns how many objects there are in the namespace, or in all for "".
func (s Snapshot) Len(namespace string) int {
	lo, hi := s.span(namespace, "")
	return hi - lo
}

// Get returns the object at the key.
func (s Snapshot) Get(key string) (*Version, bool) {
	v := s.state.objects.get("", key)
	return v, v != nil
}

// span returns the ranks of the namespace's objects, from after the key on.
func (s Snapshot) span(namespace, after string) (lo, hi int) {
	hi = s.state.objects.len()
	if namespace != "" {
		lo = s.state.objects.rank("", namespace+"/", false)
		hi = s.state.objects.rank("", namespace+"0", false) // '0' follows '/'
	}
	if after != "" {
		lo = max(lo, s.state.objects.rank("", after, true))
	}
	return lo, max(lo, hi)
}

// List returns the objects that the query chooses.
func (s Snapshot) List(q Query) Page {
	if key, ok := q.point(&s.view.collection); ok {
		return s.one(key, q)
	}
	m := q.matcher()
	if m.none {
		return Page{Remaining: -1}
	}
	lo, hi := s.span(q.Namespace, q.After)
	total := hi - lo
	if m.all() {
		return s.scan(q, total, nil)
	}
	if page, ok := s.indexed(q, &m, total); ok {
		return page
	}
	return s.scan(q, total, &m)
}

// point returns the only key that the query can mean.
func (q *Query) point(c *Collection) (key string, ok bool) {
	switch {
	case q.Name == "":
		return "", false
	case !c.Namespaced:
		return q.Name, true
	case q.Namespace != "":
		return q.Namespace + "/" + q.Name, true
	}
	return "", false
}

func (s Snapshot) one(key string, q Query) Page {
	page := Page{Remaining: -1}
	v := s.state.objects.get("", key)
	if m := q.matcher(); v != nil && key > q.After && m.match(v) {
		page.Versions = []*Version{v}
	}
	return page
}

// scan goes through the objects of the namespace.
func (s Snapshot) scan(q Query, total int, m *matcher) Page {
	from, after := "", false
	end := ""
	if q.Namespace != "" {
		from, end = q.Namespace+"/", q.Namespace+"0"
	}
	if q.After >= from && q.After != "" {
		from, after = q.After, true
	}
	page := Page{Remaining: -1}
	if m == nil {
		n := total
		if q.Limit > 0 && q.Limit < n {
			n = q.Limit
		}
		page.Versions = make([]*Version, 0, n)
		page.Remaining = int64(total - n)
	}
	s.state.objects.ascend("", from, after, func(v *Version) bool {
		if end != "" && v.key >= end {
			return false
		}
		if m != nil && !m.match(v) {
			return true
		}
		if q.Limit > 0 && len(page.Versions) == q.Limit {
			page.More = true
			return false
		}
		page.Versions = append(page.Versions, v)
		return true
	})
	return page
}

// An object found through an index costs about this many times what one costs that is scanned past.
const lookupCost = 8

// indexed goes through the shortest fitting range of an index, if that is cheaper than to scan.
func (s Snapshot) indexed(q Query, m *matcher, total int) (Page, bool) {
	if total < minIndexed {
		return Page{}, false
	}
	best := total / lookupCost
	var index tree[posting]
	var values []string
	consider := func(t tree[posting], vs []string) {
		n := 0
		for _, v := range vs {
			lo, hi := postingSpan(t, v, q.Namespace)
			n += hi - lo
		}
		if n < best {
			best, index, values = n, t, vs
		}
	}
	for _, f := range q.Fields {
		if !f.NotEqual && f.Index >= 0 && f.Index < len(s.view.collection.Indexed) && s.view.collection.Indexed[f.Index] {
			consider(s.state.fields[f.Index], []string{f.Value})
		}
	}
	for _, r := range m.requirements {
		if vs, ok := wanted(&r); ok {
			if t, ok := s.labelIndex(r.Key()); ok {
				consider(t, vs)
			}
		}
	}
	if values == nil {
		return Page{}, false
	}
	found := make([]posting, 0, best)
	for _, value := range values {
		from, end, after := "", "", false
		if q.Namespace != "" {
			from, end = q.Namespace+"/", q.Namespace+"0"
		}
		if q.After >= from && q.After != "" {
			from, after = q.After, true
		}
		index.ascend(value, from, after, func(p posting) bool {
			if p.value != value || end != "" && p.key >= end {
				return false
			}
			found = append(found, p)
			return true
		})
	}
	if len(values) > 1 {
		slices.SortFunc(found, func(a, b posting) int { return strings.Compare(a.key, b.key) })
	}
	page := Page{Remaining: -1}
	for _, p := range found {
		v := s.state.version(p)
		if v == nil || !m.match(v) {
			continue
		}
		if q.Limit > 0 && len(page.Versions) == q.Limit {
			page.More = true
			break
		}
		page.Versions = append(page.Versions, v)
	}
	return page, true
}

// minIndexed is the number of objects from which indexes pay. A variable for the tests.
var minIndexed = 64

func postingSpan(t tree[posting], value, namespace string) (lo, hi int) {
	if namespace == "" {
		return t.rank(value, "", false), t.rank(value+"\x00", "", false)
	}
	return t.rank(value, namespace+"/", false), t.rank(value, namespace+"0", false)
}

// wanted returns the values one of which the requirement demands of the label.
func wanted(r *labels.Requirement) ([]string, bool) {
	switch r.Operator() {
	case selection.Equals, selection.DoubleEquals, selection.In:
		values := r.ValuesUnsorted()
		slices.Sort(values)
		return values, len(values) > 0
	}
	return nil, false
}

// matcher is a query made ready to be asked about many objects. After and Limit are not part of it.
type matcher struct {
	namespace, name string
	selector        labels.Selector // nil: all
	requirements    labels.Requirements
	fields          []FieldRequirement
	none            bool // nothing can match
}

func (q *Query) matcher() matcher {
	m := matcher{namespace: q.Namespace, name: q.Name, fields: q.Fields}
	if q.Labels != nil && !q.Labels.Empty() {
		m.selector = q.Labels
		var selectable bool
		m.requirements, selectable = q.Labels.Requirements()
		m.none = !selectable
	}
	return m
}

// all says that the matcher chooses every object of its namespace.
func (m *matcher) all() bool { return m.name == "" && m.selector == nil && len(m.fields) == 0 }

func (m *matcher) match(v *Version) bool {
	if m.namespace != "" && v.Namespace != m.namespace || m.name != "" && v.Name != m.name {
		return false
	}
	for _, f := range m.fields {
		if (v.Field(f.Index) == f.Value) == f.NotEqual {
			return false
		}
	}
	return m.selector == nil || m.selector.Matches(v.Labels)
}
