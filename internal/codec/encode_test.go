package codec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apijson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/client-go/kubernetes/scheme"
	restwatch "k8s.io/client-go/rest/watch"
)

// reference is apimachinery's serializer of a format.
func reference(f Format) runtime.Serializer {
	if f.Media == ProtobufMedia {
		return protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
	}
	return apijson.NewSerializerWithOptions(apijson.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, apijson.SerializerOptions{Yaml: f.Media == YAMLMedia, Pretty: f.Pretty})
}

var wholes = []Format{{}, {Pretty: true}, {Media: YAMLMedia}, {Media: ProtobufMedia}}

// randomPods are pods with their stored versions.
func randomPods(t *testing.T, n int) (items []Item, typed []corev1.Pod) {
	t.Helper()
	typed = []corev1.Pod{}
	for i := range n {
		p := &corev1.Pod{}
		filler(int64(i)).Fill(p)
		v := versionOf(t, pods, p, storage.Revision(100+i))
		obj, err := DecodeVersion(pods, v)
		if err != nil {
			t.Fatal(err)
		}
		items = append(items, Item{Definition: pods, Version: v})
		typed = append(typed, *obj.(*corev1.Pod))
		typed[i].TypeMeta = metav1.TypeMeta{}
	}
	return items, typed
}

// TestListIsApimachinerys: a list put together from kept forms is the list that apimachinery would encode.
func TestListIsApimachinerys(t *testing.T) {
	remaining := int64(7)
	for _, n := range []int{0, 1, 25} {
		items, typed := randomPods(t, n)
		meta := metav1.ListMeta{ResourceVersion: "500", Continue: "a<b", RemainingItemCount: &remaining}
		list := &corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, ListMeta: meta, Items: typed}
		for _, f := range wholes {
			var want, got bytes.Buffer
			if err := reference(f).Encode(list, &want); err != nil {
				t.Fatal(err)
			}
			for range 2 { // made, and kept
				got.Reset()
				if err := (&Encoder{Definition: pods, Format: f}).WriteList(&got, items, meta); err != nil {
					t.Fatal(err)
				}
				same(t, fmt.Sprintf("%d pods as %+v", n, f), got.Bytes(), want.Bytes())
			}
		}
	}
}

// same compares bytes up to trailing newlines, of which indented answers have none.
func same(t *testing.T, what string, got, want []byte) {
	t.Helper()
	got, want = bytes.TrimRight(got, "\n"), bytes.TrimRight(want, "\n")
	if bytes.Equal(got, want) {
		return
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	from := max(0, at-40)
	t.Errorf("%s differs at %d: ...%q, want ...%q", what, at, got[from:min(len(got), at+60)], want[from:min(len(want), at+60)])
}

func TestObjectIsApimachinerys(t *testing.T) {
	items, typed := randomPods(t, 20)
	for i := range items {
		typed[i].TypeMeta = metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}
		for _, f := range wholes {
			var want bytes.Buffer
			if err := reference(f).Encode(&typed[i], &want); err != nil {
				t.Fatal(err)
			}
			for name, item := range map[string]Item{
				"a version": items[i], "an object": {Definition: pods, Object: &typed[i]}, "what was written": {Definition: pods, Object: &typed[i], Version: items[i].Version},
			} {
				got, err := (&Encoder{Definition: pods, Format: f}).Object(item)
				if err != nil {
					t.Fatal(err)
				}
				same(t, fmt.Sprintf("pod %d, %s, as %+v", i, name, f), got, want.Bytes())
			}
		}
	}
}

func TestTreesAreShownAsTheyAre(t *testing.T) {
	var items []Item
	list := &unstructured.UnstructuredList{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "WidgetList", "metadata": map[string]any{"continue": "", "resourceVersion": "9"}}}
	for i := range 3 {
		w := tree(fmt.Sprint("w", i))
		items = append(items, Item{Definition: widgets, Version: versionOf(t, widgets, w, storage.Revision(5+i))})
		w.SetResourceVersion(fmt.Sprint(5 + i))
		list.Items = append(list.Items, *w)
	}
	for _, f := range []Format{{}, {Pretty: true}, {Media: YAMLMedia}} {
		var want, got bytes.Buffer
		if err := reference(f).Encode(list, &want); err != nil {
			t.Fatal(err)
		}
		if err := (&Encoder{Definition: widgets, Format: f}).WriteList(&got, items, metav1.ListMeta{ResourceVersion: "9"}); err != nil {
			t.Fatal(err)
		}
		same(t, fmt.Sprintf("%+v", f), got.Bytes(), want.Bytes())
	}
	if _, err := (&Encoder{Definition: widgets, Format: Format{Media: ProtobufMedia}}).Object(Item{Definition: widgets, Object: tree("w")}); err == nil {
		t.Error("a tree has a protobuf form")
	}
}

