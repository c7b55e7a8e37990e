package watchcache

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/storagetest"
)

// benchObject is a pod of a Deployment on one of 100 nodes, without the cost of decoding one.
type benchObject struct{}

func (o benchObject) collection() Collection {
	c := widgets(pods)
	c.Describe = func(key string, value []byte, revision storage.Revision) Description {
		var i int
		fmt.Sscanf(string(value[:8]), "%d", &i)
		return Description{
			UID: types.UID(fmt.Sprintf("%036d", i)),
			Labels: NewLabels([]Label{
				{"app.kubernetes.io/name", "web"}, {"pod-template-hash", fmt.Sprintf("5f7c9b%d", i%50)}, {"tier", "frontend"},
			}),
			Fields: []string{fmt.Sprint("node-", i%100), "Running"},
			Blob:   bytes.Clone(value),
		}
	}
	return c
}

func benchChange(i, size int, revision storage.Revision) storage.Change {
	value := bytes.Repeat([]byte(" "), size)
	copy(value, fmt.Sprintf("%08d", i))
	return storage.Change{Entry: storage.Entry{
		Key: fmt.Sprintf("%snamespace-%d/deployment-%d-pod-%d", pods, i%20, i%50, i), Value: value, Modified: revision,
	}}
}

// filled returns a view of n objects, and the revision.
func filled(n, size int) (*Cache, *View) {
	c := New(storagetest.NewMemory(), prefix, Options{})
	v := c.Serve(benchObject{}.collection())
	v.install(nil, 1, false, time.Now())
	changes := make([]storage.Change, 0, 100)
	for i := range n {
		changes = append(changes, benchChange(i, size, storage.Revision(i+2)))
		if len(changes) == cap(changes) || i == n-1 {
			c.feed(storage.Batch{Changes: changes, Revision: storage.Revision(i + 2)})
			changes = changes[:0]
		}
	}
	return c, v
}

func BenchmarkFeed(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprintf("update/objects=%d", n), func(b *testing.B) {
			c, _ := filled(n, 100)
			rev := c.Revision()
			changes := make([]storage.Change, 1024)
			for i := range changes {
				changes[i] = benchChange(i*7919%n, 100, 0)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				rev++
				change := changes[i%len(changes)]
				change.Modified = rev
				c.feed(storage.Batch{Changes: []storage.Change{change}, Revision: rev})
			}
		})
	}
}

func BenchmarkList(b *testing.B) {
	const n = 10_000
	_, v := filled(n, 100)
	s := v.Latest()
	selector, _ := labels.Parse("pod-template-hash=5f7c9b7")
	for _, test := range []struct {
		name string
		q    Query
	}{
		{"all", Query{}},
		{"page=500", Query{Limit: 500, After: "namespace-15/x"}},
		{"namespace", Query{Namespace: "namespace-7"}},
		{"node", Query{Fields: []FieldRequirement{{Index: 0, Value: "node-7"}}}},
		{"label=2%", Query{Labels: selector}},
	} {
		b.Run(test.name, func(b *testing.B) {
			for range 5 { // the label's index is made on demand
				s.List(test.q)
				runtime.Gosched()
				time.Sleep(time.Millisecond)
				s = v.Latest()
			}
			b.ReportAllocs()
			for b.Loop() {
				s.List(test.q)
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	_, v := filled(100_000, 100)
	key := benchChange(4711, 100, 0).Key[len(pods):]
	for b.Loop() {
		if _, ok := v.Get(key); !ok {
			b.Fatal("gone")
		}
	}
}

func BenchmarkAt(b *testing.B) {
	c, v := filled(10_000, 100)
	rev := c.Revision()
	for i := 0; b.Loop(); i++ {
		if _, err := v.At(rev - storage.Revision(1+i%5000)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDispatch is one event with 10,000 watchers: idle ones that it does not
// concern, or ones that are all told.
func BenchmarkDispatch(b *testing.B) {
	const watchers = 10_000
	for _, test := range []struct {
		name  string
		query func(i int) Query
	}{
		{"another node", func(i int) Query {
			return Query{Fields: []FieldRequirement{{Index: 0, Value: fmt.Sprint("another-", i)}}}
		}},
		{"another label", func(i int) Query {
			s, _ := labels.Parse(fmt.Sprint("tier in (a,b),x", i))
			return Query{Labels: s}
		}},
		{"all", func(i int) Query { return Query{} }},
	} {
		b.Run(test.name, func(b *testing.B) {
			c, v := filled(1000, 100)
			ctx, cancel := context.WithCancel(context.Background())
			var running, told sync.WaitGroup
			everybody := test.name == "all"
			for i := range watchers {
				w, err := v.Watch(test.query(i), c.Revision())
				if err != nil {
					b.Fatal(err)
				}
				running.Go(func() {
					defer w.Close()
					for {
						batch, err := w.Next(ctx)
						if err != nil {
							return
						}
						for range batch.Events {
							told.Done()
						}
					}
				})
			}
			rev := c.Revision()
			b.ReportAllocs()
			for b.Loop() {
				rev++
				if everybody {
					told.Add(watchers)
				}
				c.feed(storage.Batch{Changes: []storage.Change{benchChange(int(rev)%1000, 100, rev)}, Revision: rev})
				told.Wait()
			}
			b.StopTimer()
			cancel()
			running.Wait()
		})
	}
}

// BenchmarkHistoryMemory reports what 10,000 objects take besides their bytes just after they were created one by one.
func BenchmarkHistoryMemory(b *testing.B) {
	const n, size = 10_000, 1000
	for b.Loop() {
		before := heap()
		c, v := filled(n, size)
		b.ReportMetric(float64(heap()-before)/n-size-24, "B/object")
		runtime.KeepAlive(v)
		runtime.KeepAlive(c)
	}
}

// heap is what is reachable.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkMemory reports what 100,000 objects of 1,000 bytes take besides their bytes.
func BenchmarkMemory(b *testing.B) {
	const n, size = 100_000, 1000
	for b.Loop() {
		before := heap()
		c := New(storagetest.NewMemory(), prefix, Options{})
		v := c.Serve(benchObject{}.collection())
		var versions []*Version
		for i := range n {
			change := benchChange(i, size, storage.Revision(i+2))
			versions = append(versions, v.describe([]storage.Entry{change.Entry})...)
		}
		v.install(sorted(versions), n+2, false, time.Now())
		versions = nil
		b.ReportMetric(float64(heap()-before)/n-size-24, "B/object") // a blob of 1,000 bytes is in a block of 1,024
		runtime.KeepAlive(v)
	}
}

func sorted(versions []*Version) []*Version {
	var t tree[*Version]
	for _, v := range versions {
		t.set(v, 1)
	}
	versions = versions[:0]
	t.ascend("", "", false, func(v *Version) bool { versions = append(versions, v); return true })
	return versions
}
