package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/admission"
	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/storagetest"
	"testing/synctest"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

func TestCreate(t *testing.T) {
	run(t, func(w *world) {
		o := w.create(w.deployments, `{"metadata":{"name":"web","labels":{"a":"b"},"uid":"mine","generation":7,"creationTimestamp":"2001-01-01T00:00:00Z","deletionTimestamp":"2001-01-01T00:00:00Z"},"status":{"replicas":9}}`).(*appsv1.Deployment)
		if o.UID == "mine" || o.UID == "" || o.Generation != 1 || o.DeletionTimestamp != nil || !o.CreationTimestamp.Equal(ptr.To(metav1.NewTime(time.Now().Truncate(time.Second)))) ||
			o.Namespace != "a" || o.ResourceVersion == "" || o.Status.Replicas != 0 || len(o.ManagedFields) != 1 || o.ManagedFields[0].Manager != "test" {
			w.Errorf("created %+v", o)
		}
		if got := w.get(w.deployments, "web"); got.GetUID() != o.UID || got.GetResourceVersion() != o.ResourceVersion {
			w.Errorf("read back as %+v", got)
		}
		for _, one := range []struct {
			d      *kind.Definition
			body   string
			reason metav1.StatusReason
		}{
			{w.deployments, `{"metadata":{"name":"web"}}`, metav1.StatusReasonAlreadyExists},
			{w.deployments, `{"metadata":{}}`, metav1.StatusReasonInvalid},
			{w.deployments, `{"metadata":{"name":"No Name"}}`, metav1.StatusReasonInvalid},
			{w.deployments, `{"metadata":{"name":"x","namespace":"b"}}`, metav1.StatusReasonBadRequest},
			{w.deployments, `{"metadata":{"name":"x","finalizers":["nodomain"]}}`, metav1.StatusReasonInvalid},
			{w.deployments, `{"metadata":{"name":"x"},"spec":{"replicas":-1}}`, metav1.StatusReasonInvalid},
			{w.deployments, `{"metadata":{"name":"x"},"spec":{"replicas":"1"}}`, metav1.StatusReasonBadRequest},
			{w.widgets, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"x","finalizers":["nodomain"]}}`, ""},
		} {
			_, err := w.tryCreate(one.d, one.body)
			w.expect(one.body, err, one.reason)
		}
		if _, err := w.tryCreate(w.deployments, `{"metadata":{"name":"x","resourceVersion":"1"}}`); err == nil || err.Error() != "resourceVersion should not be set on objects to be created" {
			w.Errorf("with a resourceVersion: %v", err)
		}
	})
}

// All that is wrong is told at once.
func TestValidationCollects(t *testing.T) {
	run(t, func(w *world) {
		_, err := w.tryCreate(w.deployments, `{"metadata":{"name":"A B","labels":{"-":"x"}},"spec":{"replicas":-1}}`)
		status, ok := err.(apierrors.APIStatus) //nolint:errorlint // the engine returns it unwrapped
		if !ok || len(status.Status().Details.Causes) != 3 {
			w.Errorf("got %v", err)
		}
	})
}

func TestGeneratedNamesAreDrawnAgain(t *testing.T) {
	run(t, func(w *world) {
		taken, drawn := 3, map[string]bool{}
		w.store.before = func(txn storage.Txn) error {
			drawn[txn.If[0].Key] = true
			if taken--; taken >= 0 {
				return &storage.ConflictError{Key: txn.If[0].Key, Current: &storage.Entry{}}
			}
			return nil
		}
		o := w.create(w.claims, `{"metadata":{"generateName":"web-"}}`)
		if !strings.HasPrefix(o.GetName(), "web-") || len(o.GetName()) != len("web-")+suffixLength || len(drawn) != 4 {
			w.Errorf("the name is %q after %d draws", o.GetName(), len(drawn))
		}
		if w.get(w.claims, o.GetName()).GetUID() != o.GetUID() {
			w.Error("another object was stored")
		}
		taken = 1 << 20
		drawn = map[string]bool{}
		_, err := w.tryCreate(w.claims, `{"metadata":{"generateName":"web-"}}`)
		w.expect("all names taken", err, metav1.StatusReasonAlreadyExists)
		if len(drawn) != maxNameTries {
			w.Errorf("%d draws", len(drawn))
		}
		w.store.before = nil
		long := w.create(w.claims, `{"metadata":{"generateName":"`+strings.Repeat("n", 70)+`"}}`)
		if len(long.GetName()) != 63 {
			w.Errorf("the name has %d letters", len(long.GetName()))
		}
	})
}

func TestUpdate(t *testing.T) {
	run(t, func(w *world) {
		o := w.create(w.deployments, `{"metadata":{"name":"web"},"spec":{"replicas":1}}`).(*appsv1.Deployment)
		next := o.DeepCopy()
		next.Spec.Replicas, next.Status.Replicas, next.Generation, next.UID = ptr.To[int32](2), 5, 99, ""
		next.CreationTimestamp = metav1.Time{}
		got := w.must(w.update(w.call(w.deployments, "web"), next)).(*appsv1.Deployment)
		if got.Generation != 2 || got.Status.Replicas != 0 || *got.Spec.Replicas != 2 || got.UID != o.UID || !got.CreationTimestamp.Equal(&o.CreationTimestamp) {
			w.Errorf("updated to %+v", got)
		}
		for name, change := range map[string]func(o *appsv1.Deployment){
			"Conflict: an old version":    func(o *appsv1.Deployment) {},
			"Conflict: another uid":       func(o *appsv1.Deployment) { o.ResourceVersion, o.UID = "", "other" },
			"BadRequest: another name":    func(o *appsv1.Deployment) { o.Name = "other" },
			"BadRequest: no name":         func(o *appsv1.Deployment) { o.Name = "" },
			"BadRequest: other namespace": func(o *appsv1.Deployment) { o.Namespace = "b" },
			"Invalid: bad replicas":       func(o *appsv1.Deployment) { o.ResourceVersion, o.Spec.Replicas = "", ptr.To[int32](-1) },
		} {
			sent := o.DeepCopy()
			change(sent)
			reason, what, _ := strings.Cut(name, ": ")
			_, err := w.update(w.call(w.deployments, "web"), sent)
			w.expect(what, err, metav1.StatusReason(reason))
		}
		_, err := w.update(w.call(w.deployments, "none"), map[string]any{"metadata": map[string]any{"name": "none"}})
		w.expect("none there", err, metav1.StatusReasonNotFound)

		r, err := w.update(w.call(w.claims, "new"), map[string]any{"metadata": map[string]any{"name": "new"}})
		if err != nil || !r.Created {
			w.Errorf("PUT of a kind that is created by PUT: %+v, %v", r, err)
		}
		c := w.call(w.claims, "new2")
		c.MayCreate = func(context.Context) error { return apierrors.NewForbidden(w.claims.GroupResource(), "new2", nil) }
		_, err = w.update(c, map[string]any{"metadata": map[string]any{"name": "new2"}})
		w.expect("PUT that may not create", err, metav1.StatusReasonForbidden)
	})
}

func TestStatusAndScaleAreDoorsOfTheirOwn(t *testing.T) {
	run(t, func(w *world) {
		w.create(w.deployments, `{"metadata":{"name":"web"},"spec":{"replicas":1}}`)
		got := w.must(w.merge(w.sub(w.deployments, "web", "status"), `{"spec":{"replicas":7},"status":{"replicas":4}}`)).(*appsv1.Deployment)
		if *got.Spec.Replicas != 1 || got.Status.Replicas != 4 || got.Generation != 1 {
			w.Errorf("after the status: %+v", got)
		}
		r, err := w.merge(w.sub(w.deployments, "web", "scale"), `{"spec":{"replicas":7}}`)
		if err != nil {
			w.Fatal(err)
		}
		if s := r.Value.(*autoscalingv1.Scale); s.Spec.Replicas != 7 || s.Status.Replicas != 4 || s.Status.Selector != "app=x" {
			w.Errorf("the scale is %+v", s)
		}
		got = w.get(w.deployments, "web").(*appsv1.Deployment)
		if *got.Spec.Replicas != 7 || got.Generation != 2 || got.Status.Replicas != 4 {
			w.Errorf("after the scale: %+v", got)
		}
		item, err := w.engine.GetScale(context.Background(), w.sub(w.deployments, "web", "scale"))
		if err != nil || item.Object.(*autoscalingv1.Scale).Spec.Replicas != 7 {
			w.Errorf("the scale is read as %+v, %v", item.Object, err)
		}
		for what, text := range map[string]string{"Invalid": `{"spec":{"replicas":-1}}`, "Conflict": `{"metadata":{"resourceVersion":"1"},"spec":{"replicas":3}}`} {
			_, err := w.merge(w.sub(w.deployments, "web", "scale"), text)
			w.expect(text, err, metav1.StatusReason(what))
		}
	})
}

// TestConcurrentWritersLoseNothing: patches are made again on what another writer left; updates that name the version they
// replace are refused instead.
func TestConcurrentWritersLoseNothing(t *testing.T) {
	const writers, each = 6, 15
	run(t, func(w *world) {
		w.create(w.widgets, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"w"},"data":{}}`)
		w.create(w.deployments, `{"metadata":{"name":"web"},"spec":{"replicas":0}}`)
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() {
				for n := range each {
					c, text := w.call(w.widgets, "w"), fmt.Sprintf(`{"data":{"%d-%d":1}}`, i, n)
					if _, err := w.merge(c, text); err != nil {
						w.Error(err)
					}
					if _, err := w.apply(w.call(w.deployments, "web"), fmt.Sprint("m", i), fmt.Sprintf(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","labels":{"l%d":"%d"}}}`, i, n), false); err != nil {
						w.Error(err)
					}
					for { // an increment with optimistic locking
						obj, err := w.read(w.deployments, "web")
						if err != nil {
							w.Error(err)
							return
						}
						o := obj.(*appsv1.Deployment)
						*o.Spec.Replicas++
						_, err = w.update(w.call(w.deployments, "web"), o)
						if err == nil {
							break
						}
						if !apierrors.IsConflict(err) {
							w.Error(err)
							return
						}
					}
				}
			})
		}
		wg.Wait()
		o := w.get(w.deployments, "web").(*appsv1.Deployment)
		if *o.Spec.Replicas != writers*each || len(o.Labels) != writers {
			w.Errorf("%d increments and %d labels are left, want %d and %d", *o.Spec.Replicas, len(o.Labels), writers*each, writers)
		}
		tree := w.get(w.widgets, "w")
		item := codec.Item{Definition: w.widgets, Object: tree}
		b, err := item.JSON()
		if err != nil || strings.Count(string(b), `":1`) < writers*each {
			w.Errorf("patches were lost: %s, %v", b, err)
		}
	})
}

