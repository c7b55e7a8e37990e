package codec

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/watchcache"
)

// partAndWhole returns what is decoded of a stored object, by its part and as a whole.
func partAndWhole(t *testing.T, part *Part, d *kind.Definition, obj object.Object) (got, whole object.Object) {
	t.Helper()
	v := versionOf(t, d, obj, 5)
	got, err := part.Decode(v)
	if err != nil {
		t.Fatal(err)
	}
	whole, err = DecodeVersion(d, v)
	if err != nil {
		t.Fatal(err)
	}
	return got, whole
}

// TestPartIsTheObjectWithoutSomeFields, whatever is in the object.
func TestPartIsTheObjectWithoutSomeFields(t *testing.T) {
	part, err := Without(pods, "metadata.managedFields", "status", "spec.containers.env", "spec.volumes.name")
	if err != nil {
		t.Fatal(err)
	}
	each(t, []*kind.Definition{pods}, 50, func(t *testing.T, d *kind.Definition, obj object.Object) {
		got, whole := partAndWhole(t, part, d, obj)
		want := whole.(*corev1.Pod)
		want.ManagedFields, want.Status = nil, corev1.PodStatus{}
		for i := range want.Spec.Containers {
			want.Spec.Containers[i].Env = nil
		}
		for i := range want.Spec.Volumes {
			want.Spec.Volumes[i].Name = ""
		}
		if !equality.Semantic.DeepEqual(got, whole) {
			t.Errorf("got %v, want %v", got, whole)
		}
	})
	for _, path := range []string{"spec.none", "metadata.name.x", ""} {
		if _, err := Without(pods, path); err == nil {
			t.Errorf("there is no %q to leave out", path)
		}
	}
}

// TestPartIsNothingElse: a part of some fields has them as they are in the object, and no others.
func TestPartIsNothingElse(t *testing.T) {
	part, err := Only(pods, "metadata.name", "metadata.annotations", "spec.containers.env", "spec.containers.name", "spec.volumes", "status.phase")
	if err != nil {
		t.Fatal(err)
	}
	each(t, []*kind.Definition{pods}, 50, func(t *testing.T, d *kind.Definition, obj object.Object) {
		got, whole := partAndWhole(t, part, d, obj)
		pod := whole.(*corev1.Pod)
		want := &corev1.Pod{TypeMeta: pod.TypeMeta}
		want.Name, want.Annotations, want.ResourceVersion = pod.Name, pod.Annotations, pod.ResourceVersion
		for _, c := range pod.Spec.Containers {
			want.Spec.Containers = append(want.Spec.Containers, corev1.Container{Name: c.Name, Env: c.Env})
		}
		want.Spec.Volumes, want.Status.Phase = pod.Spec.Volumes, pod.Status.Phase
		if !equality.Semantic.DeepEqual(got, object.Object(want)) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

// TestPartOfAMap: its keys are there without what they stand for, and the other way round.
func TestPartOfAMap(t *testing.T) {
	part, err := Only(configMaps, "data.key", "binaryData.key", "metadata.labels.value")
	if err != nil {
		t.Fatal(err)
	}
	got, _ := partAndWhole(t, part, configMaps, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "c", Labels: map[string]string{"a": "b"}},
		Data:       map[string]string{"user": "jane", "none": ""}, BinaryData: map[string][]byte{"password": []byte("secret"), "none": nil},
	})
	want := &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{ResourceVersion: "5", Labels: map[string]string{"": "b"}},
		Data:       map[string]string{"user": "", "none": ""}, BinaryData: map[string][]byte{"password": {}, "none": {}},
	}
	if !equality.Semantic.DeepEqual(got, object.Object(want)) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, path := range []string{"data.user", "data.value.x", "binaryData.value.x"} {
		if _, err := Only(configMaps, path); err == nil {
			t.Errorf("there is no %q", path)
		}
	}
}

func TestPartsAreComparedByWhatIsInThem(t *testing.T) {
	part, err := Without(pods, "metadata.resourceVersion", "status.phase")
	if err != nil {
		t.Fatal(err)
	}
	v := func(revision int64, phase corev1.PodPhase, node string) *watchcache.Version {
		return versionOf(t, pods, &corev1.Pod{Spec: corev1.PodSpec{NodeName: node}, Status: corev1.PodStatus{Phase: phase}}, storage.Revision(revision))
	}
	if !part.Same(v(1, "Pending", "n"), v(20, "Running", "n")) {
		t.Error("what is left out makes a difference")
	}
	if part.Same(v(1, "Pending", "n"), v(1, "Pending", "m")) {
		t.Error("what is in it makes no difference")
	}
}

// TestPartIsWellFormed: lengths are written as short as they can be, and fields of types that the API does not use are in a part, or not, like others.
func TestPartIsWellFormed(t *testing.T) {
	part, err := Only(pods, "spec.containers.name")
	if err != nil {
		t.Fatal(err)
	}
	double := protowire.AppendFixed64(protowire.AppendTag(nil, 999, protowire.Fixed64Type), 7)
	long := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{
		{Name: "a", Image: strings.Repeat("x", 200)}, {Name: strings.Repeat("b", 300), Image: "y"}, {Image: strings.Repeat("x", 20_000)},
	}}}
	var want []byte
	for _, c := range long.Spec.Containers {
		name := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), c.Name)
		want = protowire.AppendBytes(protowire.AppendTag(want, 2, protowire.BytesType), name)
	}
	want = protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), want)
	if got := part.fields.appendTo(nil, append(bytes.Clone(double), versionOf(t, pods, long, 5).Blob...)); !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
	others, err := Without(pods, "spec")
	if err != nil {
		t.Fatal(err)
	}
	if got := others.fields.appendTo(nil, double); !bytes.Equal(got, double) {
		t.Errorf("got %x, want %x", got, double)
	}
}

func TestPartOfWhatDoesNotDecode(t *testing.T) {
	part, err := Without(pods, "metadata.managedFields")
	if err != nil {
		t.Fatal(err)
	}
	v := versionOf(t, pods, &corev1.Pod{}, 5)
	v.Blob = append(v.Blob, 0x0a, 0xff)
	if obj, err := part.Decode(v); err == nil {
		t.Errorf("decodes to %v", obj)
	}
}
