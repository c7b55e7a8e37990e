package codec

import (
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"weak"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/watchcache"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// configMapVersion is a stored ConfigMap as the cache keeps it.
func configMapVersion(t testing.TB, name string, revision storage.Revision) *watchcache.Version {
	t.Helper()
	obj := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "a"}, Data: map[string]string{"k": "some text"}}
	return versionOf(t, configMaps, obj, revision)
}

// total is what the forms that can be reached from the versions take.
func total(versions []*watchcache.Version) int {
	n := 0
	for _, v := range versions {
		if f, ok := v.Derived.Load().(*form); ok {
			n += f.size()
		}
	}
	return n
}

func TestFormsAreKeptWithinTheirBound(t *testing.T) {
	c := formCache{limit: 20_000}
	var versions []*watchcache.Version
	for i := range 500 {
		versions = append(versions, configMapVersion(t, fmt.Sprint("n", i), storage.Revision(i+1)))
	}
	columns := kind.Columns{kind.Name, kind.CreatedAt}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(7, uint64(w)))
			for range 2000 {
				i := &Item{Definition: configMaps, Version: versions[random.IntN(len(versions))]}
				var err error
				switch random.IntN(3) {
				case 0:
					_, err = c.jsonOf(i)
				case 1:
					_, err = c.metadataOf(i)
				default:
					_, err = c.rowOf(i, columns)
				}
				if err != nil {
					t.Error(err)
				}
				c.mu.Lock()
				size := c.mu.size
				c.mu.Unlock()
				if size > c.limit || size < 0 {
					t.Errorf("%d bytes are kept, the limit is %d", size, c.limit)
				}
			}
		})
	}
	wg.Wait()
	if n := total(versions); n > c.limit || n == 0 {
		t.Errorf("%d bytes can be reached, the limit is %d", n, c.limit)
	}
}

// A form that is asked for again is the one that was made.
func TestFormIsMadeOnce(t *testing.T) {
	c := formCache{limit: 1 << 20}
	i := &Item{Definition: configMaps, Version: configMapVersion(t, "n", 1)}
	first, err := c.jsonOf(i)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.metadataOf(i); err != nil {
		t.Fatal(err)
	}
	again, err := c.jsonOf(i)
	if err != nil || &first[0] != &again[0] {
		t.Errorf("it was made twice: %v", err)
	}
}

// Forms hang on their versions, not versions on their forms: what the watch cache let go of is
// freed, however little its forms take.
func TestFormsDoNotHoldVersions(t *testing.T) {
	c := formCache{limit: 1 << 20}
	const n = 100
	gone := make([]weak.Pointer[watchcache.Version], n)
	for k := range gone {
		v := configMapVersion(t, fmt.Sprint("n", k), 1)
		gone[k] = weak.Make(v)
		if _, err := c.rowOf(&Item{Definition: configMaps, Version: v}, kind.Columns{kind.Name}); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	held := 0
	for _, p := range gone {
		if p.Value() != nil {
			held++
		}
	}
	runtime.KeepAlive(&c)
	if held > 1 { // the last one may still be on this stack
		t.Errorf("%d of %d versions are held by their forms", held, n)
	}
}

// TestListsPushOutLittle: a list of more than there is room for leaves most of what is kept, and makes the rest again.
func TestListsPushOutLittle(t *testing.T) {
	defer func(limit int) { forms = formCache{limit: limit} }(forms.limit)
	var items []Item
	for k := range 1000 {
		items = append(items, Item{Definition: configMaps, Version: configMapVersion(t, fmt.Sprint("n", k), 1)})
	}
	forms = formCache{limit: 500 * (formSize + 200)}
	list := func() map[int]*byte {
		t.Helper()
		if err := (&Encoder{Definition: configMaps}).WriteList(io.Discard, items, metav1.ListMeta{}); err != nil {
			t.Fatal(err)
		}
		kept := map[int]*byte{}
		for n := range items {
			if f := forms.load(&items[n]); f.json != nil {
				kept[n] = &f.json[0]
			}
		}
		return kept
	}
	first := list()
	stayed, newer := 0, 0
	for n, at := range list() {
		if first[n] == at {
			stayed++
		} else {
			newer++
		}
	}
	if stayed < len(first)*8/10 || newer == 0 || len(first) < 400 {
		t.Errorf("of %d, %d are kept, and %d others", len(first), stayed, newer)
	}
}

// A custom resource that is shown as it is stored shares its blob; keeping note of it is bounded all the same.
func TestNotesOfSharedFormsAreBounded(t *testing.T) {
	c := formCache{limit: 100_000}
	for k := range 5000 {
		v := versionOf(t, widgets, tree(fmt.Sprint("w", k)), 1)
		if _, err := c.jsonOf(&Item{Definition: widgets, Version: v}); err != nil {
			t.Fatal(err)
		}
	}
	if kept := len(c.mu.order) - c.mu.first; kept > 2000 {
		t.Errorf("%d notes are kept", kept)
	}
}
