package kind

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func definition(group, version, kindName, plural string) *Definition {
	return &Definition{Group: group, Version: version, Kind: kindName, Plural: plural, Scope: Namespaced, Verbs: Standard, New: Of[corev1.ConfigMap]()}
}

func TestCompleteFillsWhatFollows(t *testing.T) {
	d := definition("g", "v1", "BigThing", "bigthings")
	d.Fields = []Field{{Label: "spec.a"}, {Label: "b", Path: "spec.b"}}
	d.Subresources = map[string]*Subresource{"status": {}, "scale": {Scale: &Scale{}}}
	d.Complete()
	got := fmt.Sprint(d.Singular, d.ListKind, d.Stored.Prefix, d.Stored.Version, d.Fields[0].Path, d.Fields[1].Path, d.StatusFields, d.Subresources["scale"].Kind, d.APIVersion(), d.StoredAPIVersion())
	want := fmt.Sprint("bigthing", "BigThingList", "bigthings", "v1", "spec.a", "spec.b", []string{"status"}, schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}, "g/v1", "g/v1")
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if d.Complete(); fmt.Sprint(d.Singular, d.ListKind) != "bigthingBigThingList" {
		t.Error("completing twice changes something")
	}
}

func TestCatalog(t *testing.T) {
	hub := definition("apps", "v1", "Thing", "things")
	old := definition("apps", "v1beta1", "Thing", "things")
	old.Convert = &Conversion{Hub: hub}
	pods, twice := definition("", "v1", "Pod", "pods"), definition("", "v1", "Pod", "pods")
	review := definition("authz", "v1", "Review", "reviews")
	review.Virtual = func(context.Context, string, object.Object) (object.Object, error) { return nil, nil }
	c := NewCatalog(pods, twice, old, hub, review)

	if c.Locate("", "v1", "pods") != pods || len(c.All()) != 4 {
		t.Error("the first of two with the same names does not stay")
	}
	if c.Locate("apps", "v1beta1", "things") != old || c.Hub(schema.GroupResource{Group: "apps", Resource: "things"}) != hub || old.Hub() != hub {
		t.Error("a version is not found, or its hub")
	}
	if c.Locate("apps", "v2", "things") != nil || c.Versions("none") != nil || c.Has("apps", "v2") || !c.Has("apps", "v1") {
		t.Error("something is found that is not there")
	}
	if got := fmt.Sprint(c.Groups(), c.Versions("apps")); got != "[ apps authz] [v1beta1 v1]" {
		t.Errorf("the groups are %s", got)
	}
	if got := c.Stored(); len(got) != 2 || got[0] != pods || got[1] != hub {
		t.Errorf("stored are %v", got)
	}
}

// Custom resources come and go; all that is built in stays, also what no path serves.
func TestWith(t *testing.T) {
	custom := func(n int) *Definition {
		d := definition("g", "v1", fmt.Sprint("K", n), fmt.Sprint("k", n))
		d.Prune = func(object.Object, bool) ([]string, error) { return nil, nil }
		return d
	}
	pods, ranges := definition("", "v1", "Pod", "pods"), definition("", "v1", "Range", "ranges")
	ranges.Private = true
	one, two := custom(1), custom(2)
	c := NewCatalog(pods, ranges)
	first := c.With(Change{New: []*Definition{one}})
	second := first.With(Change{Gone: []*Definition{one}, New: []*Definition{two}})
	if len(c.All()) != 1 || first.Kind(one.GroupVersionKind()) != one || second.Kind(one.GroupVersionKind()) != nil || second.Kind(two.GroupVersionKind()) != two {
		t.Error("a custom resource is not there, or stays")
	}
	for _, c := range []*Catalog{c, first, second} {
		if c.Hub(ranges.GroupResource()) != ranges || c.Kind(pods.GroupVersionKind()) != pods || !slices.Contains(c.Stored(), ranges) {
			t.Error("what is built in is lost")
		}
	}
}

