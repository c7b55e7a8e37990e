package patch

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/timonel/timonel/internal/object"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// ManagerLimit is the longest manager name made from a User-Agent, in bytes.
const ManagerLimit = 128

// ErrNoVersion is what OwnershipOptions.Convert answers for a version that the
// kind does not have. Entries of managers who used it are dropped.
var ErrNoVersion = errors.New("no such version")

// OwnershipOptions says whose fields an Ownership keeps.
type OwnershipOptions struct {
	// Kind is what clients send and get at the endpoint; managers are recorded with its version.
	Kind schema.GroupVersionKind
	// Subresource of the endpoint, "" for the main one. Its writes cannot edit managedFields.
	Subresource string
	// New returns an empty object of Kind.
	New func() object.Object
	// Default fills what a client left out of an object of Kind.
	Default func(object.Object)
	// Hub is the apiVersion of the objects that Update and Apply get and return; default: Kind's.
	Hub string
	// Convert returns obj (Kind, Hub, or another version) in another version of
	// the kind, or ErrNoVersion. It does not change obj. nil: there is one version.
	Convert func(obj object.Object, apiVersion string) (object.Object, error)
	// Schema gives the schema of a version of a custom resource. nil: a built-in
	// kind, whose schema follows from its Go type.
	Schema func(apiVersion string) (*Schema, bool)
	// Reset are dotted paths of fields that a write through this endpoint does not own (KEP-555, "reset fields"): "status" for
	// the main endpoint, "spec" for the status.
	Reset []string
	// Filter, if not nil, says instead of Reset which fields can be owned. It costs the short cuts.
	Filter fieldpath.Filter
	// Reference turns all short cuts off: the library that kube-apiserver uses
	// does everything.
	Reference bool
}

// Ownership records in metadata.managedFields who last set which field of the
// objects of a kind, as they are written through one endpoint (KEP-555,
// Server-Side Apply). It is immutable and safe for concurrent use; make one per endpoint and keep it.
//
// Update and Apply first try the short cuts of this package, which look only at
// what changed. These know when they are out of their depth (duplicates in lists, fields that
// changed between atomic and granular, more managers than are kept, managedFields written by
// hand) and then leave the work to the reference implementation.
type Ownership struct {
	OwnershipOptions
	apiVersion string
	reset      *resetTree
	reference  func() *managedfields.FieldManager
	versions   sync.Map // apiVersion → *layout of another version
	layout     func() *layout
	goType     func() reflect.Type // of Kind
}

// NewOwnership compiles nothing yet: schemas are read and layouts made on first use.
func NewOwnership(options OwnershipOptions) *Ownership {
	o := &Ownership{OwnershipOptions: options, apiVersion: options.Kind.GroupVersion().String()}
	if o.Hub == "" {
		o.Hub = o.apiVersion
	}
	if o.Default == nil {
		o.Default = func(object.Object) {}
	}
	o.reset = newResetTree(o.Reset)
	o.reference = sync.OnceValue(o.newReference)
	o.goType = sync.OnceValue(func() reflect.Type { return reflect.TypeOf(o.New()) })
	o.layout = sync.OnceValue(func() *layout { return o.layoutOf(o.New(), o.apiVersion) })
	return o
}

// Update sets obj's managedFields after a create (live nil), an update or a
// patch other than apply by manager. obj is otherwise left alone; live is only read. It never
// fails: where the reference implementation would, the fields keep their owners.
//
// managedFields in obj that came with the request are honoured at the main
// endpoint: nil keeps the owners, [] and [{}] forget them all, entries replace them.
func (o *Ownership) Update(live, obj object.Object, manager string, now time.Time) {
	if live == nil {
		live = o.nothing()
	}
	now = now.UTC().Truncate(time.Second)
	if !o.Reference && o.Filter == nil {
		if entries, ok := o.quickUpdate(live, obj, manager, now); ok {
			obj.SetManagedFields(entries)
			return
		}
	}
	before := live.GetManagedFields()
	if o.Subresource == "" {
		before = append(slices.Clone(before), obj.GetManagedFields()...)
	}
	o.referenceUpdate(live, obj, manager)
	obj.SetManagedFields(restamp(before, obj.GetManagedFields(), now))
}

