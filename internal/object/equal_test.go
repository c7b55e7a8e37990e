package object

import (
	"math/rand"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/randfill"
)

// law: whatever is in two objects, Equal says what the library says.
func law[T any](t *testing.T, copied func(*T) *T) {
	t.Helper()
	for seed := range int64(60) {
		fill := func(seed int64, of any) {
			randfill.NewWithSeed(seed).NilChance(0.4).NumElements(0, 2).MaxDepth(8).Funcs(
				func(q *resource.Quantity, c randfill.Continue) {
					*q = *resource.NewMilliQuantity(c.Int63n(5), resource.DecimalSI)
				},
				func(t *metav1.Time, c randfill.Continue) { *t = metav1.NewTime(time.Unix(c.Int63n(3), 0)) },
				func(v *apiextensions.JSON, _ randfill.Continue) { v.Raw = []byte(`1`) },
			).Fill(of)
		}
		var a, b T
		fill(seed, &a)
		fill(seed+1, &b)
		check := func(name string, a, b *T) {
			t.Helper()
			if got, want := Equal(a, b), equality.Semantic.DeepEqual(a, b); got != want {
				t.Fatalf("seed %d, %s: %v, want %v", seed, name, got, want)
			}
		}
		check("others", &a, &b)
		check("a copy", &a, copied(&a))
		check("empty", &a, new(T))
		check("itself", &a, &a)
		check("nil", nil, &a)
		for range 20 { // one place differs
			c := copied(&a)
			randfill.New().RandSource(rand.NewSource(seed)).NilChance(0.95).NumElements(0, 1).MaxDepth(3).Fill(c)
			check("changed", &a, c)
		}
	}
}

func TestEqualIsSemanticEquality(t *testing.T) {
	law(t, (*corev1.Pod).DeepCopy)
	law(t, (*corev1.Secret).DeepCopy)
	law(t, (*appsv1.Deployment).DeepCopy)
	law(t, (*corev1.PersistentVolumeSpec).DeepCopy)
	law(t, (*metav1.ObjectMeta).DeepCopy)
}

func TestEqualBySense(t *testing.T) {
	now := time.Now()
	check := func(name string, want bool, a, b corev1.PodSpec) {
		t.Helper()
		if Equal(&a, &b) != want || equality.Semantic.DeepEqual(a, b) != want {
			t.Errorf("%s: want %v", name, want)
		}
	}
	amount := func(text string) corev1.PodSpec {
		return corev1.PodSpec{Overhead: corev1.ResourceList{"cpu": resource.MustParse(text)}}
	}
	check("two ways to write an amount", true, amount("1"), amount("1000m"))
	check("other amounts", false, amount("1"), amount("2"))
	check("an empty list and none", true, corev1.PodSpec{Containers: []corev1.Container{}}, corev1.PodSpec{})
	check("an empty struct and none", false, corev1.PodSpec{SecurityContext: &corev1.PodSecurityContext{}}, corev1.PodSpec{})
	check("another order", false, corev1.PodSpec{Containers: []corev1.Container{{Name: "a"}, {Name: "b"}}}, corev1.PodSpec{Containers: []corev1.Container{{Name: "b"}, {Name: "a"}}})
	here, there := metav1.NewTime(now), metav1.NewTime(now.In(time.FixedZone("there", 3600)))
	if !Equal(&here, &there) {
		t.Error("a moment is another one elsewhere")
	}
}

func BenchmarkEqual(b *testing.B) {
	p := corev1.PodSpec{NodeSelector: map[string]string{"a": "b"}, Containers: []corev1.Container{
		{Name: "a", Env: []corev1.EnvVar{{Name: "x"}, {Name: "y"}}, Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("1")}}}, {Name: "b"}}}
	q := *p.DeepCopy()
	b.Run("compiled", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			Equal(&p, &q)
		}
	})
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			equality.Semantic.DeepEqual(p, q)
		}
	})
}
