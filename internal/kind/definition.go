// Package kind is what a kind is: its names, its Go type, where it is stored,
// how it is defaulted, checked, changed and shown.
//
// A [Definition] is plain data and pure functions; the engine works from it alone
// and knows no kind by name. Built-in kinds are Definitions listed in api/, a custom
// resource becomes one at run time. A [Catalog] is an immutable set of them.
//
// Does not know: HTTP, storage, users' rights. Start reading at Definition.
package kind

import (
	"context"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/patch"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Scope says whether objects of a kind live in namespaces.
type Scope uint8

const (
	Namespaced Scope = iota + 1
	Cluster
)

// Verbs is a set of request verbs (Kubernetes API concepts, "API verbs").
type Verbs uint16

const (
	Get Verbs = 1 << iota
	List
	Watch
	Create
	Update
	Patch
	Delete
	DeleteCollection

	// Standard is every verb that a stored kind has as a rule.
	Standard = Get | List | Watch | Create | Update | Patch | Delete | DeleteCollection
	// ReadWrite is what a subresource has that shows another side of its object.
	ReadWrite = Get | Update | Patch
)

var verbNames = []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}

// Names returns the verbs in alphabetical order, as discovery lists them.
func (v Verbs) Names() []string {
	names := []string{}
	for _, i := range []int{3, 6, 7, 0, 1, 5, 4, 2} {
		if v&(1<<i) != 0 {
			names = append(names, verbNames[i])
		}
	}
	return names
}

// Has reports whether v contains all of w.
func (v Verbs) Has(w Verbs) bool { return v&w == w }

// Encoding is the form in which objects are stored.
type Encoding uint8

const (
	Protobuf Encoding = iota // the `k8s\0` envelope around the object's protobuf message
	JSON                     // JSON with a trailing newline
)

// Stored says where and how the objects of a kind are stored.
type Stored struct {
	Prefix   string   // between the etcd prefix and the object's key, e.g. "services/specs"; default: the plural
	Version  string   // apiVersion's version written to the store; default: the definition's own
	Encoding Encoding // of the value
	// Older are versions with other fields that may be found in a store, by apiVersion; see Definition.Reads.
	Older map[string]*Definition
	// Undefaulted: what is stored lacks values that Default gives, because they follow from what is set later; a
	// Job's labels are those of its pods. They are given when the object is read.
	Undefaulted bool
	// TellsEmpty: Default leaves alone a list or map that is empty, and fills one that is not there. Protobuf knows one of
	// the two, so that what was stored with its defaults may lack one when it is read.
	TellsEmpty bool
	// Shape converts to and from the stored version where that differs in more
	// than its apiVersion. nil: the stored fields are those of the Go type.
	Shape *Shape
}

// Shape is a pair of pure functions between an object and a value whose JSON is stored for it.
type Shape struct {
	ToStored func(obj object.Object) (any, error)
	// New returns a pointer to an empty value, to read what is stored into; FromStored takes it filled.
	New        func() any
	FromStored func(stored any) (object.Object, error)
}

// Conversion makes a Definition another version of one that the engine works
// on (the hub). Both functions are pure and may return what shares memory with their argument.
type Conversion struct {
	Hub     *Definition
	ToHub   func(object.Object) (object.Object, error)
	FromHub func(object.Object) (object.Object, error)
	// SameMessage: the protobuf message of the hub's object is that of the version's too, so that it goes to clients
	// as it is stored.
	SameMessage bool
}

