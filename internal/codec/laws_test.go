package codec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"testing"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/watchcache"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// rounds is how many random objects each kind is tried with.
const rounds = 8

// TestEnvelopeIsApimachinerys: an envelope is what runtime.Unknown encodes to, and opens to what went in.
func TestEnvelopeIsApimachinerys(t *testing.T) {
	for _, raw := range [][]byte{{}, {0}, []byte("abc"), bytes.Repeat([]byte{7}, 127), bytes.Repeat([]byte{7}, 128), bytes.Repeat([]byte{7}, 70_000)} {
		for _, name := range []string{"", "v1", "a-long-group.with.many.parts.example.com/v1alpha17"} {
			unknown := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: name, Kind: "Kind" + name}, Raw: raw}
			want, err := unknown.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			got := Envelope(name, "Kind"+name, raw)
			if !bytes.Equal(got, append(magic[:4:4], want...)) {
				t.Errorf("%d bytes of %q: another envelope than apimachinery's", len(raw), name)
			}
			apiVersion, kindName, opened, err := OpenEnvelope(got)
			if err != nil || apiVersion != name || kindName != "Kind"+name || !bytes.Equal(opened, raw) {
				t.Errorf("%d bytes of %q come back as %q %q, %d bytes, %v", len(raw), name, apiVersion, kindName, len(opened), err)
			}
		}
	}
}

func FuzzOpenEnvelope(f *testing.F) {
	f.Add(Envelope("v1", "Pod", []byte("x")))
	f.Add([]byte("k8s\x00\x0a\x00\x12\xff\xff\xff\xff\x0f"))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		apiVersion, kindName, raw, err := OpenEnvelope(b)
		if err != nil {
			return
		}
		a, k, r, err := OpenEnvelope(Envelope(apiVersion, kindName, raw))
		if err != nil || a != apiVersion || k != kindName || !bytes.Equal(r, raw) {
			t.Fatalf("%q %q %q became %q %q %q, %v", apiVersion, kindName, raw, a, k, r, err)
		}
	})
}

// TestStampIsEncodingWithTheRevision: what the cache hands out without decoding is what decoding, setting the
// resourceVersion and encoding would give, byte for byte, for every kind.
func TestStampIsEncodingWithTheRevision(t *testing.T) {
	each(t, builtIn(), rounds, func(t *testing.T, d *kind.Definition, obj object.Object) {
		before := obj.GetResourceVersion()
		value, err := EncodeStored(d, obj)
		if err != nil {
			t.Fatal(err)
		}
		if obj.GetResourceVersion() != before {
			t.Error("encoding for the store changed the object")
		}
		for _, revision := range []storage.Revision{1, 99, 1<<62 + 5} {
			v, err := stamp(d, value, revision)
			if err != nil {
				t.Fatal(err)
			}
			decoded := d.New().(message)
			_, _, raw, err := OpenEnvelope(value)
			if err == nil {
				err = decoded.Unmarshal(raw)
			}
			if err != nil {
				t.Fatal(err)
			}
			decoded.(object.Object).SetResourceVersion(fmt.Sprint(int64(revision)))
			want, err := decoded.Marshal()
			if err != nil || !bytes.Equal(v.Blob, want) {
				t.Errorf("at %d: other bytes than encoding gives, %v", revision, err)
			}
			again, err := restamp(v.Blob, revision)
			if err != nil || !bytes.Equal(again, v.Blob) {
				t.Errorf("at %d: stamping twice is not stamping once, %v", revision, err)
			}
		}
	})
}