// TestMetadataView: PartialObjectMetadata decodes to the object's metadata, in every media type.
func TestMetadataView(t *testing.T) {
	for _, media := range []Media{JSONMedia, YAMLMedia, ProtobufMedia} {
		for _, version := range []string{"v1", "v1beta1"} {
			items, typed := randomPods(t, 5)
			f := Format{Media: media, View: AsMetadata, ViewVersion: version}
			var b bytes.Buffer
			if err := (&Encoder{Definition: pods, Format: f}).WriteList(&b, items, metav1.ListMeta{ResourceVersion: "3"}); err != nil {
				t.Fatal(err)
			}
			list := &metav1.PartialObjectMetadataList{}
			decode(t, f, b.Bytes(), list, "meta.k8s.io/"+version, "PartialObjectMetadataList")
			if len(list.Items) != 5 || list.ResourceVersion != "3" {
				t.Fatalf("%+v: %d items at %q", f, len(list.Items), list.ResourceVersion)
			}
			for i := range typed {
				one := &metav1.PartialObjectMetadata{}
				b, err := (&Encoder{Definition: pods, Format: f}).Object(items[i])
				if err != nil {
					t.Fatal(err)
				}
				decode(t, f, b, one, "meta.k8s.io/"+version, "PartialObjectMetadata")
				want := jsonOf(t, typed[i].ObjectMeta)
				if got := jsonOf(t, one.ObjectMeta); got != want {
					t.Errorf("%+v: pod %d is\n %s, want\n %s", f, i, got, want)
				}
				if got := jsonOf(t, list.Items[i].ObjectMeta); got != want {
					t.Errorf("%+v: pod %d of the list is\n %s, want\n %s", f, i, got, want)
				}
			}
		}
	}
}

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// decode reads an answer and checks the type that it says it has.
func decode(t *testing.T, f Format, b []byte, into runtime.Object, apiVersion, kindName string) {
	t.Helper()
	if f.Media == ProtobufMedia {
		gotVersion, gotKind, raw, err := OpenEnvelope(b)
		if err == nil {
			err = into.(message).Unmarshal(raw)
		}
		if err != nil || gotVersion != apiVersion || gotKind != kindName {
			t.Fatalf("got a %s of %s, %v", gotKind, gotVersion, err)
		}
		return
	}
	gvk := schema.FromAPIVersionAndKind(apiVersion, kindName)
	_, got, err := reference(f).Decode(b, nil, into)
	if err != nil || *got != gvk {
		t.Fatalf("got %v, %v, want %v: %s", got, err, gvk, b)
	}
}