// Definition is everything that the server knows about one version of a kind. The
// zero value of each optional field is the common case.
type Definition struct {
	Group, Version, Kind string
	Plural               string
	Singular             string // default: the kind in lower case
	ListKind             string // default: the kind + "List"
	ShortNames           []string
	Categories           []string
	Scope                Scope
	Verbs                Verbs
	Deprecated           string // the text of the warning that every request gets; default: what the Go type says of its version
	Gate                 string // the feature gate without which the kind is not served; "": none
	Private              bool   // stored for the server itself: at no path and in no document

	// New returns an empty object of the kind's Go type.
	New func() object.Object

	Stored  Stored
	Convert *Conversion // set on a version that is not the hub

	// Prune marks a custom resource, whose objects are trees: it removes the fields that the schema does not
	// know and returns their paths, sorted. What has the wrong type in metadata is the error. It runs on objects from clients, before
	// Default. With stored it brings an object from storage into the version of the definition instead, with the defaults of the stored
	// version, and takes the wrong metadata out.
	Prune func(obj object.Object, stored bool) (unknown []string, err error)

	// Premise is what each new object rests on; nil: nothing.
	Premise func() Premise

	// Terminating: the custom resource is going away with all its objects; there can be no new ones.
	Terminating bool

	// Default fills fields that the client left out, from the object alone. It is
	// idempotent; it runs on objects from clients and on objects from storage.
	Default func(obj object.Object)

	// CheckName reports what is wrong with a name, or, with prefix, with a
	// generateName. Default: a DNS subdomain.
	CheckName func(name string, prefix bool) []string

	// PrepareCreate and PrepareUpdate overwrite what a client may not set (status,
	// fields of features that are off) after admission and before validation.
	PrepareCreate func(ctx context.Context, obj object.Object)
	PrepareUpdate func(ctx context.Context, obj, old object.Object)

	// Generation reports whether an update changes the desired state, so that
	// metadata.generation counts it. nil: the kind has no generation. The engine sets 1 on create.
	Generation func(obj, old object.Object) bool

	// Validate reports everything wrong with a new object besides its metadata;
	// ValidateUpdate everything wrong with an update, what Validate would report
	// included. A nil ValidateUpdate means Validate.
	Validate       func(ctx context.Context, obj object.Object) field.ErrorList
	ValidateUpdate func(ctx context.Context, obj, old object.Object) field.ErrorList

	// Warnings are texts for Warning headers; old is nil on create.
	Warnings func(ctx context.Context, obj, old object.Object) []string

	// Reserve says which other objects must be made or removed in the same
	// transaction that creates (old nil), updates or deletes (obj nil) this one, after filling in what was chosen (cluster
	// IPs, node ports). It runs again when one of them turns out to be taken. With
	// dryRun nothing is written.
	Reserve func(ctx context.Context, r Reader, obj, old object.Object, dryRun bool) ([]Companion, error)

	CreateOnPut bool // PUT to a missing name creates
	MustMatch   bool // PUT must carry the resourceVersion that it replaces

	// Grace decides about graceful deletion: the seconds to wait, and whether the
	// object stays until then. It may change options. nil: objects go at once.
	Grace func(obj object.Object, options *metav1.DeleteOptions) (seconds int64, graceful bool)

	// BeginDelete changes the object that is being deleted, or keeps it, before
	// finalizers are looked at (namespaces: phase Terminating). It reports whether the object must
	// stay although it has no finalizers in its metadata.
	BeginDelete func(obj object.Object) (stays bool)

	ReturnsDeleted  bool // DELETE answers with the object, not with a Status
	OrphanByDefault bool // dependents are orphaned when no propagationPolicy is given
	Unowned         bool // never takes part in garbage collection (Event)
	AnyFinalizer    bool // a finalizer needs no domain: the kind is not checked as those of the core are

	// Expire is how long an object lives in storage; nil or 0: for ever.
	Expire func(obj object.Object) time.Duration

	// Fields are the selectable fields besides metadata.name and
	// metadata.namespace. FieldsUnknown is the text of the error for any other; nil: the
	// generic one, that lists what is known.
	Fields        []Field
	FieldsUnknown func(label string) string

	// Columns are the cells of a Table after the name, made from the hub's object; nil: the default
	// columns Name and Created At.
	Columns Columns
	// ColumnFields are all the fields of the hub's object that Columns and Conditions look at, and what Default makes those of, as
	// dotted paths ("spec.ports.port", "data.key" for the keys of a map), besides metadata.name and metadata.creationTimestamp: the
	// others are not decoded for a row. nil: they may look at any. See TestColumnFields in package api.
	ColumnFields []string
	// Marked is the object of a list whose name has a mark in the list's Table (the default class), and the mark; nil if
	// none has. An object that is shown by itself has none.
	Marked func(all []object.Object) (obj object.Object, mark string)
	// Conditions are marks on a Table row (a Pod that is done: Completed).
	Conditions func(obj object.Object) []metav1.TableRowCondition

	// Subresources by name, e.g. "status".
	Subresources map[string]*Subresource

	// StatusFields are the top-level fields that the main endpoint does not write,
	// so that it owns none of them (managed fields' reset fields). Default: {"status"} if there is a
	// status subresource.
	StatusFields []string

	// Schema gives the ownership schema of a version of a custom resource; nil for Go types, whose
	// schema is known.
	Schema func(apiVersion string) (*patch.Schema, bool)

	// Virtual answers a create without storing anything (access reviews).
	Virtual func(ctx context.Context, namespace string, obj object.Object) (object.Object, error)
	// Job does what is posted to the collection, like Virtual without storing it, for a kind that
	// stands for a change of other objects (Binding).
	Job Job
	// VirtualList answers get and list without storage (component statuses).
	VirtualList func(ctx context.Context) ([]object.Object, error)

	// Of objects, set by Complete.
	shape  shape
	goType reflect.Type // the struct; nil for trees
}

