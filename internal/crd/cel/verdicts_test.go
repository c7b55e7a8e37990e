package cel

import (
	"errors"
	"strconv"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// A verdict is about an expression, the schema that it is about, and what it shall give: none stands for another.
func TestVerdictsAreNotMixedUp(t *testing.T) {
	number, word := `{"type":"integer","maximum":9,`, `{"type":"string","maxLength":9,`
	for range 2 { // the second time they are remembered
		check := func(schema, rule string, good bool) {
			t.Helper()
			if errs := Check(props(t, schema+`"x-kubernetes-validations":[`+rule+`]}`), field.NewPath("schema")); (len(errs) == 0) != good {
				t.Errorf("%s on %s: %v", rule, schema, errs)
			}
		}
		check(number, `{"rule":"self < 3"}`, true)
		check(word, `{"rule":"self < 3"}`, false)
		check(word, `{"rule":"true","messageExpression":"self + 'x'"}`, true)
		check(word, `{"rule":"self + 'x'"}`, false)
		check(number, `{"rule":"self <"}`, false)
		check(number, `{"rule":"oldSelf.hasValue()"}`, false)
		check(number, `{"rule":"oldSelf.hasValue()","optionalOldSelf":true}`, true)
	}
}

func TestVerdictsAreBounded(t *testing.T) {
	var v verdicts
	key := func(i int) (k verdictKey) {
		copy(k[:], strconv.Itoa(i))
		return k
	}
	first := errors.New("first")
	v.add(key(0), verdict{err: first})
	for i := range 10 * maxVerdicts {
		v.add(key(i+1), verdict{})
		if i%100 == 0 {
			if found, ok := v.find(key(0)); !ok || !errors.Is(found.err, first) {
				t.Fatalf("what is asked for was forgotten after %d others", i)
			}
		}
	}
	if n := len(v.young) + len(v.old); n > 2*maxVerdicts {
		t.Errorf("%d are kept", n)
	}
	if _, ok := v.find(key(1)); ok {
		t.Error("what nobody asks for stays")
	}
}
