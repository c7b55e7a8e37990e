package watchcache

import (
	"maps"
	"testing"

	"k8s.io/apimachinery/pkg/labels"
)

func TestLabels(t *testing.T) {
	for _, set := range []map[string]string{
		nil,
		{"a": "1"},
		{"app": "web", "tier": "", "a.b/c": "x", "z": "last"},
		{"": "", "a": ""},
	} {
		l := LabelsOf(set)
		if got := l.Map(); !maps.Equal(got, set) {
			t.Errorf("%v became %v", set, got)
		}
		if l != LabelsOf(maps.Clone(set)) {
			t.Errorf("%v: equal sets differ", set)
		}
		for _, key := range []string{"a", "app", "tier", "a.b/c", "z", "", "none", "ap"} {
			want, exists := set[key]
			if got, ok := l.Lookup(key); got != want || ok != exists || l.Has(key) != exists || l.Get(key) != want {
				t.Errorf("%v: %q is %q, %t", set, key, got, ok)
			}
		}
		for _, text := range []string{"a", "!a", "app=web", "app in (web,db),z", "tier=", "tier!=x", "none notin (q)"} {
			s, err := labels.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := s.Matches(l), s.Matches(labels.Set(set)); got != want {
				t.Errorf("%v: %s matches %t, want %t", set, text, got, want)
			}
		}
	}
	if LabelsOf(map[string]string{"a": "1"}) == LabelsOf(map[string]string{"a": "2"}) {
		t.Error("different sets are equal")
	}
}
