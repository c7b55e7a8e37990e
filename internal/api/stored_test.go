package api

import (
	"bytes"
	"testing"

	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
)

// TestStoredBytes: what is stored for a built-in kind is what apimachinery's serializer of that encoding makes of it, which is what
// kube-apiserver stores with.
func TestStoredBytes(t *testing.T) {
	serializer := protobuf.NewSerializer(nil, nil)
	kinds := map[string]bool{}
	each(t, func(t *testing.T, d *kind.Definition, fill func() object.Object) {
		if d.Convert != nil || !d.Persistent() || d.Stored.Encoding != kind.Protobuf {
			return
		}
		kinds[d.Stored.Prefix] = true
		obj := fill()
		obj.SetResourceVersion("")
		obj.SetSelfLink("") // gone since 1.24, and never stored
		codec.SetKind(obj, schema.GroupVersionKind{Group: d.Group, Version: d.Stored.Version, Kind: d.Kind})
		var want bytes.Buffer
		if err := serializer.Encode(obj, &want); err != nil {
			t.Fatal(err)
		}
		obj.SetResourceVersion("7") // is not stored
		got, err := codec.EncodeStored(d, obj)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want.Bytes()) {
			t.Errorf("stored as %q, want %q", got, want.Bytes())
		}
	})
	if len(kinds) < 55 {
		t.Errorf("only %d kinds were tried", len(kinds))
	}
}
