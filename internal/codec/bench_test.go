package codec

import (
	"fmt"
	"io"
	"slices"
	"syscall"
	"testing"

	"github.com/timonel/timonel/internal/api/core"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/storage"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// BenchmarkList writes lists of pods in all forms, as they are when nothing was derived from their versions yet ("first") and later.
func BenchmarkList(b *testing.B) {
	const n = 1000
	all := core.Definitions(core.Options{})
	d := completed(all[slices.IndexFunc(all, func(d *kind.Definition) bool { return d.Kind == "Pod" })])
	items := make([]Item, n)
	for i := range items {
		p := benchmarkPod()
		p.Name = fmt.Sprint("web-", i)
		d.Default(p)
		v := versionOf(b, d, p, storage.Revision(i+1))
		v.Defaulted.Store(true)
		items[i] = Item{Definition: d, Version: v}
	}
	forget := func() {
		for i := range items {
			items[i].Version.Derived.Store(nil)
		}
		forms, runs = formCache{limit: maxForms}, runCache{limit: maxRuns}
	}
	for _, form := range []struct {
		name   string
		format Format
		gzip   bool
	}{
		{name: "json"},
		{name: "protobuf", format: Format{Media: ProtobufMedia}},
		{name: "metadata", format: Format{View: AsMetadata, ViewVersion: "v1"}},
		{name: "table", format: Format{View: AsTable, ViewVersion: "v1"}},
		{name: "gzip", gzip: true},
	} {
		list := func(b *testing.B) {
			e := Encoder{Definition: d, Format: form.format}
			write := e.WriteList
			if form.gzip {
				write = e.WriteGzipList
			}
			if err := write(io.Discard, items, metav1.ListMeta{}); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(form.name+"/first", func(b *testing.B) {
			b.ReportAllocs()
			var cpu int64
			for b.Loop() {
				b.StopTimer()
				forget()
				b.StartTimer()
				start := cpuNow()
				list(b)
				cpu += cpuNow() - start
			}
			b.ReportMetric(float64(cpu)/float64(b.N)/n, "cpu-ns/item")
		})
		b.Run(form.name+"/later", func(b *testing.B) {
			b.ReportAllocs()
			forget()
			list(b)
			start := cpuNow()
			for b.Loop() {
				list(b)
			}
			b.ReportMetric(float64(cpuNow()-start)/float64(b.N)/n, "cpu-ns/item")
		})
	}
}

func cpuNow() int64 {
	var r syscall.Rusage
	_ = syscall.Getrusage(0, &r)
	return r.Utime.Nano() + r.Stime.Nano()
}