// TestStampOfForeignBytes: writers of other languages leave out what is empty.
func TestStampOfForeignBytes(t *testing.T) {
	for name, raw := range map[string][]byte{
		"no metadata":            {},
		"empty metadata":         {0x0a, 0},
		"only a name":            {0x0a, 3, 0x0a, 1, 'n'},
		"a field behind":         {0x0a, 6, 0x0a, 1, 'n', 0x5a, 1, 0},
		"data after metadata":    {0x0a, 3, 0x0a, 1, 'n', 0x12, 4, 0x0a, 0, 0x12, 0},
		"data and no metadata":   {0x12, 4, 0x0a, 0, 0x12, 0},
		"a version is there":     {0x0a, 6, 0x0a, 1, 'n', 0x32, 1, '7'},
		"version before its tag": {0x0a, 6, 0x32, 1, '7', 0x0a, 1, 'n'},
	} {
		stamped, err := restamp(raw, 42)
		if err != nil {
			if name == "a field behind" { // labels with a broken entry: told, not guessed
				continue
			}
			t.Errorf("%s: %v", name, err)
			continue
		}
		var before, after corev1.ConfigMap
		if err := before.Unmarshal(raw); err != nil {
			continue
		}
		if err := after.Unmarshal(stamped); err != nil {
			t.Errorf("%s: does not decode: %v", name, err)
		}
		before.ResourceVersion = "42"
		if !equality.Semantic.DeepEqual(before, after) {
			t.Errorf("%s: became %v", name, after)
		}
	}
}

// TestTreeStampIsEncodingWithTheRevision is the same for custom resources.
func TestTreeStampIsEncodingWithTheRevision(t *testing.T) {
	each(t, []*kind.Definition{pods, jobs, configMaps}, 30, func(t *testing.T, d *kind.Definition, obj object.Object) {
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
		if err != nil {
			t.Fatal(err)
		}
		u := &unstructured.Unstructured{Object: content}
		value, err := EncodeStored(widgets, u)
		if err != nil {
			t.Fatal(err)
		}
		v, err := stamp(widgets, value, 77)
		if err != nil {
			t.Fatal(err)
		}
		SetKind(u, widgets.GroupVersionKind())
		u.SetResourceVersion("77")
		want, err := json.Marshal(u.Object)
		if err != nil || !bytes.Equal(v.Blob, want) {
			t.Errorf("got\n %s, want\n %s, %v", v.Blob, want, err)
		}
		if again, err := restampTree(v.Blob, 77); err != nil || !bytes.Equal(again, v.Blob) {
			t.Errorf("stamping twice is not stamping once: %v", err)
		}
	})
}

func TestTreeStampFindsItsPlace(t *testing.T) {
	for doc, want := range map[string]string{
		`{"metadata":{}}`:                                      `{"metadata":{"resourceVersion":"5"}}`,
		`{ "metadata" : { } }`:                                 `{ "metadata" : { "resourceVersion":"5"} }`,
		`{"metadata":{"name":"n"}}`:                            `{"metadata":{"name":"n","resourceVersion":"5"}}`,
		`{"metadata":{"name":"n","uid":"u"}}`:                  `{"metadata":{"name":"n","resourceVersion":"5","uid":"u"}}`,
		`{"metadata":{"uid":"u"}}`:                             `{"metadata":{"resourceVersion":"5","uid":"u"}}`,
		`{"metadata":{"resourceVersion":"","z":1}}`:            `{"metadata":{"resourceVersion":"5","z":1}}`,
		`{"metadata":{"zz":1,"resourceVersion":"4"}}`:          `{"metadata":{"zz":1,"resourceVersion":"5"}}`,
		`{"a":{"metadata":{}},"metadata":{"name":"}"}}` + "\n": `{"a":{"metadata":{}},"metadata":{"name":"}","resourceVersion":"5"}}`,
	} {
		if got, err := restampTree([]byte(doc), 5); err != nil || string(got) != want {
			t.Errorf("%s became %s, %v; want %s", doc, got, err, want)
		}
	}
	for _, doc := range []string{``, `{`, `[]`, `{}`, `{"metadata":null}`, `{"metadata":"x"}`, `{"metadata":{`, `{"metadata"}`, `{"spec":{}}`} {
		if got, err := restampTree([]byte(doc), 5); err == nil {
			t.Errorf("%s became %s", doc, got)
		}
	}
}