func TestNothingChangedWritesNothing(t *testing.T) {
	run(t, func(w *world) {
		const applied = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","labels":{"app":"x"}}}`
		w.must(w.apply(w.call(w.deployments, "web"), "m", applied, false))
		w.create(w.widgets, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"w"},"data":{"a":1}}`)
		o := w.get(w.deployments, "web")
		version := o.GetResourceVersion()
		time.Sleep(time.Hour) // the time of the write is no change
		for what, f := range map[string]func() (Result, error){
			"update": func() (Result, error) { return w.update(w.call(w.deployments, "web"), o) },
			"patch": func() (Result, error) {
				return w.merge(w.call(w.deployments, "web"), `{"metadata":{"labels":{"app":"x"}}}`)
			},
			"status": func() (Result, error) {
				return w.merge(w.sub(w.deployments, "web", "status"), `{"spec":{"paused":true}}`)
			},
			"apply":        func() (Result, error) { return w.apply(w.call(w.deployments, "web"), "m", applied, false) },
			"tree's patch": func() (Result, error) { return w.merge(w.call(w.widgets, "w"), `{"data":{"a":1}}`) },
		} {
			w.quiet(what, func() {
				r, err := f()
				if err != nil {
					w.Errorf("%s: %v", what, err)
				} else if got := r.Item.Object.GetResourceVersion(); r.Item.Definition == w.deployments && got != version {
					w.Errorf("%s: the version is %s, was %s", what, got, version)
				}
			})
		}
	})
}

func TestDryRunWritesNothing(t *testing.T) {
	run(t, func(w *world) {
		w.create(w.deployments, `{"metadata":{"name":"web"}}`)
		w.create(w.pods, `{"metadata":{"name":"p"}}`)
		const all = metav1.DryRunAll
		w.quiet("a dry run", func() {
			r, err := w.tryCreate(w.deployments, `{"metadata":{"name":"new"}}`, all)
			if err != nil || !r.Created || r.Item.Object.GetUID() == "" || r.Item.Object.GetResourceVersion() != "" {
				w.Errorf("create: %+v, %v", r.Item.Object, err)
			}
			_, err = w.tryCreate(w.deployments, `{"metadata":{"name":"web"}}`, all)
			w.expect("create of what there is", err, metav1.StatusReasonAlreadyExists)
			if o := w.must(w.merge(w.call(w.deployments, "web"), `{"spec":{"replicas":3}}`, all)).(*appsv1.Deployment); *o.Spec.Replicas != 3 || o.Generation != 2 {
				w.Errorf("patch: %+v", o)
			}
			w.must(w.apply(w.call(w.deployments, "new"), "m", `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"new"}}`, false, all))
			w.must(w.update(w.call(w.claims, "new"), map[string]any{"metadata": map[string]any{"name": "new"}, "data": map[string]any{"choose": "1"}}, all))
			if _, err := w.delete(w.call(w.deployments, "web"), metav1.DeleteOptions{DryRun: []string{all}}); err != nil {
				w.Error(err)
			}
			if o := w.must(w.delete(w.call(w.pods, "p"), metav1.DeleteOptions{DryRun: []string{all}})); o.GetDeletionTimestamp() == nil {
				w.Errorf("the deleted pod is shown as %+v", o)
			}
			if page, err := w.engine.DeleteCollection(context.Background(), w.call(w.deployments, ""), metav1.DeleteOptions{DryRun: []string{all}}, metav1.ListOptions{}); err != nil || len(page.Items) != 1 {
				w.Errorf("delete of all: %+v, %v", page, err)
			}
		})
	})
}

// What admission decided on may change before the object is stored: then it decides again, and nothing is stored that it refuses.
func TestPremise(t *testing.T) {
	put := func(w *world, text string) {
		value := []byte(nil)
		if text != "" {
			value = []byte(text)
		}
		if _, err := w.store.Memory.Commit(w.Context(), storage.Txn{Then: []storage.Op{{Key: "/registry/example.com/widgets/a/home", Value: value}}}); err != nil {
			w.Error(err)
		}
	}
	home := func(text string) string {
		return `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"home","namespace":"a","labels":{"open":"` + text + `"}}}`
	}
	for _, test := range []struct {
		name   string
		become string // what the premise becomes when the object is about to be stored
		want   metav1.StatusReason
	}{
		{"as it was", home("yes"), ""},
		{"refused by now", home("no"), metav1.StatusReasonForbidden},
		{"gone by now", "", metav1.StatusReasonNotFound},
	} {
		t.Run(test.name, func(t *testing.T) {
			run(t, func(w *world) {
				put(w, home("yes"))
				decisions := 0
				w.engine.Admission.Set(admission.Chain{{Name: "Home", Change: func(ctx context.Context, r *admission.Request) error {
					there, err := w.engine.Reader().Get(ctx, w.widgets.GroupResource(), "a", "home")
					if err != nil {
						return err
					}
					judge := func(obj object.Object) error {
						decisions++
						if obj.GetLabels()["open"] != "yes" {
							return r.Forbidden("it is closed")
						}
						return nil
					}
					r.Premises = append(r.Premises, kind.Premise{Resource: w.widgets.GroupResource(), Namespace: "a", Name: "home", Version: there.GetResourceVersion(), Judge: judge})
					return judge(there)
				}}})
				once := sync.OnceFunc(func() { put(w, test.become) })
				w.store.before = func(storage.Txn) error { once(); return nil }
				_, err := w.tryCreate(w.deployments, `{"metadata":{"name":"web"}}`)
				w.expect("create", err, test.want)
				if _, err := w.read(w.deployments, "web"); apierrors.IsNotFound(err) != (test.want != "") {
					w.Errorf("stored: %v", err)
				}
				if want := 2; decisions != want && test.become != "" {
					w.Errorf("decided %d times, want %d", decisions, want)
				}
			})
		})
	}
}

// TestStaleCacheMisleadsNobody: what another server wrote counts, also before this one heard of it.
func TestStaleCacheMisleadsNobody(t *testing.T) {
	const dry = metav1.DryRunAll
	all := []struct {
		name   string
		there  string                                // what is there before, "" for nothing
		change func(other *world)                    // what the other server does
		act    func(w, other *world) (string, error) // what this one does then: the replicas that it shows
		reason metav1.StatusReason
		want   string
	}{
		{"read of what was made", "", made, read, "", "1"},
		{"read of what was changed", "1", changed, read, "", "5"},
		{"read of what is gone", "1", gone, read, metav1.StatusReasonNotFound, ""},
		{"patch of what was made", "", made, patched, "", "6"},
		{"patch of what was changed", "1", changed, patched, "", "6"},
		{"patch of what is gone", "1", gone, patched, metav1.StatusReasonNotFound, ""},
		{"test in a patch", "1", changed, tested("5"), "", "9"},
		{"test in a patch that failed", "1", changed, tested("1"), metav1.StatusReasonInvalid, ""},
		{"update from the newest", "1", changed, updated, "", "8"},
		{"update of what was made", "", made, updated, "", "8"},
		{"update with an old version", "1", func(o *world) {}, func(w, other *world) (string, error) {
			old := w.get(w.deployments, "web")
			w.store.hold()
			changed(other)
			_, err := w.update(w.call(w.deployments, "web"), old)
			return "", err
		}, metav1.StatusReasonConflict, ""},
		{"no change to what was changed back", "1", changed, func(w, _ *world) (string, error) {
			r, err := w.merge(w.call(w.deployments, "web"), `{"spec":{"replicas":1}}`)
			return shown(r, err)
		}, "", "1"},
		{"dry patch of what was changed", "1", changed, func(w, _ *world) (string, error) {
			return shown(w.merge(w.call(w.deployments, "web"), `{"metadata":{"labels":{"a":"b"}}}`, dry))
		}, "", "5"},
		{"dry delete of what is gone", "1", gone, func(w, _ *world) (string, error) {
			_, err := w.delete(w.call(w.deployments, "web"), metav1.DeleteOptions{DryRun: []string{dry}})
			return "", err
		}, metav1.StatusReasonNotFound, ""},
		{"create of what is gone", "1", gone, created(), "", "3"},
		{"create of what was made", "", made, created(), metav1.StatusReasonAlreadyExists, ""},
		{"dry create of what is gone", "1", gone, created(dry), "", "3"},
		{"dry create of what was made", "", made, created(dry), metav1.StatusReasonAlreadyExists, ""},
		{"apply to what was made", "", made, applied, "", "1"},
		{"apply of what is gone", "1", gone, applied, "", "-"},
		{"delete of what was made", "", made, deletedThen, "", ""},
		{"delete of what is gone", "1", gone, deletedThen, metav1.StatusReasonNotFound, ""},
		{"delete of the newest", "1", changed, func(w, other *world) (string, error) {
			_, err := w.delete(w.call(w.deployments, "web"), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: ptr.To(other.get(other.deployments, "web").GetResourceVersion())}})
			return "", err
		}, "", ""},
		{"list of what was made", "", made, func(w, _ *world) (string, error) {
			names, _, err := w.list(w.deployments, metav1.ListOptions{})
			return strings.Join(names, ","), err
		}, "", "web"},
		{"admission's look for what was made", "", made, func(w, _ *world) (string, error) {
			return replicas(w.engine.Reader().Get(w.Context(), w.deployments.GroupResource(), "a", "web"))
		}, "", "1"},
		{"admission's shared look for what was made", "", made, func(w, _ *world) (string, error) {
			return replicas(w.engine.Shared().Get(w.Context(), w.deployments.GroupResource(), "a", "web"))
		}, "", "1"},
		{"a job's look at what was made", "", made, looked, "", "1"},
		{"a job's look at what was changed", "1", changed, looked, "", "5"},
		{"a job's look at what is gone", "1", gone, looked, metav1.StatusReasonNotFound, ""},
		{"a job's look at all", "1", changed, func(w, _ *world) (string, error) {
			all, err := w.engine.Objects().List(w.Context(), w.deployments.GroupResource(), "")
			if err != nil || len(all) != 1 {
				return fmt.Sprint(len(all), " objects"), err
			}
			return replicas(all[0], nil)
		}, "", "5"},
	}
	for _, one := range all {
		t.Run(one.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := storagetest.NewMemory()
				w, other := newWorld(t, m), newWorld(t, m)
				if one.there != "" {
					other.create(other.deployments, `{"metadata":{"name":"web"},"spec":{"replicas":`+one.there+`}}`)
					w.get(w.deployments, "web")
				}
				w.store.hold()
				one.change(other)
				time.AfterFunc(time.Second, w.store.release)
				got, err := one.act(w, other)
				w.expect("the answer", err, one.reason)
				if err == nil && got != one.want {
					w.Errorf("got %q, want %q", got, one.want)
				}
			})
		})
	}
}

// A deletion that changes nothing tells what is there, and not what the cache still has.
func TestStaleGracePeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storagetest.NewMemory()
		w, other := newWorld(t, m), newWorld(t, m)
		period := func(w *world, seconds int64) int64 {
			w.Helper()
			r, err := w.delete(w.call(w.pods, "x"), metav1.DeleteOptions{GracePeriodSeconds: &seconds})
			if err != nil {
				w.Fatal(err)
			}
			return *r.Item.Object.GetDeletionGracePeriodSeconds()
		}
		other.create(other.pods, `{"metadata":{"name":"x"}}`)
		period(other, 30)
		w.get(w.pods, "x")
		w.store.hold()
		time.AfterFunc(time.Second, w.store.release)
		period(other, 10)
		if got := period(w, 100); got != 10 {
			t.Errorf("the pod has %d seconds, and was told to have 10", got)
		}
	})
}

// What a server has answered its own rooms see, also while the cache has not heard of it: they ask nobody, and wait for nothing else.
func TestServerKnowsWhatItAnswered(t *testing.T) {
	run(t, func(w *world) {
		reader := w.engine.Reader()
		all := func() string {
			t.Helper()
			list, err := reader.List(w.Context(), w.deployments.GroupResource(), "a")
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, obj := range list {
				names = append(names, obj.GetName()+obj.GetLabels()["v"])
			}
			return strings.Join(names, ",")
		}
		soon := func() { time.AfterFunc(time.Second, w.store.release) }
		check := func(what, got, want string) {
			t.Helper()
			if got != want {
				t.Errorf("after %s: %q, want %q", what, got, want)
			}
		}
		w.create(w.deployments, `{"metadata":{"name":"a"}}`)
		w.store.hold()
		w.create(w.deployments, `{"metadata":{"name":"b"}}`)
		soon()
		check("create", all(), "a,b")
		w.store.hold()
		w.must(w.merge(w.call(w.deployments, "a"), `{"metadata":{"labels":{"v":"2"}}}`))
		soon()
		obj, err := reader.Get(w.Context(), w.deployments.GroupResource(), "a", "a")
		if err != nil {
			t.Fatal(err)
		}
		check("patch", obj.GetLabels()["v"], "2")
		w.store.hold()
		if _, err := w.delete(w.call(w.deployments, "b"), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		soon()
		check("delete", all(), "a2")

		w.store.hold()
		defer w.store.release()
		w.create(w.volumes, `{"metadata":{"name":"other"}}`)
		began := time.Now()
		check("a change of another kind", all(), "a2")
		if waited := time.Since(began); waited > 0 {
			t.Errorf("waited %s for a change of another kind", waited)
		}
	})
}

func made(o *world)    { o.create(o.deployments, `{"metadata":{"name":"web"},"spec":{"replicas":1}}`) }
func changed(o *world) { o.must(o.merge(o.call(o.deployments, "web"), `{"spec":{"replicas":5}}`)) }
func gone(o *world) {
	if _, err := o.delete(o.call(o.deployments, "web"), metav1.DeleteOptions{}); err != nil {
		o.Fatal(err)
	}
}

func read(w, _ *world) (string, error) { return replicas(w.read(w.deployments, "web")) }

func looked(w, _ *world) (string, error) {
	return replicas(w.engine.Objects().Get(w.Context(), w.deployments.GroupResource(), "a", "web"))
}

func replicas(obj object.Object, err error) (string, error) {
	if err != nil {
		return "", err
	}
	return fmt.Sprint(*obj.(*appsv1.Deployment).Spec.Replicas), nil
}

func shown(r Result, err error) (string, error) {
	if err != nil {
		return "", err
	}
	if n := r.Item.Object.(*appsv1.Deployment).Spec.Replicas; n != nil {
		return fmt.Sprint(*n), nil
	}
	return "-", nil
}

func patched(w, _ *world) (string, error) {
	return shown(w.merge(w.call(w.deployments, "web"), `{"spec":{"replicas":6}}`))
}

func tested(value string) func(w, _ *world) (string, error) {
	return func(w, _ *world) (string, error) {
		return shown(w.engine.Patch(context.Background(), w.call(w.deployments, "web"), types.JSONPatchType,
			[]byte(`[{"op":"test","path":"/spec/replicas","value":`+value+`},{"op":"replace","path":"/spec/replicas","value":9}]`), metav1.PatchOptions{}))
	}
}

func updated(w, other *world) (string, error) {
	o := other.get(other.deployments, "web").(*appsv1.Deployment)
	o.Spec.Replicas = ptr.To[int32](8)
	return shown(w.update(w.call(w.deployments, "web"), o))
}

func created(dry ...string) func(w, _ *world) (string, error) {
	return func(w, _ *world) (string, error) {
		return shown(w.tryCreate(w.deployments, `{"metadata":{"name":"web"},"spec":{"replicas":3}}`, dry...))
	}
}

func applied(w, _ *world) (string, error) {
	return shown(w.apply(w.call(w.deployments, "web"), "m", `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","labels":{"a":"b"}}}`, false))
}