func TestTables(t *testing.T) {
	born := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "a", CreationTimestamp: metav1.NewTime(born)}, Spec: corev1.PodSpec{Containers: make([]corev1.Container, 2)}}
	p.Status.Phase = corev1.PodRunning
	item := Item{Definition: pods, Version: versionOf(t, pods, p, 12)}
	read := func(e *Encoder) *metav1.Table {
		t.Helper()
		b, err := e.Object(item)
		if err != nil {
			t.Fatal(err)
		}
		table := &metav1.Table{}
		if err := json.Unmarshal(b, table); err != nil || table.Kind != "Table" || table.APIVersion != "meta.k8s.io/v1" {
			t.Fatalf("%v: %s", err, b)
		}
		return table
	}
	for include, check := range map[string]func(raw []byte) bool{
		"None":   func(raw []byte) bool { return len(raw) == 0 || string(raw) == "null" },
		"Object": func(raw []byte) bool { return bytes.HasPrefix(raw, []byte(`{"kind":"Pod","apiVersion":"v1",`)) },
		"": func(raw []byte) bool {
			return bytes.HasPrefix(raw, []byte(`{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1",`)) && bytes.Contains(raw, []byte(`"resourceVersion":"12"`))
		},
	} {
		e := &Encoder{Definition: pods, Format: Format{View: AsTable, ViewVersion: "v1", IncludeObject: include}, Now: func() time.Time { return born.Add(90 * time.Minute) }}
		table := read(e)
		if got, want := fmt.Sprint(table.Rows[0].Cells...), fmt.Sprint("web", "Running", "2", "90m"); got != want {
			t.Errorf("the row is %s, want %s", got, want)
		}
		if len(table.ColumnDefinitions) != 4 || table.ColumnDefinitions[0].Name != "Name" || table.ColumnDefinitions[2].Type != "integer" {
			t.Errorf("the columns are %+v", table.ColumnDefinitions)
		}
		if raw := table.Rows[0].Object.Raw; !check(raw) {
			t.Errorf("with %q the row carries %s", include, raw)
		}
		// ages go on although cells are kept
		e.Now = func() time.Time { return born.Add(5 * time.Hour) }
		if got := read(e).Rows[0].Cells[3]; got != "5h" {
			t.Errorf("the age is %v", got)
		}
	}
}

// TestWatchFramesDecode: client-go reads what we send, and a stream of tables declares its columns once.
func TestWatchFramesDecode(t *testing.T) {
	items, typed := randomPods(t, 10)
	for _, media := range []Media{JSONMedia, ProtobufMedia} {
		f := Format{Media: media}
		e := &Encoder{Definition: pods, Format: f}
		var stream bytes.Buffer
		for i := range items {
			add(t, &stream)(e.Event("ADDED", items[i]))
		}
		add(t, &stream)(e.Bookmark("77", true))
		add(t, &stream)(e.Status(&metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonExpired, Code: 410}))

		var frames io.ReadCloser
		if media == ProtobufMedia {
			frames = protobuf.LengthDelimitedFramer.NewFrameReader(io.NopCloser(&stream))
		} else {
			frames = apijson.Framer.NewFrameReader(io.NopCloser(&stream))
		}
		s := reference(f)
		codec := scheme.Codecs.WithoutConversion().DecoderToVersion(s, nil)
		events := s.(runtime.Decoder)
		if media == ProtobufMedia {
			events = protobuf.NewRawSerializer(scheme.Scheme, scheme.Scheme)
		}
		d := restwatch.NewDecoder(streaming.NewDecoder(frames, events), codec)
		for i := range typed {
			typed[i].TypeMeta = metav1.TypeMeta{}
			event, obj, err := d.Decode()
			if err != nil || event != "ADDED" {
				t.Fatalf("%v: event %d is %s, %v", media, i, event, err)
			}
			p := obj.(*corev1.Pod)
			p.TypeMeta = metav1.TypeMeta{}
			if !equality.Semantic.DeepEqual(p, &typed[i]) {
				t.Errorf("%v: pod %d came as %v", media, i, p)
			}
		}
		event, obj, err := d.Decode()
		if p, ok := obj.(*corev1.Pod); err != nil || event != "BOOKMARK" || !ok || p.ResourceVersion != "77" || p.Annotations[metav1.InitialEventsAnnotationKey] != "true" {
			t.Errorf("%v: the bookmark is %s %v, %v", media, event, obj, err)
		}
		event, obj, err = d.Decode()
		if s, ok := obj.(*metav1.Status); err != nil || event != "ERROR" || !ok || s.Code != 410 {
			t.Errorf("%v: the error is %s %v, %v", media, event, obj, err)
		}
		if _, _, err = d.Decode(); err != io.EOF { //nolint:errorlint // the end of a stream is told as it is
			t.Errorf("%v: the stream ends with %v", media, err)
		}
	}
}

func add(t *testing.T, stream *bytes.Buffer) func([]byte, error) {
	return func(b []byte, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		stream.Write(b)
	}
}

