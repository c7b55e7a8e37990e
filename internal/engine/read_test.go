package engine

import (
	"context"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/storagetest"
	"github.com/timonel/timonel/internal/storage/watchcache"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// some makes objects n0 … and returns the revision after each.
func (w *world) some(n int) (revisions []string) {
	for i := range n {
		o := w.create(w.deployments, fmt.Sprintf(`{"metadata":{"name":"n%d","labels":{"even":"%t"}},"spec":{"paused":%t}}`, i, i%2 == 0, i == 1))
		revisions = append(revisions, o.GetResourceVersion())
	}
	return revisions
}

// TestResourceVersionsOfReads: API concepts, "Resource versions", get and list.
func TestResourceVersionsOfReads(t *testing.T) {
	run(t, func(w *world) {
		at := w.some(3)
		w.get(w.deployments, "n2")
		last, _ := strconv.Atoi(at[2])
		for _, one := range []struct{ version, reason string }{
			{"", ""}, {"0", ""}, {at[0], ""}, {at[2], ""}, {strconv.Itoa(last + 5), "Timeout"},
		} {
			_, err := w.readAt(w.deployments, "n0", one.version)
			w.expect("get at "+one.version, err, metav1.StatusReason(one.reason))
			if one.reason != "" && !apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge) {
				w.Errorf("%v lacks its cause", err)
			}
		}
		for _, one := range []struct {
			o      metav1.ListOptions
			names  string
			reason metav1.StatusReason
		}{
			{metav1.ListOptions{}, "n0 n1 n2", ""},
			{metav1.ListOptions{ResourceVersion: "0"}, "n0 n1 n2", ""},
			{metav1.ListOptions{ResourceVersion: at[0]}, "n0 n1 n2", ""},
			{metav1.ListOptions{ResourceVersion: at[1], ResourceVersionMatch: metav1.ResourceVersionMatchExact}, "n0 n1", ""},
			{metav1.ListOptions{ResourceVersion: at[1], ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan}, "n0 n1 n2", ""},
			{metav1.ListOptions{ResourceVersion: at[1], Limit: 9}, "n0 n1", ""},
			{metav1.ListOptions{ResourceVersion: "0", Limit: 1}, "n0 n1 n2", ""},
			{metav1.ListOptions{ResourceVersion: strconv.Itoa(last + 5)}, "", metav1.StatusReasonTimeout},
			{metav1.ListOptions{ResourceVersion: "x"}, "", metav1.StatusReasonBadRequest},
			{metav1.ListOptions{LabelSelector: "even=true"}, "n0 n2", ""},
			{metav1.ListOptions{LabelSelector: "even!=true"}, "n1", ""},
			{metav1.ListOptions{FieldSelector: "metadata.name=n1"}, "n1", ""},
			{metav1.ListOptions{FieldSelector: "metadata.name!=n1"}, "n0 n2", ""},
			{metav1.ListOptions{FieldSelector: "spec.paused=true"}, "n1", ""},
			{metav1.ListOptions{FieldSelector: "metadata.name=n1,metadata.name=n2"}, "", ""},
			{metav1.ListOptions{FieldSelector: "metadata.namespace=b"}, "", ""},
			{metav1.ListOptions{FieldSelector: "spec.other=x"}, "", metav1.StatusReasonBadRequest},
			{metav1.ListOptions{LabelSelector: "!!"}, "", metav1.StatusReasonBadRequest},
		} {
			names, _, err := w.list(w.deployments, one.o)
			w.expect(fmt.Sprintf("%+v", one.o), err, one.reason)
			if got := strings.Join(names, " "); got != one.names {
				w.Errorf("%+v shows %s, want %s", one.o, got, one.names)
			}
		}
	})
}

// TestPages: a list in pages is the list at one revision, whatever happens meanwhile.
func TestPages(t *testing.T) {
	run(t, func(w *world) {
		w.some(7)
		var all []string
		o := metav1.ListOptions{Limit: 3}
		for page := 0; ; page++ {
			names, p, err := w.list(w.deployments, o)
			if err != nil {
				w.Fatal(err)
			}
			all = append(all, names...)
			if page == 0 {
				if p.Meta.RemainingItemCount == nil || *p.Meta.RemainingItemCount != 4 {
					w.Errorf("remaining: %v", p.Meta.RemainingItemCount)
				}
				w.create(w.deployments, `{"metadata":{"name":"n55"}}`)
				if _, err := w.delete(w.call(w.deployments, "n5"), metav1.DeleteOptions{}); err != nil {
					w.Fatal(err)
				}
			}
			if o.Continue = p.Meta.Continue; o.Continue == "" {
				break
			}
		}
		if got := strings.Join(all, " "); got != "n0 n1 n2 n3 n4 n5 n6" {
			w.Errorf("the pages show %s", got)
		}
	})
}