// shape is what objects of a kind are made of.
type shape uint8

const (
	typed shape = iota + 1 // a Go type of k8s.io/api
	tree                   // *unstructured.Unstructured
)

// Tree reports whether objects of a completed definition are trees (custom resources) rather
// than Go types with a protobuf form.
func (d *Definition) Tree() bool { return d.shape == tree }

// GoType is the struct that objects of a completed definition are, or nil for trees.
func (d *Definition) GoType() reflect.Type { return d.goType }

// Companion is another object that is made, replaced or removed in the same transaction.
type Companion struct {
	Definition *Definition
	Object     object.Object
	Remove     bool
	// Name is the object's, if it bears none itself; it has no identity then either.
	Name string
	// Replaces is the resourceVersion of the object that this one takes the place of. Empty: there must be none yet.
	Replaces string
	// Taken turns the fact that the object to be made exists already, or was replaced by another, into the
	// error for the client; nil: Reserve runs again to choose another.
	Taken func() error
}

// Field is a selectable field. Path is the field's place in the JSON form, by
// default equal to Label; only strings, booleans and integers can be selected on.
type Field struct {
	Label   string
	Path    string
	Else    string // path of the value that counts when the one at Path is empty
	Indexed bool   // selections by it are frequent and narrow: keep an index
}

// Subresource is another door to an object, or a job done through it. Exactly
// one of View, Scale, Job and Connect is set.
type Subresource struct {
	Kind  schema.GroupVersionKind // of what is read and written; zero: the object's own
	Verbs Verbs
	New   func() object.Object // of Kind when that is not the object's own

	View    *View
	Scale   *Scale
	Job     Job
	Connect bool // bytes pass through to a node; package proxy does it
}

// View is a door to the whole object through which only a part can be changed.
type View struct {
	// Prepare copies back from old all that this door may not change.
	Prepare func(ctx context.Context, obj, old object.Object)
	// Validate reports everything wrong with the update; metadata is checked by the engine.
	Validate func(ctx context.Context, obj, old object.Object) field.ErrorList
	Warnings func(ctx context.Context, obj, old object.Object) []string
	// ResetFields are paths (dotted) that a write through this door never owns,
	// e.g. "spec", "metadata" for a status.
	ResetFields []string
	// OwnsOnly are, instead, the paths that alone can be owned through this door; "*" stands for any item or key.
	OwnsOnly []string
	// Finish reports that the update removed the last reason to stay of an object
	// that is being deleted (namespaces/finalize).
	Finish func(obj object.Object) bool
}

// Scale maps an object to autoscaling/v1 Scale.
type Scale struct {
	Get func(obj object.Object) (spec, status int32, selector string, err error)
	Set func(obj object.Object, replicas int32) error
	// ReplicasPath is the owned path, e.g. {"spec", "replicas"}.
	ReplicasPath []string
}

// Job does what is posted to a subresource (binding, eviction, token) and
// returns the answer. name is the object's.
type Job func(ctx context.Context, call JobCall) (object object.Object, err error)

// JobCall is what a Job works with.
type JobCall struct {
	Objects         Objects
	Namespace, Name string
	Body            object.Object
	DryRun          bool
	// Check runs admission on the body, after the Job validated it.
	Check func(ctx context.Context) error
}

// Premise is an object that the decision to make another rests on. It may have changed since it was read, or change until the other
// is stored: the engine stores that only while the premise is at this version, else it is judged again.
type Premise struct {
	Resource        schema.GroupResource
	Namespace, Name string
	Version         string                        // resourceVersion that it was judged at
	Judge           func(obj object.Object) error // the decision on what it has become
}

// Reader reads stored objects as they are in this server's cache, decoded and
// defaulted. What this server has answered it shows; what other servers did, a little later. The objects are the caller's own.
type Reader interface {
	// Get answers a NotFound API error if there is no such object. That is never for want of news: an object that was
	// made before the call is found.
	Get(ctx context.Context, resource schema.GroupResource, namespace, name string) (object.Object, error)
	// List with namespace "" lists all namespaces.
	List(ctx context.Context, resource schema.GroupResource, namespace string) ([]object.Object, error)
}

