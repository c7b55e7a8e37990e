package codec

import (
	"bytes"
	"encoding/json"
	"io"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	"k8s.io/client-go/kubernetes/scheme"
	kjson "sigs.k8s.io/json"
)

// TestDecodingIsTheInverseOfEncoding, in every form, for every kind.
func TestDecodingIsTheInverseOfEncoding(t *testing.T) {
	each(t, builtIn(), rounds, func(t *testing.T, d *kind.Definition, obj object.Object) {
		obj.SetResourceVersion("5")
		version := versionOf(t, d, obj, 5)
		for _, media := range []Media{JSONMedia, YAMLMedia, ProtobufMedia, CBORMedia} {
			e := Encoder{Definition: d, Format: Format{Media: media}}
			b, err := e.Object(Item{Definition: d, Version: version})
			if err != nil {
				t.Fatalf("%s: %v", media, err)
			}
			back, warnings, err := Decode(b, media, TargetOf(d, registered), Strict)
			if err != nil || len(warnings) > 0 {
				t.Fatalf("%s: %v, %q", media, err, warnings)
			}
			if !equality.Semantic.DeepEqual(obj, back) {
				t.Errorf("%s: came back as\n%s, was\n%s", media, jsonOf(t, back), jsonOf(t, obj))
			}
		}
	})
}

var reader = cbor.NewSerializer(scheme.Scheme, scheme.Scheme)

// TestCBORIsApimachinerys: what is written is read by apimachinery's serializer, and what it writes is read.
func TestCBORIsApimachinerys(t *testing.T) {
	each(t, builtIn(), rounds, func(t *testing.T, d *kind.Definition, obj object.Object) {
		obj.SetResourceVersion("5")
		e := Encoder{Definition: d, Format: Format{Media: CBORMedia}}
		b, err := e.Object(Item{Definition: d, Version: versionOf(t, d, obj, 5)})
		if err != nil {
			t.Fatal(err)
		}
		if ok, _, _ := reader.RecognizesData(b); !ok {
			t.Fatalf("not recognized: %x", b[:8])
		}
		back, _, err := reader.Decode(b, nil, d.New())
		if err != nil {
			t.Fatal(err)
		}
		if !equality.Semantic.DeepEqual(obj, back) {
			t.Errorf("came back as\n%s, was\n%s", jsonOf(t, back), jsonOf(t, obj))
		}
		var theirs bytes.Buffer
		if err := reader.Encode(obj, &theirs); err != nil {
			t.Fatal(err)
		}
		read, _, err := Decode(theirs.Bytes(), CBORMedia, TargetOf(d, registered), Strict)
		if err != nil {
			t.Fatal(err)
		}
		if !equality.Semantic.DeepEqual(obj, read) {
			t.Errorf("theirs was read as\n%s, was\n%s", jsonOf(t, read), jsonOf(t, obj))
		}
	})
}