// fieldOf is the value of a field of the test's kinds, by its label.
func fieldOf(obj object.Object, label string) string {
	switch o := obj.(type) {
	case *corev1.Pod:
		grace := int64(0)
		if o.Spec.TerminationGracePeriodSeconds != nil {
			grace = *o.Spec.TerminationGracePeriodSeconds
		}
		either := o.Status.PodIP
		if either == "" {
			either = o.Status.HostIP
		}
		return map[string]string{
			"spec.nodeName": o.Spec.NodeName, "status.phase": string(o.Status.Phase), "spec.hostNetwork": fmt.Sprint(o.Spec.HostNetwork),
			"spec.terminationGracePeriodSeconds": fmt.Sprint(grace), "either": either,
		}[label]
	case *batchv1.Job:
		return fmt.Sprint(o.Status.Succeeded)
	}
	return "?"
}

// TestDescribeSeesWhatDecodingSees: the side record, scanned, is what the decoded object has.
func TestDescribeSeesWhatDecodingSees(t *testing.T) {
	definitions := []*kind.Definition{pods, jobs, configMaps}
	each(t, definitions, 60, func(t *testing.T, d *kind.Definition, obj object.Object) {
		value, err := EncodeStored(d, obj)
		if err != nil {
			t.Fatal(err)
		}
		c := Collection(d, "/registry")
		got := c.Describe(c.Prefix+"a/n", value, 3)
		if got.Err != nil {
			t.Fatal(got.Err)
		}
		decoded, err := DecodeStored(d, value, 3)
		if err != nil {
			t.Fatal(err)
		}
		if got.UID != decoded.GetUID() || !reflect.DeepEqual(got.Labels, watchcache.LabelsOf(decoded.GetLabels())) {
			t.Errorf("uid %q, labels %v of an object with %q, %v", got.UID, got.Labels, decoded.GetUID(), decoded.GetLabels())
		}
		for i, label := range c.Fields {
			if want := fieldOf(decoded, label); got.Fields[i] != want {
				t.Errorf("field %s is %q, want %q", label, got.Fields[i], want)
			}
		}
		if last := c.Restamp(got.Blob, 9); !bytes.Equal(last, mustStamp(t, d, value, 9)) {
			t.Error("the last state is not stamped with its revision")
		}
	})
}

func mustStamp(t *testing.T, d *kind.Definition, value []byte, revision storage.Revision) []byte {
	t.Helper()
	v, err := stamp(d, value, revision)
	if err != nil {
		t.Fatal(err)
	}
	return v.Blob
}

func TestDescribeTree(t *testing.T) {
	c := Collection(widgets, "/registry")
	value, err := EncodeStored(widgets, tree("w"))
	if err != nil {
		t.Fatal(err)
	}
	got := c.Describe("/registry/widgets/a/w", value, 3)
	want := []string{`red <&> "green"`, "3", "true"}
	if got.Err != nil || got.UID != "u-w" || !reflect.DeepEqual(got.Fields, want) || !reflect.DeepEqual(got.Labels, watchcache.LabelsOf(map[string]string{"app": "x", "tier": "w"})) {
		t.Errorf("got %q %v %q, %v", got.UID, got.Labels, got.Fields, got.Err)
	}
	for _, value := range []string{`{"metadata":{},"spec":{"color":null,"size":{},"on":[]}}`, `{"metadata":{}}`, `{"metadata":{},"spec":"x"}`} {
		if got := c.Describe("k", []byte(value), 3); got.Err != nil || !reflect.DeepEqual(got.Fields, []string{"", "", ""}) {
			t.Errorf("%s has the fields %q, %v", value, got.Fields, got.Err)
		}
	}
}

// TestStoredValueThatDoesNotDecode: a value is never shown as what it is not.
func TestStoredValueThatDoesNotDecode(t *testing.T) {
	job, err := EncodeStored(jobs, &batchv1.Job{})
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string][]byte{
		"another kind": job, "empty": {}, "noise": []byte("\x01\x02\x03"), "half an envelope": job[:7], "broken message": Envelope("v1", "Pod", []byte{0x0a, 0xff}),
	} {
		if got := Collection(pods, "/r").Describe("k", value, 1); got.Err == nil {
			t.Errorf("%s is described as %v", name, got)
		}
		if obj, err := DecodeStored(pods, value, 1); err == nil {
			t.Errorf("%s decodes to %v", name, obj)
		}
	}
}

