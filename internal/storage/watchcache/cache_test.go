package watchcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/storagetest"
)

func wantEvents(t *testing.T, w *Watcher, want ...string) {
	t.Helper()
	synctest.Wait()
	if got, _ := drain(t, w); !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

func blob(rev storage.Revision, o object) string { return string(stamp(o.bytes(), rev)) }

func TestSelectorTransitions(t *testing.T) {
	bubble(t, func(t *testing.T, store *storagetest.Memory) {
		c, views := start(t, store, Options{}, pods)
		web, _ := labels.Parse("app=web")
		byLabel := watchQuery(t, views[0], Query{Labels: web}, c.Revision())
		byNode := watchQuery(t, views[0], Query{Fields: []FieldRequirement{{Index: 0, Value: "n1"}}}, c.Revision())

		on := func(node, app string) object {
			return object{Labels: map[string]string{"app": app}, Fields: []string{node, ""}}
		}
		r1 := commit(t, store, put(pods+"a/p", on("", "web")))
		wantEvents(t, byLabel, "ADDED a/p "+blob(r1, on("", "web")))
		wantEvents(t, byNode)

		r2 := commit(t, store, put(pods+"a/p", on("n1", "web")))
		wantEvents(t, byLabel, "MODIFIED a/p "+blob(r2, on("n1", "web")))
		wantEvents(t, byNode, "ADDED a/p "+blob(r2, on("n1", "web")))

		r3 := commit(t, store, put(pods+"a/p", on("n1", "db"))) // leaves the labels: the state that matched, at the new revision
		wantEvents(t, byLabel, "DELETED a/p "+blob(r3, on("n1", "web")))
		wantEvents(t, byNode, "MODIFIED a/p "+blob(r3, on("n1", "db")))

		r4 := commit(t, store, del(pods+"a/p"))
		wantEvents(t, byLabel)
		wantEvents(t, byNode, "DELETED a/p "+blob(r4, on("n1", "db")))
	})
}

// TestSharing checks that what is made for one watcher of an event is there for the others.
func TestSharing(t *testing.T) {
	bubble(t, func(t *testing.T, store *storagetest.Memory) {
		c, views := start(t, store, Options{}, pods)
		commit(t, store, put(pods+"a/p", object{}))
		synctest.Wait()
		all := watchQuery(t, views[0], Query{}, c.Revision())
		ns := watchQuery(t, views[0], Query{Namespace: "a"}, c.Revision())
		commit(t, store, del(pods+"a/p"))
		synctest.Wait()
		one, _ := all.Poll()
		two, _ := ns.Poll()
		a, b := one.Events[0], two.Events[0]
		if a.Version != b.Version || a.Shared != b.Shared {
			t.Error("two watchers of one event do not share")
		}
		if got := a.Shared.Offer("frame"); got != "frame" || b.Shared.Load() != "frame" || b.Shared.Offer("other") != "frame" {
			t.Error("the slot does not keep the first offer")
		}
		a.Shared.Store(nil)
		if b.Shared.Load() != nil {
			t.Error("the slot was not emptied")
		}
	})
}

// TestWakesOnlyThoseConcerned has a watcher on each of many nodes, names and labels.
func TestWakesOnlyThoseConcerned(t *testing.T) {
	bubble(t, func(t *testing.T, store *storagetest.Memory) {
		c, views := start(t, store, Options{}, pods)
		v := views[0]
		const n = 100
		watchers := map[string]*Watcher{}
		add := func(name string, q Query) {
			watchers[name] = watchQuery(t, v, q, c.Revision())
		}
		for i := range n {
			add(fmt.Sprint("node", i), Query{Fields: []FieldRequirement{{Index: 0, Value: fmt.Sprint("n", i)}}})
			add(fmt.Sprint("name", i), Query{Namespace: "a", Name: fmt.Sprint("p", i)})
			add(fmt.Sprint("namespace", i), Query{Namespace: fmt.Sprint("ns", i)})
			selector, _ := labels.Parse(fmt.Sprint("app=a", i))
			add(fmt.Sprint("label", i), Query{Labels: selector})
			none, _ := labels.Parse(fmt.Sprint("app notin (a1),x", i))
			add(fmt.Sprint("none", i), Query{Labels: none})
		}
		add("all", Query{})
		for _, w := range watchers {
			w.Poll()
		}
		check := func(op storage.Op, want ...string) {
			t.Helper()
			commit(t, store, op)
			synctest.Wait()
			var woken []string
			for name, w := range watchers {
				select {
				case <-w.Wake():
					woken = append(woken, name)
					if got, _ := drain(t, w); len(got) != 1 {
						t.Errorf("%s was told %q", name, got)
					}
				default:
				}
			}
			slices.Sort(woken)
			slices.Sort(want)
			if !slices.Equal(woken, want) {
				t.Errorf("woke %q, want %q", woken, want)
			}
		}
		o := func(node, app string) object {
			return object{Fields: []string{node, ""}, Labels: map[string]string{"app": app}}
		}
		check(put(pods+"a/p7", o("n3", "a5")), "all", "node3", "name7", "label5")
		check(put(pods+"a/p7", o("n4", "a6")), "all", "node3", "node4", "name7", "label5", "label6")
		check(del(pods+"a/p7"), "all", "node4", "name7", "label6")
		check(put(pods+"ns9/p7", o("n900", "a900")), "all", "namespace9")
		for _, w := range watchers { // nobody lags for having slept
			if _, upTo := drain(t, w); upTo != c.Revision() {
				t.Fatalf("an idle watcher is at %d, the cache at %d", upTo, c.Revision())
			}
		}
		for _, w := range watchers {
			w.Close()
			w.Close()
		}
		k := &v.wakers
		if k.count != 0 || len(k.byName)+len(k.byField[0])+len(k.byLabel)+len(k.byNamespace)+len(k.all.watchers) != 0 {
			t.Errorf("closed watchers left something: %+v", k)
		}
	})
}

func TestExpiry(t *testing.T) {
	bubble(t, func(t *testing.T, store *storagetest.Memory) {
		c, views := start(t, store, Options{}, pods)
		v := views[0]
		begin := c.Revision()
		slow := watchQuery(t, v, Query{}, begin)
		elsewhere := watchQuery(t, v, Query{Namespace: "quiet"}, begin)
		for i := range 1000 {
			commit(t, store, put(fmt.Sprintf("%sa/p%d", pods, i%10), object{Data: fmt.Sprint(i)}))
		}
		synctest.Wait()
		early := c.Revision()
		if _, err := v.At(begin + 1); err != nil {
			t.Errorf("within the window: %v", err)
		}
		settle(DefaultHistory / 2)
		commit(t, store, put(pods+"a/p", object{}))
		settle(DefaultHistory/2 + 20*time.Second) // the first ones are out of the window now, with nothing written

		if _, err := v.At(begin + 1); !errors.Is(err, ErrExpired) {
			t.Errorf("at an old revision: %v", err)
		}
		if _, err := v.Watch(Query{}, begin); !errors.Is(err, ErrExpired) {
			t.Errorf("watch from an old revision: %v", err)
		}
		if _, err := slow.Poll(); !errors.Is(err, ErrExpired) {
			t.Errorf("a watcher that fell behind: %v", err)
		}
		if b, err := elsewhere.Poll(); err != nil || b.Revision != c.Revision() {
			t.Errorf("a watcher that had nothing to look at: %+v, %v", b, err)
		}
		if s, err := v.At(early); err != nil || s.Len("") != 10 {
			t.Errorf("a revision in the window: %v", err)
		}
		if size := v.history.size; size < minEvents || size > 3*maxSegment {
			t.Errorf("%d events are kept", size)
		}
		if c.mu.trimmer != nil {
			settle(2 * DefaultHistory)
		}
		if c.mu.trimmer != nil {
			t.Error("a timer runs though there is nothing to forget")
		}
	})
}

// TestHistoryIsBounded writes more than the history may hold.
func TestHistoryIsBounded(t *testing.T) {
	store := storagetest.NewMemory()
	c := New(store, prefix, Options{})
	v := c.Serve(widgets(pods))
	v.install(nil, 1, false, time.Now())
	now := time.Now()
	value := object{}.bytes()
	const n = maxEvents + 5000
	for i := range n {
		rev := storage.Revision(i + 2)
		v.apply([]storage.Change{{Entry: storage.Entry{Key: fmt.Sprint(pods, "a/p", i%50), Value: value, Modified: rev}}}, now)
	}
	if size := v.history.size; size > maxEvents || size < maxEvents-maxSegment {
		t.Errorf("%d events are kept, want about %d", size, maxEvents)
	}
	big := bytes.Repeat([]byte("x"), 1<<20)
	v.collection.Describe = func(string, []byte, storage.Revision) Description { return Description{Blob: big} }
	for i := range 1000 {
		rev := storage.Revision(n + i + 2)
		v.apply([]storage.Change{{Entry: storage.Entry{Key: pods + "a/big", Value: value, Modified: rev}}}, now)
	}
	if v.history.bytes > maxEventsBytes+heavySegment+2<<20 {
		t.Errorf("%d bytes are kept", v.history.bytes)
	}
}

func TestStoreTrouble(t *testing.T) {
	bubble(t, func(t *testing.T, store *storagetest.Memory) {
		commit(t, store, put(pods+"a/gone", object{}), put(pods+"a/stays", object{}))
		down := errors.New("down")
		store.Fault(func(op string) error { return down })
		options := Options{}
		go func() {
			time.Sleep(time.Minute)
			store.Fault(nil)
		}()
		begin := time.Now()
		c, views := start(t, store, options, pods)
		if time.Since(begin) < time.Minute {
			t.Fatal("ready without the store")
		}
		v := views[0]
		w := watchQuery(t, v, Query{}, c.Revision())

		// A broken watch continues where it was.
		store.Break()
		r := commit(t, store, put(pods+"a/new", object{}))
		settle(time.Minute)
		wantEvents(t, w, "ADDED a/new "+blob(r, object{}))

		// What was compacted while the watch was broken expires watchers and is loaded anew.
		old := c.Revision()
		store.Fault(func(op string) error { return down })
		store.Break()
		settle(time.Minute)
		if _, err := c.Fresh(t.Context()); !errors.Is(err, down) {
			t.Errorf("fresh without the store: %v", err)
		}
		store.Fault(nil)
		commit(t, store, del(pods+"a/gone"))
		last := commit(t, store, put(pods+"a/late", object{}))
		store.Compact(last)
		settle(time.Minute)
		if _, err := w.Poll(); !errors.Is(err, ErrExpired) {
			t.Errorf("a watcher of a lost history: %v", err)
		}
		if _, err := v.Watch(Query{}, old); !errors.Is(err, ErrExpired) {
			t.Errorf("a watch from the lost history: %v", err)
		}
		if _, err := v.At(old); !errors.Is(err, ErrExpired) {
			t.Errorf("a state of the lost history: %v", err)
		}
		if rev, err := c.Fresh(t.Context()); err != nil || rev != last {
			t.Errorf("fresh: %d, %v, want %d", rev, err, last)
		}
		if _, ok := v.Get("a/gone"); ok || v.Latest().Len("") != 3 {
			t.Error("the reloaded view is wrong")
		}
		w = watchQuery(t, v, Query{}, v.Latest().Revision())
		r = commit(t, store, put(pods+"a/more", object{}))
		wantEvents(t, w, "ADDED a/more "+blob(r, object{}))
	})
}

// TestBlockedWatcherHearsOfExpiry has a watcher that waits while the history is lost.
func TestBlockedWatcherHearsOfExpiry(t *testing.T) {
	bubble(t, func(t *testing.T, store *storagetest.Memory) {
		c, views := start(t, store, Options{}, pods)
		for _, q := range []Query{{}, {Namespace: "a"}, {Namespace: "a", Name: "x"}, {Fields: []FieldRequirement{{Value: "n"}}}} {
			w := watchQuery(t, views[0], q, c.Revision())
			ended := make(chan error, 1)
			go func() { _, err := w.Next(t.Context()); ended <- err }()
			synctest.Wait()
			compacted := false
			store.Fault(func(op string) error {
				if op == "Watch" && !compacted {
					compacted = true
					return storage.ErrCompacted
				}
				return nil
			})
			store.Break()
			settle(time.Second)
			store.Fault(nil)
			settle(time.Minute)
			select {
			case err := <-ended:
				if !errors.Is(err, ErrExpired) {
					t.Errorf("%+v: %v", q, err)
				}
			default:
				t.Errorf("%+v: still waits", q)
				w.signal()
			}
		}
	})
}

func TestLateServeAndDrop(t *testing.T) {
	bubble(t, func(t *testing.T, store *storagetest.Memory) {
		commit(t, store, put(things+"a/old", object{}), put(things+"a/changing", object{}), put(things+"a/dying", object{}))
		// While the late view loads, things go on.
		block := make(chan struct{})
		listed := make(chan struct{})
		var once sync.Once
		late := &slowList{Memory: store, prefix: things, listed: func() {
			once.Do(func() { close(listed) })
			<-block
		}}
		c, _ := start(t, late, Options{}, pods)
		v := c.Serve(widgets(things))
		<-listed
		r1 := commit(t, store, put(things+"a/changing", object{Data: "2"}), del(things+"a/dying"))
		r2 := commit(t, store, put(things+"a/new", object{}))
		synctest.Wait()
		select {
		case <-v.Ready():
			t.Fatal("ready before it was loaded")
		default:
		}
		close(block)
		<-v.Ready()
		if _, err := c.Fresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, o := range v.Latest().List(Query{}).Versions {
			got = append(got, fmt.Sprintf("%s@%d", o.Key(), o.Revision))
		}
		if want := []string{fmt.Sprintf("a/changing@%d", r1), fmt.Sprintf("a/new@%d", r2), "a/old@2"}; !slices.Equal(got, want) {
			t.Errorf("joined with %q, want %q", got, want)
		}
		w := watchQuery(t, v, Query{}, v.Latest().Revision())
		r := commit(t, store, put(things+"a/next", object{}))
		wantEvents(t, w, "ADDED a/next "+blob(r, object{}))

		ended := make(chan error, 1)
		go func() { _, err := w.Next(t.Context()); ended <- err }()
		synctest.Wait()
		c.Drop(things)
		if err := <-ended; !errors.Is(err, ErrDropped) {
			t.Errorf("a watcher of a dropped resource: %v", err)
		}
		if _, err := v.Watch(Query{}, c.Revision()); !errors.Is(err, ErrDropped) {
			t.Errorf("watching a dropped resource: %v", err)
		}
		again := c.Serve(widgets(things))
		<-again.Ready()
		if n := again.Latest().Len(""); n != 4 {
			t.Errorf("served again it has %d objects, want 4", n)
		}
	})
}

// slowList calls listed after it has read and before it returns.
type slowList struct {
	*storagetest.Memory
	prefix string
	listed func()
}

func (s *slowList) List(ctx context.Context, prefix string, opts storage.ListOptions) (storage.Page, error) {
	page, err := s.Memory.List(ctx, prefix, opts)
	if prefix == s.prefix {
		s.listed()
	}
	return page, err
}

// TestFresh checks that nobody shares a question that was asked before he came, and that those who may share do.
func TestFresh(t *testing.T) {
	bubble(t, func(t *testing.T, store *storagetest.Memory) {
		c, _ := start(t, store, Options{}, pods)
		asked := 0
		c.fresh.ask = func(ctx context.Context) (storage.Revision, error) {
			asked++
			rev, err := store.Now(ctx) // read at the beginning of a slow question
			time.Sleep(time.Second)
			return rev, err
		}
		var wg sync.WaitGroup
		call := func() {
			want, _ := store.Now(t.Context())
			wg.Go(func() {
				if rev, err := c.Fresh(t.Context()); err != nil || rev < want {
					t.Errorf("fresh as of %d (%v), though %d was before it", rev, err, want)
				}
			})
		}
		for range 20 {
			call()
		}
		synctest.Wait()
		commit(t, store, put(pods+"a/p", object{}))
		for range 20 {
			call()
		}
		wg.Wait()
		if asked > 3 {
			t.Errorf("%d questions for two moments", asked)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := c.Fresh(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("an impatient caller: %v", err)
		}
		time.Sleep(5 * time.Second)
	})
}

// TestWaitForForeignRevision waits for a revision that was written outside the prefix, which no event tells.
func TestWaitForForeignRevision(t *testing.T) {
	bubble(t, func(t *testing.T, store *storagetest.Memory) {
		c, _ := start(t, store, Options{}, pods)
		rev := commit(t, store, storage.Op{Key: "/elsewhere", Value: []byte("x")})
		begin := time.Now()
		if err := c.Wait(t.Context(), rev); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > progressFirst {
			t.Errorf("took %v", took)
		}
		if got, err := c.Fresh(t.Context()); err != nil || got != rev {
			t.Errorf("fresh: %d, %v", got, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := c.Wait(ctx, rev+1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting for the future: %v", err)
		}
		if c.waiters.timer != nil || len(c.waiters.waiting) != 0 {
			t.Error("something is left of those who waited")
		}
	})
}

func TestUndecodable(t *testing.T) {
	bubble(t, func(t *testing.T, store *storagetest.Memory) {
		commit(t, store, put(pods+"a/good", object{}), storage.Op{Key: pods + "a/bad", Value: []byte("}")})
		commit(t, store, storage.Op{Key: secret + "a/worse", Value: []byte("panic")})
		defer func() {
			c := New(store, prefix, Options{})
			worse := widgets(secret)
			worse.Describe = func(string, []byte, storage.Revision) Description { panic("worse") }
			v := c.Serve(worse)
			if err := c.load(t.Context(), *c.views.Load()); err != nil {
				t.Fatal(err)
			}
			if o, ok := v.Get("a/worse"); !ok || o.Err == nil {
				t.Errorf("a value that makes Describe panic: %+v", o)
			}
		}()
		c, views := start(t, store, Options{}, pods)
		page := views[0].Latest().List(Query{})
		if len(page.Versions) != 2 || page.Versions[0].Err == nil || page.Versions[1].Err != nil {
			t.Fatalf("listed %+v", page.Versions)
		}
		w := watchQuery(t, views[0], Query{}, c.Revision())
		commit(t, store, storage.Op{Key: pods + "a/bad", Value: []byte("{")})
		r := commit(t, store, del(pods+"a/bad"))
		synctest.Wait()
		b, err := w.Poll()
		if err != nil || len(b.Events) != 2 || b.Events[0].Version.Err == nil || b.Events[1].Type != Deleted || b.Events[1].Version.Revision != r {
			t.Errorf("told %+v, %v", b, err)
		}
	})
}

// locked is a transformer whose key may be missing.
type locked struct{ open atomic.Bool }

func (*locked) ToStore(_ context.Context, _ string, value []byte) ([]byte, error) { return value, nil }
func (*locked) Stale(string, []byte) bool                                         { return false }
func (*locked) Leaves(string) bool                                                { return false }

func (l *locked) FromStore(_ context.Context, key string, stored []byte) ([]byte, error) {
	if strings.HasPrefix(key, secret) && !l.open.Load() {
		return nil, errors.New("no key")
	}
	return stored, nil
}

// TestReread has values that cannot be read until a key is there.
func TestReread(t *testing.T) {
	bubble(t, func(t *testing.T, store *storagetest.Memory) {
		commit(t, store, put(pods+"a/p", object{}), put(secret+"a/old", object{Data: "1"}))
		r := commit(t, store, put(secret+"a/kept", object{Data: "2", Labels: map[string]string{"x": "y"}}))
		var l locked
		c, views := start(t, storage.Transform(store, &l), Options{}, pods, secret)
		kept := func() *Version {
			t.Helper()
			o, ok := views[1].Get("a/kept")
			if !ok || o.Revision != r {
				t.Fatalf("the object is %+v", o)
			}
			return o
		}
		if o := kept(); !errors.Is(o.Err, storage.ErrTransform) || o.Blob != nil {
			t.Errorf("without the key the object is %+v", o)
		}
		others, theirs := watchQuery(t, views[0], Query{}, c.Revision()), watchQuery(t, views[1], Query{}, c.Revision())
		if err := c.Reread(t.Context()); err != nil || kept().Err == nil {
			t.Errorf("read without the key: %v", err)
		}
		if _, err := theirs.Poll(); err != nil {
			t.Errorf("nothing changed, and the watcher ends with %v", err)
		}
		l.open.Store(true)
		commit(t, store, put(secret+"a/old", object{Data: "3"}))
		synctest.Wait()
		if err := c.Reread(t.Context()); err != nil {
			t.Fatal(err)
		}
		if o := kept(); o.Err != nil || string(o.Blob) != fmt.Sprintf(`%d|{"l":{"x":"y"},"d":"2"}`, r) {
			t.Errorf("with the key the object is %+v", o)
		}
		if o, _ := views[1].Get("a/old"); o.Err != nil || o.Revision == r {
			t.Errorf("what was written meanwhile is %+v", o)
		}
		if _, err := theirs.Poll(); !errors.Is(err, ErrExpired) {
			t.Errorf("the watcher that missed an object: %v", err)
		}
		if _, err := others.Poll(); err != nil {
			t.Errorf("a watcher of another resource: %v", err)
		}
		w := watchQuery(t, views[1], Query{}, c.Revision())
		commit(t, store, del(secret+"a/kept"))
		synctest.Wait()
		if events, _ := drain(t, w); len(events) != 1 {
			t.Errorf("told %q", events)
		}
	})
}

// TestNext waits in Next for an event and for a deadline, at which the batch says how far it is.
func TestNext(t *testing.T) {
	bubble(t, func(t *testing.T, store *storagetest.Memory) {
		c, views := start(t, store, Options{}, pods, secret)
		w := watchQuery(t, views[0], Query{}, c.Revision())
		go func() {
			time.Sleep(time.Second)
			commit(t, store, put(pods+"a/p", object{}))
			time.Sleep(time.Second)
			commit(t, store, put(secret+"a/s", object{}))
		}()
		b, err := w.Next(t.Context())
		if err != nil || len(b.Events) != 1 || b.Revision != b.Events[0].Version.Revision {
			t.Fatalf("next: %+v, %v", b, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		b, err = w.Next(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || len(b.Events) != 0 || b.Revision != c.Revision() {
			t.Errorf("at the deadline: %+v, %v; the cache is at %d", b, err, c.Revision())
		}
	})
}

// TestListThenWatch joins lists and watches, without a bubble, while others write.
func TestListThenWatch(t *testing.T) {
	store := storagetest.NewMemory()
	c := New(store, prefix, Options{})
	v := c.Serve(widgets(pods))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	<-c.Ready()

	const writes = 2000
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for range 20 {
				snapshot := v.Latest()
				have := map[string]storage.Revision{}
				for _, o := range snapshot.List(Query{}).Versions {
					have[o.Key()] = o.Revision
				}
				w, err := v.Watch(Query{}, snapshot.Revision())
				if err != nil {
					t.Error(err)
					return
				}
				last := snapshot.Revision()
				for n := 0; n < 50; {
					wait, stop := context.WithTimeout(ctx, 20*time.Millisecond)
					b, err := w.Next(wait)
					stop()
					if err != nil {
						break
					}
					for _, e := range b.Events {
						n++
						rev := e.Version.Revision
						_, exists := have[e.Version.Key()]
						if rev <= last || exists == (e.Type == Added) {
							t.Errorf("%s of %s at %d after %d, known %t", e.Type, e.Version.Key(), rev, last, exists)
							return
						}
						last = rev
						if have[e.Version.Key()] = rev; e.Type == Deleted {
							delete(have, e.Version.Key())
						}
					}
				}
				w.Close()
			}
		})
	}
	for i := range writes {
		key := fmt.Sprint(pods, "a/p", i*7919%30)
		if i%3 == 0 {
			commit(t, store, del(key))
		} else {
			commit(t, store, put(key, object{}))
		}
	}
	readers.Wait()
	cancel()
	running.Wait()
}