func deletedThen(w, other *world) (string, error) {
	if _, err := w.delete(w.call(w.deployments, "web"), metav1.DeleteOptions{}); err != nil {
		return "", err
	}
	_, err := other.read(other.deployments, "web")
	if !apierrors.IsNotFound(err) {
		w.Errorf("after the deletion: %v", err)
	}
	return "", nil
}

func TestApply(t *testing.T) {
	run(t, func(w *world) {
		one := func(replicas, manager string, force bool) (Result, error) {
			return w.apply(w.call(w.deployments, "web"), manager, `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"replicas":`+replicas+`}}`, force)
		}
		r, err := one("1", "first", false)
		if err != nil || !r.Created {
			w.Fatalf("the first: %+v, %v", r, err)
		}
		_, err = one("2", "second", false)
		w.expect("what another owns", err, metav1.StatusReasonConflict)
		if _, err = one("1", "second", false); err != nil {
			w.Errorf("the same value: %v", err)
		}
		if o := w.must(one("2", "second", true)).(*appsv1.Deployment); *o.Spec.Replicas != 2 {
			w.Errorf("with force: %+v", o)
		}
		// what nobody applies any more goes
		o := w.must(w.apply(w.call(w.deployments, "web"), "second", `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"}}`, false)).(*appsv1.Deployment)
		if o.Spec.Replicas != nil {
			w.Errorf("replicas are left: %d", *o.Spec.Replicas)
		}
		_, err = w.apply(w.call(w.deployments, "none"), "m", `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"none","uid":"u"}}`, false)
		w.expect("a uid of what there is not", err, metav1.StatusReasonConflict)
	})
}