// TestStoredFormIsToldByItsContent: values written as JSON or YAML are read too.
func TestStoredFormIsToldByItsContent(t *testing.T) {
	for _, value := range []string{
		`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"n","uid":"u"},"data":{"k":"v"}}` + "\n",
		"kind: ConfigMap\napiVersion: v1\nmetadata: {name: x, uid: u}\ndata: {k: v}\n",
	} {
		obj, err := DecodeStored(configMaps, []byte(value), 8)
		if err != nil {
			t.Errorf("%s: %v", value, err)
			continue
		}
		if m := obj.(*corev1.ConfigMap); m.Data["k"] != "v" || m.ResourceVersion != "8" || m.Kind != "ConfigMap" {
			t.Errorf("%s is %v", value, m)
		}
		d := Collection(configMaps, "/r").Describe("k", []byte(value), 8)
		var m corev1.ConfigMap
		if err := m.Unmarshal(d.Blob); d.Err != nil || err != nil || m.ResourceVersion != "8" || d.UID != "u" {
			t.Errorf("%s is described as %v", value, d)
		}
	}
}

// TestSame: a write that changes nothing is recognized, whatever is in the object.
func TestSame(t *testing.T) {
	each(t, builtIn(), 20, func(t *testing.T, d *kind.Definition, obj object.Object) {
		v := versionOf(t, d, obj, 5)
		decoded, err := DecodeVersion(d, v)
		if err != nil {
			t.Fatal(err)
		}
		written, err := Write(d, decoded)
		if err != nil {
			t.Fatal(err)
		}
		if same, err := written.Same(v); !same || err != nil {
			t.Errorf("an object is not the same as itself: %v", err)
		}
		if now, err := written.Version(9); err != nil || !bytes.Equal(now.Blob, mustStamp(t, d, written.Value, 9)) {
			t.Errorf("what was written is not what will be read: %v", err)
		}
		decoded.SetAnnotations(map[string]string{"another": "one"})
		if written, err = Write(d, decoded); err != nil {
			t.Fatal(err)
		}
		if same, _ := written.Same(v); same {
			t.Error("another object is the same")
		}
	})
}

// FuzzMembers: on JSON that encoding/json accepts, the scanner finds the same members; on anything it does no harm.
func FuzzMembers(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1}`, ` { "a" : [ {"b":"}"} ] , "c" : "\"" } `, `{"a\u0062":null,"":{}}`, `{"a":1,}`, `{"a" 1}`, `{"metadata":{"resourceVersion":"1"}}`, `{"a":tru`, "{\"\xdd\":\"\"}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		type found struct{ key, value string }
		var got []found
		err := members(doc, func(key string, keyStart, valueStart, valueEnd int) bool {
			if keyStart < 0 || valueStart <= keyStart || valueEnd <= valueStart || valueEnd > len(doc) {
				t.Fatalf("%q: member %q at %d, value from %d to %d", doc, key, keyStart, valueStart, valueEnd)
			}
			got = append(got, found{key, string(doc[valueStart:valueEnd])})
			return true
		})
		_, _ = restampTree(doc, 7)
		fieldText(doc, []string{"metadata", "name"})
		var want map[string]json.RawMessage
		if json.Unmarshal(doc, &want) != nil || want == nil {
			return
		}
		if err != nil {
			t.Fatalf("%q: %v", doc, err)
		}
		last := map[string]string{}
		for _, m := range got {
			last[m.key] = m.value
		}
		if len(last) != len(want) {
			t.Fatalf("%q has %d members, found %d", doc, len(want), len(last))
		}
		for key, value := range want {
			if last[key] != string(value) {
				t.Fatalf("%q: %q is %q, found %q", doc, key, value, last[key])
			}
		}
	})
}