// Custom resources may share a group with each other and with what is built in.
func TestCustomResourcesOfAGroup(t *testing.T) {
	custom := func(group, version, plural string) *Definition {
		d := definition(group, version, "K"+plural, plural)
		d.Prune = func(object.Object, bool) ([]string, error) { return nil, nil }
		return d
	}
	things := definition("apps", "v1", "Thing", "things")
	a, b, c := custom("g", "v1beta1", "as"), custom("g", "v1", "bs"), custom("apps", "v2", "cs")
	taken := custom("apps", "v1", "things")
	catalog := NewCatalog(things, a).With(Change{New: []*Definition{b, c, taken}})
	if got := fmt.Sprint(catalog.Groups(), catalog.Versions("g"), catalog.Versions("apps")); got != "[apps g] [v1 v1beta1] [v1 v2]" {
		t.Errorf("the groups are %s", got)
	}
	if all := catalog.All(); !slices.Equal(all, []*Definition{things, c, b, a}) {
		t.Errorf("all are %v", all)
	}
	if catalog.Custom("apps") || !catalog.Custom("g") || catalog.Custom("none") || !catalog.Serves("g", "") || catalog.Serves("none", "") {
		t.Error("a group is taken for another")
	}
	catalog = catalog.With(Change{Gone: []*Definition{b, c, taken}})
	if catalog.Has("g", "v1") || !catalog.Has("g", "v1beta1") || catalog.Has("apps", "v2") || catalog.Locate("apps", "v1", "things") != things {
		t.Error("what went is there, or more went")
	}
	if catalog = catalog.With(Change{Gone: []*Definition{a}}); catalog.Versions("g") != nil || len(catalog.Groups()) != 1 {
		t.Error("a group stays without kinds")
	}
}

// A follower has prepared for a catalogue before anyone can see it.
func TestChangeTellsFollowersFirst(t *testing.T) {
	l := NewLive(NewCatalog())
	var prepared sync.Map
	l.Follow(func(c *Catalog, _ Change) { prepared.Store(c, true) })
	done := make(chan struct{})
	go func() {
		defer close(done)
		for len(l.Catalog().All()) < 20 {
			if c := l.Catalog(); len(c.All()) > 0 {
				if _, ok := prepared.Load(c); !ok {
					t.Error("a catalogue was shown that nobody was prepared for")
					return
				}
			}
		}
	}()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			l.Change(Change{New: []*Definition{definition("g", "v1", fmt.Sprint("K", i), fmt.Sprint("k", i))}})
		})
	}
	wg.Wait()
	<-done
	if n := len(l.Catalog().All()); n != 20 {
		t.Errorf("%d of 20 changes were kept", n)
	}
}

func TestVerbNames(t *testing.T) {
	if got := fmt.Sprint(Standard.Names()); got != "[create delete deletecollection get list patch update watch]" {
		t.Errorf("got %s", got)
	}
	if got := fmt.Sprint(ReadWrite.Names(), Verbs(0).Names()); got != "[get patch update] []" {
		t.Errorf("got %s", got)
	}
	if !Standard.Has(Get|List) || ReadWrite.Has(Get|List) {
		t.Error("Has does not ask for all")
	}
}

func TestColumns(t *testing.T) {
	own := Column{Name: "Own", Type: "integer", Wide: true, Of: Cell(func(m *corev1.ConfigMap) any { return int64(len(m.Data)) })}
	for _, one := range []struct {
		columns Columns
		want    string
	}{
		{nil, "Name:string:0 Created At:date:0 "}, {Columns{own}, "Name:string:0 Own:integer:1 "}, {Columns{Name, own}, "Name:string:0 Own:integer:1 "},
		{Columns{{Name: "Last Seen"}}, "Last Seen:string:0 "}, {Columns{own, {}}, "Name:string:0 Own:integer:1 "},
	} {
		got := ""
		for _, d := range one.columns.All().Definitions() {
			got += fmt.Sprintf("%s:%s:%d ", d.Name, d.Type, d.Priority)
		}
		if got != one.want {
			t.Errorf("got %s, want %s", got, one.want)
		}
	}
}

func TestAges(t *testing.T) {
	now := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	made := metav1.NewTime(now.Add(-25 * time.Hour))
	for cell, want := range map[Dated]string{SinceOf(&made): "25h", SinceOf(nil): "<unknown>", Since(now.Add(-3 * time.Second)): "3s"} {
		if got := cell.At(now); got != want {
			t.Errorf("got %v, want %s", got, want)
		}
	}
}

func TestStatusOnlyKeepsMetadata(t *testing.T) {
	s := StatusOnly(func(obj, old *corev1.ConfigMap) { obj.Data = old.Data }, nil)
	old := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"a": "b"}, Finalizers: []string{"f"}, ResourceVersion: "1"}}
	obj := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"c": "d"}, ResourceVersion: "2"}, Data: map[string]string{"x": "y"}}
	s.View.Prepare(context.Background(), obj, old)
	if obj.Labels["a"] != "b" || len(obj.Finalizers) != 1 || obj.ResourceVersion != "2" || obj.Data != nil {
		t.Errorf("got %+v", obj)
	}
}

func TestWarnClient(t *testing.T) {
	var got []string
	WarnClient(WithWarn(context.Background(), func(texts ...string) { got = append(got, texts...) }), "careful")
	WarnClient(context.Background(), "nobody listens")
	if fmt.Sprint(got) != "[careful]" {
		t.Errorf("got %v", got)
	}
}