func TestDelete(t *testing.T) {
	run(t, func(w *world) {
		o := w.create(w.deployments, `{"metadata":{"name":"web"}}`)
		for what, p := range map[string]metav1.Preconditions{"uid": {UID: ptr.To(types.UID("x"))}, "version": {ResourceVersion: ptr.To("1")}} {
			_, err := w.delete(w.call(w.deployments, "web"), metav1.DeleteOptions{Preconditions: &p})
			w.expect(what, err, metav1.StatusReasonConflict)
		}
		r, err := w.delete(w.call(w.deployments, "web"), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: ptr.To(o.GetUID()), ResourceVersion: ptr.To(o.GetResourceVersion())}})
		if err != nil || r.Status == nil || r.Status.Details.UID != o.GetUID() || r.Status.Details.Kind != "deployments" {
			w.Errorf("got %+v, %v", r.Status, err)
		}
		_, err = w.delete(w.call(w.deployments, "web"), metav1.DeleteOptions{})
		w.expect("again", err, metav1.StatusReasonNotFound)
	})
}

func TestFinalizersHold(t *testing.T) {
	run(t, func(w *world) {
		w.create(w.deployments, `{"metadata":{"name":"web","finalizers":["example.com/x"]}}`)
		o := w.must(w.delete(w.call(w.deployments, "web"), metav1.DeleteOptions{}))
		if o == nil || o.GetDeletionTimestamp() == nil || o.GetGeneration() != 2 || *o.GetDeletionGracePeriodSeconds() != 0 {
			w.Fatalf("it is shown as %+v", o)
		}
		w.quiet("the second deletion", func() {
			if again := w.must(w.delete(w.call(w.deployments, "web"), metav1.DeleteOptions{})); again.GetGeneration() != 2 {
				w.Errorf("the second deletion shows %+v", again)
			}
		})
		_, err := w.tryCreate(w.deployments, `{"metadata":{"name":"web"}}`)
		if !apierrors.IsAlreadyExists(err) || !strings.HasPrefix(err.Error(), "object is being deleted: ") {
			w.Errorf("create: %v", err)
		}
		_, err = w.merge(w.call(w.deployments, "web"), `{"metadata":{"finalizers":["example.com/x","example.com/y"]}}`)
		w.expect("one more finalizer", err, metav1.StatusReasonInvalid)
		if o = w.must(w.merge(w.call(w.deployments, "web"), `{"metadata":{"finalizers":null}}`)); o == nil {
			w.Error("the last update shows nothing")
		}
		_, err = w.read(w.deployments, "web")
		w.expect("without finalizers", err, metav1.StatusReasonNotFound)
	})
}

