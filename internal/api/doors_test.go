package api

import (
	"context"
	"slices"
	"testing"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestWhatADoorTakesBackNobodyOwns: metadata that a subresource takes back from whoever writes it is among its reset fields,
// else an apply through it would own what it cannot change (KEP-555, "reset fields").
func TestWhatADoorTakesBackNobodyOwns(t *testing.T) {
	looked := 0
	for _, d := range kind.NewCatalog(Groups(testOptions())...).All() {
		for name, sub := range d.Subresources {
			if sub.View == nil || sub.View.Prepare == nil || len(sub.View.OwnsOnly) > 0 {
				continue
			}
			for _, path := range takenBack(d, sub.View) {
				looked++
				if !slices.Contains(sub.View.ResetFields, "metadata") && !slices.Contains(sub.View.ResetFields, path) {
					t.Errorf("%s/%s takes back %s, and is said to reset %q", d.Plural, name, path, sub.View.ResetFields)
				}
			}
		}
	}
	if looked == 0 {
		t.Error("no subresource takes anything back")
	}
}

// takenBack are the fields of metadata that a view does not let pass.
func takenBack(d *kind.Definition, view *kind.View) (paths []string) {
	obj, old := d.Hub().New(), d.Hub().New()
	for _, o := range []object.Object{obj, old} {
		o.SetName("x")
	}
	obj.SetLabels(map[string]string{"a": "b"})
	obj.SetAnnotations(map[string]string{"a": "b"})
	obj.SetFinalizers([]string{"example.com/a"})
	obj.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "a", UID: "u"}})
	view.Prepare(context.Background(), obj, old)
	for path, left := range map[string]int{
		"metadata.labels": len(obj.GetLabels()), "metadata.annotations": len(obj.GetAnnotations()),
		"metadata.finalizers": len(obj.GetFinalizers()), "metadata.ownerReferences": len(obj.GetOwnerReferences()),
	} {
		if left == 0 {
			paths = append(paths, path)
		}
	}
	return paths
}
