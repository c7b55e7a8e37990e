package podspec

import (
	"strings"
	"testing"

	"github.com/timonel/timonel/internal/feature"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// TestGatedFields: a field of a feature is kept while the feature is on, or was used before it was turned off.
func TestGatedFields(t *testing.T) {
	on, err := feature.ParseGates([]string{"GenericWorkload=true"})
	if err != nil {
		t.Fatal(err)
	}
	grouped := func() *corev1.PodSpec {
		return &corev1.PodSpec{
			SchedulingGroup:    &corev1.PodSchedulingGroup{PodGroupName: ptr.To("g")},
			EvictionResponders: []corev1.EvictionResponder{{Name: "example.com/a"}},
		}
	}
	for name, c := range map[string]struct {
		rules Rules
		old   *corev1.PodSpec
		want  bool
	}{
		"off":      {want: false},
		"on":       {rules: Rules{Gates: on}, want: true},
		"off, new": {old: &corev1.PodSpec{}, want: false},
		"in use":   {old: &corev1.PodSpec{SchedulingGroup: &corev1.PodSchedulingGroup{}}, want: true},
	} {
		s := grouped()
		c.rules.DropDisabled(s, c.old)
		if kept := s.SchedulingGroup != nil; kept != c.want {
			t.Errorf("%s: kept %v", name, kept)
		}
		if s.EvictionResponders != nil {
			t.Errorf("%s: a field of another feature is kept", name)
		}
	}
}

func TestResponders(t *testing.T) {
	for _, c := range []struct {
		name     string
		priority int32
		want     string
	}{
		{"example.com/a", 1000, ""},
		{"example.com/a", 100_000, ""},
		{"example.com/a", 999, "reserved"},
		{"imperative.k8s.io/a", 999, ""},
		{"k8s.example.com/a", 0, "reserved"},
		{"example.com/a", 100_001, "less than or equal"},
		{"example.com/a", -1, "greater than or equal"},
		{"a", 1000, "prefix"},
	} {
		checker := checker{spec: &corev1.PodSpec{EvictionResponders: []corev1.EvictionResponder{{Name: c.name, Priority: &c.priority}}}}
		errs := checker.checkResponders(nil)
		if c.want == "" && len(errs) > 0 || c.want != "" && (len(errs) != 1 || !strings.Contains(errs[0].Error(), c.want)) {
			t.Errorf("%s %d: %v, want %q", c.name, c.priority, errs, c.want)
		}
	}
}

func TestSchedulingGroup(t *testing.T) {
	for name, ok := range map[string]bool{"g": true, "a.b": true, "A b": false, "": false} {
		if errs := checkSchedulingGroup(&corev1.PodSchedulingGroup{PodGroupName: &name}, nil); (len(errs) == 0) != ok {
			t.Errorf("%q: %v", name, errs)
		}
	}
	if errs := checkSchedulingGroup(&corev1.PodSchedulingGroup{}, nil); len(errs) != 1 {
		t.Errorf("a group without a name: %v", errs)
	}
}
