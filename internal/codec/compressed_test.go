package codec

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand"
	"sync"
	"testing"

	"github.com/timonel/timonel/internal/storage"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestStitchedListInflatesToTheList, whatever was kept from lists before.
func TestStitchedListInflatesToTheList(t *testing.T) {
	var items []Item
	for i := range 300 {
		p := benchmarkPod()
		p.Name = fmt.Sprintf("web-%d", i)
		items = append(items, Item{Definition: pods, Version: versionOf(t, pods, p, storage.Revision(i+1))})
	}
	random := rand.New(rand.NewSource(1))
	for n := range 30 {
		some := items[:min(n, 2)]
		if n > 2 { // an informer's list, in which something changes now and then
			at := random.Intn(len(items))
			p := benchmarkPod()
			p.Name = fmt.Sprintf("other-%d", n)
			items[at] = Item{Definition: pods, Version: versionOf(t, pods, p, storage.Revision(1000+n))}
			some = items[random.Intn(3):]
		}
		e := Encoder{Definition: pods}
		meta := metav1.ListMeta{ResourceVersion: fmt.Sprint(n)}
		var plain, stitched bytes.Buffer
		if err := e.WriteList(&plain, some, meta); err != nil {
			t.Fatal(err)
		}
		if err := e.WriteGzipList(&stitched, some, meta); err != nil {
			t.Fatal(err)
		}
		size := stitched.Len()
		unzipped, err := gzip.NewReader(&stitched)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(unzipped) // checks the sum
		if err != nil || !bytes.Equal(got, plain.Bytes()) {
			t.Fatalf("list %d of %d items: %d bytes, want %d, %v", n, len(some), len(got), plain.Len(), err)
		}
		if len(some) > 100 && size > plain.Len()/8 {
			t.Errorf("%d bytes were compressed to %d", plain.Len(), size)
		}
	}
	kept := runs.mu.used.Len()
	var out bytes.Buffer
	for range 2 {
		if err := (&Encoder{Definition: pods}).WriteGzipList(&out, items, metav1.ListMeta{}); err != nil {
			t.Fatal(err)
		}
		if kept, runs := runs.mu.used.Len(), kept; kept > runs+2 {
			t.Errorf("a list as before made %d runs", kept-runs)
		}
	}
}

// TestRunsAreBounded: what was not asked for lately goes.
func TestRunsAreBounded(t *testing.T) {
	c := runCache{limit: 10_000}
	for i := range uint64(100) {
		r := c.get(fingerprint{i}, pods)
		r.deflated = make([]byte, 1000)
		c.made(r)
		c.get(fingerprint{0}, pods)
	}
	if c.mu.size > c.limit || len(c.mu.byID) != c.mu.used.Len() || c.mu.byID[fingerprint{0}] == nil || c.mu.byID[fingerprint{50}] != nil {
		t.Errorf("%d bytes in %d runs", c.mu.size, c.mu.used.Len())
	}
	late := c.get(fingerprint{1000}, pods)
	for i := range uint64(20) {
		c.made(c.get(fingerprint{2000 + i}, pods))
		c.get(fingerprint{0}, pods).deflated = make([]byte, 9000)
		c.made(c.get(fingerprint{0}, pods))
	}
	late.deflated = make([]byte, 1000)
	before := c.mu.size
	if c.made(late); c.mu.size != before {
		t.Error("a run counts that was pushed out before it was made")
	}
	failed := c.get(fingerprint{3000}, pods)
	failed.err = io.EOF
	if c.made(failed); c.mu.byID[fingerprint{3000}] != nil {
		t.Error("a run is kept that could not be made")
	}
}

// TestRunIsCompressedOnce, however many ask for it at once.
func TestRunIsCompressedOnce(t *testing.T) {
	items := []Item{{Definition: pods, Version: versionOf(t, pods, benchmarkPod(), 1)}}
	var wg sync.WaitGroup
	made := make([]*run, 8)
	for n := range made {
		wg.Go(func() {
			if err := (&Encoder{Definition: pods}).WriteGzipList(io.Discard, items, metav1.ListMeta{}); err != nil {
				t.Error(err)
			}
			made[n] = runs.get(runID(items, true), pods)
		})
	}
	wg.Wait()
	for _, r := range made {
		if r != made[0] || r.size == 0 {
			t.Error("a run was made more than once")
		}
	}
}

// TestRunsTellWhatTheyShow: the same objects in another list kind's form are another run.
func TestRunsTellWhatTheyShow(t *testing.T) {
	item := Item{Definition: pods, Version: versionOf(t, pods, &corev1.Pod{}, 5)}
	other := item
	other.Definition = configMaps
	if runID([]Item{item}, true) == runID([]Item{item}, false) || runID([]Item{item}, true) == runID([]Item{other}, true) {
		t.Error("two runs have one print")
	}
}

func FuzzJoinSums(f *testing.F) {
	f.Add([]byte("a"), []byte("bc"))
	f.Add([]byte{}, []byte{})
	f.Add([]byte{0, 0}, bytes.Repeat([]byte{0xff}, 1000))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		got := joinSums(crc32.ChecksumIEEE(a), crc32.ChecksumIEEE(b), int64(len(b)))
		if want := crc32.ChecksumIEEE(append(append([]byte{}, a...), b...)); got != want {
			t.Errorf("%x, want %x", got, want)
		}
	})
}
