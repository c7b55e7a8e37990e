package device

import (
	"errors"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	for text, want := range map[string]string{
		`device.driver == "gpu.example.com" && device.attributes["gpu.example.com"].model == "a100"`:                  "",
		`device.capacity["gpu.example.com"].memory.isGreaterThan(quantity("8Gi")) && device.allowMultipleAllocations`: "",
		`device.attributes["a"].version.isLessThan(semver("1.2.3"))`:                                                  "",
		`device.attributes["a"].flag`:                                             "",
		`cel.bind(d, device.attributes["a"], d.x && d.y)`:                         "",
		`"a" in device.attributes && device.attributes.all(k, k.startsWith("a"))`: "",
		`1`:                           "must evaluate to bool or the unknown type, not int",
		`device.driver`:               "must evaluate to bool or the unknown type, not string",
		`device.nope == 1`:            "undefined field 'nope'",
		`device.capacity["a"].b == 1`: "no matching overload for '_==_' applied to '(kubernetes.Quantity, int)'",
		`nope`:                        "undeclared reference to 'nope'",
	} {
		err := Check(text)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	dear := `device.attributes.all(a, device.attributes.all(b, device.attributes.all(c, device.attributes.all(d, a == b && c == d))))`
	if err := Check(dear); !errors.Is(err, ErrTooDear) {
		t.Errorf("%s: %v", dear, err)
	}
}
