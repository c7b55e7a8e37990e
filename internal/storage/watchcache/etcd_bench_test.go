package watchcache

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/etcd"
)

// BenchmarkReadAfterWrite is a write by one of many clients of an embedded etcd and a consistent
// read of it. It reports how long the read had to wait for the watch.
func BenchmarkReadAfterWrite(b *testing.B) {
	for _, clients := range []int{1, 100, 400} {
		b.Run(fmt.Sprint("clients=", clients), func(b *testing.B) {
			store, err := etcd.Embedded(b.Context(), etcd.EmbeddedConfig{Dir: b.TempDir(), NoFsync: true})
			if err != nil {
				b.Fatal(err)
			}
			defer store.Close()
			c := New(store, prefix, Options{})
			c.Serve(widgets(pods))
			ctx, cancel := context.WithCancel(b.Context())
			var background, writers sync.WaitGroup
			background.Go(func() { c.Run(ctx) })
			<-c.Ready()
			waits := make([][]time.Duration, clients)
			b.ResetTimer()
			for i := range clients {
				writers.Go(func() {
					op := put(fmt.Sprintf("%sns/p%d", pods, i), object{Fields: []string{"n", "p"}, Data: fmt.Sprintf("%4000d", i)})
					for range (b.N + clients - 1) / clients {
						if _, err := store.Commit(ctx, storage.Txn{Then: []storage.Op{op}}); err != nil {
							b.Error(err)
							return
						}
						start := time.Now()
						if _, err := c.Fresh(ctx); err != nil {
							b.Error(err)
							return
						}
						waits[i] = append(waits[i], time.Since(start))
					}
				})
			}
			writers.Wait()
			b.StopTimer()
			all := slices.Concat(waits...)
			slices.Sort(all)
			b.ReportMetric(float64(all[len(all)/2].Microseconds()), "µs-p50")
			b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "µs-p99")
			b.ReportMetric(float64(all[len(all)-1].Microseconds()), "µs-max")
			cancel()
			background.Wait()
		})
	}
}