func TestWatchOfTablesDeclaresColumnsOnce(t *testing.T) {
	items, _ := randomPods(t, 3)
	e := &Encoder{Definition: pods, Format: Format{View: AsTable, ViewVersion: "v1"}}
	for i := range items {
		b, err := e.Event("ADDED", items[i])
		if err != nil {
			t.Fatal(err)
		}
		var event struct {
			Type   string
			Object metav1.Table
		}
		if err := json.Unmarshal(b, &event); err != nil || event.Type != "ADDED" || len(event.Object.Rows) != 1 {
			t.Fatalf("%v: %s", err, b)
		}
		if declared := len(event.Object.ColumnDefinitions) > 0; declared != (i == 0) {
			t.Errorf("event %d declares columns: %t", i, declared)
		}
	}
}

// A version that is not the hub is converted for every form.
func TestConvertedVersion(t *testing.T) {
	old := completed(&kind.Definition{Group: "old.example.com", Version: "v1beta1", Kind: "Old", Plural: "olds", New: kind.Of[corev1.Secret](), Convert: &kind.Conversion{
		Hub: configMaps,
		FromHub: func(o object.Object) (object.Object, error) {
			m := o.(*corev1.ConfigMap)
			return &corev1.Secret{ObjectMeta: *m.ObjectMeta.DeepCopy(), StringData: m.Data}, nil
		},
		ToHub: func(o object.Object) (object.Object, error) {
			s := o.(*corev1.Secret)
			return &corev1.ConfigMap{ObjectMeta: *s.ObjectMeta.DeepCopy(), Data: s.StringData}, nil
		},
	}})
	item := Item{Definition: old, Version: configMapVersion(t, "n", 4)}
	b, err := (&Encoder{Definition: old}).Object(item)
	want := `{"kind":"Old","apiVersion":"old.example.com/v1beta1","metadata":{"name":"n","namespace":"a","resourceVersion":"4"},"stringData":{"k":"some text"}}` + "\n"
	if err != nil || string(b) != want {
		t.Errorf("got %s, %v, want %s", b, err, want)
	}
	b, err = (&Encoder{Definition: old, Format: Format{Media: ProtobufMedia}}).Object(item)
	if err != nil {
		t.Fatal(err)
	}
	got := &corev1.Secret{}
	decode(t, Format{Media: ProtobufMedia}, b, got, "old.example.com/v1beta1", "Old")
	if !reflect.DeepEqual(got.StringData, map[string]string{"k": "some text"}) {
		t.Errorf("got %v", got)
	}
}

// One name of a list may bear a mark in its Table; an object by itself, or with others whose mark it is not, does not.
func TestMarkedTable(t *testing.T) {
	classes := &kind.Definition{
		Version: "v1", Kind: "ConfigMap", Plural: "configmaps", Scope: kind.Namespaced, New: kind.Of[corev1.ConfigMap](),
		Marked: func(all []object.Object) (object.Object, string) { return object.Newest(all, "best"), " (best)" },
	}
	class := func(name, best string, made int64) Item {
		return Item{Definition: classes, Object: &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			Name: name, Annotations: map[string]string{"best": best}, CreationTimestamp: metav1.Unix(made, 0),
		}}}
	}
	e := &Encoder{Definition: classes, Format: Format{View: AsTable, ViewVersion: "v1", IncludeObject: "None"}}
	check := func(want string, items ...Item) {
		t.Helper()
		var b strings.Builder
		if err := e.WriteList(&b, items, metav1.ListMeta{}); err != nil {
			t.Fatal(err)
		}
		var table metav1.Table
		if err := json.Unmarshal([]byte(b.String()), &table); err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, r := range table.Rows {
			names = append(names, r.Cells[0].(string))
		}
		if got := strings.Join(names, ", "); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	check("a, c (best), d, b", class("a", "true", 1), class("c", "true", 2), class("d", "true", 2), class("b", "", 3))
	check("a, b", class("a", "false", 1), class("b", "", 2))
	check("")
	for _, f := range []Format{{Media: YAMLMedia}, {Pretty: true}} {
		f.View, f.ViewVersion, f.IncludeObject = AsTable, "v1", "None"
		var b strings.Builder
		if err := (&Encoder{Definition: classes, Format: f}).WriteList(&b, []Item{class("a", "true", 1)}, metav1.ListMeta{}); err != nil || !strings.Contains(b.String(), "a (best)") {
			t.Errorf("%+v: %s, %v", f, &b, err)
		}
	}
	one, err := e.Object(class("a", "true", 1))
	if err != nil || strings.Contains(string(one), "(best)") {
		t.Errorf("%s, %v", one, err)
	}
}