// age makes so many events, so long ago, that the cache forgets what was before them.
func (w *world) age() {
	w.Helper()
	for i := range 150 {
		w.must(w.merge(w.call(w.deployments, "n0"), fmt.Sprintf(`{"spec":{"replicas":%d}}`, i)))
	}
	time.Sleep(3 * watchcache.DefaultHistory)
	w.must(w.merge(w.call(w.deployments, "n0"), `{"spec":{"replicas":1}}`))
	w.get(w.deployments, "n0")
}

// TestPagesThatExpire: the token of an old list is refused with one that goes on in the newest state.
func TestPagesThatExpire(t *testing.T) {
	run(t, func(w *world) {
		w.some(4)
		_, p, err := w.list(w.deployments, metav1.ListOptions{Limit: 2})
		if err != nil {
			w.Fatal(err)
		}
		w.create(w.deployments, `{"metadata":{"name":"n25"}}`)
		w.age()
		_, _, err = w.list(w.deployments, metav1.ListOptions{Limit: 2, Continue: p.Meta.Continue})
		w.expect("an old token", err, metav1.StatusReasonExpired)
		status, ok := err.(apierrors.APIStatus) //nolint:errorlint // the engine returns it unwrapped
		if !ok || status.Status().Continue == "" {
			w.Fatalf("no other token: %v", err)
		}
		names, _, err := w.list(w.deployments, metav1.ListOptions{Limit: 9, Continue: status.Status().ListMeta.Continue})
		if err != nil || strings.Join(names, " ") != "n2 n25 n3" {
			w.Errorf("the other token shows %v, %v", names, err)
		}
	})
}

func TestContinueTokensAreRead(t *testing.T) {
	good := encodeContinue(5, "/a")
	for _, text := range []string{"%", "", base64.RawURLEncoding.EncodeToString([]byte("{")), token(`{"v":"v0","rv":1,"start":"a"}`), token(`{"v":"meta.k8s.io/v1","rv":0,"start":"a"}`),
		token(`{"v":"meta.k8s.io/v1","rv":1}`), token(`{"v":"meta.k8s.io/v1","rv":1,"start":"../../secrets/x"}`)} {
		if got, err := decodeContinue(text); !apierrors.IsBadRequest(err) {
			t.Errorf("%q is read as %+v, %v", text, got, err)
		}
	}
	if got, err := decodeContinue(good); err != nil || got.revision != 5 || got.start != "/a" {
		t.Errorf("%q is read as %+v, %v", good, got, err)
	}
}