// Objects reads and changes stored objects on the server's own behalf: without
// authorization or admission, but with preparation, validation and compare-and-swap. What it reads is as new as what a client
// would read.
type Objects interface {
	Reader
	// Change reads the newest object, applies change and stores the result, again
	// from the start if another write came between. An error of change ends it.
	Change(ctx context.Context, resource schema.GroupResource, namespace, name string, change func(obj object.Object) error, options ChangeOptions) (object.Object, error)
	Create(ctx context.Context, resource schema.GroupResource, obj object.Object) (object.Object, error)
	Delete(ctx context.Context, resource schema.GroupResource, namespace, name string, options metav1.DeleteOptions) error
}

// Seed is an object that the server makes on its own account, with the manager that its
// fields belong to.
type Seed struct {
	Resource schema.GroupResource
	Object   object.Object
	Manager  string
}

// ChangeOptions says through which door a change is made.
type ChangeOptions struct {
	Subresource string // whose Prepare and Validate apply; "" with Raw false: the main one
	Raw         bool   // neither prepared nor validated: the caller vouches for it
	DryRun      bool
}

// Complete fills the defaults of the definition's own fields. NewCatalog calls it.
func (d *Definition) Complete() {
	if d.shape != 0 {
		return // it is, and being served
	}
	if d.Singular == "" {
		d.Singular = strings.ToLower(d.Kind)
	}
	if d.ListKind == "" {
		d.ListKind = d.Kind + "List"
	}
	if d.Stored.Prefix == "" {
		d.Stored.Prefix = d.Plural
	}
	if d.Stored.Version == "" {
		d.Stored.Version = d.Version
	}
	if d.StatusFields == nil && d.Subresources["status"] != nil {
		d.StatusFields = []string{"status"}
	}
	for _, sub := range d.Subresources {
		if sub.Scale != nil && sub.Kind.Empty() {
			sub.Kind = schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}
		}
	}
	for i := range d.Fields {
		if d.Fields[i].Path == "" {
			d.Fields[i].Path = d.Fields[i].Label
		}
	}
	d.shape = typed
	if d.Prune != nil {
		d.shape = tree
	} else if d.New != nil {
		obj := d.New()
		if _, ok := obj.(*unstructured.Unstructured); ok {
			d.shape = tree
		} else {
			d.goType = reflect.TypeOf(obj).Elem()
		}
		if d.Deprecated == "" {
			d.Deprecated = d.deprecation(obj)
		}
	}
}

// GroupVersion, GroupVersionKind, GroupKind, GroupResource and Resource are the kind's names in
// the forms that apimachinery uses.
func (d *Definition) GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: d.Group, Version: d.Version}
}
func (d *Definition) GroupVersionKind() schema.GroupVersionKind {
	return d.GroupVersion().WithKind(d.Kind)
}
func (d *Definition) GroupKind() schema.GroupKind {
	return schema.GroupKind{Group: d.Group, Kind: d.Kind}
}
func (d *Definition) GroupResource() schema.GroupResource {
	return schema.GroupResource{Group: d.Group, Resource: d.Plural}
}
func (d *Definition) Resource() schema.GroupVersionResource {
	return d.GroupVersion().WithResource(d.Plural)
}

// APIVersion is the text of apiVersion: "v1", "apps/v1".
func (d *Definition) APIVersion() string { return d.GroupVersion().String() }

// StoredAPIVersion is the apiVersion written to storage.
func (d *Definition) StoredAPIVersion() string {
	return schema.GroupVersion{Group: d.Group, Version: d.Stored.Version}.String()
}

// Hub is the definition whose objects are stored and worked on.
func (d *Definition) Hub() *Definition {
	if d.Convert != nil {
		return d.Convert.Hub
	}
	return d
}

// Namespaced reports whether objects of the kind live in namespaces.
func (d *Definition) Namespaced() bool { return d.Scope == Namespaced }

// Persistent reports whether objects of the kind are stored.
func (d *Definition) Persistent() bool {
	return d.Virtual == nil && d.VirtualList == nil && d.Job == nil
}

// Done is what a Job returns that has no object to show: the answer is a Status
// "Success".
type Done struct{ metav1.PartialObjectMetadata }

// Status is the answer.
func (*Done) Status() *metav1.Status {
	return &metav1.Status{Status: metav1.StatusSuccess, Code: http.StatusCreated}
}