// Apply merges what manager applied into live (nil: there is none yet) and
// returns the result in the hub's version, with defaults and managedFields. Neither argument is
// changed. If nothing changes at all, managedFields included, the result is live itself.
//
// Errors: 409 Conflict with a cause per field when another manager owns a field
// that would change and force is false; 400 for a wrong type or managedFields in applied; other errors
// (a value that does not fit the schema) are plain and mean 500, as kube-apiserver has it.
func (o *Ownership) Apply(live object.Object, applied *unstructured.Unstructured, manager string, force bool, now time.Time) (merged object.Object, err error) {
	now = now.UTC().Truncate(time.Second)
	if live == nil {
		live = o.nothing()
	}
	if !o.Reference && o.Filter == nil {
		if merged, ok := o.quickApply(live, applied, manager, force, now); ok {
			return merged, nil
		}
	}
	merged, err = o.referenceApply(live, applied, manager, force)
	if err != nil {
		return nil, err
	}
	merged.SetManagedFields(restamp(live.GetManagedFields(), merged.GetManagedFields(), now))
	return merged, nil
}

// nothing is the object before its creation.
func (o *Ownership) nothing() object.Object {
	obj := o.New()
	if tree, ok := obj.(*unstructured.Unstructured); ok {
		if tree.Object == nil {
			tree.Object = map[string]any{}
		}
		tree.SetGroupVersionKind(o.Kind)
	}
	return obj
}

// Manager is the name that changes are recorded under: the request's
// fieldManager, else the User-Agent up to its first "/", without what cannot be printed and cut at
// ManagerLimit bytes.
func Manager(fieldManager, userAgent string) string {
	if fieldManager != "" {
		return fieldManager
	}
	prefix, _, _ := strings.Cut(userAgent, "/")
	var name strings.Builder
	for _, r := range prefix {
		if !unicode.IsPrint(r) {
			continue
		}
		if name.Len()+utf8.RuneLen(r) > ManagerLimit {
			break
		}
		name.WriteRune(r)
	}
	return name.String()
}

// identity tells the managers of an object apart.
type identity struct {
	manager, operation, apiVersion, subresource string
}

// identityOf: what a manager applied is one entry, whatever the version.
func identityOf(e *metav1.ManagedFieldsEntry) identity {
	id := identity{manager: e.Manager, operation: string(e.Operation), subresource: e.Subresource}
	if e.Operation != metav1.ManagedFieldsOperationApply {
		id.apiVersion = e.APIVersion
	}
	return id
}

// sortEntries puts managedFields in the order in which they are stored: applies
// before updates, older before newer, then by name, version and subresource.
func sortEntries(entries []metav1.ManagedFieldsEntry) {
	seconds := func(t *metav1.Time) int64 {
		if t == nil {
			return 0
		}
		return t.Unix()
	}
	slices.SortFunc(entries, func(a, b metav1.ManagedFieldsEntry) int {
		if c := strings.Compare(string(a.Operation), string(b.Operation)); c != 0 {
			return c
		}
		if s, t := seconds(a.Time), seconds(b.Time); s != t {
			return int(max(min(s-t, 1), -1))
		}
		if c := strings.Compare(a.Manager, b.Manager); c != 0 {
			return c
		}
		if c := strings.Compare(a.APIVersion, b.APIVersion); c != 0 {
			return c
		}
		return strings.Compare(a.Subresource, b.Subresource)
	})
}

// restamp gives the entries that the reference implementation stamped with its
// clock the time now. before are the entries it started from.
func restamp(before, after []metav1.ManagedFieldsEntry, now time.Time) []metav1.ManagedFieldsEntry {
	changed := false
	for i := range after {
		e := &after[i]
		kept := e.Time == nil || slices.ContainsFunc(before, func(b metav1.ManagedFieldsEntry) bool { return b.Time.Equal(e.Time) })
		if !kept {
			e.Time = &metav1.Time{Time: now}
			changed = true
		}
	}
	if changed {
		sortEntries(after)
	}
	return after
}

// toVersion returns obj in a version of the kind, obj itself if it is in it.
func (o *Ownership) toVersion(obj object.Object, apiVersion string) (object.Object, error) {
	if o.versionOf(obj) == apiVersion {
		return obj, nil
	}
	if o.Convert == nil {
		return nil, fmt.Errorf("%s %s: %w", o.Kind.Kind, apiVersion, ErrNoVersion)
	}
	return o.Convert(obj, apiVersion)
}

// versionOf is the apiVersion of obj: of a tree what it says, else by its Go type.
func (o *Ownership) versionOf(obj object.Object) string {
	if tree, ok := obj.(*unstructured.Unstructured); ok {
		return tree.GetAPIVersion()
	}
	if o.Convert == nil || reflect.TypeOf(obj) == o.goType() {
		return o.apiVersion
	}
	if v := obj.GetObjectKind().GroupVersionKind(); v.Version != "" {
		return v.GroupVersion().String()
	}
	return o.Hub
}

// schemaOf finds the schema of an object that is in version apiVersion.
func (o *Ownership) schemaOf(obj object.Object, apiVersion string) (*Schema, bool) {
	if o.Schema != nil {
		return o.Schema(apiVersion)
	}
	return SchemaOf(obj)
}