// TestCBORLists: every view of a list says what that in JSON says.
func TestCBORLists(t *testing.T) {
	items, _ := randomPods(t, 70)
	var trees []Item
	for _, name := range []string{"a", "b"} {
		trees = append(trees, Item{Definition: widgets, Version: versionOf(t, widgets, tree(name), 7)})
	}
	for _, one := range []struct {
		d     *kind.Definition
		items []Item
	}{{pods, items}, {pods, nil}, {pods, items[:1]}, {widgets, trees}} {
		for _, view := range []View{Whole, AsTable, AsMetadata} {
			list := func(media Media) []byte {
				e := Encoder{Definition: one.d, Format: Format{Media: media, View: view, ViewVersion: "v1"}, Now: func() time.Time { return time.Unix(1<<31, 0) }}
				var b bytes.Buffer
				if err := e.WriteList(&b, one.items, metav1.ListMeta{ResourceVersion: "9", Continue: "c"}); err != nil {
					t.Fatal(err)
				}
				return b.Bytes()
			}
			b := list(CBORMedia)
			if !bytes.HasPrefix(b, selfDescribed) {
				t.Errorf("view %d begins with %x", view, b[:3])
			}
			got, err := CBORToJSON(b)
			if err != nil {
				t.Fatalf("view %d: %v", view, err)
			}
			var a, c any
			if err := json.Unmarshal(got, &a); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(list(JSONMedia), &c); err != nil {
				t.Fatal(err)
			}
			if !equality.Semantic.DeepEqual(a, c) {
				t.Errorf("%s, view %d, %d items: not what JSON says", one.d.Kind, view, len(one.items))
			}
		}
	}
	var typed corev1.PodList
	e := Encoder{Definition: pods, Format: Format{Media: CBORMedia}}
	var b bytes.Buffer
	if err := e.WriteList(&b, items, metav1.ListMeta{ResourceVersion: "9"}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := reader.Decode(b.Bytes(), nil, &typed); err != nil || len(typed.Items) != len(items) {
		t.Errorf("%d of %d items are read, %v", len(typed.Items), len(items), err)
	}
}

// TestCBORStream: a client reads the events of a watch one by one.
func TestCBORStream(t *testing.T) {
	for _, d := range []*kind.Definition{configMaps, widgets} {
		var obj object.Object = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "u"}, BinaryData: map[string][]byte{"b": {0, 255}}}
		if IsTree(d) {
			obj = tree("n")
		}
		e := Encoder{Definition: d, Format: Format{Media: CBORMedia}}
		var stream bytes.Buffer
		put := add(t, &stream)
		put(e.Event("ADDED", Item{Definition: d, Version: versionOf(t, d, obj, 3)}))
		put(e.Bookmark("8", true))
		put(e.Status(&metav1.Status{Message: "gone"}))
		frames := cbor.NewFramer().NewFrameReader(io.NopCloser(&stream))
		frame := make([]byte, 64<<10)
		for _, want := range []struct{ event, name string }{{"ADDED", "n"}, {"BOOKMARK", ""}, {"ERROR", ""}} {
			n, err := frames.Read(frame)
			if err != nil {
				t.Fatal(err)
			}
			var event metav1.WatchEvent
			if err := direct.Unmarshal(frame[:n], &event); err != nil {
				t.Fatal(err)
			}
			into := runtime.Object(&unstructured.Unstructured{})
			if _, _, err := reader.Decode(event.Object.Raw, nil, into); err != nil {
				t.Fatal(err)
			}
			if got := into.(*unstructured.Unstructured); event.Type != want.event || got.GetName() != want.name {
				t.Errorf("event %s of %v", event.Type, got)
			}
		}
		if n, err := frames.Read(frame); err != io.EOF {
			t.Errorf("%d bytes more, %v", n, err)
		}
	}
}

func TestHeads(t *testing.T) {
	for _, n := range []int{0, 1, 23, 24, 255, 256, 65535, 65536} {
		b := appendHead(nil, cborArray, n)
		for range n {
			b = append(b, 0xf6)
		}
		var items []any
		if err := direct.Unmarshal(b, &items); err != nil || len(items) != n {
			t.Errorf("an array of %d is read as one of %d, %v", n, len(items), err)
		}
	}
}

// Whatever a client sends, it becomes JSON or an error; and what was JSON becomes it again, with its numbers as they are read: -0 is 0.
func FuzzCBORToJSON(f *testing.F) {
	for _, seed := range []string{`{}`, `{"kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":"v"},"n":[1,-2,1.5,null,true]}`} {
		b, err := cborForm([]byte(seed))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0xa1, 0x61, 0x61, 0xc1, 0x1a, 0, 0, 0, 0}) // a time
	f.Add([]byte{0xbf, 0xff})
	f.Add([]byte{0xa1, 0x61, 0x61, 0xf9, 0x80, 0})    // -0.0
	f.Add([]byte{0xa2, 0x41, 0x61, 1, 0x41, 0x61, 2}) // a key twice
	f.Fuzz(func(t *testing.T, body []byte) {
		text, err := CBORToJSON(body)
		if err != nil {
			return
		}
		if !json.Valid(text) {
			t.Fatalf("%x became %q", body, text)
		}
		again, err := cborForm(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		var read any
		if err := kjson.UnmarshalCaseSensitivePreserveInts(text, &read); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		want, err := json.Marshal(read)
		if err != nil {
			t.Fatal(err)
		}
		back, err := CBORToJSON(again)
		if err != nil || !bytes.Equal(back, want) {
			t.Fatalf("%q became %q, %v", want, back, err)
		}
		_, _, _ = Decode(body, CBORMedia, TargetOf(configMaps, registered), Strict)
	})
}