func token(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func FuzzDecodeContinue(f *testing.F) {
	f.Add(encodeContinue(3, "/a/b"))
	f.Add(token(`{"v":"meta.k8s.io/v1","rv":1,"start":"//"}`))
	f.Fuzz(func(t *testing.T, text string) {
		got, err := decodeContinue(text)
		if err == nil && strings.Contains(got.start, "..") && strings.Contains("/"+got.start+"/", "/../") {
			t.Fatalf("%q leads out of its resource: %q", text, got.start)
		}
	})
}

func (w *world) watch(o metav1.ListOptions) (*Watch, error) {
	watch, err := w.engine.Watch(context.Background(), w.call(w.deployments, ""), o)
	if err == nil {
		w.Cleanup(watch.Watcher.Close)
	}
	return watch, err
}

// seen is what a watch begins with and what it tells until it has told of the object n.
func (w *world) seen(watch *Watch, last string) string {
	w.Helper()
	var out []string
	for _, i := range watch.Initial {
		out = append(out, "+"+i.Version.Name)
	}
	for last != "" {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		batch, err := watch.Watcher.Next(ctx)
		cancel()
		if err != nil {
			return strings.Join(append(out, err.Error()), " ")
		}
		for _, e := range batch.Events {
			out = append(out, e.Type.String()+" "+e.Version.Name)
			if e.Type.String()+" "+e.Version.Name == last {
				last = ""
			}
		}
	}
	return strings.Join(out, " ")
}

// TestWatchBegins: API concepts, "Resource versions", watch, and KEP-3157.
func TestWatchBegins(t *testing.T) {
	for _, one := range []struct {
		name string
		o    func(at []string) metav1.ListOptions
		want string
		end  bool
	}{
		{"now", func([]string) metav1.ListOptions { return metav1.ListOptions{} }, "+n0 +n1 +n2 ", false},
		{"0", func([]string) metav1.ListOptions { return metav1.ListOptions{ResourceVersion: "0"} }, "+n0 +n1 +n2 ", false},
		{"last", func(at []string) metav1.ListOptions { return metav1.ListOptions{ResourceVersion: at[2]} }, "", false},
		{"first", func(at []string) metav1.ListOptions { return metav1.ListOptions{ResourceVersion: at[0]} }, "ADDED n1 ADDED n2 ", false},
		{"streamed list", func([]string) metav1.ListOptions {
			return metav1.ListOptions{SendInitialEvents: ptr.To(true), AllowWatchBookmarks: true}
		}, "+n0 +n1 +n2 ", true},
		{"streamed list of some, not older", func(at []string) metav1.ListOptions {
			return metav1.ListOptions{SendInitialEvents: ptr.To(true), AllowWatchBookmarks: true, ResourceVersion: at[2], LabelSelector: "even=true"}
		}, "+n0 +n2 ", true},
		{"now, without what is there", func([]string) metav1.ListOptions { return metav1.ListOptions{SendInitialEvents: ptr.To(false)} }, "", false},
		{"one name", func([]string) metav1.ListOptions { return metav1.ListOptions{FieldSelector: "metadata.name=last"} }, "", false},
	} {
		t.Run(one.name, func(t *testing.T) {
			run(t, func(w *world) {
				at := w.some(3)
				w.get(w.deployments, "n2") // so that it is at hand
				watch, err := w.watch(one.o(at))
				if err != nil {
					w.Fatal(err)
				}
				if watch.End != one.end {
					w.Errorf("the bookmark behind the initial events: %t", watch.End)
				}
				w.create(w.deployments, `{"metadata":{"name":"last","labels":{"even":"true"}}}`)
				if got, want := w.seen(watch, "ADDED last"), one.want+"ADDED last"; got != want {
					w.Errorf("it tells\n %s, want\n %s", got, want)
				}
			})
		})
	}
	run(t, func(w *world) {
		if _, err := w.watch(metav1.ListOptions{ResourceVersion: "x"}); err == nil {
			w.Error("a watch from x began")
		}
	})
}

// TestWatchTellsWhoComesAndGoes: an object that leaves the selection is told as deleted, as it was.
func TestWatchTellsWhoComesAndGoes(t *testing.T) {
	run(t, func(w *world) {
		w.some(1)
		watch, err := w.watch(metav1.ListOptions{LabelSelector: "even=true"})
		if err != nil {
			w.Fatal(err)
		}
		w.must(w.merge(w.call(w.deployments, "n0"), `{"spec":{"replicas":3}}`))
		w.must(w.merge(w.call(w.deployments, "n0"), `{"metadata":{"labels":{"even":"no"}}}`))
		w.must(w.merge(w.call(w.deployments, "n0"), `{"metadata":{"labels":{"even":"true"}}}`))
		w.create(w.deployments, `{"metadata":{"name":"end","labels":{"even":"true"}}}`)
		if got, want := w.seen(watch, "ADDED end"), "+n0 MODIFIED n0 DELETED n0 ADDED n0 ADDED end"; got != want {
			w.Errorf("it tells\n %s, want\n %s", got, want)
		}
	})
}

func TestWatchFromTooLongAgo(t *testing.T) {
	run(t, func(w *world) {
		at := w.some(2)
		w.age()
		_, err := w.watch(metav1.ListOptions{ResourceVersion: at[0]})
		w.expect("an old start", err, metav1.StatusReasonExpired)
	})
}

// An object that does not decode is told as such, and does not keep others from being read.
func TestUnreadableObjects(t *testing.T) {
	run(t, func(w *world) {
		w.some(1)
		_, err := w.store.Commit(context.Background(), storage.Txn{Then: []storage.Op{{Key: "/registry/deployments/a/broken", Value: []byte("\x00noise")}}})
		if err != nil {
			w.Fatal(err)
		}
		w.get(w.deployments, "n0")
		_, err = w.read(w.deployments, "broken")
		w.expect("get", err, metav1.StatusReasonStoreReadError)
		_, err = w.merge(w.call(w.deployments, "broken"), `{}`)
		w.expect("patch", err, metav1.StatusReasonStoreReadError)
		_, _, err = w.list(w.deployments, metav1.ListOptions{})
		w.expect("list", err, metav1.StatusReasonStoreReadError)
		_, err = w.delete(w.call(w.deployments, "broken"), metav1.DeleteOptions{})
		w.expect("delete", err, metav1.StatusReasonStoreReadError)

		for _, name := range []string{"n0", "none"} { // only what cannot be read is deleted without looking
			_, err = w.engine.DeleteUnreadable(context.Background(), w.call(w.deployments, name), metav1.DeleteOptions{})
			w.expect("delete "+name, err, metav1.StatusReasonInvalid)
		}
		w.get(w.deployments, "n0")
		w.quiet("a dry run", func() {
			_, err = w.engine.DeleteUnreadable(context.Background(), w.call(w.deployments, "broken"), metav1.DeleteOptions{DryRun: []string{"All"}})
			w.expect("dry run", err, "")
		})
		result, err := w.engine.DeleteUnreadable(context.Background(), w.call(w.deployments, "broken"), metav1.DeleteOptions{})
		if err != nil || result.Status == nil || result.Status.Details.Name != "broken" {
			w.Errorf("delete what is broken: %+v, %v", result, err)
		}
		_, err = w.read(w.deployments, "broken")
		w.expect("get afterwards", err, metav1.StatusReasonNotFound)
		if names, _, err := w.list(w.deployments, metav1.ListOptions{}); err != nil || len(names) != 1 {
			w.Errorf("list afterwards: %v, %v", names, err)
		}
	})
}

// What the answer to a write shows is what the next read shows, byte for byte.
func TestAnswersShowWhatWasStored(t *testing.T) {
	run(t, func(w *world) {
		const widget = `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"w"},"b":{"z":1,"a":2.5},"a":["x"]}`
		written, err := w.tryCreate(w.widgets, widget)
		if err != nil {
			w.Fatal(err)
		}
		deployment, err := w.tryCreate(w.deployments, `{"metadata":{"name":"web"}}`)
		if err != nil {
			w.Fatal(err)
		}
		for _, one := range []Result{written, deployment} {
			item, err := w.engine.Get(context.Background(), w.call(one.Item.Definition, one.Item.Object.GetName()), metav1.GetOptions{})
			if err != nil {
				w.Fatal(err)
			}
			e := codec.Encoder{Definition: one.Item.Definition}
			then, err1 := e.Object(one.Item)
			now, err2 := e.Object(item)
			if err1 != nil || err2 != nil || string(then) != string(now) {
				w.Errorf("the write shows\n %s, %v, the read\n %s, %v", then, err1, now, err2)
			}
		}
	})
}

// What is read to be shared is decoded once for each version, and is that of a reader.
func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, storagetest.NewMemory())
		shared, reader := w.engine.Shared(), w.engine.Reader()
		both := func(name, want string) object.Object {
			t.Helper()
			got, err := shared.Get(w.Context(), w.deployments.GroupResource(), "a", name)
			text, _ := replicas(got, err)
			own, ownErr := reader.Get(w.Context(), w.deployments.GroupResource(), "a", name)
			if text != want || !equality.Semantic.DeepEqual(got, own) || apierrors.ReasonForError(err) != apierrors.ReasonForError(ownErr) {
				t.Errorf("%s: got %v, %v; a reader gets %v, %v; want %s replicas", name, got, err, own, ownErr, want)
			}
			return got
		}
		both("web", "")
		w.create(w.deployments, `{"metadata":{"name":"web"},"spec":{"replicas":1}}`)
		both("web", "1")
		first := both("web", "1")
		if both("web", "1") != first {
			t.Error("the same version was decoded again")
		}
		w.must(w.merge(w.call(w.deployments, "web"), `{"spec":{"replicas":5}}`))
		w.get(w.deployments, "web")
		if both("web", "5") == first {
			t.Error("another version is the same object")
		}
		w.create(w.deployments, `{"metadata":{"name":"more"},"spec":{"replicas":2}}`)
		w.get(w.deployments, "more")
		got, err := shared.List(w.Context(), w.deployments.GroupResource(), "")
		own, _ := reader.List(w.Context(), w.deployments.GroupResource(), "")
		if err != nil || len(got) != 2 || !equality.Semantic.DeepEqual(got, own) || got[1] != both("web", "5") {
			t.Errorf("list: got %v, %v; a reader gets %v", got, err, own)
		}
		large := `{"metadata":{"name":"large","annotations":{"text":"` + strings.Repeat("x", maxShelved) + `"}},"spec":{"replicas":3}}`
		w.create(w.deployments, large)
		both("large", "3")
		if both("large", "3") == both("large", "3") {
			t.Error("a large object is kept")
		}
		if _, err := w.delete(w.call(w.deployments, "web"), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.read(w.deployments, "web"); !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
		both("web", "")
	})
}
