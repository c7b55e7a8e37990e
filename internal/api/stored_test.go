package api

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/util/diff"
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

// TestOlderVersions: what a store still holds in a version with other fields reads as the conversion of it, in both encodings,
// and is known to be outdated.
func TestOlderVersions(t *testing.T) {
	tried := map[string]bool{}
	each(t, func(t *testing.T, d *kind.Definition, fill func() object.Object) {
		if d.Convert == nil || d.Convert.SameMessage || d.Convert.Hub.Group != d.Group {
			return
		}
		hub := d.Hub()
		tried[d.APIVersion()+" "+d.Kind] = true
		obj := fill()
		if d.Default != nil {
			d.Default(obj)
		}
		want, err := codec.ToHub(d, object.Copy(obj))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := obj.(interface{ Marshal() ([]byte, error) }).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		codec.SetKind(obj, d.GroupVersionKind())
		text, err := json.Marshal(obj)
		if err != nil {
			t.Fatal(err)
		}
		if hub.Default != nil {
			hub.Default(want)
		}
		want.SetResourceVersion("9")
		for form, value := range map[string][]byte{"protobuf": codec.Envelope(d.APIVersion(), d.Kind, raw), "JSON": text} {
			got, err := codec.DecodeStored(hub, value, 9)
			if err != nil {
				t.Fatal(err)
			}
			if !equality.Semantic.DeepEqual(got, want) {
				t.Errorf("%s %s: got %s", form, d.APIVersion(), diff.Diff(want, got))
			}
		}
	})
	if !tried["autoscaling/v1 HorizontalPodAutoscaler"] || !tried["resource.k8s.io/v1beta1 ResourceClaim"] {
		t.Errorf("only %v were tried", tried)
	}
}
