package codec

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand"
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
		c.keep(&run{deflated: make([]byte, 1000), id: fingerprint{i}})
		c.get(fingerprint{0})
	}
	if c.mu.size > c.limit || len(c.mu.byID) != c.mu.used.Len() || c.get(fingerprint{0}) == nil || c.get(fingerprint{50}) != nil {
		t.Errorf("%d bytes in %d runs", c.mu.size, c.mu.used.Len())
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
