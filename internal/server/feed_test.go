package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math/rand"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/timonel/timonel/internal/authn"
	"github.com/timonel/timonel/internal/authz"
	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/storagetest"
	"github.com/timonel/timonel/internal/storage/watchcache"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
)

// TestFeedsSeeAll: feeds make of the part of an object that they get what they would make of all of it.
func TestFeedsSeeAll(t *testing.T) {
	definitions := map[schema.GroupResource]*kind.Definition{
		podsResource:  {Version: "v1", Kind: "Pod", Plural: "pods", Scope: kind.Namespaced, New: kind.Of[corev1.Pod]()},
		nodesResource: {Version: "v1", Kind: "Node", Plural: "nodes", New: kind.Of[corev1.Node]()},
	}
	for resource := range lookedAt {
		d := definitions[resource]
		part, err := partFor(d)
		if err != nil {
			t.Fatal(err)
		}
		feeds := func() []authz.Feed { return []authz.Feed{authz.NewNode(), authn.NewIndex(nil)} }
		ofAll, ofParts := feeds(), feeds()
		for seed := range int64(200) {
			obj := d.New()
			fuzzer.FuzzerFor(metafuzzer.Funcs, rand.NewSource(seed), serializer.NewCodecFactory(runtime.NewScheme())).NilChance(0.3).NumElements(0, 3).Fill(obj)
			blob, err := obj.(interface{ Marshal() ([]byte, error) }).Marshal()
			if err != nil {
				t.Fatal(err)
			}
			less, err := part.Decode(&watchcache.Version{Blob: blob})
			if err != nil {
				t.Fatal(err)
			}
			for i := range ofAll {
				ofAll[i].Upsert(obj)
				ofParts[i].Upsert(less)
			}
		}
		if !reflect.DeepEqual(ofAll, ofParts) {
			t.Errorf("feeds know less of %s", resource)
		}
	}
}

// seen is a feed that remembers what there is.
type seen map[string]string

func (s seen) Reset(all []object.Object) {
	clear(s)
	for _, obj := range all {
		s.Upsert(obj)
	}
}
func (s seen) Upsert(obj object.Object) { s[obj.GetName()] = obj.GetResourceVersion() }
func (s seen) Remove(obj object.Object) { delete(s, obj.GetName()) }
func (s seen) String() string           { return strings.Join(slices.Sorted(maps.Keys(s)), " ") }

// configMaps are ConfigMaps in a store and a cache, which the test runs.
type configMaps struct {
	*testing.T
	store      *storagetest.Memory
	definition *kind.Definition
	cache      *watchcache.Cache
	view       *watchcache.View
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func newConfigMaps(t *testing.T) *configMaps {
	c := &configMaps{T: t, store: storagetest.NewMemory()}
	c.definition = &kind.Definition{Version: "v1", Kind: "ConfigMap", Plural: "configmaps", Scope: kind.Namespaced, Verbs: kind.Standard, New: kind.Of[corev1.ConfigMap]()}
	c.definition.Complete()
	c.cache = watchcache.New(c.store, "/registry/", watchcache.Options{Log: quiet})
	c.view = c.cache.Serve(codec.Collection(c.definition, "/registry"))
	return c
}

func (c *configMaps) key(name string) string { return "/registry/configmaps/a/" + name }

// put stores a ConfigMap, as a server does; the one that is called broken does not decode.
func (c *configMaps) put(name string) {
	c.Helper()
	value, err := codec.EncodeStored(c.definition, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "a"}})
	if err != nil {
		c.Fatal(err)
	}
	if name == "broken" {
		value = []byte("noise")
	}
	revision, err := c.store.Commit(c.Context(), storage.Txn{Then: []storage.Op{{Key: c.key(name), Value: value}}})
	if err != nil {
		c.Fatal(err)
	}
	c.view.Promise(revision)
}

func (c *configMaps) follower(into authz.Feed) *follower {
	c.Helper()
	f, err := newFollower(&feed{definition: c.definition, view: c.view, into: []authz.Feed{into}}, quiet)
	if err != nil {
		c.Fatal(err)
	}
	return f
}

// TestFollower: a feed has what the resource has, also after its follower fell behind; what does not decode grants nothing.
func TestFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConfigMaps(t)
		del := func(name string) {
			t.Helper()
			if _, err := c.store.Commit(t.Context(), storage.Txn{Then: []storage.Op{{Key: c.key(name)}}}); err != nil {
				t.Fatal(err)
			}
		}
		c.put("one")
		c.put("broken")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 2)
		go func() { ended <- c.cache.Run(ctx) }()
		<-c.cache.Ready()

		got := seen{}
		f := c.follower(got)
		w, err := f.load()
		if err != nil || got.String() != "one" {
			t.Fatalf("loaded %v, %v", got, err)
		}
		go func() { ended <- f.run(ctx, w) }()
		c.put("two")
		del("one")
		synctest.Wait()
		if got.String() != "two" {
			t.Errorf("followed to %v", got)
		}
		// The cache loses the history: what went meanwhile is taken back.
		c.store.Fault(func(op string) error {
			if op == "Watch" {
				return errors.New("no network")
			}
			return nil
		})
		c.store.Break()
		synctest.Wait()
		c.put("three")
		del("two")
		now, err := c.store.Now(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c.store.Compact(now)
		c.store.Fault(nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got.String() != "three" {
			t.Errorf("after the gap it has %v", got)
		}
		cancel()
		<-ended
		<-ended
	})
}

// TestAbreast: who asks what a feed has made waits until it knows what clients may know, but not for ever.
func TestAbreast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConfigMaps(t)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 2)
		go func() { ended <- c.cache.Run(ctx) }()
		<-c.cache.Ready()
		got := seen{}
		f := c.follower(got)
		c.put("one")
		synctest.Wait()
		// ask waits for the feed and says what it has then, and after how long.
		ask := func() (string, time.Duration) {
			began := time.Now()
			abreast{f.feed}.wait(t.Context())
			return got.String(), time.Since(began)
		}
		check := func(what, want string, longest time.Duration) {
			t.Helper()
			if has, took := ask(); has != want || took > longest {
				t.Errorf("%s: it has %q after %s, want %q after %s at most", what, has, took, want, longest)
			}
		}
		check("not begun", "", watchcache.AbreastWait)
		w, err := f.load()
		if err != nil {
			t.Fatal(err)
		}
		check("begun", "one", 0)
		c.put("two")
		go func() {
			time.Sleep(time.Second) // it is slow
			ended <- f.run(ctx, w)
		}()
		check("behind", "one two", time.Second)
		check("abreast", "one two", 0)
		cancel()
		<-ended
		<-ended
	})
}
