package kind

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
)

// Catalog is an immutable set of definitions. Changing it means making another
// one; see [Live].
//
// Custom resources come and go one by one, so they stand by group: a catalogue with other ones shares all but
// their groups with the one before it.
type Catalog struct {
	builtin *table
	custom  map[string]*table // by group
}

// table is some of the definitions of a catalogue.
type table struct {
	all        []*Definition
	private    []*Definition // stored, and served nowhere
	byResource map[schema.GroupVersionResource]*Definition
	byKind     map[schema.GroupVersionKind]*Definition
	hubs       map[schema.GroupResource]*Definition
	groups     map[string][]string // versions of a group, preferred first
	groupOrder []string
	variants   map[*Definition]int // of a hub, how many versions are served
}

// NewCatalog makes a catalogue of the definitions, completing each. Of two with the
// same names the first one stays.
func NewCatalog(definitions ...*Definition) *Catalog {
	builtin, custom := make([]*Definition, 0, len(definitions)), []*Definition(nil)
	for _, d := range definitions {
		if d.Prune == nil {
			builtin = append(builtin, d)
		} else {
			custom = append(custom, d)
		}
	}
	c := &Catalog{builtin: newTable(builtin)}
	return c.With(Change{New: custom})
}

func newTable(definitions []*Definition) *table {
	t := &table{
		all:        make([]*Definition, 0, len(definitions)),
		byResource: make(map[schema.GroupVersionResource]*Definition, len(definitions)),
		byKind:     make(map[schema.GroupVersionKind]*Definition, len(definitions)),
		hubs:       make(map[schema.GroupResource]*Definition, len(definitions)),
		groups:     map[string][]string{},
		variants:   map[*Definition]int{},
	}
	for _, d := range definitions {
		d.Complete()
		d.Hub().Complete()
		if d.Private {
			if t.hubs[d.GroupResource()] == nil {
				t.private, t.hubs[d.GroupResource()] = append(t.private, d), d
			}
			continue
		}
		if t.byResource[d.Resource()] != nil {
			continue
		}
		t.all = append(t.all, d)
		t.variants[d.Hub()]++
		t.byResource[d.Resource()] = d
		t.byKind[d.GroupVersionKind()] = d
		if t.hubs[d.GroupResource()] == nil {
			t.hubs[d.GroupResource()] = d.Hub()
		}
		if t.groups[d.Group] == nil {
			t.groupOrder = append(t.groupOrder, d.Group)
		}
		if !slices.Contains(t.groups[d.Group], d.Version) {
			t.groups[d.Group] = append(t.groups[d.Group], d.Version)
		}
	}
	return t
}

// Change is what custom resources a catalogue has less and more than the one before it.
type Change struct{ Gone, New []*Definition }

// With returns the catalogue after a change.
func (c *Catalog) With(change Change) *Catalog {
	next := &Catalog{builtin: c.builtin, custom: maps.Clone(c.custom)}
	if next.custom == nil {
		next.custom = map[string]*table{}
	}
	groups := map[string]bool{}
	for _, d := range slices.Concat(change.Gone, change.New) {
		groups[d.Group] = true
	}
	for group := range groups {
		kinds := slices.DeleteFunc(slices.Clone(c.of(group).all), func(d *Definition) bool { return slices.Contains(change.Gone, d) })
		for _, d := range change.New {
			if d.Group == group && c.builtin.byResource[d.Resource()] == nil {
				kinds = append(kinds, d)
			}
		}
		slices.SortStableFunc(kinds, byPreference)
		if next.custom[group] = newTable(kinds); len(kinds) == 0 {
			delete(next.custom, group)
		}
	}
	return next
}

// nothing is the table of a group without custom resources.
var nothing table

// of returns the custom resources of a group.
func (c *Catalog) of(group string) *table {
	if t := c.custom[group]; t != nil {
		return t
	}
	return &nothing
}

// byPreference is the order of custom resources of a group: that in which discovery lists versions.
func byPreference(a, b *Definition) int {
	return cmp.Or(version.CompareKubeAwareVersionStrings(b.Version, a.Version), cmp.Compare(a.Plural, b.Plural))
}

// All returns the definitions that are served: the built-in ones in the order in which they were given, then custom resources by group.
func (c *Catalog) All() []*Definition {
	all := slices.Clone(c.builtin.all)
	for _, group := range slices.Sorted(maps.Keys(c.custom)) {
		all = append(all, c.custom[group].all...)
	}
	return all
}