func TestPropagation(t *testing.T) {
	run(t, func(w *world) {
		for policy, want := range map[metav1.DeletionPropagation]string{
			metav1.DeletePropagationOrphan: "orphan", metav1.DeletePropagationForeground: "foregroundDeletion",
		} {
			w.create(w.deployments, `{"metadata":{"name":"d-`+strings.ToLower(string(policy))+`"}}`)
			o := w.must(w.delete(w.call(w.deployments, "d-"+strings.ToLower(string(policy))), metav1.DeleteOptions{PropagationPolicy: &policy}))
			if o == nil || len(o.GetFinalizers()) != 1 || o.GetFinalizers()[0] != want {
				w.Errorf("%s leaves %+v", policy, o)
			}
		}
		background := metav1.DeletePropagationBackground
		r, err := w.delete(w.call(w.deployments, "d-orphan"), metav1.DeleteOptions{PropagationPolicy: &background})
		if err != nil || r.Status == nil {
			w.Errorf("background after orphan: %+v, %v", r, err)
		}
	})
}

func TestGracefulDeletion(t *testing.T) {
	run(t, func(w *world) {
		w.create(w.pods, `{"metadata":{"name":"p"}}`)
		start := time.Now()
		del := func(grace *int64) (*corev1.Pod, error) {
			r, err := w.delete(w.call(w.pods, "p"), metav1.DeleteOptions{GracePeriodSeconds: grace})
			if err != nil {
				return nil, err
			}
			return r.Item.Object.(*corev1.Pod), nil
		}
		for _, one := range []struct{ grace, want int64 }{{20, 20}, {25, 20}, {10, 10}, {-1, 10}} {
			grace := &one.grace
			if one.grace < 0 {
				grace = nil
			}
			p, err := del(grace)
			if err != nil {
				w.Fatal(err)
			}
			if ends := p.DeletionTimestamp.Sub(start.Truncate(time.Second)); ends != time.Duration(one.want)*time.Second || *p.DeletionGracePeriodSeconds != one.want {
				w.Errorf("deleted with %d it ends after %v", one.grace, ends)
			}
			time.Sleep(2 * time.Second)
		}
		w.must(w.merge(w.call(w.pods, "p"), `{"metadata":{"labels":{"still":"there"}}}`))
		if _, err := del(ptr.To[int64](0)); err != nil {
			w.Fatal(err)
		}
		_, err := w.read(w.pods, "p")
		w.expect("after 0 seconds", err, metav1.StatusReasonNotFound)
	})
}

