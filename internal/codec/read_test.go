package codec

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/timonel/timonel/internal/kind"
)

// checkRead wants a body to be read as if no short cut was taken: the same object, or the same error.
func checkRead(t *testing.T, d *kind.Definition, body string) {
	t.Helper()
	target := TargetOf(d, nil)
	obj, got, strict, err := read([]byte(body), target, Warn)
	wantObj := target.New()
	var wantStrict []error
	want, wantErr := typeOf([]byte(body), target)
	if wantErr == nil {
		if wantStrict, wantErr = unmarshal([]byte(body), wantObj, Warn); wantErr != nil {
			wantErr = cannotBeHandled(want, d.Kind, wantErr)
		}
	}
	if fmt.Sprint(err) != fmt.Sprint(wantErr) || fmt.Sprint(strict) != fmt.Sprint(wantStrict) {
		t.Errorf("%s: %v %v, want %v %v", body, err, strict, wantErr, wantStrict)
	} else if err == nil && (got != want || !reflect.DeepEqual(obj, wantObj)) {
		t.Errorf("%s: %v %v, want %v %v", body, got, obj, want, wantObj)
	}
}

var bodies = []string{
	`{}`, `null`, `[]`, `{"metadata":{"name":"a"}}`, `{"kind":"Pod","metadata":{"name":"a"}}`, `{"apiVersion":"v1","metadata":{"name":"a"}}`,
	`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"a":"b"}},"spec":{}}`,
	`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","name":"b"},"specs":{}}`,
	`{"apiVersion":"v1","kind":"Pod","metadata":{"name":1}}`,
	`{"apiVersion":"a/b/c","kind":"Pod"}`, `{"apiVersion":"/v1","kind":"Pod"}`, `{"apiVersion":"v2","kind":"Pod"}`, `{"apiVersion":"v1","kind":"Pods"}`,
	`{"APIVERSION":"v2","Kind":"Pods","apiVersion":"v1","kind":"Pod"}`, `{"apiVersion":1,"kind":"Pod"}`, `{"apiVersion":"v1","kind":null}`,
	`{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a"},"spec":{"size":3}}`,
	`{"apiVersion":"example.com/v1","kind":"Widget","spec":{"size":3,"size":4}}`,
	`{"apiVersion":"example.com/v1","kind":"Widget","Kind":"Gadget"}`, `{"apiVersion":"example.com/v1","kind":"Gadget","KIND":"Widget","metadata":{"name":"a"}}`,
	`{"apiVersion":"example.com/v2","kind":"Widget"}`, `{"apiVersion":"example.com/v1","kind":{}}`, `{"apiVersion":["x"],"kind":"Widget"}`, `{"apiVersion":"example.com/v1"`,
}

func TestReadTakesShortCutsUnnoticed(t *testing.T) {
	for _, body := range bodies {
		checkRead(t, pods, body)
		checkRead(t, widgets, body)
	}
}

func FuzzReadTakesShortCutsUnnoticed(f *testing.F) {
	for _, body := range bodies {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		checkRead(t, pods, body)
		checkRead(t, widgets, body)
	})
}