// Groups returns the names of the groups in the order of All.
func (c *Catalog) Groups() []string {
	groups := slices.Clone(c.builtin.groupOrder)
	for _, group := range slices.Sorted(maps.Keys(c.custom)) {
		if c.builtin.groups[group] == nil {
			groups = append(groups, group)
		}
	}
	return groups
}

// Versions returns the versions of a group, preferred first; nil if there is no such group.
func (c *Catalog) Versions(group string) []string {
	versions := c.builtin.groups[group]
	for _, v := range c.of(group).groups[group] {
		if !slices.Contains(versions, v) {
			versions = append(versions[:len(versions):len(versions)], v)
		}
	}
	return versions
}

// Resource returns the definition of a resource, or nil.
func (c *Catalog) Resource(r schema.GroupVersionResource) *Definition {
	if d := c.builtin.byResource[r]; d != nil {
		return d
	}
	return c.of(r.Group).byResource[r]
}

// Locate is Resource by its three names.
func (c *Catalog) Locate(group, version, plural string) *Definition {
	return c.Resource(schema.GroupVersionResource{Group: group, Version: version, Resource: plural})
}

// Versioned reports whether the kind of a definition is served in several versions.
func (c *Catalog) Versioned(d *Definition) bool {
	hub := d.Hub()
	return c.builtin.variants[hub] > 1 || c.of(hub.Group).variants[hub] > 1
}

// Kind returns the definition of a kind, or nil.
func (c *Catalog) Kind(k schema.GroupVersionKind) *Definition {
	if d := c.builtin.byKind[k]; d != nil {
		return d
	}
	return c.of(k.Group).byKind[k]
}

// Hub returns the definition of the version that is worked on, or nil.
func (c *Catalog) Hub(r schema.GroupResource) *Definition {
	if d := c.builtin.hubs[r]; d != nil {
		return d
	}
	return c.of(r.Group).hubs[r]
}

// Custom reports whether a group has custom resources only.
func (c *Catalog) Custom(group string) bool {
	return c.custom[group] != nil && c.builtin.groups[group] == nil
}

// Has reports whether the group version serves anything.
func (c *Catalog) Has(group, version string) bool {
	return slices.Contains(c.Versions(group), version)
}

// Serves is Has, which with an empty version speaks of the group.
func (c *Catalog) Serves(group, version string) bool {
	return version == "" && c.Versions(group) != nil || c.Has(group, version)
}

// Stored returns the definitions that own storage, one per key space. A hub stands here also when only another version of
// its kind is served.
func (c *Catalog) Stored() []*Definition {
	stored := Hubs(slices.Concat(c.All(), c.builtin.private))
	slices.SortFunc(stored, func(a, b *Definition) int { return strings.Compare(a.Stored.Prefix, b.Stored.Prefix) })
	return stored
}

// Hubs returns the hubs of definitions, of those that own storage, one per key space.
func Hubs(definitions []*Definition) (stored []*Definition) {
	seen := map[string]bool{}
	for _, d := range definitions {
		if hub := d.Hub(); hub.Persistent() && !seen[hub.Stored.Prefix] {
			seen[hub.Stored.Prefix] = true
			stored = append(stored, hub)
		}
	}
	return stored
}

// Live is the catalogue that is served now: readers take the current one without
// a lock, a writer swaps it whole and tells those who follow.
type Live struct {
	current atomic.Pointer[Catalog]
	mu      struct {
		sync.Mutex
		followers []func(*Catalog, Change)
	}
}

// NewLive starts with a catalogue.
func NewLive(c *Catalog) *Live {
	l := &Live{}
	l.current.Store(c)
	return l
}

// Catalog returns the current catalogue.
func (l *Live) Catalog() *Catalog { return l.current.Load() }

// Change replaces the catalogue by one with a change, and calls the followers with it, one change at a time.
func (l *Live) Change(change Change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := l.current.Load().With(change)
	for _, f := range l.mu.followers { // first: what they prepare must be there when a request finds the kind
		f(next, change)
	}
	l.current.Store(next)
}

// Follow calls f with every later catalogue and how it differs from the one before.
func (l *Live) Follow(f func(*Catalog, Change)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.followers = append(l.mu.followers, f)
}