func TestDeleteCollection(t *testing.T) {
	run(t, func(w *world) {
		for _, name := range []string{"a", "b", "c"} {
			w.create(w.deployments, `{"metadata":{"name":"`+name+`","labels":{"n":"`+name+`"}}}`)
		}
		page, err := w.engine.DeleteCollection(context.Background(), w.call(w.deployments, ""), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "n!=b"})
		if err != nil || len(page.Items) != 2 {
			w.Errorf("deleted %d, %v", len(page.Items), err)
		}
		if left, _, _ := w.list(w.deployments, metav1.ListOptions{}); fmt.Sprint(left) != "[b]" {
			w.Errorf("%v are left", left)
		}
	})
}

// TestCompanions: what a kind reserves is made and removed with the object, or neither is.
func TestCompanions(t *testing.T) {
	run(t, func(w *world) {
		w.create(w.claims, `{"metadata":{"name":"c"},"data":{"volume":"v1"}}`)
		if w.get(w.volumes, "v1").GetUID() == "" {
			w.Error("the volume has no uid")
		}
		_, err := w.tryCreate(w.claims, `{"metadata":{"name":"d"},"data":{"volume":"v1"}}`)
		if !apierrors.IsBadRequest(err) || err.Error() != "volume v1 is taken" {
			w.Errorf("a taken volume: %v", err)
		}
		_, err = w.read(w.claims, "d")
		w.expect("the claim of a taken volume", err, metav1.StatusReasonNotFound)

		w.create(w.volumes, `{"metadata":{"name":"v2"}}`)
		o := w.create(w.claims, `{"metadata":{"name":"e"},"data":{"choose":"1"}}`).(*corev1.ConfigMap)
		if o.Data["volume"] != "v3" || w.chosen != 3 {
			w.Errorf("volume %s was chosen in %d tries", o.Data["volume"], w.chosen)
		}
		if got := w.get(w.claims, "e").(*corev1.ConfigMap); got.Data["volume"] != "v3" {
			w.Errorf("volume %s was stored", got.Data["volume"])
		}
		if _, err := w.delete(w.call(w.claims, "c"), metav1.DeleteOptions{}); err != nil {
			w.Fatal(err)
		}
		_, err = w.read(w.volumes, "v1")
		w.expect("the volume of a deleted claim", err, metav1.StatusReasonNotFound)
	})
}

