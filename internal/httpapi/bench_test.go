package httpapi

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// discard is a ResponseWriter that keeps nothing.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }

// BenchmarkGet is the ten steps of a read, without the wire.
func BenchmarkGet(b *testing.B) {
	f := open(b, nil)
	f.create("a")
	for name, accept := range map[string]string{"json": "application/json", "protobuf": "application/vnd.kubernetes.protobuf,application/json"} {
		for kind, query := range map[string]string{"consistent": "", "cached": "?resourceVersion=0"} {
			b.Run(name+"/"+kind, func(b *testing.B) {
				b.ReportAllocs()
				w := &discard{header: http.Header{}}
				for b.Loop() {
					r := httptest.NewRequest("GET", collection+"/a"+query, nil)
					r.Header.Set("Authorization", "Bearer user")
					r.Header.Set("Accept", accept)
					clear(w.header)
					f.handler.ServeHTTP(w, r)
				}
			})
		}
	}
}
