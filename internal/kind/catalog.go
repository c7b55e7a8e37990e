package kind

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Catalog is an immutable set of definitions. Changing it means making another
// one; see [Live].
type Catalog struct {
	all        []*Definition
	private    []*Definition // stored, and served nowhere
	byResource map[schema.GroupVersionResource]*Definition
	byKind     map[schema.GroupVersionKind]*Definition
	hubs       map[schema.GroupResource]*Definition
	groups     map[string][]string // versions of a group, preferred first
	groupOrder []string
	variants   map[*Definition]int // of a hub, how many versions are served
	builtin    map[string]bool     // groups that have kinds which are no custom resources
}

// NewCatalog makes a catalogue of the definitions, completing each. Of two with the
// same names the first one stays.
func NewCatalog(definitions ...*Definition) *Catalog {
	c := &Catalog{
		all:        make([]*Definition, 0, len(definitions)),
		byResource: make(map[schema.GroupVersionResource]*Definition, len(definitions)),
		byKind:     make(map[schema.GroupVersionKind]*Definition, len(definitions)),
		hubs:       make(map[schema.GroupResource]*Definition, len(definitions)),
		groups:     map[string][]string{},
		variants:   map[*Definition]int{},
		builtin:    map[string]bool{},
	}
	for _, d := range definitions {
		d.Complete()
		d.Hub().Complete()
		if d.Private {
			if c.hubs[d.GroupResource()] == nil {
				c.private, c.hubs[d.GroupResource()] = append(c.private, d), d
			}
			continue
		}
		if c.byResource[d.Resource()] != nil {
			continue
		}
		c.all = append(c.all, d)
		c.variants[d.Hub()]++
		c.builtin[d.Group] = c.builtin[d.Group] || d.Prune == nil
		c.byResource[d.Resource()] = d
		c.byKind[d.GroupVersionKind()] = d
		if c.hubs[d.GroupResource()] == nil {
			c.hubs[d.GroupResource()] = d.Hub()
		}
		if c.groups[d.Group] == nil {
			c.groupOrder = append(c.groupOrder, d.Group)
		}
		if !slices.Contains(c.groups[d.Group], d.Version) {
			c.groups[d.Group] = append(c.groups[d.Group], d.Version)
		}
	}
	return c
}

// WithCustom returns a catalogue of the built-in kinds and these custom resources, in place of those that there were.
func (c *Catalog) WithCustom(custom ...*Definition) *Catalog {
	builtin := slices.DeleteFunc(slices.Concat(c.private, c.all), func(d *Definition) bool { return d.Prune != nil })
	return NewCatalog(append(builtin, custom...)...)
}

// All returns the definitions that are served, in the order in which they were given.
func (c *Catalog) All() []*Definition { return c.all }

// Groups returns the names of the groups in the order in which they were given.
func (c *Catalog) Groups() []string { return c.groupOrder }

// Versions returns the versions of a group, preferred first; nil if there is no such group.
func (c *Catalog) Versions(group string) []string { return c.groups[group] }

// Resource returns the definition of a resource, or nil.
func (c *Catalog) Resource(r schema.GroupVersionResource) *Definition { return c.byResource[r] }

// Locate is Resource by its three names.
func (c *Catalog) Locate(group, version, plural string) *Definition {
	return c.byResource[schema.GroupVersionResource{Group: group, Version: version, Resource: plural}]
}

// Versioned reports whether the kind of a definition is served in several versions.
func (c *Catalog) Versioned(d *Definition) bool { return c.variants[d.Hub()] > 1 }

// Kind returns the definition of a kind, or nil.
func (c *Catalog) Kind(k schema.GroupVersionKind) *Definition { return c.byKind[k] }

// Hub returns the definition of the version that is worked on, or nil.
func (c *Catalog) Hub(r schema.GroupResource) *Definition { return c.hubs[r] }

// Custom reports whether a group has custom resources only.
func (c *Catalog) Custom(group string) bool { return c.groups[group] != nil && !c.builtin[group] }

// Has reports whether the group version serves anything.
func (c *Catalog) Has(group, version string) bool {
	return slices.Contains(c.groups[group], version)
}

// Serves is Has, which with an empty version speaks of the group.
func (c *Catalog) Serves(group, version string) bool {
	return version == "" && c.groups[group] != nil || c.Has(group, version)
}

// Stored returns the definitions that own storage, one per key space. A hub stands here also when only another version of
// its kind is served.
func (c *Catalog) Stored() []*Definition {
	var stored []*Definition
	seen := map[string]bool{}
	for _, d := range slices.Concat(c.all, c.private) {
		if hub := d.Hub(); hub.Persistent() && !seen[hub.Stored.Prefix] {
			seen[hub.Stored.Prefix] = true
			stored = append(stored, hub)
		}
	}
	slices.SortFunc(stored, func(a, b *Definition) int { return strings.Compare(a.Stored.Prefix, b.Stored.Prefix) })
	return stored
}

// Live is the catalogue that is served now: readers take the current one without
// a lock, a writer swaps it whole and tells those who follow.
type Live struct {
	current atomic.Pointer[Catalog]
	mu      struct {
		sync.Mutex
		followers []func(*Catalog)
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

// Swap replaces the catalogue by change(current) and calls the followers with
// the new one, one swap at a time.
func (l *Live) Swap(change func(*Catalog) *Catalog) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := change(l.current.Load())
	for _, f := range l.mu.followers { // first: what they prepare must be there when a request finds the kind
		f(next)
	}
	l.current.Store(next)
}

// Follow calls f with every later catalogue.
func (l *Live) Follow(f func(*Catalog)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.followers = append(l.mu.followers, f)
}