// What the store says becomes an API error.
func TestStorageErrors(t *testing.T) {
	for want, failure := range map[metav1.StatusReason]error{
		metav1.StatusReasonServerTimeout: storage.ErrUnknown, metav1.StatusReasonInternalError: storage.ErrFull, metav1.StatusReasonTooManyRequests: storage.ErrBusy,
		metav1.StatusReasonTimeout: context.DeadlineExceeded,
	} {
		run(t, func(w *world) {
			w.create(w.deployments, `{"metadata":{"name":"web"}}`)
			w.store.before = func(storage.Txn) error { return fmt.Errorf("commit: %w", failure) }
			_, err := w.tryCreate(w.deployments, `{"metadata":{"name":"x"}}`)
			w.expect("create", err, want)
			_, err = w.merge(w.call(w.deployments, "web"), `{"spec":{"replicas":3}}`)
			w.expect("patch", err, want)
			_, err = w.delete(w.call(w.deployments, "web"), metav1.DeleteOptions{})
			w.expect("delete", err, want)
		})
	}
}

// TestOutdated writes an object again that did not change, because an older server stored it in another form.
func TestOutdated(t *testing.T) {
	run(t, func(w *world) {
		w.create(w.claims, `{"metadata":{"name":"x"},"data":{"k":"v"}}`)
		const key = "/registry/configmaps/a/x"
		e, err := w.store.Get(context.Background(), key)
		if err != nil {
			w.Fatal(err)
		}
		update := func() {
			w.Helper()
			if _, err := w.update(w.call(w.claims, "x"), w.get(w.claims, "x")); err != nil {
				w.Fatal(err)
			}
		}
		w.quiet("an update that changes nothing", update)
		if _, err := w.store.Commit(context.Background(), storage.Txn{Then: []storage.Op{{Key: key, Value: []byte(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"x","namespace":"a","uid":"u"},"data":{"k":"v"}}`)}}}); err != nil {
			w.Fatal(err)
		}
		update()
		again, err := w.store.Get(context.Background(), key)
		if err != nil || !strings.HasPrefix(string(again.Value), string(e.Value[:20])) {
			w.Errorf("JSON is written back as %.40q, %v", again.Value, err)
		}
		w.quiet("another update", update)
	})
}

// TestStale writes an object again that did not change, because it is stored in a way that is out of date.
func TestStale(t *testing.T) {
	run(t, func(w *world) {
		var asked []string
		stale, broken := false, error(nil)
		w.engine.Stale = func(_ context.Context, key string, at storage.Revision) (bool, error) {
			asked = append(asked, fmt.Sprint(key, "@", at))
			return stale, broken
		}
		made := w.create(w.claims, `{"metadata":{"name":"x"},"data":{"k":"v"}}`)
		unchanged := func() Result {
			w.Helper()
			asked = nil
			r, err := w.update(w.call(w.claims, "x"), w.get(w.claims, "x"))
			if err != nil {
				w.Fatal(err)
			}
			return r
		}
		w.quiet("an update that changes nothing", func() { unchanged() })
		if want := []string{"/registry/configmaps/a/x@" + made.GetResourceVersion()}; !slices.Equal(asked, want) {
			w.Errorf("asked about %q, want %q", asked, want)
		}
		stale = true
		before := w.store.commits.Load()
		if r := unchanged(); w.store.commits.Load() != before+1 || r.Item.Object.GetResourceVersion() == made.GetResourceVersion() {
			w.Errorf("an update of what is stale: version %s", r.Item.Object.GetResourceVersion())
		}
		w.quiet("a dry run", func() {
			if _, err := w.update(w.call(w.claims, "x"), w.get(w.claims, "x"), metav1.DryRunAll); err != nil {
				w.Error(err)
			}
		})
		broken = storage.ErrNoLeader
		_, err := w.update(w.call(w.claims, "x"), w.get(w.claims, "x"))
		w.expect("an update when it cannot be told", err, metav1.StatusReasonServerTimeout)
	})
}

// TestPatchChangesKind: what a patch leads to is read as the kind that it says it is.
func TestPatchChangesKind(t *testing.T) {
	run(t, func(w *world) {
		known := map[string]bool{"Pod": true, "ConfigMap": true, "Deployment": true}
		w.engine.Registered = func(gvk schema.GroupVersionKind) bool { return known[gvk.Kind] }
		w.create(w.pods, `{"metadata":{"name":"x"}}`)
		w.create(w.deployments, `{"metadata":{"name":"x"}}`)
		w.create(w.widgets, `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"x"}}`)
		for _, one := range []struct {
			d          *kind.Definition
			sub, patch string
			want       string
		}{
			{w.pods, "", `{"kind":"ConfigMap"}`, `"" is invalid: patch: Invalid value: <doc>: converting (v1.ConfigMap) to (core.Pod): unknown conversion`},
			{w.pods, "", `{"kind":"ConfigMap","data":{"a":1}}`, `"" is invalid: patch: Invalid value: <doc>: json: cannot unmarshal number into Go struct field ConfigMap.data of type string`},
			{w.pods, "", `{"kind":"Nothing"}`, `"" is invalid: patch: Invalid value: <doc>: no kind "Nothing" is registered for version "v1" in scheme "timonel"`},
			{w.pods, "", `{"apiVersion":"v9"}`, `"" is invalid: patch: Invalid value: <doc>: converting (v9.Pod) to (core.Pod): unknown conversion`},
			{w.deployments, "scale", `{"kind":"Nothing"}`, `"" is invalid: patch: Invalid value: <doc>: no kind "Nothing" is registered for version "autoscaling/v1" in scheme "timonel"`},
			{w.widgets, "", `{"kind":"Gadget"}`, `Gadget.example.com "x" is invalid: kind: Invalid value: "Gadget": must be Widget`},
		} {
			c := w.call(one.d, "x")
			if one.sub != "" {
				c = w.sub(one.d, "x", one.sub)
			}
			_, err := w.merge(c, one.patch)
			w.expect(one.patch, err, metav1.StatusReasonInvalid)
			got := strings.TrimSpace(fmt.Sprint(err))
			if begin, end := strings.Index(got, `Invalid value: "{`), strings.LastIndex(got, `}": `); begin >= 0 && end > begin {
				got = got[:begin] + "Invalid value: <doc>" + got[end+2:]
			}
			if got != one.want {
				w.Errorf("%s:\n got %s\nwant %s", one.patch, got, one.want)
			}
		}
	})
}

// TestTooLarge: an object that is too large to be stored is tried once more without its managedFields, unless it was applied.
func TestTooLarge(t *testing.T) {
	run(t, func(w *world) {
		const limit = 600
		w.store.before = func(txn storage.Txn) error {
			for _, op := range txn.Then {
				if len(op.Value) > limit {
					return storage.ErrTooLarge
				}
			}
			return nil
		}
		config := func(name string, n int) string {
			return `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"` + name + `","annotations":{"k":"` + strings.Repeat("x", n) + `"}}}`
		}
		if obj := w.create(w.deployments, config("small", 10)); len(obj.GetManagedFields()) != 1 {
			w.Errorf("small: %v", obj.GetManagedFields())
		}
		if obj := w.create(w.deployments, config("large", limit-250)); len(obj.GetManagedFields()) != 0 {
			w.Errorf("large: %v", obj.GetManagedFields())
		}
		if obj := w.must(w.merge(w.call(w.deployments, "small"), config("small", limit-250))); len(obj.GetManagedFields()) != 0 {
			w.Errorf("grown: %v", obj.GetManagedFields())
		}
		_, tooLarge := w.tryCreate(w.deployments, config("huge", limit))
		_, applied := w.apply(w.call(w.deployments, "applied"), "m", config("applied", limit-250), false)
		for _, err := range []error{tooLarge, applied} {
			if err == nil || err.Error() != "etcdserver: request is too large" || apierrors.ReasonForError(err) != "" {
				w.Errorf("got %v", err)
			}
		}
	})
}

// TestOwnsOnly: through a door that changes one thing nothing else is owned.
func TestOwnsOnly(t *testing.T) {
	run(t, func(w *world) {
		w.create(w.pods, `{"metadata":{"name":"x"},"spec":{"containers":[{"name":"c","image":"i"}]}}`)
		c := w.sub(w.pods, "x", "resize")
		obj := w.must(w.apply(c, "resizer", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","labels":{"a":"b"}},"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"2"}}}]}}`, true))
		i := slices.IndexFunc(obj.GetManagedFields(), func(e metav1.ManagedFieldsEntry) bool { return e.Manager == "resizer" })
		if i < 0 {
			w.Fatalf("nothing is owned: %v", obj.GetManagedFields())
		}
		entry := obj.GetManagedFields()[i]
		const want = `{"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:resources":{"f:limits":{"f:cpu":{}}}}}}}`
		if got := entry.FieldsV1.GetRawString(); got != want || entry.Subresource != "resize" {
			w.Errorf("owned through %q:\n got %s\nwant %s", entry.Subresource, got, want)
		}
	})
}
