package engine

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// What is fine at a look has nothing wrong with it.
func TestFineAtALook(t *testing.T) {
	rand := rand.New(rand.NewPCG(1, 2))
	one := func(all ...string) string { return all[rand.IntN(len(all))] }
	definitions := []*kind.Definition{
		{Scope: kind.Namespaced}, {Scope: kind.Cluster}, {Scope: kind.Namespaced, CheckName: apivalidation.NameIsDNS1035Label},
	}
	now := metav1.NewTime(time.Now())
	made := func() object.Object {
		o := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Name: one("a", "a", "a.b", "1a", "", "a-", "A"), GenerateName: one("", "", "a-", "a.", "-", "a--", "1-", "a.-", "a.b-"), Namespace: one("a", "a", "", "a.b", "A"),
			ResourceVersion: one("1", "1", ""), Generation: int64(rand.IntN(4) - 1), UID: types.UID(one("u", "u", "v")),
			CreationTimestamp: metav1.NewTime(now.Add(time.Duration(rand.IntN(2)) * time.Second)),
		}}
		if rand.IntN(4) == 0 {
			o.DeletionTimestamp = &now
		}
		if rand.IntN(4) == 0 {
			o.DeletionGracePeriodSeconds = ptr.To(rand.Int64N(2))
		}
		if rand.IntN(4) == 0 {
			o.Finalizers = []string{one("a.b/c", "kubernetes", "x", "-")}
		}
		if rand.IntN(4) == 0 {
			o.Labels = map[string]string{one("a", "-"): one("", "b", "-")}
		}
		return o
	}
	path := field.NewPath("metadata")
	var fine [2]int
	for range 100_000 {
		d, obj, old := definitions[rand.IntN(len(definitions))], made(), made()
		if fineNew(d, obj) {
			fine[0]++
			errs := append(apivalidation.ValidateObjectMetaAccessor(obj, d.Namespaced(), checkName(d), path), validateFinalizers(d, obj)...)
			if len(errs) > 0 {
				t.Fatalf("%v is fine as a new one, but %v", obj, errs)
			}
		}
		if fineUpdate(obj, old) {
			fine[1]++
			errs := append(apivalidation.ValidateObjectMetaAccessorUpdate(obj, old, path), validateFinalizers(d, obj)...)
			if len(errs) > 0 {
				t.Fatalf("%v is fine after %v, but %v", obj, old, errs)
			}
		}
	}
	if fine[0] < 100 || fine[1] < 100 {
		t.Errorf("the test tests little: %d creates and %d updates were fine", fine[0], fine[1])
	}
	ordinary := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-x2z", GenerateName: "web-", Namespace: "a"}}
	if !fineNew(definitions[0], ordinary) {
		t.Error("what is ordinary is not fine")
	}
}
