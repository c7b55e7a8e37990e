package check

import (
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

func TestChoice(t *testing.T) {
	bad := func(at *field.Path) field.ErrorList { return field.ErrorList{field.Required(at.Child("x"), "")} }
	choose := func(names ...string) string {
		c := Choice{At: field.NewPath("v"), Of: "volume type", Misspelt: map[string]string{"c": "C"}}
		c.See(false, "a", bad)
		for _, name := range names {
			c.See(true, name, bad)
		}
		text := ""
		for _, err := range c.Required() {
			text += err.Error() + "\n"
		}
		return text
	}
	for _, x := range []struct {
		names []string
		want  string
	}{
		{nil, "v: Required value: must specify a volume type\n"},
		{[]string{"c"}, "v.c.x: Required value\n"},
		{[]string{"a", "b", "c"}, "v.a.x: Required value\nv.b: Forbidden: may not specify more than 1 volume type\nv.C: Forbidden: may not specify more than 1 volume type\n"},
	} {
		if got := choose(x.names...); got != x.want {
			t.Errorf("%v: got %q, want %q", x.names, got, x.want)
		}
	}
}
