package object

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestKeys(t *testing.T) {
	for _, one := range []struct{ namespace, name, key string }{{"a", "web", "a/web"}, {"", "node", "node"}, {"a", "with.dots", "a/with.dots"}} {
		if got := Key(one.namespace, one.name); got != one.key {
			t.Errorf("the key of %s in %s is %s", one.name, one.namespace, got)
		}
	}
}

func TestCopyIsDeepAndKeepsTheType(t *testing.T) {
	p := &corev1.Pod{}
	p.Labels = map[string]string{"a": "b"}
	Copy(p).Labels["a"] = "c"
	u := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"labels": map[string]any{"a": "b"}}}}
	var o Object = u
	Copy(o).SetLabels(map[string]string{"a": "c"})
	if p.Labels["a"] != "b" || u.GetLabels()["a"] != "b" {
		t.Error("the copy shares memory with the original")
	}
}
